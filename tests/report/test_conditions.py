"""The same models under two conditions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import pytest
from made import frame, run
from scipy import stats

from pepr_mlops.comparison import Question, compare
from pepr_mlops.comparison.significance import holm
from pepr_mlops.report.figures import conditions
from pepr_mlops.report.material import Material, NothingToDraw, Part, gather
from pepr_mlops.tracking import read


def _runs(
    experiment: str, performance: Mapping[str, float], **changed: Any
) -> list[dict[str, Any]]:
    return [
        run(model, performance=p, tags={"pepr.experiment": experiment}, **changed)
        for model, p in performance.items()
    ]


def _part(runs: pd.DataFrame, question: Question) -> Part:
    return Part(compare(runs, question), question, runs)


def _material(*experiments: list[dict[str, Any]], question: Question | None = None) -> Material:
    question = question or Question(draws=10)
    return gather([_part(frame(runs), question) for runs in experiments])


SCRATCH = {"a": 0.5, "b": 0.6, "<script>c": 0.65, "only_scratch": 0.1}
TUNED = {"<script>c": 0.9, "a": 0.7, "only_tuned": 0.99, "b": 0.75}


def test_models_are_joined_by_name_and_those_of_one_side_left_out() -> None:
    material = _material(_runs("two", SCRATCH, pretrained=False), _runs("one", TUNED))
    points = conditions.data(material, conditions.Options())
    wide = points.pivot(index="label", columns="condition", values="value")
    assert wide.to_dict() == {
        "pretrained": {"a": 0.7, "b": 0.75, "<script>c": 0.9},
        "from scratch": {"a": 0.5, "b": 0.6, "<script>c": 0.65},
    }
    assert set(points["pair"]) == {"one / two"}
    tested = conditions.tests(points).set_index("test")
    pair = stats.ttest_rel([0.7, 0.75, 0.9], [0.5, 0.6, 0.65])
    assert tested.loc["paired t", "p"] == pytest.approx(pair.pvalue)
    assert tested.loc["paired t", "difference"] == pytest.approx(0.2)
    assert tested.loc["paired t", "effect"] == pytest.approx(0.2 / 0.05)
    assert tested.loc["Wilcoxon", "p"] == pytest.approx(0.25)
    assert tested.loc["Wilcoxon", "effect"] == 1
    free = stats.ttest_ind([0.7, 0.75, 0.9], [0.5, 0.6, 0.65])
    assert tested.loc["unpaired t", "p"] == pytest.approx(free.pvalue)
    assert tested["n_a"].tolist() == [3, 3, 3]


def test_the_figure_has_violins_with_box_points_and_tests() -> None:
    material = _material(_runs("<b>two", SCRATCH, pretrained=False), _runs("one", TUNED))
    panel = conditions.panel(material, conditions.Options())
    one, two = panel.figure.data
    assert (one.type, one.points, one.box.visible) == ("violin", "all", True)
    assert dict(zip(one.text, one.x, strict=True)) == {
        "a": 0.7,
        "b": 0.75,
        "&lt;script&gt;c": 0.9,
    }
    assert sorted(two.x) == [0.5, 0.6, 0.65]
    assert list(panel.figure.layout.yaxis.ticktext) == ["pretrained", "from scratch"]
    (note,) = panel.figure.layout.annotations
    assert note.text.split("<br>") == [
        "<b>one / &lt;b&gt;two</b>",
        "n = 3 models under both",
        "paired t: p = 0.020, d_z 4.00",
        "Wilcoxon: p = 0.25, rank-biserial 1.00",
        "unpaired t: p = 0.055, d 2.19",
    ]
    assert "<script>" not in str(panel.figure.to_dict())
    assert panel.caption == (
        "one / <b>two: the median accuracy is 75.0% (pretrained) against 60.0% (from scratch), "
        "3 models."
    )
    assert "mean difference 0.2 (paired t p = 0.020, d_z 4.00;" in panel.reading
    assert panel.title == "Accuracy of the same models: pretrained and from scratch"
    assert panel.sets == ("one", "<b>two")


def test_pairs_differ_in_exactly_one_thing() -> None:
    material = _material(
        _runs("full", TUNED),
        _runs("tenth", SCRATCH, fraction=0.1),
        _runs("tenth_scratch", SCRATCH, fraction=0.1, pretrained=False),
        _runs("longer", SCRATCH, epochs=20),
        _runs("elsewhere", TUNED, dataset="blood", fraction=0.1),
    )
    found = conditions.pairs(material, conditions.Options())
    assert [(p.where, p.names) for p in found] == [
        ("tenth / tenth_scratch", ("pretrained", "from scratch")),
        ("full / tenth", ("100% of the training data", "10% of the training data")),
    ]


def test_sets_of_one_split_experiment_are_a_pair() -> None:
    runs = [*_runs("one", SCRATCH, fraction=0.25), *_runs("one", TUNED)]
    material = _material(runs, question=Question(mixed="stratify", draws=10))
    panel = conditions.panel(material, conditions.Options())
    assert panel.sets == ("one [fraction=1]", "one [fraction=0.25]")
    assert panel.figure.layout.yaxis.ticktext[1] == "25% of the<br>training data"
    every, some = "100% of the training data", "25% of the training data"
    assert set(panel.table["pair"]) == {f"{every} / {some}"}
    assert (
        panel.caption == f"The median accuracy is 75.0% ({every}) against 60.0% ({some}), 3 models."
    )


def test_what_is_not_known_is_no_condition() -> None:
    known, unknown = _runs("known", TUNED), _runs("unknown", SCRATCH)
    for made in unknown:
        del made["params"]["pretrained"]
    with pytest.raises(NothingToDraw, match="differ only in pretraining or share of the training"):
        conditions.panel(_material(known, unknown), conditions.Options())


def test_mixed_sets_are_no_condition() -> None:
    both = [*_runs("mixed", TUNED, epochs=10), *_runs("mixed", SCRATCH, epochs=20)]
    other = [
        *_runs("other", TUNED, epochs=10, pretrained=False),
        *_runs("other", SCRATCH, epochs=20, pretrained=False),
    ]
    material = _material(both, other, question=Question(mixed="allow", draws=10))
    with pytest.raises(NothingToDraw, match="no two groups of models"):
        conditions.panel(material, conditions.Options())


def test_models_are_averaged_over_the_experiments_named() -> None:
    material = _material(
        _runs("p", {"a": 0.5, "b": 0.6, "c": 0.7, "d": 0.9}),
        _runs("q", {"d": 0.5, "c": 0.9, "b": 0.8, "a": 0.7, "e": 0.1}),
        _runs("r", {"a": 0.45, "b": 0.5, "c": 0.52, "e": 0.2}),
    )
    options = conditions.Options(a=("p", "q"), b=("r",), names=("<i>100%", "10%"))
    points = conditions.data(material, options)
    wide = points.pivot(index="label", columns="condition", values="value")
    assert wide["<i>100%"].to_dict() == pytest.approx({"a": 0.6, "b": 0.7, "c": 0.8})
    assert wide["10%"].to_dict() == {"a": 0.45, "b": 0.5, "c": 0.52}
    panel = conditions.panel(material, options)
    assert list(panel.figure.layout.yaxis.ticktext) == ["&lt;i&gt;100%", "10%"]
    median = "p, q / r: the median accuracy is 70.0% (<i>100%) against 50.0% (10%)"
    assert median in panel.caption


def test_models_without_the_quantity_are_left_out() -> None:
    one, two = _runs("one", TUNED), _runs("two", TUNED, pretrained=False)
    for i, made in enumerate([*one, *two]):
        made["metrics"]["test/auc"] = 0.5 + i / 100
    del two[1]["metrics"]["test/auc"]
    points = conditions.data(_material(one, two), conditions.Options(quantity="test/auc"))
    assert points["label"].value_counts().to_dict() == {"<script>c": 2, "only_tuned": 2, "b": 2}


def test_no_change_at_all_has_no_t_test() -> None:
    material = _material(_runs("p", TUNED), _runs("q", TUNED, fraction=0.5))
    panel = conditions.panel(material, conditions.Options())
    assert "paired t p not defined, d_z not defined; Wilcoxon p = 1.00" in panel.reading


def test_p_is_corrected_over_the_pairs() -> None:
    rng = np.random.default_rng(0)
    base = rng.uniform(0.5, 0.9, 9)
    full, half, tenth = (
        {f"m{i}": p for i, p in enumerate(base - less + rng.normal(0, 0.04, 9))}
        for less in (0, 0.02, 0.2)
    )
    material = _material(
        _runs("full", full),
        _runs("half", half, fraction=0.5),
        _runs("tenth", tenth, fraction=0.1),
    )
    points = conditions.data(material, conditions.Options())
    tested = conditions.tests(points)
    rows = tested[tested["test"] == "paired t"]
    assert rows["pair"].tolist() == ["full / half", "full / tenth", "half / tenth"]
    assert rows["p_holm"].tolist() == pytest.approx(holm(rows["p"]).tolist())
    assert rows["p_holm"].min() == pytest.approx(3 * rows["p"].min())
    caption = conditions.panel(material, conditions.Options()).caption
    assert "corrected for the 3 pairs after Holm" in caption


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (conditions.Options(a=("one",)), "a and b each name experiments"),
        (conditions.Options(a=("one",), b=("two",), names=("x",)), "two words"),
        (conditions.Options(a=("one",), b=("two",), names=("x", "x")), "both .* called x"),
        (conditions.Options(a=("one",), b=("tow",)), "did you mean 'two'"),
        (conditions.Options(quantity="PePR-Q"), "no number 'PePR-Q'"),
        (conditions.Options(a=("one",), b=("few",)), "2 models in common; a test needs 3"),
    ],
)
def test_a_figure_that_cannot_be_drawn_has_a_reason(
    options: conditions.Options, reason: str
) -> None:
    material = _material(
        _runs("one", TUNED),
        _runs("two", SCRATCH, pretrained=False),
        _runs("few", {"a": 0.1, "b": 0.2, "else": 0.3}, epochs=3),
    )
    with pytest.raises(NothingToDraw, match=reason):
        conditions.panel(material, options)


# The paper ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def paper(paper_store: str) -> Material:
    question = Question(normalisation="zero", draws=10)
    runs = read.load_runs(tracking_uri=paper_store)
    return gather([_part(runs, question)])


@pytest.fixture(scope="module")
def released(paper_results) -> pd.DataFrame:  # type: ignore[no-untyped-def]
    table = pd.read_csv(paper_results / "all_results.csv")
    return table.pivot(index="model", columns="dataset", values="test_09")


def test_the_papers_pretraining(paper: Material, released: pd.DataFrame) -> None:
    options = conditions.Options(
        a=("derma_pt",), b=("derma",), names=("pretrained", "from scratch")
    )
    tested = conditions.tests(conditions.data(paper, options)).set_index("test")
    a, b = released["derma_pt"], released["derma"]
    assert tested.loc["unpaired t", "p"] == pytest.approx(6.950780662623691e-30, rel=1e-6)
    assert tested.loc["paired t", "p"] == pytest.approx(stats.ttest_rel(a, b).pvalue, rel=1e-6)
    assert tested.loc["Wilcoxon", "p"] == pytest.approx(stats.wilcoxon(a - b).pvalue, rel=1e-6)
    assert tested["n_a"].eq(131).all()
    assert tested.loc["paired t", "median_a"] == pytest.approx(a.median())


def test_the_papers_tenth_of_the_data(paper: Material, released: pd.DataFrame) -> None:
    full = ("derma_pt", "lidc", "pneumonia")
    tenth = ("derma_small", "lidc_small", "pneumonia_small")
    options = conditions.Options(a=full, b=tenth, names=("100%", "10%"))
    tested = conditions.tests(conditions.data(paper, options)).set_index("test")
    a, b = released[list(full)].mean(axis=1), released[list(tenth)].mean(axis=1)
    assert tested.loc["paired t", "difference"] == pytest.approx((a - b).mean())
    assert tested.loc["paired t", "p"] == pytest.approx(stats.ttest_rel(a, b).pvalue, rel=1e-6)
    assert tested.loc["unpaired t", "p"] == pytest.approx(stats.ttest_ind(a, b).pvalue, rel=1e-6)


def test_the_papers_pairs_are_found(paper: Material) -> None:
    panel = conditions.panel(paper, conditions.Options())
    assert set(panel.table["pair"]) == {
        "derma_pt / derma",
        "derma_pt / derma_small",
        "lidc / lidc_small",
        "pneumonia / pneumonia_small",
    }
    assert len(panel.table) == 4 * 2 * 131
    assert "in 4 by paired t and in 4 by Wilcoxon." in panel.caption
    assert len(panel.figure.to_json()) < 60_000
