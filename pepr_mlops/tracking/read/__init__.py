"""The only reader of MLflow: runs and their histories as frames, from any tracking server."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pepr_mlops.comparison import runs as frame
from pepr_mlops.comparison.runs import Evidence
from pepr_mlops.errors import WorkFailed, WrongUse, nearest
from pepr_mlops.text import address, matches, printable
from pepr_mlops.tracking.read import cache
from pepr_mlops.tracking.read import tables as sql
from pepr_mlops.tracking.read.api import Remote
from pepr_mlops.tracking.read.frames import Page, epochs_frame, raw_frame
from pepr_mlops.tracking.server import connect, impatient, opening, resolved, told

if TYPE_CHECKING:
    from mlflow import MlflowClient

_TAG = "pepr.experiment"
_ENERGY = "energy/train_wh"
_SOME = 1000  # runs whose tags are looked through for the names of experiments


def load_runs(
    experiment: str | Sequence[str] | None = None, *, tracking_uri: str | None = None
) -> pd.DataFrame:
    """All runs of one or several experiments, one row each, in the columns of `frame.tidy`.

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
        with told(uri):
            if names is None:
                return _frame(reader, reader.runs(list(reader.experiments)))
            parts = [_of(reader, name) for name in dict.fromkeys(names)]
        return pd.concat(parts, ignore_index=True)

    return cache.answer(uri, ["runs", names if names is None else list(names)], read)


def store_version(tracking_uri: str | None = None) -> str:
    """The version of an MLflow server, or the schema of a database. Raises `WorkFailed`."""
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    uri = resolved(tracking_uri)
    with told(uri), impatient():
        if uri.startswith(sql.SCHEMES):
            return sql.version(uri)
        if not uri.startswith("http"):
            return "read through MLflow"
        answer = http_request(get_default_host_creds(uri), "/version", "GET")
    return f"MLflow {answer.text.strip()}" if answer.ok else "an MLflow of unknown version"


def load_jobs(experiments: Sequence[str], *, tracking_uri: str | None = None) -> pd.DataFrame:
    """The runs of jobs, those with a fingerprint, that are compared under any of these names.

    As `load_runs`, but names that no run has yet are no error, nor is a SQLite store that is not
    there: the frame is empty then.
    """
    try:
        reader = _open(tracking_uri)
    except WrongUse as error:
        if error.reason != sql.NO_STORE:
            raise
        return frame.tidy(raw_frame(iter(()), {}))
    with told(reader.uri):
        parts = [_runs_of(reader, name) for name in dict.fromkeys(experiments)]
    runs = pd.concat(parts, ignore_index=True)
    return runs[runs["spec"].notna()].drop_duplicates("run_id").reset_index(drop=True)


def load_epochs(
    run_ids: Sequence[str],
    metrics: Sequence[str] | None = None,
    *,
    tracking_uri: str | None = None,
) -> pd.DataFrame:
    """The histories of runs: one row per run and epoch (MLflow's step).

    Columns `run_id`, `step` and one per metric, by default all that any of the runs has; a metric
    without a point at a step is NaN there, and the last of several counts. Raises `WorkFailed`
    when the server cannot be read.
    """
    uri, ids = resolved(tracking_uri), list(dict.fromkeys(run_ids))

    def read() -> pd.DataFrame:
        reader = _open(uri)
        with told(uri):
            return epochs_frame(reader.epochs(ids, metrics))

    found = cache.answer(uri, ["epochs", ids, metrics if metrics is None else list(metrics)], read)
    return found if metrics is None else found.reindex(columns=["run_id", "step", *metrics])


@dataclass(frozen=True)
class Input:
    """A data set that a run has logged as MLflow's input: its digest, and where it lay."""

    digest: str
    place: str | None


def load_inputs(
    run_ids: Sequence[str], *, tracking_uri: str | None = None
) -> dict[str, dict[str, Input]]:
    """The data that runs logged as MLflow's inputs: for each run by their context.

    Those of `pepr train` are the splits `train`, `val` and `test` as the model saw them. Raises
    `WorkFailed` when the server cannot be read.
    """
    found: dict[str, dict[str, Input]] = {}
    if not run_ids:
        return found
    uri = resolved(tracking_uri)
    client = _client(uri)
    with told(uri):
        for run_id in run_ids:
            inputs = client.get_run(run_id).inputs
            found[run_id] = {
                tag.value: Input(given.dataset.digest, _place(given.dataset.source))
                for given in (inputs.dataset_inputs if inputs else ())
                for tag in given.tags or ()
                if tag.key == "mlflow.data.context"
            }
    return found


def _place(source: str) -> str | None:
    with suppress(ValueError):
        match json.loads(source):
            case {"uri": str(place)}:
                return place
    return None


def experiments_on(data_digest: str, *, tracking_uri: str | None = None) -> list[str]:
    """The names that finished runs on this data set are compared under; none without a store."""
    uri = resolved(tracking_uri)
    try:
        client = _client(uri)
    except WrongUse as error:
        if error.reason != sql.NO_STORE:
            raise
        return []
    with told(uri):
        found = client.search_runs(
            list(_experiments(client)),
            f"tags.`pepr.data_digest` {matches(data_digest)} AND attributes.status = 'FINISHED'",
            max_results=_SOME,
        )
    return sorted({run.data.tags[_TAG] for run in found if _TAG in run.data.tags})


def load_evidence(runs: pd.DataFrame, *, tracking_uri: str | None = None) -> Evidence:
    """What is known besides the runs at hand: energies elsewhere, and histories.

    Of the whole server the runs whose energy lies between the least and greatest of `runs`. What
    is at hand is not read again: of an MLflow experiment `runs` has all, as `load_runs` gave them.
    """
    known = runs[(runs["energy_wh"] > 0) & np.isfinite(runs["energy_wh"])]
    if known.empty:
        return Evidence()
    uri = resolved(tracking_uri)
    here = sorted(
        known.loc[known["experiment"] == known["mlflow_experiment"], "experiment"].unique()
    )
    low, high = float(known["energy_wh"].min()), float(known["energy_wh"].max())

    def read() -> pd.DataFrame:
        reader = _open(uri)
        with told(uri):
            return reader.energies(_ENERGY, low, high, here)

    elsewhere = cache.answer(uri, ["energies", _ENERGY, low, high, here], read, len(runs))
    energies = pd.concat([known[list(elsewhere.columns)], elsewhere]).drop_duplicates("run_id")
    epochs = load_epochs(list(known["run_id"]), [_ENERGY], tracking_uri=uri)
    shared = elsewhere.loc[elsewhere["energy_wh"].isin(known["energy_wh"]), "run_id"]
    twins = runs
    if len(shared):
        reader = _open(uri)
        with told(uri):
            twins = pd.concat([runs, _frame(reader, reader.some(list(shared)))])
    return Evidence(energies, epochs.rename(columns={_ENERGY: "energy_wh"}), twins)


def run_page(tracking_uri: str | None = None) -> str | None:
    """What precedes a run's id in the address of its page, or None where a store has no pages."""
    uri = address(resolved(tracking_uri))
    return f"{uri.rstrip('/')}/#/runs/" if uri.startswith(("http://", "https://")) else None


def _open(tracking_uri: str | None) -> sql.Tables | Remote:
    """A reader of the tables where they are in reach and known, else of the server's API."""
    uri = resolved(tracking_uri)
    sql.check_exists(uri)
    with impatient():
        with opening(uri):
            tables = sql.tables(uri)
        if tables is not None:
            return tables
        client = _client(uri)
        with told(uri):
            return Remote(client, uri, _experiments(client))


def _client(uri: str) -> MlflowClient:
    """MLflow's client, which makes no SQLite file. Raises `WrongUse` where there is none."""
    sql.check_exists(uri)
    try:
        return connect(uri, create=False)
    except WorkFailed:
        sql.check_exists(uri)
        raise


def _experiments(client: MlflowClient) -> dict[str, str]:
    """Name of every experiment by its id."""
    found: dict[str, str] = {}
    token = None
    while True:
        page = client.search_experiments(max_results=1000, page_token=token)
        found |= {e.experiment_id: e.name for e in page}
        token = page.token
        if not token:
            return found


def _of(reader: sql.Tables | Remote, name: str) -> pd.DataFrame:
    """The runs of one experiment, under that name, which must be there."""
    runs = _runs_of(reader, name)
    if runs.empty and name not in reader.experiments.values():
        known = sorted({*reader.experiments.values(), *reader.tagged(_TAG, _SOME)})
        raise WrongUse(
            f"experiment: {name!r} is neither an MLflow experiment nor the tag {_TAG} of a run "
            f"on {address(reader.uri)}{nearest(name, known) or '.'} There are: {', '.join(known)}"
        )
    return runs


def _runs_of(reader: sql.Tables | Remote, name: str) -> pd.DataFrame:
    here = [i for i, n in reader.experiments.items() if n == name]
    elsewhere = [i for i in reader.experiments if i not in here]

    def pages() -> Iterator[Page]:
        yield from reader.runs(here)
        yield from reader.runs(elsewhere, tag=(_TAG, name))

    runs = _frame(reader, pages())
    runs["experiment"] = pd.Series(printable(name), runs.index, dtype="str")
    return runs


def _frame(reader: sql.Tables | Remote, pages: Iterator[Page]) -> pd.DataFrame:
    return frame.tidy(raw_frame(pages, reader.experiments))


def names(*, tracking_uri: str | None = None) -> list[str]:
    """Names that `load_runs` knows: of MLflow's experiments, and of the tags of the newest runs."""
    reader = _open(tracking_uri)
    with told(reader.uri):
        return sorted({*reader.experiments.values(), *reader.tagged(_TAG, _SOME)})


def stamp(*, tracking_uri: str | None = None) -> str:
    """A text that changes when a run of the server begins or ends; cheap enough to ask often.

    Over HTTP it does not when one is deleted, of which MLflow's API says nothing. Raises `WrongUse`
    and `WorkFailed` as `load_runs`.
    """
    reader = _open(tracking_uri)
    with impatient(), told(reader.uri):
        return f"{sorted(reader.experiments.items())} {reader.stamp()}"
