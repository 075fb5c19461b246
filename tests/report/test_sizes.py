"""Small models against large ones, set by set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
import pytest
from made import frame, run
from scipy import stats

from pepr_mlops.comparison import Question, compare
from pepr_mlops.report.figures import sizes
from pepr_mlops.report.material import Material, NothingToDraw, Part, gather
from pepr_mlops.tracking import read


def _runs(experiment: str, performance: Sequence[float], **changed: Any) -> list[dict[str, Any]]:
    """Models m0, m1, … of 1, 2, … million parameters."""
    return [
        run(
            f"m{i}",
            performance=p,
            energy_wh=10.0 + i,
            tags={"pepr.experiment": experiment, "pepr.parameters": str((i + 1) * 10**6)},
            **changed,
        )
        for i, p in enumerate(performance)
    ]


def _part(runs: pd.DataFrame, question: Question, main: bool = True) -> Part:
    return Part(compare(runs, question), question, runs, main)


def _material(*experiments: list[dict[str, Any]], question: Question | None = None) -> Material:
    question = question or Question(draws=10)
    return gather([_part(frame(runs), question, main=i == 0) for i, runs in enumerate(experiments)])


FALLING = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4]


def test_medians_quartiles_and_tests() -> None:
    table = sizes.data(_material(_runs("<b>one", FALLING)), sizes.Options(("performance",)))
    (row,) = table.to_dict("records")
    assert (row["comparison_set"], row["quantity"]) == ("<b>one", "performance")
    assert (row["n_small"], row["n_large"]) == (3, 3)
    assert row["median_small"] == pytest.approx(0.8)
    assert row["median_large"] == pytest.approx(0.5)
    assert (row["q1_small"], row["q3_small"]) == pytest.approx((0.75, 0.85))
    expected = stats.mannwhitneyu(FALLING[:3], FALLING[3:])
    assert row["p"] == row["p_holm"] == pytest.approx(expected.pvalue)
    assert row["cliffs_delta"] == 1
    assert row["t_p"] == pytest.approx(stats.ttest_ind(FALLING[:3], FALLING[3:]).pvalue)


def test_p_is_corrected_over_sets_and_quantities() -> None:
    material = _material(_runs("one", FALLING), _runs("two", [0.5, 0.65, 0.72, 0.55, 0.6, 0.8]))
    table = sizes.data(material, sizes.Options(experiments=("one", "two")))
    assert table[["comparison_set", "quantity"]].to_numpy().tolist() == [
        ["one", "performance"],
        ["two", "performance"],
        ["one", "score"],
        ["two", "score"],
    ]
    assert table["p"].tolist() == pytest.approx([0.1, 1.0, 0.1, 0.1])  # exactly 2 of 20, …
    assert table["p_holm"].tolist() == pytest.approx([0.4, 1.0, 0.4, 0.4])
    only_main = sizes.data(material, sizes.Options())
    assert set(only_main["comparison_set"]) == {"one"}


def test_the_figure_draws_the_table_without_markup() -> None:
    panel = sizes.panel(_material(_runs("<b>one", FALLING)), sizes.Options(("performance",)))
    traces = {t.name: t for t in panel.figure.data}
    assert list(traces["small"].x) == [0.8]
    assert list(traces["large"].x) == [0.5]
    assert list(traces["small"].error_x.array) == pytest.approx([0.05])
    assert traces["small"].marker.symbol != traces["large"].marker.symbol
    assert traces["small"].y[0] < traces["large"].y[0]
    (note,) = panel.figure.layout.annotations
    assert note.text == "p = 0.10, Cliff's delta 1.00, n = 3 + 3"
    assert "<b>one" not in str(panel.figure.to_dict())
    assert panel.caption == (
        "Small and large models do not differ significantly in accuracy (medians 0.8 and 0.5, "
        "p = 0.10)."
    )
    assert panel.sets == ("<b>one",)


def test_sets_that_are_too_small_are_left_out() -> None:
    material = _material(_runs("one", FALLING), _runs("few", FALLING[:5]))
    table = sizes.data(material, sizes.Options(experiments=("one", "few")))
    assert set(table["comparison_set"]) == {"one"}
    with pytest.raises(NothingToDraw, match="3 small and 3 large models"):
        sizes.panel(material, sizes.Options(experiments=("few",)))


def test_models_whose_size_is_not_known_are_in_neither_group() -> None:
    unknown = run("unknown", tags={"pepr.experiment": "one", "pepr.parameters": None})
    table = sizes.data(
        _material([*_runs("one", FALLING), unknown]), sizes.Options(("performance",))
    )
    assert (table["n_small"][0], table["n_large"][0]) == (3, 3)


def test_rows_of_one_model_are_no_models_of_their_own() -> None:
    twice = [*_runs("one", FALLING, fraction=1.0), *_runs("one", FALLING, fraction=0.5)]
    material = _material(twice, question=Question(mixed="allow", draws=10))
    with pytest.raises(NothingToDraw, match="one row each"):
        sizes.panel(material, sizes.Options())


def test_unknown_names_are_refused_with_the_valid_ones() -> None:
    material = _material(_runs("one", FALLING))
    with pytest.raises(NothingToDraw, match=r"no number 'PePR-X'.*PePR-E"):
        sizes.panel(material, sizes.Options(("PePR-X",)))
    with pytest.raises(NothingToDraw, match="no experiment ones here; did you mean 'one'"):
        sizes.panel(material, sizes.Options(experiments=("ones",)))


# The paper ---------------------------------------------------------------------------------------

FULL = ("derma_pt", "lidc", "pneumonia")


@pytest.fixture(scope="module")
def paper(paper_store: str) -> Material:
    question = Question(normalisation="zero", draws=10)
    runs = read.load_runs(tracking_uri=paper_store)
    runs = runs[runs["experiment"].isin(FULL)]
    return gather([_part(runs, question)])


def test_small_models_are_as_good_and_score_higher(
    paper: Material,
    paper_results,  # type: ignore[no-untyped-def]
) -> None:
    table = sizes.data(paper, sizes.Options(experiments=FULL)).set_index(
        ["quantity", "comparison_set"]
    )
    released = pd.read_csv(paper_results / "all_results.csv")
    for name, rows in released[released["dataset"].isin(FULL)].groupby("dataset"):
        rows = rows.assign(score=rows["test_09"] / (1 + rows["energy"] / rows["energy"].max()))
        small = rows["num_param"] <= rows["num_param"].median()
        for quantity, column in (("performance", "test_09"), ("score", "score")):
            row = table.loc[(quantity, name)]
            x, y = rows.loc[small, column], rows.loc[~small, column]
            assert (row["n_small"], row["n_large"]) == (66, 65)
            assert row["median_small"] == pytest.approx(x.median())
            assert row["median_large"] == pytest.approx(y.median())
            assert row["p"] == pytest.approx(stats.mannwhitneyu(x, y).pvalue)
            assert row["t_p"] == pytest.approx(stats.ttest_ind(x, y).pvalue)
    assert (table.loc["performance"]["p_holm"] > 0.05).all()
    assert (table.loc["score"]["p_holm"] < 0.001).all()
    assert (table.loc["score"]["cliffs_delta"] > 0.5).all()


def test_the_papers_caption(paper: Material) -> None:
    panel = sizes.panel(paper, sizes.Options(experiments=FULL))
    assert panel.caption == (
        "Small and large models do not differ significantly in accuracy in any of 3 sets."
    )
    score = "a significantly higher PePR-E score in 3 of 3 sets and a lower one in 0."
    assert score in panel.reading
    assert "derma_pt medians 0.724 and 0.632, p < 0.001;" in panel.reading
