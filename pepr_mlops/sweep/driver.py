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
from pepr_mlops.process import lives
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
    working: dict[str, Task] = {}
    failures: Counter[str] = Counter()
    ended = Ended(pd.DataFrame(), pd.DataFrame())
    try:
        while True:
            try:
                jobs, runs = _look(specs, ledger, limits.stale_s, again)
                ended.jobs, ended.runs = jobs, runs
                spent = _spent(jobs, runs, limits.budget_wh)
                show(Status(jobs, runs, spent))
                ended.given_up = {key for key, n in failures.items() if n > limits.retries}
                tasks = strategy(jobs.drop(index=list(ended.given_up)), runs)
            except WorkFailed as error:
                if not working or error.reason != "tracking":
                    raise
                for report in engine.poll(_LOOK_EVERY_S):  # the server may be back before they end
                    _take(report, working, failures, ended)
                    told(report)
                continue
            left_wh = None if limits.budget_wh is None else limits.budget_wh - spent
            if left_wh is not None and left_wh <= 0:
                ended.stopped = (
                    f"budget_wh={limits.budget_wh:g}: the runs of this sweep took {spent:.4g} Wh"
                )
                return ended
            if tasks and not working and engine.slots == 0:
                ended.stopped = "no place for a job is left: every node has gone"
                return ended
            for task in tasks:
                if len(working) >= engine.slots:
                    break
                key = task.spec.fingerprint
                if key not in working and jobs.loc[key, "state"] == "pending":
                    limited = replace(task, left_wh=left_wh)
                    engine.submit(limited)
                    working[key] = limited
            if not tasks and not working:
                return ended
            if not working:
                time.sleep(_LOOK_EVERY_S)  # another sweep is at it
                continue
            for report in engine.poll(_LOOK_EVERY_S):
                _take(report, working, failures, ended)
                told(report)
                if report.reason == "claimed":
                    time.sleep(_BACK_OFF_S)
    except (KeyboardInterrupt, SystemExit) as interrupt:
        ended.stopped, ended.interrupt = "interrupted", interrupt
        return ended
    finally:
        engine.stop()
        deadline = time.monotonic() + 60
        while working and time.monotonic() < deadline:
            for report in engine.poll(1.0):
                _take(report, working, failures, ended)
                told(report)
        engine.close()
        with suppress(WorkFailed):  # of a server that is gone the last look counts
            ended.jobs, ended.runs = _look(specs, ledger, limits.stale_s, again)


def _look(
    specs: Sequence[Job],
    ledger: Ledger,
    stale_s: float,
    again: frozenset[str],
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The jobs as the server has them, after closing the runs that nobody works on."""
    runs = ledger.read()
    dead = plan.abandoned(
        runs[runs["spec"].isin([s.fingerprint for s in specs])], time.time(), stale_s, lives
    )
    if dead:
        ledger.close(dead)
        runs = ledger.read()
    return plan.states(specs, runs, again=again), runs


def _spent(jobs: pd.DataFrame, runs: pd.DataFrame, budget_wh: float | None) -> float:
    if budget_wh is not None and jobs["energy_wh"].isna().any():
        of = runs[runs["spec"].isin(list(jobs.index))]
        unknown = of[plan.spent_wh(of).isna()].iloc[0]
        raise WorkFailed(
            f"budget_wh: the energy of run {unknown['run_id']} ({unknown['model']}) is not known, "
            "so the budget cannot be kept; run without one, or delete that run"
        )
    return float(jobs["energy_wh"].sum())


def _take(report: Report, working: dict[str, Task], failures: Counter[str], ended: Ended) -> None:
    if report.reason == NOTE:
        return
    key = report.spec.fingerprint
    working.pop(key, None)
    if report.reason in ("finished", "paused", "probed", "claimed"):
        return
    ended.errors[key] = f"{report.reason}: {report.error}"
    failures[key] += 1 if report.reason in TRANSIENT else 10**6
