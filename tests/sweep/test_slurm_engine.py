"""The engine of Slurm on a real cluster of two nodes, with work that takes no time."""

from __future__ import annotations

import os
import re
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from made import job
from slurm import Slurm
from slurm_work import Acting

from pepr_mlops.errors import WorkFailed, WrongUse
from pepr_mlops.sweep.engine import NOTE, UNSENT, Report, Task
from pepr_mlops.sweep.slurm.batch import Batch
from pepr_mlops.sweep.slurm.engine import SlurmEngine
from pepr_mlops.sweep.slurm.options import Options

JOBS = [Task(job(seed=seed)) for seed in range(4)]


class Sweep:
    """Makes engines on the cluster, and the work that they submit."""

    def __init__(self, folder: Path) -> None:
        self.checkpoints = folder / "check 'points' %j"
        self.done = folder / "done"
        self.done.mkdir()
        self.engines: list[SlurmEngine] = []

    def work(self, *acts: str) -> Acting:
        return Acting(self.done, self.checkpoints, dict(enumerate(acts)))

    def engine(self, work: Acting, *, stay: bool = False, **options: Any) -> SlurmEngine:
        wants = Options(**options)
        made = SlurmEngine(work, wants, "cpu", "two words", self.checkpoints, stay=stay)
        self.engines.append(made)
        return made


@pytest.fixture
def sweep(cluster: Slurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sweep]:
    for name, value in cluster.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "tests"))
    monkeypatch.setattr("pepr_mlops.sweep.slurm.scheduler.EVERY_S", 0.2)
    monkeypatch.setattr("pepr_mlops.sweep.slurm.engine._QUEUE_EVERY_S", 1.0)
    yield Sweep(tmp_path)
    cluster.ask("scancel", "--user=root")
    cluster.until(lambda: cluster.ask("squeue", "--noheader"), lambda queue: queue == "")


def ended(engine: SlurmEngine, n: int, within_s: float = 60.0) -> list[Report]:
    """The next `n` reports, in the order of the seeds; notes are left out."""
    reports: list[Report] = []
    deadline = time.monotonic() + within_s
    while len(reports) < n and time.monotonic() < deadline:
        reports += [report for report in engine.poll(1.0) if report.reason != NOTE]
    assert len(reports) == n
    return sorted(reports, key=lambda report: report.spec.seed)


def begun(work: Acting, engine: SlurmEngine, seed: int = 0) -> str:
    """The name of the job that has begun a task, the first ones of an array. Its id may be that of
    the array."""
    deadline = time.monotonic() + 60
    while not (starts := work.starts(seed)):
        assert [r for r in engine.poll(0.2) if r.reason != NOTE] == []
        assert time.monotonic() < deadline
    return f"{starts[-1]['ARRAY_JOB_ID']}_{seed}"


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """A disk that has no room for files of more bytes."""
    limit, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, most))


def test_each_task_is_a_job_of_one_array(sweep: Sweep) -> None:
    work = sweep.work("finish", "say")
    engine = sweep.engine(work)
    for task in JOBS[:3]:
        engine.submit(task)
    reports: list[Report] = []
    while sum(report.reason != NOTE for report in reports) < 3:
        reports += engine.poll(5.0)
    notes = [report.error for report in reports if report.reason == NOTE]
    found = {r.spec.seed: (r.reason, r.error) for r in reports if r.reason != NOTE}
    assert found == dict.fromkeys(range(3), ("finished", None))
    starts = [work.starts(seed) for seed in range(3)]
    assert [len(one) for one in starts] == [1, 1, 1]
    assert len({one[0]["ARRAY_JOB_ID"] for one in starts}) == 1
    assert len({one[0]["JOB_ID"] for one in starts}) == 3
    assert notes[0] == f"slurm: 3 jobs submitted as array {starts[0][0]['ARRAY_JOB_ID']}"
    assert "tracking: away" in notes


def test_the_folder_of_a_batch_is_for_its_user_and_goes_when_all_is_done(sweep: Sweep) -> None:
    engine = sweep.engine(sweep.work())
    engine.submit(JOBS[0])
    ended(engine, 1)
    (batch,) = [path for path in (sweep.checkpoints / "slurm").iterdir() if path.is_dir()]
    assert batch.stat().st_mode & 0o077 == 0
    assert {path.stat().st_mode & 0o077 for path in batch.glob("*.taken")} == {0}
    Slurm.until(lambda: (batch / "0.closed").exists(), bool)
    later = sweep.engine(sweep.work())
    later.submit(JOBS[1])
    later.poll(0)
    assert not batch.exists()


def test_a_batch_to_which_others_could_write_is_left_out(sweep: Sweep, tmp_path: Path) -> None:
    home = sweep.checkpoints / "slurm"
    own, open_to_all = (Batch.create(home) for _ in range(2))
    open_to_all.folder.chmod(0o770)
    (home / "link").symlink_to(own.folder)
    assert Batch.all(home) == [own]
    node = [sys.executable, "-m", "pepr_mlops.sweep.slurm.node", str(open_to_all.folder), "0"]
    done = subprocess.run(node, capture_output=True, text=True)
    assert done.returncode == 1
    why = f"slurm: {open_to_all.folder} is not a folder that this user alone can write\n"
    assert done.stderr == why


def test_the_folder_of_jobs_that_failed_is_deleted_after_a_week(sweep: Sweep) -> None:
    engine = sweep.engine(sweep.work("lose the node"))
    engine.submit(JOBS[0])
    ended(engine, 1)
    (batch,) = Batch.all(sweep.checkpoints / "slurm")
    task = batch.task(0, 0)
    batch.report(0, 0, Report(task.spec, "crashed"))
    for age_s, there in ((6 * 86400, [batch]), (8 * 86400, [])):
        os.utime(batch.folder, (time.time() - age_s,) * 2)
        later = sweep.engine(sweep.work())
        later.submit(task)
        later.poll(0)
        assert [one for one in Batch.all(batch.folder.parent) if one == batch] == there
        ended(later, 1)


def test_scancel_ends_a_job_that_runs_and_one_that_waits(sweep: Sweep, cluster: Slurm) -> None:
    work = sweep.work("last", "last", "last")
    engine = sweep.engine(work, max_jobs=1)
    for task in JOBS[:2]:
        engine.submit(task)
    array = begun(work, engine).removesuffix("_0")
    cluster.ask("scancel", f"{array}_0", f"{array}_1")
    first, second = ended(engine, 2)
    assert (first.reason, second.reason) == ("killed", "killed")
    assert second.error == f"job {array}_1 was cancelled"
    assert work.starts(1) == []


def test_a_job_that_vanishes_is_lost(sweep: Sweep) -> None:
    work = sweep.work("lose the node")
    engine = sweep.engine(work)
    engine.submit(JOBS[0])
    (report,) = ended(engine, 1)
    assert report.reason == "lost"
    array = work.starts(0)[0]["ARRAY_JOB_ID"]
    assert str(report.error).startswith(f"job {array}_0 ended without a report (FAILED)")
    assert engine.is_alive(f"another-machine 1 2 {array}_0.0") is False
    assert engine.is_alive(f"another-machine 1 2 {array}_1.0") is None
    later = sweep.engine(work)
    later.poll(0)
    assert later.is_alive(f"another-machine 1 2 {array}_0.0") is None


def test_the_time_limit_requeues_a_job_that_has_saved_an_epoch(
    sweep: Sweep, cluster: Slurm
) -> None:
    work = sweep.work("save", "last")
    engine = sweep.engine(work, time="50")
    for task in JOBS[:2]:
        engine.submit(task)
    names = [begun(work, engine, seed) for seed in range(2)]
    cluster.ask("scancel", "--batch", "--signal=USR1", *names)  # as Slurm warns before the limit
    cluster.start_again(names[0])
    first, second = ended(engine, 2)
    assert first.reason == "finished"
    assert [start["restarts"] for start in work.starts(0)] == [0, 1]
    assert len({start["JOB_ID"] for start in work.starts(0)}) == 1
    assert second.reason == "time_limit"
    assert second.error == "no epoch ended within 50; ask for more (--time)"
    assert [start["restarts"] for start in work.starts(1)] == [0]


def test_a_sweep_takes_over_the_jobs_of_one_that_vanished(sweep: Sweep, cluster: Slurm) -> None:
    work = sweep.work("last", "last", "last")
    first = sweep.engine(work)
    for task in JOBS[:3]:
        first.submit(task)
    begun(work, first)
    queue = cluster.ask("squeue", "--noheader", "--array", "--format=%F_%K")
    second = sweep.engine(work)
    for task in JOBS[:3]:
        second.submit(task)
    (note,) = second.poll(0)
    assert note.error == "slurm: 3 jobs in the queue already"
    assert cluster.ask("squeue", "--noheader", "--array", "--format=%F_%K") == queue
    second.stop()
    assert [report.reason for report in ended(second, 3)] == ["killed"] * 3
    assert cluster.until(lambda: cluster.ask("squeue", "--noheader"), lambda out: out == "") == ""


def test_a_job_of_a_search_takes_the_next_task(sweep: Sweep) -> None:
    work = sweep.work()
    engine = sweep.engine(work, stay=True)
    assert engine.slots == 1
    for task in JOBS[:3]:
        engine.submit(task)
        assert [report.reason for report in ended(engine, 1)] == ["finished"]
    assert len({work.starts(seed)[0]["JOB_ID"] for seed in range(3)}) == 1
    other = sweep.engine(work, stay=True, cpus=2)
    other.submit(JOBS[3])
    assert [report.reason for report in ended(other, 1)] == ["finished"]
    assert work.starts(3)[0]["JOB_ID"] != work.starts(0)[0]["JOB_ID"]  # it asks for other nodes
    for one in (engine, other):
        one.close()  # ends the job that waits, which the fixture would wait for


def test_a_task_that_begins_shortly_before_the_time_limit_has_another_start(
    sweep: Sweep, cluster: Slurm
) -> None:
    work = sweep.work("finish", "last")
    engine = sweep.engine(work, stay=True, time="50")
    engine.submit(JOBS[0])
    ended(engine, 1)
    engine.submit(JOBS[1])
    starts = cluster.until(lambda: (engine.poll(0), work.starts(1))[1], bool)
    name = f"{starts[0]['ARRAY_JOB_ID']}_0"
    cluster.ask("scancel", "--batch", "--signal=USR1", name)  # as Slurm warns before the limit
    cluster.start_again(name)
    (report,) = ended(engine, 1)
    assert report.reason == "finished", report.error
    assert [[start["restarts"] for start in work.starts(seed)] for seed in (0, 1)] == [[0], [0, 1]]
    engine.close()


def test_no_more_than_max_jobs_run_at_once(sweep: Sweep) -> None:
    work = sweep.work("last")
    engine = sweep.engine(work, max_jobs=1)
    for task in JOBS[:2]:
        engine.submit(task)
    begun(work, engine)
    later = sweep.engine(work, max_jobs=1)
    for task in JOBS[:3]:
        later.submit(task)
    assert later.flush() == 1  # the third, since two are in the queue
    later.stop()
    assert [report.reason for report in ended(later, 3)] == ["killed", "killed", UNSENT]
    assert work.starts(1) == work.starts(2) == []


@pytest.mark.parametrize(
    ("options", "words", "remedy"),
    [
        ({"partition": "gpu"}, "invalid partition specified: gpu", "change --partition"),
        ({"time": "3:00:00"}, "Requested time limit is invalid", "change --time"),
        ({"gres": "gpu:a100:1"}, "Requested node configuration is not available", "change --gres"),
    ],
)
def test_what_slurm_refuses_is_one_line_with_the_choices(
    sweep: Sweep, cluster: Slurm, options: dict[str, str], words: str, remedy: str
) -> None:
    engine = sweep.engine(sweep.work(), **options)
    engine.submit(JOBS[0])
    with pytest.raises(WrongUse) as refused:
        engine.poll(0)
    text = str(refused.value)
    assert text.startswith("slurm: ")
    assert words in text
    assert remedy in text
    assert text.endswith("sinfo lists main up to 1:00:00, gres gpu:1")
    assert cluster.ask("squeue", "--noheader") == ""
    assert not [path for path in (sweep.checkpoints / "slurm").iterdir() if path.is_dir()]


def test_the_limit_of_jobs_in_the_queue_is_respected(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The test cluster has no accounts, and so no limits: an sbatch in front of the real one
    refuses more than two jobs with the words of a cluster that has them."""
    shim = tmp_path / "programs" / "sbatch"
    shim.parent.mkdir()
    shim.write_text(
        "#!/bin/bash\n"
        "n=$(squeue --noheader --array | wc -l); [[ $* =~ --array=0-([0-9]+) ]]\n"
        "if [ $1 = --parsable ] && [ $((n + 1 + BASH_REMATCH[1])) -gt 2 ]; then\n"
        "echo 'sbatch: error: Batch job submission failed: Job violates accounting/QOS policy "
        "(job submit limit, user'\\''s size and/or time limits)' >&2; exit 1; fi\n"
        f'exec {shutil.which("sbatch")} "$@"\n'
    )
    shim.chmod(0o700)
    monkeypatch.setenv("PATH", str(shim.parent), prepend=os.pathsep)
    work = sweep.work("last", "last")
    engine = sweep.engine(work)
    for task in JOBS:
        engine.submit(task)
    assert engine.flush() == 2
    notes = [str(report.error) for report in engine.poll(0)]
    assert notes[0].startswith("slurm: 2 jobs submitted as array ")
    assert "job submit limit" in notes[1]
    assert notes[1].endswith("the others are submitted when jobs have ended")
    engine.stop()
    reasons = [report.reason for report in ended(engine, 4)]
    assert reasons == ["killed", "killed", UNSENT, UNSENT]


def test_a_job_whose_submission_was_not_confirmed_is_taken_over(
    sweep: Sweep, cluster: Slurm
) -> None:
    """As after a sweep that was killed while sbatch ran."""
    work = sweep.work("last")
    first = sweep.engine(work)
    first.submit(JOBS[0])
    begun(work, first)
    (record,) = (sweep.checkpoints / "slurm").glob("*/job")
    submitted = record.read_text()
    record.unlink()
    second = sweep.engine(work)
    second.submit(JOBS[0])
    assert second.flush() == 0
    assert record.read_text() == submitted
    assert len(cluster.ask("squeue", "--noheader", "--array").splitlines()) == 1


def test_on_a_full_disk_nothing_is_submitted_and_running_jobs_continue(
    sweep: Sweep, cluster: Slurm
) -> None:
    work = sweep.work("last")
    engine = sweep.engine(work)
    engine.submit(JOBS[0])
    why = f"checkpoints: {sweep.checkpoints}/slurm cannot be written (File too large); free space"
    with largest_file(100), pytest.raises(WorkFailed, match=re.escape(why)):
        engine.flush()
    begun(work, engine)
    engine.submit(JOBS[1])
    with largest_file(100):
        assert engine.flush() == 1
    notes = [str(report.error) for report in engine.poll(0)]
    assert [note.startswith(f"slurm: {why}") for note in notes] == [True, False]
    assert len(cluster.ask("squeue", "--noheader", "--array").splitlines()) == 2


def test_without_slurm_there_is_one_line(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    engine = sweep.engine(sweep.work())
    engine.submit(JOBS[0])
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(tmp_path))
        with pytest.raises(WrongUse, match="no sbatch on the PATH; run the sweep on a login node"):
            engine.poll(0)
