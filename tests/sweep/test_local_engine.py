"""The engine of one machine, with real processes."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from pepr_mlops.spec import Job
from pepr_mlops.sweep.engine import Report, Task
from pepr_mlops.sweep.local_engine import LocalEngine


def _work(task: Task, say: Callable[[str], None]) -> Report:
    """Does what the model's name says."""
    spec = task.spec
    if spec.model == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if spec.model == "exits":
        os._exit(3)
    if spec.model == "waits":
        time.sleep(600)
    if spec.model == "notes":
        say("Waiting for the CPU.")
        while not os.path.exists(spec.dataset):
            time.sleep(0.01)
    gpu = os.environ.get("CUDA_VISIBLE_DEVICES")
    print(f"printed by {os.getpid()}")
    return Report(spec, "finished", f"{gpu} {os.getpid()} {os.getppid()}")


def _task(model: str, seed: int = 0) -> Task:
    return Task(Job(model=model, seed=seed, data_digest="0"))


def _all(engine: LocalEngine, n: int) -> list[Report]:
    reports: list[Report] = []
    while len(reports) < n:
        reports += engine.poll(30)
    return reports


def test_each_task_has_a_process_and_each_slot_one_task_at_a_time(tmp_path: Path) -> None:
    slots = [{"CUDA_VISIBLE_DEVICES": "0"}, {"CUDA_VISIBLE_DEVICES": "1"}]
    engine = LocalEngine(_work, slots, tmp_path)
    assert engine.slots == 2
    engine.submit(_task("a"))
    engine.submit(_task("b"))
    first = _all(engine, 2)
    engine.submit(_task("a", seed=1))
    reports = [(r.error or "").split() for r in [*first, *_all(engine, 1)]]
    assert {s[0] for s in reports[:2]} == {"0", "1"}
    assert len({s[1] for s in reports}) == 3
    assert {s[2] for s in reports} == {str(os.getpid())}
    log = tmp_path / f"{_task('a').spec.fingerprint}.log"
    assert log.read_text().startswith("printed by ")
    assert engine.poll(0) == []
    engine.close()


def test_a_process_that_vanishes_is_reported(tmp_path: Path) -> None:
    engine = LocalEngine(_work, [{}, {}], tmp_path)
    engine.submit(_task("killed"))
    engine.submit(_task("exits"))
    found = {r.spec.model: (r.reason, r.error) for r in _all(engine, 2)}
    assert found == {
        "killed": ("lost", "its process was killed by SIGKILL"),
        "exits": ("lost", "its process exited with 3"),
    }
    engine.submit(_task("a"))  # its slot is free again
    assert _all(engine, 1)[0].reason == "finished"
    engine.close()


def test_a_note_is_reported_before_its_task_ends(tmp_path: Path) -> None:
    free = tmp_path / "free"
    engine = LocalEngine(_work, [{}], tmp_path)
    engine.submit(Task(Job(model="notes", dataset=str(free), data_digest="0")))
    reports: list[Report] = []
    while not reports:
        reports = engine.poll(0.1)
    assert [(r.reason, r.error) for r in reports] == [("note", "Waiting for the CPU.")]
    assert engine.poll(0) == []
    free.touch()
    assert [r.reason for r in _all(engine, 1)] == ["finished"]
    engine.submit(_task("a"))  # its slot is free again
    assert [r.reason for r in _all(engine, 1)] == ["finished"]
    engine.close()


def test_stopping_ends_running_tasks(tmp_path: Path) -> None:
    engine = LocalEngine(_work, [{}], tmp_path)
    engine.submit(_task("waits"))
    assert engine.poll(0.1) == []
    engine.stop()
    (report,) = _all(engine, 1)
    assert (report.reason, report.error) == ("lost", "its process was killed by SIGTERM")
    before = {*psutil.Process().children()}
    engine.submit(_task("waits"))
    (child,) = {*psutil.Process().children()} - before
    engine.close()
    assert not child.is_running()
