"""The loop of a sweep: what the tracking server says, what comes next, and who does it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Protocol

import pandas as pd

from pepr_mlops.errors import WorkFailed
from pepr_mlops.process import is_alive
from pepr_mlops.spec import Job
from pepr_mlops.sweep import plan
from pepr_mlops.sweep.engine import NOTE, TRANSIENT, Engine, Report, Task

_LOOK_EVERY_S = 5.0  # at the tracking server, for what running jobs have logged
_BACK_OFF_S = 2.0  # after a task that another process was quicker to take


class Ledger(Protocol):
    """The tracking server, as far as a sweep needs it."""

    def read(self) -> pd.DataFrame:
        """The frame of `query.load_jobs`."""

    def close(self, run_ids: Sequence[str]) -> None:
        """Mark these runs FAILED, since nobody works on them."""


class Strategy(Protocol):
    """Which tasks come next, best first. A function of what is known, without a memory."""

    def __call__(self, jobs: pd.DataFrame, runs: pd.DataFrame) -> list[Task]:
        """`jobs` are `plan.states` without what was given up, `runs` those of the ledger.

        What somebody is at already may be among them and is waited for; an empty list: nothing
        more is to be done.
        """


@dataclass(frozen=True)
class Limits:
    """When to stop or to give up: `budget_wh` is the energy of all runs of the sweep in all
    phases, those of earlier calls too; `retries` of one job for what may be transient."""

    budget_wh: float | None = None
    retries: int = 1
    stale_s: float = 300.0


@dataclass(frozen=True)
class Status:
    """A sweep at one moment; `jobs` are `plan.states`, `notes` what to know about its runs."""

    jobs: pd.DataFrame
    runs: pd.DataFrame
    spent_wh: float
    notes: Sequence[str] = ()


@dataclass
class Ended:
    """A sweep that ended. `stopped` says why it did before it was done, or is None; `interrupt` is
    the exception that stopped it, for the caller to raise again."""

    jobs: pd.DataFrame
    runs: pd.DataFrame
    stopped: str | None = None
    interrupt: BaseException | None = None
    errors: dict[str, str] = field(default_factory=dict)  # of jobs without a run, by fingerprint
    given_up: set[str] = field(default_factory=set)  # fingerprints of what failed too often


def drive(
    specs: Sequence[Job],
    strategy: Strategy,
    engine: Engine,
    ledger: Ledger,
    limits: Limits,
    show: Callable[[Status], None],
    told: Callable[[Report], None],
    again: frozenset[str] = frozenset(),
) -> Ended:
    """Do the tasks of `strategy` on `engine` until there are none, or the budget is used up.

    `again` as in `plan.states`; `show` is called now and then, `told` for every report. However it
    ends, the running jobs are asked to close their runs first.
    A server that does not answer is waited for while jobs run. Raises `WorkFailed` where it does
    not without any, and where a budget cannot be kept since an energy is not known.
    """
    sweep = _Sweep(specs, strategy, engine, ledger, limits, show, told, again)
    try:
        while sweep.step():
            pass
    except (KeyboardInterrupt, SystemExit) as interrupt:
        sweep.ended.stopped, sweep.ended.interrupt = "interrupted", interrupt
    finally:
        sweep.close()
    return sweep.ended


@dataclass
class _Sweep:
    """The arguments of `drive`, the tasks at work by fingerprint, and how the sweep stands."""

    specs: Sequence[Job]
    strategy: Strategy
    engine: Engine
    ledger: Ledger
    limits: Limits
    show: Callable[[Status], None]
    told: Callable[[Report], None]
    again: frozenset[str]
    working: dict[str, Task] = field(default_factory=dict)
    failures: Counter[str] = field(default_factory=Counter)
    ended: Ended = field(default_factory=lambda: Ended(pd.DataFrame(), pd.DataFrame()))

    def step(self) -> bool:
        """Look, hand out what there is place for and take reports; False where that is all."""
        try:
            self._look()
            jobs, runs = self.ended.jobs, self.ended.runs
            spent = _spent(jobs, runs, self.limits.budget_wh)
            self.show(Status(jobs, runs, spent))
            failed = {key for key, n in self.failures.items() if n > self.limits.retries}
            self.ended.given_up = failed
            tasks = self.strategy(jobs.drop(index=list(failed)), runs)
        except WorkFailed as error:
            if not self.working or error.reason != "tracking":
                raise
            self._take(_LOOK_EVERY_S)  # the server may be back before they end
            return True
        budget_wh = self.limits.budget_wh
        left_wh = None if budget_wh is None else budget_wh - spent
        if left_wh is not None and left_wh <= 0:
            self.ended.stopped = (
                f"budget_wh={budget_wh:g}: the runs of this sweep took {spent:.4g} Wh"
            )
            return False
        if tasks and not self.working and self.engine.slots == 0:
            self.ended.stopped = "no place for a job is left: every node has gone"
            return False
        self._submit(tasks, left_wh)
        if self.working:
            if any(report.reason == "claimed" for report in self._take(_LOOK_EVERY_S)):
                time.sleep(_BACK_OFF_S)
        elif tasks:
            time.sleep(_LOOK_EVERY_S)  # another sweep is at it
        else:
            return False
        return True

    def close(self) -> None:
        """Have the tasks at work end soon, and look a last time."""
        self.engine.stop()
        deadline = time.monotonic() + 60
        while self.working and time.monotonic() < deadline:
            self._take(1.0)
        self.engine.close()
        with suppress(WorkFailed):  # of a server that is gone the last look counts
            self._look()

    def _look(self) -> None:
        """The jobs as the server has them, after closing the runs that nobody works on."""
        runs = self.ledger.read()
        of_sweep = runs[runs["spec"].isin([s.fingerprint for s in self.specs])]
        dead = plan.abandoned(of_sweep, time.time(), self.limits.stale_s, is_alive)
        if dead:
            self.ledger.close(dead)
            runs = self.ledger.read()
        jobs = plan.states(self.specs, runs, again=self.again)
        self.ended.jobs, self.ended.runs = jobs, runs

    def _submit(self, tasks: Sequence[Task], left_wh: float | None) -> None:
        for task in tasks:
            if len(self.working) >= self.engine.slots:
                return
            key = task.spec.fingerprint
            if key not in self.working and self.ended.jobs.loc[key, "state"] == "pending":
                limited = replace(task, left_wh=left_wh)
                self.engine.submit(limited)
                self.working[key] = limited

    def _take(self, timeout_s: float) -> list[Report]:
        """Wait for reports, and note what has ended and what failed."""
        reports = self.engine.poll(timeout_s)
        for report in reports:
            key = report.spec.fingerprint
            if report.reason != NOTE:
                self.working.pop(key, None)
                if report.reason not in ("finished", "paused", "probed", "claimed"):
                    self.ended.errors[key] = f"{report.reason}: {report.error}"
                    self.failures[key] += 1 if report.reason in TRANSIENT else 10**6
            self.told(report)
        return reports


def _spent(jobs: pd.DataFrame, runs: pd.DataFrame, budget_wh: float | None) -> float:
    if budget_wh is not None and jobs["energy_wh"].isna().any():
        of = runs[runs["spec"].isin(list(jobs.index))]
        unknown = of[plan.spent_wh(of).isna()].iloc[0]
        raise WorkFailed(
            f"budget_wh: the energy of run {unknown['run_id']} ({unknown['model']}) is not known, "
            "so the budget cannot be kept; run without one, or delete that run"
        )
    return float(jobs["energy_wh"].sum())
