"""From a tracking server to the material of a report."""

from __future__ import annotations

import pandas as pd
import pytest
from made import logged, run

from pepr_mlops.comparison import Question
from pepr_mlops.errors import WorkFailed, WrongUse
from pepr_mlops.report import sources
from pepr_mlops.report.dashboards import Companion


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
    with pytest.raises(WrongUse, match="mixes precision"):
        sources.sort(sources.read(["old"], tracking_uri=two), Question())
    with pytest.raises(WorkFailed, match="no run can be compared"):
        sources.sort(sources.read(["derma"], tracking_uri=two), Question(resources=("C",)))


def test_a_run_has_a_page_where_the_server_has_pages(server: str) -> None:
    logged(server, run("a", tags={"pepr.experiment": "with_a_page"}), "with_a_page")
    source = sources.read(["with_a_page"], tracking_uri=server)
    assert source.run_page == f"{server}/#/runs/"
