"""The view in the address: what it holds comes back, and nonsense in it does no harm."""

from __future__ import annotations

import shlex
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pepr_mlops.comparison import Question
from pepr_mlops.live import view_state
from pepr_mlops.live.view_state import View

OFFERED = view_state.offered(["inference/gmacs"])
DEFAULT = View(experiments=("derma",))

_numbers = st.floats(0, 1, allow_nan=False).map(lambda x: float(f"{x:.6g}"))


@st.composite
def _views(draw: Any) -> View:
    resources = draw(st.lists(st.sampled_from(OFFERED), min_size=1, unique=True))
    weights = draw(st.lists(_numbers, min_size=len(resources), max_size=len(resources)))
    limits = draw(st.dictionaries(st.sampled_from(OFFERED), _numbers))
    names = st.text(min_size=1, max_size=40).filter(str.strip)
    return View(
        experiments=tuple(draw(st.lists(names, min_size=1, max_size=3, unique=True))),
        resources=tuple(resources),
        weights=tuple(weights) if len(resources) > 1 else (view_state.WEIGHT,),
        alpha=draw(_numbers.map(lambda x: 1 + 9 * x).map(lambda x: float(f"{x:.6g}"))),
        normalisation=draw(st.sampled_from(view_state.NORMALISATIONS)),
        mixed=draw(st.sampled_from(view_state.MIXED)),
        strict=draw(st.booleans()),
        at_most=tuple(limits.items()),
        at_least=draw(st.none() | _numbers),
        colour=draw(st.sampled_from(view_state.COLOURS)),
        axis=draw(st.sampled_from(view_state.AXES)),
        chosen_set=draw(st.just("") | names),
        rows=draw(st.integers(1, view_state.MOST_ROWS)),
    )


@given(_views())
def test_a_view_comes_back_from_its_address(view: View) -> None:
    assert view_state.parse(view_state.written(view, DEFAULT), DEFAULT, OFFERED) == (view, [])


def test_default_values_are_not_in_the_address() -> None:
    assert view_state.written(View(), View()) == ""
    assert view_state.written(DEFAULT, DEFAULT) == "?experiment=derma"


@pytest.mark.parametrize(
    ("search", "word"),
    [
        ("?alpha=nan", "alpha"),
        ("?alpha=0.5", "not 1 or more"),
        ("?alpha=1e400", "alpha"),
        ("?normalisation=<script>alert(1)</script>", "not one of minmax, zero, robust"),
        ("?mixed=yes", "refuse, stratify, allow"),
        ("?strict=maybe", "not true or false"),
        ("?max=E", "E: '' is not a number"),
        ("?max=E=inf", "max"),
        ("?max=Q=3", "'Q' is not one of E, C"),
        ("?min=loss=0.1", "'loss' is not one of performance"),
        ("?min=performance=2", "performance: '2' is not 1 or less"),
        ("?resource=Q", "not one of E, C, M, T, D, inference/gmacs"),
        ("?weights=0.5,0.5", "2 for 1 resources"),
        ("?resource=E&resource=M&weights=a,b", "weights"),
        ("?rows=1e9", "rows"),
        ("?rows=2.5", "whole number"),
        ("?colour=../../etc", "colour"),
        ("?experiment=" + "x" * 5000, "at most 300 characters"),
        ("?onload=alert(1)", "no such setting"),
        ("?" + "&".join(["alpha=2"] * 500), "more than"),
    ],
)
def test_nonsense_in_the_address_is_the_default_and_a_short_message(search: str, word: str) -> None:
    view, messages = view_state.parse(search, DEFAULT, OFFERED)
    expected = replace(DEFAULT, resources=view.resources, weights=view.weights)
    assert view == expected
    assert len(view.weights) == len(view.resources)
    (message,) = messages
    assert word in message
    assert len(message) < 250


@given(st.text(max_size=200))
def test_no_address_raises(search: str) -> None:
    view, _ = view_state.parse(search, DEFAULT, OFFERED)
    view_state.question(view, draws=1)


def test_weights_count_as_shares_of_their_sum() -> None:
    view = View(resources=("E", "M"), weights=(0.6, 0.2))
    assert view_state.shares(view) == pytest.approx((0.75, 0.25))
    assert view_state.question(view, draws=7).weights == pytest.approx((0.75, 0.25))
    assert view_state.question(view, draws=7).draws == 7
    assert view_state.shares(replace(view, weights=(0.0, 0.0))) == (0.5, 0.5)
    assert view_state.question(View(), draws=1).weights is None


def test_the_command_makes_the_report_of_the_view() -> None:
    view = View(
        experiments=("my derma", "x; rm -rf /"),
        resources=("E", "M"),
        weights=(0.3, 0.1),
        alpha=2.5,
        normalisation="zero",
        mixed="stratify",
        strict=True,
    )
    words = shlex.split(view_state.command(view, "paper", "http://localhost:5000"))
    assert words == [
        *("pepr", "report", "--experiment", "my derma", "--experiment", "x; rm -rf /"),
        *("--tracking-uri", "http://localhost:5000", "--resource", "E,M"),
        *("--resource-weights", "0.75,0.25", "--alpha", "2.5", "--normalisation", "zero"),
        *("--stratify", "--strict", "--dashboard", "paper", "--out", "report.html"),
    ]


def test_the_command_line_accepts_the_weights_of_the_view() -> None:
    view = View(resources=("E", "M", "T"), weights=(0.1, 0.1, 0.1))
    words = shlex.split(view_state.command(view, "default", None))
    weights = [float(w) for w in words[words.index("--resource-weights") + 1].split(",")]
    Question(resources=("E", "M", "T"), weights=tuple(weights))  # raises where the sum is not 1


@pytest.mark.parametrize(
    ("value", "expected"),
    [(3, 3.0), (0.5, None), (None, None), ("3", None), (True, None), (float("nan"), None)],
)
def test_a_field_that_is_empty_or_out_of_range_has_no_number(value: Any, expected: Any) -> None:
    assert view_state.limit(value, 1, 10) == expected
