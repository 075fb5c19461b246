"""Tests and corrections, against SciPy and by hand, and which comparison sets are tested."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from made import frame, run
from scipy import stats as scipy_stats

from pepr_mlops.comparison import Question, compare, significance
from pepr_mlops.comparison.significance import differences
from pepr_mlops.errors import WorkFailed, WrongUse
from pepr_mlops.paper_models import paper_models


def test_paired_tests_join_by_model() -> None:
    rng = np.random.default_rng(0)
    models = [f"m{i}" for i in range(20)]
    a = pd.Series(rng.normal(0.7, 0.1, 20), models)
    b = a.sample(frac=1, random_state=1) + rng.normal(0.05, 0.02, 20)
    t, wilcoxon = significance.paired(a, b)
    ordered = b[models]
    assert t.p == pytest.approx(scipy_stats.ttest_rel(a, ordered).pvalue, rel=1e-12)
    assert wilcoxon.p == scipy_stats.wilcoxon(a, ordered).pvalue
    assert (t.n_a, t.n_b) == (20, 20)
    assert t.difference == pytest.approx((a - ordered).mean())
    assert t.effect == pytest.approx((a - ordered).mean() / (a - ordered).std(ddof=1))


def test_rank_biserial_by_hand() -> None:
    # differences 1, -2, 3, 4: ranks in favour 1 + 3 + 4, against 2, of 10
    a = pd.Series([2.0, 0.0, 4.0, 5.0], list("abcd"))
    b = pd.Series([1.0, 2.0, 1.0, 1.0], list("abcd"))
    assert significance.paired(a, b)[1].effect == pytest.approx((8 - 2) / 10)


def test_no_difference_at_all_is_no_evidence() -> None:
    a = pd.Series([0.1, 0.2, 0.3], list("abc"))
    t, wilcoxon = significance.paired(a, a.copy())
    assert np.isnan(t.effect)
    assert (wilcoxon.p, wilcoxon.effect) == (1.0, 0.0)


def test_rounding_is_no_difference() -> None:
    a = pd.Series([0.1, 0.2, 0.3, 0.4], list("abcd"))
    t, wilcoxon = significance.paired(a, a * 3 / 3 * (1 + 1e-15))
    assert (wilcoxon.p, wilcoxon.effect, t.difference) == (1.0, 0.0, 0.0)


def test_a_model_only_one_sample_has_is_left_out_and_a_doubled_one_refused() -> None:
    a = pd.Series([0.1, 0.3, 0.2, 0.9], list("abcz"))
    b = pd.Series([0.2, 0.5, 0.3], list("abc"))
    assert significance.paired(a, b)[0].n_a == 3
    with pytest.raises(WrongUse, match="'a' is there twice"):
        significance.paired(pd.Series([0.1, 0.2], ["a", "a"]), b)
    with pytest.raises(WrongUse, match="2 models in common; a test needs 3"):
        significance.paired(a, b[:2])


def test_unpaired_tests_and_their_effects() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.normal(0, 1, 30), rng.normal(0.5, 2, 20)
    t, u = significance.unpaired(x, y)
    assert t.p == pytest.approx(scipy_stats.ttest_ind(x, y).pvalue, rel=1e-12)
    assert u.p == pytest.approx(scipy_stats.mannwhitneyu(x, y).pvalue, rel=1e-12)
    pooled = np.sqrt((29 * x.var(ddof=1) + 19 * y.var(ddof=1)) / 48)
    assert t.effect == pytest.approx((x.mean() - y.mean()) / pooled)
    larger = np.mean([[a > b for b in y] for a in x])
    smaller = np.mean([[a < b for b in y] for a in x])
    assert u.effect == pytest.approx(larger - smaller)


@pytest.mark.parametrize("n", [3, 8, 9, 13, 14, 50, 51, 131])
@pytest.mark.parametrize("decimals", [9, 1, 0])  # without ties, with some, with many and zeros
def test_tests_of_every_size_agree_with_scipy(n: int, decimals: int) -> None:
    rng = np.random.default_rng(n)
    for _ in range(3):
        # at most 2, so that dividing by the largest keeps the ties
        x, y = (np.clip(rng.normal(m, 1, n), -2, 2).round(decimals) for m in (0.3, 0.0))
        x[0] = 2.0
        t, u = significance.unpaired(x, y)
        expected = scipy_stats.ttest_ind(x, y)
        assert (t.statistic, t.p) == pytest.approx(tuple(expected), rel=1e-9)
        expected = scipy_stats.mannwhitneyu(x, y)
        assert (u.statistic, u.p) == pytest.approx(tuple(expected), rel=1e-9)
        models = [f"m{i}" for i in range(n)]
        t, w = significance.paired(pd.Series(x, models), pd.Series(y, models))
        expected = scipy_stats.ttest_rel(x, y)
        assert (t.statistic, t.p) == pytest.approx(tuple(expected), rel=1e-9)
        expected = scipy_stats.wilcoxon((x - y).round(9))
        assert (w.statistic, w.p) == pytest.approx(tuple(expected), rel=1e-9)


def test_groups_that_are_too_small_are_refused() -> None:
    with pytest.raises(WrongUse, match="2 and 3 models"):
        significance.unpaired([1, 2], [1, 2, 3])


def test_holm_by_hand() -> None:
    # sorted 0.01, 0.02, 0.03, 0.04 times 4, 3, 2, 1; never smaller than the one before
    corrected = significance.holm([0.04, 0.01, np.nan, 0.03, 0.02])
    assert corrected == pytest.approx([0.06, 0.04, np.nan, 0.06, 0.06], nan_ok=True)
    assert significance.holm([0.9, 0.8]).tolist() == [1.0, 1.0]


def test_small_is_up_to_and_with_the_median() -> None:
    sizes = significance.sizes(pd.Series({"a": 1.0, "b": 2.0, "c": 3.0, "d": np.nan}))
    assert sizes[:3].to_dict() == {"a": "small", "b": "small", "c": "large"}
    assert pd.isna(sizes["d"])


def test_sizes_of_a_data_set_are_tested_although_each_is_a_file_of_its_own() -> None:
    runs = [
        run(model, size=size, performance=p + gain, tags={"pepr.data_digest": str(size)})
        for size, gain in ((28, 0.0), (224, 0.1))
        for model, p in (("a", 0.5), ("b", 0.6), ("c", 0.7), ("d", 0.75))
    ]
    table = differences(compare(frame(runs), Question(mixed="stratify", draws=0)))
    tested = table[(table["quantity"] == "performance") & (table["test"] == "paired t")]
    assert tested["by"].tolist() == ["dataset_size"]
    assert (tested["a"].item(), tested["b"].item()) == ("224", "28")


def test_a_model_named_with_its_weights_is_in_the_groups_of_the_paper() -> None:
    """As in reports: `NAME.WEIGHTS` is timm's name for a model with certain weights."""
    efficient = [m.model for m in paper_models() if m.efficient][:3]
    others = [m.model for m in paper_models() if not m.efficient][:3]
    runs = [
        run(f"{model}.in1k", performance=0.5 + i / 20)
        for i, model in enumerate([*efficient, *others])
    ]
    table = differences(compare(frame(runs), Question(draws=0)), by=["efficient"])
    assert table["n_a"].unique().tolist() == table["n_b"].unique().tolist() == [3]


def test_mixed_runs_are_tested_where_each_model_has_one_row() -> None:
    """Six models, three of them trained in bf16."""
    runs = [
        run(f"m{i}", performance=0.5 + i / 20, energy_wh=10.0 + i, precision=precision,
            tags={"pepr.parameters": str(10**6 * (i + 1))})
        for i, precision in enumerate(["fp32", "bf16"] * 3)
    ]  # fmt: skip
    mixed = Question(mixed="allow", draws=0)
    table = differences(compare(frame(runs), mixed), by=["size"])
    performance = table[table["quantity"] == "performance"].iloc[0]
    assert performance[["mean_a", "mean_b"]].tolist() == pytest.approx([0.55, 0.7])
    again = run("m0", precision="bf16")
    with pytest.raises(WrongUse, match=r"has several rows of a model \(m0: precision="):
        differences(compare(frame([*runs, again]), mixed))


def test_two_data_sets_of_one_name_are_not_tested_against_each_other() -> None:
    runs = [
        run(model, performance=p, tags={"pepr.data_digest": digest})
        for digest in ("here", "there")
        for model, p in (("a", 0.5), ("b", 0.6), ("c", 0.7), ("d", 0.75))
    ]
    scored = compare(frame(runs), Question(mixed="stratify", draws=0))
    with pytest.raises(WorkFailed, match="nothing to test"):
        differences(scored)
