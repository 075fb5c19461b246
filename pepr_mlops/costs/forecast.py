"""What all epochs of a training will cost, from those that are through. Pure.

The first epoch of a process is no measure of the others: in its first steps memory is allocated and
algorithms are chosen or compiled, and so they are again for a last batch of another size. For the
epochs to come the steps between stand for it. What it took itself stays counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median

from pepr_mlops.costs.totals import J_PER_WH, Costs, Window

WARM_STEPS = 4  # the fourth is recorded, where steps are a CUDA graph
_COUNTED_S = 3.0  # counters move ten times a second: over less a difference is off by over 3 %


@dataclass(frozen=True)
class Cost:
    """Wall seconds, and watt-hours of all components or None where they are not known."""

    time_s: float
    energy_wh: float | None


def of_window(window: Window, usual: Cost | None = None) -> Cost:
    """What a window took, or would have taken if all of it had been `usual`: at the mean power of
    the window where the usual energy is not known.

    A counter that has not moved in it tells nothing.
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
    """The steps of a first epoch, counted from 1, after which the usual ones begin and end: two of
    them, or none where `steps` are too few to have any usual one."""
    begin, end = min(WARM_STEPS, steps // 2), steps - 1
    return (begin, end) if 0 < begin < end else ()


def usual(marks: Sequence[Mark], images: int) -> Cost | None:
    """What an epoch of `images` takes at the rate between two marks; None without two.

    It draws more power than the warm-up. Its energy is known where the marks are so far apart that
    counters tell.
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
    """Of a training of `epochs` epochs, from those that this process has done."""

    epochs: int
    _trained: list[Cost] = field(default_factory=list)
    _evaluated_s: list[float] = field(default_factory=list)

    @property
    def empty(self) -> bool:
        """Whether the first epoch of this process is yet to come."""
        return not self._trained

    def add(self, trained: Cost, evaluated_s: float) -> None:
        """Count an epoch, its training and the time of its evaluation: the first without its
        warm-up where that is known, the others as they were."""
        self._trained.append(trained)
        self._evaluated_s.append(evaluated_s)

    def metrics(self, done: int, costs: Costs) -> dict[str, float]:
        """The costs of all epochs after `done` of them took `costs`, by the names of
        `names.METRICS`; nothing after the last.

        Each epoch to come is expected to take the median of those added, of which there is one
        at least. Without the energy so far, or that of any epoch, there is none of all.
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
