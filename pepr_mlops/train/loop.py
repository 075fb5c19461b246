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
from pepr_mlops.train.head import Features
from pepr_mlops.train.patience import Patience
from pepr_mlops.train.progress import Silent
from pepr_mlops.train.trainer import Evaluation, Trainer
from pepr_mlops.train.use.best import Best

Log = Callable[[Mapping[str, float], int], None]

_PROBE_STEPS = 10
# Over less, counters that move ten times a second are off by over 3%. But where an epoch is
# shorter, a probe of that time would cost a large part of the training that it forecasts.
_PROBE_S = 3.0


@dataclass(frozen=True)
class Result:
    """The last epoch, from 1, its metrics, the evaluations after it, also of the `external` sets,
    and why the training ended early or None: `stopped` by a budget, or by its `patience`."""

    epoch: int
    metrics: Mapping[str, float]
    val: Evaluation
    test: Evaluation
    stopped: str | None = None
    patience: str | None = None
    external: Mapping[str, Evaluation] = field(default_factory=dict)


@dataclass(frozen=True)
class _Epoch:
    """An epoch that is over. `steady` is its cost without warm-up, if known; `tested_s` the part of
    the evaluation that the test took."""

    loss: float
    images: int
    stopped: str | None
    steady: Cost | None
    trained: Window
    tested_s: float
    val: Evaluation
    test: Evaluation


def fit(
    spec: RunSpec,
    splits: Splits,
    network: torch.nn.Module,
    recorder: Recorder,
    log: Log,
    progress: Silent,
    started: float,
    *,
    checkpoint: Checkpoint | None = None,
    saved: Saved | None = None,
    pause: Pause | None = None,
    best: Best | None = None,
) -> Result:
    """Train `network` on `splits.train` and evaluate on `val` and `test` every epoch.

    `log` takes the metrics after each epoch and its number, from 1; `started` is the time of
    `time.perf_counter` at which the set-up began. The training is saved in `checkpoint` after each
    epoch, while the clock stops, and resumes from `saved`, whose costs `recorder` already has; on a
    CPU with deterministic operations the numbers are those of an uninterrupted training. `best`
    gets the weights of the best epoch, while the clock stops. Raises `Paused` if `pause` is true
    after an epoch that is not the last, and `WorkFailed` on a non-finite loss and when memory runs
    out, after it has logged the costs of the unfinished epoch.
    """
    with explained(spec, 0):
        trainer = Trainer(spec, splits, network, recorder.device.torch_device)
    forecast, patience = Forecast(spec.epochs), Patience(spec.patience)
    training = _Training(
        *(trainer, network, recorder, log, progress, checkpoint, forecast, patience, best)
    )
    training.once = {"time/setup_s": time.perf_counter() - started}
    done = 0
    if saved is not None:
        training.restore(saved)
        done, ended = saved.epoch, patience.ended(saved.epoch, spec.epochs)
        if done >= spec.epochs or ended is not None:  # it was interrupted after the last epoch
            val = trainer.evaluate(trainer.val, done, "val")
            test = trainer.evaluate(trainer.test, done, "test")
            external = _external(trainer, splits, recorder, log, done)
            return Result(done, saved.metrics, val, test, patience=ended, external=external)
    for number in range(done + 1, spec.epochs + 1):
        progress.start_epoch(number, trainer.steps)
        try:
            with explained(spec, number):
                epoch = training.work(number)
        except BaseException:
            with suppress(Exception):  # the device may be gone: show the first error
                recorder.end_open_window(f"epoch {number}")  # or its costs are not known
                training.save_costs()
                log(recorder.metrics(), number)
            raise
        with uninterrupted():  # a full epoch is saved and logged, whatever happens
            metrics, forecasts = training.record(number, epoch)
        progress.end_epoch(metrics | forecasts)
        ended = patience.ended(number, spec.epochs)
        if epoch.stopped is not None or ended is not None or number == spec.epochs:
            break
        if pause is not None and pause(number, metrics):
            training.save_costs()
            raise Paused(f"{spec.model}: paused after epoch {number} of {spec.epochs}")
    if epoch.stopped is not None:
        ended = None
    external = _external(trainer, splits, recorder, log, number)
    return Result(number, metrics, epoch.val, epoch.test, epoch.stopped, ended, external)


def _external(
    trainer: Trainer, splits: Splits, recorder: Recorder, log: Log, epoch: int
) -> dict[str, Evaluation]:
    """Evaluate the external sets; their cost counts as evaluation, and not in the memory M."""
    if not splits.external:
        return {}
    with recorder.phase("eval", "the external sets"):
        found = trainer.evaluate_external(splits, epoch)
    log({k: v for k, v in recorder.metrics().items() if not k.startswith("memory/")}, epoch)
    return found


@dataclass
class _Training:
    """The work of each epoch. `best` has the highest validation accuracy so far as `val`, and the
    test scores after its epoch, `best_weights` its weights; `once` is logged with the first
    epoch."""

    trainer: Trainer
    network: torch.nn.Module
    recorder: Recorder
    log: Log
    progress: Silent
    checkpoint: Checkpoint | None
    forecast: Forecast
    patience: Patience
    best_weights: Best | None
    best: dict[str, float] = field(default_factory=dict)
    once: dict[str, float] = field(default_factory=dict)

    def restore(self, saved: Saved) -> None:
        self.trainer.restore(saved.state)
        self.best = dict(saved.state["best"])
        if self.best_weights is not None:
            self.best_weights.restore(saved.state.get("best_weights"))
        if self.patience.limit is not None:
            self.patience.restore(saved.state["patience"])

    def work(self, number: int) -> _Epoch:
        """Train and evaluate; the window of the evaluation stays open for `record` to end."""
        trainer, recorder, where = self.trainer, self.recorder, f"epoch {number}"
        _features(trainer, recorder)  # apart from the epoch: those to come will not compute them
        with recorder.phase("train", where) as trained:
            loss, images, stopped, steady = trainer.epoch(
                number, self.progress, recorder, first=self.forecast.empty
            )
        recorder.begin_window("eval")
        trainer.compute_features(trainer.val, trainer.test)  # apart from the evaluations to come
        val = trainer.evaluate(trainer.val, number, "val")
        validated_s = recorder.meter.elapsed_s()
        test = trainer.evaluate(trainer.test, number, "test")
        tested_s = recorder.meter.elapsed_s() - validated_s
        return _Epoch(loss, images, stopped, steady, trained.window, tested_s, val, test)

    def record(self, number: int, epoch: _Epoch) -> tuple[dict[str, float], dict[str, float]]:
        """Save and log an epoch; its metrics, and forecasts of all epochs."""
        evaluated = self.recorder.end_window(f"epoch {number}")
        self.patience.add(epoch.val.scores["loss"])
        forecasts, best_before = self._forecasts(number, epoch, evaluated.time_s), self.best
        metrics = {
            "train/loss": epoch.loss,
            "time/images_per_s": epoch.images / epoch.trained.time_s,
            **{f"val/{name}": value for name, value in epoch.val.scores.items()},
            **{f"test/{name}": value for name, value in epoch.test.scores.items()},
            **self._best(epoch),
            **self.once,
            PERFORMANCE: epoch.test.scores["accuracy"],
            **self.recorder.metrics(),
        }
        self.once = {}
        if number == 1:  # the only forecast that is logged, for comparison with the costs
            metrics |= forecasts
        if self.trainer.resident_bytes is not None:
            metrics["memory/data_gb"] = self.trainer.resident_bytes / 1e9
        if self.best_weights is not None and self.best is not best_before:
            self.best_weights.save(number, self.network, epoch.val)
        resumable = self.checkpoint is not None and epoch.stopped is None
        current = self._saved(number, metrics) if resumable else self.checkpoint is None
        if current and self.best_weights is not None:  # else the checkpoint may need earlier ones
            self.best_weights.delete_others()
        self.log(metrics, number)
        return metrics, forecasts

    def _saved(self, number: int, metrics: Mapping[str, float]) -> bool:
        """Save the training; a note says where that fails, since only a next attempt needs it."""
        assert self.checkpoint is not None
        state = {**self.trainer.state(), "best": self.best, "patience": self.patience.state()}
        if self.best_weights is not None:
            state["best_weights"] = self.best_weights.state()
        try:
            self.checkpoint.save(number, state, metrics, self.recorder.state())
        except OSError as error:
            self.progress.note(
                f"checkpoint: epoch {number} was not saved ({one_line(error)}); if interrupted "
                "now, the training would resume from the last epoch that was saved, if any"
            )
            return False
        return True

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

    def _forecasts(self, number: int, epoch: _Epoch, evaluated_s: float) -> dict[str, float]:
        """The costs of all epochs after this one; none once the training has ended."""
        if epoch.stopped is not None or self.patience.ended(number, self.forecast.epochs):
            return {}
        if self.forecast.empty:  # validation came first and included the warm-up
            evaluated_s = epoch.tested_s * (1 + len(self.trainer.val) / len(self.trainer.test))
        self.forecast.add(window_cost(epoch.trained, epoch.steady), evaluated_s)
        return self.forecast.metrics(number, self.recorder.costs)


def probe(
    spec: RunSpec,
    splits: Splits,
    network: torch.nn.Module,
    recorder: Recorder,
    progress: Silent,
) -> tuple[dict[str, float], str]:
    """Train a few steps and forecast what all epochs would cost.

    The forecast leaves out the first steps, in which libraries choose their algorithms. Returns
    the costs of all steps and the forecasts, by the names of `names.METRICS`, and the steps in
    words. Raises `WorkFailed` as `fit`.
    """
    with explained(spec, 0):
        trainer = Trainer(spec, splits, network, recorder.device.torch_device)
        before = _features(trainer, recorder)
        order = trainer.train.order(spec.batch_size, torch.Generator().manual_seed(spec.seed))
        progress.start_epoch(1, len(order))
        batches = itertools.cycle(order)
        with recorder.phase("train", "warm-up"):
            trainer.train_on(list(itertools.islice(batches, WARM_STEPS)))
        with recorder.phase("train", "probe") as probed:
            images = steps = 0
            for batch in batches:
                images += trainer.train_on([batch])
                steps += 1
                enough = recorder.meter.elapsed_s() >= _PROBE_S or steps >= len(order)
                if steps >= _PROBE_STEPS and enough:
                    break
    share = spec.epochs * len(splits.train) / images
    step = window_cost(probed.window)
    metrics = {**recorder.metrics(), "forecast/train_s": before.time_s + step.time_s * share}
    if before.energy_wh is not None and step.energy_wh is not None:
        metrics["forecast/train_wh"] = before.energy_wh + step.energy_wh * share
    return metrics, f"{WARM_STEPS} + {steps} steps, of which an epoch has {len(order)}"


def _features(trainer: Trainer, recorder: Recorder) -> Cost:
    """Compute what is needed once for all epochs, as training; what it cost."""
    if not isinstance(trainer.train, Features) or not trainer.train.pending:
        return Cost(0.0, 0.0)
    with recorder.phase("train", "features") as computed:
        trainer.compute_features(trainer.train)
    return window_cost(computed.window)
