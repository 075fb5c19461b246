"""Runs that begin at once agree on one choice of settings."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack
from typing import Any

import pytest
from mlflow import MlflowClient

from pepr_mlops import tracking

NAMES = ("precision", "layout")
CHOICE = {"precision": "bf16", "layout": "channels_last"}


def _start(stack: ExitStack) -> tracking.Run:
    return stack.enter_context(tracking.start("e", "e", "n", job=tracking.Attempt("0123")))


MANY = 16  # so many that some always read while others write


def test_one_of_many_chooses_and_the_others_wait_for_it(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def search(*args: Any, **kwargs: Any) -> Any:
        time.sleep(0.3)  # as on a server far away
        return search_runs(*args, **kwargs)

    search_runs = MlflowClient.search_runs
    monkeypatch.setattr(MlflowClient, "search_runs", search)
    chose: list[str] = []
    found: list[dict[str, str]] = []
    notes: list[str] = []
    with ExitStack() as stack:
        runs = [_start(stack) for _ in range(MANY)]
        begin = threading.Barrier(len(runs))

        def work(run: tracking.Run) -> None:
            begin.wait()
            choice = tracking.shared_settings(run, "key", NAMES, notes.append)
            if choice is None:
                chose.append(run.run_id)
                time.sleep(1.0)  # the trial
                run.tag({f"pepr.{name}": value for name, value in CHOICE.items()})
            else:
                found.append(choice)

        threads = [threading.Thread(target=work, args=(run,)) for run in runs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert len(chose) == 1
        assert found == [CHOICE] * (MANY - 1)
        assert all(note.startswith("waits for run ") for note in notes)
        assert len(notes) <= MANY - 1
        for run in runs:
            tags = MlflowClient().get_run(run.run_id).data.tags
            assert tags["pepr.layout"] == "channels_last"
            assert tags.get("pepr.setting_from") == (None if run.run_id == chose[0] else chose[0])


def test_the_earliest_of_several_choices_counts(store: str) -> None:
    """Two that could not see each other have both chosen, say one of them offline."""
    with ExitStack() as stack:
        runs = [_start(stack) for _ in range(3)]
        for run, precision in zip(runs[:2], ("fp32", "bf16"), strict=True):
            run.tag({"pepr.trial": "key", "pepr.precision": precision, "pepr.layout": "x"})
        found = tracking.shared_settings(runs[2], "key", NAMES, print)
        assert found == {"precision": "fp32", "layout": "x"}


def test_another_key_is_another_choice(store: str) -> None:
    with ExitStack() as stack:
        first, other = _start(stack), _start(stack)
        assert tracking.shared_settings(first, "key", NAMES, print) is None
        assert tracking.shared_settings(other, "another", NAMES, print) is None


def test_a_process_that_vanished_in_its_trial_is_not_waited_for(store: str) -> None:
    client = MlflowClient()
    with ExitStack() as stack:
        run = _start(stack)
        gone = client.create_run(run.experiment_id).info.run_id
        machine = client.get_run(run.run_id).data.tags["pepr.process"].split()[0]
        tags = {
            "pepr.trial": "key",
            "pepr.trial_claim": "held",
            "pepr.process": f"{machine} 4194300 1",
            "pepr.heartbeat": str(int(time.time() * 1000)),
        }
        for name, value in tags.items():
            client.set_tag(gone, name, value)
        assert tracking.shared_settings(run, "key", NAMES, print) is None
