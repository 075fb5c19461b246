"""The jobs of a grid, their order and their states. Pure."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from pepr_mlops.errors import WrongUse
from pepr_mlops.names import PHASES
from pepr_mlops.spec import NONE, SWEEPABLE, Job, RunSpec, as_text, convert
from pepr_mlops.sweep.engine import FINAL, Task
from pepr_mlops.tracking.ownership import Claim
from pepr_mlops.validation import refuse_unknown

_MOST = 100_000  # jobs


def expand(grid: Mapping[str, Any]) -> list[RunSpec]:
    """The jobs of a grid: every combination of its values, each once, in the grid's order; with
    `folds` and no `fold` each combination has a job for every fold.

    `grid` has fields of `RunSpec`, each with one value or a list; absent ones keep their default.
    Raises `WrongUse` naming the key for any other key or value, and for an impossible combination.
    """
    for key in grid:
        if key in ("budget_wh", "budget_s"):
            raise WrongUse(
                f"{key}: jobs that end early do not compare; limit the sweep instead (--budget-wh)"
            )
    refuse_unknown(grid, SWEEPABLE, "parameter")
    axes = {key: value if isinstance(value, list) else [value] for key, value in grid.items()}
    for key, values in axes.items():
        if not values:
            raise WrongUse(f"{key}: the list is empty; give one value or several")
        if key == "keep" and len(values) > 1:
            raise WrongUse(
                f"keep: {', '.join(map(str, values))} would train the same jobs; give one value for"
                " the sweep"
            )
        for value in values:
            if not isinstance(value, str | int | float):
                raise WrongUse(f"{key}: {value!r} is not a value; give one or a flat list")
    n = math.prod(map(len, axes.values()))
    if n > _MOST:
        raise WrongUse(f"sweep: {n:,} combinations are more than the {_MOST:,} of one sweep")
    combinations = (
        dict(zip(axes, map(as_text, values), strict=True))
        for values in itertools.product(*axes.values())
    )
    specs = [RunSpec.parse(one) for given in combinations for one in _each_fold(given)]
    return list(dict.fromkeys(specs))


def _each_fold(given: dict[str, str]) -> list[dict[str, str]]:
    """The settings of a job, or those of each of its folds where none is named."""
    folds = convert("folds", given.get("folds", NONE))
    if folds is None or convert("fold", given.get("fold", NONE)) is not None:
        return [given]
    return [{**given, "fold": str(fold)} for fold in range(1, folds + 1)]


def settings(specs: Sequence[RunSpec]) -> pd.DataFrame:
    """The fields of jobs as text, one row per job; without `weights` if each model has one file,
    which then belongs to the model."""
    params = pd.DataFrame([spec.as_params() for spec in specs])
    own = (params.groupby("model")["weights"].nunique() == 1).all()
    return params.drop(columns="weights") if own else params


def shuffled(jobs: Sequence[Job], seed: int) -> list[Job]:
    """The jobs in an order drawn with the seed, the same for the same jobs.

    Machine and room warm up, which in a fixed order would always affect the same models.
    """
    drawn = sorted(jobs, key=lambda job: job.fingerprint)
    random.Random(seed).shuffle(drawn)
    return drawn


def exhaustive(jobs: pd.DataFrame, runs: pd.DataFrame) -> list[Task]:
    """The strategy that trains every job to the end, in the order of `jobs` (`states`)."""
    return [Task(spec) for spec in jobs.loc[jobs["state"].isin(["pending", "running"]), "spec"]]


def abandoned(
    runs: pd.DataFrame, now_s: float, stale_s: float, alive: Callable[[str], bool | None]
) -> list[str]:
    """Ids of the RUNNING runs that no process works on, by `Claim.is_alive`."""
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
        ).is_alive(now_s, stale_s, alive)
    ]


def states(specs: Sequence[Job], runs: pd.DataFrame, *, retry_failed: bool = False) -> pd.DataFrame:
    """The state of each job: one row per spec, in their order, the index its fingerprint.

    `runs` is the frame of `read.load_jobs` after runs without a process were closed. The columns
    are `spec` (the Job), `state` (`done`, `running`, `failed` or `pending`), `run_id`, `reason`,
    `error` and `energy_wh`, the energy of all phases of all its runs, missing if that of one run is
    not known.
    Jobs whose failure the same hardware would repeat are `failed`, also where a probe failed, or
    `pending` with `retry_failed`; interrupted jobs are `pending`.
    """
    columns = ["spec", "state", "run_id", "reason", "error"]
    rows = {
        spec.fingerprint: {**dict.fromkeys(columns), "spec": spec, "state": "pending"}
        for spec in specs
    }
    own = runs[runs["spec"].isin(list(rows))]
    final = (own["status"] == "FAILED") & own["reason"].isin(FINAL)
    trainings = own[own["probe"].isna() | final].sort_values("start_time")
    for key, attempts in trainings.groupby("spec"):
        row = rows[str(key)]
        last = attempts.iloc[-1]
        for state, status in (("done", "FINISHED"), ("running", "RUNNING")):
            if (attempts["status"] == status).any():
                row["state"] = state
                last = attempts[attempts["status"] == status].iloc[-1]
                break
        else:
            row["reason"], row["error"] = _known(last["reason"]), _known(last["error"])
            if row["reason"] in FINAL and not retry_failed:
                row["state"] = "failed"
        row["run_id"] = last["run_id"]
    table = pd.DataFrame.from_dict(rows, orient="index", columns=columns, dtype=object)
    energies = spent_wh(own).groupby(own["spec"]).agg(lambda e: e.sum(skipna=False))
    return table.assign(energy_wh=energies.reindex(table.index, fill_value=0.0).astype(float))


def spent_wh(runs: pd.DataFrame) -> pd.Series[float]:
    """Energy of each run so far, all phases; NaN if a phase took time and its energy is not known,
    0 before the first phase."""
    missing = pd.Series(np.nan, runs.index)
    total = pd.Series(0.0, runs.index)
    for phase in PHASES:
        wh = runs.get(f"metrics.energy/{phase}_wh", missing)
        time_s = runs.get(f"metrics.time/{phase}_s", missing)
        if phase == "train":
            wh, time_s = runs["energy_wh"], runs["train_time_s"]
        total += wh.where(wh.notna() | time_s.notna(), 0.0)
    return total


def _known(value: Any) -> Any:
    """None for pandas' missing texts."""
    return None if pd.isna(value) else value
