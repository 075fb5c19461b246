"""Cached answers: reused while nothing was written, and read again after any write."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from made import frame, logged, run
from mlflow import MlflowClient
from pandas.testing import assert_frame_equal

from pepr_mlops.cli import main
from pepr_mlops.comparison import Comparison, Question, compare, intervals, prepare, score_sets
from pepr_mlops.comparison.pepr import Bounds
from pepr_mlops.files import cache_folder
from pepr_mlops.report import sources
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


# Intervals -------------------------------------------------------------------------------------

# Seeds, a missing performance, an infinite cost, a strange name; the last three are other sets.
ODD = [
    *(run("a", seed, performance=0.7 + seed / 30, energy_wh=10.0 + seed) for seed in range(3)),
    run("b", performance=0.9, energy_wh=50.0, memory_gb=8.0),
    run("b", 1, performance=None),
    run("c", performance=0.8, energy_wh=float("inf")),
    run("Röntgen 肺", performance=0.6, energy_wh=0.0, memory_gb=0.1 + 0.2),
    *(run(m, energy_wh=e, tags={"pepr.hardware": "CPU"}) for m, e in (("a", 7.0), ("b", 9.0))),
    run("a", dataset="lidc", tags={"pepr.experiment": "lidc"}, energy_wh=3.0),
]
QUESTION = Question(mixed="stratify", draws=20)
OF_BOTH = replace(QUESTION, resources=("E", "M"))
SAVED = compare(frame(ODD[:4]), OF_BOTH).reference
NARROWER = replace(SAVED, bounds=SAVED.bounds | {"energy_wh": Bounds(12.0, 50.0)})


def _scored(runs: pd.DataFrame, question: Question) -> Comparison:
    return compare(runs, question, None, cache.intervals)


def _assert_same(found: Comparison, expected: Comparison) -> None:
    for name in ("scores", "costs", "runs", "used", "sets"):
        assert_frame_equal(getattr(found, name), getattr(expected, name), check_exact=True)
    assert (found.notes, found.reference) == (expected.notes, expected.reference)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many runs intervals were drawn of, for each time they were."""
    counts, draw = [], intervals.intervals

    def counting(runs: pd.DataFrame, *given: Any, **settings: Any) -> pd.DataFrame:
        counts.append(len(runs))
        return draw(runs, *given, **settings)

    monkeypatch.setattr(intervals, "intervals", counting)
    return counts


@pytest.mark.parametrize(
    "question",
    [
        OF_BOTH,
        replace(OF_BOTH, weights=(0.3, 0.7), alpha=2.0, normalisation="robust", mixed="allow"),
        replace(QUESTION, mixed="allow", normalisation="reference", reference=SAVED),
    ],
    ids=["strata", "weights", "reference"],
)
def test_cached_intervals_make_the_same_comparison(question: Question, drawn: list[int]) -> None:
    runs = frame(ODD)
    fresh = compare(runs, question)
    assert intervals.NOT_DRAWN not in set(fresh.scores["no_interval"])
    _assert_same(_scored(runs, question), fresh)
    assert drawn
    drawn.clear()
    _assert_same(_scored(runs, question), fresh)
    assert drawn == []


def test_a_change_of_one_run_draws_its_set_again(drawn: list[int]) -> None:
    before = [*ODD[:3], run("b", performance=0.9, energy_wh=50.0)]
    _scored(frame(before), QUESTION)
    for changed, sets in (
        ({"performance": np.nextafter(0.9, 1)}, [4]),
        ({"energy_wh": np.nextafter(50.0, 60)}, [4]),
        ({"model": "A"}, [4]),  # in another order
        ({"tags": {"pepr.hardware": "CPU"}}, [1, 3]),
        ({"status": "FAILED"}, [3]),
        ({"model": "c"}, []),  # of the same numbers, under its own name
    ):
        drawn.clear()
        after = {"model": "b", "performance": 0.9, "energy_wh": 50.0, **changed}  # type: ignore[dict-item]
        runs = frame([*before[:3], run(**after)])
        found = _scored(runs, QUESTION)
        assert drawn == sets, changed
        _assert_same(found, compare(runs, QUESTION))


def test_another_question_draws_the_intervals_again(drawn: list[int]) -> None:
    question = replace(OF_BOTH, weights=(0.5, 0.5))
    prepared = prepare(frame(ODD[:4]), question)
    score_sets(prepared, question, cache.intervals)
    for changed in (
        {"weights": (0.5 - 1e-10, 0.5 + 1e-10)},
        {"alpha": 1.5},
        {"normalisation": "zero"},
        {"normalisation": "robust"},
        {"normalisation": "robust", "quantiles": (0.1, 0.9)},
        {"normalisation": "reference", "reference": SAVED},
        {"normalisation": "reference", "reference": NARROWER},
        {"energy_error": 0.06},
        {"draws": 21},
        {"seed": 1},
    ):
        drawn.clear()
        score_sets(prepared, replace(question, **changed), cache.intervals)  # type: ignore[arg-type]
        assert drawn == [4], changed
    drawn.clear()
    score_sets(prepared, question, cache.intervals)
    assert drawn == []
    score_sets(prepared, OF_BOTH, cache.intervals)
    assert drawn == [4, 4]


def test_other_code_draws_its_own(drawn: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    prepared = prepare(frame(ODD[:4]), QUESTION)
    score_sets(prepared, QUESTION, cache.intervals)
    monkeypatch.setattr("scipy.__version__", "of tomorrow")
    score_sets(prepared, QUESTION, cache.intervals)
    monkeypatch.setattr(cache, "_code", lambda: "of tomorrow")
    score_sets(prepared, QUESTION, cache.intervals)
    assert drawn == [4, 4]


def test_damaged_intervals_and_those_of_others_are_drawn_again(drawn: list[int]) -> None:
    prepared = prepare(frame(ODD[:4]), QUESTION)
    fresh = score_sets(prepared, QUESTION, cache.intervals)
    (path,) = cache_folder().iterdir()
    intact = path.read_bytes()
    score_sets(prepared, replace(QUESTION, seed=1), cache.intervals)
    (other,) = set(cache_folder().iterdir()) - {path}
    flipped = bytes([intact[-1] ^ 1])
    for damaged in (b"", intact[:40], intact[:-1], intact[:-1] + flipped, other.read_bytes()):
        path.write_bytes(damaged)
        drawn.clear()
        _assert_same(score_sets(prepared, QUESTION, cache.intervals), fresh)
        assert drawn == [4]
        assert path.read_bytes() == intact


def test_intervals_of_few_runs_without_draws_or_of_no_written_form_are_not_cached(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runs = frame(ODD[:5])
    assert _scored(runs, replace(QUESTION, draws=0)).scores["ci_low"].isna().all()
    monkeypatch.setattr(cache, "FEWEST", 5)  # one of the five has no performance
    _scored(runs, QUESTION)
    monkeypatch.setattr(cache, "FEWEST", 1)
    numbers = pd.DataFrame({"model": ["a", "b"], "performance": [0.5, 0.7], "energy_wh": [1.0, 2]})
    scoring = intervals.Scoring(["energy_wh"], np.ones(1))  # type: ignore[arg-type]  # JSON has none
    found = cache.intervals(numbers, scoring, error={}, draws=5, seed=0)
    assert found["rank_low"].tolist() == [1, 2]
    assert not cache_folder().exists()


@pytest.mark.parametrize("why", ["a file is in its place", "there is no home"])
def test_where_no_intervals_can_be_cached_they_are_drawn(
    why: str, drawn: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def homeless(path: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    if why == "there is no home":
        monkeypatch.delenv("PEPR_CACHE")
        monkeypatch.setattr(Path, "expanduser", homeless)
    else:
        (tmp_path / "kept").write_text("")
    first, second = (_scored(frame(ODD[:4]), QUESTION) for _ in range(2))
    _assert_same(first, second)
    assert drawn == [4, 4]


def test_intervals_do_not_displace_what_was_read(
    three: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    uri, _ = three
    monkeypatch.setattr(cache, "_MOST", 1)
    read.load_runs("derma", tracking_uri=uri)
    for seed in (0, 1):
        _scored(frame(ODD[:4]), replace(QUESTION, seed=seed))
    files = sorted(cache_folder().iterdir(), key=lambda path: path.suffix)
    assert [path.suffix for path in files] == [".arrow", ".intervals"]
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
    _cached_runs(uri, monkeypatch)


def test_commands_and_reports_draw_once(
    store: str, drawn: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    for i in range(6):
        tags = {"pepr.parameters": str(1000 + i)}
        logged(store, run("abcdef"[i], performance=0.5 + i / 50, energy_wh=1.0 + i, tags=tags))
    printed = []
    for command in ("score", "score", "select", "stats"):
        with pytest.raises(SystemExit) as left:
            main([command, "--experiment", "derma", "--format", "json"])
        assert not left.value.code
        printed.append(capsys.readouterr())
    assert printed[0] == printed[1]
    source = sources.read(["derma"], tracking_uri=store)
    prepared, _ = sources.sort(source, Question())
    assert len(sources.material(source, prepared, Question()).models) == 6
    assert drawn == [6]
