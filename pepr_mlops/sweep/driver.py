"""The loop of a sweep: reads the tracking server, and runs the tasks that a strategy chooses."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Protocol

import pandas as pd

from pepr_mlops.errors import WorkFailed
from pepr_mlops.spec import Job
from pepr_mlops.sweep import plan
from pepr_mlops.sweep.engine import NO_FAILURE, NOTE, TRANSIENT, Engine, Report, Task
from pepr_mlops.tracking.ownership import STALE_S

_POLL_EVERY_S = 5.0  # the tracking server, for the entries of running jobs
_BACK_OFF_S = 2.0  # after another process took the task first
_MOST_CLAIMED = 10  # times that a task was another process's, while the server shows none


class Server(Protocol):
    """The tracking server, as far as a sweep needs it."""

    def read(self) -> pd.DataFrame:
        """The frame of `read.load_jobs`."""

    def close(self, run_ids: Sequence[str]) -> None:
        """Mark these runs FAILED, since no process works on them."""


# Which tasks come next, best first: a function without a memory of the jobs (`Result.judged`) and
# the runs of the server. It may include tasks that are already running, which are waited for; an
# empty list ends the sweep.
Strategy = Callable[[pd.DataFrame, pd.DataFrame], list[Task]]


@dataclass(frozen=True)
class Limits:
    """When to stop or to give up.

    `budget_wh` limits the energy of all runs of the sweep in all phases, also those of earlier
    calls; `retries` is how often a job may fail for a transient reason and be retried.
    """

    budget_wh: float | None = None
    retries: int = 1
    stale_s: float = STALE_S


@dataclass(frozen=True)
class Status:
    """A sweep at one moment; `jobs` are `plan.states`, `notes` about its runs."""

    jobs: pd.DataFrame
    runs: pd.DataFrame
    spent_wh: float
    notes: Sequence[str] = ()


@dataclass
class Result:
    """A sweep that ended. `stopped` is the reason if it ended early, else None; `interrupt` is the
    exception that stopped it, for the caller to raise again. `errors` has the last error of each
    job that failed, by fingerprint; `given_up` has the fingerprints of jobs that failed too
    often."""

    jobs: pd.DataFrame
    runs: pd.DataFrame
    stopped: str | None = None
    interrupt: BaseException | None = None
    errors: dict[str, str] = field(default_factory=dict)
    given_up: set[str] = field(default_factory=set)

    @property
    def judged(self) -> pd.DataFrame:
        """The jobs; a job that was given up is `failed`, and its runs still count as spent."""
        given_up = self.jobs.index.isin(list(self.given_up)) & (self.jobs["state"] != "done")
        return self.jobs.assign(state=self.jobs["state"].mask(given_up, "failed"))


@dataclass
class Driver:
    """Runs the tasks of `strategy` on `engine` until there are none, or the budget is used up.

    `retry_failed` as in `plan.states`; `show` is called after each reading of the server while
    tasks run, `report` for every report, and `tidy` when jobs have finished, before the next begin
    and at the end.
    """

    specs: Sequence[Job]
    strategy: Strategy
    engine: Engine
    server: Server
    limits: Limits
    show: Callable[[Status], None]
    report: Callable[[Report], None]
    retry_failed: bool = False
    tidy: Callable[[Result], None] = lambda result: None
    finished: bool = True  # a job has, since `tidy`
    running: set[str] = field(default_factory=set)  # fingerprints
    failures: Counter[str] = field(default_factory=Counter)  # by fingerprint
    claimed: Counter[str] = field(default_factory=Counter)  # times, by fingerprint
    result: Result = field(default_factory=lambda: Result(pd.DataFrame(), pd.DataFrame()))

    def run(self) -> Result:
        """Run the sweep. However it ends, running jobs get the time to close their runs.

        While jobs run, it waits for a server that does not answer. Raises `WorkFailed` where the
        server does not answer and no job runs, and where a budget cannot be kept since the energy
        of a run is not known.
        """
        try:
            while self._step():
                pass
        except (KeyboardInterrupt, SystemExit) as interrupt:
            self.result.stopped, self.result.interrupt = "interrupted", interrupt
        finally:
            self._close()
        return self.result

    def begin(self) -> Result:
        """Submit the first tasks and return without waiting for them. Raises `WorkFailed` where the
        server does not answer."""
        self._read()
        jobs, runs = self.result.jobs, self.result.runs
        self._submit(self.strategy(jobs, runs), None)
        return self.result

    def _step(self) -> bool:
        """Read the server, submit tasks to free slots, take reports; False at the end."""
        try:
            self._read()
            jobs, runs = self.result.jobs, self.result.runs
            spent = _spent(jobs, runs, self.limits.budget_wh)
            self.show(Status(jobs, runs, spent))
            failed = {key for key, n in self.failures.items() if n > self.limits.retries}
            self.result.given_up = failed
            self._tidy()
            tasks = self.strategy(self.result.judged, runs)
        except WorkFailed as error:
            if not self.running or error.reason != "tracking":
                raise
            self._take(_POLL_EVERY_S)  # the server may be back before they end
            return True
        budget_wh = self.limits.budget_wh
        left_wh = None if budget_wh is None else budget_wh - spent
        if left_wh is not None and left_wh <= 0:
            self.result.stopped = (
                f"budget_wh={budget_wh:g}: the runs of this sweep took {spent:.4g} Wh"
            )
            return False
        if tasks and not self.running and self.engine.slots == 0:
            self.result.stopped = "no nodes left to run jobs on"
            return False
        self._submit(tasks, left_wh)
        if self.running:
            if any(report.reason == "claimed" for report in self._take(_POLL_EVERY_S)):
                time.sleep(_BACK_OFF_S)
        elif tasks:  # another sweep runs them
            self._take(0.0)
            time.sleep(_POLL_EVERY_S)
        else:
            return False
        return True

    def _close(self) -> None:
        """End the running tasks, and read the server a last time."""
        self.engine.stop()
        deadline = time.monotonic() + 60
        while self.running and time.monotonic() < deadline:
            self._take(1.0)
        self.engine.close()
        with suppress(WorkFailed):  # the server is down: the last reading counts
            self._read()
            if self.result.interrupt is None:
                self._tidy()

    def _tidy(self) -> None:
        if self.finished:
            self.finished = False
            self.tidy(self.result)

    def _read(self) -> None:
        """Read the jobs from the server, after closing the runs that no process works on."""
        runs = self.server.read()
        own = runs[runs["spec"].isin([s.fingerprint for s in self.specs])]
        dead = plan.abandoned(own, time.time(), self.limits.stale_s, self.engine.is_alive)
        if dead:
            self.server.close(dead)
            runs = self.server.read()
        self.result.jobs = plan.states(self.specs, runs, retry_failed=self.retry_failed)
        self.result.runs = runs

    def _submit(self, tasks: Sequence[Task], left_wh: float | None) -> None:
        for task in tasks:
            if len(self.running) >= self.engine.slots:
                return
            key = task.spec.fingerprint
            if key not in self.running and self.result.jobs.loc[key, "state"] == "pending":
                self.engine.submit(replace(task, left_wh=left_wh))
                self.running.add(key)

    def _take(self, timeout_s: float) -> list[Report]:
        """Wait for reports, and record which tasks ended and which failed."""
        reports = self.engine.poll(timeout_s)
        for report in reports:
            key = report.spec.fingerprint
            if report.reason != NOTE:
                self.running.discard(key)
                self.finished = True
                self.claimed[key] += report.reason == "claimed"
                given_up = self.claimed[key] > _MOST_CLAIMED
                if given_up or report.reason not in NO_FAILURE:
                    self.result.errors[key] = f"{report.reason}: {report.error}"
                    self.failures[key] += 1 if report.reason in TRANSIENT else 10**6
            self.report(report)
        return reports


def _spent(jobs: pd.DataFrame, runs: pd.DataFrame, budget_wh: float | None) -> float:
    if budget_wh is not None and jobs["energy_wh"].isna().any():
        own = runs[runs["spec"].isin(list(jobs.index))]
        unknown = own[plan.spent_wh(own).isna()].iloc[0]
        raise WorkFailed(
            f"budget_wh: the energy of run {unknown['run_id']} ({unknown['model']}) is not known, "
            "so the budget cannot be kept; run without one, or delete that run"
        )
    return float(jobs["energy_wh"].sum())
