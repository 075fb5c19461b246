"""From a tracking server to the material of a report."""

from __future__ import annotations

import pandas as pd
import pytest
from made import logged, run

from pepr_mlops.comparison import Question
from pepr_mlops.errors import WorkFailed
from pepr_mlops.report import sources
from pepr_mlops.report.dashboards import Companion
from pepr_mlops.report.groups import groups


@pytest.fixture
def two(store: str) -> str:
    for model, e in (("a", 10.0), ("b", 30.0)):
        logged(store, run(model, energy_wh=e))
        logged(store, run(model, energy_wh=e, tags={"pepr.experiment": "old"}), "old")
    return store


def test_requested_experiments_are_read_with_their_companions(two: str) -> None:
    source = sources.read(["derma"], ["old", "absent", "derma"], tracking_uri=two)
    assert list(source.runs) == ["derma", "old"]
    assert source.missing == ("absent",)
    assert source.run_page is None
    assert set(source.epochs["run_id"]) == set(source.runs["derma"]["run_id"])
    question = Question(resources=("E", "T"), weights=(0.5, 0.5), draws=20)
    prepared, notes = sources.sort(source, question, {"old": Companion(resources=("M",))})
    assert notes == ["absent is not on this server, so it is not shown"]
    found = sources.material(source, prepared, question)
    assert found.main_sets == ["derma"]
    assert found.sets["scored_by"].tolist() == ["E+T", "M"]
    assert isinstance(found.publications, pd.DataFrame) is False


def test_weights_and_alpha_need_no_new_sorting(two: str) -> None:
    source = sources.read(["derma"], tracking_uri=two)
    prepared, _ = sources.sort(source, Question(draws=20))
    for alpha in (1.0, 3.0):
        rows = sources.material(source, prepared, Question(alpha=alpha, draws=20)).models
        expected = {"a": 0.8, "b": alpha * 0.8 / (alpha + 1)}
        assert rows.set_index("model")["score"].to_dict() == pytest.approx(expected)


def test_an_experiment_without_results_does_not_hide_the_others(two: str) -> None:
    logged(two, run("a", status="FAILED", tags={"pepr.experiment": "lost"}), "lost")
    prepared, notes = sources.sort(
        sources.read(["lost", "derma"], tracking_uri=two), Question(draws=20)
    )
    assert list(prepared) == ["derma"]
    assert [note.partition(":")[0] for note in notes] == ["lost is not shown"]


def test_only_a_requested_experiment_may_fail(two: str) -> None:
    logged(two, run("c", precision="bf16", tags={"pepr.experiment": "old"}), "old")
    source = sources.read(["derma"], ["old"], tracking_uri=two)
    prepared, notes = sources.sort(source, Question(), {"old": Companion()})
    assert list(prepared) == ["derma"]
    assert "old is not shown: experiment: old mixes precision" in notes[0]
    prepared, notes = sources.sort(source, Question(), {"old": Companion(mixed="stratify")})
    assert notes == []
    assert sources.material(source, prepared, Question()).sets_of(["old"]) == [
        "old [precision=bf16]",
        "old [precision=fp32]",
    ]
    with pytest.raises(WorkFailed, match="no run can be compared"):
        sources.sort(sources.read(["derma"], tracking_uri=two), Question(resources=("C",)))


def test_runs_that_differ_are_groups_the_most_complete_first(two: str) -> None:
    logged(two, run("c", precision="bf16"))
    source = sources.read(["derma"], tracking_uri=two)
    prepared, notes = sources.sort(source, Question(draws=20))
    assert notes == []
    found = sources.material(source, prepared, Question(draws=20))
    assert found.main_sets == ["derma [precision=fp32]", "derma [precision=bf16]"]
    assert [g["differs"] for g in groups(found)] == [["precision"], ["precision"]]
    assert [g["title"] for g in groups(found)] == ["precision fp32", "precision bf16"]
    assert [len(g["rows"]) for g in groups(found)] == [2, 1]
    (note,) = [n for n in found.parts[0].comparison.notes if "differ" in n]
    assert note == (
        "The runs of derma differ in precision, so that each group of alike runs is scored by "
        "itself"
    )
    together, _ = sources.sort(source, Question(mixed="allow", draws=20))
    assert list(together["derma"].members) == ["derma [MIXED precision]"]


def test_runs_that_all_failed_say_why_most_did_and_what_helps(store: str) -> None:
    failed = {"pepr.reason": "out_of_memory", "pepr.error": "memory: use bf16"}
    for model in "ab":
        logged(store, run(model, status="FAILED", tags=failed))
    logged(store, run("c", status="FAILED", tags={"pepr.reason": "busy", "pepr.error": "x"}))
    logged(store, run("d", status="RUNNING"))
    source = sources.read(["derma"], tracking_uri=store)
    with pytest.raises(WorkFailed) as error:
        sources.sort(source, Question())
    assert str(error.value).startswith(
        "no run can be compared: 4 found, 4 left out (2 failed: out of memory; 1 failed: busy; "
        "1 running); the most frequent error: memory: use bf16; `pepr runs` lists them"
    )


def test_a_run_has_a_page_where_the_server_has_pages(server: str) -> None:
    logged(server, run("a", tags={"pepr.experiment": "with_a_page"}), "with_a_page")
    source = sources.read(["with_a_page"], tracking_uri=server)
    assert source.run_page == f"{server}/#/runs/"
