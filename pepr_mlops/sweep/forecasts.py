"""The expected cost of the jobs of a sweep, from earlier runs. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from pepr_mlops.comparison.checks import disturbed
from pepr_mlops.comparison.conditions import conditions
from pepr_mlops.names import MEASURED_BY
from pepr_mlops.spec import AUTO, NONE, TRIED, Job, as_text

# The columns of each cost and of its range.
_COSTS = {cost: [cost, f"{cost}_low", f"{cost}_high"] for cost in ("energy_wh", "time_s")}
EXTRAPOLATED = "extrapolated"  # start of the basis where the model itself never ran

# Settings that decide the cost of an epoch, in addition to the model and the data.
_CONDITIONS = (
    *("image_size", "channels", "intensities", "batch_size", "precision"),
    *("layout", "launch", "compile", "deterministic", "augment", "tune"),
)
_REQUESTED = ("threads", "folds")  # conditions that may have no value
_ALIKE = (*_CONDITIONS, *_REQUESTED, "data_digest", "dataset_name", "size")
_METRICS = {"energy_wh": "metrics.forecast/train_wh", "time_s": "metrics.forecast/train_s"}
_ENOUGH = 5  # models, to fit a line of cost over parameters
_BEYOND = 1.5  # factor that widens the range of fewer models


def forecast(
    specs: Sequence[Job], runs: pd.DataFrame, parameters: Mapping[str, int]
) -> pd.DataFrame:
    """The expected cost of each job, from finished runs and probes under its conditions.

    One row per spec, the index its fingerprint: `energy_wh` and `time_s`, both missing where
    nothing similar has run yet, `energy_wh_low`, `energy_wh_high` and so on, `basis`, and the
    `machine` of the runs. A probed job has the forecast of its last probe; a model that was
    trained, or else probed, the mean of its runs, undisturbed if there are any; both have no range.
    For another model it is extrapolated (`_by_size`) from other models, by `parameters` (weights by
    model). Costs scale with epochs and fraction. Runs of the last machine count; where the data set
    has none, runs on other data of its name.
    """
    known = _per_epoch(runs)
    probes = known[known["kind"] == "probe"]
    comparable: dict[tuple[object, ...], tuple[pd.DataFrame, str]] = {}
    estimates: dict[tuple[object, ...], dict[str, float]] = {}
    rows = []
    for spec in specs:
        own = probes[probes["spec"] == spec.fingerprint]
        key = tuple(getattr(spec, name) for name in _ALIKE)
        if key not in comparable:
            comparable[key] = _alike(known, spec)
        alike, about = comparable[key]
        same = alike[alike["model"] == spec.model]
        if (same["kind"] == "run").any():
            same = same[same["kind"] == "run"]
        same, alike = _undisturbed(same), _undisturbed(alike)
        basis_runs = same if len(same) else alike
        if len(basis_runs) and basis_runs["disturbed"].all():
            about += ", disturbed by other programs"
        if len(own):
            costs, basis, alike = dict(own[list(_COSTS)].iloc[-1]), "probe", own
        elif len(same):
            costs = dict(same[list(_COSTS)].mean())
            basis = f"{len(same)} {same['kind'].iloc[0]}{'s' * (len(same) > 1)} of it{about}"
        else:
            size = parameters.get(spec.model)
            if (key, size) not in estimates:
                estimates[key, size] = {}
                for cost, names in _COSTS.items():
                    estimates[key, size] |= zip(names, _by_size(alike, cost, size), strict=True)
            costs, models = estimates[key, size], alike["model"].nunique()
            basis = f"{EXTRAPOLATED} from {models} other model{'s' * (models != 1)}{about}"
        scale = spec.epochs * spec.fraction
        row = {name: value * scale for name, value in costs.items()}
        rows.append({**row, "basis": basis, "machine": _machine(alike)})
    columns = [*_COSTS["energy_wh"], *_COSTS["time_s"]]
    index = [spec.fingerprint for spec in specs]
    table = pd.DataFrame(rows, index=index, columns=[*columns, "basis", "machine"])
    table = table.astype(dict.fromkeys(columns, float))
    return table.assign(basis=table["basis"].where(table["time_s"].notna(), "not known"))


def to_come(jobs: pd.DataFrame, runs: pd.DataFrame, parameters: Mapping[str, int]) -> pd.DataFrame:
    """The cost that remains for each open job (`plan.states`): its `forecast`, or the one that its
    run logged after the first epoch, less the cost of that run so far."""
    left = jobs[jobs["state"].isin(["pending", "running"])]
    expected = forecast(list(left["spec"]), runs, parameters)
    by_run = runs[runs["probe"].isna()].drop_duplicates("run_id").set_index("run_id")
    for cost, column in (("energy_wh", "energy_wh"), ("time_s", "train_time_s")):
        so_far = left["run_id"].map(by_run[column]).astype(float).fillna(0.0)
        if _METRICS[cost] in by_run:
            own = left["run_id"].map(by_run[_METRICS[cost]]).astype(float)
            known = own.notna()
            expected.loc[known, cost] = own[known]
            expected.loc[known, _COSTS[cost][1:]] = np.nan
            expected.loc[known, "basis"] = "its first epoch"
        left_over = expected[_COSTS[cost]].sub(so_far, axis="index")
        expected[_COSTS[cost]] = left_over.clip(lower=0.0)
    return expected


def _per_epoch(runs: pd.DataFrame) -> pd.DataFrame:
    """Finished runs and probes, by time, with their costs per epoch of the full training set.

    Runs that a budget or their patience ended have not done the epochs of their settings.
    """
    runs = runs.sort_values("start_time", kind="stable")
    ended_early = runs["stopped"].notna() | runs["early_stop"].notna()
    finished = (runs["status"] == "FINISHED") & ~ended_early
    probed = runs["probe"].notna() & (_METRICS["time_s"] in runs)
    scale = (runs["epochs"] * runs["fraction"]).astype(float)
    nothing = pd.Series(np.nan, runs.index)
    own = {"energy_wh": runs["energy_wh"], "time_s": runs["train_time_s"]}
    costs = {
        name: (runs.get(metric, nothing).where(probed, own[name])) / scale
        for name, metric in _METRICS.items()
    }
    columns = ["spec", "model", "dataset", "size", "data_digest", "parameters", *_CONDITIONS]
    columns += [*MEASURED_BY, *(f"params.{n}" for n in (*TRIED, *_REQUESTED))]
    kind = pd.Series(np.where(probed, "probe", "run"), runs.index)
    table = runs.reindex(columns=columns).assign(**costs, kind=kind, disturbed=disturbed(runs))
    return table[(finished | probed) & table["time_s"].notna()]


def _alike(known: pd.DataFrame, spec: Job) -> tuple[pd.DataFrame, str]:
    """The runs under the conditions of the job on one machine, and a remark on their data."""
    same = pd.Series(True, known.index)
    for name in _REQUESTED:
        same &= known[f"params.{name}"].fillna(NONE) == as_text(getattr(spec, name))
    for name in _CONDITIONS:
        value = getattr(spec, name)
        column = f"params.{name}" if value == AUTO else name  # runs with auto chose themselves too
        same &= (known[column] == value).fillna(False).astype(bool)
    here, about = same & (known["data_digest"] == spec.data_digest).fillna(False), ""
    if not here.any():
        here = same & (known["dataset"] == spec.dataset_name) & (known["size"] == spec.size)
        about = " on other data of this name"
    found = known[here]
    if found.empty:
        return found, ""
    texts = conditions(found, MEASURED_BY).astype("str")
    return found[(texts == texts.iloc[-1]).all(axis=1)], about


def _undisturbed(runs: pd.DataFrame) -> pd.DataFrame:
    """The undisturbed runs, or all where there are none."""
    return runs if runs["disturbed"].all() else runs[~runs["disturbed"]]


def _machine(alike: pd.DataFrame) -> str:
    """The machine of the last run, in words."""
    if alike.empty:
        return ""
    last = alike.iloc[-1]
    parts = [str(last["hardware"])] if pd.notna(last["hardware"]) else []
    for name, unit in (("cpus", "CPU"), ("threads", "thread")):
        if pd.notna(last[name]):
            parts.append(f"{last[name]:g} {unit}{'' if last[name] == 1 else 's'}")
    return ", ".join(parts)


def _by_size(alike: pd.DataFrame, cost: str, size: int | None) -> tuple[float, float, float]:
    """The cost per epoch of a model of `size` parameters that never ran, and its range.

    From five other models or more it is a straight line through log cost over log parameters with
    its 95% prediction interval (N. Draper, H. Smith, Applied Regression Analysis, section 3.1).
    From fewer the range spans their costs as they are and in proportion to parameters, widened by
    half, and the value is its middle: for the paper's models this held for 85% from one other
    model and 98% from three. Without sizes it is their mean, and no range is known.
    """
    means = alike.groupby("model")[[cost, "parameters"]].mean()
    means = means[means[cost] > 0]
    if means.empty:
        return (np.nan,) * 3
    if size is None or means["parameters"].isna().any():
        return float(means[cost].mean()), np.nan, np.nan
    x, y, new = np.log(means["parameters"].to_numpy()), np.log(means[cost].to_numpy()), np.log(size)
    n = len(means)
    if n < _ENOUGH or np.ptp(x) == 0:
        ends = np.concatenate([y, y + new - x])
        low, high = ends.min() - np.log(_BEYOND), ends.max() + np.log(_BEYOND)
        value = (low + high) / 2
    else:
        from scipy.special import stdtrit

        slope, intercept = np.polyfit(x, y, 1)
        variance = ((y - intercept - slope * x) ** 2).sum() / (n - 2)
        spread = variance * (1 + 1 / n + (new - x.mean()) ** 2 / ((x - x.mean()) ** 2).sum())
        margin = stdtrit(n - 2, 0.975) * np.sqrt(spread)
        value = intercept + slope * new
        low, high = value - margin, value + margin
    return float(np.exp(value)), float(np.exp(low)), float(np.exp(high))
