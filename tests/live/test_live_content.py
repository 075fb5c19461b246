"""What the page shows of a view, by the numbers of the scores and selections behind it."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest
from made import frame, run

from pepr_mlops.comparison import compare, pepr, selection
from pepr_mlops.comparison.intervals import NOT_DRAWN
from pepr_mlops.errors import WrongUse
from pepr_mlops.live import content, view_state
from pepr_mlops.live.view_state import View
from pepr_mlops.report import theme
from pepr_mlops.report.dashboards import parse
from pepr_mlops.report.material import Material, Part, gather

EVIL = "<b>mine</b>"
MODELS = {  # P, Wh, GB
    "resnet18d": (0.80, 20.0, 4.0),
    "ghostnet_100": (0.70, 10.0, 2.0),
    EVIL: (0.90, 50.0, 1.0),
    "vit_tiny_patch16_224": (0.60, 30.0, 8.0),
}
VIEW = View(experiments=("derma",), resources=("E", "M"), weights=(0.6, 0.2), alpha=2.0)
PLANE = parse({"figure": [{"kind": "plane"}]}, "test").figures[0]


def _material(view: View) -> Material:
    runs = frame(
        [
            run(model, performance=p, energy_wh=e, memory_gb=m, start=1_790_000_000_000 + i)
            for i, (model, (p, e, m)) in enumerate(MODELS.items())
        ]
    )
    question = view_state.question(view, draws=20)
    return gather([Part(compare(runs, question), question, runs)], run_page="http://x/#/runs/")


def _expected() -> pd.Series:  # type: ignore[type-arg]
    costs = pd.DataFrame(MODELS, index=["P", "E", "M"]).T
    relative = pd.DataFrame(
        {name: pepr.normalise(costs[name], pepr.bounds(costs[name])) for name in ("E", "M")}
    )
    return pepr.pepr(costs["P"], relative, weights=[0.75, 0.25], alpha=2.0)


def test_the_ranking_has_the_scores_of_pepr_by_the_shares_of_the_sliders() -> None:
    ranking = content.ranking(_material(VIEW), VIEW)
    expected = _expected().sort_values(ascending=False)
    assert list(ranking.fitting["label"]) == list(expected.index)
    assert list(ranking.fitting["score"]) == pytest.approx(list(expected))
    table = content.table(ranking, _material(VIEW), VIEW)
    at = table.headings.index("PePR-E+M")
    assert [row[at] for row in table.rows] == [f"{s:.4f}" for s in expected]
    assert table.pages[0] is not None
    assert table.pages[0].startswith("http://x/#/runs/run")


def test_models_outside_the_budgets_leave_the_ranking_and_the_best_within_is_named() -> None:
    view = replace(VIEW, at_most=(("E", 30.0), ("T", 400.0)), at_least=0.65)
    material = _material(view)
    ranking = content.ranking(material, view)
    by_hand = selection.select(
        material.models, [selection.Budget("cost E", "max", 30.0),
                          selection.Budget("performance", "min", 0.65)], "score"
    ).fitting  # fmt: skip
    assert set(ranking.fitting["label"]) == set(by_hand["label"]) == {"resnet18d", "ghostnet_100"}
    words = content.headline(ranking)
    assert words.startswith("Within E ≤ 30 Wh, T ≤ 400 s, P ≥ 0.65: ")
    assert f"{by_hand['label'].iloc[0]} has the best PePR-E+M" in words
    assert "2 of 4 models fit" in words


def test_a_budget_may_limit_a_resource_that_no_score_uses() -> None:
    view = replace(VIEW, at_most=(("D", 0.5),))
    ranking = content.ranking(_material(view), view)
    assert ranking.fitting.empty  # all runs are of the full training set
    assert "none of the 4 models" in content.headline(ranking)
    assert content.table(ranking, _material(view), view).rows == ()
    content.plane(_material(view), PLANE, view, ranking)
    with pytest.raises(WrongUse, match="no run has such a number"):
        content.ranking(_material(VIEW), replace(VIEW, at_most=(("no/such", 1.0),)))


def test_intervals_that_are_not_drawn_yet_are_an_ellipsis() -> None:
    material = _material(VIEW)
    blank = material.models.assign(no_interval=NOT_DRAWN)
    ranking = content.ranking(replace(material, models=blank), VIEW)
    table = content.table(ranking, material, VIEW)
    assert {row[table.headings.index("PePR 95 %")] for row in table.rows} == {"…"}
    assert {row[table.headings.index("ranks")] for row in table.rows} == {"…"}
    assert "95 %" not in content.headline(ranking)
    assert "95 %" in content.headline(content.ranking(material, VIEW))


def test_the_figure_greys_what_is_outside_and_colours_groups() -> None:
    view = replace(VIEW, resources=("E",), weights=(0.5,), at_most=(("E", 25.0),), colour="kind",
                   axis="cost")  # fmt: skip
    material = _material(view)
    ranking = content.ranking(material, view)
    figure = content.plane(material, PLANE, view, ranking).figure
    colours = {}
    for trace in figure.data:
        if trace.name in ("models", "Pareto set"):
            colours |= dict(zip(trace.text, trace.marker.color, strict=True))
    grey = {label for label, colour in colours.items() if colour.startswith("rgba(128")}
    assert grey == {theme.text(EVIL), "vit_tiny_patch16_224"}  # names are text, not markup
    (ring,) = (t for t in figure.data if t.name == "best within budgets")
    best = ranking.fitting.iloc[0]
    assert (list(ring.x), list(ring.y)) == ([best["cost E"]], [best["performance"]])
    groups = set(material.models["kind"].fillna("not known"))
    assert groups <= {t.name for t in figure.data}
    assert any(shape.x0 == shape.x1 == 25.0 for shape in figure.layout.shapes)


def test_a_chosen_set_that_is_not_there_is_the_first() -> None:
    material = _material(VIEW)
    assert content.shown_set(material, replace(VIEW, chosen_set="derma")) == "derma"
    assert content.shown_set(material, replace(VIEW, chosen_set="gone")) == "derma"


def test_which_resources_the_runs_have() -> None:
    runs = frame([run(energy_wh=None), run(energy_wh=None, model="other")])
    assert content.known([runs], ["E", "M", "T", "D", "no/such"]) == ["M", "T", "D"]
