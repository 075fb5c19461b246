"""What is shown while a training goes on."""

from __future__ import annotations

import os
import sys

import pytest

from pepr_mlops.progress import Printed
from pepr_mlops.schema import RunSpec


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
