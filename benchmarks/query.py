"""How long does it take to read many runs, beside MLflow's own search?

    python benchmarks/query.py --runs 10000

A store is filled with runs as `pepr train` logs them. Each reading is a process of its own that
has imported everything, opened the store and read one run before the clock starts; its peak memory
is what the process grew to. Frames are compared column by column before anything is reported.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import numpy as np
import sqlalchemy as sa
from common import machine, write

from pepr_mlops import query
from pepr_mlops.schema import METRICS, TAGS, RunSpec

_MODELS = 131
_LOGGED = [m for m in METRICS if not m.startswith(("inference/", "training/", "energy/eval_"))]


@click.command()
@click.option("--runs", default=10_000)
@click.option("--epochs", default=10)
@click.option("--one-by-one", default=100, help="runs whose histories are asked for singly")
@click.option("--out", type=click.Path(path_type=Path))
@click.option("--arm", hidden=True, help="what a process of its own measures")
@click.option("--uri", hidden=True)
def main(
    runs: int, epochs: int, one_by_one: int, out: Path | None, arm: str | None, uri: str | None
) -> None:
    if arm is not None:
        assert uri is not None
        print(json.dumps(_measure(_ARMS[arm], uri, runs, one_by_one)))
        return
    with tempfile.TemporaryDirectory() as folder:
        sqlite = f"sqlite:///{folder}/mlflow.db"
        _fill(sqlite, runs, epochs)
        with _server(Path(folder)) as http:
            result = {
                store: {name: _apart(name, uri, runs, one_by_one) for name in _ARMS}
                for store, uri in (("sqlite", sqlite), ("http", http))
            }
            _check_equal(sqlite, http, min(runs, 500))
    for of_store in result.values():
        ours, theirs = of_store["load_runs"], of_store["mlflow.search_runs"]
        of_store["ratio"] = {
            "runs": theirs["seconds"] / ours["seconds"],
            "histories_per_run": of_store["get_metric_history"]["ms_per_run"]
            / of_store["load_epochs"]["ms_per_run"],
        }
    write({**machine(), "runs": runs, "epochs": epochs, "metrics": len(_LOGGED), **result}, out)


def _search_runs(uri: str, runs: int, _: int) -> int:
    import mlflow

    mlflow.set_tracking_uri(uri)
    return len(mlflow.search_runs(experiment_names=["benchmark"]))


def _load_runs(uri: str, runs: int, _: int) -> int:
    return len(query.load_runs("benchmark", tracking_uri=uri))


def _get_metric_history(uri: str, runs: int, some: int) -> int:
    """The public way: a request for each run and metric; of some runs, for it takes so long."""
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    for run_id in _ids(uri, some):
        for metric in ("test/accuracy", "energy/train_wh"):
            client.get_metric_history(run_id, metric)
    return some


def _load_epochs(uri: str, runs: int, _: int) -> int:
    ids = _ids(uri, runs)
    query.load_epochs(ids, ["test/accuracy", "energy/train_wh"], tracking_uri=uri)
    return len(ids)


_ARMS: dict[str, Callable[[str, int, int], int]] = {
    "mlflow.search_runs": _search_runs,
    "load_runs": _load_runs,
    "get_metric_history": _get_metric_history,
    "load_epochs": _load_epochs,
}


def _ids(uri: str, n: int) -> list[str]:
    """The run ids, which the benchmark makes and need not be asked for."""
    return [_id(i) for i in range(n)]


def _id(i: int) -> str:
    return uuid.uuid5(uuid.NAMESPACE_OID, str(i)).hex


def _measure(arm: Callable[[str, int, int], int], uri: str, runs: int, some: int) -> dict[str, Any]:
    import mlflow

    mlflow.set_tracking_uri(uri)
    mlflow.search_runs(experiment_names=["benchmark"], max_results=1)
    query.load_epochs([_id(0)], ["test/accuracy"], tracking_uri=uri)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    n = arm(uri, runs, some)
    seconds = time.perf_counter() - started
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return {
        "seconds": seconds,
        "runs": n,
        "ms_per_run": 1000 * seconds / n,
        "grown_gb": grown * 1024 / 1e9,
    }


def _apart(arm: str, uri: str, runs: int, some: int) -> dict[str, Any]:
    words = ["--arm", arm, "--uri", uri, "--runs", str(runs), "--one-by-one", str(some)]
    done = subprocess.run(
        [sys.executable, __file__, *words], capture_output=True, text=True, check=True
    )
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    click.echo(f"{arm} {uri.partition(':')[0]}: {found['seconds']:.1f} s", err=True)
    return found


def _check_equal(sqlite: str, http: str, n: int) -> None:
    """The frames of both stores and MLflow's own hold the same values."""
    import mlflow

    tables = query.load_runs("benchmark", tracking_uri=sqlite).set_index("run_id").sort_index()
    server = query.load_runs("benchmark", tracking_uri=http).set_index("run_id").sort_index()
    assert tables.equals(server[tables.columns])
    mlflow.set_tracking_uri(sqlite)
    theirs = mlflow.search_runs(experiment_names=["benchmark"], max_results=n).set_index("run_id")
    ours = tables.loc[theirs.index]
    for column in theirs:
        if column.startswith(("metrics.", "params.", "tags.")):
            assert ours[column].tolist() == theirs[column].tolist(), column


def _fill(uri: str, runs: int, epochs: int) -> None:
    """Write runs into MLflow's tables: through its API it would take a quarter of an hour."""
    from mlflow import MlflowClient
    from mlflow.store.tracking.dbmodels import models as tables

    experiment_id = int(MlflowClient(uri).create_experiment("benchmark"))
    rng = np.random.default_rng(0)
    engine = sa.create_engine(uri)
    begun = 1_790_000_000_000
    for start in range(0, runs, 500):
        rows: dict[Any, list[dict[str, Any]]] = {
            t: []
            for t in (
                tables.SqlRun,
                tables.SqlTag,
                tables.SqlParam,
                tables.SqlLatestMetric,
                tables.SqlMetric,
            )
        }
        for i in range(start, min(start + 500, runs)):
            model, seed, run = f"model{i % _MODELS}", i // _MODELS, _id(i)
            rows[tables.SqlRun].append(
                {
                    "run_uuid": run,
                    "name": f"{model} {seed}",
                    "status": "FINISHED",
                    "start_time": begun + i * 1000,
                    "end_time": begun + i * 1000 + 900,
                    "lifecycle_stage": "active",
                    "artifact_uri": f"mlruns/{experiment_id}/{run}/artifacts",
                    "experiment_id": experiment_id,
                    "user_id": "me",
                }
            )
            tags = {tag: f"{tag} of a machine" for tag in TAGS if "*" not in tag}
            tags |= {
                "pepr.experiment": "benchmark",
                "pepr.memory": "memory/rss_gb",
                "pepr.energy_source": "measured",
                "mlflow.runName": f"{model} {seed}",
            }
            params = RunSpec(model=model, seed=seed).as_params()
            for table, pairs in ((tables.SqlTag, tags), (tables.SqlParam, params)):
                rows[table] += [{"run_uuid": run, "key": k, "value": v} for k, v in pairs.items()]
            for metric in _LOGGED:
                values = rng.random(epochs).cumsum()
                points = [
                    {
                        "run_uuid": run,
                        "key": metric,
                        "value": float(value),
                        "timestamp": begun + i * 1000 + step,
                        "step": step,
                        "is_nan": False,
                    }
                    for step, value in enumerate(values, start=1)
                ]
                rows[tables.SqlMetric] += points
                rows[tables.SqlLatestMetric].append(points[-1])
        with engine.begin() as connection:
            for table, values in rows.items():
                connection.execute(sa.insert(table.__table__), values)


@contextmanager
def _server(folder: Path) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    words = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    words += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db"]
    process = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "server", *words],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        for _ in range(200):
            try:
                with urllib.request.urlopen(f"{address}/health", timeout=5):
                    break
            except OSError:
                time.sleep(0.3)
        yield address
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=30)


if __name__ == "__main__":
    main()
