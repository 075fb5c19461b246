"""The first screen where there is nothing to show."""

from __future__ import annotations

import pandas as pd
from made import frame, run

from pepr_mlops.live import states

COMMAND = "pepr train --model m"
EVIL = "<script>alert(1)</script>"


def _experiments(**runs: int | None) -> pd.DataFrame:
    newest = pd.to_datetime(["2026-11-02T10:00Z"] * len(runs), utc=True)
    return pd.DataFrame(
        {"name": list(runs), "runs": pd.array(list(runs.values()), dtype="Int64"), "newest": newest}
    )


def test_a_server_without_runs_gets_the_command_of_a_first_one() -> None:
    for experiments in (_experiments(), _experiments(Default=0)):
        state = states.choice(experiments, COMMAND)
        assert state.command == COMMAND
        assert state.links == ()


def test_the_first_command_logs_to_where_the_page_looks() -> None:
    start = "pepr train --model resnet18d --dataset digits --image-size 32 --no-pretrained"
    server = "sqlite:////here/my runs.db"
    assert states.first_command((), server) == f"{start} --tracking-uri '{server}'"
    assert states.first_command(("a b", "c"), "http://host:5000") == (
        f"{start} --experiment 'a b' --tracking-uri http://host:5000"
    )


def test_a_store_that_is_not_there_yet_is_named_with_the_command_that_makes_it() -> None:
    state = states.no_store("sqlite:////here/mlflow.db", COMMAND)
    assert state.sentence.startswith("The first run creates sqlite:////here/mlflow.db, and appears")
    assert (state.command, state.doubt) == (COMMAND, False)


def test_experiments_are_links_with_their_runs() -> None:
    state = states.choice(_experiments(derma=1310, mri=1, many=None, Default=0), COMMAND)
    assert [(link.name, link.about) for link in state.links] == [
        ("derma", "1,310 runs, latest 2026-11-02"),
        ("mri", "1 run, latest 2026-11-02"),
        ("many", "latest 2026-11-02"),
    ]
    assert states.Link("a&b c").address == "?experiment=a%26b+c"


def test_an_unknown_experiment_gets_the_names_like_it() -> None:
    state = states.unknown(["dermma"], _experiments(derma=1, mri=2), COMMAND)
    assert "dermma" in state.title
    assert [link.name for link in state.links] == ["derma"]
    state = states.unknown(["xyz"], _experiments(derma=1, mri=2), COMMAND)
    assert [link.name for link in state.links] == ["derma", "mri"]
    assert state.command == ""
    state = states.unknown(["xyz"], _experiments(), COMMAND)
    assert state.sentence == "It appears here as soon as its first run begins."
    assert state.command == COMMAND


def _failed(*reasons: str | None, status: str = "FAILED") -> pd.DataFrame:
    return frame(
        [
            run(
                f"m{i}",
                status=status,
                tags={"pepr.reason": reason, "pepr.error": reason and f"{reason}: it broke"},
            )
            for i, reason in enumerate(reasons)
        ]
    )


def test_failed_runs_say_the_reason_most_of_them_share() -> None:
    runs = _failed("out_of_memory", "crashed", "out_of_memory")
    state = states.nothing_finished(runs, 0, "no run can be compared", COMMAND)
    assert state.eyebrow == "Nothing finished"
    assert state.title == "All 3 runs ended without a result"
    assert state.sentence == "2 failed: out of memory; 1 failed: crashed."
    assert state.quoted == "out_of_memory: it broke"
    lost = states.nothing_finished(_failed("lost", "lost"), 0, "", COMMAND)
    assert lost.sentence.startswith("2 failed: lost. Their process ended without")
    one = states.nothing_finished(_failed(None), 0, "", COMMAND)
    assert (one.title, one.sentence) == (
        "The only run ended without a result",
        "1 failed.",
    )


def test_an_error_without_a_reason_is_quoted() -> None:
    runs = _failed(None, None, None)
    runs["error"] = ["it broke", "no memory", "no memory"]
    state = states.nothing_finished(runs, 0, "", COMMAND)
    assert (state.sentence, state.quoted) == ("3 failed.", "no memory")


def test_runs_under_way_are_no_failure() -> None:
    runs = _failed("crashed", "", "")
    runs["status"] = ["FAILED", "RUNNING", "RUNNING"]
    state = states.nothing_finished(runs, 2, "", COMMAND)
    assert state.eyebrow == "So far"
    assert state.sentence == "2 running; 1 failed: crashed."


def test_other_reasons_are_quoted() -> None:
    runs = _failed("crashed", "crashed")
    runs["status"] = ["FAILED", "FINISHED"]
    state = states.nothing_finished(runs, 0, "no run can be compared: 2 found", COMMAND)
    assert state.quoted == "no run can be compared: 2 found"
    empty = states.nothing_finished(runs.head(0), 0, "", COMMAND)
    assert (empty.eyebrow, empty.command) == ("No runs yet", COMMAND)


def test_names_and_errors_are_text() -> None:
    for state in (
        states.unknown([EVIL], _experiments(**{EVIL: 1}), EVIL),
        states.unreachable(EVIL),
        states.reading([EVIL]),
        states.nothing_finished(_failed(EVIL), 0, EVIL, EVIL),
    ):
        main = state.content(EVIL).main
        assert "<script" not in main
        assert "&lt;script&gt;" in main
