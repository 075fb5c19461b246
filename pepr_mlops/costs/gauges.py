"""What is read off while a run goes: energy, time, memory, carbon."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pepr_mlops.costs.carbon import Intensity
from pepr_mlops.costs.memory import Memory
from pepr_mlops.costs.meters import Meter
from pepr_mlops.costs.totals import LOST, Costs, Window, overall


class Gauges:
    """A run's meter and memory, and the costs they have added up to so far."""

    def __init__(
        self, meter: Meter, memory: Memory, intensity: Intensity | None, pue: float
    ) -> None:
        self.meter = meter
        self.costs = Costs(meter.sources)
        self._memory, self._intensity, self._pue = memory, intensity, pue
        self._peaks: dict[str, float] = {}  # of earlier attempts

    def state(self) -> dict[str, Any]:
        """Costs and peaks so far, for `resume`; of numbers and texts only."""
        return {"costs": self.costs.state(), "peaks": self._all_peaks()}

    def resume(self, state: Mapping[str, Any]) -> None:
        """Go on from the costs of earlier attempts; raises `ValueError` as `Costs.resume`."""
        self.costs.resume(state["costs"])
        self._peaks = dict(state["peaks"])

    def end(self, phase: str, where: str) -> Window:
        """Close the meter's window and count it as `phase`; `where` names it in reasons."""
        window = self.meter.end()
        self.costs.add(phase, window, where)
        return window

    def metrics(self) -> dict[str, float]:
        """All costs and peaks so far, by the names of `names.METRICS`."""
        return self.costs.metrics(self._intensity, self._pue) | self._all_peaks()

    def _all_peaks(self) -> dict[str, float]:
        now = self._memory.metrics()
        return {
            name: max(peaks[name] for peaks in (now, self._peaks) if name in peaks)
            for name in now | self._peaks
        }

    @property
    def energy_source(self) -> str:
        """How the energy of the run is known: `lost` when it is so for a part of the run only."""
        lost = self.costs.tags({}).get("pepr.energy_source") == LOST
        return LOST if lost else overall(self.meter.sources)
