"""Fetches the weights that a run kept: in place where they are on this disk, else downloaded once.

Nothing in them is executed. Whoever opens the folder compares the weights with the digests that the
run has in its tag `pepr.model`.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from pepr_mlops.errors import WrongUse
from pepr_mlops.files import user_folder
from pepr_mlops.spec import RunSpec, as_text
from pepr_mlops.text import address
from pepr_mlops.tracking.read.predictions import folder_of
from pepr_mlops.tracking.server import connect, enduring, resolved, translated_errors

FOLDER, TAG = "model", "pepr.model"


@dataclass(frozen=True)
class ModelFiles:
    """A folder with the model of a run, the digests of its files by name, and the run's tags,
    parameters and metrics."""

    run_id: str
    folder: Path
    digests: Mapping[str, str]
    tags: Mapping[str, str]
    params: Mapping[str, str]
    metrics: Mapping[str, float]


def fetch(run_id: str, *, tracking_uri: str | None = None) -> ModelFiles:
    """The model that a run kept.

    Raises `WrongUse` where there is no such run or it kept no weights, with the command that trains
    them, and `WorkFailed` where the server does not answer.
    """
    uri = resolved(tracking_uri)
    client = connect(uri, create=False)
    with enduring(), translated_errors(uri):
        run = client.get_run(run_id)
        tags, params = run.data.tags, run.data.params
        place = run.info.artifact_uri
        digests = _digests(tags.get(TAG))
        if not digests:
            raise WrongUse(_missing(run_id, tags, params))
        folder = folder_of(place)
        folder = _downloaded(uri, run_id, place, digests) if folder is None else folder / FOLDER
    if not folder.is_dir():
        raise WrongUse(
            f"weights: the folder {folder} that run {run_id} kept its weights in is missing; fetch "
            f"it from the machine of {address(uri)}"
        )
    return ModelFiles(run_id, folder, digests, tags, params, run.data.metrics)


def _digests(tag: str | None) -> dict[str, str]:
    """The digests of files by name, of `last=DIGEST,best=DIGEST`."""
    parts = [part.partition("=") for part in (tag or "").split(",")]
    return {name: digest for name, equals, digest in parts if equals}


def _downloaded(uri: str, run_id: str, place: str, digests: Mapping[str, str]) -> Path:
    from mlflow.artifacts import download_artifacts

    home = user_folder("PEPR_MODELS", "XDG_CACHE_HOME", "models") / run_id
    folder = home / FOLDER
    if not folder.is_dir():
        home.mkdir(parents=True, exist_ok=True)
        download_artifacts(
            artifact_uri=f"{place.rstrip('/')}/{FOLDER}", dst_path=str(home), tracking_uri=uri
        )
    return folder


def _missing(run_id: str, tags: Mapping[str, str], params: Mapping[str, str]) -> str:
    why = "was imported" if "pepr.imported_from" in tags else "kept no weights"
    words = ["pepr", "train"]
    for f in fields(RunSpec):
        text = params.get(f.name)
        essential = f.name in ("model", "dataset", "seed")
        if f.name != "keep" and text is not None and (essential or text != as_text(f.default)):
            words += [f"--{f.name.replace('_', '-')}", text]
    trained = "compile" in params and "pepr.imported_from" not in tags
    remedy = f"train it again: `{shlex.join(words)}`" if trained else "name a run of `pepr train`"
    return f"weights: run {run_id} {why}; {remedy}"
