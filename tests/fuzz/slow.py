"""PePR scores once more, slowly: exact fractions and plain loops, from the paper's equations and
docs/comparing.md. It shares no code with the package."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

EQUAL = Fraction(1, 10**12)  # relative; costs that differ by less are equal
LARGEST = Fraction(1.7976931348623157e308)  # of a computer's numbers


class Refused(Exception):
    """There is no table."""


@dataclass(frozen=True)
class Run:
    """What MLflow knows of a run; None is what was not logged, NaN what was logged as NaN."""

    run_id: str
    model: str | None = "a"
    seed: int | None = 0
    experiment: str = "derma"
    status: str = "FINISHED"
    start: int = 0
    by_pepr: bool = True
    P: float | None = 0.5
    costs: dict[str, float | None] = field(default_factory=dict)  # E, C, M, T; D is `fraction`
    fraction: float = 1.0
    hardware: str | None = "H100"
    components: str | None = "gpu=measured"
    weights: str | None = None
    own: dict[str, str] = field(default_factory=dict)  # parameters of one's own code
    stopped: str | None = None
    source: str | None = "measured"
    others: str | None = None  # processes on the GPU
    pue: float | None = None


@dataclass(frozen=True)
class Row:
    """A line of the table of one score."""

    n: int
    P: Fraction
    costs: list[Fraction]
    R: Fraction
    score: Fraction
    codes: set[str]
    slack: float  # by which R is off at most where costs are rounded to a computer's numbers


Table = dict[tuple[str, str, tuple[Any, ...]], Row]  # by resource, model and what tells rows apart


def tables(
    runs: Sequence[Run],
    resources: Sequence[str],
    *,
    weights: Sequence[float] | None = None,
    alpha: float = 1.0,
    method: str = "minmax",
    quantiles: tuple[float, float] = (0.05, 0.95),
    reference: dict[str, tuple[float, float]] | None = None,
    strict: bool = False,
    mixed: str = "refuse",
    intensity: float | None = None,
) -> list[Table]:
    """The table of each comparison set. Raises `Refused` where there is to be none."""
    runs = list({(run.run_id, run.experiment): run for run in runs}.values())
    sets = []
    usable: list[tuple[Run, Values, set[str]]] = []
    by_experiment: dict[str, list[Run]] = {}
    for run in runs:
        by_experiment.setdefault(run.experiment, []).append(run)
    for members in by_experiment.values():
        usable += _usable(members, runs, resources, strict, intensity)
    if not usable:
        raise Refused("nothing is left")
    for _, values, _ in usable:
        if not 0 <= values[0] <= 1 or min(values[1]) < 0:
            raise Refused("out of range")
    for name in by_experiment:
        left = [one for one in usable if one[0].experiment == name]
        conditions = {_condition(run, resources) for run, _, _ in left}
        if len(conditions) > 1 and mixed == "refuse":
            raise Refused("they differ")
        if mixed == "stratify":
            for condition in conditions:
                group = [one for one in left if _condition(one[0], resources) == condition]
                sets.append(_rows(group, resources, ()))
        elif left:
            differ = [
                i
                for i, _ in enumerate(next(iter(conditions)))
                if len({c[i] for c in conditions}) > 1
            ]
            sets.append(_rows(left, resources, differ))
    if reference is not None and not set(resources) <= set(reference):
        raise Refused("no bounds")
    return [_scored(rows, resources, weights, alpha, method, quantiles, reference) for rows in sets]


Values = tuple[Fraction, list[Fraction]]  # P and costs
Rows = dict[tuple[str, tuple[Any, ...]], tuple[list[Values], set[str]]]


def _cost(run: Run, resource: str, intensity: float | None) -> float | None:
    if resource == "D":
        return run.fraction
    if resource in "EC" and run.source == "lost":
        return None
    if resource == "C" and intensity is not None:
        energy = run.costs.get("E")
        pue = 1.0 if run.pue is None else run.pue
        return None if energy is None else energy / 1000 * intensity * pue
    return run.costs.get(resource)


def _usable(
    members: Sequence[Run],
    everything: Sequence[Run],
    resources: Sequence[str],
    strict: bool,
    intensity: float | None,
) -> list[tuple[Run, Values, set[str]]]:
    left = []
    for run in members:
        numbers = [run.P, *(_cost(run, r, intensity) for r in resources)]
        known = all(v is not None and math.isfinite(v) for v in numbers)
        codes = _doubts(run, everything, resources)
        if run.status != "FINISHED" or run.stopped is not None or run.model is None or not known:
            continue
        if not (strict and codes):
            p, *costs = (Fraction(v) for v in numbers if v is not None)
            left.append((run, (p, costs), codes))
    stays: dict[Any, Run] = {}
    for run, _, _ in sorted(left, key=lambda one: (not _shares_gpu(one[0]), one[0].start)):
        stays[_identity(run)] = run
    return [one for one in left if stays[_identity(one[0])] is one[0]]


def _shares_gpu(run: Run) -> bool:
    return run.others not in (None, "none")


def _identity(run: Run) -> Any:
    """What a later run must share to repeat this one."""
    if not run.by_pepr or run.seed is None:
        return run.run_id
    own = tuple(sorted(run.own.items()))
    return run.model, run.seed, run.weights, run.fraction, run.hardware, own


def _doubts(run: Run, everything: Sequence[Run], resources: Sequence[str]) -> set[str]:
    codes = set()
    if _shares_gpu(run):
        codes.add("other_processes")
    if {"E", "C"} & set(resources):
        energy, time = _cost(run, "E", None), run.costs.get("T")
        if run.source is not None and "estimated" in run.source:
            codes.add("estimated")
        if energy == 0 and time is not None and time > 0:
            codes.add("still_counter")
        others = [o for o in everything if o.run_id != run.run_id]
        if energy and any(_cost(other, "E", None) == energy for other in others):
            codes.add("same_energy")
    return codes


def _condition(run: Run, resources: Sequence[str]) -> tuple[Any, ...]:
    return (
        None if list(resources) == ["D"] else run.fraction,
        run.hardware,
        run.components if {"E", "C"} & set(resources) else None,
    )


def _rows(
    group: Sequence[tuple[Run, Values, set[str]]], resources: Sequence[str], differ: Sequence[int]
) -> Rows:
    """The runs of each line of the table."""
    within: list[Callable[[Run], Any]] = [lambda run: run.weights]
    for name in sorted({name for run, _, _ in group for name in run.own}):
        within.append(lambda run, name=name: run.own.get(name))  # type: ignore[misc]
    models = {run.model for run, _, _ in group}
    apart = [
        get
        for get in within
        if any(len({get(r) for r, _, _ in group if r.model == m and r.by_pepr}) > 1 for m in models)
    ]
    rows: Rows = {}
    for run, values, codes in group:
        condition = _condition(run, resources)
        key = (
            *(condition[i] for i in differ),
            *([run.fraction] if "D" in resources else []),
            *(get(run) for get in apart),
        )
        assert run.model is not None
        of = rows.setdefault((run.model, key), ([], set()))
        of[0].append(values)
        of[1].update(codes)
    return rows


def mean(values: Sequence[Fraction]) -> Fraction:
    if sum(values) > LARGEST:
        raise Refused("a sum beyond all numbers")
    return sum(values) / Fraction(len(values))


def bounds(
    costs: Sequence[Fraction], method: str, quantiles: tuple[float, float]
) -> tuple[Fraction, Fraction]:
    low, high = min(costs), max(costs)
    if high - low <= EQUAL * high:
        return high, high
    if method == "zero":
        return Fraction(0), high
    if method == "robust":
        return quantile(costs, quantiles[0]), quantile(costs, quantiles[1])
    return low, high


def quantile(values: Sequence[Fraction], q: float) -> Fraction:
    """Between the two values around it, linearly."""
    ordered = sorted(values)
    at = Fraction(q) * (len(ordered) - 1)
    below = ordered[math.floor(at)]
    return below + (at - math.floor(at)) * (ordered[math.ceil(at)] - below)


def relative(cost: Fraction, low: Fraction, high: Fraction) -> Fraction:
    """R, from 0 to 1."""
    if high - low <= EQUAL * high:
        return Fraction(int(cost > high * (1 + EQUAL)))
    return min(max((cost - low) / (high - low), Fraction(0)), Fraction(1))


def _slack(low: Fraction, high: Fraction) -> float:
    return 1e-12 + (float(Fraction(1, 10**14) * high / (high - low)) if high > low else 0.0)


def pepr(p: Fraction, r: Fraction, alpha: float) -> Fraction:
    return Fraction(alpha) * p / (Fraction(alpha) + r)


def _scored(
    rows: Rows,
    resources: Sequence[str],
    weights: Sequence[float] | None,
    alpha: float,
    method: str,
    quantiles: tuple[float, float],
    reference: dict[str, tuple[float, float]] | None,
) -> Table:
    performance = {key: mean([p for p, _ in runs]) for key, (runs, _) in rows.items()}
    costs = [
        {key: mean([c[i] for _, c in runs]) for key, (runs, _) in rows.items()}
        for i, _ in enumerate(resources)
    ]
    between = [
        bounds(list(of.values()), method, quantiles)
        if reference is None
        else (Fraction(reference[r][0]), Fraction(reference[r][1]))
        for r, of in zip(resources, costs, strict=True)
    ]
    most = max(len(runs) for runs, _ in rows.values())
    table: Table = {}
    for key, (runs, codes) in rows.items():
        shares = [relative(of[key], *by) for of, by in zip(costs, between, strict=True)]
        few = {"fewer_seeds"} if len(runs) < most else set()
        if weights is None:
            scored_by = [(name, [i], [Fraction(1)]) for i, name in enumerate(resources)]
        else:
            every = list(range(len(resources)))
            scored_by = [("+".join(resources), every, [Fraction(w) for w in weights])]
        for name, which, parts in scored_by:
            r = sum((w * shares[i] for i, w in zip(which, parts, strict=True)), Fraction(0))
            table[(name, *key)] = Row(
                len(runs),
                performance[key],
                [costs[i][key] for i in which],
                r,
                pepr(performance[key], r, alpha),
                codes | few,
                sum(float(w) * _slack(*between[i]) for i, w in zip(which, parts, strict=True)),
            )
    return table
