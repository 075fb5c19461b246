"""Names and numbers in sentences."""

from __future__ import annotations

import math

import pytest

from pepr_mlops.comparison.words import (
    all_of,
    condition_words,
    cost_text,
    cost_title,
    cost_words,
    difference_text,
    margin_text,
    metric_words,
    value_text,
)


def test_a_metric_is_named_as_people_say_it() -> None:
    assert metric_words("val/auc") == {
        "key": "val/auc",
        "name": "AUC",
        "on": "validation",
        "share": False,
    }
    assert metric_words("test/accuracy")["share"]
    assert metric_words("1 - test/brier")["name"] == "1 \N{MINUS SIGN} Brier score"
    assert metric_words("dice_score")["name"] == "dice score"


@pytest.mark.parametrize(
    ("metric", "low", "high", "text"),
    [
        ("test/accuracy", math.nan, math.nan, "85.8%"),
        ("test/accuracy", 0.842, 0.873, "85.8%"),
        ("test/accuracy", 0.80, 0.90, "86%"),
        ("test/auc", 0.856, 0.860, "0.8579"),
        ("test/auc", 0.80, 0.90, "0.86"),
    ],
)
def test_a_value_has_the_digits_that_its_interval_justifies(
    metric: str, low: float, high: float, text: str
) -> None:
    assert value_text(metric, 0.8579, low, high) == text


def test_differences_of_shares_are_points() -> None:
    assert difference_text("test/accuracy", 0.008) == "0.8 points"
    assert difference_text("test/accuracy", 0.01) == "1.0 point"
    assert difference_text("test/auc", 0.008) == "0.008"
    assert [margin_text("test/accuracy", m) for m in (0.01, 0.015)] == ["1 point", "1.5 points"]
    assert margin_text("test/auc", 0.015) == "0.015"


def test_costs_have_units_and_names() -> None:
    assert cost_text("E", 17.4631) == "17.5 Wh of training energy"
    assert cost_text("E", 17.4631, 15.8, 19.1) == "17 Wh of training energy"
    assert cost_text("E", 17463.1, kind=False) == "17.5 kWh"
    assert cost_text("T", 360.0) == "6 min of training time"
    assert cost_text("M", 0.8) == "800 MB of memory"
    assert cost_text("E", 0.000_042) == "0.042 mWh of training energy"
    assert cost_text("E", 12.5, 11.0, 14.0) == "13 Wh of training energy"  # as browsers round
    assert cost_text("inference/gmacs", 4.0) == "4 GMAC of computation per image"


def test_conditions_and_lists() -> None:
    assert condition_words("pretrained", "false") == "from scratch"
    assert condition_words("hardware", "NVIDIA H100") == "NVIDIA H100"
    assert condition_words("batch_size", "32") == "batch size 32"
    assert [all_of(list(words)) for words in ("", "a", "ab", "abc")] == [
        *("", "a", "a and b", "a, b and c"),
    ]


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("E", "training energy (Wh)"),
        ("D", "training data"),
        ("lifetime_wh", "energy of training and use (Wh)"),
        ("inference/gmacs", "computation per image (GMAC)"),
        ("inference_onnx/ms_p50", "median time per image as ONNX (ms)"),
        ("energy/eval_wh", "energy of eval so far, all components (Wh)"),
        ("elsewhere/cost", "elsewhere/cost"),
    ],
)
def test_costs_with_their_units(name: str, title: str) -> None:
    assert cost_title(name) == title


def test_weighted_costs_are_both_named() -> None:
    assert cost_words("E+M") == {"name": "training energy and memory"}


def test_a_half_is_rounded_as_the_page_rounds_it() -> None:
    assert value_text("test/accuracy", 0.625, 0.59, 0.66) == "63%"


def test_one_is_no_plural() -> None:
    assert condition_words("threads", "1") == "1 thread"
    assert condition_words("epochs", "10") == "10 epochs"
