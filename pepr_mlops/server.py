"""What the reader and the writer of MLflow both need of a tracking server."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pepr_mlops.errors import WorkFailed, WrongUse

if TYPE_CHECKING:
    from mlflow import MlflowClient

_IMPATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "5"}
_ENDURANCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "60"}


@contextmanager
def impatient() -> Iterator[None]:
    """Give up a server that does not answer after seconds instead of MLflow's minutes."""
    with _settings(_IMPATIENCE):
        yield


@contextmanager
def enduring() -> Iterator[None]:
    """Let a server be slow, and be told of one that is away, to try again oneself."""
    with _settings(_ENDURANCE):
        yield


@contextmanager
def _settings(wanted: dict[str, str]) -> Iterator[None]:
    """MLflow's settings, but for those the user has set."""
    added = {k: v for k, v in wanted.items() if k not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for key in added:
            os.environ.pop(key, None)  # another thread may have been here


def resolved(tracking_uri: str | None) -> str:
    """The tracking URI, MLflow's own if None."""
    import mlflow

    return tracking_uri or str(mlflow.get_tracking_uri())


def connect(tracking_uri: str | None) -> MlflowClient:
    """A client of the tracking server. Raises `WorkFailed` where it cannot be reached."""
    from mlflow import MlflowClient

    with told(tracking_uri or "the default store"), _one_at_a_time(resolved(tracking_uri)):
        try:
            return MlflowClient(tracking_uri)
        except ImportError as error:
            raise WrongUse(
                f"tracking: the driver of this database is not installed ({error}); for "
                "PostgreSQL `pip install psycopg[binary]`"
            ) from error


@contextmanager
def _one_at_a_time(uri: str) -> Iterator[None]:
    """Open an embedded SQLite store after another process has.

    The first one makes its tables, and of several at once MLflow lets all but one crash.
    """
    if not uri.startswith("sqlite:"):
        yield
        return
    import psutil
    from filelock import FileLock

    path = os.path.abspath(uri.removeprefix("sqlite:///"))
    user = psutil.Process().username()  # a number where the user has no name, as in containers
    name = hashlib.blake2b(f"{user} {path}".encode(), digest_size=8).hexdigest()
    with FileLock(Path(tempfile.gettempdir()) / f"pepr_mlops-store-{name}.lock"):
        yield


@contextmanager
def told(uri: str) -> Iterator[None]:
    """MLflow's errors of this server as one line."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, OSError, SQLAlchemyError) as error:
        raise WorkFailed(
            without_password(
                f"tracking: {uri} refused or did not answer ({str(error)[:300]}); check the "
                "tracking URI (MLFLOW_TRACKING_URI or --tracking-uri) and that the server runs"
            ),
            reason="tracking",
        ) from error


def without_password(text: str) -> str:
    """The text without the user and password of the addresses in it."""
    return re.sub(r"://[^/@\s]+@", "://", text)
