"""Measure a training with the Trainer of Hugging Face's transformers."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from pepr_mlops.errors import WrongUse

if TYPE_CHECKING:
    from pepr_mlops.train.own_loop import Measured


class PeprCallback(TrainerCallback):
    """Reports the epochs and the evaluation of a transformers `Trainer`::

        with pepr_mlops.measure(experiment="derma", model="mine") as measured:
            callbacks = [PeprCallback(measured, "eval_accuracy")]
            Trainer(..., callbacks=callbacks).train()

    `performance` is the metric that is P, from 0 to 1, as `compute_metrics` returns it with `eval_`
    before its name. P of an epoch is that of its last evaluation; an epoch without one counts to
    the next that has one. Raises `WrongUse` for a metric that an evaluation does not have.
    """

    def __init__(self, measured: Measured, performance: str) -> None:
        self._measured, self._performance = measured, performance
        self._evaluation = ExitStack()
        self._p: float | None = None
        self._epoch_is_over = False

    def on_epoch_begin(self, *_: Any, **__: Any) -> None:
        self._epoch_is_over = False

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._evaluate_if(control.should_evaluate)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._epoch_is_over = True
        self._evaluate_if(control.should_evaluate)
        if not control.should_evaluate:
            self._log()

    def on_evaluate(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        self._evaluation.close()
        metrics = given["metrics"]
        if self._performance not in metrics:
            raise WrongUse(
                f"performance: the evaluation has no {self._performance}; it has "
                f"{', '.join(metrics)}"
            )
        self._p = metrics[self._performance]
        if self._epoch_is_over:
            self._log()

    def _evaluate_if(self, due: bool) -> None:
        if due:
            self._evaluation.enter_context(self._measured.evaluation())

    def _log(self) -> None:
        if self._p is not None:
            self._measured.epoch(self._p, {self._performance: self._p})
            self._p = None
            self._epoch_is_over = False  # an evaluation after it is no other epoch
