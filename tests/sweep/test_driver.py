"""The loop of a sweep, with an engine and a server that are lists."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pandas as pd
import pytest
from made import frame, job, run

from pepr_mlops.errors import WorkFailed
from pepr_mlops.process import is_alive
from pepr_mlops.spec import Job
from pepr_mlops.sweep import driver, plan
from pepr_mlops.sweep.engine import Report, Task

SPECS = [job(model=model) for model in "abc"]


@dataclass
class Server:
    runs: list[dict[str, object]] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)

    def log(self, spec: Job, status: str, **changed: object) -> None:
        tags = {"pepr.spec": spec.fingerprint, **changed.pop("tags", {})}  # type: ignore[dict-item]
        made = run(spec.model, status=status, tags=tags, start=len(self.runs), **changed)
        self.runs.append({**made, "params": spec.as_params()})

    def read(self) -> pd.DataFrame:
        return frame(self.runs) if self.runs else frame([run()]).assign(spec=None).iloc[:0]

    def close(self, run_ids: Sequence[str]) -> None:
        self.closed += run_ids
        for i in run_ids:
            self.runs[int(i.removeprefix("run"))]["status"] = "FAILED"


@dataclass
class Engine:
    """Ends every task at the next poll as `outcome` says."""

    outcome: Callable[[Task], Report]
    slots: int = 1
    submitted: list[Task] = field(default_factory=list)
    running: list[Task] = field(default_factory=list)
    most: int = 0
    stopped: bool = False
    closed: bool = False

    is_alive = staticmethod(is_alive)

    def submit(self, task: Task) -> None:
        self.submitted.append(task)
        self.running.append(task)
        self.most = max(self.most, len(self.running))

    def poll(self, timeout_s: float) -> list[Report]:
        reports = [self.outcome(task) for task in self.running]
        self.running = []
        return reports

    def stop(self) -> None:
        self.stopped = True

    def close(self) -> None:
        self.closed = True


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "_BACK_OFF_S", 0.0)
    monkeypatch.setattr(driver, "_POLL_EVERY_S", 0.0)


def _drive(
    server: Server, engine: Engine, *, retry_failed: bool = False, **limits: object
) -> driver.Result:
    return driver.Driver(
        SPECS,
        plan.exhaustive,
        engine,
        server,
        driver.Limits(**limits),  # type: ignore[arg-type]
        lambda status: None,
        lambda report: None,
        retry_failed,
    ).run()


def _finishes(server: Server) -> Callable[[Task], Report]:
    def finish(task: Task) -> Report:
        server.log(task.spec, "FINISHED", energy_wh=4.0)
        return Report(task.spec, "finished")

    return finish


def test_a_job_that_is_done_but_cannot_be_delivered_is_not_submitted_for_ever() -> None:
    """Offline, the server may never get the run that holds the job."""
    server = Server()

    def claimed(task: Task) -> Report:
        if task.spec == SPECS[1]:
            return Report(task.spec, "claimed", "another run has done this job")
        return _finishes(server)(task)

    result = _drive(server, engine := Engine(claimed, slots=3))
    assert list(result.jobs["state"]) == ["done", "pending", "done"]
    assert result.errors == {SPECS[1].fingerprint: "claimed: another run has done this job"}
    assert [task.spec for task in engine.submitted].count(SPECS[1]) == 11


@pytest.mark.parametrize("slots", [1, 2, 5])
def test_each_job_is_done_once_on_all_slots(slots: int) -> None:
    server = Server()
    engine = Engine(_finishes(server), slots)
    result = _drive(server, engine)
    assert [t.spec for t in engine.submitted] == SPECS
    assert engine.most == min(slots, 3)
    assert list(result.jobs["state"]) == ["done"] * 3
    assert result.stopped is None
    assert engine.closed
    assert not _drive(server, engine).errors
    assert len(engine.submitted) == 3  # nothing is done again


def test_a_strategy_sees_jobs_that_were_given_up_as_failed() -> None:
    server, seen = Server(), []

    def lost(task: Task) -> Report:
        if task.spec == SPECS[1]:
            return Report(task.spec, "lost", "its process died")
        return _finishes(server)(task)

    def strategy(jobs: pd.DataFrame, runs: pd.DataFrame) -> list[Task]:
        seen.append(list(jobs["state"]))
        return plan.exhaustive(jobs, runs)

    nothing = (lambda status: None, lambda report: None)
    limits = driver.Limits(retries=0)
    result = driver.Driver(SPECS, strategy, Engine(lost, slots=3), server, limits, *nothing).run()
    assert seen == [["pending"] * 3, ["done", "failed", "done"]]
    assert list(result.jobs["state"]) == ["done", "pending", "done"]
    assert list(result.judged["state"]) == ["done", "failed", "done"]


def test_a_task_that_waits_for_its_device_keeps_its_slot() -> None:
    server = Server()

    class Busy(Engine):
        def poll(self, timeout_s: float) -> list[Report]:
            waits = [Report(task.spec, "note", "Waiting for the CPU.") for task in self.running]
            if len(reports) % 2 == 0:
                return waits
            return super().poll(timeout_s)

    engine, reports = Busy(_finishes(server)), []
    none = driver.Limits()
    result = driver.Driver(
        SPECS, plan.exhaustive, engine, server, none, lambda status: None, reports.append
    ).run()
    assert [report.reason for report in reports] == ["note", "finished"] * 3
    assert [t.spec for t in engine.submitted] == SPECS
    assert not result.errors


def test_transient_failures_are_retried_and_others_are_not() -> None:
    server = Server()
    reasons = {"a": "lost", "b": "out_of_memory", "c": "missing_data"}
    engine = Engine(lambda task: Report(task.spec, reasons[task.spec.model], "so"))
    result = _drive(server, engine, retries=2)
    assert [t.spec.model for t in engine.submitted].count("a") == 3
    assert [t.spec.model for t in engine.submitted].count("b") == 1
    assert [t.spec.model for t in engine.submitted].count("c") == 1
    assert result.errors[SPECS[1].fingerprint] == "out_of_memory: so"


def test_a_final_failure_is_retried_only_on_request() -> None:
    server = Server()
    server.log(SPECS[0], "FAILED", tags={"pepr.reason": "out_of_memory"})
    engine = Engine(_finishes(server))
    assert list(_drive(server, engine).jobs["state"]) == ["failed", "done", "done"]
    assert list(_drive(server, engine, retry_failed=True).jobs["state"]) == ["done"] * 3


def test_a_run_without_a_process_is_closed_and_its_job_is_retried() -> None:
    server = Server()
    server.log(SPECS[0], "RUNNING", tags={"pepr.process": "x", "pepr.heartbeat": "0"})
    engine = Engine(_finishes(server))
    result = _drive(server, engine)
    assert server.closed == ["run0"]
    assert list(result.jobs["state"]) == ["done"] * 3


def test_a_sweep_waits_for_the_jobs_of_another_sweep() -> None:
    server = Server()
    server.log(SPECS[0], "RUNNING")  # it is alive, as far as we know
    calls = 0

    def show(status: driver.Status) -> None:
        nonlocal calls
        calls += 1
        if calls == 6:
            server.runs[0]["status"] = "FINISHED"

    engine = Engine(_finishes(server))
    result = driver.Driver(
        SPECS, plan.exhaustive, engine, server, driver.Limits(), show, lambda report: None
    ).run()
    assert [t.spec.model for t in engine.submitted] == ["b", "c"]
    assert list(result.jobs["state"]) == ["done"] * 3


def test_a_budget_counts_all_runs_and_limits_each_task() -> None:
    server = Server()
    server.log(SPECS[0], "FINISHED", energy_wh=3.0, metrics={"energy/eval_wh": 1.0})
    engine = Engine(_finishes(server))  # 4 Wh each
    result = _drive(server, engine, budget_wh=7.0)
    assert [t.left_wh for t in engine.submitted] == [3.0]
    assert result.stopped == "budget_wh=7: the runs of this sweep took 8 Wh"
    assert list(result.jobs["state"]) == ["done", "done", "pending"]


def test_a_budget_is_refused_where_an_energy_is_not_known() -> None:
    server = Server()
    server.log(SPECS[0], "FINISHED", energy_wh=None)
    with pytest.raises(WorkFailed, match=r"energy of run run0 \(a\) is not known"):
        _drive(server, Engine(_finishes(server)), budget_wh=7.0)


def test_the_run_whose_energy_is_not_known_is_named() -> None:
    server = Server()
    server.log(SPECS[0], "FAILED", energy_wh=None, tags={"pepr.reason": "lost"})
    server.log(SPECS[0], "FINISHED", energy_wh=10.0)
    with pytest.raises(WorkFailed, match=r"energy of run run0 \(a\) is not known"):
        _drive(server, Engine(_finishes(server)), budget_wh=70.0)


@pytest.mark.parametrize("reason", ["tracking", "failed"])
def test_a_strategy_also_waits_for_a_server_that_is_down(reason: str) -> None:
    server = Server()
    engine = Engine(_finishes(server))
    calls = 0

    def strategy(jobs: pd.DataFrame, runs: pd.DataFrame) -> list[Task]:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise WorkFailed("no answer", reason=reason)
        return plan.exhaustive(jobs, runs)

    waiting: list[list[Report]] = [[]]  # the first job continues meanwhile
    engine.poll = lambda timeout_s: waiting.pop() if waiting else Engine.poll(engine, timeout_s)  # type: ignore[method-assign]
    nothing = (lambda status: None, lambda report: None)
    if reason == "tracking":
        result = driver.Driver(SPECS, strategy, engine, server, driver.Limits(), *nothing).run()
        assert list(result.jobs["state"]) == ["done"] * 3
    else:
        with pytest.raises(WorkFailed, match="no answer"):
            driver.Driver(SPECS, strategy, engine, server, driver.Limits(), *nothing).run()


def test_an_interrupt_stops_the_engine_first() -> None:
    server = Server()

    def interrupt(task: Task) -> Report:
        if not engine.stopped:
            raise KeyboardInterrupt
        return Report(task.spec, "killed", "it received a signal to end")

    engine = Engine(interrupt)
    result = _drive(server, engine)
    assert isinstance(result.interrupt, KeyboardInterrupt)
    assert engine.stopped
    assert engine.closed
    assert result.errors == {SPECS[0].fingerprint: "killed: it received a signal to end"}


def test_a_sweep_waits_for_the_server_while_jobs_run() -> None:
    server = Server()
    down = [False, True, True, False]

    def read() -> pd.DataFrame:
        if down and down.pop(0):
            raise WorkFailed("no answer", reason="tracking")
        return Server.read(server)

    server.read = read  # type: ignore[method-assign]
    engine = Engine(_finishes(server))
    waiting: list[list[Report]] = [[], [], []]  # the first job continues meanwhile
    engine.poll = lambda timeout_s: waiting.pop() if waiting else Engine.poll(engine, timeout_s)  # type: ignore[method-assign]
    result = _drive(server, engine)
    assert list(result.jobs["state"]) == ["done"] * 3


def test_a_server_that_is_down_from_the_start_is_an_error() -> None:
    server = Server()

    def read() -> pd.DataFrame:
        raise WorkFailed("no answer", reason="tracking")

    server.read = read  # type: ignore[method-assign]
    engine = Engine(_finishes(server))
    with pytest.raises(WorkFailed, match="no answer"):
        _drive(server, engine)
    assert engine.closed


def test_a_sweep_without_slots_stops_and_names_the_reason() -> None:
    server = Server()
    result = _drive(server, Engine(_finishes(server), slots=0))
    assert result.stopped == "no nodes left to run jobs on"
    assert list(result.jobs["state"]) == ["pending"] * 3
