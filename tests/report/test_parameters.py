"""Parameters and cost of the models of one set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
from made import frame, run
from scipy import stats

from pepr_mlops.comparison import Question, compare
from pepr_mlops.report import page
from pepr_mlops.report.dashboards import FigureSpec
from pepr_mlops.report.figures import parameters as space
from pepr_mlops.report.material import Material, NothingToDraw, Part, gather
from pepr_mlops.tracking import read


def _run(model: str, parameters: int | None, **changed: Any) -> dict[str, Any]:
    tag = None if parameters is None else str(parameters)
    return run(model, tags={"pepr.parameters": tag}, **changed)


def _part(runs: pd.DataFrame, question: Question) -> Part:
    return Part(compare(runs, question), question, runs)


def _material(runs: Sequence[dict[str, Any]], run_page: str | None = None) -> Material:
    question = Question(draws=10)
    return gather([_part(frame(runs), question)], run_page=run_page)


FOUR = [
    _run("ghostnet_100", 5_000_000, energy_wh=10.0),
    _run("resnet18d", 12_000_000, energy_wh=30.0),
    _run("<script>mine", 40_000_000, energy_wh=20.0),
    _run("unknown", None, energy_wh=99.0),
]


def test_models_by_their_parameters() -> None:
    points = space.data(_material(FOUR), "derma", "E")
    assert points["label"].tolist() == ["ghostnet_100", "resnet18d", "<script>mine"]
    assert points["parameters"].tolist() == [5e6, 12e6, 40e6]
    assert points["cost"].tolist() == [10, 30, 20]
    assert points["size"].tolist() == ["small", "small", "large"]  # the median is small
    assert points["efficient"].tolist()[:2] == ["yes", "no"]
    assert points["efficient"].isna().tolist() == [False, False, True]
    assert points["run_id"].tolist() == ["run0", "run1", "run2"]


def test_the_figure_has_a_trace_for_each_category_and_no_markup() -> None:
    panel = space.panel(_material(FOUR), space.Options(), "derma")
    traces = {t.name: t for t in panel.figure.data}
    assert {n: list(t.y) for n, t in traces.items()} == {
        "efficient": [10],
        "not efficient": [30],
        "not classified": [20],
    }
    assert list(traces["not classified"].text) == ["&lt;script&gt;mine"]
    assert len({t.marker.symbol for t in traces.values()}) == 3
    (large,) = panel.figure.layout.shapes
    assert large.x0 == 12e6
    assert panel.figure.layout.xaxis.type == "log"
    assert "<script>" not in str(panel.figure.to_dict())


def test_the_caption_has_the_median_and_who_is_left_out() -> None:
    spec = FigureSpec("space", space.Options())
    panel = page.panel(_material(FOUR), spec, "derma")
    assert panel.caption == (
        "The training energy does not clearly depend on the size of a model (Spearman's rank "
        "correlation 0.50, p = 1.00, 3 models)."
    )
    assert "12,000,000 parameters" in panel.reading
    assert "20 Wh for small models (n = 2) and 20 Wh for large ones (n = 1)" in panel.reading
    assert "Left out: 1 without a known number of parameters" in panel.reading
    assert panel.sets == ("derma",)


def test_points_lead_to_their_runs() -> None:
    panel = space.panel(_material(FOUR, run_page="/#/runs/"), space.Options(), "derma")
    ids = {t.name: list(t.ids) for t in panel.figure.data}
    assert ids["efficient"] == ["run0"]


def test_another_resource_and_a_logarithmic_axis() -> None:
    runs = [_run("a", 10, memory_gb=2.0), _run("b", 20, memory_gb=4.0)]
    panel = space.panel(_material(runs), space.Options(resource="M", log=True), "derma")
    assert panel.table["cost"].tolist() == [2, 4]
    assert panel.figure.layout.yaxis.type == "log"
    assert space.panel(_material(runs), space.Options(), "derma").figure.layout.yaxis.type != "log"


@pytest.mark.parametrize(
    ("runs", "options", "reason"),
    [
        ([_run("a", None)], space.Options(), "how many parameters"),
        (FOUR, space.Options(resource="X"), "not every model has a cost X; valid: E, M, T"),
        (
            [_run("a", 5, train_time_s=None), _run("b", 6)],
            space.Options(resource="T"),
            "cost T",
        ),
        (
            [_run("a", 5, metrics={"pages": 0.0}), _run("b", 6, metrics={"pages": 1.0})],
            space.Options(log=True),
            "1 models that cost nothing",
        ),
    ],
)
def test_a_figure_that_cannot_be_drawn_has_a_reason(
    runs: list[dict[str, Any]], options: space.Options, reason: str
) -> None:
    pages = "pages" in runs[0]["metrics"]
    question = Question(resources=("pages",) if pages else ("E",), draws=10)
    material = gather([_part(frame(runs), question)])
    with pytest.raises(NothingToDraw, match=reason):
        space.panel(material, options, "derma")


def test_the_papers_space(paper_store: str, paper_results) -> None:  # type: ignore[no-untyped-def]
    question = Question(normalisation="zero", draws=10)
    runs = read.load_runs("derma_pt", tracking_uri=paper_store)
    panel = space.panel(gather([_part(runs, question)]), space.Options(), "derma_pt")
    table = pd.read_csv(paper_results / "all_results.csv")
    table = table[table["dataset"] == "derma_pt"].set_index("model")
    mine = panel.table.set_index("label")
    assert len(mine) == 131
    expected = table.loc[mine.index]
    assert mine["cost"].to_numpy() == pytest.approx(expected["energy"].to_numpy() * 1000)
    assert mine["size"].value_counts().to_dict() == {"small": 66, "large": 65}
    assert mine["efficient"].value_counts().to_dict() == {"no": 100, "yes": 31}
    assert "24,671,464 parameters" in panel.reading
    rho = stats.spearmanr(table["num_param"], table["energy"]).statistic
    assert f"(Spearman's rank correlation {rho:.2f}, " in panel.caption
    assert len(panel.figure.to_json()) < 30_000
    drawn = np.concatenate([t.y for t in panel.figure.data])
    assert np.sort(drawn) == pytest.approx(np.sort(expected["energy"] * 1000), rel=1e-4)
