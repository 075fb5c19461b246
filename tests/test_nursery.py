"""Tasks that are forked from a process which has loaded everything: as if each had done so."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from pepr_mlops.memory import tells_pages
from pepr_mlops.schema import RunSpec
from pepr_mlops.sweep.local import LocalEngine
from pepr_mlops.sweep.tasks import Report, Task

pytestmark = pytest.mark.skipif(not tells_pages(), reason="needs Linux")


def _work(task: Task) -> Report:
    """Say what it was born with; the model's name is how it ends."""
    loaded = sorted({"torch", "timm", "mlflow"} & {*sys.modules})
    resident = psutil.Process().memory_info().rss / psutil.Process(os.getppid()).memory_info().rss
    if task.spec.model == "waits":
        threading.Event().wait(600)
    import torch

    weights = torch.ones(300, 300, requires_grad=True)
    (weights @ weights).sum().backward()  # with several threads
    assert weights.grad is not None
    found = {
        "pid": os.getpid(),
        "parent": os.getppid(),
        "loaded": loaded,
        "resident": resident,
        "threads": sorted(t.read_text() for t in Path(f"/proc/{os.getppid()}/task").glob("*/comm")),
        "cuda_is_lost": torch.cuda._is_in_bad_fork(),
        "gradient": float(weights.grad[0, 0]),
        "temporary": tempfile.gettempdir(),
        "place": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "hidden": os.environ.get("PEPR_HIDDEN"),
    }
    return Report(task.spec, "finished", json.dumps(found))


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[LocalEngine]:
    places = [{"CUDA_VISIBLE_DEVICES": "7"}]
    engine = LocalEngine(_work, places, tmp_path / "logs", ["mlflow", "pepr_mlops.nursery"])
    yield engine
    engine.close()


def _done(engine: LocalEngine, model: str = "a") -> Report:
    engine.submit(Task(RunSpec(model=model)))
    (report,) = engine.poll(120)
    return report


def test_a_task_is_born_with_all_that_one_by_itself_would_have(
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
    assert first["gradient"] == 600  # of the sum of W·W: a column's and a row's sum, of ones
    # Without the pages of libraries it would begin with three fifths of it.
    assert first["resident"] == pytest.approx(1, abs=0.02)
    assert second["resident"] == pytest.approx(1, abs=0.02)
    assert (first["hidden"], second["hidden"]) == (None, "seen")
    assert second["temporary"] == str(tmp_path / "elsewhere")
    assert first["place"] == "7"


def test_a_signal_to_the_whole_group_ends_tasks_and_not_the_nursery(engine: LocalEngine) -> None:
    parent = json.loads(_done(engine).error or "")["parent"]
    engine.submit(Task(RunSpec(model="waits")))
    assert engine.poll(0.5) == []
    psutil.Process(parent).terminate()
    engine.stop()
    (report,) = engine.poll(60)
    assert (report.reason, report.error) == ("lost", "its process was killed by SIGTERM")
    assert json.loads(_done(engine).error or "")["parent"] == parent


_ALONE = """
import sys
from pathlib import Path
from pepr_mlops.schema import RunSpec
from pepr_mlops.sweep.local import LocalEngine
from pepr_mlops.sweep.tasks import Task
from test_nursery import _work

if __name__ == "__main__":
    engine = LocalEngine(_work, [{}], Path(sys.argv[1]), ["mlflow", "pepr_mlops.nursery"])
    engine.submit(Task(RunSpec(model="a")))
    print(engine.poll(120)[0].error)
"""


def test_the_nursery_ends_with_its_sweep_and_without_a_word(tmp_path: Path) -> None:
    script = tmp_path / "alone.py"
    script.write_text(_ALONE)
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    nursery = json.loads(done.stdout)["parent"]
    if psutil.pid_exists(nursery):
        psutil.wait_procs([psutil.Process(nursery)], timeout=30)
    assert not psutil.pid_exists(nursery)
