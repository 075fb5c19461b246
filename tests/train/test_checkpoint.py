"""A training that is interrupted and goes on: the same numbers, and the costs of all attempts."""

from __future__ import annotations

import resource
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pepr_mlops import data
from pepr_mlops.costs.device import Device
from pepr_mlops.costs.recorder import Recorder
from pepr_mlops.costs.totals import Window
from pepr_mlops.errors import Paused
from pepr_mlops.spec import RunSpec
from pepr_mlops.train import checkpoint, loop, trainer
from pepr_mlops.train.checkpoint import Checkpoint, Saved
from pepr_mlops.train.progress import Silent

CPU = torch.device("cpu")


class _Meter:
    """2 s and 36 J for every window."""

    sources = {"gpu": "measured"}  # noqa: RUF012
    method = "fake"
    notes: Mapping[str, str] = {}

    def begin(self, name: str) -> None: ...

    def end(self) -> Window:
        return Window(2.0, {"gpu": 36.0}, {})

    def spent_j(self) -> float | None:
        return None

    def elapsed_s(self) -> float:
        return 1.0


def _network(seed: int) -> torch.nn.Module:
    """With dropout, so that the state of the random numbers matters, and batch statistics."""
    torch.manual_seed(seed)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3, stride=2),
        torch.nn.BatchNorm2d(4),
        torch.nn.ReLU(),
        torch.nn.Dropout(0.5),
        torch.nn.Flatten(),
        torch.nn.LazyLinear(2),
    )
    network(torch.zeros(2, 1, 32, 32))
    network.pretrained_cfg = {}  # type: ignore[assignment]
    return network


Log = list[tuple[int, dict[str, float]]]


def _fit(
    shapes: Path,
    folder: Path | None = None,
    saved: Saved | None = None,
    pause: Callable[[int, Mapping[str, float]], bool] | None = None,
    record: Callable[[Mapping[str, float], int], None] | None = None,
    log: Log | None = None,
) -> tuple[loop.Result, Log]:
    spec = RunSpec(
        model="test_resnet",
        dataset=str(shapes),
        image_size=32,
        epochs=4,
        batch_size=8,
        pretrained=False,
        device="cpu",
        deterministic=True,
    )
    trainer.prepare(spec, CPU)
    network = _network(seed=1)
    recorder = Recorder(Device(CPU), _Meter(), None, 1.0)
    log = [] if log is None else log
    if saved is not None:
        recorder.resume(saved.recorded)

    def keep(metrics: Mapping[str, float], epoch: int) -> None:
        if record is not None:
            record(metrics, epoch)
        log.append((epoch, dict(metrics)))

    result = loop.fit(
        spec,
        data.load(spec),
        network,
        recorder,
        keep,
        Silent(spec, "measured"),
        time.perf_counter(),
        checkpoint=None if folder is None else Checkpoint(folder, "run7", "a card", "job"),
        saved=saved,
        pause=pause,
    )
    return result, log


def _learned(metrics: Mapping[str, float]) -> dict[str, float]:
    """All but what depends on the clock and on the process."""
    return {k: v for k, v in metrics.items() if not k.startswith(("time/", "memory/", "forecast/"))}


@pytest.mark.parametrize("at", [1, 3])
def test_a_rest_changes_nothing(shapes: Path, tmp_path: Path, at: int) -> None:
    uninterrupted, log = _fit(shapes)
    first: Log = []
    with pytest.raises(Paused, match=f"paused after epoch {at} of 4"):
        _fit(shapes, tmp_path / "c", pause=lambda epoch, metrics: epoch == at, log=first)
    saved = checkpoint.load(tmp_path / "c")
    assert saved is not None
    assert (saved.epoch, saved.run_id, saved.hardware, saved.clean) == (at, "run7", "a card", True)
    result, second = _fit(shapes, tmp_path / "c", saved)
    assert [epoch for epoch, _ in first + second] == [1, 2, 3, 4]
    assert [_learned(m) for _, m in first + second] == [_learned(m) for _, m in log]
    assert np.array_equal(result.test.probabilities, uninterrupted.test.probabilities)
    assert second[-1][1]["energy/train_wh"] == pytest.approx(4 * 36 / 3600)
    assert second[-1][1]["time/train_s"] == 8.0


def test_a_signal_while_an_epoch_is_saved_waits_until_it_is_logged(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uninterrupted, log = _fit(shapes)
    save = Checkpoint.save

    def interrupted(self: Checkpoint, epoch: int, *given: Any) -> None:
        save(self, epoch, *given)
        if epoch == 2:
            signal.raise_signal(signal.SIGINT)

    first: Log = []
    with monkeypatch.context() as patched:
        patched.setattr(Checkpoint, "save", interrupted)
        with pytest.raises(KeyboardInterrupt):
            _fit(shapes, tmp_path / "c", log=first)
    assert [epoch for epoch, _ in first] == [1, 2]
    assert "test/accuracy" in first[-1][1]
    saved = checkpoint.load(tmp_path / "c")
    assert saved is not None
    assert saved.epoch == 2
    result, second = _fit(shapes, tmp_path / "c", saved)
    assert [_learned(m) for _, m in first + second] == [_learned(m) for _, m in log]
    assert np.array_equal(result.test.probabilities, uninterrupted.test.probabilities)


def test_a_full_disk_loses_the_checkpoint_and_not_the_training(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes: list[str] = []
    monkeypatch.setattr(Silent, "note", lambda self, text: notes.append(text))
    data.load(RunSpec(dataset=str(shapes), image_size=32))  # its images are prepared by then
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))  # stands in for the end of a disk
    try:
        _, log = _fit(shapes, tmp_path / "c")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [epoch for epoch, _ in log] == [1, 2, 3, 4]
    assert [note.split(" (")[0] for note in notes] == [
        f"checkpoint: epoch {epoch} was not saved" for epoch in range(1, 5)
    ]
    assert list((tmp_path / "c").iterdir()) == []


def test_a_full_disk_keeps_no_cost_of_an_interrupted_epoch_from_the_log(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(self: Any, batches: Any, epoch: int, name: str) -> Any:
        if epoch == 2:
            raise KeyboardInterrupt
        return evaluate(self, batches, epoch, name)

    def full(*given: object, **more: object) -> None:
        raise OSError(28, "No space left on device")

    evaluate = trainer.Trainer.evaluate
    monkeypatch.setattr(trainer.Trainer, "evaluate", interrupted)
    monkeypatch.setattr(Checkpoint, "costs", full)
    log: Log = []
    with pytest.raises(KeyboardInterrupt):
        _fit(shapes, tmp_path / "c", log=log)
    assert [epoch for epoch, _ in log] == [1, 2]
    assert log[1][1]["time/train_s"] > log[0][1]["time/train_s"]


def test_energy_of_an_epoch_that_is_done_again_counts_twice(shapes: Path, tmp_path: Path) -> None:
    """It fails in the evaluation of the third epoch, after its training was paid."""

    def killed(self: Any, batches: Any, epoch: int, name: str) -> Any:
        if epoch == 3:
            raise KeyboardInterrupt
        return evaluate(self, batches, epoch, name)

    evaluate = trainer.Trainer.evaluate
    log: Log = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer.Trainer, "evaluate", killed)
        with pytest.raises(KeyboardInterrupt):
            _fit(shapes, tmp_path / "c", log=log)
    assert log[-1][0] == 3
    assert log[-1][1]["time/train_s"] == 6.0
    saved = checkpoint.load(tmp_path / "c")
    assert saved is not None
    assert (saved.epoch, saved.clean) == (2, True)
    _, log = _fit(shapes, tmp_path / "c", saved)
    assert [epoch for epoch, _ in log] == [3, 4]
    assert log[-1][1]["time/train_s"] == 10.0  # five epochs were trained
    assert log[-1][1]["time/eval_s"] == 10.0
    assert log[-1][1]["energy/train_wh"] == pytest.approx(5 * 36 / 3600)


def test_a_death_without_a_word_leaves_the_last_epoch(shapes: Path, tmp_path: Path) -> None:
    """As of SIGKILL while the third epoch is logged: it is saved, but may not be logged."""

    def dies(metrics: Mapping[str, float], epoch: int) -> None:
        if epoch == 3:
            raise ZeroDivisionError

    _, log = _fit(shapes)
    with pytest.raises(ZeroDivisionError):
        _fit(shapes, tmp_path / "c", record=dies)
    saved = checkpoint.load(tmp_path / "c")
    assert saved is not None
    assert (saved.epoch, saved.clean) == (3, False)
    assert _learned(saved.metrics) == _learned(log[2][1])
    _, again = _fit(shapes, tmp_path / "c", saved)
    assert [epoch for epoch, _ in again] == [4]
    assert _learned(again[-1][1]) == _learned(log[-1][1])


def test_after_the_last_epoch_only_the_predictions_are_made_again(
    shapes: Path, tmp_path: Path
) -> None:
    uninterrupted, log = _fit(shapes, tmp_path / "c")
    saved = checkpoint.load(tmp_path / "c")
    assert saved is not None
    result, again = _fit(shapes, tmp_path / "c", saved)
    assert again == []
    assert (result.epoch, result.metrics) == log[-1]
    for split in ("val", "test"):
        before, after = getattr(uninterrupted, split), getattr(result, split)
        assert np.array_equal(after.labels, before.labels)
        assert np.array_equal(after.probabilities, before.probabilities)


def test_costs_of_other_sensors_do_not_add_up(shapes: Path, tmp_path: Path) -> None:
    _fit(shapes, tmp_path / "c")
    saved = checkpoint.load(tmp_path / "c")
    assert saved is not None
    meter = _Meter()
    meter.sources = {"gpu": "measured", "cpu": "measured"}
    with pytest.raises(ValueError, match="energy was"):
        Recorder(Device(CPU), meter, None, 1.0).resume(saved.recorded)


def test_peaks_of_memory_are_the_highest_of_all_attempts() -> None:
    recorder = Recorder(Device(CPU), _Meter(), None, 1.0)
    state = recorder.state()
    recorder.resume({**state, "peaks": {"memory/rss_gb": 1e6}})
    assert recorder.metrics()["memory/rss_gb"] == 1e6
    recorder.resume({**state, "peaks": {"memory/rss_gb": 1e-6}})
    assert recorder.metrics()["memory/rss_gb"] > 1e-3


def test_none_and_a_broken_one(tmp_path: Path) -> None:
    assert checkpoint.load(tmp_path) is None
    (tmp_path / "state.pt").write_bytes(b"half a file")
    with pytest.raises(ValueError, match=r"state\.pt"):
        checkpoint.load(tmp_path)


def test_a_probe_forecasts_all_epochs_from_steps_after_the_first(
    shapes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "_PROBE_S", 0.0)
    monkeypatch.setattr(loop, "_PROBE_STEPS", 2)
    spec = RunSpec(
        dataset=str(shapes), image_size=32, epochs=5, batch_size=4, pretrained=False, device="cpu"
    )
    recorder = Recorder(Device(CPU), _Meter(), None, 1.0)
    metrics, steps = loop.probe(
        spec, data.load(spec), _network(1), recorder, Silent(spec, "measured")
    )
    assert steps == "4 + 2 steps, of which an epoch has 8"
    # 8 of 32 images took 2 s and 36 J: 5 epochs are 160 images, 20 times as many
    assert metrics["forecast/train_s"] == 40.0
    assert metrics["forecast/train_wh"] == pytest.approx(20 * 36 / 3600)
    assert metrics["time/train_s"] == 4.0  # what it took, the first steps too
    assert metrics["energy/train_wh"] == pytest.approx(72 / 3600)


def test_a_probe_continues_after_a_short_epoch_and_a_stuck_counter_is_not_zero(
    shapes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "_PROBE_S", 0.0)
    monkeypatch.setattr(_Meter, "end", lambda self: Window(2.0, {"gpu": 0.0}, {}))
    spec = RunSpec(
        dataset=str(shapes), image_size=32, epochs=5, batch_size=16, pretrained=False, device="cpu"
    )
    recorder = Recorder(Device(CPU), _Meter(), None, 1.0)
    metrics, steps = loop.probe(
        spec, data.load(spec), _network(1), recorder, Silent(spec, "measured")
    )
    assert steps == "4 + 10 steps, of which an epoch has 2"
    assert metrics["forecast/train_s"] == 2.0  # ten steps are five epochs
    assert "forecast/train_wh" not in metrics


def test_a_probe_takes_no_more_than_an_epoch(shapes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "_PROBE_S", 1e9)
    monkeypatch.setattr(loop, "_PROBE_STEPS", 2)
    spec = RunSpec(
        dataset=str(shapes), image_size=32, epochs=5, batch_size=4, pretrained=False, device="cpu"
    )
    recorder = Recorder(Device(CPU), _Meter(), None, 1.0)
    _, steps = loop.probe(spec, data.load(spec), _network(1), recorder, Silent(spec, "measured"))
    assert steps == "4 + 8 steps, of which an epoch has 8"
