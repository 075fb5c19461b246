"""Cached answers: reused while nothing was written, and read again after any write."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from made import logged, run
from mlflow import MlflowClient
from pandas.testing import assert_frame_equal

from pepr_mlops.files import cache_folder
from pepr_mlops.tracking import read
from pepr_mlops.tracking.read import cache


@pytest.fixture(autouse=True)
def _of_few_runs_and_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "FEWEST", 1)
    monkeypatch.setattr(cache, "_SETTLED_S", 0.0)


@pytest.fixture
def three(store: str) -> tuple[str, list[str]]:
    """A store with three runs, one of which is still running, and their ids."""
    odd = run("a", metrics={"test/auc": float("nan"), "big": float("inf")}, seed=7)
    running = run("b", status="RUNNING", energy_wh=None, tags={"note": "Röntgen 肺\x1b"})
    return store, [logged(store, made, "derma") for made in (odd, running, run("c", fraction=0.5))]


def _refuse(*_: object) -> None:
    raise AssertionError("the server was read")


def _cached_runs(uri: str, monkeypatch: pytest.MonkeyPatch) -> pd.DataFrame:
    """The runs as cached, without reading the server."""
    with monkeypatch.context() as patch:
        patch.setattr(read, "_open", _refuse)
        return read.load_runs("derma", tracking_uri=uri)


def _fresh_runs(uri: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> pd.DataFrame:
    """The runs as the server has them now."""
    with monkeypatch.context() as patch:
        patch.setenv("PEPR_CACHE", str(folder / "empty cache"))
        found = read.load_runs("derma", tracking_uri=uri)
    shutil.rmtree(folder / "empty cache", ignore_errors=True)
    return found


def test_an_unchanged_store_is_not_read_again(
    three: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    uri, ids = three
    runs = read.load_runs("derma", tracking_uri=uri)
    evidence = read.load_evidence(runs, tracking_uri=uri)
    epochs = read.load_epochs(ids, tracking_uri=uri)
    everything = read.load_runs(tracking_uri=uri)
    assert sorted(runs["run_id"]) == sorted(ids)
    monkeypatch.setattr(read, "_open", _refuse)
    assert_frame_equal(read.load_runs("derma", tracking_uri=uri), runs)
    assert_frame_equal(read.load_runs(tracking_uri=uri), everything)
    assert_frame_equal(read.load_epochs(ids, tracking_uri=uri), epochs)
    again = read.load_evidence(runs, tracking_uri=uri)
    assert evidence.energies is not None
    assert again.energies is not None
    assert_frame_equal(again.energies, evidence.energies)
    with pytest.raises(AssertionError, match="was read"):  # another question
        read.load_epochs(ids[:1], tracking_uri=uri)


def _ends(client: MlflowClient, ids: list[str]) -> None:
    client.set_terminated(ids[1], "FINISHED", end_time=1_790_000_000_500)


def _tagged(client: MlflowClient, ids: list[str]) -> None:
    client.set_tag(ids[0], "pepr.hardware", "another GPU")  # as long as "NVIDIA H100"


def _measured(client: MlflowClient, ids: list[str]) -> None:
    client.log_metric(ids[0], "energy/train_wh", 21.0, 1_790_000_000_900, 2)


def _deleted(client: MlflowClient, ids: list[str]) -> None:
    client.delete_run(ids[2])


def _renamed(client: MlflowClient, ids: list[str]) -> None:
    client.rename_experiment(client.get_run(ids[0]).info.experiment_id, "skin")


def _begun(client: MlflowClient, ids: list[str]) -> None:
    client.create_run(client.get_run(ids[0]).info.experiment_id)


@pytest.mark.parametrize("change", [_ends, _tagged, _measured, _deleted, _renamed, _begun])
def test_after_any_change_the_server_is_read(
    three: tuple[str, list[str]],
    change: Callable[[MlflowClient, list[str]], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    uri, ids = three
    before = read.load_runs("derma", tracking_uri=uri)
    assert_frame_equal(_cached_runs(uri, monkeypatch), before)
    change(MlflowClient(uri), ids)
    after = read.load_runs("derma", tracking_uri=uri)
    assert not after.equals(before)
    assert_frame_equal(after, _fresh_runs(uri, tmp_path, monkeypatch))
    assert_frame_equal(_cached_runs(uri, monkeypatch), after)


def test_a_restored_run_is_there_again(
    three: tuple[str, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri, ids = three
    before = read.load_runs("derma", tracking_uri=uri)
    MlflowClient(uri).delete_run(ids[0])
    assert ids[0] not in set(read.load_runs("derma", tracking_uri=uri)["run_id"])
    MlflowClient(uri).restore_run(ids[0])
    assert_frame_equal(read.load_runs("derma", tracking_uri=uri), before)


def test_another_file_at_the_same_path_is_another_store(
    three: tuple[str, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri, _ = three
    path = tmp_path / "mlflow.db"
    before = read.load_runs("derma", tracking_uri=uri)
    other = tmp_path / "other.db"
    shutil.copy2(path, other)
    with sqlite3.connect(other) as connection:
        connection.execute("UPDATE latest_metrics SET value = 0.25 WHERE key = 'performance'")
    s = path.stat()
    os.utime(other, ns=(s.st_atime_ns, s.st_mtime_ns))  # of the same size and time
    assert other.stat().st_size == s.st_size
    os.replace(other, path)
    found = read.load_runs("derma", tracking_uri=uri)
    assert set(found["performance"]) == {0.25}
    assert set(before["performance"]) == {0.8}


def test_a_damaged_answer_is_read_again(
    three: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    uri, _ = three
    before = read.load_runs("derma", tracking_uri=uri)
    (path,) = cache_folder().iterdir()
    intact = path.read_bytes()
    for damaged in (
        b"",
        intact[:100],
        intact[:-1],
        intact[: len(intact) // 2]
        + bytes([intact[len(intact) // 2] ^ 1])
        + intact[len(intact) // 2 + 1 :],
    ):
        path.write_bytes(damaged)
        with pytest.raises(AssertionError, match="was read"):
            _cached_runs(uri, monkeypatch)
        assert_frame_equal(read.load_runs("derma", tracking_uri=uri), before)
        assert path.read_bytes() == intact


def test_other_code_makes_its_own_answers(
    three: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    uri, _ = three
    read.load_runs("derma", tracking_uri=uri)
    monkeypatch.setattr(cache, "_code", lambda: "of tomorrow")
    with pytest.raises(AssertionError, match="was read"):
        _cached_runs(uri, monkeypatch)


def test_cached_answers_are_private_and_few(
    three: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    uri, ids = three
    monkeypatch.setattr(cache, "_MOST", 2)
    for run_id in ids:
        read.load_epochs([run_id], tracking_uri=uri)
    files = list(cache_folder().iterdir())
    assert len(files) == 2
    assert cache_folder().stat().st_mode & 0o777 == 0o700
    assert {f.stat().st_mode & 0o777 for f in files} == {0o600}


def test_where_nothing_can_be_written_nothing_is_cached(
    three: tuple[str, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri, ids = three
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PEPR_CACHE", str(tmp_path / "file" / "folder"))
    for _ in range(2):
        assert sorted(read.load_runs("derma", tracking_uri=uri)["run_id"]) == sorted(ids)


def test_few_runs_a_fresh_write_and_a_log_of_writes_are_not_trusted(
    three: tuple[str, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri, _ = three
    monkeypatch.setattr(cache, "FEWEST", 4)
    read.load_runs("derma", tracking_uri=uri)
    monkeypatch.setattr(cache, "FEWEST", 1)
    monkeypatch.setattr(cache, "_SETTLED_S", 3600.0)
    read.load_runs("derma", tracking_uri=uri)
    monkeypatch.setattr(cache, "_SETTLED_S", 0.0)
    assert cache.state(uri) is not None
    with sqlite3.connect(tmp_path / "mlflow.db") as connection:
        connection.execute("PRAGMA journal_mode = WAL")
    assert cache.state(uri) is None
    read.load_runs("derma", tracking_uri=uri)
    assert not cache_folder().exists()


def test_no_other_store_is_cached(server: str) -> None:
    logged(server, run("a"), "not cached")
    read.load_runs("not cached", tracking_uri=server)
    assert not cache_folder().exists()


def test_a_change_while_it_is_read_is_not_missed(
    three: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    uri, ids = three
    open_reader = read._open

    def changing(uri: str) -> object:
        reader = open_reader(uri)
        MlflowClient(uri).set_tag(ids[0], "pepr.hardware", "another GPU")
        return reader

    with monkeypatch.context() as patch:
        patch.setattr(read, "_open", changing)
        read.load_runs("derma", tracking_uri=uri)
    assert not cache_folder().exists()


def test_processes_share_what_one_has_read(
    three: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    uri, ids = three
    reading = (
        "from pepr_mlops.tracking import read; from pepr_mlops.tracking.read import cache; "
        "cache.FEWEST = 1; cache._SETTLED_S = 0.0; "
        f"print(len(read.load_runs('derma', tracking_uri={uri!r})))"
    )
    two = [
        subprocess.Popen([sys.executable, "-c", reading], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    assert [p.communicate()[0].strip() for p in two] == ["3", "3"]
    assert [p.returncode for p in two] == [0, 0]
    found = _cached_runs(uri, monkeypatch)
    assert sorted(found["run_id"]) == sorted(ids)
    assert len(list(cache_folder().iterdir())) == 1
