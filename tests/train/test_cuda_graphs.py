"""Steps as CUDA graphs: they need a GPU, all but what is refused without one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from pepr_mlops import data
from pepr_mlops.errors import WorkFailed, WrongUse
from pepr_mlops.spec import RunSpec
from pepr_mlops.train import autotune, models, trainer
from pepr_mlops.train.cuda_graphs import UNRECORDED, Graphs

CPU = torch.device("cpu")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")


class _Drops(torch.nn.Sequential):
    """A network with what a step changes besides weights: running means and random numbers."""

    pretrained_cfg: dict[str, object] = {}  # noqa: RUF012

    def __init__(self) -> None:
        torch.manual_seed(0)
        super().__init__(
            torch.nn.Conv2d(1, 8, 3),
            torch.nn.BatchNorm2d(8),
            torch.nn.ReLU(),
            torch.nn.Dropout(0.3),
            torch.nn.AdaptiveAvgPool2d(1),
            torch.nn.Flatten(),
            torch.nn.Linear(8, 2),
        )


class _Waits(_Drops):
    """Decides by what it computed, for which the processor has to wait."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = super().forward(x)
        return out * 2 if float(out.sum()) > 0 else out


def _spec(shapes: Path, **fields: Any) -> RunSpec:
    given = {"dataset": str(shapes), "image_size": 32, "batch_size": 6, "deterministic": True}
    return RunSpec(**{**given, "pretrained": False, "device": "cuda", **fields})


def _losses(spec: RunSpec, network: torch.nn.Module, saved: Any = None) -> Any:
    """Of each step of six epochs, with the losses of validation; and what training came to."""
    device = torch.device("cuda:0")
    trainer.prepare(spec, device)
    training = trainer.Trainer(spec, data.load(spec), network, device)
    if saved is not None:
        training.restore(saved)
    losses = []
    for epoch in range(6):
        network.train()
        order = training.train.order(spec.batch_size, training._shuffle)
        for x, y in training.train.take(order):
            losses.append(float(training._step(x, y)))
        losses.append(training.evaluate(training.val, epoch, "val").scores["loss"])
    return losses, training.state()


@needs_gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_graph_comes_to_the_same_numbers_to_the_last_bit(shapes: Path, precision: str) -> None:
    kernels, one = _losses(_spec(shapes, precision=precision), _Drops())
    graph, two = _losses(_spec(shapes, precision=precision, launch="graph"), _Drops())
    assert graph == kernels
    assert len(set(kernels)) > len(kernels) / 2  # it learns
    for name, weights in one["network"].items():
        assert torch.equal(weights, two["network"][name])
    assert torch.equal(one["random_cuda"], two["random_cuda"])
    # ... and so do the next six epochs, which begin from the saved state.
    kernels, _ = _losses(_spec(shapes, precision=precision), _Drops(), one)
    graph, _ = _losses(_spec(shapes, precision=precision, launch="graph"), _Drops(), two)
    assert graph == kernels


class _Caches(_Drops):
    """Caches a value computed from its weights during evaluation, and drops it for training."""

    cached: torch.Tensor | None = None

    def train(self, mode: bool = True) -> _Caches:
        self.cached = None
        return super().train(mode)  # type: ignore[return-value]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = super().forward(x)
        if self.training:
            return out
        if self.cached is None:
            self.cached = self[-1].weight.sum(dim=1) * 10
        return out + self.cached


@needs_gpu
def test_values_that_a_network_caches_for_evaluation_are_computed_again(shapes: Path) -> None:
    kernels, _ = _losses(_spec(shapes), _Caches())
    graph, _ = _losses(_spec(shapes, launch="graph"), _Caches())
    assert graph == kernels


@needs_gpu
def test_a_trial_continues_without_graphs_where_none_is_possible(
    shapes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "build", lambda *given, **named: _Waits())
    spec = _spec(shapes, layout="auto", launch="auto", deterministic=False)
    trial = autotune.fastest(spec, data.load(spec), torch.device("cuda:0"))
    assert trial.spec.launch == "kernels"
    assert "fp32 contiguous graph graph_failed" in trial.report
    assert "fp32 channels_last " in trial.report


@needs_gpu
def test_each_shape_is_recorded_after_some_calls_and_outputs_stay() -> None:
    device = torch.device("cuda:0")
    calls = []

    def double(x: torch.Tensor) -> torch.Tensor:
        calls.append(len(x))
        return 2 * x

    doubled = Graphs(double, device, torch.cuda.graph_pool_handle())
    outputs = [doubled(torch.full((n,), i, device=device)) for i in range(8) for n in (2, 3)]
    assert calls == [2, 3] * (UNRECORDED + 1)
    assert [out.tolist() for out in outputs[::2]] == [[2 * i] * 2 for i in range(8)]
    assert [out.tolist() for out in outputs[1::2]] == [[2 * i] * 3 for i in range(8)]


@needs_gpu
def test_a_network_that_waits_for_the_gpu_is_refused(shapes: Path) -> None:
    with pytest.raises(WorkFailed, match=r"launch: .* train with launch=kernels") as failed:
        _losses(_spec(shapes, launch="graph"), _Waits())
    assert failed.value.reason == "graph_failed"
    _losses(_spec(shapes), _Waits())  # the process can go on


def test_a_cpu_has_no_graphs(shapes: Path) -> None:
    with pytest.raises(WrongUse, match=r"launch: graph needs an NVIDIA GPU, .* use kernels"):
        trainer.check_device(_spec(shapes, launch="graph"), CPU)
