"""Measure a training with Lightning."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from lightning.pytorch import Callback

from pepr_mlops.errors import WrongUse

if TYPE_CHECKING:
    from pepr_mlops.train.own_loop import Measured


class PeprCallback(Callback):
    """Reports the epochs and the validation of a Lightning trainer::

        with pepr_mlops.measure(experiment="derma", model="mine") as measured:
            trainer = Trainer(callbacks=[PeprCallback(measured, "val_accuracy")])
            trainer.fit(module)

    `performance` is the metric that is P, from 0 to 1, as the module logs it; it is logged with
    each epoch. Validation counts as evaluation, also the sanity check. An epoch without validation
    counts to the next that has one. Raises `WrongUse` for a metric that the module does not log.
    """

    def __init__(self, measured: Measured, performance: str) -> None:
        self._measured, self._performance = measured, performance
        self._evaluation = ExitStack()
        self._validated = False
        self._reported: Any = None

    def on_validation_start(self, *_: Any) -> None:
        self._evaluation.enter_context(self._measured.evaluation())

    def on_validation_end(self, trainer: Any, *_: Any) -> None:
        self._evaluation.close()
        self._validated = not trainer.sanity_checking

    def on_train_epoch_end(self, trainer: Any, *_: Any) -> None:
        metrics = trainer.callback_metrics
        if self._performance not in metrics:
            if not self._validated:
                return
            raise WrongUse(
                f"performance: the module logs no {self._performance}; it logs "
                f"{', '.join(metrics) or 'none'}"
            )
        if metrics[self._performance] is self._reported and not self._validated:
            return  # Lightning keeps the value of an earlier validation
        self._reported = metrics[self._performance]
        p = float(self._reported)
        self._measured.epoch(p, {self._performance: p})
        self._validated = False
