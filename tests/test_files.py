"""Where caches and state are."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pepr_mlops.files import cache_folder
from pepr_mlops.sweep.sweep import default_checkpoints
from pepr_mlops.tracking import journal

FOLDERS = [
    (cache_folder, "PEPR_CACHE", "XDG_CACHE_HOME", ".cache/pepr_mlops/answers"),
    (default_checkpoints, "PEPR_CHECKPOINTS", "XDG_CACHE_HOME", ".cache/pepr_mlops/checkpoints"),
    (journal.home, "PEPR_JOURNAL", "XDG_STATE_HOME", ".local/state/pepr_mlops/journal"),
]


@pytest.mark.parametrize(("folder", "variable", "xdg", "usual"), FOLDERS)
def test_a_folder_is_the_given_one_or_below_the_users(
    folder: Callable[[], Path],
    variable: str,
    xdg: str,
    usual: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    for name in (variable, xdg):
        monkeypatch.delenv(name, raising=False)
    assert folder() == Path("/home/me") / usual
    monkeypatch.setenv(xdg, "/xdg")
    assert folder() == Path("/xdg/pepr_mlops") / Path(usual).name
    monkeypatch.setenv(variable, "given")
    assert folder() == Path("given")


@pytest.mark.parametrize(("folder", "variable", "xdg", "usual"), FOLDERS)
def test_a_user_without_a_home_can_name_the_folder(
    folder: Callable[[], Path],
    variable: str,
    xdg: str,
    usual: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def homeless(path: Path) -> Path:
        if str(path).startswith("~"):
            raise RuntimeError("Could not determine home directory.")
        return path

    monkeypatch.setattr(Path, "expanduser", homeless)
    monkeypatch.delenv(xdg, raising=False)
    monkeypatch.setenv(variable, "given")
    assert folder() == Path("given")
    monkeypatch.delenv(variable)
    if folder is cache_folder:
        assert folder() == Path(os.devnull)
