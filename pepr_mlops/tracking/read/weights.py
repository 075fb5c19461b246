"""Fetches the weights that a run kept: in place where they are on this disk, else downloaded once.

Nothing in them is executed. The run's tag `pepr.model` has the digests of the weights and of their
description, `model.json`, so that neither can be exchanged unnoticed.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pepr_mlops.errors import WrongUse
from pepr_mlops.files import models_folder
from pepr_mlops.spec import NONE, RunSpec, as_text
from pepr_mlops.text import address
from pepr_mlops.tracking.outbox import NOT_STORED
from pepr_mlops.tracking.read import model_files
from pepr_mlops.tracking.read.model_files import WHICH
from pepr_mlops.tracking.read.predictions import folder_of
from pepr_mlops.tracking.read.tables import check_exists
from pepr_mlops.tracking.server import connect, enduring, resolved, translated_errors

if TYPE_CHECKING:
    from mlflow import MlflowClient

FOLDER = "model"  # of a run's artifacts
TAG, MISSING = "pepr.model", "pepr.model_missing"
_NO_RUN = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")  # codes of MLflow


@dataclass(frozen=True)
class Fetched:
    """A folder with the model of a run, the digests of its files by name, and the run's tags,
    parameters and metrics."""

    run_id: str
    folder: Path
    digests: Mapping[str, str]
    tags: Mapping[str, str]
    params: Mapping[str, str]
    metrics: Mapping[str, float]


def fetch(run_id: str, which: str | None = None, *, tracking_uri: str | None = None) -> Fetched:
    """The model that a run kept, with the weights `which` (`last` or `best`), by default the last
    if they were kept.

    Raises `WrongUse` where there is no such run, where it kept no such weights, with the command
    that trains them, and where files are missing or not those logged; `WorkFailed` where the server
    does not answer and where a download cannot be stored.
    """
    uri = resolved(tracking_uri)
    check_exists(uri)
    client = connect(uri, create=False)
    with enduring(), translated_errors(uri):
        run = _run(client, uri, run_id)
        tags, params = run.data.tags, run.data.params
        place = run.info.artifact_uri
        digests = digests_in(tags.get(TAG))
        name = model_files.chosen(which, digests)
        if name not in digests:
            raise WrongUse(_missing(run, name, digests))
        folder, described = folder_of(place), digests.get("model", "")
        source = f"that run {run_id} logged"
        remedy = f"put the artifacts of run {run_id} back where it logged them, or train it again"
        if folder is None:
            folder, place = models_folder() / run_id / FOLDER, f"{place.rstrip('/')}/{FOLDER}"
            model_files.download(uri, place, folder, described, name, source, remedy)
        else:
            folder = folder / FOLDER
            model_files.check(folder / model_files.FILE, described, source, remedy)
    return Fetched(run_id, folder, digests, tags, params, run.data.metrics)


def _run(client: MlflowClient, uri: str, run_id: str) -> Any:
    """MLflow's run. Raises `WrongUse` where there is none."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_run(run_id)
    except MlflowException as error:
        if error.error_code not in _NO_RUN:
            raise
        raise WrongUse(
            f"model: {address(uri)} has no run {run_id!r}; `pepr runs --experiment NAME` lists the "
            "runs"
        ) from error


def digests_in(tag: str | None) -> dict[str, str]:
    """The digests of files by name, of `last=DIGEST,best=DIGEST,model=DIGEST`."""
    parts = [part.partition("=") for part in (tag or "").split(",")]
    return {name: digest for name, equals, digest in parts if equals}


def _missing(run: Any, name: str, digests: Mapping[str, str]) -> str:
    """That a run has no weights `name`, why, and what to do."""
    run_id, tags, params = run.info.run_id, run.data.tags, run.data.params
    if "pepr.imported_from" in tags:
        return (
            f"weights: run {run_id} was imported, and imported runs have no weights; name a run of "
            "`pepr train`"
        )
    if "compile" not in params:
        return f"weights: run {run_id} kept no weights; name a run of `pepr train`"
    again = f"train it again: `{command(params, name)}`"
    if digests:
        why = f" ({tags[MISSING]})" if MISSING in tags else ""
        return f"weights: run {run_id} has no {name} weights{why}, only the {_names(digests)}; " + (
            f"load these, or {again}"
        )
    if MISSING in tags:
        return f"weights: run {run_id} has none ({tags[MISSING]}); {again}"
    if FOLDER in tags.get(NOT_STORED, "") or params.get("keep", NONE) != NONE:
        state = "is not finished" if run.info.status == "RUNNING" else "may not have sent them"
        return (
            f"weights: run {run_id} has none on the server and {state}; `pepr sync` on the machine "
            f"that trained it sends what is left there, or {again}"
        )
    return f"weights: run {run_id} kept no weights; {again}"


def _names(digests: Mapping[str, str]) -> str:
    return " and ".join(name for name in WHICH if name in digests)


def command(params: Mapping[str, str], name: str) -> str:
    """The command that trains a run of these parameters again, and keeps the weights `name`."""
    words = ["pepr", "train"]
    for f in fields(RunSpec):
        text = params.get(f.name)
        essential = f.name in ("model", "dataset", "seed")
        if f.name != "keep" and text is not None and (essential or text != as_text(f.default)):
            words += [f"--{f.name.replace('_', '-')}", text]
    if name == "best":
        words += ["--keep", "both"]
    return shlex.join(words)
