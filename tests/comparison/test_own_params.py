"""Parameters of one's own code that have the names of options of jobs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from made import frame, run

from pepr_mlops.comparison import Question, compare
from pepr_mlops.comparison.conditions import where
from pepr_mlops.comparison.repeats import spread_between, unrepeated
from pepr_mlops.comparison.spread import ASSUMED
from pepr_mlops.errors import WrongUse
from pepr_mlops.spec import LATER

P = "test/accuracy"


def _own(performance: float = 0.8, **params: str) -> dict[str, Any]:
    """A run of one's own code, measured with `measure`."""
    made = run("mine", performance=performance, energy_wh=100 * performance)
    return {**made, "params": {"model": "mine", **params}}


VALUES = {"fold": ("1", "2"), "images": ("1000", "5000"), "optimizer": ("sgd", "adam")}


@pytest.mark.parametrize("name", VALUES)
def test_runs_of_own_code_that_differ_in_one_are_rows_of_their_own(name: str) -> None:
    runs = frame([_own(0.6 + 0.1 * i, **{name: v}) for i, v in enumerate(VALUES[name])])
    found = compare(runs, Question(draws=0)).scores.sort_values("performance")
    assert found["variant"].tolist() == [f"{name}={value}" for value in VALUES[name]]
    assert found["performance"].tolist() == pytest.approx([0.6, 0.7])
    assert found["n"].tolist() == [1, 1]


@pytest.mark.parametrize("name", [n for n in LATER if n not in ("launch", "threads")])
def test_such_runs_are_no_repetitions_whatever_their_seeds(name: str) -> None:
    runs = frame([_own(0.6 + 0.1 * i, **{name: f"v{i}", "seed": str(i)}) for i in range(3)])
    assert compare(runs, Question(draws=0)).scores["n"].tolist() == [1, 1, 1]
    assert spread_between(runs, P) == ASSUMED
    assert unrepeated(runs) == P
    same = frame([_own(0.6 + 0.1 * i, **{name: "v", "seed": str(i)}) for i in range(3)])
    assert spread_between(same, P).sd == pytest.approx(np.std([0.6, 0.7, 0.8], ddof=1))


def test_such_a_parameter_is_chosen_by_its_value_and_leaves_jobs_alone() -> None:
    jobs = [run("a", seed) for seed in (0, 1)]
    runs = frame([*jobs, _own(0.6, fold="1"), _own(0.7, fold="2"), _own(0.7, optimizer="sgd")])
    assert where(runs, [("fold", "2")])["performance"].tolist() == [0.7]
    assert where(runs, [("optimizer", "sgd")])["run_id"].tolist() == ["run4"]
    assert where(runs, [("optimizer", "adam")])["run_id"].tolist() == ["run0", "run1"]
    found = compare(runs, Question(draws=0, mixed="stratify")).scores
    assert found.loc[found["model"] == "a", ["n", "variant"]].to_numpy().tolist() == [[2, ""]]


def test_a_fold_of_a_cross_validation_cannot_be_chosen_alone() -> None:
    runs = frame([run("a", folds=3, fold=k) for k in (1, 2, 3)])
    with pytest.raises(WrongUse, match="folds of a cross-validation count together, so that fold="):
        where(runs, [("fold", "1")])
    assert len(where(runs, [("folds", "3")])) == 3
