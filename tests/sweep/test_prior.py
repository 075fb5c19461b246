"""What other data sets tell a search: by hand, against SciPy, and on the paper's curves."""

from __future__ import annotations

import json
import math
from importlib import resources
from pathlib import Path

import numpy as np
import pandas as pd
import prior as shipped
import pytest
from conftest import SHARED, needs
from frugal import PAPER, curves
from scipy.stats import t as student

from pepr_mlops.errors import WrongUse
from pepr_mlops.sweep import frugal
from pepr_mlops.sweep.frugal import requests, verdict
from pepr_mlops.sweep.observed import Objective, Observed, Request
from pepr_mlops.sweep.prior import (
    COSTS,
    Earlier,
    Prior,
    as_json,
    contenders,
    forecast,
    from_json,
    level,
    prior_of,
)
from pepr_mlops.sweep.replay import replay
from pepr_mlops.sweep.search import read_prior

MODELS = list("abcdefgh")


def made(family: str, gain: float, factor: float = 1.0, models: list[str] = MODELS) -> Earlier:
    """Eight models that gain 0.01·`gain` in each of three epochs; the first costs `factor`, the
    second twice as much, and so on."""
    start = np.linspace(0.5, 0.57, 8)[:, None]
    steps = np.full((8, 3), 0.01 * gain).cumsum(axis=1)
    costs = pd.DataFrame({c: factor * 2.0 ** np.arange(8) for c in COSTS}, models)
    return Earlier.of(family, family, {}, pd.DataFrame(start + steps, models), costs)


def test_a_level_is_the_mean_over_the_later_half() -> None:
    assert level(np.array([[0.1, 0.2, 0.4, 0.6]]), 1) == pytest.approx([0.1])
    assert level(np.array([[0.1, 0.2, 0.4, 0.6]]), 3) == pytest.approx([0.3])
    assert level(np.array([[0.1, 0.2, 0.4, 0.6]]), 4) == pytest.approx([0.5])
    assert sorted(contenders(np.array([0.3, 0.1, 0.9, 0.5, 0.2]))) == [0, 2, 3]
    assert sorted(contenders(np.array([0.3, 0.1]))) == [0, 1]


def test_a_data_set_is_summed_up_by_the_gain_of_its_contenders() -> None:
    p = pd.DataFrame({1: np.linspace(0.5, 0.57, 8), 2: 0.6, 3: 0.7}, MODELS)
    one = Earlier.of("x", "x1", {}, p, pd.DataFrame({c: np.ones(8) for c in COSTS}, MODELS))
    # e, f, g, h lead after the first epoch, with 0.54 to 0.57; they gain 0.16, 0.15, 0.14, 0.13
    assert one.centre == pytest.approx((0.145, 0.1, 0.05))
    assert one.scatter == pytest.approx((1.4826 * 0.01, 1e-4, 1e-4), abs=1e-5)


@pytest.mark.parametrize(
    ("p", "says"),
    [
        (np.full((7, 3), 0.5), "7 models and 3 epochs; it needs 8 models and 3 epochs"),
        (np.full((8, 2), 0.5), "8 models and 2 epochs"),
        (np.where(np.eye(8, 3) == 1, np.nan, 0.5), "has no P in [0, 1] of every epoch"),
        (np.full((8, 3), 50.0), "has no P in [0, 1] of every epoch"),
    ],
)
def test_a_data_set_of_too_few_numbers_is_refused(p: np.ndarray, says: str) -> None:
    names = [f"m{i}" for i in range(len(p))]
    costs = pd.DataFrame(dict.fromkeys(COSTS, 1.0), names)
    with pytest.raises(WrongUse) as refused:
        Earlier.of("x", "x", {}, pd.DataFrame(p, names), costs)
    assert says in str(refused.value)


def test_families_weigh_the_same_and_the_data_under_search_nothing() -> None:
    two = [made("x", 1), made("x", 3), made("y", 6), made("z", 10)]
    prior = prior_of(two, ["z"])
    assert prior is not None
    assert prior.families == {"x": 0.5, "y": 0.5}
    # after the first of three epochs 2 to 6 hundredths are left in x, 12 in y
    assert prior.at(1 / 3)[0] == pytest.approx((0.04 + 0.12) / 2)
    assert prior.at(1)[0] == pytest.approx((0.01 + 0.03) / 2)  # the mean over the later half
    assert prior_of(two[:2], ["x"]) is None


def test_costs_of_data_sets_differ_by_a_factor_and_need_not_have_all_models() -> None:
    prior = prior_of([made("x", 1), made("y", 1, 10, [*MODELS[1:], "i"])], ["z"])
    assert prior is not None
    table = prior.costs["cost"].sort_index()
    # in y every letter costs ten times what the one before it costs in x
    steps = np.diff(table.to_numpy()) / math.log(2)
    assert steps[1:-1] == pytest.approx(np.ones(6), abs=1e-3)


def test_costs_are_forecast_by_a_line_through_the_measured_ones() -> None:
    table = np.array([0.0, 1.0, 2.0, np.nan])
    known = np.array([3.0, np.nan, 3 * math.exp(2), np.nan])
    assert forecast(table, known)[0][:3] == pytest.approx([3, 3 * math.e, 3 * math.exp(2)])
    assert np.isnan(forecast(table, known)[0][3])
    # Slope by hand: x is -1 and 1, log cost less x is 1 and -1, so 1 - 2 / (2 + 1) = 1 / 3.
    steep, _ = forecast(table, np.array([1.0, np.nan, 1.0, np.nan]))
    assert steep[1] == pytest.approx(1.0)
    further, _ = forecast(np.array([0.0, 4.0, 2.0]), np.array([1.0, np.nan, 1.0]))
    assert further[1] == pytest.approx(math.exp(3 / 3))


def test_a_prior_that_agrees_counts_as_one_value_and_four_degrees_of_freedom() -> None:
    values = np.array([0.04, 0.06])  # mean 0.05, variance 0.0002
    found = frugal._expected(values, 0.05, math.sqrt(0.0002))
    expected = student(5, 0.05, math.sqrt(0.0002 * (1 + 1 / 3)))
    shares = np.array([0.01, 0.5, 0.9])
    assert found.quantiles(shares) == pytest.approx(expected.ppf(shares))
    assert found.above(np.array([0.03, 0.08])) == pytest.approx(expected.sf([0.03, 0.08]))


@pytest.mark.parametrize("centre", [-10.0, 10.0])
def test_a_prior_whose_centre_is_far_off_is_as_good_as_none(centre: float) -> None:
    values = np.array([0.04, 0.06, 0.05, 0.03])
    scatter = float(values.std(ddof=1))
    found = frugal._expected(values, centre, scatter)
    shares = np.array([0.01, 0.5, 0.9])
    expected = student.ppf(shares, 7, 0.045, scatter * math.sqrt(5 / 4))
    assert found.quantiles(shares) == pytest.approx(expected, abs=1e-4)


def test_a_prior_that_is_far_too_wide_is_soon_as_good_as_none() -> None:
    values = np.array([0.04, 0.05, 0.06])  # variance 0.0001, 100 times that of the prior
    # 4 / (ln² 100 / (trigamma(2) + trigamma(1))) = 0.432, and ln 100 · 2 / (2 + 0.432) = 3.787
    variance = 0.01 * math.exp(-3.787)
    found = frugal._expected(values, 0.05, 0.1)
    assert found.freedom == pytest.approx(2.432, abs=1e-3)
    assert found.scale == pytest.approx(math.sqrt(variance * (1 + 1 / 4)), rel=1e-3)


def thirty_eight() -> tuple[list[str], pd.DataFrame, pd.DataFrame]:
    """Models whose costs rise from 1 to e³, and what each still gains."""
    names = [f"m{i:02d}" for i in range(38)]
    table = pd.DataFrame({c: np.linspace(0, 3, 38) for c in ("cost", "expense")}, names)
    return names, table, pd.DataFrame({"centre": [0.1, 0], "scatter": 0.01}, [0.1, 1.0])


def test_with_a_prior_only_the_cheapest_some_dearer_and_the_dearest_are_probed() -> None:
    names, table, gain = thirty_eight()
    prior, objective = Prior(gain, table, {"x": 1.0}), Objective(top=2, epochs=3)
    new = [*names, "new"]
    first = requests(new, [], objective, prior=prior)
    assert {request.candidate for request in first} == {*names[:20], *names[21::2], "new"}
    cost = dict(zip(names, 2 * np.exp(table["cost"]), strict=True)) | {"new": 5.0}
    seen = [Observed(r.candidate, 0, None, cost[r.candidate], cost[r.candidate], 0) for r in first]
    found = verdict(new, seen, objective, prior=prior)
    assert list(found.table.index[found.table["forecast"]]) == names[20:37:2]
    assert found.table["cost"].to_numpy() == pytest.approx([cost[name] for name in sorted(new)])
    assert found.exhaustive == pytest.approx(sum(cost.values()))
    both = requests(new, seen, objective, at_once=2, prior=prior)
    assert both == [Request("m00", 3), Request("m01", 3)]
    certify = Objective(top=2, epochs=3, certify=1)
    assert {r.candidate for r in requests(new, seen, certify, prior=prior)} == {*names[20:37:2]}


def test_a_model_that_is_forecast_to_be_the_dearest_is_probed_too() -> None:
    names, table, gain = thirty_eight()
    prior, objective = Prior(gain, table, {"x": 1.0}), Objective(top=1, epochs=3)
    first = [request.candidate for request in requests(names, [], objective, prior=prior)]
    cost = {name: float(np.exp(table.loc[name, "cost"])) for name in first} | {"m37": 16.0}
    seen = [Observed(name, 0, None, c, c, 0.0) for name, c in cost.items()]
    probed = requests(names, seen, objective, prior=prior)
    assert Request("m36", 0) in probed  # by the table dearer than m35, and m37 is not
    assert {request.epoch for request in probed} == {0}
    assert verdict(names, seen, objective, prior=prior).table["R"].isna().all()


def test_nothing_is_proven_by_a_forecast() -> None:
    names = [f"m{i:02d}" for i in range(30)]
    table = pd.DataFrame({c: np.linspace(0, 3, 30) for c in ("cost", "expense")}, names)
    gain = pd.DataFrame({"centre": [0.1, 0.0], "scatter": [0.01, 0.01]}, [0.1, 1.0])
    seen = [Observed(n, 0, None, c, c, 0.0) for n, c in np.exp(table["cost"]).items()]
    ends = [one for one in seen if one.candidate != "m24"]
    done = [
        Observed(n, e, 0.99, seen[i].cost, 1.0, 1.0)
        for i, n in enumerate(names[:2])
        for e in (1, 2, 3)
    ]
    objective, prior = Objective(top=1, epochs=3), Prior(gain, table, {"x": 1.0})
    assert verdict(names, [*ends, *done], objective, prior=prior).proven == []
    assert verdict(names, [*seen, *done], objective, prior=prior).proven == ["m00"]


@pytest.fixture(scope="module")
def runs() -> pd.DataFrame:
    path = SHARED / "pepr-paper" / "all_results.csv"
    return pd.read_csv(needs(path, "the paper's measurements"))


def test_the_shipped_file_is_what_its_command_makes(runs: pd.DataFrame) -> None:
    text = resources.files("pepr_mlops.sweep").joinpath("prior.json").read_text()
    content = json.loads(text)
    assert content["data_sets"] == json.loads(json.dumps(as_json(shipped.earlier(runs))))
    assert [one.name for one in from_json(content, "shipped")] == list(PAPER)


def changed(**values: object) -> str:
    """A file of one data set with these values instead of its own."""
    return json.dumps({"data_sets": [as_json([made("x", 1)])[0] | values]})


# Per cent of the energy, and how far the best score is missed.
@pytest.mark.parametrize(
    ("experiment", "spent", "regret"),
    [
        ("derma", 1.93, 0.0057),
        ("derma_pt", 0.94, 0),
        ("lidc", 2.14, 0),
        ("pneumonia", 0.99, 0.0003),
    ],
)
def test_the_papers_best_is_found_with_the_prior_of_other_families(
    runs: pd.DataFrame, experiment: str, spent: float, regret: float
) -> None:
    family = shipped.FAMILIES.get(experiment, experiment)
    prior = read_prior("shipped", [family], "E", "energy_wh")
    assert prior is not None
    assert family not in prior.families
    own, objective = curves(runs, experiment, "E"), Objective(top=1)
    found = replay(own, objective, prior)
    scores = own.scores(objective).iloc[:, -1]
    assert 100 * found.spent == pytest.approx(spent, abs=0.05)
    assert scores.max() - scores[found.finished].max() == pytest.approx(regret, abs=1e-4)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("no json", "is not JSON"),
        ("[]", "has no data sets; benchmarks/prior.py writes such a file"),
        ('{"data_sets": [{"family": "x"}]}', "data set 0 cannot be used ('costs')"),
        ('{"data_sets": 5}', "has no data sets"),
        (changed(scatter=[0.1, float("nan"), 1]), "(a value is missing, or no finite number)"),
        (changed(finals=[0.5] * 7), "(a value is missing, or no finite number)"),
        (changed(finals=[50.0] * 8), "(finals: P is not in [0, 1]; give shares, not per cent)"),
        (changed(models=["a"] * 8), "(models: one appears twice)"),
        (changed(models=["a"]), "(it has 1 models and 3 epochs; it needs 8 models and 3 epochs)"),
        (changed(centre=[0.1, 0.1]), "(it has 8 models and 2 epochs;"),
        (changed(recipe=[]), "data set 0 cannot be used"),
    ],
)
def test_another_file_is_refused_in_one_line(content: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "prior.json"
    path.write_text(content)
    with pytest.raises(WrongUse) as refused:
        read_prior(str(path), ["y"], "E", "energy_wh")
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    path, one = tmp_path / "prior.json", made("x", 1)
    path.write_text(json.dumps({"data_sets": as_json([one])}))
    prior, same = read_prior(str(path), ["y"], "M", "train_time_s"), prior_of([one], ["y"])
    assert prior is not None
    assert same is not None
    pd.testing.assert_frame_equal(prior.costs, same.costs)
    assert read_prior(str(path), ["x"], "E", "energy_wh") is None
    assert read_prior("none", ["y"], "E", "energy_wh") is None
    with pytest.raises(WrongUse, match="cannot be read"):
        read_prior(str(tmp_path / "absent"), ["y"], "E", "energy_wh")


def test_a_table_that_the_probes_contradict_forecasts_nothing() -> None:
    names, table, gain = thirty_eight()
    prior, objective = Prior(gain, table, {"x": 1.0}), Objective(top=1, epochs=3)
    first = [request.candidate for request in requests(names, [], objective, prior=prior)]
    seen = [
        Observed(name, 0, None, 1.0 + 9 * (i % 2), 1.0 + 9 * (i % 2), 0)
        for i, name in enumerate(first)
    ]
    rest = {request.candidate for request in requests(names, seen, objective, prior=prior)}
    assert rest == {*names} - {*first}
