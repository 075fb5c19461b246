"""The first screen where there is nothing to show."""

from __future__ import annotations

import pandas as pd
from made import frame, run

from pepr_mlops.live import states

EVIL = "<script>alert(1)</script>"


def _experiments(**runs: int | None) -> pd.DataFrame:
    newest = pd.to_datetime(["2026-11-02T10:00Z"] * len(runs), utc=True)
    return pd.DataFrame(
        {"name": list(runs), "runs": pd.array(list(runs.values()), dtype="Int64"), "newest": newest}
    )


def test_a_server_without_runs_gets_the_command_of_a_first_one() -> None:
    for experiments in (_experiments(), _experiments(Default=0)):
        state = states.choice(experiments)
        assert state.command.startswith("pepr train ")
        assert state.links == ()


def test_experiments_are_links_with_their_runs() -> None:
    state = states.choice(_experiments(derma=1310, mri=1, many=None, Default=0))
    assert [(link.name, link.about) for link in state.links] == [
        ("derma", "1,310 runs, latest 2026-11-02"),
        ("mri", "1 run, latest 2026-11-02"),
        ("many", "latest 2026-11-02"),
    ]
    assert states.Link("a&b c").address == "?experiment=a%26b+c"


def test_an_unknown_experiment_gets_the_names_like_it() -> None:
    state = states.unknown(["dermma"], _experiments(derma=1, mri=2))
    assert "dermma" in state.title
    assert [link.name for link in state.links] == ["derma"]
    state = states.unknown(["xyz"], _experiments(derma=1, mri=2))
    assert [link.name for link in state.links] == ["derma", "mri"]


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
    state = states.nothing_finished(runs, 0, "no run can be compared")
    assert state.eyebrow == "Nothing finished"
    assert state.title == "All 3 runs ended without a result"
    assert state.sentence == "2 of them ended for the same reason."
    assert state.quoted == "out_of_memory: it broke"
    lost = states.nothing_finished(_failed("lost", "lost"), 0, "")
    assert lost.sentence.startswith("Both ended for the same reason. Their process ended without")
    one = states.nothing_finished(_failed(None), 0, "")
    assert (one.title, one.sentence) == (
        "The only run ended without a result",
        "It does not say why.",
    )


def test_an_error_without_a_reason_is_quoted() -> None:
    runs = _failed(None, None, None)
    runs["error"] = ["it broke", "no memory", "no memory"]
    state = states.nothing_finished(runs, 0, "")
    assert (state.sentence, state.quoted) == ("The most frequent error:", "no memory")


def test_runs_under_way_are_no_failure() -> None:
    runs = _failed("crashed", "", "")
    runs["status"] = ["FAILED", "RUNNING", "RUNNING"]
    state = states.nothing_finished(runs, 2, "")
    assert state.eyebrow == "So far"
    assert state.sentence == "2 runs are under way. 1 run ended without a result."


def test_other_reasons_are_quoted() -> None:
    runs = _failed("crashed", "crashed")
    runs["status"] = ["FAILED", "FINISHED"]
    state = states.nothing_finished(runs, 0, "no run can be compared: 2 found")
    assert state.quoted == "no run can be compared: 2 found"
    assert states.nothing_finished(runs.head(0), 0, "").eyebrow == "No runs yet"


def test_names_and_errors_are_text() -> None:
    for state in (
        states.unknown([EVIL], _experiments(**{EVIL: 1})),
        states.unreachable(EVIL),
        states.reading([EVIL]),
        states.nothing_finished(_failed(EVIL), 0, EVIL),
    ):
        main = state.content(EVIL).main
        assert "<script" not in main
        assert "&lt;script&gt;" in main
