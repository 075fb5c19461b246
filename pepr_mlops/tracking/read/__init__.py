"""The only reader of MLflow: runs and their histories as frames, from any tracking server.

`tables` reads a database and `api` any server, into the frames of `frames`; `predictions` reads
artifacts; `cache` saves answers.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from pepr_mlops.comparison.predictions import Predictions
from pepr_mlops.comparison.repeats import spread_between, unrepeated
from pepr_mlops.comparison.runs import Evidence, tidy
from pepr_mlops.comparison.spread import ASSUMED, Spread
from pepr_mlops.errors import WorkFailed, WrongUse, nearest
from pepr_mlops.text import address, matches, printable
from pepr_mlops.tracking.read import cache, tables
from pepr_mlops.tracking.read import predictions as logged
from pepr_mlops.tracking.read.api import Server
from pepr_mlops.tracking.read.frames import ENERGY, EXPERIMENT, Page, epochs_frame, raw_frame
from pepr_mlops.tracking.read.inputs import Input
from pepr_mlops.tracking.read.tables import Tables
from pepr_mlops.tracking.searches import SEARCH_TAG
from pepr_mlops.tracking.server import (
    connect,
    experiment_names,
    impatient,
    opening,
    resolved,
    translated_errors,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from pepr_mlops.spec import Job

_NEWEST = 2000  # runs, of all experiments
_MOST_RUNNING = 200
_EACH_EPOCH = "time/train_s"  # a metric that is logged after every epoch

Reader = Tables | Server


def load_runs(
    experiment: str | Sequence[str] | None = None, *, tracking_uri: str | None = None
) -> pd.DataFrame:
    """All runs of one or several experiments, one row each, in the columns of `runs.tidy`.

    An experiment is every run with the tag `pepr.experiment` of that name, wherever it is logged,
    and every run in the MLflow experiment of that name; without one, all runs of the server.
    Deleted runs and experiments are not read. `tracking_uri` is MLflow's own if None. Raises
    `WrongUse` with the nearest names when there is no such experiment, and `WorkFailed` when the
    server cannot be read.

    >>> from pepr_mlops import load_runs
    >>> runs = load_runs("digits")
    >>> runs[["model", "image_size", "energy_source"]].sort_values("model").to_numpy().tolist()
    [['test_efficientnet', 32, 'estimated'], ['test_resnet', 32, 'estimated']]
    """
    names = [experiment] if isinstance(experiment, str) else experiment
    uri = resolved(tracking_uri)

    def read() -> pd.DataFrame:
        reader = _open(uri)
        with translated_errors(uri):
            if names is None:
                return _tidy(reader, reader.runs(list(reader.experiments)))
            parts = [_existing(reader, name) for name in dict.fromkeys(names)]
        return pd.concat(parts, ignore_index=True)

    return cache.answer(uri, ["runs", names if names is None else list(names)], read)


def experiment_of(run_id: str, *, tracking_uri: str | None = None) -> str:
    """The name of the experiment that a run is compared under, for `load_runs`. Raises `WrongUse`
    where there is no such run, and `WorkFailed` when the server cannot be read."""
    reader = _open(tracking_uri)
    with translated_errors(reader.uri):
        found = _tidy(reader, reader.some([run_id]))
    if found.empty:
        raise WrongUse(
            f"run: there is no run {run_id!r} on {address(reader.uri)}; `pepr runs --experiment "
            "NAME` lists the runs of an experiment"
        )
    return str(found["experiment"].iloc[0])


def store_version(tracking_uri: str | None = None) -> str:
    """The version of an MLflow server, or the schema of a database. Raises `WorkFailed`."""
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    uri = resolved(tracking_uri)
    with translated_errors(uri), impatient():
        if uri.startswith(tables.SCHEMES):
            return tables.version(uri)
        if not uri.startswith("http"):
            return "read through MLflow"
        answer = http_request(get_default_host_creds(uri), "/version", "GET")
    return f"MLflow {answer.text.strip()}" if answer.ok else "MLflow of unknown version"


def load_jobs(experiments: Sequence[str], *, tracking_uri: str | None = None) -> pd.DataFrame:
    """The runs with a fingerprint, those of jobs, that are compared under any of these names.

    As `load_runs`, but empty for names that no run has yet and for a missing SQLite store.
    """

    def read(reader: Reader) -> pd.DataFrame:
        parts = [_runs_of(reader, name) for name in dict.fromkeys(experiments)]
        runs = pd.concat(parts, ignore_index=True)
        return runs[runs["spec"].notna()].drop_duplicates("run_id").reset_index(drop=True)

    return _or_empty(tracking_uri, read)


def load_epochs(
    run_ids: Sequence[str], metrics: Sequence[str] | None = None, *, tracking_uri: str | None = None
) -> pd.DataFrame:
    """The histories of runs: one row per run and epoch (MLflow's step).

    Columns `run_id`, `step` and one per metric, by default all that any of the runs has; a metric
    without a point at a step is NaN there, and the last of several counts. Raises `WorkFailed`
    when the server cannot be read.
    """
    uri, ids = resolved(tracking_uri), list(dict.fromkeys(run_ids))

    def read() -> pd.DataFrame:
        reader = _open(uri)
        with translated_errors(uri):
            return epochs_frame(reader.epochs(ids, metrics))

    found = cache.answer(uri, ["epochs", ids, metrics if metrics is None else list(metrics)], read)
    return found if metrics is None else found.reindex(columns=["run_id", "step", *metrics])


def load_newest(metric: str, *, tracking_uri: str | None = None) -> pd.DataFrame:
    """The newest finished runs of the server that have a seed and whose P is this metric.

    As `load_runs`, but empty for a missing SQLite store.
    """

    def read(reader: Reader) -> pd.DataFrame:
        return _tidy(reader, iter([reader.newest(list(reader.experiments), metric, _NEWEST)]))

    return _or_empty(tracking_uri, read)


def _or_empty(tracking_uri: str | None, read: Callable[[Reader], pd.DataFrame]) -> pd.DataFrame:
    """What `read` returns, no runs for a missing SQLite store."""
    try:
        reader = _open(tracking_uri)
    except WrongUse as error:
        if error.reason != tables.NO_STORE:
            raise
        return tidy(raw_frame(iter(()), {}))
    with translated_errors(reader.uri):
        return read(reader)


def load_searches(experiment: str, *, tracking_uri: str | None = None) -> dict[str, dict[str, Any]]:
    """What frugal searches logged about themselves (`search.Search.record`), by their names; empty
    where there was none, and without what is no JSON object. Raises `WorkFailed` when the server
    cannot be read."""
    reader = _open(tracking_uri)
    with translated_errors(reader.uri):
        ids = [i for i, name in reader.experiments.items() if name == experiment]
        tags = {name: text for i in ids for name, text in sorted(reader.tags(i).items())}
    found = {}
    for name, text in tags.items():
        with suppress(ValueError):
            if name.startswith(SEARCH_TAG) and isinstance(record := json.loads(text), dict):
                found[name.removeprefix(SEARCH_TAG)] = record
    return found


def load_inputs(
    run_ids: Sequence[str], *, tracking_uri: str | None = None
) -> dict[str, dict[str, Input]]:
    """The data that runs logged as MLflow's inputs: for each run by their context.

    Those of `pepr train` are the splits `train`, `val` and `test` as the model saw them. Raises
    `WorkFailed` when the server cannot be read.
    """
    found: dict[str, dict[str, Input]] = {run_id: {} for run_id in run_ids}
    if not run_ids:
        return found
    uri = resolved(tracking_uri)
    reader = _open(uri)
    with translated_errors(uri):
        for run_id, context, digest, source, profile in reader.inputs(list(found)):
            found[run_id][context] = Input.of(digest, source, profile)
    return found


def count_done(jobs: Sequence[Job], *, tracking_uri: str | None = None) -> dict[str, int]:
    """How many of the jobs are done under the name of each other experiment; none without a store.
    Of the runs on a data set only the latest 1,000 are read."""
    uri = resolved(tracking_uri)
    try:
        client = _client(uri)
    except WrongUse as error:
        if error.reason != tables.NO_STORE:
            raise
        return {}
    done = defaultdict(set)
    for digest in {job.data_digest for job in jobs}:
        with translated_errors(uri):
            found = client.search_runs(
                list(experiment_names(client)),
                f"tags.`pepr.data_digest` {matches(digest)} AND attributes.status = 'FINISHED'",
                max_results=1000,
            )
        for run in found:
            tags = run.data.tags
            if EXPERIMENT in tags and "pepr.probe" not in tags:
                done[tags[EXPERIMENT]].add(tags.get("pepr.spec"))
    counts = {
        name: sum(replace(job, experiment=name).fingerprint in specs for job in jobs)
        for name, specs in done.items()
    }
    return {name: n for name, n in counts.items() if n}


def load_predictions(
    runs: pd.DataFrame, *, tracking_uri: str | None = None
) -> dict[str, Predictions | str]:
    """What runs predicted for the images of their splits, by run id.

    Finished trainings of `pepr train` log it; a run without has no entry. If the logged file is
    damaged, the entry is the reason as a clause about the run. What is not on this disk is
    downloaded once and cached. Raises `WorkFailed` when the server cannot be read.
    """
    uri = resolved(tracking_uri)
    trained = runs["logged_by_pepr"] & runs["compile"].notna() & (runs["status"] == "FINISHED")
    others = runs["imported_from"].notna() | runs["probe"].notna()
    ids = list(dict.fromkeys(runs.loc[trained & ~others, "run_id"]))

    def places(run_ids: Sequence[str]) -> Mapping[str, str]:
        def read() -> pd.DataFrame:
            reader = _open(uri)
            with translated_errors(uri):
                return reader.artifacts(run_ids)

        found = cache.answer(uri, ["artifacts", list(run_ids)], read)
        return dict(zip(found["run_id"], found["place"], strict=True))

    return logged.load(uri, ids, places)


def load_evidence(
    runs: pd.DataFrame, *, tracking_uri: str | None = None, predictions: bool = True
) -> Evidence:
    """Energies of other runs of the server, and the histories and predictions of `runs`.

    Energies between the least and greatest of `runs` are read. MLflow experiments of which `runs`
    has all, as `load_runs` returned them, are not read again. Without `predictions` none are read,
    and what they would show is not flagged. Where `runs` do not show how much P varies between
    seeds, the newest runs of other experiments do. Raises `WorkFailed` when the server cannot be
    read.
    """
    uri = resolved(tracking_uri)
    predicted = load_predictions(runs, tracking_uri=uri) if predictions else {}
    known = runs[(runs["energy_wh"] > 0) & np.isfinite(runs["energy_wh"])]
    spread = _spread_elsewhere(runs, uri)
    if known.empty:
        return Evidence(predictions=predicted, spread=spread)
    here = sorted(
        known.loc[known["experiment"] == known["mlflow_experiment"], "experiment"].unique()
    )
    low, high = float(known["energy_wh"].min()), float(known["energy_wh"].max())

    def read() -> pd.DataFrame:
        reader = _open(uri)
        with translated_errors(uri):
            return reader.energies(low, high, here)

    elsewhere = cache.answer(uri, ["energies", low, high, here], read, len(runs))
    energies = pd.concat([known[list(elsewhere.columns)], elsewhere]).drop_duplicates("run_id")
    epochs = load_epochs(list(known["run_id"]), [ENERGY], tracking_uri=uri)
    shared = elsewhere.loc[elsewhere["energy_wh"].isin(known["energy_wh"]), "run_id"]
    twins = runs
    if len(shared):
        reader = _open(uri)
        with translated_errors(uri):
            twins = pd.concat([runs, _tidy(reader, reader.some(list(shared)))])
    epochs = epochs.rename(columns={ENERGY: "energy_wh"})
    return Evidence(energies, epochs, twins, predicted, spread)


def _spread_elsewhere(runs: pd.DataFrame, uri: str) -> Spread:
    """How much P varies between repeated runs of these and other experiments, for comparison sets
    that do not show it themselves."""
    metric = unrepeated(runs)
    if metric is None:
        return ASSUMED
    here = sorted(runs["experiment"].unique())

    def read() -> pd.DataFrame:
        reader = _open(uri)
        with translated_errors(uri):
            others = [i for i, name in reader.experiments.items() if name not in here]
            return _tidy(reader, iter([reader.newest(others, metric, _NEWEST)]))

    found = cache.answer(uri, ["repeats", metric, here], read, len(runs))
    return spread_between(pd.concat([runs, found]).drop_duplicates("run_id"), metric)


def run_page(tracking_uri: str | None = None) -> str | None:
    """The address of a run's page without the run's id, None where a store has no pages."""
    uri = address(resolved(tracking_uri))
    return f"{uri.rstrip('/')}/#/runs/" if uri.startswith(("http://", "https://")) else None


def _open(tracking_uri: str | None) -> Reader:
    """A reader of the tables where they can be read and are known, else of the server's API."""
    uri = resolved(tracking_uri)
    tables.check_exists(uri)
    with impatient():
        with opening(uri):
            reader = tables.open_tables(uri)
        if reader is not None:
            return reader
        client = _client(uri)
        with translated_errors(uri):
            return Server(client, uri, experiment_names(client))


def _client(uri: str) -> MlflowClient:
    """MLflow's client. Raises `WrongUse` for a missing SQLite file and does not create it."""
    tables.check_exists(uri)
    try:
        return connect(uri, create=False)
    except WorkFailed:
        tables.check_exists(uri)
        raise


def _existing(reader: Reader, name: str) -> pd.DataFrame:
    """The runs of one experiment. Raises `WrongUse` where there is none of this name."""
    runs = _runs_of(reader, name)
    if runs.empty and name not in reader.experiments.values():
        known = sorted(reader.names())
        raise WrongUse(
            f"experiment: {name!r} is neither an MLflow experiment nor the tag {EXPERIMENT} of a "
            f"run on {address(reader.uri)}{nearest(name, known) or '.'} "
            f"There are: {', '.join(known)}"
        )
    return runs


def _runs_of(reader: Reader, name: str) -> pd.DataFrame:
    here = [i for i, n in reader.experiments.items() if n == name]
    elsewhere = [i for i in reader.experiments if i not in here]

    def pages() -> Iterator[Page]:
        yield from reader.runs(here)
        yield from reader.runs(elsewhere, tagged=name)

    runs = _tidy(reader, pages())
    runs["experiment"] = pd.Series(printable(name), runs.index, dtype="str")
    return runs


def _tidy(reader: Reader, pages: Iterator[Page]) -> pd.DataFrame:
    return tidy(raw_frame(pages, reader.experiments))


def require(experiments: Sequence[str], *, tracking_uri: str | None = None) -> None:
    """Raise `WrongUse` with the nearest names for an experiment that `load_runs` would not find,
    and `WorkFailed` when the server cannot be read."""
    reader = _open(tracking_uri)
    with translated_errors(reader.uri):
        for name in sorted(set(experiments) - reader.names()):
            _existing(reader, name)


def overview(*, tracking_uri: str | None = None) -> pd.DataFrame:
    """The experiments of the server for `load_runs`, the one with the newest run first.

    Columns `name`, `runs`, the number of its runs, and `newest`, when the last of them began in
    UTC. `runs` is missing where a server without tables has more runs than one request returns, and
    `newest` where none is known.
    """
    reader = _open(tracking_uri)
    with translated_errors(reader.uri):
        names, (sizes, complete) = reader.names(), reader.sizes()
    runs, newest = Counter[str](), defaultdict[str, int](int)
    for experiment_id, tag, n, start_ms in sizes:
        for name in {reader.experiments.get(experiment_id), tag} - {None, ""}:
            runs[str(name)] += n
            newest[str(name)] = max(newest[str(name)], start_ms or 0)
    ordered = sorted(names, key=lambda name: (-newest[name], name))
    times = pd.array([newest[name] or None for name in ordered], dtype="Int64")
    return pd.DataFrame(
        {
            "name": pd.Series(ordered, dtype="str"),
            "runs": pd.array([runs[n] if complete else None for n in ordered], dtype="Int64"),
            "newest": pd.to_datetime(times, unit="ms", utc=True, errors="coerce"),
        }
    )


def running(*, tracking_uri: str | None = None) -> pd.DataFrame:
    """The newest runs of the server that are under way, as `load_runs`; cheap enough to poll.

    With `epoch`, the last that was logged, and `epoch_time`, when that was in UTC; both are missing
    before the first. Raises as `stamp`.
    """
    reader = _open(tracking_uri)
    with impatient(), translated_errors(reader.uri):
        page, latest = reader.running(_EACH_EPOCH, _MOST_RUNNING)
    points = pd.DataFrame(latest, columns=["run_id", "epoch", "epoch_time"])
    points["epoch_time"] = pd.to_datetime(points["epoch_time"], unit="ms", utc=True)
    points = points.astype({"run_id": "str", "epoch": "Int64"})
    return _tidy(reader, iter([page])).merge(points, on="run_id", how="left", validate="1:1")


def stamp(*, tracking_uri: str | None = None) -> str:
    """A text that changes when a run of the server begins or ends; cheap enough to poll.

    Over HTTP it does not change when a run is deleted, which MLflow's API does not report. Raises
    `WrongUse` and `WorkFailed` as `load_runs`.
    """
    reader = _open(tracking_uri)
    with impatient(), translated_errors(reader.uri):
        return f"{sorted(reader.experiments.items())} {reader.stamp()}"
