"""Forecasts the costs of all epochs of a training from those that are over. Pure.

The first epoch of a process takes longer than the others: its first steps allocate memory and
choose or compile algorithms, and so does a last batch of another size. Forecasts therefore use the
steps in between. The costs of the first epoch stay as they were measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median

from pepr_mlops.costs.totals import J_PER_WH, Costs, Window

WARM_STEPS = 4  # a CUDA graph records the fourth
_COUNTED_S = 3.0  # counters move ten times a second: differences over less are off by over 3%


@dataclass(frozen=True)
class Cost:
    """Wall seconds, and watt-hours of all components or None where they are not known."""

    time_s: float
    energy_wh: float | None


def window_cost(window: Window, usual: Cost | None = None) -> Cost:
    """The cost of a window; with `usual` its cost if all steps were like these, without a warm-up.

    If `usual` has no energy, it gets the mean power of the window. The energy is None if a counter
    of the window has not moved.
    """
    joules = list(window.joules.values())
    known = bool(joules) and not window.missing and all(j > 0 for j in joules)
    energy_wh = sum(joules) / J_PER_WH if known else None
    if usual is None or energy_wh is None:
        return Cost(window.time_s if usual is None else usual.time_s, energy_wh)
    if usual.energy_wh is not None:
        return usual
    return Cost(usual.time_s, energy_wh * usual.time_s / window.time_s)


@dataclass(frozen=True)
class Mark:
    """A moment of an epoch: images trained on so far, the clock, and the energy so far or None."""

    images: int
    time_s: float
    spent_j: float | None


def steady_steps(steps: int) -> tuple[int, ...]:
    """The steps, from 1, after which the usual steps of a first epoch begin and end, if any."""
    begin, end = min(WARM_STEPS, steps // 2), steps - 1
    return (begin, end) if 0 < begin < end else ()


def usual_cost(marks: Sequence[Mark], images: int) -> Cost | None:
    """The cost of an epoch of `images` at the rate between two marks; None without two.

    Steps draw more power than the warm-up. Their energy is known where the marks are far enough
    apart for counters.
    """
    if len(marks) < 2:
        return None
    begin, end = marks
    share = images / (end.images - begin.images)
    took_s = end.time_s - begin.time_s
    energy_wh = None
    if begin.spent_j is not None and end.spent_j is not None and took_s >= _COUNTED_S:
        joules = end.spent_j - begin.spent_j
        energy_wh = joules / J_PER_WH * share if joules > 0 else None
    return Cost(took_s * share, energy_wh)


@dataclass
class Forecast:
    """The costs of a training of `epochs` epochs, from those that this process has done."""

    epochs: int
    _trained: list[Cost] = field(default_factory=list)
    _evaluated_s: list[float] = field(default_factory=list)

    @property
    def empty(self) -> bool:
        """Whether this process has not finished an epoch yet."""
        return not self._trained

    def add(self, trained: Cost, evaluated_s: float) -> None:
        """Count an epoch; `trained` leaves out the warm-up of the first one, if known."""
        self._trained.append(trained)
        self._evaluated_s.append(evaluated_s)

    def metrics(self, done: int, costs: Costs) -> dict[str, float]:
        """The costs of all epochs once `done` of them have cost `costs`, by the names of
        `names.METRICS`; nothing after the last.

        Each remaining epoch is expected to take the median of those added, at least one. The energy
        is missing if the energy so far, or that of every added epoch, is not known.
        """
        left = self.epochs - done
        if left <= 0:
            return {}
        found = {
            "forecast/train_s": costs.time_s["train"]
            + left * median(epoch.time_s for epoch in self._trained),
            "forecast/eval_s": costs.time_s["eval"] + left * median(self._evaluated_s),
        }
        so_far_wh = costs.energy_wh("train")
        known_wh = [epoch.energy_wh for epoch in self._trained if epoch.energy_wh is not None]
        if so_far_wh is not None and known_wh:
            found["forecast/train_wh"] = so_far_wh + left * median(known_wh)
        return found
