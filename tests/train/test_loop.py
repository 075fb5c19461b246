"""The loop: what it learns, logs, refuses and survives."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from pepr_mlops import data
from pepr_mlops.comparison.metrics import scores
from pepr_mlops.costs.carbon import Intensity
from pepr_mlops.costs.device import Device
from pepr_mlops.costs.recorder import Recorder
from pepr_mlops.costs.totals import Window
from pepr_mlops.errors import WorkFailed, WrongUse
from pepr_mlops.names import METRICS
from pepr_mlops.spec import RunSpec
from pepr_mlops.train import budget, loop, models, trainer
from pepr_mlops.train.budget import Budget
from pepr_mlops.train.progress import Silent

CPU = torch.device("cpu")


class _Meter:
    """36 J of GPU energy for every window, and 18 J more for each poll."""

    sources = {"gpu": "measured"}  # noqa: RUF012
    method = "fake"
    notes: Mapping[str, str] = {}

    def __init__(self) -> None:
        self.spent = 0.0
        self.opened: list[str] = []

    def begin(self, name: str) -> None:
        self.spent, self.began = 0.0, time.perf_counter()
        self.opened.append(name)

    def elapsed_s(self) -> float:
        return time.perf_counter() - self.began

    def end(self) -> Window:
        return Window(2.0, {"gpu": 36.0}, {})

    def spent_j(self) -> float | None:
        self.spent += 18.0
        return self.spent


class _Small(torch.nn.Sequential):
    """A network that learns two shades of grey in seconds."""

    pretrained_cfg: dict[str, object] = {}  # noqa: RUF012

    def __init__(self) -> None:
        torch.manual_seed(0)
        super().__init__(
            torch.nn.Conv2d(1, 8, 3),
            torch.nn.BatchNorm2d(8),
            torch.nn.ReLU(),
            torch.nn.AdaptiveAvgPool2d(1),
            torch.nn.Flatten(),
            torch.nn.Linear(8, 2),
        )


def _spec(shapes: Path, **fields: Any) -> RunSpec:
    defaults = {"model": "test_resnet", "pretrained": False, "device": "cpu", "image_size": 32}
    return RunSpec(**{**defaults, "dataset": str(shapes), "epochs": 3, "batch_size": 8, **fields})


def _fit(
    spec: RunSpec, network: torch.nn.Module | None = None
) -> tuple[loop.Result, list[tuple[int, dict[str, float]]], _Meter]:
    splits = data.load(spec)
    trainer.prepare(spec, CPU)
    if network is None:
        network = models.build(
            spec.model,
            classes=len(splits.classes),
            channels=splits.channels,
            image_size=spec.image_size,
            pretrained=False,
        )
    logged: list[tuple[int, dict[str, float]]] = []
    meter = _Meter()
    result = loop.fit(
        spec,
        splits,
        network,
        Recorder(Device(CPU), meter, Intensity(100.0, "given"), spec.pue),
        lambda metrics, epoch: logged.append((epoch, dict(metrics))),
        Silent(spec, "measured"),
        time.perf_counter(),
    )
    return result, logged, meter


def test_it_learns_and_logs_every_metric_of_a_gpu_less_run(shapes: Path) -> None:
    result, logged, meter = _fit(_spec(shapes, epochs=12, lr=0.02), _Small())
    assert [epoch for epoch, _ in logged] == list(range(1, 13))
    last = logged[-1][1]
    assert last["test/accuracy"] == 1.0
    assert last["train/loss"] < logged[0][1]["train/loss"]
    assert last["performance"] == last["test/accuracy"]
    assert last["energy/train_wh"] == pytest.approx(12 * 36 / 3600)
    assert last["energy/eval_wh"] == pytest.approx(12 * 36 / 3600)
    assert last["time/train_s"] == 24.0
    assert last["time/images_per_s"] == 16.0  # 32 images in 2 s
    assert last["carbon/train_gco2e"] == pytest.approx(0.12 / 1000 * 100)
    assert last["memory/rss_gb"] > 0.1
    assert set(last) <= set(METRICS)
    assert logged[0][1].pop("time/setup_s") > 0  # once, at the first epoch
    # The first epoch took 2 s and 36 J, the eleven to come take as long as its usual steps, at 18 W
    usual_s = (logged[0][1].pop("forecast/train_s") - 2.0) / 11
    assert 0 < usual_s < 2
    forecast_wh = logged[0][1].pop("forecast/train_wh")
    assert forecast_wh == pytest.approx((36 + 11 * 18 * usual_s) / 3600)
    assert logged[0][1].pop("forecast/eval_s") > 2.0
    assert all(set(metrics) == set(last) for _, metrics in logged)
    assert meter.opened == ["train", "eval"] * 12
    assert result.metrics == last


def test_predictions_give_the_logged_scores(shapes: Path) -> None:
    result, logged, _ = _fit(_spec(shapes, epochs=1))
    for name, found in (("val", result.val), ("test", result.test)):
        again = scores(found.labels, found.probabilities, "binary-class")
        assert again["accuracy"] == logged[-1][1][f"{name}/accuracy"]
        assert again["auc"] == logged[-1][1][f"{name}/auc"]
    labels, chances = result.test.labels, result.test.probabilities
    assert np.allclose(chances.sum(axis=1), 1)
    chosen = chances[np.arange(len(labels)), labels]
    assert -np.log(chosen).mean() == pytest.approx(logged[-1][1]["test/loss"], rel=1e-5)


def test_best_validation_epoch_is_the_first_of_the_highest(
    shapes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_epoch = {"val": [0.5, 0.8, 0.8, 0.6], "test": [0.4, 0.7, 0.9, 0.5]}

    def evaluate(self: Any, batches: Any, epoch: int, name: str) -> Any:
        accuracy = by_epoch[name][epoch - 1]
        return trainer.Evaluation({"loss": 1.0, "accuracy": accuracy}, np.zeros(1), np.zeros(1))

    monkeypatch.setattr(trainer.Trainer, "evaluate", evaluate)
    _, logged, _ = _fit(_spec(shapes, epochs=4))
    assert [m["best_val/accuracy"] for _, m in logged] == [0.4, 0.7, 0.7, 0.7]
    assert [m["performance"] for _, m in logged] == [0.4, 0.7, 0.9, 0.5]
    assert "best_val/loss" not in logged[-1][1]


def test_training_loss_is_the_mean_over_images_and_not_batches(shapes: Path) -> None:
    """With a learning rate too small to matter the mean is that of the first weights."""
    spec = _spec(shapes, epochs=1, batch_size=30, lr=1e-12)
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(32 * 32, 2))
    network.pretrained_cfg = {}  # type: ignore[assignment]
    _, logged, _ = _fit(spec, network)
    splits = data.load(spec)
    (images,) = splits.train.images.parts()  # type: ignore[union-attr]
    x = torch.from_numpy(images).unsqueeze(1).float() / 255
    loss = torch.nn.CrossEntropyLoss()(network(x), torch.from_numpy(splits.train.labels)).item()
    assert logged[0][1]["train/loss"] == pytest.approx(loss, rel=1e-5)


def test_same_seed_same_numbers_other_seed_others(shapes: Path) -> None:
    specs = [
        _spec(shapes, model="lcnet_050", epochs=2, seed=seed, deterministic=True)
        for seed in (5, 5, 6)
    ]
    runs = [_fit(spec) for spec in specs]
    losses = [run[1][-1][1]["train/loss"] for run in runs]
    assert losses[0] == losses[1] != losses[2]
    assert np.array_equal(runs[0][0].test.probabilities, runs[1][0].test.probabilities)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precisions_learn_too(shapes: Path, precision: str) -> None:
    spec = _spec(shapes, precision=precision, layout="channels_last", epochs=12, lr=0.02)
    _, logged, _ = _fit(spec, _Small())
    assert logged[-1][1]["test/accuracy"] == 1.0


def test_fp32_means_single_precision_throughout(shapes: Path) -> None:
    trainer.prepare(_spec(shapes), CPU)
    assert torch.backends.cudnn.conv.fp32_precision == "ieee"
    assert torch.backends.cuda.matmul.fp32_precision == "ieee"


@pytest.mark.parametrize("precision", ["fp32", "tf32"])
def test_a_model_can_be_exported_after_a_training(shapes: Path, precision: str) -> None:
    """torch refuses where its older flag of TF32 does not agree with the newer ones."""
    trainer.prepare(_spec(shapes, precision=precision), CPU)
    exported = torch.export.export(torch.nn.ReLU(), (torch.tensor([-1.0, 2.0]),))
    assert exported.module()(torch.tensor([-3.0, 4.0])).tolist() == [0.0, 4.0]


def test_operations_get_the_precision_of_their_spec(
    shapes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch 2.11 leaves convolutions in TF32 unless each of them is set."""
    cuda = SimpleNamespace(matmul=SimpleNamespace())
    cudnn = SimpleNamespace(conv=SimpleNamespace(), rnn=SimpleNamespace())
    monkeypatch.setattr(torch, "backends", SimpleNamespace(cuda=cuda, cudnn=cudnn))
    for requested, meant in (("fp32", "ieee"), ("tf32", "tf32"), ("bf16", "ieee")):
        trainer.prepare(_spec(shapes, precision=requested), CPU)
        for backend in (torch.backends, cuda.matmul, cudnn.conv, cudnn.rnn):
            assert backend.fp32_precision == meant


def test_a_checkpoint_of_an_unfused_adam_resumes_fused(shapes: Path) -> None:
    spec = _spec(shapes, precision="fp16")
    splits = data.load(spec)
    trainer.prepare(spec, CPU)
    begun = trainer.Trainer(spec, splits, _Small(), CPU)
    begun.train_on(begun.train.order(8, None))
    state = copy.deepcopy(begun.state())
    (group,) = state["optimiser"]["param_groups"]
    group |= {"fused": None, "capturable": False}  # as earlier versions saved it
    resumed = trainer.Trainer(spec, splits, _Small(), CPU)
    resumed.restore(state)
    order = begun.train.order(8, None)
    assert resumed.train_on(order) == begun.train_on(order) == 32
    for one, other in zip(
        begun.state()["network"].values(), resumed.state()["network"].values(), strict=True
    ):
        assert torch.equal(one, other)


def test_tf32_is_refused_where_there_is_none(shapes: Path) -> None:
    with pytest.raises(WrongUse, match="tf32 needs an NVIDIA GPU"):
        trainer.check_device(_spec(shapes, precision="tf32"), CPU)


def test_a_non_finite_loss_stops_with_epoch_and_step(shapes: Path) -> None:
    class Diverges(torch.nn.Module):
        """Its third forward pass of training, in the first epoch, is not a number."""

        pretrained_cfg: dict[str, object] = {}  # noqa: RUF012

        def __init__(self) -> None:
            super().__init__()
            self.linear = torch.nn.Linear(32 * 32, 2)
            self.passes = 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.passes += self.training
            out = self.linear(x.flatten(1))
            return out * (math.nan if self.passes == 3 else 1.0)

    spec = _spec(shapes)
    logged: list[tuple[int, dict[str, float]]] = []
    with pytest.raises(WorkFailed, match="loss: nan in epoch 1, step 3") as failed:
        loop.fit(
            spec,
            data.load(spec),
            Diverges(),
            Recorder(Device(CPU), _Meter(), None, 1.0),
            lambda metrics, epoch: logged.append((epoch, dict(metrics))),
            Silent(spec, ""),
            time.perf_counter(),
        )
    assert failed.value.reason == "non_finite_loss"
    ((epoch, metrics),) = logged  # the cost of the unfinished epoch is logged
    assert epoch == 1
    assert metrics["energy/train_wh"] == pytest.approx(0.01)
    assert "test/accuracy" not in metrics


def test_out_of_memory_is_reported_with_the_epochs_completed(shapes: Path) -> None:
    class Grows(torch.nn.Module):
        pretrained_cfg: dict[str, object] = {}  # noqa: RUF012

        def __init__(self) -> None:
            super().__init__()
            self.linear = torch.nn.Linear(32 * 32, 2)
            self.passes = 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.passes += self.training
            if self.passes == 6:  # epochs have 4 steps
                torch.empty(1 << 50)  # a petabyte
            return self.linear(x.flatten(1))

    with pytest.raises(WorkFailed, match="out of memory in epoch 2 with batch_size=8") as failed:
        _fit(_spec(shapes), Grows())
    assert failed.value.reason == "out_of_memory"
    assert "1 epochs were completed" in str(failed.value)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        torch.AcceleratorError("CUDA error: out of memory\nCompile with `TORCH_USE_CUDA_DSA`"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
)
def test_out_of_memory_before_the_first_epoch_is_reported_too(
    shapes: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def full(self: torch.nn.Module, *args: object, **kwargs: object) -> None:
        raise error

    monkeypatch.setattr(torch.nn.Module, "to", full)
    with pytest.raises(WorkFailed, match="out of memory before the first epoch") as failed:
        _fit(_spec(shapes))
    assert failed.value.reason == "out_of_memory"


def test_a_gpu_whose_memory_others_use_is_reported(
    shapes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(device: torch.device) -> None:
        raise torch.AcceleratorError("CUDA error: out of memory")

    monkeypatch.setattr(torch.cuda, "set_device", full)
    with pytest.raises(WorkFailed, match=r"before the first epoch .* more free memory") as failed:
        trainer.open_device(_spec(shapes), torch.device("cuda:0"))
    assert failed.value.reason == "out_of_memory"


def test_bf16_is_checked_on_the_device_that_is_used(
    shapes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    capability = {torch.device("cuda:0"): (8, 0), torch.device("cuda:1"): (7, 5)}
    monkeypatch.setattr(torch.cuda, "get_device_capability", capability.__getitem__)
    spec = _spec(shapes, precision="bf16")
    trainer.check_device(spec, torch.device("cuda:0"))
    with pytest.raises(WrongUse, match="cuda:1 has no hardware for bf16"):
        trainer.check_device(spec, torch.device("cuda:1"))


class _Clocked:
    """A clock that steps and evaluations move, and the meter of 10 W by it."""

    sources = {"gpu": "measured"}  # noqa: RUF012
    method = "fake"
    notes: Mapping[str, str] = {}

    def __init__(self, monkeypatch: pytest.MonkeyPatch, step_s: list[float]) -> None:
        """Each step takes the next of `step_s`; to evaluate takes 1 s for the 16 images of test and
        0.75 s for the 12 of val, but 4 s the first time."""
        self.now = self.begun = 0.0
        seconds = iter(step_s)
        first_s = iter([4.0])
        step, evaluate = trainer.Trainer._train_step, trainer.Trainer.evaluate

        def stepped(*given: Any) -> Any:
            self.now += next(seconds)
            return step(*given)

        def evaluated(training: Any, batches: Any, *given: Any) -> Any:
            self.now += next(first_s, len(batches) / 16)
            return evaluate(training, batches, *given)

        monkeypatch.setattr(loop, "time", SimpleNamespace(perf_counter=lambda: self.now))
        monkeypatch.setattr(trainer.Trainer, "_train_step", stepped)
        monkeypatch.setattr(trainer.Trainer, "evaluate", evaluated)

    def begin(self, name: str) -> None:
        self.begun = self.now

    def end(self) -> Window:
        return Window(self.now - self.begun, {"gpu": self.spent_j()}, {})

    def spent_j(self) -> float:
        return 10 * (self.now - self.begun)

    def elapsed_s(self) -> float:
        return self.now - self.begun


class _Shown(Silent):
    def __init__(self) -> None:
        self.forecasts: list[dict[str, float]] = []

    def end_epoch(self, metrics: Mapping[str, float]) -> None:
        self.forecasts.append({k: v for k, v in metrics.items() if k.startswith("forecast/")})


def _forecasts(
    shapes: Path, monkeypatch: pytest.MonkeyPatch, step_s: list[float], **fields: Any
) -> tuple[list[dict[str, float]], list[dict[str, float]]]:
    """The forecasts that are shown after each epoch, and those that are logged."""
    spec = _spec(shapes, **fields)
    shown = _Shown()
    logged: list[dict[str, float]] = []
    loop.fit(
        spec,
        data.load(spec),
        _Small(),
        Recorder(Device(CPU), _Clocked(monkeypatch, step_s), None, 1.0),
        lambda metrics, epoch: logged.append(
            {k: v for k, v in metrics.items() if k.startswith("forecast/")}
        ),
        shown,
        0.0,
    )
    return shown.forecasts, logged


def test_a_forecast_leaves_out_the_warm_up_and_follows_the_epochs(
    shapes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 8 steps of 4 images: three of warm-up, four of 1 s, a slow last one. 20 s, or 8 s without.
    first, second, third = [6.0, 3.0, 2.0, 1, 1, 1, 1, 5.0], [1.25] * 8, [1.0] * 8
    shown, logged = _forecasts(
        shapes, monkeypatch, [*first, *second, *third], epochs=3, batch_size=4
    )
    one = {
        "forecast/train_s": 20.0 + 2 * 8.0,
        "forecast/train_wh": pytest.approx(360 / 3600),
        "forecast/eval_s": 5.0 + 2 * 1.75,
    }
    two = {  # an epoch is expected to take the median of 8 s and 10 s
        "forecast/train_s": 30.0 + 9.0,
        "forecast/train_wh": pytest.approx(390 / 3600),
        "forecast/eval_s": 6.75 + 1.75,
    }
    assert shown == [one, two, {}]
    assert logged == [one, {}, {}]


def test_an_epoch_of_two_steps_stands_for_the_others_as_it_was(
    shapes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown, _ = _forecasts(shapes, monkeypatch, [2.0, 1.0] * 3, epochs=3, batch_size=16)
    assert [epoch.get("forecast/train_s") for epoch in shown] == [9.0, 9.0, None]


@pytest.mark.parametrize("fields", [{"epochs": 1}, {"epochs": 3, "budget_s": 3.0}])
def test_nothing_is_forecast_of_one_epoch_or_of_one_that_a_budget_ended(
    shapes: Path, monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any]
) -> None:
    assert _forecasts(shapes, monkeypatch, [1.0] * 4, **fields) == ([{}], [{}])


def test_an_energy_budget_stops_after_the_step_that_crosses_it(
    shapes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "_POLL_ENERGY_S", (0.0, 0.0))
    # 18 J a step: 0.0125 Wh are 45 J, crossed at the third step of the first epoch's four
    result, logged, _ = _fit(_spec(shapes, budget_wh=0.0125))
    assert result.stopped == "budget_wh=0.0125 reached in epoch 1 of 3, step 3 of 4"
    assert len(logged) == 1
    assert "test/accuracy" in logged[0][1]
    assert logged[0][1]["time/images_per_s"] == 12.0  # 24 images in 2 s


def test_an_energy_budget_is_polled_more_often_the_less_is_left(shapes: Path) -> None:
    clock = SimpleNamespace(now=0.0)
    polls: list[float] = []

    def spent_j() -> float:  # 100 W from the start
        polls.append(clock.now)
        return 100 * clock.now

    meter: Any = SimpleNamespace(
        spent_j=spent_j, elapsed_s=lambda: clock.now, sources={"gpu": "measured"}
    )
    recorder = Recorder(Device(CPU), meter, None, 1.0)
    budget = Budget(_spec(shapes, budget_wh=1.0), recorder)  # 3600 J are 36 s
    step, stopped = 0, None
    while stopped is None:
        step += 1
        clock.now = step / 100
        stopped = budget.crossed(1, step, 1_000_000)
    assert polls[0] == 0.1
    assert 36.0 <= clock.now < 36.1 + 0.01
    assert len(polls) < 45  # 360 at a poll every 0.1 s
    assert np.diff(polls).max() < 1.0 + 0.02


def test_an_energy_budget_counts_the_epochs_before(
    shapes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "_POLL_ENERGY_S", (0.0, 0.0))
    monkeypatch.setattr(trainer, "steady_steps", lambda steps: ())  # no readings for the forecast
    # epoch 1 takes 4 polls of 18 J = 72 J < 80 J and is closed at 36 J; 36 + 3 * 18 = 90 J >= 80 J
    result, _, _ = _fit(_spec(shapes, budget_wh=80 / 3600))
    assert result.stopped is not None
    assert "epoch 2 of 3, step 3 of 4" in result.stopped


def test_a_time_budget_stops(shapes: Path) -> None:
    # every epoch counts as 2 s of the fake meter: 4 s are over at the first step of the third
    result, logged, _ = _fit(_spec(shapes, budget_s=4.0), _Small())
    assert result.stopped is not None
    assert "budget_s=4 reached in epoch 3 of 3, step 1 of 4" in result.stopped
    assert len(logged) == 3


def test_a_budget_that_can_no_longer_be_read_ends_the_run(
    shapes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "_POLL_ENERGY_S", (0.0, 0.0))
    monkeypatch.setattr(_Meter, "spent_j", lambda self: None)
    with pytest.raises(WorkFailed, match="energy readings stopped") as failed:
        _fit(_spec(shapes, budget_wh=1.0))
    assert failed.value.reason == "sensor_lost"


def test_several_labels_per_image(shapes: Path) -> None:
    from dataclasses import replace

    from pepr_mlops.data.splits import Split
    from pepr_mlops.names import MULTI_LABEL

    spec = _spec(shapes, epochs=4)
    splits = data.load(spec)

    def two_labels(split: Split) -> Split:
        return Split(split.images, np.stack([split.labels, 1 - split.labels], axis=1))

    splits = replace(
        splits,
        task=MULTI_LABEL,
        train=two_labels(splits.train),
        val=two_labels(splits.val),
        test=two_labels(splits.test),
    )
    network = models.build("resnet18d", classes=2, channels=1, image_size=32, pretrained=False)
    result = loop.fit(
        spec,
        splits,
        network,
        Recorder(Device(CPU), _Meter(), None, 1.0),
        lambda m, e: None,
        Silent(spec, ""),
        time.perf_counter(),
    )
    assert result.metrics["test/auc"] > 0.95
    assert result.test.probabilities.shape == (16, 2)


def test_weights_normalisation_is_the_models_own() -> None:
    described = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4)}
    mean, std = trainer._normalisation(described, 3, CPU)
    assert mean.flatten().tolist() == pytest.approx([0.5, 0.4, 0.3])
    grey, _ = trainer._normalisation(described, 1, CPU)
    assert grey.flatten().tolist() == pytest.approx([0.4])
    assert std.shape == (1, 3, 1, 1)
