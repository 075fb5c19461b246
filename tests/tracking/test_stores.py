"""Runs on the stores that groups have: databases that several jobs share, and a server in front of
PostgreSQL and S3 that requires a login."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa
from conftest import basic_auth, serve
from databases import MariaDb, Postgres, mariadb
from made import PREDICTIONS
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.server.auth.client import AuthServiceClient
from sqlalchemy.exc import OperationalError

from pepr_mlops import tracking
from pepr_mlops.errors import Claimed
from pepr_mlops.tracking import journal, outbox, ownership, read, server
from pepr_mlops.tracking.server import connect


@pytest.fixture(scope="module")
def other_database() -> Iterator[MariaDb]:
    with mariadb() as found:
        yield found


@pytest.fixture
def colleague(guarded_server: str, store: str, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """This process is a user who may edit an experiment but not delete from it: its id, and that
    of a finished run in it."""
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "admin")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "only-for-tests")
    first = tracking.Attempt("ab", exclusive=True)
    with tracking.start("shared", "shared", "first", guarded_server, first) as run:
        pass
    users = AuthServiceClient(guarded_server)
    users.create_user("colleague", "also-for-tests")
    users.grant_user_permission("colleague", "experiment", run.experiment_id, "EDIT")
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "colleague")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "also-for-tests")
    return run.experiment_id, run.run_id


def test_a_user_who_may_not_delete_gives_way_all_the_same(
    guarded_server: str, colleague: tuple[str, str]
) -> None:
    experiment, finished = colleague

    def work(spec: str) -> None:
        job = tracking.Attempt(spec, exclusive=True)
        with tracking.start("shared", "shared", spec, guarded_server, job) as run:
            run.log({"test/accuracy": 0.5}, 1)
            run.spec({"model": "x"})

    work("cd")
    with pytest.raises(Claimed, match=finished):
        work("ab")
    runs = MlflowClient(guarded_server).search_runs([experiment])
    ended = {r.info.run_name: (r.info.status, r.data.tags.get("pepr.reason")) for r in runs}
    assert ended == {
        "first": ("FINISHED", None),
        "cd": ("FINISHED", None),
        "ab": ("KILLED", "claimed"),
    }


_OPENS = "import sys; from pepr_mlops import tracking; tracking.reach(sys.argv[1])"
_MAKES = "import sys; from pepr_mlops import tracking; tracking.prepare(['e'], sys.argv[1])"


@pytest.mark.parametrize("program", [_OPENS, _MAKES])
def test_ctrl_c_while_a_store_is_made_does_not_leave_it_half_made(
    program: str, tmp_path: Path
) -> None:
    """A terminal sends it to all processes of the command."""
    path = tmp_path / "mlflow.db"
    command = [sys.executable, "-c", program, f"sqlite:///{path}"]
    quiet = subprocess.DEVNULL
    with subprocess.Popen(command, stdout=quiet, stderr=quiet, start_new_session=True) as process:
        deadline = time.monotonic() + 60
        while not path.exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(0.2)
        os.killpg(process.pid, signal.SIGINT)
    assert process.returncode != 0
    names = [e.name for e in connect(f"sqlite:///{path}").search_experiments()]
    assert "Default" in names


def _job(uri: str, number: int) -> None:
    with tracking.start("e", "e", f"job {number}", uri, tracking.Attempt(f"{number:04d}")) as run:
        run.log({"test/accuracy": number / 10}, 1)


@pytest.mark.parametrize("server", ["database", "other_database"])
def test_jobs_that_begin_at_once_on_an_empty_database_all_succeed(
    server: str, request: pytest.FixtureRequest
) -> None:
    uri = request.getfixturevalue(server).create("empty")
    context = multiprocessing.get_context("fork")
    jobs = [context.Process(target=_job, args=(uri, number)) for number in range(6)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    assert [job.exitcode for job in jobs] == [0] * 6
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("e")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    assert {(r.info.status, r.data.metrics["test/accuracy"]) for r in runs} == {
        ("FINISHED", number / 10) for number in range(6)
    }


def test_a_database_that_restarts_loses_nothing_and_prints_no_traceback(
    database: Postgres, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(outbox, "_PAUSES_S", (0.1,))
    monkeypatch.setattr(ownership, "HEARTBEAT_S", 0.1)
    uri, notes = database.create("restarts"), list[str]()
    with tracking.start("e", "e", "n", uri, tracking.Attempt("01"), note=notes.append) as run:
        run.log({"test/accuracy": 0.1}, 1)
        capfd.readouterr()  # what MLflow prints about new tables
        database.stop()
        try:
            run.log({"test/accuracy": 0.2}, 2)
            time.sleep(0.5)  # for the heartbeat, too, to meet with no server
        finally:
            database.start()
        run.log({"test/accuracy": 0.3}, 3)
    client = MlflowClient(uri)
    history = client.get_metric_history(run.run_id, "test/accuracy")
    assert [(p.step, p.value) for p in history] == [(1, 0.1), (2, 0.2), (3, 0.3)]
    assert client.get_run(run.run_id).info.status == "FINISHED"
    assert ["does not answer" in notes[0], "answers again" in notes[1]] == [True, True]
    assert capfd.readouterr() == ("", "")


@pytest.fixture
def full_stack(
    database: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """Address of an `mlflow server` with a prefix, basic authentication, PostgreSQL and S3."""
    import boto3
    from moto.server import ThreadedMotoServer

    cloud = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    cloud.start()
    host, port = cloud.get_host_and_port()
    keys = {"AWS_ACCESS_KEY_ID": "of the tests", "AWS_SECRET_ACCESS_KEY": "of the tests"}
    region, endpoint = {"AWS_DEFAULT_REGION": "eu-north-1"}, f"http://{host}:{port}"
    client = boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="eu-north-1",
        aws_access_key_id="of the tests",
        aws_secret_access_key="of the tests",
    )
    with suppress(client.exceptions.BucketAlreadyOwnedByYou):  # a slow answer is requested twice
        client.create_bucket(
            Bucket="artifacts", CreateBucketConfiguration={"LocationConstraint": "eu-north-1"}
        )
    options = ["--app-name", "basic-auth", "--static-prefix", "/team"]
    options += ["--backend-store-uri", database.create("stack")]
    options += ["--artifacts-destination", "s3://artifacts/pepr"]
    settings = {**basic_auth(tmp_path), **keys, **region, "MLFLOW_S3_ENDPOINT_URL": endpoint}
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "admin")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "only-for-tests")
    try:
        yield from serve(tmp_path, options, settings, prefix="/team")
    finally:
        cloud.stop()


def test_a_guarded_server_with_a_prefix_postgresql_and_s3_has_everything(
    full_stack: str, store: str, tmp_path: Path
) -> None:
    with tracking.start("e", "e", "n", full_stack, tracking.Attempt("01")) as run:
        run.params({"model": "resnet18d", "dataset": "digits"})
        run.log({"test/accuracy": 0.5}, 1)
        run.tag({"pepr.experiment": "e"})
        run.predictions(PREDICTIONS)
    assert not list(journal.home().iterdir())
    (row,) = read.load_runs("e", tracking_uri=full_stack).to_dict("records")
    assert (row["run_id"], row["model"], row["status"]) == (run.run_id, "resnet18d", "FINISHED")
    assert tracking.address_of(run) == f"{full_stack}/#/experiments/1/runs/{run.run_id}"
    uri = f"runs:/{run.run_id}/predictions.npz"
    path = download_artifacts(uri, dst_path=str(tmp_path), tracking_uri=full_stack)
    with np.load(path) as loaded:
        assert loaded["probabilities"].tolist() == PREDICTIONS.test.probabilities.tolist()


def test_a_database_that_has_no_connection_left_for_a_moment_is_opened(
    database: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = database.create("crowded").replace("mlflow@", "clinic@")
    database.ask("CREATE ROLE clinic LOGIN CONNECTION LIMIT 1")  # none holds for a superuser

    def opens() -> None:
        with server._one_at_a_time(uri):
            pass

    other = sa.create_engine(uri, poolclass=sa.NullPool).connect()
    with monkeypatch.context() as patched:
        patched.setattr(server, "_CONNECT_S", 0.0)
        with pytest.raises(OperationalError, match="too many connections"):
            opens()
    threading.Timer(1.0, other.close).start()
    opens()
