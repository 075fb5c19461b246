"""Where caches and state are."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from pepr_mlops.files import cache_folder
from pepr_mlops.sweep.sweep import default_checkpoints
from pepr_mlops.tracking import journal


class Folder(NamedTuple):
    """A function that finds a folder, the variables that decide, and the default below home."""

    find: Callable[[], Path]
    variable: str
    xdg: str
    default: str


CACHE = Folder(cache_folder, "PEPR_CACHE", "XDG_CACHE_HOME", ".cache/pepr_mlops/answers")
CHECKPOINTS = Folder(
    default_checkpoints, "PEPR_CHECKPOINTS", "XDG_CACHE_HOME", ".cache/pepr_mlops/checkpoints"
)
JOURNAL = Folder(journal.home, "PEPR_JOURNAL", "XDG_STATE_HOME", ".local/state/pepr_mlops/journal")
each_folder = pytest.mark.parametrize("folder", [CACHE, CHECKPOINTS, JOURNAL])


@each_folder
def test_a_folder_is_the_given_one_or_below_the_users(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    for name in (folder.variable, folder.xdg):
        monkeypatch.delenv(name, raising=False)
    assert folder.find() == Path("/home/me") / folder.default
    monkeypatch.setenv(folder.xdg, "/xdg")
    assert folder.find() == Path("/xdg/pepr_mlops") / Path(folder.default).name
    monkeypatch.setenv(folder.variable, "given")
    assert folder.find() == Path("given")


@each_folder
def test_a_user_without_a_home_can_name_the_folder(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def homeless(path: Path) -> Path:
        if str(path).startswith("~"):
            raise RuntimeError("Could not determine home directory.")
        return path

    monkeypatch.setattr(Path, "expanduser", homeless)
    monkeypatch.delenv(folder.xdg, raising=False)
    monkeypatch.setenv(folder.variable, "given")
    assert folder.find() == Path("given")
    if folder is CACHE:  # nothing is cached then
        monkeypatch.delenv(folder.variable)
        assert folder.find() == Path(os.devnull)
