"""MLflow experiments, found or created, and whether the server has a run."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from pepr_mlops.errors import WorkFailed
from pepr_mlops.tracking.offline import has_journal, is_journal
from pepr_mlops.tracking.server import connect, impatient, sqlite_path, translated_errors

if TYPE_CHECKING:
    from mlflow import MlflowClient

TAG_LIMIT = 5000  # characters that MLflow takes since 2.0; newer servers take more
_TRAINING_VIEW = {"mlflow.experimentKind": "custom_model_development"}  # what the UI opens with


def prepare(experiments: Iterable[str], tracking_uri: str | None = None) -> None:
    """Create the store and the experiments before several jobs that begin at once use them."""
    with impatient():
        client = connect(tracking_uri)
        with translated_errors(client):
            for name in experiments:
                experiment_id(client, name)


def _artifacts(uri: str, name: str) -> str | None:
    """Where a new experiment's artifacts go: next to a SQLite file with an absolute path, since
    MLflow would put them into the working folder; None leaves it to the server."""
    path = sqlite_path(uri)
    if path is None or not os.path.isabs(path):
        return None
    readable = re.sub(r"[^\w-]+", "_", name, flags=re.ASCII)[:60]
    digest = hashlib.blake2b(name.encode(), digest_size=4).hexdigest()
    return str(Path(path).parent / "mlruns" / f"{readable}-{digest}")


def has_run(name: str, tracking_uri: str | None = None, *, offline: bool = False) -> bool:
    """Whether the server has the run with the `name` of `tracking.Run` and it was not deleted;
    `offline` asks for its journal on this disk instead."""
    from mlflow.exceptions import MlflowException

    if offline or is_journal(name):
        return offline and has_journal(name)
    client = connect(tracking_uri)
    with translated_errors(client):
        try:
            return bool(client.get_run(name).info.lifecycle_stage == "active")
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return False


def experiment_id(client: MlflowClient, name: str) -> str:
    """Id of the MLflow experiment `name`, created when absent, also by another job meanwhile."""
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            where = _artifacts(str(client.tracking_uri), name)
            return str(client.create_experiment(name, where, _TRAINING_VIEW))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            found = client.get_experiment_by_name(name)
    if found is None or found.lifecycle_stage != "active":
        raise WorkFailed(
            f"experiment: {name!r} is deleted on this tracking server; restore it "
            "(mlflow experiments restore) or name another with experiment"
        )
    return str(found.experiment_id)
