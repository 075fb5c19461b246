"""Runs that begin at once agree on one choice of settings."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack

from mlflow import MlflowClient

from pepr_mlops import tracking

NAMES = ("precision", "layout")
CHOICE = {"precision": "bf16", "layout": "channels_last"}


def _start(stack: ExitStack) -> tracking.Run:
    return stack.enter_context(tracking.start("e", "e", "n", job=tracking.Attempt("0123")))


def test_one_of_many_chooses_and_the_others_wait_for_it(store: str) -> None:
    chose: list[str] = []
    found: list[dict[str, str]] = []
    notes: list[str] = []
    with ExitStack() as stack:
        runs = [_start(stack) for _ in range(4)]
        begin = threading.Barrier(len(runs))

        def work(run: tracking.Run) -> None:
            begin.wait()
            choice = tracking.choice_of_others(run, "key", NAMES, notes.append)
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
        assert found == [CHOICE] * 3
        assert all(note.startswith("waits for run ") for note in notes)
        for run in runs:
            tags = MlflowClient().get_run(run.run_id).data.tags
            assert tags["pepr.layout"] == "channels_last"
            assert tags.get("pepr.setting_from") == (None if run.run_id == chose[0] else chose[0])


def test_another_key_is_another_choice(store: str) -> None:
    with ExitStack() as stack:
        first, other = _start(stack), _start(stack)
        assert tracking.choice_of_others(first, "key", NAMES, print) is None
        assert tracking.choice_of_others(other, "another", NAMES, print) is None


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
        assert tracking.choice_of_others(run, "key", NAMES, print) is None
