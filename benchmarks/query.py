"""How long does it take to read many runs, and again, against MLflow's own search?

    python benchmarks/query.py --runs 10000
    python benchmarks/query.py --growth 1000,10000,100000

A store is filled with runs as `pepr train` logs them. Each reading is a process of its own that
has imported everything, opened the store and read one run before the clock starts; its memory is
how far the process grew above what it had then. The arms that end in `again` find what the arm
before them has cached. Frames are compared column by column before anything is reported.

With `--growth` only our own arms run, on stores of so many runs with one epoch each, which is
filled in minutes; `growth` is the seconds and memory per run of the largest over those of the one
before it.
"""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import click
import numpy as np
from common import machine, server, write

from pepr_mlops.comparison import Question, compare
from pepr_mlops.names import METRICS, TAGS
from pepr_mlops.spec import RunSpec
from pepr_mlops.tracking import read
from pepr_mlops.tracking.read import cache

_MODELS = 131
_SELDOM = ("inference/", "training/", "energy/eval_", "energy/trial_", "time/trial_")
_LOGGED = [m for m in METRICS if not m.startswith(_SELDOM)]
# Tags that no run has which went well, was measured, and by pepr.
_ABSENT = [
    *("stopped", "reason", "error", "energy_missing", "energy_caution", "gpu_other_processes"),
    *("unmeasured_s", "probe", "time_source", "imported_from", "import_key", "scored.*"),
    "version.*",
]
_VALUES = {
    "pepr.experiment": "benchmark",
    "pepr.performance": "test/accuracy",
    "pepr.memory": "memory/reserved_gb",
    "pepr.energy_source": "measured",
    "pepr.energy_components": "cpu=measured,gpu=measured",
    "pepr.parameters": "11708744",
    "pepr.idle_power_w": "60",
    "pepr.gpu_power_limit_w": "700",
}
_POWER_W = 200.0


@click.command()
@click.option("--runs", default=10_000)
@click.option("--epochs", default=10)
@click.option("--one-by-one", default=100, help="runs whose histories are read one by one")
@click.option("--growth", metavar="N,N,…", help="sizes to compare our own arms over instead")
@click.option("--http/--no-http", default=True, help="also through a server")
@click.option("--out", type=click.Path(path_type=Path))
@click.option("--arm", hidden=True, help="what a process of its own measures")
@click.option("--uri", hidden=True)
def main(
    runs: int,
    epochs: int,
    one_by_one: int,
    growth: str | None,
    http: bool,
    out: Path | None,
    arm: str | None,
    uri: str | None,
) -> None:
    if arm is not None:
        assert uri is not None
        print(json.dumps(_measure(_ARMS[arm], uri, runs, one_by_one)))
    elif growth is not None:
        sizes = [int(n) for n in growth.split(",")]
        write({**machine(), "epochs": 1, "metrics": len(_LOGGED), **_grown(sizes, http)}, out)
    else:
        result = _compared(runs, epochs, one_by_one, http)
        write({**machine(), "runs": runs, "epochs": epochs, "metrics": len(_LOGGED), **result}, out)


def _compared(runs: int, epochs: int, one_by_one: int, http: bool) -> dict[str, Any]:
    """Our arms and MLflow's by store."""
    result = {}
    with _stores(runs, epochs, http) as stores:
        for store, uri in stores.items():
            found = _all(_ARMS, uri, runs, one_by_one)
            ours, theirs = found["load_runs"], found["mlflow.search_runs"]
            found["ratio"] = {
                "runs": theirs["seconds"] / ours["seconds"],
                "runs_scored": theirs["seconds"] / found["scored"]["seconds"],
                "histories_per_run": found["get_metric_history"]["ms_per_run"]
                / found["load_epochs"]["ms_per_run"],
            }
            if "load_runs again" in found:
                found["ratio"]["runs_again"] = ours["seconds"] / found["load_runs again"]["seconds"]
            result[store] = found
        _check_equal(stores, min(runs, 500))
    return result


def _grown(sizes: Sequence[int], http: bool) -> dict[str, Any]:
    """Our arms by store and size, and the last size's cost per run over the last but one's."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for runs in sizes:
        started = time.perf_counter()
        with _stores(runs, 1, http) as stores:
            click.echo(f"{runs} runs made in {time.perf_counter() - started:.0f} s", err=True)
            for store, uri in stores.items():
                ours = {name: arm for name, arm in _ARMS.items() if name not in _THEIRS}
                found.setdefault(store, {})[str(runs)] = _all(ours, uri, runs, 0)
    if len(sizes) < 2:
        return dict(found)
    before, last = map(str, sizes[-2:])
    ratios = {
        store: {
            arm: {
                key: of[last][arm][key] / of[before][arm][key]
                for key in ("ms_per_run", "kb_per_run")
            }
            for arm in of[last]
        }
        for store, of in found.items()
    }
    return {**found, "growth": ratios}


@contextmanager
def _stores(runs: int, epochs: int, http: bool) -> Iterator[dict[str, str]]:
    """URIs of a store of so many runs by the way it is read."""
    with tempfile.TemporaryDirectory() as folder:
        sqlite = f"sqlite:///{folder}/mlflow.db"
        _fill(sqlite, runs, epochs)
        if not http:
            yield {"sqlite": sqlite}
            return
        with server(Path(folder)) as address:
            yield {"sqlite": sqlite, "http": address}


def _all(
    arms: dict[str, Callable[[str, int, int], int]], uri: str, runs: int, some: int
) -> dict[str, Any]:
    """Each arm with an empty cache; its `again` has the cache that it left."""
    found = {}
    for name in arms:
        if not name.endswith(" again"):
            folder = tempfile.mkdtemp()
        elif uri.startswith("http"):
            continue  # answers of a server are not cached
        found[name] = _apart(name, uri, runs, some, folder)
    return found


def _search_runs(uri: str, runs: int, _: int) -> int:
    import mlflow

    mlflow.set_tracking_uri(uri)
    return len(mlflow.search_runs(experiment_names=["benchmark"]))


def _load_runs(uri: str, runs: int, _: int) -> int:
    return len(read.load_runs("benchmark", tracking_uri=uri))


def _scored(uri: str, runs: int, _: int) -> int:
    """What `pepr score` does between its options and its table."""
    found = read.load_runs("benchmark", tracking_uri=uri)
    evidence = read.load_evidence(found, tracking_uri=uri)
    compared = compare(found, Question(), evidence, cache.intervals)
    return int(compared.runs["used"].sum())


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
    read.load_epochs(ids, ["test/accuracy", "energy/train_wh"], tracking_uri=uri)
    return len(ids)


_ARMS: dict[str, Callable[[str, int, int], int]] = {
    "mlflow.search_runs": _search_runs,
    "load_runs": _load_runs,
    "load_runs again": _load_runs,
    "scored": _scored,
    "scored again": _scored,
    "get_metric_history": _get_metric_history,
    "load_epochs": _load_epochs,
    "load_epochs again": _load_epochs,
}
_THEIRS = ("mlflow.search_runs", "get_metric_history")


def _ids(uri: str, n: int) -> list[str]:
    """The run ids, which the benchmark makes itself."""
    return [_id(i) for i in range(n)]


def _id(i: int) -> str:
    return uuid.uuid5(uuid.NAMESPACE_OID, str(i)).hex


def _measure(arm: Callable[[str, int, int], int], uri: str, runs: int, some: int) -> dict[str, Any]:
    import mlflow

    mlflow.set_tracking_uri(uri)
    mlflow.search_runs(experiment_names=["benchmark"], max_results=1)
    read.load_epochs([_id(0)], ["test/accuracy"], tracking_uri=uri)
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from now
    before = _memory_kb("VmRSS")
    started = time.perf_counter()
    n = arm(uri, runs, some)
    seconds = time.perf_counter() - started
    grown_kb = _memory_kb("VmHWM") - before
    return {
        "seconds": seconds,
        "runs": n,
        "ms_per_run": 1000 * seconds / n,
        "grown_gb": grown_kb * 1024 / 1e9,
        "kb_per_run": grown_kb * 1.024 / n,
    }


def _memory_kb(what: str) -> int:
    """A size of this process as Linux reports it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(what))


def _apart(arm: str, uri: str, runs: int, some: int, cache_folder: str) -> dict[str, Any]:
    words = ["--arm", arm, "--uri", uri, "--runs", str(runs), "--one-by-one", str(some)]
    done = subprocess.run(
        [sys.executable, __file__, *words],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env={**os.environ, "PEPR_CACHE": cache_folder},
    )
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    click.echo(f"{arm} {uri.partition(':')[0]}: {found['seconds']:.1f} s", err=True)
    return found


def _check_equal(stores: dict[str, str], n: int) -> None:
    """The frames of the stores, the cache of one, and MLflow's own hold the same values."""
    import mlflow

    sqlite = stores["sqlite"]
    with tempfile.TemporaryDirectory() as folder:
        os.environ["PEPR_CACHE"] = folder
        first = read.load_runs("benchmark", tracking_uri=sqlite)
        assert len(first) < cache.FEWEST or list(Path(folder).iterdir())
        assert read.load_runs("benchmark", tracking_uri=sqlite).equals(first)
    tables = first.set_index("run_id").sort_index()
    if "http" in stores:
        server = read.load_runs("benchmark", tracking_uri=stores["http"])
        assert tables.equals(server.set_index("run_id").sort_index()[tables.columns])
    mlflow.set_tracking_uri(sqlite)
    theirs = mlflow.search_runs(experiment_names=["benchmark"], max_results=n).set_index("run_id")
    ours = tables.loc[theirs.index]
    for column in theirs:
        if column.startswith(("metrics.", "params.", "tags.")):
            assert ours[column].tolist() == theirs[column].tolist(), column


def _fill(uri: str, runs: int, epochs: int) -> None:
    """Write runs into MLflow's tables: through its API it would take a quarter of an hour."""
    from mlflow import MlflowClient

    experiment_id = int(MlflowClient(uri).create_experiment("benchmark"))
    rng = np.random.default_rng(0)
    tags = {tag: f"{tag} of a machine" for tag in TAGS if tag.removeprefix("pepr.") not in _ABSENT}
    tags |= _VALUES
    with closing(sqlite3.connect(uri.removeprefix("sqlite:///"))) as connection:
        for setting in ("journal_mode = OFF", "synchronous = OFF", "cache_size = -2000000"):
            connection.execute(f"PRAGMA {setting}")
        for i in sorted(range(runs), key=_id):  # in the order of the indices, which grow at an end
            _write(connection, experiment_id, i, tags, epochs, rng)
        connection.commit()


def _write(
    connection: sqlite3.Connection,
    experiment_id: int,
    i: int,
    tags: dict[str, str],
    epochs: int,
    rng: np.random.Generator,
) -> None:
    """The i-th run, which took a second, and as much energy as its time allows."""
    model, seed, run = f"model{i % _MODELS}", i // _MODELS, _id(i)
    begun = 1_790_000_000_000 + i * 1000
    connection.execute(
        "INSERT INTO runs (run_uuid, name, status, start_time, end_time, lifecycle_stage,"
        " artifact_uri, experiment_id, user_id) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (run, f"{model} {seed}", "FINISHED", begun, begun + 900, "active",
         f"mlruns/{experiment_id}/{run}/artifacts", experiment_id, "me"),
    )  # fmt: skip
    params = RunSpec(model=model, seed=seed).as_params()
    for table, pairs in (
        ("tags", {**tags, "mlflow.runName": f"{model} {seed}"}),
        ("params", params),
    ):
        connection.executemany(
            f"INSERT INTO {table} (run_uuid, key, value) VALUES (?, ?, ?)",
            [(run, key, value) for key, value in pairs.items()],
        )
    values = dict(zip(_LOGGED, rng.uniform(0.5, 0.95, len(_LOGGED)), strict=True))
    energy_wh = rng.uniform(5, 50)
    values |= {"energy/train_wh": energy_wh, "time/train_s": energy_wh * 3600 / _POWER_W}
    values |= {"energy/train_gpu_wh": 0.8 * energy_wh, "energy/train_cpu_wh": 0.2 * energy_wh}
    points = [
        (run, metric, value * step / epochs, begun + step, step, False)
        for metric, value in values.items()
        for step in range(1, epochs + 1)
    ]
    columns = "(run_uuid, key, value, timestamp, step, is_nan) VALUES (?, ?, ?, ?, ?, ?)"
    connection.executemany(f"INSERT INTO metrics {columns}", points)
    connection.executemany(f"INSERT INTO latest_metrics {columns}", points[epochs - 1 :: epochs])


if __name__ == "__main__":
    main()
