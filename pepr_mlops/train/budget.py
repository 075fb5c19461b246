"""Limits of time and energy: when a training stops, and when it pauses between epochs."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pepr_mlops.costs.recorder import Recorder
from pepr_mlops.costs.totals import J_PER_WH
from pepr_mlops.errors import WorkFailed
from pepr_mlops.spec import RunSpec

Pause = Callable[[int, Mapping[str, float]], bool]

# Shortest interval, of the counters, and longest: a poll takes 5 ms on an H200, in which it gets no
# work, so polls are rare while much of the budget is left.
_POLL_ENERGY_S = (0.1, 1.0)


class Budget:
    """Watches time and energy of training against the budgets of the spec."""

    def __init__(self, spec: RunSpec, recorder: Recorder) -> None:
        self._spec, self._meter = spec, recorder.meter
        costs = recorder.costs
        self._time_before = costs.time_s.get("train", 0.0)
        self._wh_before = costs.energy_wh("train") if "train" in costs.time_s else 0.0
        self._next_poll_s = _POLL_ENERGY_S[0]

    def crossed(self, epoch: int, step: int, steps: int) -> str | None:
        """Which budget is used up and where, or None."""
        limit_s, limit_wh = self._spec.budget_s, self._spec.budget_wh
        if limit_s is None and limit_wh is None:
            return None
        where = f"reached in epoch {epoch} of {self._spec.epochs}, step {step} of {steps}"
        elapsed_s = self._meter.elapsed_s()
        if limit_s is not None and self._time_before + elapsed_s >= limit_s:
            return f"budget_s={limit_s:g} {where}"
        if limit_wh is not None and (elapsed_s >= self._next_poll_s or step == steps):
            spent_j = self._meter.spent_j()
            if spent_j is None or self._wh_before is None:
                raise _unreadable(f"epoch {epoch}, step {step}")
            if self._wh_before + spent_j / J_PER_WH >= limit_wh:
                return f"budget_wh={limit_wh:g} {where}"
            left_j = (limit_wh - self._wh_before) * J_PER_WH - spent_j
            lasts_s = left_j * elapsed_s / spent_j if spent_j > 0 else 0.0
            soonest, latest = _POLL_ENERGY_S
            self._next_poll_s = elapsed_s + max(soonest, min(latest, lasts_s / 2))
        return None


def pause_after(until: int | None, left_wh: float | None, recorder: Recorder) -> Pause:
    """Whether to pause after an epoch: after epoch `until`, or once this attempt has used `left_wh`
    in all phases. The costs of `recorder` so far are those of earlier attempts."""
    before_wh = recorder.costs.all_wh()

    def pause(epoch: int, metrics: Mapping[str, float]) -> bool:
        if until is not None and epoch >= until:
            return True
        if left_wh is None:
            return False
        now_wh = recorder.costs.all_wh()
        if now_wh is None or before_wh is None:
            raise _unreadable(f"epoch {epoch}")
        return now_wh - before_wh >= left_wh

    return pause


def _unreadable(where: str) -> WorkFailed:
    return WorkFailed(
        f"budget_wh: energy readings stopped in {where}, so the budget cannot be checked; "
        "drop budget_wh or fix the sensor",
        reason="sensor_lost",
    )
