"""Released results of others as runs: what is read, and what is refused."""

from __future__ import annotations

import re
import shutil
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import SHARED, needs
from made import stored
from mlflow import MlflowClient

from pepr_mlops.comparison import Question, compare
from pepr_mlops.comparison.image_counts import is_count_of
from pepr_mlops.errors import WrongUse
from pepr_mlops.imports import pepr_paper
from pepr_mlops.imports import timm_results as timm
from pepr_mlops.tracking import import_runs, read


@pytest.fixture
def timm_results() -> Path:
    """Folder of timm's ImageNet results and benchmarks."""
    return needs(SHARED / "timm-results" / "results-imagenet.csv", "timm's results").parent


def _few(folder: Path, tmp_path: Path, rows: int = 3) -> Path:
    """A folder with the first rows of the paper's file."""
    pd.read_csv(folder / "all_results.csv").head(rows).to_csv(tmp_path / "all_results.csv")
    return tmp_path


def test_importing_again_adds_only_what_is_new(
    store: str, paper_results: Path, tmp_path: Path
) -> None:
    runs = pepr_paper.read(_few(paper_results, tmp_path))
    assert import_runs(runs[:2], store) == 2
    assert import_runs(runs, store) == 1
    assert import_runs(runs, store) == 0
    assert len(read.load_runs(tracking_uri=store)) == 3


def _rows(path: Path) -> dict[str, list[Any]]:
    """All of a store but ids of runs, times and what lies under them, in a fixed order."""
    run = "e.name || ' ' || r.name"
    of_run = "JOIN runs r USING (run_uuid) JOIN experiments e USING (experiment_id)"
    queries = {
        "runs": f"SELECT {run}, source_type, source_name, entry_point_name, user_id, status,"
        " source_version, r.lifecycle_stage, end_time >= start_time, deleted_time,"
        " artifact_uri = artifact_location || '/' || run_uuid || '/artifacts'"
        " FROM runs r JOIN experiments e USING (experiment_id)",
        "params": f"SELECT {run}, key, value FROM params {of_run}",
        "tags": f"SELECT {run}, key, value FROM tags {of_run}",
        "metrics": f"SELECT {run}, key, value, step, is_nan, timestamp = start_time"
        f" FROM metrics {of_run}",
        "latest_metrics": f"SELECT {run}, key, value, step, is_nan, timestamp = start_time"
        f" FROM latest_metrics {of_run}",
    }
    with closing(sqlite3.connect(path)) as database:
        return {
            name: sorted(database.execute(sql).fetchall(), key=repr)
            for name, sql in queries.items()
        }


@pytest.mark.parametrize("step", [50, pytest.param(1, marks=pytest.mark.slow)])
def test_the_paper_store_of_the_tests_is_as_if_imported(
    store: str, paper_results: Path, tmp_path: Path, step: int
) -> None:
    runs = pepr_paper.read(paper_results)
    assert len(runs) == 1048
    some = runs[::step]
    assert len({run.experiment for run in some}) == 8
    shutil.copy(tmp_path / "mlflow.db", tmp_path / "stored.db")
    stored(tmp_path / "stored.db", some)
    assert import_runs(some, store) == len(some)
    imported = _rows(tmp_path / "mlflow.db")
    assert imported == _rows(tmp_path / "stored.db")
    assert len(imported["runs"]) == len(some) == (1048 + step - 1) // step
    assert len(imported["latest_metrics"]) == sum(
        len({name for name, _, _ in run.points}) for run in some
    )


def test_an_interrupted_import_is_completed(
    store: str, paper_results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = pepr_paper.read(_few(paper_results, tmp_path))

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(MlflowClient, "log_batch", interrupted)
        with pytest.raises(KeyboardInterrupt):
            import_runs(runs, store)
    assert import_runs(runs, store) == 3
    found = read.load_runs(tracking_uri=store)
    assert len(found) == 3
    assert found["status"].eq("FINISHED").all()
    assert found["energy_wh"].notna().all()


def test_unfinished_runs_among_many_do_not_hide_finished_ones(
    store: str, paper_results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = pepr_paper.read(_few(paper_results, tmp_path, 6))
    import_runs(runs, store)
    client = MlflowClient(store)
    for run_id in read.load_runs(tracking_uri=store)["run_id"].iloc[::3]:
        client.update_run(run_id, status="RUNNING")
    search_runs = MlflowClient.search_runs

    def two_at_a_time(self: MlflowClient, *words: object, **options: object) -> object:
        return search_runs(self, *words, **{**options, "max_results": 2})  # type: ignore[arg-type]

    monkeypatch.setattr(MlflowClient, "search_runs", two_at_a_time)
    assert import_runs(runs, store) == 2
    found = read.load_runs(tracking_uri=store)
    assert sorted(found["model"]) == sorted(run.params["model"] for run in runs)


def test_imagenet_results_are_joined_on_the_exact_name_and_size(
    store: str, timm_results: Path
) -> None:
    runs = {run.key: run for run in timm.read(timm_results)}
    assert len(runs) == 1556
    table = pd.read_csv(timm_results / "results-imagenet.csv", thousands=",")
    speeds = pd.read_csv(
        timm_results / "benchmark-infer-amp-nchw-pt240-cu124-rtx3090.csv"
    ).set_index(["model", "infer_img_size"])
    vgg = runs["vgg11.tv_in1k@224"]  # not vgg11_bn
    points = {name: value for name, value, _ in vgg.points}
    top1 = table.set_index(["model", "img_size"]).loc[("vgg11.tv_in1k", 224), "top1"]
    assert points["performance"] == pytest.approx(top1 / 100)
    rate = speeds.loc[("vgg11", 224), "infer_samples_per_sec"]
    assert points["inference/ms_per_image"] == pytest.approx(1000 / rate)
    assert vgg.tags["pepr.hardware"] == "RTX3090"
    joined = sum(
        any(name == "inference/ms_per_image" for name, _, _ in run.points) for run in runs.values()
    )
    assert joined == 1452  # pairs of architecture and size that were measured
    chosen = [r for r in runs.values() if r.params["image_size"] == "224"][:20]
    import_runs(chosen, store)
    found = read.load_runs("imagenet", tracking_uri=store)
    scored = compare(found, Question(resources=("inference/ms_per_image",)))
    cheapest = scored.scores.loc[scored.scores["cost"].idxmin()]
    assert cheapest["R"] == 0
    assert cheapest["score"] == cheapest["performance"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no all_results.csv in .*get it from https://github.com/saintslab/PePR"),
        ("model,energy\na,1\n", "has no column dataset, num_param"),
        ("", "is not a readable CSV table"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "all_results.csv").write_text(content)
    with pytest.raises(WrongUse, match=message):
        pepr_paper.read(tmp_path)


def test_accuracies_are_counts_of_the_test_images(paper_results: Path, timm_results: Path) -> None:
    counted: dict[str, set[tuple[str, str]]] = {}
    lacking = []
    for source, runs in (
        ("pepr-paper", pepr_paper.read(paper_results)),
        ("timm", timm.read(timm_results)),
    ):
        for run in runs:
            n = run.tags.get("pepr.test_images")
            shares = np.array([v for name, v, _ in run.points if name == "test/accuracy"])
            if n is None:
                lacking.append(run)
                continue
            assert is_count_of(shares, int(n)).all(), run.key
            counted.setdefault(source, set()).add((run.params["dataset"], n))
    assert counted["timm"] == {("imagenet", "50000")}
    full = {("derma", "1984"), ("lidc", "3008"), ("pneumonia", "608")}  # of 2,005, …, 624
    assert counted["pepr-paper"] == full
    # with accuracies of other images, such as the six of derma_pt that are those of lidc
    odd = {"derma_pt": 7, "derma_small": 1, "pneumonia_small": 2}
    assert Counter(run.experiment for run in lacking) == odd


def test_unknown_experiments_and_holes_are_refused(paper_results: Path, tmp_path: Path) -> None:
    table = pd.read_csv(paper_results / "all_results.csv").head(4)
    table.assign(dataset="brain").to_csv(tmp_path / "all_results.csv")
    with pytest.raises(WrongUse, match="unknown experiment 'brain'; valid: derma, derma_pt"):
        pepr_paper.read(tmp_path)
    table.loc[2, "energy"] = None
    table.to_csv(tmp_path / "all_results.csv")
    with pytest.raises(WrongUse, match=re.escape("row 4 of")):
        pepr_paper.read(tmp_path)
