"""Train one network epoch by epoch, evaluate it, and forecast the cost of the rest.

The loop knows no MLflow. The clock and the energy of training stop during evaluation.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

import torch

from pepr_mlops.costs.forecast import WARM_STEPS, Cost, Forecast, window_cost
from pepr_mlops.costs.recorder import Recorder
from pepr_mlops.costs.totals import Window
from pepr_mlops.data.splits import Splits
from pepr_mlops.errors import Paused, one_line
from pepr_mlops.names import PERFORMANCE
from pepr_mlops.process import uninterrupted
from pepr_mlops.spec import RunSpec
from pepr_mlops.train.budget import Pause
from pepr_mlops.train.checkpoint import Checkpoint, Saved
from pepr_mlops.train.failures import explained
from pepr_mlops.train.metrics import Floats, Ints
from pepr_mlops.train.trainer import Evaluation, Progress, Trainer

Log = Callable[[Mapping[str, float], int], None]

_PROBE_STEPS = 10
_PROBE_S = 3.0  # or counters that move ten times a second are off by more than a few per cent


@dataclass(frozen=True)
class Result:
    """The metrics of the last epoch, test predictions after it (shapes as in `metrics.scores`),
    and why the training stopped early, or None."""

    metrics: Mapping[str, float]
    labels: Ints
    probabilities: Floats
    stopped: str | None


@dataclass(frozen=True)
class _Epoch:
    """One epoch that is over. `steady` is what training would cost without its warm-up, if known;
    `tested_s` is the test's share of the time of evaluation."""

    loss: float
    images: int
    stopped: str | None
    steady: Cost | None
    trained: Window
    evaluated: Window
    tested_s: float
    val: Evaluation
    test: Evaluation

    def scores(self) -> dict[str, float]:
        """Loss, speed and the scores of both splits, by the names of `names.METRICS`."""
        parts = {"val": self.val, "test": self.test}
        return {
            "train/loss": self.loss,
            "time/images_per_s": self.images / self.trained.time_s,
            **{f"{part}/{k}": v for part, of in parts.items() for k, v in of.scores.items()},
        }


def fit(
    spec: RunSpec,
    splits: Splits,
    network: torch.nn.Module,
    recorder: Recorder,
    log: Log,
    progress: Progress,
    started: float,
    *,
    checkpoint: Checkpoint | None = None,
    saved: Saved | None = None,
    pause: Pause | None = None,
) -> Result:
    """Train `network` on `splits.train` with Adam and evaluate on `val` and `test` every epoch.

    `log` is given the metrics after each epoch and its number, from 1; `started` is when the set-up
    began, on `time.perf_counter`. The training is saved in `checkpoint` after each epoch and
    resumes from `saved`, whose costs `recorder` already has; on a CPU with deterministic operations
    the numbers are those of one that was never interrupted. The clock stops while it is saved.
    Where `pause` is true after an epoch that is not the last, `Paused` is raised.

    Raises `WorkFailed` on a non-finite loss and when memory runs out; what the unfinished epoch
    took is logged before.
    """
    with explained(spec, 0):
        trainer = Trainer(spec, splits, network, recorder.device.torch_device)
    training = _Training(trainer, recorder, log, progress, checkpoint, Forecast(spec.epochs))
    training.once = {"time/setup_s": time.perf_counter() - started}
    done = 0
    if saved is not None:
        trainer.restore(saved.state)
        done, training.best = saved.epoch, dict(saved.state["best"])
        if done >= spec.epochs:  # it was interrupted after the last epoch
            test = trainer.evaluate(trainer.test, done, "test")
            return Result(saved.metrics, test.labels, test.probabilities, None)
    for number in range(done + 1, spec.epochs + 1):
        progress.start_epoch(number, trainer.steps)
        try:
            with explained(spec, number):
                epoch = training.work(number)
        except BaseException:
            with suppress(Exception):  # the device may be gone; the first error is the one to show
                training.save_costs()
                log(recorder.metrics(), number)
            raise
        with uninterrupted():  # an epoch that is over is saved and logged, whatever happens
            metrics, forecasts = training.record(number, epoch)
        progress.end_epoch(metrics | forecasts)
        if epoch.stopped is not None or number == spec.epochs:
            break
        if pause is not None and pause(number, metrics):
            training.save_costs()
            raise Paused(f"{spec.model}: paused after epoch {number} of {spec.epochs}")
    return Result(metrics, epoch.test.labels, epoch.test.probabilities, epoch.stopped)


@dataclass
class _Training:
    """What happens in each epoch. `best` are the test scores after the epoch of the highest
    validation accuracy so far, which is in it as `val`; `once` is logged with the first epoch."""

    trainer: Trainer
    recorder: Recorder
    log: Log
    progress: Progress
    checkpoint: Checkpoint | None
    forecast: Forecast
    best: dict[str, float] = field(default_factory=dict)
    once: dict[str, float] = field(default_factory=dict)

    def work(self, number: int) -> _Epoch:
        """Train and evaluate."""
        trainer, recorder, where = self.trainer, self.recorder, f"epoch {number}"
        with recorder.phase("train", where) as trained:
            loss, images, stopped, steady = trainer.epoch(
                number, self.progress, recorder, first=self.forecast.empty
            )
        with recorder.phase("eval", where) as evaluated:
            val = trainer.evaluate(trainer.val, number, "val")
            validated_s = recorder.meter.elapsed_s()
            test = trainer.evaluate(trainer.test, number, "test")
            tested_s = recorder.meter.elapsed_s() - validated_s
        return _Epoch(
            loss, images, stopped, steady, trained.window, evaluated.window, tested_s, val, test
        )

    def record(self, number: int, epoch: _Epoch) -> tuple[dict[str, float], dict[str, float]]:
        """Save and log an epoch that is over; its metrics, and forecasts of all epochs."""
        forecasts = self._forecasts(number, epoch)
        metrics = epoch.scores() | self._best(epoch) | self.once
        metrics |= {PERFORMANCE: epoch.test.scores["accuracy"], **self.recorder.metrics()}
        self.once = {}
        if number == 1:  # the only forecast that is logged, to be compared with the costs
            metrics |= forecasts
        if self.trainer.resident_bytes is not None:
            metrics["memory/data_gb"] = self.trainer.resident_bytes / 1e9
        if self.checkpoint is not None and epoch.stopped is None:
            state = {**self.trainer.state(), "best": self.best}
            try:
                self.checkpoint.save(number, state, metrics, self.recorder.state())
            except OSError as error:  # it is the next attempt's loss, not this one's
                self.progress.note(
                    f"checkpoint: epoch {number} is not saved ({one_line(error)}); if interrupted "
                    "now, the training would resume from an earlier one if there is one"
                )
        self.log(metrics, number)
        return metrics, forecasts

    def save_costs(self) -> None:
        if self.checkpoint is not None:
            with suppress(OSError):  # a full disk, which `record` has reported
                self.checkpoint.costs(self.recorder.state(), clean=True)

    def _best(self, epoch: _Epoch) -> dict[str, float]:
        accuracy = epoch.val.scores["accuracy"]
        if accuracy > self.best.get("val", -1.0):
            scores = {f"best_val/{k}": v for k, v in epoch.test.scores.items() if k != "loss"}
            self.best = {"val": accuracy, **scores}
        return {name: value for name, value in self.best.items() if name != "val"}

    def _forecasts(self, number: int, epoch: _Epoch) -> dict[str, float]:
        """The costs of all epochs, once this one is added; nothing of a training that stopped."""
        if epoch.stopped is not None:
            return {}
        evaluated_s = epoch.evaluated.time_s
        if self.forecast.empty:  # validating came first and had the warm-up
            evaluated_s = epoch.tested_s * (1 + len(self.trainer.val) / len(self.trainer.test))
        self.forecast.add(window_cost(epoch.trained, epoch.steady), evaluated_s)
        return self.forecast.metrics(number, self.recorder.costs)


def probe(
    spec: RunSpec,
    splits: Splits,
    network: torch.nn.Module,
    recorder: Recorder,
    progress: Progress,
) -> tuple[dict[str, float], str]:
    """Train a few steps and forecast what all epochs would cost.

    A few steps more come first and are left out of the forecast: libraries choose their
    algorithms in them. Returns what the steps cost, by the names of `names.METRICS`, with the
    forecasts, and the steps in words. Raises `WorkFailed` as `fit`.
    """
    with explained(spec, 0):
        trainer = Trainer(spec, splits, network, recorder.device.torch_device)
        order = trainer.train.order(spec.batch_size, torch.Generator().manual_seed(spec.seed))
        progress.start_epoch(1, len(order))
        batches = itertools.cycle(order)  # an epoch may be too short to read its energy
        with recorder.phase("train", "warm-up"):
            trainer.steps_of(list(itertools.islice(batches, WARM_STEPS)))
        with recorder.phase("train", "probe") as probed:
            images = steps = 0
            for batch in batches:
                images += trainer.steps_of([batch])
                steps += 1
                if steps >= _PROBE_STEPS and recorder.meter.elapsed_s() >= _PROBE_S:
                    break
    share = spec.epochs * len(splits.train) / images
    metrics = recorder.metrics() | {"forecast/train_s": probed.window.time_s * share}
    energy_wh = window_cost(probed.window).energy_wh
    if energy_wh is not None:
        metrics["forecast/train_wh"] = energy_wh * share
    return metrics, f"{WARM_STEPS} + {steps} steps, of which an epoch has {len(order)}"
