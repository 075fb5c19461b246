"""Shared fixtures: the real test data, and tracking stores that are ready to use."""

from __future__ import annotations

import gc
import http.server
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import settings
from sqlalchemy import Engine, event

if TYPE_CHECKING:
    from databases import Postgres
    from slurm import Slurm

# Small batches gain nothing from more threads, which wait tenfold for each other on a busy machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# The same inputs every time, however slow the machine; `--hypothesis-profile long` searches on.
settings.register_profile("suite", deadline=None, derandomize=True, database=None)
settings.register_profile(
    "long", deadline=None, max_examples=int(os.environ.get("PEPR_FUZZ_EXAMPLES", "10000"))
)
settings.load_profile("suite")


@event.listens_for(Engine, "connect")
def _hasten(connection: object, record: object) -> None:
    """No store of a test outlives the machine: SQLite need not wait for the disk."""
    if isinstance(connection, sqlite3.Connection):
        connection.execute("PRAGMA synchronous = OFF")


# The files whose tests take longest.
LONGEST = (
    *(
        "test_slurm_sweep.py",
        "test_slurm_node.py",
        "test_ray_engine.py",
        "test_sweep.py",
        "test_fault_matrix.py",
        "test_live_page.py",
        "test_tutorial.py",
    ),
    *("test_read.py", "test_mlflow_ui.py", "test_cli.py", "test_lidc_build.py"),
    *("test_fork_server.py", "test_other_systems.py", "test_first_screen.py", "test_project.py"),
    *("test_page.py", "test_run.py", "test_unsent.py", "test_outbox.py", "test_worker.py"),
    *("test_job.py", "test_loop.py", "test_compare.py", "test_frugal.py"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first: one that is begun last is waited for by one process alone."""
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else 99)


def pytest_collection_finish() -> None:
    _freeze()


def pytest_runtest_teardown() -> None:
    if len(sys.modules) > _modules + 100:
        _freeze()


def _freeze() -> None:
    """Every training collects garbage: not again in all that the tests have imported."""
    global _modules
    _modules = len(sys.modules)
    gc.collect()
    gc.freeze()


_modules = 0  # that were imported before


def pytest_unconfigure() -> None:
    gc.unfreeze()  # libraries complain of what is never taken apart


ROOT = Path(__file__).parents[1]
SHARED = Path(os.environ.get("PEPR_TEST_DATA", ROOT.parent / "shared" / "data"))


def needs(path: Path, what: str) -> Path:
    """`path`, or skip for want of it; in CI, which has everything, fail instead.

    PEPR_TEST_DATA=none says that CI has no data; what it can install it still must have.
    """
    if not path.exists():
        message = f"needs {what} at {path}"
        no_data = os.environ.get("PEPR_TEST_DATA") == "none" and not path.is_relative_to("/usr")
        if os.environ.get("CI") and not no_data:
            pytest.fail(message)
        pytest.skip(message)
    return path


@pytest.fixture
def pneumonia_root() -> Path:
    """Folder of PneumoniaMNIST's file of 28-pixel images."""
    return needs(SHARED / "medmnist" / "pneumoniamnist.npz", "PneumoniaMNIST").parent


@pytest.fixture
def real_weights() -> Path:
    """ImageNet weights of tf_efficientnet_lite0."""
    return needs(
        SHARED / "weights" / "tf_efficientnet_lite0.in1k.safetensors", "pretrained weights"
    )


@pytest.fixture
def paper_names() -> Path:
    """The paper's own table of models."""
    return needs(SHARED / "pepr-paper" / "model_names.csv", "the paper's model table")


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test sees the user's MLflow or journals, downloads or waits for idle power."""
    for name in list(os.environ):
        if name.startswith("MLFLOW_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("PEPR_JOURNAL", str(tmp_path / "journal"))
    monkeypatch.setenv("PEPR_CACHE", str(tmp_path / "kept"))
    monkeypatch.setenv("PEPR_IMAGES", str(tmp_path / "prepared"))
    monkeypatch.setattr("pepr_mlops.costs.meters.IDLE_S", 0.05)


@pytest.fixture(scope="session")
def _empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite store whose tables exist: creating them takes seconds."""
    from mlflow import MlflowClient
    from mlflow.store.db import utils

    # MLflow executes the scripts of all its migrations for each store that is opened.
    utils._get_latest_schema_revision = cache(utils._get_latest_schema_revision)

    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def store(_empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """URI of a fresh embedded store in a fresh working folder, set as MLflow's own."""
    import mlflow

    shutil.copy(_empty_store, tmp_path / "mlflow.db")
    monkeypatch.chdir(tmp_path)
    before = mlflow.get_tracking_uri()
    uri = f"sqlite:///{tmp_path}/mlflow.db"  # absolute: MLflow keeps stores open by their URI
    mlflow.set_tracking_uri(uri)
    yield uri
    mlflow.set_tracking_uri(before)


@pytest.fixture
def control_group() -> Iterator[Callable[[str], Path]]:
    """Makes control groups (version 1) of a controller that processes can be put into."""
    made: list[Path] = []

    def make(controller: str) -> Path:
        group = Path("/sys/fs/cgroup") / controller / f"pepr_mlops-tests-{os.getpid()}"
        try:
            group.mkdir()
            made.append(group)
            (group / "cgroup.procs").read_text()
        except OSError:
            pytest.skip(f"needs the right to make a control group of {controller}")
        return group

    yield make
    for group in made:
        for _ in range(100):  # a process that ended may still be in it
            with suppress(OSError):
                group.rmdir()
                break
            time.sleep(0.05)


@pytest.fixture
def shapes(tmp_path: Path) -> Path:
    """A folder of 60 grey PNG images of two classes that any network can tell apart."""
    from PIL import Image

    rng = np.random.default_rng(0)
    root = tmp_path / "shapes"
    for split, n in (("train", 16), ("val", 6), ("test", 8)):
        for label, bright in (("dark", 40), ("light", 200)):
            folder = root / split / label
            folder.mkdir(parents=True)
            for i in range(n):
                pixels = rng.normal(bright, 10, (20, 20)).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{i:02d}.png")
    return root


@pytest.fixture
def downloads(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder, and the address under which this machine serves it."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: object) -> None:
            super().__init__(*args, directory=str(folder))  # type: ignore[arg-type]

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    class Patient(http.server.ThreadingHTTPServer):
        def handle_error(self, *given: object) -> None:
            """Say nothing of a client that has left."""

    with Patient(("127.0.0.1", 0), Quiet) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{listening.server_port}"
        listening.shutdown()


@pytest.fixture(scope="session")
def paper_results() -> Path:
    """Folder of the measurements released with the PePR paper."""
    return needs(SHARED / "pepr-paper" / "all_results.csv", "the paper's results").parent


@pytest.fixture(scope="session")
def paper_store(
    _empty_store: Path, paper_results: Path, tmp_path_factory: pytest.TempPathFactory
) -> str:
    """URI of a store with the paper's 1,048 runs as imported; not to be written to."""
    from made import stored

    from pepr_mlops.imports import pepr_paper

    path = tmp_path_factory.mktemp("paper") / "mlflow.db"
    shutil.copy(_empty_store, path)
    stored(path, pepr_paper.read(paper_results))
    return f"sqlite:///{path}"


@pytest.fixture(scope="session")
def database() -> Iterator[Postgres]:
    """A real PostgreSQL server."""
    from databases import postgres

    with postgres() as found:
        yield found


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    """A real Slurm of two nodes."""
    from slurm import slurm

    with slurm(tmp_path_factory.mktemp("slurm")) as found:
        yield found


@pytest.fixture(scope="session")
def server(_empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of an `mlflow server` on this machine."""
    yield from _serve(_empty_store, tmp_path_factory.mktemp("server"))


@pytest.fixture(scope="session")
def guarded_server(_empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of an `mlflow server` that asks who is there: `admin`, `only-for-tests`."""
    folder = tmp_path_factory.mktemp("guarded")
    yield from _serve(_empty_store, folder, ["--app-name", "basic-auth"], basic_auth(folder))


def basic_auth(folder: Path) -> dict[str, str]:
    """Environment variables of an `mlflow server --app-name basic-auth`."""
    (folder / "auth.ini").write_text(
        "[mlflow]\ndefault_permission = READ\ndatabase_uri = sqlite:///auth.db\n"
        "admin_username = admin\nadmin_password = only-for-tests\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
    )
    return {
        "MLFLOW_AUTH_CONFIG_PATH": str(folder / "auth.ini"),
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "of the tests",
    }


def _serve(
    store: Path, folder: Path, extra: Sequence[str] = (), settings: Mapping[str, str] = {}
) -> Iterator[str]:
    shutil.copy(store, folder / "mlflow.db")
    yield from serve(folder, ["--backend-store-uri", "sqlite:///mlflow.db", *extra], settings)


def serve(
    folder: Path, options: Sequence[str], settings: Mapping[str, str], prefix: str = ""
) -> Iterator[str]:
    """Address of an `mlflow server` with these options and environment variables."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}{prefix}"
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1"]
    command += ["--port", str(port), "--workers", "1", *options]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")}
    environment |= {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", **settings}  # ten processes
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True
        )
        try:
            _wait_until_healthy(address, process, folder / "log")
            yield address
        finally:
            with suppress(ProcessLookupError):  # it did not start
                os.killpg(process.pid, signal.SIGTERM)
            process.wait(timeout=30)


def _wait_until_healthy(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{address}/health", timeout=5):
                return
        except OSError:
            time.sleep(0.3)
    pytest.fail(f"the MLflow server did not start: {log.read_text()[-2000:]}")


@pytest.fixture(params=["sqlite", "http", "client"])
def anywhere(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A store that is read by its tables, over HTTP, and through MLflow's own client."""
    if request.param == "http":
        return str(request.getfixturevalue("server"))
    uri = str(request.getfixturevalue("store"))
    if request.param == "client":
        monkeypatch.setattr("pepr_mlops.tracking.read.tables.KNOWN_SCHEMAS", set())
    return uri


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium."""
    from playwright.sync_api import sync_playwright

    chromium = needs(Path("/usr/bin/chromium"), "a browser")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield started
        started.close()
