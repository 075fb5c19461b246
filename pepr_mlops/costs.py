"""What a run has cost so far: windows in, metrics and tags out. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from pepr_mlops.carbon import Intensity, gco2e
from pepr_mlops.schema import PHASES, Source

J_PER_WH = 3600.0
# NVML's counter moves every 20 to 100 ms: in shorter windows a tick is over 5 % of the energy.
_TICK_S = 0.1
_EXACT_S = 2.0


@dataclass(frozen=True)
class Window:
    """What one block took: wall seconds, joules of each component read, and why others have none.

    `joules` and `missing` have no component in common; together they hold every component of the
    meter's `sources`.
    """

    time_s: float
    joules: Mapping[str, float]
    missing: Mapping[str, str]


def overall(sources: Mapping[str, Source]) -> str:
    """How an energy is known that adds up these components: `none` without any."""
    return " and ".join(sorted(set(sources.values()))) or "none"


@dataclass
class Costs:
    """Adds up windows by phase.

    A component that misses one window has no energy from then on, nor has the sum of the phase:
    a part is not passed off as the whole.
    """

    sources: Mapping[str, Source]
    time_s: dict[str, float] = field(default_factory=dict)
    shortest_s: dict[str, float] = field(default_factory=dict)  # the shortest window of a phase
    joules: dict[str, dict[str, float]] = field(default_factory=dict)
    missing: dict[tuple[str, str], str] = field(default_factory=dict)  # by phase and component

    def add(self, phase: str, window: Window, where: str) -> None:
        """Count a window of `train` or `eval`; `where` names it in reasons, such as `epoch 3`."""
        self.time_s[phase] = self.time_s.get(phase, 0.0) + window.time_s
        self.shortest_s[phase] = min(self.shortest_s.get(phase, math.inf), window.time_s)
        of = self.joules.setdefault(phase, {})
        for component in self.sources:
            if component in window.joules:
                of[component] = of.get(component, 0.0) + window.joules[component]
            else:
                reason = window.missing.get(component, "no reading")
                self.missing.setdefault((phase, component), f"{where}: {reason}")

    def energy_wh(self, phase: str) -> float | None:
        """Watt-hours of the phase, all components, or None if any is missing or none is read."""
        of = self.joules.get(phase)
        if not of or any((phase, component) in self.missing for component in self.sources):
            return None
        return sum(of.values()) / J_PER_WH

    def metrics(self, intensity: Intensity | None, pue: float) -> dict[str, float]:
        """Everything known so far, by the names of `schema.METRICS`."""
        found: dict[str, float] = {}
        for phase in PHASES:
            if phase in self.time_s:
                found[f"time/{phase}_s"] = self.time_s[phase]
            for component, joules in self.joules.get(phase, {}).items():
                if (phase, component) not in self.missing:
                    found[f"energy/{phase}_{component}_wh"] = joules / J_PER_WH
            total = self.energy_wh(phase)
            if total is not None:
                found[f"energy/{phase}_wh"] = total
        train_wh = self.energy_wh("train")
        if train_wh is not None and intensity is not None:
            found["carbon/train_gco2e"] = gco2e(train_wh, intensity, pue)
        return found

    def tags(self, notes: Mapping[str, str]) -> dict[str, str]:
        """What to know about the energy: why parts of it have none, `notes` among the reasons,
        and how coarse a counter is for windows as short as these."""
        tags = {}
        lost = [f"{part} ({phase}): {why}" for (phase, part), why in self.missing.items()]
        why = [*(f"{component}: {note}" for component, note in notes.items()), *lost]
        if why:
            tags["pepr.energy_missing"] = "; ".join(why)
        shortest = self.shortest_s.get("train", math.inf)
        if overall(self.sources) == "measured" and shortest < _EXACT_S:
            tags["pepr.energy_caution"] = (
                f"training windows as short as {shortest:.2g} s: a counter that moves every "
                f"{_TICK_S} s is off by up to {_TICK_S / shortest:.0%} of one"
            )
        return tags
