"""Which run `best` is."""

from __future__ import annotations

import pytest
from made import frame, run

from pepr_mlops.comparison import Question, compare
from pepr_mlops.comparison.answer import Terms
from pepr_mlops.comparison.selected import Choice, select
from pepr_mlops.comparison.selection import Budget
from pepr_mlops.errors import WrongUse

QUESTION = Question(draws=200)
BY_P = Choice(by="performance")


def _runs(*made: dict) -> tuple:
    runs = frame(made)
    return compare(runs, QUESTION), QUESTION


def test_best_is_the_run_with_the_lowest_seed_of_the_chosen_model() -> None:
    found = _runs(
        *(run("good", seed, performance=0.9) for seed in (10, 9)),
        *(run("poor", seed, performance=0.5) for seed in (9, 10)),
    )
    row = select(*found, BY_P).best_run()
    assert (row["model"], row["seed"], row["run_id"]) == ("good", 9, "run1")


def test_the_latest_of_runs_with_one_seed_counts() -> None:
    tags = [{"pepr.experiment": "derma"}] * 2
    found = _runs(
        *(run("good", 3, performance=p, start=start, tags=tag)
          for p, start, tag in zip((0.9, 0.91), (1_790_000_000_000, 1_790_000_100_000), tags,
                                   strict=True)),
        run("poor", 3, performance=0.5),
    )  # fmt: skip
    assert select(*found, BY_P).best_run()["run_id"] == "run1"


def test_best_obeys_budgets() -> None:
    found = _runs(run("dear", performance=0.9, energy_wh=50), run("cheap", performance=0.5))
    budget = Budget("E", "max", 30)
    assert select(*found, Choice(budgets=[budget], by="score")).best_run()["model"] == "cheap"
    with pytest.raises(WrongUse, match="best: no model is within all budgets; relax one"):
        select(*found, Choice(budgets=[Budget("E", "max", 1)])).best_run()


def test_there_is_no_best_where_nothing_is_surely_good_enough() -> None:
    found = _runs(run("a", performance=0.80), run("b", performance=0.81))
    with pytest.raises(WrongUse, match=r"best: no model is surely good enough within 0\.001"):
        select(*found, Choice(Terms(margin=0.001))).best_run()


def test_several_comparison_sets_have_several_best_models() -> None:
    other = {"pepr.experiment": "other"}
    found = _runs(run("a"), run("b"), run("a", tags=other), run("b", tags=other))
    with pytest.raises(WrongUse, match=r"best: the runs are in 2 comparison sets \(derma, other\)"):
        select(*found, BY_P)


def test_a_choice_by_something_else_is_refused() -> None:
    with pytest.raises(WrongUse, match="by: 'price' is not one of cost, performance, score"):
        Choice(by="price")  # type: ignore[arg-type]
