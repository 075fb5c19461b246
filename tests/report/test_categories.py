"""Numbers of the models against each other, by category."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import pytest
from made import frame, run
from scipy import stats

from pepr_mlops.comparison import Question, compare
from pepr_mlops.report.figures import categories
from pepr_mlops.report.material import Material, NothingToDraw, Part, gather
from pepr_mlops.tracking import read

SIZES = {
    "ghostnet_100": "5000000",
    "resnet18d": "12000000",
    "<script>mine": "40000000",
    "elsewhere": "7",
}


def _runs(
    experiment: str, performance: Mapping[str, float], **changed: Any
) -> list[dict[str, Any]]:
    return [
        run(
            model,
            performance=p,
            tags={"pepr.experiment": experiment, "pepr.parameters": SIZES.get(model)},
            **changed,
        )
        for model, p in performance.items()
    ]


def _part(runs: pd.DataFrame, question: Question) -> Part:
    return Part(compare(runs, question), question, runs)


def _material(
    *experiments: list[dict[str, Any]],
    question: Question | None = None,
    run_page: str | None = None,
) -> Material:
    question = question or Question(draws=10)
    parts = [_part(frame(runs), question) for runs in experiments]
    return gather(parts, run_page=run_page)


ONE = {"ghostnet_100": 0.7, "resnet18d": 0.8, "<script>mine": 0.6}
TWO = {"<script>mine": 0.5, "resnet18d": 0.9, "elsewhere": 0.1, "ghostnet_100": 0.9}


def test_a_row_for_each_model_of_one_experiment() -> None:
    points = categories.data(_material(_runs("one", ONE)), categories.Options())
    points = points.set_index("label")
    assert points["category"].to_dict() == {
        "ghostnet_100": "efficient",
        "resnet18d": "not efficient",
        "<script>mine": "not classified",
    }
    assert points["performance"].to_dict() == ONE
    assert points["parameters"].to_dict() == {m: float(SIZES[m]) for m in ONE}
    assert points["score"].to_dict() == pytest.approx(ONE)  # equal costs: R is 0


@pytest.mark.parametrize(
    ("by", "expected"),
    [
        ("kind", {"ghostnet_100": "CNN", "resnet18d": "CNN", "<script>mine": "not classified"}),
        ("size", {"ghostnet_100": "small", "resnet18d": "small", "<script>mine": "large"}),
    ],
)
def test_other_categories(by: Any, expected: dict[str, str]) -> None:
    points = categories.data(_material(_runs("one", ONE)), categories.Options(by=by))
    assert points.set_index("label")["category"].to_dict() == expected


def test_models_are_averaged_over_the_experiments_that_all_have_them() -> None:
    material = _material(_runs("one", ONE), _runs("two", TWO))
    panel = categories.panel(material, categories.Options(y=("performance",)))
    means = panel.table.set_index("label")["performance"]
    assert means.to_dict() == pytest.approx(
        {"ghostnet_100": 0.8, "resnet18d": 0.85, "<script>mine": 0.55}
    )
    assert panel.table["run_id"].isna().all()
    assert all(trace.ids is None for trace in panel.figure.data)  # or only one is drawn
    assert "mean of one of 3 models over two, one. Left out: 1 that are not in all" in panel.reading
    only = categories.panel(
        material, categories.Options(y=("performance",), experiments=("two",), x="cost E")
    )
    assert len(only.table) == 4
    assert only.sets == ("two",)


def test_several_points_of_a_model_are_no_models() -> None:
    runs = frame([run("a"), run("b"), run("c"), run("a", precision="bf16", energy_wh=9.0)])
    question = Question(mixed="allow", draws=0)
    mixed = gather([Part(compare(runs, question), question, runs)])
    panel = categories.panel(mixed, categories.Options(y=("performance", "score")))
    assert len(panel.table) == 4
    assert panel.caption == "Some models appear more than once, so no correlation is given."
    assert "Spearman" not in panel.reading


def test_the_caption_has_the_rank_correlation_and_the_medians() -> None:
    panel = categories.panel(_material(_runs("one", ONE)), categories.Options(y=("performance",)))
    assert panel.caption == (
        "Accuracy shows no correlation with parameters (Spearman's rank correlation -0.50, "
        "p = 1.00, n = 3)."
    )
    medians = "Medians of accuracy: 0.7 efficient (n = 1), 0.8 not efficient (n = 1)"
    assert medians in panel.reading
    same = categories.panel(_material(_runs("one", ONE)), categories.Options(x="cost E"))
    assert "correlation of accuracy with training energy is not defined" in same.caption


def _rho(y: tuple[float, ...]) -> float:
    return float(stats.spearmanr(range(5), y).statistic)


def test_the_p_value_of_few_points_is_that_of_all_their_orders() -> None:
    x = pd.Series([1.0, 2.0, 3.0, 4.0])
    # Two of the 3! and two of the 4! orders are as far from chance as these.
    assert categories.correlation(x[:3], -x[:3]) == (-1.0, pytest.approx(2 / 6))
    assert categories.correlation(x, 10 * x) == (1.0, pytest.approx(2 / 24))
    y = pd.Series([2.0, 1.0, 3.0, 5.0, 4.0])
    as_far = [rho for of in itertools.permutations(y) if abs(rho := _rho(of)) >= 0.8 - 1e-9]
    assert len(as_far) == 16
    assert categories.correlation(pd.Series(range(5)), y) == pytest.approx((0.8, 16 / 120))
    many = pd.Series(np.random.default_rng(0).normal(size=30))
    found = stats.spearmanr(many, many**2)
    assert categories.correlation(many, many**2) == pytest.approx((found.statistic, found.pvalue))


def test_the_figure_has_a_plot_for_each_y_and_no_markup() -> None:
    material = _material(_runs("one", ONE), run_page="/#/runs/")
    panel = categories.panel(material, categories.Options())
    drawn = {(t.name, t.yaxis): (list(t.x), list(t.y)) for t in panel.figure.data}
    assert drawn[("efficient", "y")] == ([5e6], [0.7])
    assert drawn[("not classified", "y2")] == ([4e7], [0.6])
    assert len(panel.figure.data) == 6
    assert sum(bool(t.showlegend) for t in panel.figure.data) == 3
    assert len({t.marker.symbol for t in panel.figure.data}) == 3
    assert panel.figure.layout.yaxis.title.text == "accuracy"
    assert panel.figure.layout.yaxis2.title.text == "PePR-E score"
    assert "<script>" not in str(panel.figure.to_dict())
    ids = {t.name: list(t.ids) for t in panel.figure.data}
    assert ids["efficient"] == ["run0"]


def test_metrics_of_the_runs_are_averaged_and_missing_where_one_is() -> None:
    runs = [
        run("a", 0, metrics={"test/auc": 0.6}),
        run("a", 1, metrics={"test/auc": 0.8}),
        run("b", 0, metrics={"test/auc": 0.9}),
        run("b", 1),
        run("c", 0, metrics={"test/auc": 0.5}),
        run("c", 1, metrics={"test/auc": float("nan")}),
    ]
    material = _material(runs)
    panel = categories.panel(material, categories.Options(x="test/auc", y=("performance",)))
    assert panel.table.set_index("label")["test/auc"].to_dict() == pytest.approx({"a": 0.7})
    assert "Left out: 2 for which a number is missing" in panel.reading


def test_a_number_missing_in_one_experiment_is_missing_in_the_mean() -> None:
    measured = {"metrics": {"test/auc": 0.6}}
    one = [run("a", **measured), run("b", **measured)]
    two = [run("a", **measured), run("b")]
    for made in two:
        made["tags"]["pepr.experiment"] = "two"
    options = categories.Options(x="test/auc", y=("performance",))
    points = categories.data(_material(one, two), options)
    assert points["label"].tolist() == ["a"]


def test_the_axis_of_parameters_says_millions() -> None:
    panel = categories.panel(_material(_runs("one", ONE)), categories.Options())
    assert list(panel.figure.layout.xaxis2.ticktext) == ["5", "10", "20", "50"]
    assert list(panel.figure.layout.xaxis2.tickvals) == [5e6, 1e7, 2e7, 5e7]


def test_models_without_parameters_are_left_out_where_those_are_drawn() -> None:
    material = _material(_runs("one", {**ONE, "unknown": 0.4}))
    assert len(categories.data(material, categories.Options())) == 3
    unknown = _material(_runs("one", {"unknown": 0.4, "also_unknown": 0.5}))
    assert len(categories.data(unknown, categories.Options(x="cost E", by="kind"))) == 2
    with pytest.raises(NothingToDraw, match=r"no number 'parameters'; valid: .*performance"):
        categories.data(unknown, categories.Options())


def test_a_model_in_several_sets_of_one_experiment_is_a_point_in_each() -> None:
    runs = [*_runs("one", ONE), *_runs("one", {"ghostnet_100": 0.75}, image_size=64)]
    material = _material(runs, _runs("two", TWO), question=Question(mixed="stratify", draws=10))
    points = categories.data(material, categories.Options(experiments=("one",)))
    found = points.set_index("label")["performance"]
    assert found["ghostnet_100, images of 256×256 pixels"] == 0.7
    assert found["ghostnet_100, images of 64×64 pixels"] == 0.75
    assert len(found) == 4
    with pytest.raises(NothingToDraw, match="one is split into 2 comparison sets"):
        categories.data(material, categories.Options(experiments=("two", "one")))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (
            categories.Options(x="cost F"),
            r"no number 'cost F'; did you mean .*'cost E'.* valid: .*cost E, R E",
        ),
        (categories.Options(y=("test/acuracy",)), "did you mean 'test/accuracy'"),
        (
            categories.Options(experiments=("none",)),
            "no experiment none here; did you mean 'one'. valid: one",
        ),
        (categories.Options(y=()), "y names nothing"),
        (categories.Options(x="performance_sd"), "no number 'performance_sd'"),
    ],
)
def test_a_figure_that_cannot_be_drawn_has_a_reason(
    options: categories.Options, reason: str
) -> None:
    with pytest.raises(NothingToDraw, match=reason):
        categories.panel(_material(_runs("one", ONE)), options)


# The paper ---------------------------------------------------------------------------------------

FULL = ("derma_pt", "lidc", "pneumonia")


@pytest.fixture(scope="module")
def paper(paper_store: str) -> Material:
    question = Question(normalisation="zero", draws=10)
    runs = read.load_runs(tracking_uri=paper_store)
    runs = runs[runs["experiment"].isin(FULL)]
    return gather([_part(runs, question)])


def test_the_papers_models_averaged_over_three_data_sets(
    paper: Material,
    paper_results,  # type: ignore[no-untyped-def]
) -> None:
    panel = categories.panel(paper, categories.Options())
    table = pd.read_csv(paper_results / "all_results.csv")
    table = table[table["dataset"].isin(FULL)]
    most = table.groupby("dataset")["energy"].transform("max")
    table["score"] = table["test_09"] / (1 + table["energy"] / most)
    means = table.groupby("model")[["num_param", "test_09", "score"]].mean()
    mine = panel.table.set_index("label")
    assert len(mine) == 131
    expected = means.loc[mine.index]
    assert mine["performance"].to_numpy() == pytest.approx(expected["test_09"].to_numpy())
    assert mine["score"].to_numpy() == pytest.approx(expected["score"].to_numpy())
    assert mine["category"].value_counts().to_dict() == {"not efficient": 100, "efficient": 31}
    rho = stats.spearmanr(means["num_param"], means["score"])
    assert rho.pvalue < 0.001
    assert (
        f"The PePR-E score falls with parameters (Spearman's rank correlation {rho.statistic:.2f}, "
        "p < 0.001" in panel.reading
    )
    assert panel.caption.startswith("Accuracy shows no correlation with parameters")
    assert len(panel.figure.to_json()) < 40_000


def test_the_papers_kinds(paper: Material) -> None:
    options = categories.Options(by="kind", experiments=("lidc",))
    counts = categories.data(paper, options)["category"].value_counts()
    assert counts.to_dict() == {"CNN": 80, "Other": 51}
