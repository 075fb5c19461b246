"""What the jobs of a sweep are expected to cost, from what ran before. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from pepr_mlops.comparison.checks import disturbed
from pepr_mlops.comparison.conditions import conditions
from pepr_mlops.names import MEASURED_BY
from pepr_mlops.spec import AUTO, NONE, TRIED, Job, as_text

COSTS = ("energy_wh", "time_s")
EXTRAPOLATED = "extrapolated"  # how the basis begins of what no run of the model itself showed

# What decides the cost of a training besides the model and the data, but for what scales with it.
_CONDITIONS = (
    *("image_size", "channels", "intensities", "batch_size", "precision"),
    *("layout", "launch", "compile", "deterministic"),
)
_ALIKE = (*_CONDITIONS, "threads", "data_digest", "dataset_name", "size")
_METRICS = {"energy_wh": "metrics.forecast/train_wh", "time_s": "metrics.forecast/train_s"}
_ENOUGH = 5  # models, to tell by a line how cost grows with parameters
_BEYOND = 1.5  # times what fewer models show, and as much less

Guess = tuple[float, float, float]  # a value, and from where to where it may be


def forecast(
    specs: Sequence[Job], runs: pd.DataFrame, parameters: Mapping[str, int]
) -> pd.DataFrame:
    """What each job is expected to cost, from finished runs and probes under its conditions.

    One row per spec, the index its fingerprint: `energy_wh` and `time_s`, both missing where
    nothing like it was run yet, `energy_wh_low`, `energy_wh_high` and so on, `basis`, and `machine`
    on which that ran. Of a job that was probed it is the last probe's; of a model that was trained,
    or else probed, the mean of its runs, of the undisturbed ones if there are any; both have no
    range. Of another it is extrapolated (`_by_size`) from other models, by `parameters` (weights by
    model). Costs scale with epochs and fraction. Where several machines have some, those of the
    last count, and where the data set has none, those of other data of its name.
    """
    known = _per_epoch(runs)
    probes = known[known["kind"] == "probe"]
    found_alike: dict[tuple[object, ...], tuple[pd.DataFrame, str]] = {}
    guessed: dict[tuple[object, ...], tuple[dict[str, float], int]] = {}
    rows = []
    for spec in specs:
        own = probes[probes["spec"] == spec.fingerprint]
        ran_as = tuple(getattr(spec, name) for name in _ALIKE)
        if ran_as not in found_alike:
            found_alike[ran_as] = _alike(known, spec)
        alike, about = found_alike[ran_as]
        same = alike[alike["model"] == spec.model]
        if (same["kind"] == "run").any():
            same = same[same["kind"] == "run"]
        same, alike = _undisturbed(same), _undisturbed(alike)
        shown_by = same if len(same) else alike
        if len(shown_by) and shown_by["disturbed"].all():
            about += ", disturbed by other programs"
        if len(own):
            found, basis, alike = dict(own[list(COSTS)].iloc[-1]), "probe", own
        elif len(same):
            found = dict(same[list(COSTS)].mean())
            basis = f"{len(same)} {same['kind'].iloc[0]}{'s' * (len(same) > 1)} of it{about}"
        else:
            size = parameters.get(spec.model)
            if (ran_as, size) not in guessed:
                guessed[ran_as, size] = _extrapolated(alike, size)
            found, models = guessed[ran_as, size]
            basis = f"{EXTRAPOLATED} from {models} other model{'s' * (models != 1)}{about}"
        scale = spec.epochs * spec.fraction
        row = {name: value * scale for name, value in found.items()}
        rows.append({**row, "basis": basis, "machine": _machine(alike)})
    columns = [*COSTS, *(f"{cost}_{end}" for cost in COSTS for end in ("low", "high"))]
    index = [spec.fingerprint for spec in specs]
    table = pd.DataFrame(rows, index=index, columns=[*columns, "basis", "machine"])
    table = table.astype(dict.fromkeys(columns, float))
    return table.assign(basis=table["basis"].where(table["time_s"].notna(), "not known"))


def to_come(jobs: pd.DataFrame, runs: pd.DataFrame, parameters: Mapping[str, int]) -> pd.DataFrame:
    """What is left to train of each open job (`plan.states`): its `forecast`, or that of its own
    run after the first epoch, less what its run has."""
    left = jobs[jobs["state"].isin(["pending", "running"])]
    expected = forecast(list(left["spec"]), runs, parameters)
    by_run = runs[runs["probe"].isna()].drop_duplicates("run_id").set_index("run_id")
    for cost, column in (("energy_wh", "energy_wh"), ("time_s", "train_time_s")):
        so_far = left["run_id"].map(by_run[column]).astype(float).fillna(0.0)
        if _METRICS[cost] in by_run:
            of_its_own = left["run_id"].map(by_run[_METRICS[cost]]).astype(float)
            known = of_its_own.notna()
            expected.loc[known, cost] = of_its_own[known]
            expected.loc[known, [f"{cost}_low", f"{cost}_high"]] = np.nan
            expected.loc[known, "basis"] = "its first epoch"
        for name in (cost, f"{cost}_low", f"{cost}_high"):
            expected[name] = (expected[name] - so_far).clip(lower=0.0)
    return expected


def _per_epoch(runs: pd.DataFrame) -> pd.DataFrame:
    """Finished runs and probes, the last at the end, with what they cost per epoch of the whole
    training set."""
    runs = runs.sort_values("start_time", kind="stable")
    finished = (runs["status"] == "FINISHED") & runs["stopped"].isna()
    probed = runs["probe"].notna() & (_METRICS["time_s"] in runs)
    scale = (runs["epochs"] * runs["fraction"]).astype(float)
    nothing = pd.Series(np.nan, runs.index)
    own = {"energy_wh": runs["energy_wh"], "time_s": runs["train_time_s"]}
    costs = {
        name: (runs.get(metric, nothing).where(probed, own[name])) / scale
        for name, metric in _METRICS.items()
    }
    wanted = ["spec", "model", "dataset", "size", "data_digest", "parameters", *_CONDITIONS]
    wanted += [*MEASURED_BY, *(f"params.{n}" for n in (*TRIED, "threads"))]
    kind = pd.Series(np.where(probed, "probe", "run"), runs.index)
    table = runs.reindex(columns=wanted).assign(**costs, kind=kind, disturbed=disturbed(runs))
    return table[(finished | probed) & table["time_s"].notna()]


def _alike(known: pd.DataFrame, spec: Job) -> tuple[pd.DataFrame, str]:
    """What ran as the job will, on one machine, and in words what is to be said of it."""
    same = known["params.threads"].fillna(NONE) == as_text(spec.threads)
    for name in _CONDITIONS:
        asked = getattr(spec, name)
        of = f"params.{name}" if asked == AUTO else name  # those that chose for themselves too
        same &= (known[of] == asked).fillna(False).astype(bool)
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
    """Those that nothing disturbed, or all where there are none."""
    return runs if runs["disturbed"].all() else runs[~runs["disturbed"]]


def _machine(alike: pd.DataFrame) -> str:
    """The machine that costs are from, in words."""
    if alike.empty:
        return ""
    last = alike.iloc[-1]
    parts = [str(last["hardware"])] if pd.notna(last["hardware"]) else []
    for name, unit in (("cpus", "CPU"), ("threads", "thread")):
        if pd.notna(last[name]):
            parts.append(f"{last[name]:g} {unit}{'' if last[name] == 1 else 's'}")
    return ", ".join(parts)


def _extrapolated(alike: pd.DataFrame, size: int | None) -> tuple[dict[str, float], int]:
    """What a model of so many parameters that never ran may cost per epoch, and from how many."""
    found = {
        f"{cost}{end}": value
        for cost in COSTS
        for end, value in zip(("", "_low", "_high"), _by_size(alike, cost, size), strict=True)
    }
    return found, alike["model"].nunique()


def _by_size(alike: pd.DataFrame, cost: str, size: int | None) -> Guess:
    """The cost of a model of `size` parameters, and a range.

    From five other models or more it is a straight line through log cost over log parameters with
    its 95 % prediction interval (N. Draper, H. Smith, Applied Regression Analysis, section 3.1).
    From fewer the range is of their costs as they are and in proportion to parameters, widened by
    half, and the value its middle: of the paper's models that held for 85 % from one other and 98 %
    from three. Without sizes it is their mean, and no range is known.
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

        slope, at = np.polyfit(x, y, 1)
        variance = ((y - at - slope * x) ** 2).sum() / (n - 2)
        spread = variance * (1 + 1 / n + (new - x.mean()) ** 2 / ((x - x.mean()) ** 2).sum())
        margin = stdtrit(n - 2, 0.975) * np.sqrt(spread)
        value = at + slope * new
        low, high = value - margin, value + margin
    return float(np.exp(value)), float(np.exp(low)), float(np.exp(high))
