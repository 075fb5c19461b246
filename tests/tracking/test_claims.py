"""Who may do a job: every interleaving of two and three processes, and what counts as alive."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from mlflow import MlflowClient

from pepr_mlops.errors import Claimed
from pepr_mlops.tracking import claims
from pepr_mlops.tracking.ownership import HELD, REQUESTED, Claim, verdict


def _schedules(left: dict[str, int]) -> Iterator[list[str]]:
    """All orders of so many steps of each process."""
    if not any(left.values()):
        yield []
        return
    for who in [w for w, n in left.items() if n]:
        for rest in _schedules({**left, who: left[who] - 1}):
            yield [who, *rest]


@pytest.mark.parametrize("processes", ["ab", "ba", "abc"])
def test_in_no_interleaving_do_two_hold_a_job(processes: str) -> None:
    """Steps: write a request; read; write the decision. Each of two processes reads twice."""
    steps = 3 if len(processes) == 3 else 5
    held_by_someone = 0
    for schedule in _schedules(dict.fromkeys(processes, steps)):
        board: dict[str, Claim] = {}
        seen: dict[str, list[Claim]] = {}
        out: set[str] = set()
        for who in schedule:
            if who in out:
                continue
            if who not in board:
                board[who] = Claim(who, "RUNNING", REQUESTED)
            elif who not in seen:
                seen[who] = list(board.values())
            elif board[who].claim == REQUESTED:
                found = verdict(who, seen.pop(who))
                if found == HELD:
                    board[who] = Claim(who, "RUNNING", HELD)
                elif found == "claimed":
                    del board[who]
                    out.add(who)
        held = [c for c in board.values() if c.claim == HELD]
        assert len(held) <= 1, schedule
        held_by_someone += len(held)
    assert held_by_someone > 0


def test_a_job_belongs_to_the_run_that_finished_or_does_it() -> None:
    own = Claim("5", "RUNNING", REQUESTED)
    assert verdict("5", [own]) == HELD
    assert verdict("5", [own, Claim("9", "FINISHED")]) == "claimed"
    assert verdict("5", [own, Claim("9", "RUNNING", HELD)]) == "claimed"
    assert verdict("5", [own, Claim("9", "RUNNING")]) == "claimed"  # of `pepr train`
    assert verdict("5", [own, Claim("9", "RUNNING", REQUESTED)]) == "wait"
    assert verdict("5", [own, Claim("1", "RUNNING", REQUESTED)]) == "claimed"


def test_a_silent_process_elsewhere_is_lost_after_a_while_and_one_that_is_gone_at_once() -> None:
    def counts_as_alive(claim: Claim, alive: bool | None = None) -> bool:
        return claim.is_alive(now_s=1000.0, stale_s=300.0, alive=lambda process: alive)

    beating = Claim("1", "RUNNING", HELD, "elsewhere 7 1", 701.0)
    silent = Claim("1", "RUNNING", HELD, "elsewhere 7 1", 700.0)
    assert counts_as_alive(beating)
    assert not counts_as_alive(beating, alive=False)
    assert not counts_as_alive(silent)
    assert counts_as_alive(silent, alive=True)  # of this machine: only the server was away
    assert counts_as_alive(Claim("1", "RUNNING"))  # it never had a heartbeat
    assert not counts_as_alive(Claim("1", "FAILED", HELD, "elsewhere 7 1", 999.0), alive=True)


def test_a_slow_answer_does_not_count_a_rival_as_silent(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The heartbeat was 10 s old when the server was called; it answers after 100 s."""
    clock_s = [1000.0]
    monkeypatch.setattr(claims.time, "time", lambda: clock_s[0])
    client = MlflowClient(store)
    tags = {"pepr.spec": "0123456789abcdef", "pepr.process": "elsewhere 7 1"}
    rival = client.create_run("0", tags={**tags, "pepr.claim": HELD, "pepr.heartbeat": "990000"})
    own = client.create_run("0", tags={**tags, "pepr.claim": REQUESTED})
    search = client.search_runs

    def slow_search(*arguments: Any, **options: Any) -> Any:
        clock_s[0] += 100
        return search(*arguments, **options)

    monkeypatch.setattr(client, "search_runs", slow_search)
    job = claims.Attempt(tags["pepr.spec"], exclusive=True, stale_s=100.0)
    with pytest.raises(Claimed, match=rival.info.run_id):
        claims.hold(client, own.info.run_id, job, begun=True)
