"""What a sweep consists of, how far it is and what it will cost. Pure."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from pepr_mlops.comparison.conditions import conditions
from pepr_mlops.errors import WrongUse, nearest
from pepr_mlops.ledger import Claim
from pepr_mlops.names import MEASURED_BY, PHASES
from pepr_mlops.spec import AUTO, SWEPT, TRIED, Job, RunSpec, as_text
from pepr_mlops.sweep.tasks import FINAL, Task

# What decides the cost of a training besides the model, but for what scales with it.
_CONDITIONS = (
    *("data_digest", "image_size", "channels", "intensities", "batch_size", "precision"),
    *("layout", "launch", "compile", "deterministic"),
)
_MOST = 100_000  # jobs
_LEAST = 3  # models, to tell how cost grows with parameters


def expand(grid: Mapping[str, Any]) -> list[RunSpec]:
    """The jobs of a grid: every combination of its values, each once, in the grid's order.

    `grid` has fields of `RunSpec`, each with one value or a list; absent ones keep their default.
    Raises `WrongUse` naming the key for anything else, and for a combination that is impossible.
    """
    for key in grid:
        if key in ("budget_wh", "budget_s"):
            raise WrongUse(
                f"{key}: jobs that end early do not compare; limit the sweep instead (--budget-wh)"
            )
        if key not in SWEPT:
            close = nearest(key, SWEPT) or "."
            raise WrongUse(f"{key}: no such parameter{close} Valid: {', '.join(SWEPT)}")
    axes = {key: value if isinstance(value, list) else [value] for key, value in grid.items()}
    for key, values in axes.items():
        if not values:
            raise WrongUse(f"{key}: the list is empty; give one value or several")
        for value in values:
            if not isinstance(value, str | int | float):
                raise WrongUse(f"{key}: {value!r} is no value; give one or a flat list")
    n = math.prod(map(len, axes.values()))
    if n > _MOST:
        raise WrongUse(f"sweep: {n:,} combinations are more than the {_MOST:,} of one sweep")
    specs = [
        RunSpec.parse(dict(zip(axes, map(as_text, values), strict=True)))
        for values in itertools.product(*axes.values())
    ]
    return list(dict.fromkeys(specs))


def shuffled(jobs: Sequence[Job], seed: int) -> list[Job]:
    """The jobs in an order drawn with the seed, the same for the same jobs.

    The machine warms up and its room does too: in the order of the list that would fall on the
    models at its end.
    """
    drawn = sorted(jobs, key=lambda job: job.fingerprint)
    random.Random(seed).shuffle(drawn)
    return drawn


def exhaustive(jobs: pd.DataFrame, runs: pd.DataFrame) -> list[Task]:
    """The strategy that trains every job to its end, in the order of `jobs` (`states`)."""
    return [Task(spec) for spec in jobs.loc[jobs["state"].isin(["pending", "running"]), "spec"]]


def abandoned(
    runs: pd.DataFrame, now_s: float, stale_s: float, alive: Callable[[str], bool | None]
) -> list[str]:
    """Ids of the runs that say RUNNING and that no process works on, as `ledger.Claim.lives`."""
    running = runs[runs["status"] == "RUNNING"]
    return [
        str(run["run_id"])
        for _, run in running.iterrows()
        if not Claim(
            run["run_id"],
            run["status"],
            _known(run["claim"]),
            _known(run["process"]),
            None if np.isnan(run["heartbeat_ms"]) else run["heartbeat_ms"] / 1000,
        ).lives(now_s, stale_s, alive)
    ]


def states(
    specs: Sequence[Job], runs: pd.DataFrame, *, again: Collection[str] = ()
) -> pd.DataFrame:
    """How far each job is: one row per spec, in their order, the index its fingerprint.

    `runs` is the frame of `query.load_jobs`, in which what says RUNNING lives. Columns `spec` (the
    Job), `state` (`done`, `running`, `failed` or `pending`), `run_id`, `reason`, `error`, and
    `energy_wh`, all phases of all its runs, missing where one's is not known.
    Failures that the same hardware would repeat stay `failed`, those of a probe too, but for the
    fingerprints in `again`; an interrupted job is `pending`.
    """
    wanted = {spec.fingerprint: spec for spec in specs}
    of = runs[runs["spec"].isin(list(wanted))]
    found: dict[str, dict[str, Any]] = {
        key: {"spec": spec, "state": "pending", "run_id": None, "reason": None, "error": None}
        for key, spec in wanted.items()
    }
    hopeless = (of["status"] == "FAILED") & of["reason"].isin(FINAL)
    for key, attempts in (
        of[of["probe"].isna() | hopeless].sort_values("start_time").groupby("spec")
    ):
        row = found[str(key)]
        last = attempts.iloc[-1]
        for state, status in (("done", "FINISHED"), ("running", "RUNNING")):
            if (attempts["status"] == status).any():
                row["state"] = state
                last = attempts[attempts["status"] == status].iloc[-1]
                break
        else:
            row["reason"], row["error"] = _known(last["reason"]), _known(last["error"])
            if row["reason"] in FINAL and key not in again:
                row["state"] = "failed"
        row["run_id"] = last["run_id"]
    columns = ["spec", "state", "run_id", "reason", "error"]
    table = pd.DataFrame.from_dict(found, orient="index", columns=columns, dtype=object)
    energies = spent_wh(of).groupby(of["spec"]).agg(lambda e: e.sum(skipna=False))
    return table.assign(energy_wh=energies.reindex(table.index, fill_value=0.0).astype(float))


def spent_wh(runs: pd.DataFrame) -> pd.Series[float]:
    """Energy of each run so far, all phases; NaN where one took some time and its energy is not
    known, 0 before the first."""
    nothing = pd.Series(np.nan, runs.index)
    parts = (
        (runs["energy_wh"], runs["train_time_s"]),
        *(
            (
                runs.get(f"metrics.energy/{phase}_wh", nothing),
                runs.get(f"metrics.time/{phase}_s", nothing),
            )
            for phase in PHASES
            if phase != "train"
        ),
    )
    return sum(
        (wh.where(wh.notna() | time_s.notna(), 0.0) for wh, time_s in parts),
        start=pd.Series(0.0, runs.index),
    )


COSTS = ("energy_wh", "time_s")


def forecast(
    specs: Sequence[Job], runs: pd.DataFrame, parameters: Mapping[str, int]
) -> pd.DataFrame:
    """What each job is expected to cost, from finished runs and probes under its conditions.

    One row per spec, the index its fingerprint: `energy_wh` and `time_s`, both missing where
    nothing like it was run yet, `energy_wh_low`, `energy_wh_high` and so on, and `basis`. Of a job
    that was probed it is the last probe's; of a model that was trained, or else probed, the mean of
    its runs; both have no range. Of another it is extrapolated: a power law of cost over
    `parameters` (weights by model) through at least three other models, in whose 95 % prediction
    interval it is, or else their mean, between the least and the greatest of them, or one of them.
    Costs scale with epochs and fraction; where several machines have some, those of the last count.
    """
    known = _per_epoch(runs)
    rows = []
    for spec in specs:
        own = known[known["spec"] == spec.fingerprint]
        alike = _of_one_machine(known[_alike(known, spec)])
        same = alike[alike["model"] == spec.model]
        if (same["kind"] == "run").any():
            same = same[same["kind"] == "run"]
        if (own["kind"] == "probe").any():
            found = dict(own.loc[own["kind"] == "probe", list(COSTS)].iloc[-1])
            basis = "probe"
        elif len(same):
            found = dict(same[list(COSTS)].mean())
            basis = f"{len(same)} {same['kind'].iloc[0]}{'s' * (len(same) > 1)} of it"
        else:
            found, basis = _extrapolated(alike, spec.model, parameters)
        scale = spec.epochs * spec.fraction
        rows.append({name: value * scale for name, value in found.items()} | {"basis": basis})
    columns = [*COSTS, *(f"{cost}_{end}" for cost in COSTS for end in ("low", "high"))]
    table = pd.DataFrame(rows, index=[s.fingerprint for s in specs], columns=[*columns, "basis"])
    table = table.astype(dict.fromkeys(columns, float))
    return table.assign(basis=table["basis"].where(table["time_s"].notna(), "not known"))


def _extrapolated(
    alike: pd.DataFrame, model: str, parameters: Mapping[str, int]
) -> tuple[dict[str, float], str]:
    """What a model that never ran may cost per epoch, with a range, and from what."""
    by_size = {cost: _by_size(alike, cost, model, parameters) for cost in COSTS}
    if not np.isnan(by_size["time_s"][0]):
        n = alike.loc[alike["model"].isin(list(parameters)), "model"].nunique()
        basis = f"extrapolated from {n} models of other sizes"
        guesses = by_size
    else:
        means = alike.groupby("model")[list(COSTS)].mean()
        basis = f"extrapolated: the mean of {len(means)} other models"
        guesses = {c: (means[c].mean(), means[c].min(), means[c].max()) for c in COSTS}
        if len(means) == 1:
            basis = "extrapolated: one other model, which tells no range"
            guesses = {c: (means[c].item(), np.nan, np.nan) for c in COSTS}
    return {
        f"{cost}{end}": float(value)
        for cost, guess in guesses.items()
        for end, value in zip(("", "_low", "_high"), guess, strict=True)
    }, basis


def to_come(jobs: pd.DataFrame, runs: pd.DataFrame, parameters: Mapping[str, int]) -> pd.DataFrame:
    """What is left to train of each open job (`states`): its `forecast` less what its run has."""
    left = jobs[jobs["state"].isin(["pending", "running"])]
    expected = forecast(list(left["spec"]), runs, parameters)
    by_run = runs[runs["probe"].isna()].drop_duplicates("run_id").set_index("run_id")
    for cost, column in (("energy_wh", "energy_wh"), ("time_s", "train_time_s")):
        so_far = left["run_id"].map(by_run[column]).astype(float).fillna(0.0)
        for name in (cost, f"{cost}_low", f"{cost}_high"):
            expected[name] = (expected[name] - so_far).clip(lower=0.0)
    return expected


def _of_one_machine(known: pd.DataFrame) -> pd.DataFrame:
    """Those of the machine and the sensors of the last one."""
    if known.empty:
        return known
    here = conditions(known, MEASURED_BY).astype("str")
    return known[(here == here.iloc[-1]).all(axis=1)]


def _per_epoch(runs: pd.DataFrame) -> pd.DataFrame:
    """Finished runs and probes, the last at the end, with what they cost per epoch of the whole
    training set."""
    runs = runs.sort_values("start_time", kind="stable")
    finished = (runs["status"] == "FINISHED") & runs["stopped"].isna()
    probed = runs["probe"].notna() & ("metrics.forecast/train_s" in runs)
    scale = (runs["epochs"] * runs["fraction"]).astype(float)
    nothing = pd.Series(np.nan, runs.index)
    columns = {"energy_wh": "metrics.forecast/train_wh", "time_s": "metrics.forecast/train_s"}
    own = {"energy_wh": runs["energy_wh"], "time_s": runs["train_time_s"]}
    costs = {
        name: (runs.get(metric, nothing).where(probed, own[name])) / scale
        for name, metric in columns.items()
    }
    kind = pd.Series(np.where(probed, "probe", "run"), runs.index)
    wanted = ["spec", "model", *_CONDITIONS, *MEASURED_BY, *(f"params.{n}" for n in TRIED)]
    table = runs.reindex(columns=wanted).assign(**costs, kind=kind)
    return table[(finished | probed) & table["time_s"].notna()]


def _alike(known: pd.DataFrame, spec: Job) -> pd.Series[bool]:
    same = pd.Series(True, known.index)
    for name in _CONDITIONS:
        asked = getattr(spec, name)
        of = f"params.{name}" if asked == AUTO else name  # those that chose for themselves too
        same &= (known[of] == asked).fillna(False).astype(bool)
    return same


def _by_size(
    alike: pd.DataFrame, cost: str, model: str, parameters: Mapping[str, int]
) -> tuple[float, float, float]:
    """Cost by a straight line through log cost over log parameters, and its 95 % prediction
    interval (N. Draper, H. Smith, Applied Regression Analysis, section 3.1); NaN without enough
    models."""
    unknown = (float("nan"),) * 3
    means = alike.dropna(subset=cost).groupby("model")[cost].mean()
    means = means[(means > 0) & means.index.isin(list(parameters))]
    n = len(means)
    if n < _LEAST or model not in parameters:
        return unknown
    x, y = np.log([parameters[m] for m in means.index]), np.log(means.to_numpy())
    if np.ptp(x) == 0:
        return unknown
    from scipy.special import stdtrit

    slope, at = np.polyfit(x, y, 1)
    new = np.log(parameters[model])
    variance = ((y - at - slope * x) ** 2).sum() / (n - 2)
    spread = variance * (1 + 1 / n + (new - x.mean()) ** 2 / ((x - x.mean()) ** 2).sum())
    margin = stdtrit(n - 2, 0.975) * np.sqrt(spread)
    value, low, high = np.exp(at + slope * new + np.array([0.0, -margin, margin]))
    return float(value), float(low), float(high)


def _known(value: Any) -> Any:
    """None for pandas' missing texts."""
    return None if pd.isna(value) else value
