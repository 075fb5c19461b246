"""Whether runs show how much seeds differ, and what other experiments say where they do not."""

from __future__ import annotations

import numpy as np
import pytest
from made import frame, run

from pepr_mlops.comparison import Question, compare
from pepr_mlops.comparison.repeats import spread_between, unrepeated
from pepr_mlops.comparison.runs import Evidence
from pepr_mlops.comparison.spread import ASSUMED, Spread

P = "test/accuracy"


def test_a_set_without_repeated_runs_has_no_spread_of_its_own() -> None:
    single = [run("a"), run("b", seed=1)]
    assert unrepeated(frame(single)) == P
    assert unrepeated(frame([*single, run("a", seed=1)])) is None
    # the same seed again is no other run, nor is one that failed or has other settings
    for again in (run("a"), run("a", seed=1, status="FAILED"), run("a", seed=1, epochs=3)):
        assert unrepeated(frame([*single, again])) == P
    elsewhere = run("c", tags={"pepr.experiment": "lidc", "pepr.performance": "test/auc"})
    assert unrepeated(frame([*single, run("a", seed=1), elsewhere])) == "test/auc"
    assert unrepeated(frame([run(performance=None)])) is None


def _elsewhere() -> list[dict[str, object]]:
    lidc = {"pepr.experiment": "lidc"}
    return [
        *(run("a", seed, performance=p, tags=lidc) for seed, p in enumerate([0.80, 0.82])),
        *(run("b", seed, performance=p) for seed, p in enumerate([0.70, 0.73, 0.76])),
        run("b", 0, performance=0.1, start=1_780_000_000_000),  # repeated since
        run("b", 3, performance=0.1, epochs=3),
        run("c", performance=0.1),
        run("b", 4, performance=0.1, tags={"pepr.performance": "test/auc"}),
    ]


def test_repeated_runs_are_pooled_by_hand() -> None:
    # squares 2 · 0.01² of a and 2 · 0.03² of b over 1 + 2 degrees of freedom
    found = spread_between(frame(_elsewhere()), P)
    source = "pooled over 5 runs of 2 models in lidc, derma"
    assert found == Spread(pytest.approx(np.sqrt(0.002 / 3)), 3, source, P)
    assert spread_between(frame(_elsewhere()), "test/auc") == ASSUMED
    assert spread_between(frame(_elsewhere())[:0], P) == ASSUMED


def test_it_is_used_for_the_same_metric_and_named() -> None:
    runs = frame([run("a", metrics={"test/auc": 0.9}), run("b", metrics={"test/auc": 0.8})])
    evidence = Evidence(spread=Spread(0.02, 3, "pooled over 5 runs", P))
    notes = compare(runs, Question(draws=50), evidence).notes
    assert any("to vary between runs by 0.02 (pooled over 5 runs)" in note for note in notes)
    notes = compare(runs, Question(draws=50, performance="test/auc"), evidence).notes
    assert any("to vary between runs by 0.01 (assumed)" in note for note in notes)
