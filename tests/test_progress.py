"""What is shown while a training goes on."""

from __future__ import annotations

import os
import sys

import pytest

from pepr_mlops.progress import Printed
from pepr_mlops.spec import RunSpec


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
    shown = Printed(RunSpec(epochs=10), "measured")
    shown.start_epoch(1, 1)
    shown.end_epoch({**EPOCH, **more})
    return capsys.readouterr().err


def test_a_line_says_what_energy_and_time_are_of(capsys: pytest.CaptureFixture[str]) -> None:
    ahead = {"forecast/train_s": 90.0, "forecast/eval_s": 18.0}
    energy = {"energy/train_wh": 0.25, "energy/eval_wh": 7.0, "forecast/train_wh": 2.25}
    assert _line(capsys, **energy, **ahead) == (
        "epoch 1/10: loss 0.5000, val accuracy 0.7500, 100 images/s, training energy 0.25 Wh "
        "(measured) so far; forecast of 10 epochs: training 2.25 Wh, 90.0 s, with evaluation "
        "108.0 s\n"
    )
    assert _line(capsys, **ahead).endswith(
        "training energy not known; forecast of 10 epochs: training 90.0 s, with evaluation "
        "108.0 s\n"
    )
    assert _line(capsys, **{"energy/train_wh": 0.25}).endswith(
        "training energy 0.25 Wh (measured) so far\n"
    )
