"""The engine of a Slurm cluster: each task is a job of an array."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from pepr_mlops.errors import WorkFailed, WrongUse
from pepr_mlops.process import is_alive, uninterrupted
from pepr_mlops.spec import Job
from pepr_mlops.sweep.engine import NO_FAILURE, NOTE, UNSENT, Report, Task, Work
from pepr_mlops.sweep.slurm import options
from pepr_mlops.sweep.slurm.batch import Batch, Orders, Stage
from pepr_mlops.sweep.slurm.options import Options
from pepr_mlops.sweep.slurm.scheduler import ENDED, Away, Scheduler

STAY_S = 60.0  # for which a job of a search waits for its next task
_READ_EVERY_S, _QUEUE_EVERY_S = 1.0, 15.0  # reports, and the queue of Slurm
_MISSED = 2  # readings of the queue without a job, after which it has ended
_MOST = 100_000  # jobs of a sweep
_ARRAY = 1001  # jobs of an array, if nobody has set Slurm's MaxArraySize
_OLD_S = 7 * 86400.0  # after which the folder of jobs that failed is deleted
_OWN_LIMIT = {"None", "JobArrayTaskLimit"}  # why jobs wait that nobody needs to know
# Parts of the answers where a user has as many jobs in the queue as the cluster allows.
_TOO_MANY = ("submit limit", "SubmitJob", "job limit")
# How a job ended that did not report, by its last state.
_ENDINGS = {
    "CANCELLED": ("killed", "was cancelled"),
    "DEADLINE": ("time_limit", "was ended by its deadline"),
    "OUT_OF_MEMORY": (
        "out_of_memory",
        "used more memory than it had requested: give a larger --mem",
    ),
    "TIMEOUT": ("time_limit", "was ended by its time limit: give a longer --time"),
}


@dataclass
class _Job:
    """One index of a batch with these `orders`, and the last task that it was given, which is
    `awaited` by the sweep.

    `missed` readings of the queue in a row showed that the job had ended, in the state `state`.
    """

    batch: Batch
    orders: Orders
    index: int
    number: int
    task: Task
    awaited: bool = False
    idle: bool = False
    notes: int = 0  # read so far
    missed: int = 0
    state: str | None = None

    @property
    def name(self) -> str:
        return f"{self.batch.job}_{self.index}"


class SlurmEngine:
    """Submits tasks as arrays of jobs, which report through folders below `checkpoints`.

    A job that is in the queue for the same task already is taken over, whoever submitted it. With
    `stay` a job waits for further tasks, so that a search does not queue for every epoch. `device`
    is that of all tasks. Raises `WrongUse` where the options do not say what to request.
    """

    def __init__(
        self,
        work: Work,
        wants: Options,
        device: str,
        experiment: str,
        checkpoints: Path,
        *,
        stay: bool = False,
    ) -> None:
        self._experiment, self._arguments = experiment, options.arguments(wants, device)
        self.slots = _MOST if not stay else wants.max_jobs or 1
        stay_s, most = STAY_S if stay else 0.0, self.slots if stay else wants.max_jobs
        logs = checkpoints / "logs"
        self._orders = Orders(work, logs, checkpoints, wants, device, stay_s, most)
        self._home = checkpoints / "slurm"
        self._scheduler = Scheduler()
        self._longest = _ARRAY
        self._most_queued: int | None = None  # jobs that Slurm accepts, once it refused one
        self._checked = False
        self._new: list[Task] = []
        self._jobs: list[_Job] = []
        self._seen: set[str] | None = None  # batches
        self._ready: list[Report] = []
        self._queue_read_s = time.monotonic()
        # Jobs that were running when the sweep began, and which nobody wants to begin again.
        self._cancelled: dict[tuple[str, int | None], Report] = {}
        # Jobs that this sweep has seen end. Others may be in the queue of another cluster.
        self._gone: set[str] = set()
        self._noted: set[str] = set()  # reasons for which jobs wait
        self._stopping = False
        self._about: Job | None = None  # whom notes are about: all jobs, but a report names one

    def submit(self, task: Task) -> None:
        self._about = self._about or task.spec
        self._new.append(task)

    def is_alive(self, process: str) -> bool | None:
        job = process.rpartition(" ")[2].rpartition(".")[0]
        return False if job in self._gone else is_alive(process)

    def poll(self, timeout_s: float) -> list[Report]:
        deadline = time.monotonic() + timeout_s
        self.flush()
        while True:
            self._watch()
            reports, self._ready = [*self._ready, *self._collected()], []
            if reports or time.monotonic() >= deadline:
                return reports
            time.sleep(min(_READ_EVERY_S, timeout_s))

    def flush(self) -> int:
        """Submit what was not submitted yet; the number of tasks that wait, since `max_jobs` or
        Slurm allows no more jobs.

        Raises `WrongUse` for a request that Slurm refuses, and `WorkFailed` where it does not
        answer, or the disk is full, and no job runs.
        """
        if self._new or self._seen is None:
            try:
                with self._alone():
                    self._adopt()
                    self._hand_out()
                    while chunk := self._fitting():
                        self._send(chunk)
            except Away as error:
                if not self._jobs:
                    raise
                self._note(f"{error}; the sweep tries again")
        return len(self._new)

    def stop(self) -> None:
        self._stopping = True
        if self._new:
            self._note(f"{_jobs(len(self._new))} not submitted")
            self._ready += [Report(task.spec, UNSENT) for task in self._new]
            self._new.clear()
        if self._seen is None and any(not batch.is_done() for batch in Batch.all(self._home)):
            self._note("jobs of an earlier sweep may still be in the queue: squeue --me lists them")
        ours: dict[Batch, list[int]] = {}
        for job in self._jobs:
            if job.awaited:
                ours.setdefault(job.batch, []).append(job.index)
        if not ours:
            return
        names = [f"{batch.job}_[{options.indices(found)}]" for batch, found in ours.items()]
        try:
            self._scheduler.cancel(names)
        except (WrongUse, WorkFailed) as error:
            self._note(f"{error}; jobs may still run: scancel {' '.join(names)}")
        for batch in ours:
            with suppress(OSError):
                stages = batch.stages()
                for job in [job for job in self._jobs if job.batch == batch and job.awaited]:
                    if not stages[job.index].taken:  # no job will report it
                        self._ready += self._ended(job, "CANCELLED")

    def close(self) -> None:
        for batch in {job.batch for job in self._jobs}:
            if not any(job.awaited for job in self._jobs if job.batch == batch):
                with suppress(OSError):
                    batch.end()
        self._jobs.clear()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Exclude other sweeps, so that two do not submit the same task at the same time."""
        with ExitStack() as held:
            with suppress(OSError, NotImplementedError):  # a disk without locks
                self._home.mkdir(parents=True, exist_ok=True)
                held.enter_context(FileLock(self._home / "lock"))
            yield

    def _adopt(self) -> None:
        """Find the jobs of other sweeps, and of earlier ones, that may be at tasks of this one, or
        wait for any and asked Slurm for the same."""
        first = self._seen is None
        every = Batch.all(self._home)
        found = {}
        for batch in every:
            if batch.name not in (self._seen or ()):
                with suppress(OSError):  # just deleted by another sweep, or of another version
                    if first and batch.is_done():
                        batch.delete()
                    elif batch.is_filled():
                        found[batch] = batch.orders(), batch.unfinished()
        living = None
        unfinished = [batch for batch, (_, stages) in found.items() if stages]
        if unfinished and (first or any(batch.job is None for batch in unfinished)):
            queue = self._scheduler.queue()
            living = {(one.batch, one.index): one.job for one in queue if one.state not in ENDED}
        for batch, (orders, stages) in found.items():
            with suppress(OSError):  # as above
                for index, stage in stages.items():
                    # What another sweep has submitted since the first time is in the queue.
                    job_id = batch.job if living is None else living.get((batch.name, index))
                    useful = not stage.reported or orders == self._orders
                    if job_id is not None and useful:
                        if batch.job is None:  # its sweep ended before it wrote that
                            batch.submitted(job_id)
                        n, task = stage.number, batch.task(index, stage.number)
                        self._jobs.append(_Job(batch, orders, index, n, task, idle=stage.reported))
                if batch.age_s() > _OLD_S and not any(job.batch == batch for job in self._jobs):
                    batch.delete()
        self._seen = {batch.name for batch in every}  # only now: Slurm may not have answered

    def _hand_out(self) -> None:
        """Give tasks to jobs that are in the queue for them, or wait for any."""
        free = {_key(job.task): job for job in self._jobs if not (job.awaited or job.idle)}
        left, n = [], 0
        for task in self._new:
            if (report := self._cancelled.pop(_key(task), None)) is not None:
                self._ready.append(report)
            elif (job := free.pop(_key(task), None) or self._assigned(task)) is not None:
                job.awaited, job.idle = True, False
                n += 1
            else:
                left.append(task)
        if n and not self._orders.stay_s:
            self._note(f"{_jobs(n)} in the queue already")
        self._new = left

    def _assigned(self, task: Task) -> _Job | None:
        """A job that has waited for a task and now has this one."""
        for job in [job for job in self._jobs if job.idle]:
            number = job.number + 1
            with suppress(OSError):
                job.batch.assign(job.index, number, task)
                if job.batch.stages()[job.index].closed and job.batch.retract(job.index, number):
                    self._jobs.remove(job)  # it ended meanwhile
                    continue
                job.number, job.task = number, task
                return job
        return None

    def _fitting(self) -> list[Task]:
        """The tasks of the next array: those that `max_jobs` and Slurm allow."""
        if self._most_queued is not None and len(self._jobs) >= self._most_queued:
            return []
        most = self._orders.max_jobs
        if most is None:
            return self._new[: self._longest]
        by_batch = Counter(job.batch for job in self._jobs)
        at_once = {job.batch: job.orders.max_jobs for job in self._jobs}
        free = most - sum(min(n, at_once[batch] or n) for batch, n in by_batch.items())
        # Its own limit holds for the jobs of an array, so that all of them can be submitted.
        return self._new[: self._longest] if not self._jobs else self._new[: max(0, free)]

    def _send(self, tasks: Sequence[Task]) -> None:
        """Submit tasks as an array."""
        batch = Batch.create(self._home)
        try:
            batch.fill(self._orders, tasks, options.script(self._orders.options, str(batch.folder)))
        except OSError as error:
            batch.delete()
            raise Away(
                f"checkpoints: {self._home} cannot be written ({error.strerror}); free space there"
            ) from error
        most = self._orders.max_jobs
        words = [
            *self._arguments,
            f"--array=0-{len(tasks) - 1}" + ("" if most is None else f"%{most}"),
            f"--job-name={options.job_name(self._experiment, batch.name)}",
            "--output=/dev/null",  # the script opens the log
        ]
        try:
            if not self._checked:
                self._scheduler.check(words, batch.script)
                self._checked = True
            self._scheduler.wait()
            with uninterrupted():  # or jobs would run that `stop` does not know
                batch.submitted(self._scheduler.submit(words, batch.script))
                self._jobs += [
                    _Job(batch, self._orders, i, 0, task, awaited=True)
                    for i, task in enumerate(tasks)
                ]
                self._new = self._new[len(tasks) :]
        except WrongUse as error:
            batch.delete()
            if not self._fewer(len(tasks), str(error)):
                raise
            return
        except Away:
            if not self._checked:  # so that nothing was submitted
                batch.delete()
            raise
        self._seen = {*(self._seen or ()), batch.name}
        self._note(f"{_jobs(len(tasks))} submitted as array {batch.job}")

    def _fewer(self, n: int, why: str) -> bool:
        """Whether to submit less than an array of `n`, which Slurm refused for a limit of its own:
        on the length of an array, or on the jobs that a user may have in the queue."""
        if "array" in why and self._longest == _ARRAY:
            self._longest = self._scheduler.longest_array()
            return self._longest < n
        if not any(part in why for part in _TOO_MANY):
            return False
        if n > 1:
            self._longest = n // 2
            return True
        self._most_queued = len(self._jobs)
        self._note(f"{why.removeprefix('slurm: ')}; the others are submitted when jobs have ended")
        return self._jobs != []

    def _watch(self) -> None:
        """Read the queue from time to time, for jobs that end without a report."""
        since_s = time.monotonic() - self._queue_read_s
        if since_s < _QUEUE_EVERY_S or not self._jobs or not self._scheduler.is_due():
            return
        self._queue_read_s = time.monotonic()
        try:
            queue = {(one.batch, one.index): one for one in self._scheduler.queue()}
        except (Away, WrongUse) as error:
            self._note(f"{error}; the sweep tries again")
            return
        waiting: Counter[str] = Counter()
        for job in self._jobs:
            found = queue.get((job.batch.name, job.index))
            job.state = None if found is None else found.state
            gone = found is None or found.state in ENDED
            job.missed = job.missed + 1 if gone else 0
            if found is not None and found.state == "PENDING" and job.awaited:
                waiting[found.reason] += 1
        for reason in waiting.keys() - _OWN_LIMIT - self._noted:
            self._noted.add(reason)
            self._note(f"{waiting[reason]} of the jobs wait ({reason})")

    def _collected(self) -> list[Report]:
        """The reports that have arrived, and those on jobs that ended without one."""
        found: list[Report] = []
        for batch in dict.fromkeys(job.batch for job in self._jobs):
            own = [job for job in self._jobs if job.batch == batch]
            try:
                stages = batch.stages()
                for job in own:
                    found += self._read(job, stages[job.index])
            except (OSError, KeyError):  # another sweep has seen its end, and deleted it
                for job in own:
                    found += self._closed(job, Report(job.task.spec, "claimed"))
        return found

    def _read(self, job: _Job, stage: Stage) -> list[Report]:
        """What a job has reported since the last time."""
        notes = job.batch.notes(job.index, job.notes, job.task) if job.awaited else []
        job.notes += len(notes)
        if stage.reported and stage.number == job.number and not job.idle:
            report = job.batch.reported(job.index, job.number, job.task)
            # A job that Slurm ended by a signal may be in the queue again.
            if report.reason != "killed" or self._stopping or job.missed:
                stays = self._orders.stay_s > 0 and job.orders == self._orders
                stays = stays and not stage.closed and report.reason != "killed"
                notes += self._closed(job, report, stays=stays)
                return notes
        if job.idle and stage.closed:
            self._jobs.remove(job)
        elif job.missed >= _MISSED:
            notes += self._ended(job, job.state if stage.taken or job.state else "CANCELLED")
        return notes

    def _ended(self, job: _Job, state: str | None) -> list[Report]:
        """The report on a job that ended without one in this state, None if that is not known."""
        reason, how = _ENDINGS.get(state or "", ("lost", f"ended without a report ({state})"))
        if state is None:
            how = "left the queue without a report"
        text = f"job {job.name} {how}"
        if reason == "lost":
            words = job.batch.last_words(job.index)
            text += f"; its log {job.batch.folder / f'{job.index}.log'} "
            text += f"ends with: {words}" if words else "is empty: do the nodes share that folder?"
        return self._closed(job, Report(job.task.spec, reason, text))

    def _closed(self, job: _Job, report: Report, *, stays: bool = False) -> list[Report]:
        """The report on the last task of a job, if the sweep awaits it; the job is forgotten unless
        it stays for another task."""
        awaited, job.awaited, job.idle = job.awaited, False, stays
        if not stays:
            self._jobs.remove(job)
            if report.reason not in NO_FAILURE:
                self._gone.add(job.name)
        if report.reason == "killed" and not awaited:
            self._cancelled[_key(job.task)] = report
        return [report] if awaited else []

    def _note(self, line: str) -> None:
        if self._about is not None:
            self._ready.append(Report(self._about, NOTE, f"slurm: {line.removeprefix('slurm: ')}"))


def _jobs(n: int) -> str:
    return f"{n} job{'s' * (n != 1)}"


def _key(task: Task) -> tuple[str, int | None]:
    """What two jobs for the same task have in common."""
    return task.spec.fingerprint, task.until
