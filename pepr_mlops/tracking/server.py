"""Connections to a tracking server, and its errors in one line: for reading and for writing."""

from __future__ import annotations

import hashlib
import logging
import os
import random
import re
import socket
import ssl
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from pepr_mlops.errors import WorkFailed, WrongUse
from pepr_mlops.process import uninterrupted
from pepr_mlops.text import address, secrets, without_password

if TYPE_CHECKING:
    from filelock import FileLock
    from mlflow import MlflowClient

_SECRETS = ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "DATABRICKS_TOKEN")
_DATABASES = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}  # and their ports
_KNOCK_S = 5.0
_SQLITE = b"SQLite format 3\0"  # how a file begins: www.sqlite.org/fileformat.html
# Each returns true to the one that gets the lock. PostgreSQL's ends with its transaction, so that
# it holds behind PgBouncer; MySQL's has a name of 64 characters at most.
_LOCKS = {
    "postgresql": "SELECT pg_try_advisory_xact_lock(7049302871)",
    "mysql": "SELECT GET_LOCK(SHA1(CONCAT('pepr_mlops ', DATABASE())), 0)",
}
_LOCK_S, _CONNECT_S = 600.0, 10.0
# How the errors of MLflow, urllib3 and requests write the status of an HTTP answer.
_STATUS = re.compile(
    r"failed with error code (\d{3})|too many (\d{3}) error responses|^(\d{3}) [A-Z]\w+ Error: "
)
_NO_JSON = "the response body was not in a valid JSON format"
_NETWORK = (ConnectionError, TimeoutError, socket.gaierror, ssl.SSLError)
_CHECK = "check the tracking URI (MLFLOW_TRACKING_URI or --tracking-uri) and that the server runs"
_SIGN_IN = "check the user and password (MLFLOW_TRACKING_USERNAME, MLFLOW_TRACKING_PASSWORD)"
_opened: set[str] = set()  # databases that this process has opened
_OURS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",  # of a single file
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # results go there, and say where to look
}


def impatient() -> AbstractContextManager[None]:
    """Give up a server that does not answer after seconds instead of MLflow's minutes."""
    return _environment({**_OURS, "MLFLOW_HTTP_REQUEST_TIMEOUT": "5"})


def enduring() -> AbstractContextManager[None]:
    """Let a server be slow, but report one that is away: the caller tries again."""
    return _environment({**_OURS, "MLFLOW_HTTP_REQUEST_TIMEOUT": "60"})


@contextmanager
def _environment(settings: Mapping[str, str]) -> Iterator[None]:
    """Add what is not set yet."""
    added = {k: v for k, v in settings.items() if k not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for key in added:
            os.environ.pop(key, None)  # another thread may have been here


def resolved(tracking_uri: str | None) -> str:
    """The tracking URI, MLflow's own if None."""
    if tracking_uri:
        return tracking_uri
    if "mlflow" in sys.modules:  # where `mlflow.set_tracking_uri` may have been called
        import mlflow

        return str(mlflow.get_tracking_uri())
    return os.environ.get("MLFLOW_TRACKING_URI") or _default()


def _default() -> str:
    """MLflow's own choice where nobody names a store, without its import, which takes seconds."""
    runs = Path("mlruns").absolute()
    with suppress(OSError):
        for entry in os.scandir(runs):
            described = os.path.lexists(os.path.join(entry.path, "meta.yaml"))
            if entry.name.isdigit() and entry.is_dir() and described:
                return runs.as_uri()
    return f"sqlite:///{quote(os.path.abspath('mlflow.db'))}"


def sqlite_path(uri: str) -> str | None:
    """The file of a SQLite database, None of one in memory and of all that is no SQLite."""
    from sqlalchemy import make_url

    if not uri.startswith("sqlite:///"):
        return None
    path = make_url(uri).database
    return None if path in (None, "", ":memory:") else path


def store_can_be_made(tracking_uri: str | None) -> bool:
    """Whether a SQLite file that does not exist yet has a folder to be made in."""
    path = sqlite_path(resolved(tracking_uri))
    return path is not None and Path(path).absolute().parent.is_dir()


def existing(uri: str) -> str:
    """An address of the same store that does not create a missing SQLite file.

    The slashes of the path are escaped: MLflow would make its folders.
    """
    from sqlalchemy import make_url

    path = sqlite_path(uri)
    if path is None:
        return uri
    url = make_url(uri).set(database=f"file:{quote(os.path.abspath(path), safe='')}")
    return url.update_query_dict({"mode": "rw", "uri": "true"}).render_as_string()


def connect(tracking_uri: str | None, *, create: bool = True) -> MlflowClient:
    """A client of the tracking server; with `create` a missing SQLite store is made.

    Raises `WorkFailed` where the server cannot be reached.
    """
    from mlflow import MlflowClient

    uri = resolved(tracking_uri)
    with opening(uri), _one_at_a_time(uri):
        return MlflowClient(tracking_uri if create else existing(uri))


def reach(tracking_uri: str | None = None) -> MlflowClient:
    """A client of a server that has answered; a new store is made.

    Raises `WorkFailed` within seconds where the server does not answer.
    """
    with impatient():
        client = connect(tracking_uri)
        with translated_errors(client):
            client.search_experiments(max_results=1)
    return client


def all_pages(search: Callable[..., Any], *arguments: Any, **options: Any) -> Iterator[Any]:
    """What a search of MLflow's client finds, over all pages."""
    token = None
    while True:
        page = search(*arguments, page_token=token, **options)
        yield from page
        token = page.token
        if not token:
            return


def experiment_names(client: MlflowClient) -> dict[str, str]:
    """Name of every active experiment by its id."""
    found = all_pages(client.search_experiments, max_results=1000)
    return {experiment.experiment_id: experiment.name for experiment in found}


@contextmanager
def opening(uri: str) -> Iterator[None]:
    """Errors on opening a store in one line. Raises `WorkFailed` and `WrongUse`."""
    with translated_errors(uri):
        try:
            _knock(uri)
            if uri.lower().startswith("http"):
                _ = urlsplit(uri).port
            yield
        except ValueError as error:
            raise WrongUse(
                f"tracking: {address(uri)} is not the address of a server or database "
                f"({without_password(str(error), *secrets(uri))}); escape @ : / ? # % in a "
                "password, such as %40 for @"
            ) from error
        except ImportError as error:
            raise WrongUse(
                f"tracking: the driver of this database is not installed ({error}); for "
                "PostgreSQL `pip install psycopg[binary]`, for MariaDB and MySQL `pip install "
                "pymysql` and an address that begins with mysql+pymysql://"
            ) from error


def _knock(uri: str) -> None:
    """Raise `OSError` where no database listens, or the file is none: MLflow tries for minutes."""
    if (path := sqlite_path(uri)) is not None and Path(path).is_file():
        with open(path, "rb") as file:
            begin = file.read(len(_SQLITE))
        if begin and begin != _SQLITE:
            raise OSError("file is not a database")
    kind = uri.partition(":")[0].partition("+")[0]
    if kind not in _DATABASES:
        return
    from sqlalchemy import make_url

    url = make_url(uri)
    if url.host is not None and not {"unix_socket", "host"} & url.query.keys():
        socket.create_connection((url.host, url.port or _DATABASES[kind]), _KNOCK_S).close()


@contextmanager
def _one_at_a_time(uri: str) -> Iterator[None]:
    """Open a store while no other process opens it, by a lock that all share.

    The first one makes the tables, and of several at once MLflow lets all but one crash. A signal
    waits until they are made: no later process could use half of them.
    """
    kind = uri.partition(":")[0].partition("+")[0]
    if kind == "sqlite":
        with _file_lock(os.path.abspath(sqlite_path(uri) or uri)), uninterrupted():
            yield
    elif kind in _LOCKS and uri not in _opened:
        with _database_lock(uri, _LOCKS[kind]), uninterrupted():
            yield
        _opened.add(uri)
    else:
        yield


def _file_lock(path: str) -> FileLock:
    import psutil
    from filelock import FileLock

    user = psutil.Process().username()  # a number where the user has no name, as in containers
    name = hashlib.blake2b(f"{user} {path}".encode(), digest_size=8).hexdigest()
    return FileLock(Path(tempfile.gettempdir()) / f"pepr_mlops-store-{name}.lock")


@contextmanager
def _database_lock(uri: str, statement: str) -> Iterator[None]:
    """Hold a lock of the database itself, which jobs on other machines see too.

    A process that waits for it holds no connection: the owner may need the last ones.
    """
    from sqlalchemy import NullPool, create_engine, text
    from sqlalchemy.exc import OperationalError

    engine, began_s = create_engine(uri, poolclass=NullPool), time.monotonic()
    while time.monotonic() - began_s < _LOCK_S:
        with ExitStack() as lock:
            try:
                connection = lock.enter_context(engine.begin())
                mine = connection.execute(text(statement)).scalar()
            except OperationalError:  # of many that begin at once some find no connection left
                if time.monotonic() - began_s > _CONNECT_S:
                    raise
                mine = False
            if mine:
                yield
                return
        time.sleep(random.uniform(0.1, 0.5))
    raise TimeoutError(f"another process has been opening this database for {_LOCK_S:g} s")


def cause_of(error: BaseException, *known: str) -> str:
    """Why a server failed, without the secrets `known` and without the page that it sent: the
    status of its answer, what the network says, or the error in 300 characters."""
    if (status := _http_status(error)) is not None:
        return f"HTTP status {status}{_phrase(status)}"
    if (network := _network_error(error)) is not None:
        if isinstance(network, socket.gaierror):
            return "the name of the host is not known"
        return without_password(network.strerror or str(network), *known)
    text = " ".join(without_password(str(error) or type(error).__name__, *known).split())
    if _NO_JSON in text:
        return "its answer is not that of an MLflow server"
    return text if len(text) <= 300 else f"{text[:100]} … {text[-200:]}"  # the end has the cause


def nobody_listens(error: BaseException) -> bool:
    """Whether there is no such host, or no program that takes connections at its port."""
    return isinstance(_network_error(error), ConnectionRefusedError | socket.gaierror)


def _http_status(error: BaseException) -> int | None:
    """The status of an answer that is a page and no message of MLflow."""
    found = _STATUS.search(str(error))
    return None if found is None else int(next(filter(None, found.groups())))


def _phrase(status: int) -> str:
    known = {one.value: f" {one.phrase}" for one in HTTPStatus}
    return known.get(status, "")


def _network_error(error: BaseException | None) -> OSError | None:
    """The error of the network that an error comes from."""
    found = None
    while error is not None:
        found = error if isinstance(error, _NETWORK) else found
        error = error.__cause__ or error.__context__
    return found


def _refusals() -> tuple[type[Exception], ...]:
    """Errors of a server or database. A module that is not imported yet raises none."""
    known = {"mlflow.exceptions": "MlflowException", "sqlalchemy.exc": "SQLAlchemyError"}
    loaded = [getattr(sys.modules[m], name) for m, name in known.items() if m in sys.modules]
    return OSError, *loaded


@contextmanager
def translated_errors(server: str | MlflowClient) -> Iterator[None]:
    """Raise MLflow's errors of this server as a `WorkFailed` in one line without a password.

    Passwords are also removed from what MLflow logs meanwhile. What it logs of a database, such as
    the traceback of an error, is suppressed. `server` is a client or a tracking URI.
    """
    uri = server if isinstance(server, str) else str(server.tracking_uri)
    known = secrets(uri, *(os.environ.get(name, "") for name in _SECRETS))

    def redact(record: logging.LogRecord) -> bool:
        record.msg, record.args = without_password(record.getMessage(), *known), ()
        needless = record.exc_info or record.levelno <= logging.INFO
        return not (record.name == "mlflow.store.db.utils" and needless)

    handlers = logging.getLogger("mlflow").handlers
    silent = {} if address(uri) == uri else {"MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true"}
    try:
        for handler in handlers:
            handler.addFilter(redact)
        with _environment(silent):
            yield
    except _refusals() as error:
        remedy = _SIGN_IN if _http_status(error) in (401, 403) else _CHECK
        raise WorkFailed(
            f"tracking: {address(uri)} refused or did not answer ({cause_of(error, *known)}); "
            f"{remedy}",
            reason="tracking",
        ) from error
    finally:
        for handler in handlers:
            handler.removeFilter(redact)
