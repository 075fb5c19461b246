"""Intervals of P, scores and ranks from draws, by hand counts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from pepr_mlops.comparison.draws import Draws
from pepr_mlops.comparison.intervals import (
    NOT_DRAWN,
    Scoring,
    interval_texts,
    intervals,
    not_drawn,
    rank_texts,
)
from pepr_mlops.comparison.pepr import Bounds

SCORING = Scoring(["energy_wh"], [1.0], reference={"energy_wh": Bounds(0.0, 100.0)})


def _draws(performance: list[list[float]], cost: list[list[float]]) -> Draws:
    p, names = np.array(performance), list("abc")[: len(performance[0])]
    images = p - p.mean(axis=0) + 1e-12
    return Draws(
        models=pd.Index(names, name="model"),
        value=p.mean(axis=0),
        performance=p,
        costs={"energy_wh": np.array(cost)},
        images=images,
        seeds=np.zeros(len(names)),
        missing=("",) * len(names),
        sampled=np.ones(len(names), dtype=bool),
        spread=None,
    )


def test_each_draw_is_scored_and_ranked_again() -> None:
    # scores: a 0.8, 0.6, 0.4 at no cost; b 0.9 / (1 + R) with R 0.5, 0.8, 0
    drawn = _draws([[0.8, 0.9], [0.6, 0.9], [0.4, 0.9]], [[0, 50], [0, 80], [0, 0]])
    found = intervals(drawn, SCORING, level=0.5, top=1)
    scores = np.array([[0.8, 0.6], [0.6, 0.5], [0.4, 0.9]])
    assert found["ci_low"].tolist() == pytest.approx(np.quantile(scores, 0.25, axis=0).tolist())
    assert found["ci_high"].tolist() == pytest.approx(np.quantile(scores, 0.75, axis=0).tolist())
    assert found["p_low"].tolist() == pytest.approx([0.5, 0.9])
    assert found["p_high"].tolist() == pytest.approx([0.7, 0.9])
    assert found["top_share"].tolist() == pytest.approx([2 / 3, 1 / 3])
    assert found.index.tolist() == ["a", "b"]


def test_a_model_of_unknown_error_has_no_interval_but_ranks() -> None:
    drawn = _draws([[0.8, 0.9], [0.7, 0.9]], [[0, 0], [0, 0]])
    assert intervals(drawn, SCORING)[["rank_low", "rank_high"]].to_numpy().tolist() == [
        [2, 2],
        [1, 1],
    ]
    unknown = intervals(replace(drawn, missing=("", "lost")), SCORING)
    assert unknown["rank_low"].tolist() == [2, 1]
    nothing = intervals(replace(drawn, images=np.zeros((2, 2)), missing=("lost",) * 2), SCORING)
    assert nothing["rank_low"].isna().all()
    assert unknown["p_low"].isna().tolist() == [False, True]
    assert unknown["no_interval"].tolist() == ["", "lost"]


def test_texts() -> None:
    drawn = _draws([[0.8, 0.9], [0.7, 0.9]], [[0, 0], [0, 0]])
    found = intervals(replace(drawn, missing=("", "lost")), SCORING, level=0.9)
    assert interval_texts(found, "p") == ["0.7050–0.7950", "none: lost"]
    assert rank_texts(found) == ["2", "1"]
    assert rank_texts(not_drawn(pd.Index(["a"]))) == [""]
    assert rank_texts(pd.DataFrame({"rank_low": [1.0, 2.0], "rank_high": [1.0, 5.0]})) == [
        "1",
        "2–5",
    ]


def test_nothing_drawn_says_so() -> None:
    found = not_drawn(pd.Index(["a", "b"]))
    assert set(found["no_interval"]) == {NOT_DRAWN}
    assert found.drop(columns="no_interval").isna().all(axis=None)
    drawn = _draws([[0.8, 0.9]], [[0, 0]])
    assert found.columns.tolist() == intervals(drawn, SCORING).columns.tolist()
