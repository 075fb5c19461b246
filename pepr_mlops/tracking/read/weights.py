"""Fetches the weights that a run kept: in place where they are on this disk, else downloaded once.

Nothing in them is executed. The run's tag `pepr.model` has the digests of the weights and of their
description, `model.json`, so that neither can be exchanged unnoticed.
"""

from __future__ import annotations

import errno
import json
import os
import posixpath
import shlex
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pepr_mlops.errors import WorkFailed, WrongUse
from pepr_mlops.files import digest_of, models_folder
from pepr_mlops.spec import NONE, RunSpec, as_text
from pepr_mlops.text import address
from pepr_mlops.tracking.outbox import NOT_STORED
from pepr_mlops.tracking.read.predictions import folder_of
from pepr_mlops.tracking.read.tables import check_exists
from pepr_mlops.tracking.server import connect, enduring, resolved, translated_errors

if TYPE_CHECKING:
    from mlflow import MlflowClient

FOLDER, FILE = "model", "model.json"  # of a run's artifacts, and the description in it
TAG, MISSING = "pepr.model", "pepr.model_missing"
_PREFERRED = ("last", "best")
_NO_RUN = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")  # codes of MLflow
_NOT_WRITTEN = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS}


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
        digests = _digests(tags.get(TAG))
        name = which or next((name for name in _PREFERRED if name in digests), "last")
        if name not in digests:
            raise WrongUse(_missing(run, name, digests))
        folder = folder_of(place)
        if folder is None:
            folder = _downloaded(uri, run_id, place, digests, name)
        else:
            folder = folder / FOLDER
            _check_in_place(folder, run_id, uri, digests)
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


def _digests(tag: str | None) -> dict[str, str]:
    """The digests of files by name, of `last=DIGEST,best=DIGEST,model=DIGEST`."""
    parts = [part.partition("=") for part in (tag or "").split(",")]
    return {name: digest for name, equals, digest in parts if equals}


def _check_in_place(folder: Path, run_id: str, uri: str, digests: Mapping[str, str]) -> None:
    try:
        found = digest_of(folder / FILE)
    except OSError as error:
        raise WrongUse(
            f"weights: {folder / FILE} of run {run_id} cannot be read ({error.strerror}); put the "
            f"artifacts back where the run logged them, or use the machine of {address(uri)}"
        ) from error
    if found != digests.get("model"):
        raise WrongUse(_changed(folder / FILE, run_id))


def _changed(path: Path, run_id: str) -> str:
    return (
        f"weights: {path} is not the file that run {run_id} logged; it was changed or damaged: put "
        "the original back, or train the model again"
    )


def _downloaded(uri: str, run_id: str, place: str, digests: Mapping[str, str], name: str) -> Path:
    """The folder with the description and the weights `name`, downloaded where they are not there
    or damaged. A file appears in it complete or not at all."""
    from mlflow.artifacts import download_artifacts, list_artifacts

    folder = models_folder() / run_id / FOLDER

    def get(file: str, digest: str) -> Path:
        path = folder / file
        if path.exists() and digest_of(path) == digest:
            return path
        source = f"{place.rstrip('/')}/{FOLDER}"
        listed = list_artifacts(artifact_uri=source, tracking_uri=uri)
        if file not in {posixpath.basename(one.path) for one in listed}:
            raise WrongUse(
                f"weights: the server's store has no {FOLDER}/{file} of run {run_id} any more; put "
                "its artifacts back, or train the model again"
            )
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as part:
            found = Path(
                download_artifacts(artifact_uri=f"{source}/{file}", dst_path=part, tracking_uri=uri)
            )
            if digest_of(found) != digest:
                raise WrongUse(_changed(Path(FOLDER, file), run_id))
            os.replace(found, path)
        return path

    try:
        described = json.loads(get(FILE, digests.get("model", "")).read_text())
        get(Path(described["weights"][name]["file"]).name, digests[name])
    except OSError as error:
        if error.errno not in _NOT_WRITTEN:
            raise
        raise WorkFailed(
            f"weights: {folder} cannot be written ({error.strerror}); free space there, or set "
            "PEPR_MODELS to another folder"
        ) from error
    return folder


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
    again = f"train it again: `{_command(params, name)}`"
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
    return " and ".join(name for name in _PREFERRED if name in digests)


def _command(params: Mapping[str, str], name: str) -> str:
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
