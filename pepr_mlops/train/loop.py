"""Train one network: a linear loop that knows no MLflow.

The clock and the energy of training stop for evaluation. Nothing waits for the device inside an
epoch but a look at the losses twice a second.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from pepr_mlops.costs.forecast import (
    WARM_STEPS,
    Cost,
    Forecast,
    Mark,
    of_window,
    steady_steps,
    usual,
)
from pepr_mlops.costs.gauges import Gauges
from pepr_mlops.costs.memory import keep_freed
from pepr_mlops.costs.totals import J_PER_WH
from pepr_mlops.data.batches import Batches, fits
from pepr_mlops.data.splits import Splits
from pepr_mlops.errors import Paused, WorkFailed, WrongUse, one_line
from pepr_mlops.names import MULTI_LABEL, PERFORMANCE, Task
from pepr_mlops.process import uninterrupted
from pepr_mlops.spec import RunSpec
from pepr_mlops.train.checkpoint import Checkpoint, Saved
from pepr_mlops.train.cuda_graphs import Graphs
from pepr_mlops.train.metrics import Floats, Ints, scores

if TYPE_CHECKING:
    from pepr_mlops.train.cuda_graphs import Pool

Record = Callable[[Mapping[str, float], int], None]

Pause = Callable[[int, Mapping[str, float]], bool]

_PROBE_STEPS = 10
_PROBE_S = 3.0  # or counters that move ten times a second are off by more than a few per cent
_LOOK_EVERY_S = 0.5
# The counters move no more often than the first; a look took 5 ms on an H200, in which no work was
# given to it, so that it is taken more seldom as long as the budget lasts.
_POLL_ENERGY_S = (0.1, 1.0)
# Of torch on a CPU; of the CUDA driver, where others have the memory; of cuBLAS and cuDNN.
_NO_MEMORY = ("can't allocate memory", "CUDA error: out of memory", "_STATUS_ALLOC_FAILED")
_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Progress(Protocol):
    """Shows how far training is."""

    def note(self, text: str) -> None: ...

    def start_epoch(self, epoch: int, steps: int) -> None: ...

    def step(self, done: int, loss: float, images_per_s: float) -> None: ...

    def end_epoch(self, metrics: Mapping[str, float]) -> None:
        """`metrics` are those of the epoch, with a forecast of all unless it is the last."""


@dataclass(frozen=True)
class Result:
    """What training came to: the metrics of the last epoch, test predictions after it (shapes as
    in `performance.scores`), and why it stopped early, or None."""

    metrics: Mapping[str, float]
    labels: Ints
    probabilities: Floats
    stopped: str | None


def check_device(spec: RunSpec, device: torch.device) -> None:
    """Raise `WrongUse` unless the device has the precision asked for, and graphs if asked for."""
    if spec.precision == "tf32" and (
        device.type != "cuda" or torch.cuda.get_device_capability(device) < (8, 0)
    ):
        raise WrongUse(
            f"precision: tf32 needs an NVIDIA GPU of the Ampere generation or newer and the work "
            f"runs on {device}; use fp32, bf16 or fp16"
        )
    if (
        spec.precision == "bf16"
        and device.type == "cuda"
        and torch.cuda.get_device_capability(device) < (8, 0)
    ):
        raise WrongUse(f"precision: bf16 is not in the hardware of {device}; use fp32 or fp16")
    if spec.launch == "graph" and device.type != "cuda":
        raise WrongUse(
            f"launch: graph needs an NVIDIA GPU and the work runs on {device}; use kernels"
        )


def open_device(spec: RunSpec, device: torch.device) -> None:
    """Make it torch's own device, before anything runs on it.

    Raises `WorkFailed` where others have its memory.
    """
    if device.type == "cuda":
        try:
            torch.cuda.set_device(device)  # or pinning memory would wake the first GPU
        except RuntimeError as error:  # others may have left too little memory even for that
            raise told(error, spec, 0) or error from error


def prepare(spec: RunSpec, device: torch.device) -> None:
    """Set torch's precision of fp32 operations, determinism and seed for this process.

    Call it before the network is built, with the precision and layout settled. fp32 means IEEE
    single precision throughout: torch's own default lets convolutions use TF32.
    """
    assert not spec.untried
    if spec.deterministic:  # cuBLAS reads it when it starts; elsewhere it would change the memory
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    precision = "tf32" if spec.precision == "tf32" else "ieee"
    backends: Any = torch.backends  # its types lack the precisions; not every torch hands them on
    for of in (backends, backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn):
        of.fp32_precision = precision
    torch.use_deterministic_algorithms(spec.deterministic)
    torch.manual_seed(spec.seed)
    if device.type == "cpu":
        keep_freed()


def fit(
    spec: RunSpec,
    splits: Splits,
    network: torch.nn.Module,
    device: torch.device,
    gauges: Gauges,
    record: Record,
    progress: Progress,
    started: float,
    *,
    checkpoint: Checkpoint | None = None,
    saved: Saved | None = None,
    pause: Pause | None = None,
) -> Result:
    """Train `network` on `splits.train` with Adam and evaluate on `val` and `test` every epoch.

    `record` is given the metrics known after each epoch and its number, from 1; `started` is when
    the set-up began, on `time.perf_counter`. The training is kept in `checkpoint` after each epoch
    and goes on from `saved`, whose costs `gauges` already has; on a CPU with deterministic
    operations it comes to the same numbers as one that was never interrupted. The clock pauses
    while it is kept. Where `pause` is true after an epoch that is not the last, `Paused` is raised.

    Raises `WorkFailed` on a non-finite loss and when memory runs out; what the unfinished epoch
    took is recorded before.
    """
    try:
        training = Training(spec, splits, network, device)
    except Exception as error:
        failure = told(error, spec, 0)
        if failure is None:
            raise
        raise failure from error
    setup = {"time/setup_s": time.perf_counter() - started}
    best: dict[str, float] = {}
    result: Result | None = None
    done = 0
    forecast = Forecast(spec.epochs)
    if saved is not None:
        training.restore(saved.state)
        done, best = saved.epoch, dict(saved.state["best"])
        if done >= spec.epochs:  # it was interrupted after the last epoch
            test = training.evaluate(training.test, done, "test")
            return Result(saved.metrics, test.labels, test.probabilities, None)
    for epoch in range(done + 1, spec.epochs + 1):
        progress.start_epoch(epoch, training.steps)
        phase = "train"
        try:
            gauges.meter.begin(phase)
            loss, images, stopped, steady = training.epoch(
                epoch, progress, gauges, first=forecast.empty
            )
            window = gauges.end(phase, f"epoch {epoch}")
            images_per_s = images / window.time_s
            phase = "eval"
            gauges.meter.begin(phase)
            val = training.evaluate(training.val, epoch, "val")
            validated_s = gauges.meter.elapsed_s()
            test = training.evaluate(training.test, epoch, "test")
            tested_s = gauges.meter.elapsed_s() - validated_s
        except BaseException as error:
            with suppress(Exception):  # the device may be gone; the first error is the one to tell
                gauges.end(phase, f"epoch {epoch}")
                if checkpoint is not None:
                    with suppress(OSError):  # a full disk
                        checkpoint.costs(gauges.state(), clean=True)
                record(gauges.metrics(), epoch)
            failure = told(error, spec, epoch)
            if failure is None:
                raise
            raise failure from error
        with uninterrupted():  # an epoch that is through is kept and logged, whatever comes
            evaluated_s = gauges.end(phase, f"epoch {epoch}").time_s
            ahead: dict[str, float] = {}
            if stopped is None:
                if forecast.empty:  # validating came first and had the warm-up
                    evaluated_s = tested_s * (1 + len(training.val) / len(training.test))
                forecast.add(of_window(window, steady), evaluated_s)
                ahead = forecast.metrics(epoch, gauges.costs)
            metrics = {"train/loss": loss, "time/images_per_s": images_per_s}
            for name, evaluation in (("val", val), ("test", test)):
                metrics |= {f"{name}/{key}": value for key, value in evaluation.scores.items()}
            if val.scores["accuracy"] > best.get("val", -1.0):
                best = {"val": val.scores["accuracy"]}
                best |= {f"best_val/{k}": v for k, v in test.scores.items() if k != "loss"}
            metrics |= {key: value for key, value in best.items() if key != "val"}
            metrics[PERFORMANCE] = test.scores["accuracy"]
            metrics |= gauges.metrics() | setup
            setup = {}
            if epoch == 1:  # the only one that stays, to be compared with what it came to
                metrics |= ahead
            if training.resident_bytes is not None:
                metrics["memory/data_gb"] = training.resident_bytes / 1e9
            if checkpoint is not None and stopped is None:
                state = {**training.state(), "best": best}
                try:
                    checkpoint.save(epoch, state, metrics, gauges.state())
                except OSError as error:  # it is the next attempt's loss, not this one's
                    progress.note(
                        f"checkpoint: epoch {epoch} is not kept ({one_line(error)}); "
                        "interrupted now, the training would go on from an earlier one if there "
                        "is one"
                    )
            record(metrics, epoch)
        progress.end_epoch(metrics | ahead)
        if stopped is None and epoch < spec.epochs and pause is not None and pause(epoch, metrics):
            if checkpoint is not None:
                with suppress(OSError):  # a full disk, of which `save` has told
                    checkpoint.costs(gauges.state(), clean=True)
            raise Paused(f"{spec.model}: rests after epoch {epoch} of {spec.epochs}")
        result = Result(metrics, test.labels, test.probabilities, stopped)
        if stopped is not None:
            break
    assert result is not None  # RunSpec has at least one epoch
    return result


def probe(
    spec: RunSpec,
    splits: Splits,
    network: torch.nn.Module,
    device: torch.device,
    gauges: Gauges,
    progress: Progress,
) -> tuple[dict[str, float], str]:
    """Train a few steps and forecast what all epochs would cost.

    A few steps more come first and are left out of the forecast: libraries choose their
    algorithms in them. Returns what the steps cost, by the names of `names.METRICS`, with the
    forecasts, and the steps in words. Raises `WorkFailed` as `fit`.
    """
    try:
        training = Training(spec, splits, network, device)
        order = training.train.order(spec.batch_size, torch.Generator().manual_seed(spec.seed))
        progress.start_epoch(1, len(order))
        batches = itertools.cycle(order)  # an epoch may be too short to read its energy
        gauges.meter.begin("train")
        training.steps_of(list(itertools.islice(batches, WARM_STEPS)))
        gauges.end("train", "warm-up")
        gauges.meter.begin("train")
        images = steps = 0
        for batch in batches:
            images += training.steps_of([batch])
            steps += 1
            if steps >= _PROBE_STEPS and gauges.meter.elapsed_s() >= _PROBE_S:
                break
        window = gauges.end("train", "probe")
    except Exception as error:
        failure = told(error, spec, 0)
        if failure is None:
            raise
        raise failure from error
    whole = spec.epochs * len(splits.train) / images
    metrics = gauges.metrics() | {"forecast/train_s": window.time_s * whole}
    energy_wh = of_window(window).energy_wh
    if energy_wh is not None:
        metrics["forecast/train_wh"] = energy_wh * whole
    return metrics, f"{WARM_STEPS} + {steps} steps, of which an epoch has {len(order)}"


@dataclass(frozen=True)
class _Evaluation:
    scores: dict[str, float]
    labels: Ints
    probabilities: Floats


class Training:
    """The network, its optimiser and the data on the device.

    CUDA graphs take their memory from `pool`, by default one of their own; trainings that share one
    must not run at the same time.
    """

    def __init__(
        self,
        spec: RunSpec,
        splits: Splits,
        network: torch.nn.Module,
        device: torch.device,
        pool: Pool | None = None,
    ) -> None:
        layout = torch.channels_last if spec.layout == "channels_last" else torch.contiguous_format
        resident = fits(splits, device)
        described: Any = network.pretrained_cfg
        normalise = None
        if spec.intensities == "pretrained":
            normalise = _normalisation(described, splits.channels, device)
        self.train, self.val, self.test = (
            Batches(
                split,
                splits,
                image_size=spec.image_size,
                device=device,
                resident=resident,
                layout=layout,
                normalise=normalise,
            )
            for split in (splits.train, splits.val, splits.test)
        )
        parts = (self.train, self.val, self.test)
        self.resident_bytes = (
            sum(part.images.nbytes for part in parts) if resident and device.type != "cpu" else None
        )
        self._spec, self._device = spec, device
        self._task: Task = splits.task
        network = network.to(device).to(memory_format=layout)
        # The order of the images depends on the seed alone, not on what the model drew before.
        self._shuffle = torch.Generator().manual_seed(spec.seed)
        graphs = spec.launch == "graph"
        self._optimiser = torch.optim.Adam(
            network.parameters(),
            lr=spec.lr,
            fused=device.type in ("cpu", "cuda") or None,  # each weight is read once, not ten times
            capturable=graphs,
        )
        self._scaler = torch.amp.GradScaler(device.type, enabled=spec.precision == "fp16")
        self._criterion: torch.nn.Module = (
            torch.nn.BCEWithLogitsLoss()
            if self._task == MULTI_LABEL
            else torch.nn.CrossEntropyLoss()
        )
        self._weights = network
        self._network: Any = torch.compile(network) if spec.compile else network
        self._step: Callable[..., torch.Tensor] = self._trained
        self._output: Callable[..., torch.Tensor] = self._predicted
        if graphs:
            pool = pool or torch.cuda.graph_pool_handle()
            self._step = Graphs(self._trained, device, pool)
            self._output = Graphs(self._predicted, device, pool)
        self.steps = len(self.train.order(spec.batch_size, None))

    def state(self) -> dict[str, Any]:
        """What `restore` takes to go on as if nothing had happened."""
        return {
            "precision": self._spec.precision,
            "layout": self._spec.layout,
            "launch": self._spec.launch,
            "network": self._weights.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "scaler": self._scaler.state_dict(),
            "shuffle": self._shuffle.get_state(),
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state(self._device)
            if self._device.type == "cuda"
            else None,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        self._weights.load_state_dict(state["network"])
        kept = {name: self._optimiser.defaults[name] for name in ("fused", "capturable")}
        groups = [{**group, **kept} for group in state["optimiser"]["param_groups"]]
        self._optimiser.load_state_dict({**state["optimiser"], "param_groups": groups})
        self._scaler.load_state_dict(state["scaler"])
        self._shuffle.set_state(state["shuffle"])
        torch.set_rng_state(state["random"])
        if state["random_cuda"] is not None:
            torch.cuda.set_rng_state(state["random_cuda"], self._device)

    def steps_of(self, order: list[torch.Tensor]) -> int:
        """Train on these batches, without looking at the loss; how many images they were."""
        self._network.train()
        images = 0
        for x, y in self.train.take(order):
            self._step(x, y)
            images += len(x)
        return images

    def _trained(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """The loss of a batch, on which a step is taken."""
        self._optimiser.zero_grad(set_to_none=True)
        with self._autocast():
            loss: torch.Tensor = self._criterion(self._network(x), y)
        self._scaler.scale(loss).backward()
        self._scaler.step(self._optimiser)
        self._scaler.update()
        return loss.detach()

    def epoch(
        self, epoch: int, progress: Progress, gauges: Gauges, *, first: bool
    ) -> tuple[float, int, str | None, Cost | None]:
        """Mean loss per image, images trained on, why it stopped early or None, and what it would
        take without its warm-up, or None where it has too few steps or is not the `first`."""
        order = self.train.order(self._spec.batch_size, self._shuffle)
        losses = torch.empty(len(order), device=self._device)
        budget = _Budget(self._spec, gauges)
        marked = steady_steps(len(order)) if first else ()
        marks: list[Mark] = []
        stopped = None
        looked = time.perf_counter()
        images = step = 0
        self._network.train()
        for step, (x, y) in enumerate(self.train.take(order), 1):
            losses[step - 1] = self._step(x, y)
            images += len(x)
            stopped = budget.crossed(epoch, step, len(order))
            due = time.perf_counter() - looked >= _LOOK_EVERY_S
            if due or stopped is not None or step == len(order) or step in marked:
                last = _finite(losses[:step], epoch)  # waits for the device
                looked, elapsed_s = time.perf_counter(), gauges.meter.elapsed_s()
                if step in marked:
                    marks.append(Mark(images, elapsed_s, gauges.meter.spent_j()))
                progress.step(step, last, images / elapsed_s)
            if stopped is not None:
                break
        sizes = torch.tensor([len(part) for part in order[:step]], dtype=torch.float64)
        mean = (losses[:step].cpu().double() * sizes).sum() / sizes.sum()
        return float(mean), images, stopped, usual(marks, images)

    def evaluate(self, batches: Batches, epoch: int, name: str) -> _Evaluation:
        """Loss and scores of the whole split."""
        self._network.eval()
        total = torch.zeros((), device=self._device)
        outputs = []
        with torch.inference_mode():
            order = list(torch.arange(len(batches)).split(self._spec.batch_size))
            for x, y in batches.take(order):
                output = self._output(x)
                total += self._criterion(output, y) * len(x)
                outputs.append(output)
            loss = float(total) / len(batches)
            logits = torch.cat(outputs)
            probabilities = logits.sigmoid() if self._task == MULTI_LABEL else logits.softmax(dim=1)
        if not np.isfinite(loss):
            raise WorkFailed(
                f"loss: {loss} on the {name} split after epoch {epoch}; lower the learning rate, "
                "or use fp32",
                reason="non_finite_loss",
            )
        labels: Ints = batches.labels.long().cpu().numpy()
        chances = probabilities.cpu().numpy()
        return _Evaluation({"loss": loss, **scores(labels, chances, self._task)}, labels, chances)

    def _predicted(self, x: torch.Tensor) -> torch.Tensor:
        if self._spec.launch == "graph":  # or what a model keeps while it is evaluated, such as
            self._network.train()  # LeViT its biases, would be recorded as read, and be gone later
            self._network.eval()
        with self._autocast():
            output: torch.Tensor = self._network(x)
        return output.float()

    def _autocast(self) -> torch.autocast:
        dtype = _AUTOCAST.get(self._spec.precision)
        return torch.autocast(self._device.type, dtype=dtype, enabled=dtype is not None)


class _Budget:
    """Watches time and energy of training against the budgets of the spec."""

    def __init__(self, spec: RunSpec, gauges: Gauges) -> None:
        self._spec, self._meter = spec, gauges.meter
        costs = gauges.costs
        self._time_before = costs.time_s.get("train", 0.0)
        self._wh_before = costs.energy_wh("train") if "train" in costs.time_s else 0.0
        self._look_at_s = _POLL_ENERGY_S[0]

    def crossed(self, epoch: int, step: int, steps: int) -> str | None:
        """Which budget is used up, and where, or None."""
        limit_s, limit_wh = self._spec.budget_s, self._spec.budget_wh
        if limit_s is None and limit_wh is None:
            return None
        where = f"reached in epoch {epoch} of {self._spec.epochs}, step {step} of {steps}"
        elapsed_s = self._meter.elapsed_s()
        if limit_s is not None and self._time_before + elapsed_s >= limit_s:
            return f"budget_s={limit_s:g} {where}"
        if limit_wh is not None and (elapsed_s >= self._look_at_s or step == steps):
            spent_j = self._meter.spent_j()
            if spent_j is None or self._wh_before is None:
                raise WorkFailed(
                    f"budget_wh: the energy can no longer be read in epoch {epoch}, step {step}, "
                    "so the budget cannot be kept; run without it or mend the sensor",
                    reason="sensor_lost",
                )
            if self._wh_before + spent_j / J_PER_WH >= limit_wh:
                return f"budget_wh={limit_wh:g} {where}"
            left_j = (limit_wh - self._wh_before) * J_PER_WH - spent_j
            lasts_s = left_j * elapsed_s / spent_j if spent_j > 0 else 0.0
            soonest, latest = _POLL_ENERGY_S
            self._look_at_s = elapsed_s + max(soonest, min(latest, lasts_s / 2))
        return None


def _finite(losses: torch.Tensor, epoch: int) -> float:
    """The last loss; raises where one is not finite, naming its step."""
    bad = torch.nonzero(~torch.isfinite(losses))
    if len(bad):
        step = int(bad[0])
        raise WorkFailed(
            f"loss: {float(losses[step])} in epoch {epoch}, step {step + 1}; lower the learning "
            "rate, use fp32, or check the data",
            reason="non_finite_loss",
        )
    return float(losses[-1])


def _normalisation(
    described: Mapping[str, Any], channels: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation of the pretrained weights' images, for broadcasting.

    Grey images take the mean over the three colours.
    """
    pair = []
    for key in ("mean", "std"):
        values = torch.tensor(described[key], dtype=torch.float32)
        values = values if len(values) == channels else values.mean().expand(channels)
        pair.append(values.view(1, channels, 1, 1).to(device))
    return pair[0], pair[1]


def told(error: BaseException, spec: RunSpec, epoch: int) -> WorkFailed | None:
    """What a person can act on instead of the error of an epoch (0: before the first), or None."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and any(words in str(error) for words in _NO_MEMORY)
    ):
        return WorkFailed(
            f"memory: out of memory {f'in epoch {epoch}' if epoch else 'before the first epoch'} "
            f"with batch_size={spec.batch_size} and image_size={spec.image_size}; "
            f"{max(0, epoch - 1)} epochs were completed; ask for less of either or for a bf16 "
            f"run, {'launch kernels, ' if spec.launch == 'graph' else ''}or take a device that is "
            "larger or that nobody else uses",
            reason="out_of_memory",
        )
    if isinstance(error, RuntimeError) and "deterministic" in str(error):
        return WorkFailed(
            f"deterministic: {spec.model} uses an operation that has no deterministic "
            f"implementation here ({str(error).splitlines()[0][:120]}); train without it",
            reason="not_deterministic",
        )
    if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
        return WorkFailed(
            f"compile: torch.compile failed on {spec.model} "
            f"({str(error).strip().splitlines()[0][:160]}); train without it",
            reason="compile_failed",
        )
    return None
