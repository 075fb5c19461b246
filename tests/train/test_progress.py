"""What is shown while a training goes on."""

from __future__ import annotations

import os
import pty
import sys
import termios
from types import SimpleNamespace

import pytest

from pepr_mlops.spec import RunSpec
from pepr_mlops.train.job import run
from pepr_mlops.train.progress import Printed, Silent, where_watched

DIGITS = RunSpec(
    **{"model": "test_resnet", "dataset": "digits", "image_size": 32, "fraction": 0.1},
    **{"epochs": 1, "pretrained": False, "energy": "off", "device": "cpu"},
)


def test_a_reader_that_has_left_does_not_end_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w", buffering=1) as nobody:
        monkeypatch.setattr(sys, "stderr", nobody)
        with pytest.raises(BrokenPipeError):
            print("it is broken", file=sys.stderr, flush=True)
        shown = Printed(RunSpec(), "none")
        shown.note("a note")
        shown.start_epoch(1, 1)
        shown.end_epoch(
            {
                "train/loss": 0.5,
                "val/accuracy": 0.5,
                "time/images_per_s": 1.0,
                "time/train_s": 1.0,
                "time/eval_s": 1.0,
            }
        )
        monkeypatch.undo()
        os.dup2(os.open(os.devnull, os.O_WRONLY), write)  # what is buffered goes somewhere


EPOCH = {
    "train/loss": 0.5,
    "val/accuracy": 0.75,
    "time/images_per_s": 100.0,
    "time/train_s": 10.0,
    "time/eval_s": 2.0,
}


def _line(capsys: pytest.CaptureFixture[str], **more: float) -> str:
    return _lines(RunSpec(epochs=10), capsys, **more)


def _lines(spec: RunSpec, capsys: pytest.CaptureFixture[str], **more: float) -> str:
    shown = Printed(spec, "measured")
    shown.start_epoch(1, 1)
    shown.end_epoch({**EPOCH, **more})
    return capsys.readouterr().err


def test_with_patience_a_forecast_is_of_the_most_epochs(capsys: pytest.CaptureFixture[str]) -> None:
    forecast = {"forecast/train_s": 90.0, "forecast/eval_s": 18.0}
    line = _lines(RunSpec(epochs=10, patience=3), capsys, **forecast)
    assert "forecast of at most 10 epochs: training 90.0 s" in line


def test_a_line_names_the_epochs_of_its_energy_and_time(capsys: pytest.CaptureFixture[str]) -> None:
    forecast = {"forecast/train_s": 90.0, "forecast/eval_s": 18.0}
    energy = {"energy/train_wh": 0.25, "energy/eval_wh": 7.0, "forecast/train_wh": 2.25}
    assert _line(capsys, **energy, **forecast) == (
        "epoch 1/10: loss 0.5000, val accuracy 0.7500, 100 images/s, training energy 0.25 Wh "
        "(measured) so far; forecast of 10 epochs: training 2.25 Wh, 90.0 s, with evaluation "
        "108.0 s\n"
    )
    assert _line(capsys, **forecast).endswith(
        "training energy not known; forecast of 10 epochs: training 90.0 s, with evaluation "
        "108.0 s\n"
    )
    assert _line(capsys, **{"energy/train_wh": 0.25}).endswith(
        "training energy 0.25 Wh (measured) so far\n"
    )


def test_a_job_from_python_shows_a_bar_and_a_line_on_a_terminal(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, terminal = pty.openpty()
    termios.tcsetwinsize(ours, (24, 100))
    with os.fdopen(terminal, "w", buffering=1) as shown, monkeypatch.context() as patched:
        patched.setattr(sys, "stderr", shown)
        run(DIGITS)
        printed = os.read(ours, 65536).decode()
    os.close(ours)
    assert "epoch 1/1:   0%|" in printed  # a bar
    assert "epoch 1/1: loss " in printed  # the line after it


def test_a_job_from_python_is_silent_without_a_terminal(
    store: str, capfd: pytest.CaptureFixture[str]
) -> None:
    run(DIGITS)
    assert capfd.readouterr() == ("", "")


def test_a_kernel_of_a_notebook_is_watched_and_another_ipython_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shell = SimpleNamespace(config={})
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    assert type(where_watched(DIGITS, "")) is Silent
    shell.config["IPKernelApp"] = {}
    assert type(where_watched(DIGITS, "")) is Printed
