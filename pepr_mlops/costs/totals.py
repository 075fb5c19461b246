"""The costs of a run so far: takes windows, returns metrics and tags. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from typing import Any

from pepr_mlops.costs.carbon import Intensity, gco2e
from pepr_mlops.names import LOST, PHASES, Source, memory_metric

J_PER_WH = 3600.0
_TICK_S = 0.1  # NVML's counter moves every 20 to 100 ms: a window is off by up to one tick
_EXACT = 0.05  # share of the energy
BUSY = 0.1  # share of the CPUs; others that use less are not mentioned


@dataclass(frozen=True)
class Window:
    """What one block took: wall seconds, joules of each component read, and why others have none.

    Each component of the meter's `sources` is either in `joules` or in `missing`. `paused_s` are
    more seconds, in which the process was stopped or its machine slept; counters ran on.
    """

    time_s: float
    joules: Mapping[str, float]
    missing: Mapping[str, str]
    paused_s: float = 0.0


def others_text(used: float, cpus: float) -> str:
    """For a training whose CPUs other programs used."""
    return f"other programs used {used:.1f} of {cpus:g} CPUs: time and energy are overstated"


def machine_text(used: float, cpus: float) -> str:
    """For a training on a machine whose other CPUs were used: their energy counts, too."""
    return f"other programs used {used:.1f} of the machine's {cpus:g} CPUs: energy is overstated"


def paused_text(paused_s: float, measured: bool) -> str:
    """For a training whose process was stopped; sensors continued to count."""
    left_out = "time leaves that out, measured energy does not" if measured else "left out"
    return f"stopped or asleep for {paused_s:,.0f} s of the training: {left_out}"


def cautions(tags: Mapping[str, str]) -> list[str]:
    """A sentence for each thing that disturbed a run, from its tags at the end."""
    found = []
    used, cpus = float(tags.get("pepr.cpu_others", 0)), float(tags.get("pepr.cpu_others_of", 1))
    used_all = float(tags.get("pepr.machine_cpu_others", 0))
    all_cpus = float(tags["pepr.cpu_count"])
    if used > BUSY * cpus and tags["pepr.memory"] == memory_metric("cpu"):
        found.append(others_text(used, cpus))
    elif used_all > BUSY * all_cpus and "cpu=" in tags.get("pepr.energy_components", ""):
        found.append(machine_text(used_all, all_cpus))
    if "pepr.node_share" in tags:
        found.append(tags["pepr.node_share"])
    if tags.get("pepr.gpu_other_processes", "none") != "none":
        found.append(f"other programs used the GPU: {tags['pepr.gpu_other_processes']}")
    if "pepr.paused_s" in tags:
        measured = "measured" in tags["pepr.energy_source"]
        found.append(paused_text(float(tags["pepr.paused_s"]), measured))
    return found


def overall(sources: Mapping[str, Source]) -> str:
    """How the energy of all these components is known: `none` without any."""
    return " and ".join(sorted(set(sources.values()))) or "none"


@dataclass
class Costs:
    """Adds up windows by phase.

    A component that misses one window has no energy from then on, nor has the sum of the phase.
    """

    sources: Mapping[str, Source]
    time_s: dict[str, float] = field(default_factory=dict)
    paused_s: dict[str, float] = field(default_factory=dict)
    windows: dict[str, int] = field(default_factory=dict)
    joules: dict[str, dict[str, float]] = field(default_factory=dict)
    missing: dict[tuple[str, str], str] = field(default_factory=dict)  # by phase and component

    def state(self) -> dict[str, Any]:
        """The costs so far, for `resume`; numbers and texts only."""
        return {**asdict(self), "missing": [[*key, why] for key, why in self.missing.items()]}

    def resume(self, state: Mapping[str, Any]) -> None:
        """Continue from the costs of earlier attempts at the same training.

        Raises `ValueError` if they read other components or sources: such energies do not add up.
        """
        if state["sources"] != dict(self.sources):
            raise ValueError(f"energy was {state['sources']} and is {dict(self.sources)}")
        self.time_s, self.paused_s = dict(state["time_s"]), dict(state["paused_s"])
        self.windows, self.joules = dict(state["windows"]), deepcopy(state["joules"])
        self.missing = {(phase, part): why for phase, part, why in state["missing"]}

    def add(self, phase: str, window: Window, where: str) -> None:
        """Count a window of one of PHASES; `where` names it in reasons, such as `epoch 3`."""
        self.time_s[phase] = self.time_s.get(phase, 0.0) + window.time_s
        self.paused_s[phase] = self.paused_s.get(phase, 0.0) + window.paused_s
        self.windows[phase] = self.windows.get(phase, 0) + 1
        joules = self.joules.setdefault(phase, {})
        for component in self.sources:
            if component in window.joules:
                joules[component] = joules.get(component, 0.0) + window.joules[component]
            else:
                reason = window.missing.get(component, "no reading")
                self.missing.setdefault((phase, component), f"{where}: {reason}")

    def energy_wh(self, phase: str) -> float | None:
        """Watt-hours of the phase, all components, or None if any is missing or none is read."""
        joules = self._known(phase)
        complete = joules and joules.keys() == self.sources.keys()
        return sum(joules.values()) / J_PER_WH if complete else None

    def all_wh(self) -> float | None:
        """Watt-hours of all phases so far, or None if any is not known."""
        parts = [self.energy_wh(phase) for phase in self.time_s]
        return None if None in parts else sum(part for part in parts if part is not None)

    def _known(self, phase: str) -> dict[str, float]:
        """Joules of the components that missed no window and whose counter has moved."""
        return {
            component: joules
            for component, joules in self.joules.get(phase, {}).items()
            if (phase, component) not in self.missing and joules > 0
        }

    def metrics(self, intensity: Intensity | None, pue: float) -> dict[str, float]:
        """Everything known so far, by the names of `names.METRICS`."""
        found: dict[str, float] = {}
        for phase in PHASES:
            if phase in self.time_s:
                found[f"time/{phase}_s"] = self.time_s[phase]
            for component, joules in self._known(phase).items():
                found[f"energy/{phase}_{component}_wh"] = joules / J_PER_WH
            total = self.energy_wh(phase)
            if total is not None:
                found[f"energy/{phase}_wh"] = total
        train_wh = self.energy_wh("train")
        if train_wh is not None and intensity is not None:
            found["carbon/train_gco2e"] = gco2e(train_wh, intensity, pue)
        return found

    def tags(self, notes: Mapping[str, str]) -> dict[str, str]:
        """Limits of the costs at the end: why components have no energy (`notes`: why some are not
        read), whether energy was lost during the run, how coarse a counter is for short windows,
        and how long the process was stopped during training."""
        tags = {}
        if self.paused_s.get("train"):
            tags["pepr.paused_s"] = f"{self.paused_s['train']:.1f}"
        lost = [f"{part} ({phase}): {why}" for (phase, part), why in self.missing.items()]
        why = [*(f"{component}: {note}" for component, note in notes.items()), *lost]
        if why:
            tags["pepr.energy_missing"] = "; ".join(why)
        time_s = self.time_s.get("train", 0.0)
        if self.sources and time_s and self.energy_wh("train") is None:
            tags["pepr.energy_source"] = LOST
        elif overall(self.sources) == "measured" and time_s:
            error = self.windows["train"] * _TICK_S / time_s
            if error > _EXACT:
                tags["pepr.energy_caution"] = (
                    f"{self.windows['train']} windows in {time_s:.3g} s of training: a counter "
                    f"that moves every {_TICK_S} s is off by up to {error:.0%}"
                )
        return tags
