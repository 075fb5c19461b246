"""A recorder counts every window once, also one that an error left open."""

from __future__ import annotations

from contextlib import suppress

import pytest
import torch

from pepr_mlops.costs.device import Device
from pepr_mlops.costs.meters.meter import Meter
from pepr_mlops.costs.recorder import Recorder
from pepr_mlops.costs.totals import Window
from pepr_mlops.spec import RunSpec


class _Meter(Meter):
    """Windows of 2 s and 7,200 J, which is 2 Wh; the device is lost when `lost` is set."""

    sources = {"gpu": "measured"}  # noqa: RUF012
    lost = False

    def __init__(self) -> None:
        super().__init__(lambda: None, {})

    def end(self) -> Window:
        if self.lost:
            raise RuntimeError("CUDA error")
        return Window(2.0, {"gpu": 7200.0}, {})


@pytest.fixture
def recorder() -> Recorder:
    return Recorder(Device(torch.device("cpu")), _Meter(), None, 1.0)


def test_a_phase_counts_when_it_ends_and_when_it_fails(recorder: Recorder) -> None:
    with recorder.phase("train", "epoch 1") as phase:
        pass
    assert phase.window.time_s == 2.0
    with suppress(ZeroDivisionError), recorder.phase("train", "epoch 2"):
        _ = 1 / 0
    assert recorder.metrics()["energy/train_wh"] == 4.0
    recorder.end_open_window("epoch 2")  # nothing is open any more
    assert recorder.metrics()["energy/train_wh"] == 4.0


@pytest.mark.parametrize(
    ("kind", "cpus_given", "counts_host", "tagged"),
    [
        ("cuda:0", "4", False, False),
        ("cuda:0", "8", True, False),
        ("cpu", "4", True, True),
        ("cpu", "8", True, False),
    ],
)
def test_on_a_part_of_a_node_a_gpu_counts_alone_and_a_cpu_is_doubtful(
    kind: str,
    cpus_given: str,
    counts_host: bool,
    tagged: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read = []

    def opened(energy: str, device: Device, *, host: bool) -> _Meter:
        read.append(host)
        meter = _Meter()
        meter.sources = {"cpu": "measured"} if host else {"gpu": "measured"}  # type: ignore[misc]
        return meter

    monkeypatch.setattr("pepr_mlops.costs.recorder.open_meter", opened)
    monkeypatch.setattr("pepr_mlops.costs.memory.Memory", lambda device: None)
    monkeypatch.setattr(Device, "describe", lambda self: {})
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURMD_NODENAME", "n1")
    monkeypatch.setenv("SLURM_CPUS_ON_NODE", cpus_given)
    opened_recorder = Recorder.open(RunSpec(), Device(torch.device(kind)))
    tags = opened_recorder.opening_tags("e", "test/accuracy")
    assert read == [counts_host]
    assert ("pepr.node_share" in tags) == tagged
    if tagged:
        assert tags["pepr.node_share"].startswith("Slurm gave it 4 of the node's 8 CPUs: energy")


def test_a_window_that_an_error_left_open_is_counted_after_it(recorder: Recorder) -> None:
    recorder.begin_window("eval")
    recorder.end_open_window("epoch 1")
    assert recorder.metrics()["energy/eval_wh"] == 2.0


def test_a_window_that_cannot_be_closed_leaves_the_costs_unknown(
    recorder: Recorder,
) -> None:
    recorder.meter.lost = True  # type: ignore[attr-defined]
    with suppress(ZeroDivisionError), recorder.phase("train", "epoch 1"):
        _ = 1 / 0
    assert "energy/train_wh" not in recorder.metrics()
    with pytest.raises(RuntimeError, match="CUDA error"):  # so that no caller saves such costs
        recorder.end_open_window("epoch 1")
