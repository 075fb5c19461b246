"""Fetches a model from MLflow's registry: in place where it is on this disk, else downloaded once.

Only the weights and `model.json` are read, which `pepr export --register` puts into the MLflow
model. Nothing in them is executed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pepr_mlops.errors import WrongUse, nearest
from pepr_mlops.files import models_folder
from pepr_mlops.text import address
from pepr_mlops.tracking.read import model_files
from pepr_mlops.tracking.read.predictions import folder_of
from pepr_mlops.tracking.registry import DIGEST, EXTRA
from pepr_mlops.tracking.server import connect, enduring, resolved, translated_errors

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

CHAMPION = "champion"


@dataclass(frozen=True)
class Registered:
    """A version of a registered model: the folder with `model.json` and its weights, and the tags
    of the version; `run_id` is the run that trained it."""

    name: str
    version: str
    run_id: str
    folder: Path
    tags: Mapping[str, str]


def is_name(text: str) -> bool:
    """Whether it can name a registered model: neither `best`, nor the id of a run, nor a path."""
    return text.startswith("models:/") or not re.search(r"^best$|^[0-9a-f]{32}$|[/\\]|^\.", text)


def fetch(text: str, *, tracking_uri: str | None = None) -> Registered:
    """The version that `models:/NAME/VERSION`, `models:/NAME@ALIAS` or `NAME` names, the last one
    by its alias `champion`, or else its latest.

    Raises `WrongUse` where there is none, or one that `pepr export` did not register, and
    `WorkFailed` where the server does not answer.
    """
    uri = resolved(tracking_uri)
    client = connect(uri, create=False)
    with enduring(), translated_errors(uri):
        found = _version(client, uri, text)
        digest = found.tags.get(DIGEST)
        place, run_id = found.source, found.run_id
        if digest is None or place is None or run_id is None:
            raise WrongUse(
                f"model: version {found.version} of {found.name} was not registered by "
                "`pepr export`; name the run that trained it, or another version"
            )
        source = f"that was registered as version {found.version} of {found.name}"
        remedy = "put the original back, or register the model again"
        folder = folder_of(place)
        if folder is None:
            folder, place = models_folder() / "registered" / digest, f"{place.rstrip('/')}/{EXTRA}"
            model_files.download(uri, place, folder, digest, None, source, remedy)
        else:
            folder = folder / EXTRA
            model_files.check(folder / model_files.FILE, digest, source, remedy)
    return Registered(found.name, str(found.version), run_id, folder, found.tags)


def _version(client: MlflowClient, uri: str, text: str) -> ModelVersion:
    from mlflow.exceptions import MlflowException

    parts = re.fullmatch(r"(?:models:/)?([^/@:]+)(?:/(\d+)|@([\w-]+))?", text)
    if parts is None:
        raise WrongUse(f"model: {text!r} is not NAME, models:/NAME/VERSION or models:/NAME@ALIAS")
    name, version, alias = parts.groups()
    try:
        model = client.get_registered_model(name)
        aliases = {key: str(value) for key, value in model.aliases.items()}
        if alias is not None and alias not in aliases:
            raise WrongUse(
                f"model: {name} has no alias {alias!r}; it has: {', '.join(aliases) or 'none'}"
            )
        version = version or aliases.get(alias or CHAMPION)
        if version is not None:
            return client.get_model_version(name, version)
        latest = list(
            client.search_model_versions(
                f"name = '{name}'", max_results=1, order_by=["version_number DESC"]
            )
        )
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        latest = []
    if not latest:
        names = [one.name for one in client.search_registered_models(max_results=100)]
        raise WrongUse(
            f"model: {address(uri)} has no registered model {text!r}"
            f"{nearest(name, names) or '.'} Give `best`, the id of a run, or the name that "
            "`pepr export --register NAME` gave"
        )
    return latest[0]
