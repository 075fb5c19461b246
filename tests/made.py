"""Runs made for tests: as frames without MLflow, and as real runs on a tracking server."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pepr_mlops.comparison import Question, compare
from pepr_mlops.comparison.answer import USUAL, Terms
from pepr_mlops.comparison.predictions import OfSplit, Predictions
from pepr_mlops.comparison.runs import Evidence, tidy
from pepr_mlops.imports.files import FinishedRun
from pepr_mlops.report.material import Material, Part, gather
from pepr_mlops.spec import Job, RunSpec

DIGEST = "0123456789abcdef"  # of a data set
TAGS = {
    "pepr.data_digest": DIGEST,
    "pepr.experiment": "derma",
    "pepr.performance": "test/accuracy",
    "pepr.memory": "memory/reserved_gb",
    "pepr.energy_source": "measured",
    "pepr.energy_components": "cpu=measured,gpu=measured",
    "pepr.hardware": "NVIDIA H100",
    "pepr.parameters": "11708744",
    "pepr.test_images": "500",
}

PREDICTIONS = Predictions(
    "binary-class", ("a", "b"), OfSplit(np.array([1, 0]), np.array([[0.25, 0.75], [0.9, 0.1]]))
)


def run(model: str = "resnet18d", seed: int = 0, **changed: Any) -> dict[str, Any]:
    """A finished run of `pepr train` as `params`, `tags`, `metrics`, `status`, `start`.

    `performance`, `energy_wh`, `memory_gb` and `train_time_s` are numbers, None for none; other
    keyword arguments are fields of RunSpec; `tags` and `metrics` are added, None takes one away.
    """
    given = {"performance": 0.8, "energy_wh": 20.0, "memory_gb": 4.0, "train_time_s": 360.0}
    values = {k: changed.pop(k, default) for k, default in given.items()}
    tags = {**TAGS, **changed.pop("tags", {})}
    metrics = {
        "performance": values["performance"],
        "test/accuracy": values["performance"],
        "energy/train_wh": values["energy_wh"],
        "memory/reserved_gb": values["memory_gb"],
        "time/train_s": values["train_time_s"],
        **changed.pop("metrics", {}),
    }
    status, start = changed.pop("status", "FINISHED"), changed.pop("start", 1_790_000_000_000)
    return {
        "params": RunSpec(model=model, seed=seed, **changed).as_params(),
        "tags": {k: v for k, v in tags.items() if v is not None},
        "metrics": {k: v for k, v in metrics.items() if v is not None},
        "status": status,
        "start": start,
    }


def job(**fields: Any) -> Job:
    """A job on the data set of `TAGS`."""
    return Job(**{"data_digest": DIGEST, **fields})


def frame(runs: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """The tidy frame of runs, with the ids run0, run1, …"""
    rows = []
    for i, made in enumerate(runs):
        nan = [k for k, v in made["metrics"].items() if np.isnan(v)]
        rows.append(
            {
                "run_id": f"run{i}",
                "status": made["status"],
                "start_time": pd.Timestamp(made["start"], unit="ms", tz="UTC"),
                "end_time": pd.NaT,
                "mlflow_experiment": made["tags"].get("pepr.experiment", "theirs"),
                "non_finite": "\n".join(nan),
                **{f"metrics.{k}": float(v) for k, v in made["metrics"].items()},
                **{f"params.{k}": v for k, v in made["params"].items()},
                **{f"tags.{k}": v for k, v in made["tags"].items()},
            }
        )
    raw = pd.DataFrame(rows)
    text = [c for c in raw if c.startswith(("params.", "tags."))]
    return tidy(raw.astype(dict.fromkeys(text, "str")))


def material(
    *experiments: Sequence[Mapping[str, Any]],
    question: Question | None = None,
    epochs: pd.DataFrame | None = None,
    run_page: str | None = None,
    evidence: Evidence | None = None,
    terms: Terms = USUAL,
) -> Material:
    """What a report is drawn from, of runs of one or several experiments; the first is the main."""
    question = question or Question(draws=50)
    parts = []
    for i, runs in enumerate(experiments):
        found = frame(runs)
        parts.append(Part(compare(found, question, evidence), question, found, main=i == 0))
    return gather(parts, epochs, terms=terms, run_page=run_page)


def accuracies(right: Mapping[str, Any], **groups: Any) -> Evidence:
    """Predictions of run0, run1, … for images of class 0: which each model has `right`, [images],
    and columns of the data."""
    found = {}
    for i, named in enumerate(right.values()):
        chance = np.where(named, 0.1, 0.8)
        split = OfSplit(
            np.zeros(len(chance), int), np.column_stack([1 - chance, chance]), None, groups
        )
        found[f"run{i}"] = Predictions("binary-class", ("a", "b"), split, None, DIGEST)
    return Evidence(predictions=found)


def worse_in(value: str, group: str = "sex") -> Material:
    """`small` is good enough to replace `large`, but 0.2 worse for the 100 images of 4,000 whose
    `group` is `value`."""
    place = np.arange(4000)
    right = {
        "large": place % 10 > 0,
        "small": (place % 10 > 0) & ~((place < 100) & (place % 5 == 1)),
    }
    tags = {"pepr.test_images": "4000"}
    runs = [
        run(model, performance=float(named.mean()), energy_wh=50.0 - 40 * i, tags=tags)
        for i, (model, named) in enumerate(right.items())
    ]
    evidence = accuracies(right, **{group: np.where(place < 100, value, "other")})
    question = Question(draws=200, seed_sd=0.0001)
    return material(runs, question=question, evidence=evidence, terms=Terms(0.02))


def logged(uri: str, made: Mapping[str, Any], experiment: str = "derma") -> str:
    """The run on a tracking server, in the MLflow experiment of that name; its id."""
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param

    client = MlflowClient(uri)
    found = client.get_experiment_by_name(experiment)
    where = found.experiment_id if found else client.create_experiment(experiment)
    begun = client.create_run(where, start_time=made["start"], tags=made["tags"])
    points = made.get("points") or [(k, v, 1) for k, v in made["metrics"].items()]
    client.log_batch(
        begun.info.run_id,
        [Metric(k, v, made["start"] + step, step) for k, v, step in points],
        [Param(k, v) for k, v in made["params"].items()],
    )
    if made["status"] != "RUNNING":
        client.set_terminated(begun.info.run_id, made["status"], end_time=made["start"] + 9)
    return str(begun.info.run_id)


def stored(path: Path, runs: Sequence[FinishedRun]) -> None:
    """Write the runs into a fresh SQLite store as `import_runs` does, which takes 40 ms for each.

    A test compares what the two leave behind.
    """
    from mlflow import MlflowClient

    names = dict.fromkeys(run.experiment for run in runs)
    client = MlflowClient(f"sqlite:///{path}")
    where = {name: client.create_experiment(name) for name in names}
    with closing(sqlite3.connect(path)) as database, database:
        for i, run in enumerate(runs):
            _insert(database, f"{i:032x}", where[run.experiment], 1_790_000_000_000 + i, run)


def _insert(
    database: sqlite3.Connection, run_id: str, where: str, begun_ms: int, run: FinishedRun
) -> None:
    database.execute(
        "INSERT INTO runs (run_uuid, name, source_type, source_name, entry_point_name, user_id,"
        " status, start_time, end_time, source_version, lifecycle_stage, artifact_uri,"
        " experiment_id) SELECT ?, ?, 'UNKNOWN', '', '', 'unknown', 'FINISHED', ?, ?, '', 'active',"
        " artifact_location || '/' || ? || '/artifacts', experiment_id"
        " FROM experiments WHERE experiment_id = ?",
        (run_id, run.name, begun_ms, begun_ms + 1, run_id, int(where)),
    )
    tags = {
        **run.tags,
        "pepr.imported_from": run.source,
        "pepr.import_key": run.key,
        "mlflow.runName": run.name,
        "mlflow.note.content": f"Imported: {run.source}",
    }
    for table, texts in (("params", run.params), ("tags", tags)):
        database.executemany(
            f"INSERT INTO {table} (run_uuid, key, value) VALUES (?, ?, ?)",
            [(run_id, key, value) for key, value in texts.items()],
        )
    points = [(run_id, key, value, begun_ms, step, False) for key, value, step in run.points]
    latest = {point[1]: point for point in sorted(points, key=lambda point: point[4])}
    for table, rows in (("metrics", points), ("latest_metrics", list(latest.values()))):
        database.executemany(
            f"INSERT INTO {table} (run_uuid, key, value, timestamp, step, is_nan)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            rows,
        )


def logging(store: Path) -> list[tuple[str, int]]:
    """Run and process of each job that works and has logged an epoch to this SQLite store."""
    with closing(sqlite3.connect(f"file:{store}?mode=ro", uri=True)) as db:
        found = db.execute(
            "SELECT run_uuid, t.value FROM runs JOIN tags t USING (run_uuid) "
            "JOIN latest_metrics m USING (run_uuid) "
            "WHERE status = 'RUNNING' AND t.key = 'pepr.process' AND m.key = 'time/train_s'"
        ).fetchall()
    return [(run_id, int(process.split()[1])) for run_id, process in found]
