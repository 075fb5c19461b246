"""Records the energy, time, memory and carbon of a run, and what disturbed it.

A block of work is measured so:

    recorder = Recorder.open(spec, Device.resolve(spec.device))
    with recorder.phase("train", "epoch 3") as phase:
        ...
    phase.window.time_s
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from pepr_mlops.costs import carbon
from pepr_mlops.costs.device import Device, other_processes_tag
from pepr_mlops.costs.meters import open_meter
from pepr_mlops.costs.meters.meter import Meter
from pepr_mlops.costs.other_load import OtherLoad
from pepr_mlops.costs.totals import Costs, Window, overall
from pepr_mlops.process import node_share, uninterrupted
from pepr_mlops.spec import RunSpec


class Phase:
    """A block of work; `window` has its costs once it has ended."""

    window: Window


class Recorder:
    """The meter and the memory of one run on `device`, and the costs so far.

    `grid` is the intensity of the electricity, `pue` the overhead of the building.
    """

    def __init__(
        self, device: Device, meter: Meter, grid: carbon.Intensity | None, pue: float
    ) -> None:
        self.device, self.meter = device, meter
        self.costs = Costs(meter.sources)
        self._grid, self._pue = grid, pue
        self.memory = device.memory()
        self._earlier_peaks: dict[str, float] = {}
        self._processes: set[str] | None = None
        self._load: OtherLoad | None = None
        self._load_tags: dict[str, str] = {}
        self._open_phase: str | None = None

    @classmethod
    def open(cls, spec: RunSpec, device: Device, *, host_is_shared: bool = False) -> Recorder:
        """The recorder that a spec needs on a device.

        With `host_is_shared`, and on a node that Slurm shares out, a run on a GPU counts the GPU's
        energy alone, since others use the CPU and the memory too. Raises `WrongUse` for a country
        without a known intensity, and as `open_meter`.
        """
        grid = carbon.resolve(spec.country, spec.carbon_intensity)
        shared = host_is_shared or node_share() is not None
        host = not (shared and device.kind == "cuda")
        return cls(device, open_meter(spec.energy, device, host=host), grid, spec.pue)

    @property
    def source(self) -> str:
        """How the energy is known, such as `measured`; `closing_tags` names one that was lost."""
        return overall(self.meter.sources)

    @property
    def unknown_energy(self) -> str | None:
        """A sentence on why the energy of the device is not known; None if it is, or is off."""
        notes = self.meter.notes
        if self.meter.sources or not notes:
            return None
        part, text = {"cuda": ("gpu", "the GPU"), "mps": ("soc", "the chip")}.get(
            self.device.kind, ("cpu", "this machine")
        )
        return f"energy of {text} is not known: {notes.get(part) or '; '.join(notes.values())}"

    def opening_tags(self, experiment: str, performance: str) -> dict[str, str]:
        """What the run is compared by, how its energy is known, and the machine."""
        tags = {
            "pepr.experiment": experiment,
            "pepr.performance": performance,
            "pepr.memory": self.device.memory_metric,
            "pepr.energy_source": self.source,
            "pepr.energy_method": self.meter.method,
        }
        if "cpu" in self.meter.sources and (share := node_share()) is not None:
            tags["pepr.node_share"] = (
                "Slurm gave it {} of the node's {} CPUs: energy is that of the full node, also of "
                "other jobs"
            ).format(*share)
        if sources := self.meter.sources:
            tags["pepr.energy_components"] = ",".join(f"{c}={s}" for c, s in sources.items())
        tags |= self.meter.details
        return {**tags, **carbon.tags(self._grid, self._pue), **self.device.describe()}

    def watch_others(self, earlier: Mapping[str, str]) -> None:
        """Record other programs from now on; `earlier` are the tags of an earlier attempt."""
        self._processes = self.device.other_processes()
        self._load = OtherLoad(earlier)

    def stop_watching(self) -> None:
        """Stop counting the CPUs' other programs; `closing_tags` does it otherwise."""
        if self._load is not None:
            self._load_tags, self._load = self._load.tags(), None

    def closing_tags(self, *, failed: bool = False) -> dict[str, str]:
        """Which energy is missing and why, and which other programs used the machine.

        After a failure the GPU is not queried: it may be gone.
        """
        self.stop_watching()
        tags = self.costs.tags(self.meter.notes) | self._load_tags
        if not failed:
            tags |= other_processes_tag(self._processes, self.device.other_processes())
        return tags

    def begin_window(self, phase: str) -> None:
        """Start to measure one of `names.PHASES`."""
        self._open_phase = phase
        self.meter.begin(phase)

    def end_window(self, where: str) -> Window:
        """Close and count the window; `where` names it in reasons, such as `epoch 3`."""
        assert self._open_phase is not None
        with uninterrupted():  # what was measured is counted
            window = self.meter.end()
            self.costs.add(self._open_phase, window, where)
            self._open_phase = None
        return window

    def end_open_window(self, where: str) -> None:
        """Count the window that is open, if any; raises where the device no longer answers."""
        if self._open_phase is not None:
            self.end_window(where)

    @contextmanager
    def phase(self, name: str, where: str) -> Iterator[Phase]:
        """Measure a block of work, which also counts if it fails."""
        phase = Phase()
        try:
            self.begin_window(name)
            yield phase
        except BaseException:
            with suppress(Exception):  # the device may be gone: show the first error
                self.end_open_window(where)
            raise
        phase.window = self.end_window(where)

    def metrics(self) -> dict[str, float]:
        """All costs and peaks so far, by the names of `names.METRICS`."""
        return self.costs.metrics(self._grid, self._pue) | self._peaks()

    def state(self) -> dict[str, Any]:
        """Costs and peaks so far, for `resume`; numbers and texts only."""
        return {"costs": self.costs.state(), "peaks": self._peaks()}

    def resume(self, state: Mapping[str, Any]) -> None:
        """Continue from the costs of earlier attempts; raises `ValueError` as `Costs.resume`."""
        self.costs.resume(state["costs"])
        self._earlier_peaks = dict(state["peaks"])

    def _peaks(self) -> dict[str, float]:
        now = self.memory.metrics()
        return {
            name: max(peaks[name] for peaks in (now, self._earlier_peaks) if name in peaks)
            for name in now | self._earlier_peaks
        }
