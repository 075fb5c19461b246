"""From runs as MLflow has them to the table of `pepr score`: the slow table, or a refusal."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from odd import FEW, numbers, stored
from slow import Refused, Row, Run, Table, tables

from pepr_mlops.comparison import Comparison, Question, compare
from pepr_mlops.comparison.pepr import Bounds, Reference
from pepr_mlops.comparison.runs import tidy
from pepr_mlops.costs.carbon import Intensity
from pepr_mlops.errors import PeprError
from pepr_mlops.names import RESOURCES
from pepr_mlops.text import printable
from pepr_mlops.tracking.read.frames import Page, raw_frame

METRIC = {"E": "energy/train_wh", "C": "carbon/train_gco2e", "M": "memory/reserved_gb",
          "T": "time/train_s"}  # fmt: skip
RESOURCE_SETS = (("E",), ("E",), ("M",), ("D",), ("T", "E"), ("E", "M"), ("C",), ("D", "M"))


def frame(runs: list[Run], at_once: int = 3) -> pd.DataFrame:
    """What `query.load_runs` gives where MLflow has these runs, read some at a time."""
    pages = [_page(runs[i : i + at_once]) for i in range(0, len(runs), at_once)]
    return tidy(raw_frame(pages, {"0": "derma", "1": "other"}))


def _page(runs: list[Run]) -> Page:
    page = Page([])
    for run in runs:
        where = {"derma": "0", "other": "1"}[run.experiment]
        page.info.append((run.run_id, where, run.status, run.start, None))
        metrics = {"performance": run.P} | {METRIC[r]: v for r, v in run.costs.items()}
        page.metrics += [(run.run_id, k, v) for k, v in metrics.items() if v is not None]
        seed = None if run.seed is None else str(run.seed)
        params = {"model": run.model, "seed": seed, "fraction": str(run.fraction), **run.own}
        page.params += [(run.run_id, k, v) for k, v in params.items() if v is not None]
        tags = {
            "pepr.experiment": run.experiment if run.by_pepr else None,
            "pepr.memory": METRIC["M"],
            "pepr.hardware": run.hardware,
            "pepr.energy_components": run.components,
            "pepr.energy_source": run.source,
            "pepr.weights": run.weights,
            "pepr.stopped": run.stopped,
            "pepr.gpu_other_processes": run.others,
            "pepr.pue": None if run.pue is None else repr(run.pue),
        }
        page.tags += [(run.run_id, k, v) for k, v in tags.items() if v is not None]
    return page


# Runs, and questions about them -----------------------------------------------------------------


def _mostly(usual: Any, *others: Any) -> st.SearchStrategy[Any]:
    return st.sampled_from([usual] * 6 + list(others))


MODELS = ("a", "b", "c", "d", "a (width=1)", "a (weights=w)")


@st.composite
def _runs(draw: st.DrawFn, most: int = 9) -> list[Run]:
    tame = draw(st.integers(0, 3)) > 0  # most have a table
    number = (lambda low, high: _tame(low, high)) if tame else _wild
    model = st.sampled_from(MODELS) if tame else st.none() | stored(*MODELS)
    own = st.sampled_from(["width", "depth"])
    values = st.sampled_from(["1", "2", "1, depth=2", "2, depth=2"])
    n = draw(st.integers(0, most))
    start = draw(st.permutations(range(n)))
    alike = draw(st.booleans())
    runs = []
    for i in range(n):
        runs.append(
            Run(
                run_id=f"run{i}",
                model=draw(model.map(_named)),
                seed=draw(st.sampled_from([0, 1, 2, 3, None])),
                experiment=draw(_mostly("derma", "other")),
                status=draw(_mostly("FINISHED", "FAILED", "RUNNING")),
                start=1_790_000_000_000 + start[i],
                by_pepr=draw(_mostly(True, False)),
                P=draw(number(0.0, 1.0)),
                costs={r: draw(number(0.0, 100.0)) for r in METRIC},
                fraction=1.0 if alike else draw(_mostly(1.0, 0.1)),
                hardware="H100" if alike else draw(_mostly("H100", "CPU", None)),
                components="gpu=measured" if alike else draw(_mostly("gpu=measured", None)),
                weights=draw(_mostly(None, "w", "v")),
                own={} if alike else draw(st.dictionaries(own, values)),
                stopped=draw(_mostly(None, "budget_wh")),
                source=draw(_mostly("measured", "estimated", "lost", None)),
                others=draw(_mostly(None, "none", "9 python")),
                pue=draw(_mostly(None, 1.0, 1.5)),
            )
        )
    if runs and not tame and draw(st.booleans()):
        runs.append(runs[0])  # as two pages may have it
    return runs


def _named(model: str | None) -> str | None:
    """As it is read; None for what says that there is no value, and where no server stores it."""
    if model is None or model.strip().lower() in ("", "none") or "\0" in model:
        return None
    return printable(model)


def _tame(low: float, high: float) -> st.SearchStrategy[float]:
    few = st.sampled_from([low, high, 0.1, 0.3, 0.7, 0.9, 0.37 * high])
    return few | st.floats(low, high).map(lambda v: v if v == 0 else max(v, 1e-300))


def _wild(low: float, high: float) -> st.SearchStrategy[float | None]:
    return st.none() | numbers(low, high).filter(lambda v: not 0 < abs(v) < 1e-300)


@st.composite
def _settings(draw: st.DrawFn) -> dict[str, Any]:
    resources = draw(st.sampled_from(RESOURCE_SETS))
    found: dict[str, Any] = {
        "resources": resources,
        "alpha": draw(st.sampled_from([1.0, 1.0, 2.0, 10.0])),
        "method": draw(st.sampled_from(["minmax", "zero", "robust", "reference"])),
        "quantiles": draw(st.sampled_from([(0.05, 0.95), (0.0, 1.0), (0.25, 0.5)])),
        "strict": draw(_mostly(False, True)),
        "mixed": draw(st.sampled_from(["refuse", "stratify", "stratify", "allow"])),
        "intensity": draw(_mostly(None, 0.0, 150.0)),
    }
    if len(resources) > 1 and draw(st.booleans()):
        found["weights"] = draw(st.sampled_from([(0.5, 0.5), (0.2, 0.8), (1.0, 0.0)]))
    if found["method"] == "reference":
        bound = st.floats(0, 100).filter(lambda v: not 0 < v < 1e-300)
        few = [r for r in resources if draw(_mostly(True, False))]
        found["reference"] = {r: tuple(sorted([draw(bound), draw(bound)])) for r in few}
    return found


def _question(settings: dict[str, Any], **more: Any) -> Question:
    reference = settings.get("reference")
    return Question(
        resources=settings["resources"],
        weights=settings.get("weights"),
        alpha=settings["alpha"],
        normalisation=settings["method"],
        quantiles=settings["quantiles"],
        reference=None
        if reference is None
        else Reference(
            {RESOURCES[r].column: Bounds(*b) for r, b in reference.items()}, {"shared": {}}
        ),
        strict=settings["strict"],
        mixed=settings["mixed"],
        intensity=None
        if settings["intensity"] is None
        else Intensity(settings["intensity"], "given"),
        **more,
    )


# The same numbers -------------------------------------------------------------------------------


def check(found: Comparison, expected: list[Table]) -> None:
    """That the table is the slow one: which rows there are, and each of their numbers."""
    sets = [rows for _, rows in found.scores.groupby("comparison_set", sort=False)]
    assert len(sets) == len(expected)
    todo = list(expected)
    for rows in sets:
        match = next((t for t in todo if _like(rows, t)), None)
        assert match is not None, (rows, todo)
        todo.remove(match)


def _like(rows: pd.DataFrame, table: Table) -> bool:
    """Whether each row of a set is one of the slow table's, which has none besides."""
    left = {key: [row] for key, row in table.items()}
    if len(rows) != len(left):
        return False
    exact = {}
    for at, row in zip(rows.index, rows.to_dict("records"), strict=True):
        key = next(
            (
                k
                for k, of in left.items()
                if k[:2] == (row["resource"], row["model"]) and of and _same(row, of[0])
            ),
            None,
        )
        if key is None:
            return False
        exact[at] = left.pop(key)[0].score
    for _, of in rows.groupby("resource"):
        for at, rank in of["rank"].items():
            others = [exact[i] for i in of.index if i != at]
            better = sum(s > exact[at] + Fraction(1, 10**9) for s in others)
            not_worse = sum(s > exact[at] - Fraction(1, 10**9) for s in others)
            assert better + 1 <= rank <= not_worse + 1
            assert all(of["rank"][i] == rank for i in of.index if exact[i] == exact[at])
        assert (
            of["score"].is_monotonic_decreasing
            or np.isclose(of["score"], sorted(of["score"], reverse=True), atol=1e-9).all()
        )
    return True


def _same(row: dict[str, Any], slow: Row) -> bool:
    single = len(slow.costs) == 1
    return (
        row["n"] == slow.n
        and math.isclose(row["performance"], slow.P, rel_tol=1e-12, abs_tol=1e-300)
        and (not single or math.isclose(row["cost"], slow.costs[0], rel_tol=1e-12))
        and math.isclose(row["R"], slow.R, abs_tol=slow.slack)
        and math.isclose(row["score"], slow.score, abs_tol=slow.slack)
        and set(row["codes"]) == slow.codes
    )


@FEW
@given(_runs(), _settings())
def test_the_table_is_the_slow_one_or_there_is_none(
    runs: list[Run], settings: dict[str, Any]
) -> None:
    try:
        expected = tables(runs, **settings)
    except Refused:
        with pytest.raises(PeprError):
            compare(frame(runs), _question(settings, draws=0))
        return
    found = compare(frame(runs), _question(settings, draws=0))
    check(found, expected)


@pytest.mark.slow
def test_the_table_of_100_000_runs_is_the_slow_one() -> None:
    rng = np.random.default_rng(0)
    numbers_ = rng.random((100_000, 2))
    runs = [
        Run(f"run{i}", f"m{i % 1000}", i // 1000, P=float(p), costs={"M": float(100 * m)})
        for i, (p, m) in enumerate(numbers_)
    ]
    settings = {"resources": ("M",), "alpha": 1.0, "method": "robust", "quantiles": (0.05, 0.95),
             "strict": False, "mixed": "refuse", "intensity": None}  # fmt: skip
    found = compare(frame(runs, at_once=2000), _question(settings, draws=0))
    check(found, tables(runs, **settings))


# What was found -----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["minmax", "zero", "robust"])
def test_rounding_of_means_over_seeds_is_no_difference_of_costs(method: str) -> None:
    # the mean of three times 0.7 is not 0.7 in a computer: R was 0 of one and 1 of the other
    runs = [Run(f"run{i}", "a", i, costs={"M": 0.7}) for i in range(3)]
    runs.append(Run("run3", "b", 0, costs={"M": 0.7}))
    found = compare(frame(runs), Question(resources=("M",), normalisation=method))  # type: ignore[arg-type]
    assert found.scores["R"].tolist() == [0, 0]
    assert found.scores["rank"].tolist() == [1, 1]


def test_a_run_on_two_pages_counts_once() -> None:
    once, other = Run("run0", "a", 0, costs={"E": 1.0}), Run("run1", "b", 0, costs={"E": 2.0})
    for at_once in (1, 3):  # on two pages, and twice on one
        found = compare(frame([once, other, once], at_once), Question())
        assert found.scores["n"].tolist() == [1, 1]


def test_a_name_like_that_of_a_variant_is_a_model_of_its_own() -> None:
    runs = [
        Run("run0", "a", 0, weights="w", costs={"E": 1.0}),
        Run("run1", "a", 1, weights="v", costs={"E": 2.0}),
        Run("run2", "a (initial_weights=w)", 0, weights="w", costs={"E": 3.0}),
    ]
    found = compare(frame(runs), Question())
    assert sorted(found.scores["cost"]) == [1, 2, 3]


def test_a_value_with_a_comma_is_not_taken_for_two() -> None:
    one = {"depth": "1, width=2", "width": "3"}
    other = {"depth": "1", "width": "2, width=3"}
    runs = [
        Run(f"run{i}", "a", i, own=own, costs={"E": 1.0 + i}) for i, own in enumerate([one, other])
    ]
    assert len(compare(frame(runs), Question()).scores) == 2


def test_a_start_in_nanoseconds_is_no_date() -> None:
    runs = [Run("run0", "a", 0, costs={"E": 1.0}, start=1_790_000_000_000_000_000)]
    assert pd.isna(frame(runs)["start_time"][0])
    # of two runs of one job the one with a date is the newer
    runs.append(Run("run1", "a", 0, costs={"E": 2.0}, start=1_790_000_000_000))
    assert compare(frame(runs), Question()).scores["cost"].tolist() == [2.0]


def test_two_sets_of_one_name_are_refused() -> None:
    runs = [Run(f"run{i}", hardware=h, costs={"E": 1.0}) for i, h in enumerate(["CPU", "H100"])]
    found = frame(runs)
    again = found.assign(experiment="derma [hardware=CPU]", run_id=["run2", "run3"]).iloc[:1]
    both = pd.concat([found, again], ignore_index=True)
    with pytest.raises(PeprError, match="two sets are called derma"):
        compare(both, Question(mixed="stratify"))


def test_every_run_with_one_energy_names_another_and_how_many_more() -> None:
    runs = [Run(f"run{i}", "a", i, costs={"E": 2.0}) for i in range(2000)]
    found = compare(frame(runs, at_once=2000), Question(draws=0))
    (flags,) = found.scores["flags"]
    assert len(flags) == 2  # the first run names the second, all others the first
    for text, run in zip(flags, ["run1", "run0"], strict=True):
        assert text.endswith(f"(run {run}) and 1998 more")
