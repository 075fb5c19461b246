"""Draws of a comparison set against the laws that they follow."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from pepr_mlops.comparison.draws import NOT_KNOWN, TOO_FEW, Draws, Errors, Sample, draw, weights_of
from pepr_mlops.comparison.metrics import METRICS, Predicted
from pepr_mlops.comparison.spread import Spread

KNOWN = Spread(0.0, np.inf, "known")
DRAWS = 20_000


def _runs(models: list[int], performance: list[float], **columns: object) -> pd.DataFrame:
    usual = {"energy_wh": 10.0, "energy": "measured", "machine": "a", "images": np.nan, "doubt": ""}
    return pd.DataFrame(
        {
            "run_id": [f"r{i}" for i in range(len(models))],
            "model": models,
            "performance": performance,
            **usual,
            **columns,
        }
    )


def _sample(right: np.ndarray, clusters: np.ndarray | None = None, name: str = "t") -> Sample:
    of = np.arange(len(right)) if clusters is None else clusters
    values = right.astype(float)
    return Sample(lambda w: (w @ values.astype(w.dtype)) / w.sum(axis=1), of, name)


def _draw(runs: pd.DataFrame, samples: Mapping[str, Sample] = {}, spread: Spread = KNOWN) -> Draws:
    models = pd.Index(sorted(runs["model"].unique()))
    return draw(runs, models, samples, ["energy_wh"], Errors(spread=spread), draws=DRAWS, seed=1)


def _right(n: int, share: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random(n) < share


def test_an_accuracy_has_the_binomial_error_of_its_images() -> None:
    right = _right(400, 0.8)
    p = right.mean()
    drawn = _draw(_runs([0], [p]), {"r0": _sample(right)})
    # n / (n - 1) corrects the narrowness of a bootstrap
    assert drawn.performance.std() == pytest.approx(np.sqrt(p * (1 - p) / 399), rel=0.02)
    assert drawn.performance.mean() == pytest.approx(p, abs=1e-3)
    assert (drawn.missing, drawn.sampled.tolist()) == (("",), [True])


def test_models_of_one_test_set_are_paired() -> None:
    """McNemar: the variance of a difference is that of the images on which two models disagree."""
    a, b = _right(500, 0.8), _right(500, 0.8)
    b[:40] = ~b[:40]
    drawn = _draw(_runs([0, 1], [a.mean(), b.mean()]), {"r0": _sample(a), "r1": _sample(b)})
    difference = drawn.performance[:, 0] - drawn.performance[:, 1]
    apart = a.astype(float) - b
    assert difference.std() == pytest.approx(apart.std(ddof=1) / np.sqrt(500), rel=0.02)
    other = {"r0": _sample(a), "r1": _sample(b, name="another")}
    unpaired = _draw(_runs([0, 1], [a.mean(), b.mean()]), other).performance
    expected = np.sqrt((a.var(ddof=1) + b.var(ddof=1)) / 500)
    assert (unpaired[:, 0] - unpaired[:, 1]).std() == pytest.approx(expected, rel=0.02)


def test_images_of_a_patient_are_drawn_together() -> None:
    patients = np.repeat(np.arange(100), 5)
    right = np.repeat(_right(100, 0.7), 5)  # the same for all images of a patient
    drawn = _draw(_runs([0], [right.mean()]), {"r0": _sample(right, patients)})
    p = right.mean()
    assert drawn.performance.std() == pytest.approx(np.sqrt(p * (1 - p) / 99), rel=0.03)


def test_without_predictions_the_law_is_that_of_as_many_images() -> None:
    drawn = _draw(_runs([0, 1], [0.9, 1.0], images=[200.0, 200.0]))
    expected = stats.beta.ppf([0.025, 0.975], 180.5, 20.5)  # Jeffreys
    assert np.quantile(drawn.performance[:, 0], [0.025, 0.975]) == pytest.approx(expected, abs=2e-3)
    # 200 of 200 right: no bootstrap has a width there
    low = np.quantile(drawn.performance[:, 1], 0.025)
    assert low == pytest.approx(stats.beta.ppf(0.025, 200.5, 0.5), abs=2e-3)
    assert drawn.sampled.tolist() == [False, False]


def test_all_right_has_a_width_with_predictions_too() -> None:
    drawn = _draw(_runs([0], [1.0]), {"r0": _sample(np.ones(200, dtype=bool))})
    assert np.quantile(drawn.performance, 0.025) == pytest.approx(
        stats.beta.ppf(0.025, 200.5, 0.5), abs=2e-3
    )


def test_an_unknown_number_of_images_is_named_as_the_reason() -> None:
    drawn = _draw(_runs([0, 1], [0.9, 0.8], images=[100.0, np.nan]))
    assert drawn.missing == ("", NOT_KNOWN)
    spread = drawn.performance.std(axis=0)  # for ranks as if it had as many images
    assert spread == pytest.approx(np.sqrt([0.09 / 100, 0.16 / 100]), rel=0.03)
    doubtful = _draw(_runs([0, 1], [0.9, 0.8], images=100.0, doubt=["", "damaged"]))
    assert doubtful.missing == ("", "damaged")


def test_seeds_add_the_spread_that_images_do_not_explain() -> None:
    """Four seeds of five models: P of a seed errs by 0.02, by itself and by 500 images."""
    rng = np.random.default_rng(7)
    models, seeds, n = 5, 4, 500
    shares = 0.8 + 0.02 * rng.standard_normal((models, seeds))
    hard = rng.random(n)  # the same images are hard for all
    right = hard < shares[..., None]
    p = right.mean(axis=-1)
    runs = _runs(list(np.repeat(np.arange(models), seeds)), list(p.ravel()))
    samples = {f"r{i}": _sample(r) for i, r in enumerate(right.reshape(-1, n))}
    drawn = _draw(runs, samples)
    # images that are hard for all explain next to nothing of the distance of seeds
    observed = p.var(axis=1, ddof=1).mean()
    assert drawn.seeds.mean() == pytest.approx(observed / seeds, rel=0.15)


def test_seeds_that_differ_by_their_images_only_have_no_spread_of_their_own() -> None:
    """Independent errors of independent images: the binomial law is all there is."""
    rng = np.random.default_rng(8)
    right = rng.random((40, 3, 300)) < 0.8
    p = right.mean(axis=-1)
    runs = _runs(list(np.repeat(np.arange(40), 3)), list(p.ravel()))
    samples = {f"r{i}": _sample(r, name=f"s{i % 3}") for i, r in enumerate(right.reshape(-1, 300))}
    drawn = _draw(runs, samples)
    total = drawn.performance.std(axis=0).mean()
    assert total == pytest.approx(np.sqrt(0.16 / 900), rel=0.1)


def test_one_run_takes_the_given_spread() -> None:
    spread = Spread(0.03, 4, "elsewhere")
    drawn = _draw(_runs([0, 1], [0.5, 0.6], images=1e9), spread=spread)
    expected = 0.5 + 0.03 * stats.t.ppf([0.025, 0.975], 4)
    assert np.quantile(drawn.performance[:, 0], [0.025, 0.975]) == pytest.approx(expected, abs=6e-3)
    assert drawn.spread == spread


def test_one_run_varies_as_the_runs_of_the_other_models() -> None:
    # variances 0.0002 of model 0 and 0.0014 of 1 with 1 and 2 degrees of freedom: 0.001 with 3
    p = [0.80, 0.82, 0.70, 0.70 + np.sqrt(0.0014), 0.70 - np.sqrt(0.0014), 0.6]
    drawn = _draw(_runs([0, 0, 1, 1, 1, 2], p, images=1e9))
    expected = 0.6 + np.sqrt(0.001) * stats.t.ppf([0.025, 0.975], 3)
    assert np.quantile(drawn.performance[:, 2], [0.025, 0.975]) == pytest.approx(expected, abs=3e-3)
    assert drawn.seeds == pytest.approx([0.001 / 2, 0.001 / 3, 0.001], rel=1e-3)
    assert drawn.spread is None


def test_measured_energies_err_apart_and_estimated_ones_together() -> None:
    measured = _draw(_runs([0, 1], [0.5, 0.5])).costs["energy_wh"]
    assert np.log(measured).std(axis=0) == pytest.approx([np.log(1.05)] * 2, rel=0.02)
    assert abs(np.corrcoef(measured.T)[0, 1]) < 0.03
    estimated = np.log(_draw(_runs([0, 1], [0.5, 0.5], energy="estimated")).costs["energy_wh"])
    common, own = np.log(1.2), np.log(1.1)
    assert estimated.std(axis=0) == pytest.approx([np.hypot(common, own)] * 2, rel=0.02)
    ratio = estimated[:, 0] - estimated[:, 1]
    assert ratio.std() == pytest.approx(np.sqrt(2) * own, rel=0.02)  # what is common cancels
    apart = np.log(
        _draw(_runs([0, 1], [0.5, 0.5], energy="estimated", machine=["a", "b"])).costs["energy_wh"]
    )
    assert (apart[:, 0] - apart[:, 1]).std() == pytest.approx(
        np.sqrt(2) * np.hypot(common, own), rel=0.02
    )


def test_costs_vary_as_between_the_runs_and_together() -> None:
    rng = np.random.default_rng(9)
    factor = 1 + 0.1 * rng.standard_normal(300)
    runs = _runs(list(np.repeat(np.arange(100), 3)), [0.5] * 300)
    runs["train_time_s"], runs["memory_gb"] = 100 * factor, 2 * factor
    drawn = draw(
        *(runs, pd.RangeIndex(100), {}, ["train_time_s", "memory_gb"], Errors(spread=KNOWN)),
        draws=2000,
    )
    spread = drawn.costs["train_time_s"].std(axis=0) / drawn.costs["train_time_s"].mean(axis=0)
    of_model = factor.reshape(100, 3)
    relative = of_model / of_model.mean(axis=1, keepdims=True)
    pooled = np.sqrt(relative.var(axis=1, ddof=1).mean())
    assert spread.mean() == pytest.approx(pooled / np.sqrt(3), rel=0.03)
    together = np.corrcoef(drawn.costs["train_time_s"][:, 0], drawn.costs["memory_gb"][:, 0])
    assert together[0, 1] == pytest.approx(1.0, abs=1e-6)


def test_the_auc_has_delongs_variance_and_the_exact_bootstraps() -> None:
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(10)
    labels = rng.integers(0, 2, 300)
    chance = 1 / (1 + np.exp(-(rng.standard_normal(300) + 1.2 * labels)))
    predicted = Predicted(labels, np.column_stack([1 - chance, chance]), "binary-class")
    metric = METRICS["auc"](predicted)
    assert metric is not None
    auc = roc_auc_score(labels, chance)
    drawn = _draw(_runs([0], [auc]), {"r0": Sample(metric, np.arange(300), "t")})
    x, y = chance[labels == 1], chance[labels == 0]
    psi = (x[:, None] > y).astype(float)
    delong = psi.mean(axis=1).var(ddof=1) / len(x) + psi.mean(axis=0).var(ddof=1) / len(y)
    assert drawn.performance.std() == pytest.approx(np.sqrt(delong), rel=0.03)
    (_, weights), *_ = list(weights_of(np.arange(300), 500, 0, "t"))
    exact = [roc_auc_score(labels, chance, sample_weight=w) for w in weights]
    assert metric(weights).std() == pytest.approx(np.std(exact), rel=0.03)
    assert np.abs(metric(weights) - exact).max() < 0.01


def test_the_same_seed_gives_the_same_draws_whatever_else_is_compared() -> None:
    right = _right(100, 0.8)
    one = _draw(_runs([0], [0.8]), {"r0": _sample(right)})
    two = _draw(_runs([0, 1], [0.8, 0.5]), {"r0": _sample(right), "r1": _sample(~right)})
    assert np.array_equal(one.images[:, 0], two.images[:, 0])


def test_classes_that_draws_miss_leave_no_interval() -> None:
    labels = np.array([1] + [0] * 30)
    chances = np.column_stack([1 - labels, labels]) * 0.8 + 0.1
    metric = METRICS["auc"](Predicted(labels, chances, "binary-class"))
    assert metric is not None
    drawn = _draw(_runs([0], [1.0]), {"r0": Sample(metric, np.arange(31), "t")})
    assert drawn.missing == (TOO_FEW,)  # a third of the draws has no positive image


def test_costs_that_hardly_any_run_repeats_stay_finite() -> None:
    """One second run of one model, at 60 times the energy: Student's t of one degree of freedom."""
    runs = _runs([0, 0, 1], [0.5, 0.5, 0.6], images=100.0, energy_wh=[1.0, 60.0, 5.0])
    costs = _draw(runs).costs["energy_wh"]
    assert np.isfinite(costs).all()
    assert (costs > 0).all()
