"""What is read off while a run goes: energy, time, memory, carbon."""

from __future__ import annotations

from pepr_mlops.carbon import Intensity
from pepr_mlops.costs import LOST, Costs, Window, overall
from pepr_mlops.memory import Memory
from pepr_mlops.meter import Meter


class Gauges:
    """A run's meter and memory, and the costs they have added up to so far."""

    def __init__(
        self, meter: Meter, memory: Memory, intensity: Intensity | None, pue: float
    ) -> None:
        self.meter = meter
        self.costs = Costs(meter.sources)
        self._memory, self._intensity, self._pue = memory, intensity, pue

    def end(self, phase: str, where: str) -> Window:
        """Close the meter's window and count it as `phase`; `where` names it in reasons."""
        window = self.meter.end()
        self.costs.add(phase, window, where)
        return window

    def metrics(self) -> dict[str, float]:
        """All costs and peaks so far, by the names of `schema.METRICS`."""
        return self.costs.metrics(self._intensity, self._pue) | self._memory.metrics()

    @property
    def energy_source(self) -> str:
        """How the energy of the run is known: `lost` when it is so for a part of the run only."""
        lost = self.costs.tags({}).get("pepr.energy_source") == LOST
        return LOST if lost else overall(self.meter.sources)
