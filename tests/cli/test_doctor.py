"""`pepr doctor` on servers that work and that do not, and what it says of sensors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from mlflow import MlflowClient

from pepr_mlops.cli.doctor import command
from pepr_mlops.tracking.journal import Journal


def _doctor(*words: str) -> tuple[int, dict[tuple[str, str], dict[str, Any]], str]:
    """Exit status, checks by part and name, and the complete output."""
    result = CliRunner().invoke(command, [*words, "--format", "json"], standalone_mode=False)
    assert result.exception is None, result.output
    checks = json.loads(result.stdout)["checks"]
    return result.return_value, {(f["part"], f["what"]): f for f in checks}, result.stdout


def test_a_store_that_works_is_written_to_and_left_as_it_was(store: str, tmp_path: Path) -> None:
    for _ in range(2):
        status, found, _ = _doctor()
        assert status == 0
        assert [found["tracking", what]["state"] for what in ("server", "runs", "artifacts")] == [
            "ok",
            "ok",
            "ok",
        ]
        assert "schema" in found["tracking", "server"]["found"]
    experiments = MlflowClient().search_experiments()
    assert [e.name for e in experiments] == ["Default"]
    assert MlflowClient().search_runs([e.experiment_id for e in experiments]) == []
    assert not [path for path in (tmp_path / "mlruns").rglob("*") if path.is_file()]


def test_a_real_server_says_its_version_and_no_password(
    store: str, guarded_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "admin")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "only-for-tests")
    status, found, text = _doctor("--tracking-uri", guarded_server)
    assert status == 0
    assert found["tracking", "server"]["found"] == f"{guarded_server}: MLflow {mlflow.__version__}"
    assert found["tracking", "artifacts"]["state"] == "ok"
    assert "only-for-tests" not in text
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "a wrong one of the tests")
    status, found, text = _doctor("--tracking-uri", guarded_server)
    assert (status, found["tracking", "server"]["state"]) == (1, "fails")
    assert "a wrong one" not in text


def test_artifacts_that_cannot_be_written_fail_alone(store: str, tmp_path: Path) -> None:
    blocked = tmp_path / "mlruns"  # where the artifacts of this store go
    blocked.write_text("")
    status, found, _ = _doctor()
    assert status == 1
    assert found["tracking", "runs"]["state"] == "ok"
    artifacts = found["tracking", "artifacts"]
    assert artifacts["state"] == "fails"
    assert "Not a directory" in artifacts["found"]
    assert str(blocked) in artifacts["remedy"]


def test_no_secret_of_an_artifact_store_is_shown(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = (tmp_path / "store").as_uri() + "/sig?password=only-for-tests"

    def elsewhere(client: MlflowClient, name: str) -> str:
        return str(client.create_experiment(name, place))

    monkeypatch.setattr("pepr_mlops.tracking.doctor.experiment_id", elsewhere)
    _, found, text = _doctor()
    assert found["tracking", "artifacts"]["found"].startswith("can be written to file:")
    assert "only-for-tests" not in text


def test_a_store_of_files_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    status, found, _ = _doctor("--tracking-uri", (tmp_path / "runs").as_uri())
    assert (status, found["tracking", "artifacts"]["state"]) == (0, "ok")


def test_a_server_that_is_away_fails_and_the_rest_is_checked(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    status, found, _ = _doctor("--tracking-uri", "http://127.0.0.1:9")
    assert (status, found["tracking", "server"]["state"]) == (1, "fails")
    assert found["machine", "CPU"]["state"] == "ok"
    assert "free" in {what for _, what in found}


def test_a_store_that_does_not_exist_is_not_created(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    status, found, _ = _doctor("--tracking-uri", f"sqlite:///{tmp_path}/none.db")
    assert (status, found["tracking", "store"]["state"]) == (0, "note")
    assert not (tmp_path / "none.db").exists()


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("sqlite:////proc/nodir/m.db", "/proc/nodir is missing or cannot be written"),
        ("postgresql://u:p@127.0.0.1:9/x", "Connection refused"),
        ("sqlite:///notes.txt", "file is not a database"),
        ("htp://127.0.0.1:9", "htp"),
    ],
)
def test_an_address_where_nothing_can_be_logged_fails(uri: str, says: str, store: str) -> None:
    Path("notes.txt").write_text("not a database, but long enough to be taken for one" * 20)
    status, found, _ = _doctor("--tracking-uri", uri)
    (tracked,) = [check for (part, _), check in found.items() if part == "tracking"]
    assert (status, tracked["state"]) == (1, "fails")
    assert says in tracked["found"]
    assert not tracked["found"].startswith("tracking:")


def test_caches_have_their_sizes_and_waiting_runs_their_remedy(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PEPR_CHECKPOINTS", str(tmp_path / "checkpoints"))
    (tmp_path / "checkpoints" / "a").mkdir(parents=True)
    (tmp_path / "checkpoints" / "a" / "state").write_bytes(b"0" * 2_500_000)
    at_work = Journal.create({"uri": "x"})
    _, found, _ = _doctor()
    assert ("tracking", "journals") not in found
    at_work.release()  # its process has ended
    _, found, _ = _doctor()
    assert found["caches", "checkpoints"]["found"] == f"2.5 MB in {tmp_path}/checkpoints"
    assert found["tracking", "journals"]["remedy"] == "pepr sync"
    assert found["tracking", "journals"]["found"].startswith("1 run that has ended ")
