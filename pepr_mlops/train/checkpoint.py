"""What a training can be continued from: a folder with its state after the last whole epoch."""

from __future__ import annotations

import json
import os
import shutil
import time
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

_STATE, _COSTS, _NAME = "state.pt", "costs.json", "name"


@dataclass(frozen=True)
class Saved:
    """A training after `epoch`.

    `state` is what `loop` put there, `recorded` the costs up to `at_s` (seconds since 1970), which
    are those of an unfinished epoch too where its attempt could still write them. `clean` says
    that nothing was done after `at_s`. `run_id` and `hardware` tell where it was begun.
    """

    epoch: int
    state: Mapping[str, Any]
    metrics: Mapping[str, float]
    recorded: Mapping[str, Any]
    at_s: float
    clean: bool
    run_id: str
    hardware: str


class Checkpoint:
    """Keeps one training in `folder`; every write replaces the one before in one step.

    `run_id` and `hardware` are written with it, and `name`, by which `of_other_files` finds it.
    """

    def __init__(self, folder: Path, run_id: str, hardware: str, name: str) -> None:
        self.folder, self._run_id, self._hardware, self._name = folder, run_id, hardware, name

    def save(
        self,
        epoch: int,
        state: Mapping[str, Any],
        metrics: Mapping[str, float],
        recorded: Mapping[str, Any],
    ) -> None:
        """Keep the training after a whole epoch. On an `OSError` the one before stays."""
        content = {
            "epoch": epoch,
            "state": dict(state),
            "metrics": dict(metrics),
            "recorded": dict(recorded),
            "at_s": time.time(),
            "run_id": self._run_id,
            "hardware": self._hardware,
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        new = self.folder / f"{_STATE}.new"
        try:
            with new.open("wb") as file:
                torch.save(content, file)
                file.flush()
                os.fsync(file.fileno())
            new.replace(self.folder / _STATE)
            (self.folder / _NAME).write_text(self._name)
        except (OSError, RuntimeError) as error:  # torch has its own of a full disk
            new.unlink(missing_ok=True)
            raise OSError(f"{new}: {error}") from error

    def costs(self, recorded: Mapping[str, Any], *, clean: bool) -> None:
        """Keep what was spent since the last `save`, or with `clean` False only that it is now."""
        if not (self.folder / _STATE).exists():
            return  # nothing to continue from
        new = self.folder / f"{_COSTS}.new"
        new.write_text(json.dumps({"recorded": recorded, "at_s": time.time(), "clean": clean}))
        new.replace(self.folder / _COSTS)


def load(folder: Path) -> Saved | None:
    """The training kept in a folder, or None. Raises `ValueError` for one that is unreadable."""
    path = folder / _STATE
    if not path.exists():
        return None
    try:
        with zipfile.ZipFile(path) as archive:  # torch does not look at the checksums
            if damaged := archive.testzip():
                raise ValueError(f"{damaged} in it is damaged")
        kept = torch.load(path, map_location="cpu", weights_only=True)
        costs = {"recorded": kept.pop("recorded"), "at_s": kept.pop("at_s"), "clean": False}
        if (folder / _COSTS).exists():
            later = json.loads((folder / _COSTS).read_text())
            costs = later if later["at_s"] > costs["at_s"] else costs
        return Saved(**kept, **costs)
    except Exception as error:  # torch's, pickle's, zip's or ours of a file that is something else
        raise ValueError(f"{path}: {error}") from error


def of_other_files(folder: Path, name: str) -> list[Path]:
    """The folders beside `folder` with a training of this name: the same job on other files."""
    found = []
    for path in folder.parent.glob(f"*/{_NAME}"):
        with suppress(OSError, ValueError):  # another job has just ended and taken its folder away
            if path.parent != folder and path.read_text() == name:
                found.append(path.parent)
    return sorted(found)


def discard(folder: Path) -> None:
    """Forget the training of a folder."""
    shutil.rmtree(folder, ignore_errors=True)
