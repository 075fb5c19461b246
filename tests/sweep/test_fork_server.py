"""Tasks forked from a process that has loaded everything, as if each had loaded it itself."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import psutil
import pytest

from pepr_mlops.costs.memory import can_list_pages
from pepr_mlops.spec import Job
from pepr_mlops.sweep import local_engine
from pepr_mlops.sweep.engine import Report, Task
from pepr_mlops.sweep.local_engine import LocalEngine

pytestmark = pytest.mark.skipif(not can_list_pages(), reason="needs Linux")


def _work(task: Task, say: Callable[[str], None]) -> Report:
    """Report the state in which it began; the name of the model says how it ends."""
    loaded = sorted({"torch", "timm", "mlflow"} & {*sys.modules})
    resident = psutil.Process().memory_info().rss / psutil.Process(os.getppid()).memory_info().rss
    if task.spec.model == "waits":
        threading.Event().wait(600)
    import torch

    weights = torch.ones(300, 300, requires_grad=True)
    (weights @ weights).sum().backward()
    assert weights.grad is not None
    found = {
        "pid": os.getpid(),
        "parent": os.getppid(),
        "loaded": loaded,
        "resident": resident,
        "threads": sorted(t.read_text() for t in Path(f"/proc/{os.getppid()}/task").glob("*/comm")),
        "cuda_is_lost": torch.cuda._is_in_bad_fork(),
        "torch_threads": torch.get_num_threads(),
        "gradient": float(weights.grad[0, 0]),
        "temporary": tempfile.gettempdir(),
        "gpu": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "hidden": os.environ.get("PEPR_HIDDEN"),
        "path": os.environ.get("PYTHONPATH"),
        "ignores_hangup": signal.getsignal(signal.SIGHUP) == signal.SIG_IGN,
    }
    return Report(task.spec, "finished", json.dumps(found))


@pytest.fixture(scope="module")
def _first_engine() -> Iterator[None]:
    """Stop the fork server of other tests, so that the engine starts its own."""
    forkserver._forkserver._stop()
    local_engine._served = None
    yield
    forkserver._forkserver._stop()
    local_engine._served = None


@pytest.fixture(scope="module")
def engine(_first_engine: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalEngine]:
    """One for all tests: its fork server imports for ten seconds."""
    slots = [{"CUDA_VISIBLE_DEVICES": "7"}]
    logs = tmp_path_factory.mktemp("logs")
    engine = LocalEngine(_work, slots, logs, ["mlflow", "pepr_mlops.sweep.fork_server"])
    yield engine
    engine.close()


def _done(engine: LocalEngine, model: str = "a") -> Report:
    engine.submit(Task(Job(model=model, data_digest="0")))
    (report,) = engine.poll(120)
    return report


def test_a_forked_task_begins_like_one_that_imports_everything_itself(
    engine: LocalEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = json.loads(_done(engine).error or "")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("PEPR_HIDDEN", "seen")
    second = json.loads(_done(engine).error or "")
    assert len({first["pid"], second["pid"], first["parent"], os.getpid()}) == 4
    assert first["parent"] == second["parent"]
    assert first["loaded"] == ["mlflow", "timm", "torch"]
    # Any other would be lost by the fork, with the locks it holds; pyarrow's jemalloc expects that.
    assert {*first["threads"]} - {"jemalloc_bg_thd\n"} == {"python\n"}
    assert len(first["threads"]) <= 2
    assert not first["cuda_is_lost"]
    assert first["ignores_hangup"] == (signal.getsignal(signal.SIGHUP) is signal.SIG_IGN)
    # Without the pages of libraries it would begin with three fifths of it.
    assert 0.98 < first["resident"] < 1.1
    assert 0.98 < second["resident"] < 1.1
    assert (first["hidden"], second["hidden"]) == (None, "seen")
    assert second["temporary"] == str(tmp_path / "elsewhere")
    assert first["gpu"] == "7"


def test_a_signal_to_the_process_group_ends_tasks_and_not_the_fork_server(
    engine: LocalEngine,
) -> None:
    parent = json.loads(_done(engine).error or "")["parent"]
    assert parent != os.getpid()
    engine.submit(Task(Job(model="waits", data_digest="0")))
    assert engine.poll(0.5) == []
    psutil.Process(parent).terminate()
    engine.stop()
    (report,) = engine.poll(60)
    assert (report.reason, report.error) == ("lost", "its process was killed by SIGTERM")
    assert json.loads(_done(engine).error or "")["parent"] == parent


def test_an_engine_that_needs_other_modules_spawns_its_tasks(
    engine: LocalEngine, tmp_path: Path
) -> None:
    assert json.loads(_done(engine).error or "")["parent"] != os.getpid()
    other = LocalEngine(_work, [{}], tmp_path / "logs", ["json"])
    assert json.loads(_done(other).error or "")["parent"] == os.getpid()
    other.close()


_ALONE = """
import signal, sys
from pathlib import Path
from pepr_mlops.spec import Job
from pepr_mlops.sweep.local_engine import LocalEngine
from pepr_mlops.sweep.engine import Task
from test_fork_server import _work

if __name__ == "__main__":
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    engine = LocalEngine(_work, [{}], Path(sys.argv[1]) / "logs", sys.argv[2:])
    engine.submit(Task(Job(model="a", data_digest="0")))
    print(engine.poll(120)[0].error)
"""


def _path() -> str:
    found = [str(Path(__file__).parent), os.environ.get("PYTHONPATH")]
    return os.pathsep.join(filter(None, found))


def _alone(folder: Path, *preload: str) -> tuple[dict[str, Any], str]:
    """The report of a task in a separate sweep with two threads, and what else is printed."""
    script = folder / "code" / "alone.py"
    script.parent.mkdir()
    script.write_text(_ALONE)
    (script.parent / "broken.py").write_text("raise RuntimeError('no')")
    (folder / "timm.py").write_text("raise RuntimeError('of the working folder')")
    hidden = {"CI", "PYTEST_CURRENT_TEST"}  # MLflow does less where it sees them
    done = subprocess.run(
        [sys.executable, str(script), str(folder), *preload],
        env={name: value for name, value in os.environ.items() if name not in hidden}
        | {"PYTHONPATH": _path(), "OMP_NUM_THREADS": "2"},
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout), done.stderr


def test_a_fork_server_imports_like_its_sweep_and_ends_with_it_silently(
    tmp_path: Path,
) -> None:
    found, printed = _alone(tmp_path, "mlflow", "pepr_mlops.sweep.fork_server")
    assert printed == ""
    assert found["loaded"] == ["mlflow", "timm", "torch"]
    assert 0.98 < found["resident"] < 1.1
    assert found["torch_threads"] == 2  # no thread is lost by the fork:
    assert found["gradient"] == 600  # of the sum of W·W: a column's and a row's sum, of ones
    assert found["path"] == _path()
    assert found["ignores_hangup"]
    with suppress(psutil.NoSuchProcess):
        server = psutil.Process(found["parent"])
        psutil.wait_procs([server], timeout=30)
        assert server.status() == psutil.STATUS_ZOMBIE  # nobody may be there to wait for it


def test_each_task_imports_by_itself_where_the_fork_server_fails(tmp_path: Path) -> None:
    found, printed = _alone(tmp_path, "broken")
    assert "RuntimeError: no" in printed
    assert found["gradient"] == 600


def test_jobs_are_forked_with_the_store_they_log_to_and_no_other() -> None:
    from pepr_mlops.sweep.sweep import (
        preloaded,  # not for the tasks above, whose memory is measured
    )

    sql = "mlflow.store.tracking.sqlalchemy_store"
    for uri in ("sqlite:///mlflow.db", "postgresql://a@b/c", "mysql+pymysql://a@b/c"):
        assert preloaded(uri) == [sql, "pepr_mlops.sweep.fork_server"]
    for uri in ("http://localhost:5000", "HTTPS://host", "databricks", "./mlruns", "file:/a"):
        assert preloaded(uri) == ["mlflow", "pepr_mlops.sweep.fork_server"]
