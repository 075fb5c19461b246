"""Checkpoints: a folder with the state of a training after its last full epoch.

PyTorch is imported where it is used: the main program of a Slurm job only reads dates.
"""

from __future__ import annotations

import json
import os
import time
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

_STATE, _COSTS, _NAME = "state.pt", "costs.json", "name"


@dataclass(frozen=True)
class Saved:
    """A training after `epoch`.

    `state` is what `loop` put there. `recorded` are the costs up to `at_s` (seconds since 1970),
    also those of an unfinished epoch whose attempt could still write them; `clean` says that
    nothing was done after `at_s`. `run_id` and `hardware` are those it was begun with.
    """

    epoch: int
    state: Mapping[str, Any]
    metrics: Mapping[str, float]
    recorded: Mapping[str, Any]
    at_s: float
    run_id: str
    hardware: str
    clean: bool = False


@dataclass(frozen=True)
class Checkpoint:
    """Saves one training in `folder`; every write replaces the one before in one step.

    `run_id` and `hardware` are saved with it, and `name`, by which `of_other_files` finds it.
    """

    folder: Path
    run_id: str
    hardware: str
    name: str

    def save(
        self,
        epoch: int,
        state: Mapping[str, Any],
        metrics: Mapping[str, float],
        recorded: Mapping[str, Any],
    ) -> None:
        """Save the training after a full epoch. On an `OSError` the checkpoint before remains."""
        import torch

        costs = (dict(recorded), time.time())
        saved = Saved(epoch, dict(state), dict(metrics), *costs, self.run_id, self.hardware)
        self.folder.mkdir(parents=True, exist_ok=True)
        new = self.folder / f"{_STATE}.new"
        try:
            with new.open("wb") as file:
                torch.save(vars(saved), file)
                file.flush()
                os.fsync(file.fileno())
            new.replace(self.folder / _STATE)
            (self.folder / _NAME).write_text(self.name)
        except (OSError, RuntimeError) as error:  # torch has its own of a full disk
            new.unlink(missing_ok=True)
            raise OSError(f"{new}: {error}") from error

    def costs(self, recorded: Mapping[str, Any], *, clean: bool) -> None:
        """Save the costs since the last `save`. `clean` False says that work continues after it."""
        if not (self.folder / _STATE).exists():
            return  # no training to resume
        new = self.folder / f"{_COSTS}.new"
        new.write_text(json.dumps({"recorded": recorded, "at_s": time.time(), "clean": clean}))
        new.replace(self.folder / _COSTS)


def load(folder: Path) -> Saved | None:
    """The training saved in a folder, or None. Raises `ValueError` for one that is unreadable."""
    import torch

    path = folder / _STATE
    if not path.exists():
        return None
    try:
        with zipfile.ZipFile(path) as archive:  # torch does not check the checksums
            if damaged := archive.testzip():
                raise ValueError(f"{damaged} in it is damaged")
        saved = Saved(**torch.load(path, map_location="cpu", weights_only=True))
        if (folder / _COSTS).exists():
            later = json.loads((folder / _COSTS).read_text())
            if later["at_s"] > saved.at_s:
                saved = replace(saved, **later)
        return saved
    except Exception as error:  # torch's, pickle's, zip's or ours of a file that is something else
        raise ValueError(f"{path}: {error}") from error


def saved_ns(folder: Path) -> int | None:
    """When the training in a folder was last saved, in ns since 1970; None if there is none."""
    with suppress(FileNotFoundError):
        return (folder / _STATE).stat().st_mtime_ns
    return None


def of_other_files(folder: Path, name: str) -> list[Path]:
    """The other folders with a training of this name: the same job on other images or weights."""
    found = []
    for path in folder.parent.glob(f"*/{_NAME}"):
        with suppress(OSError, ValueError):  # another job has just ended and deleted its folder
            if path.parent != folder and path.read_text() == name:
                found.append(path.parent)
    return sorted(found)
