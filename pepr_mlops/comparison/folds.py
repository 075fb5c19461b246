"""The folds of a cross-validation as one run: what all of them predicted, and what they cost. Pure.

Each fold tests another part of the images, and together they test all. Runs of folds that differ in
nothing else are one training of a model, so that folds are no repetitions: seeds are. P is that of
all their predictions together, which is not the mean of theirs. Thresholds of clinical metrics are
chosen once, on the validation images of all folds.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import pandas as pd

from pepr_mlops.comparison.conditions import comparable, conditions, mixed, of_folds, own_params
from pepr_mlops.comparison.metrics import METRICS, value
from pepr_mlops.comparison.predictions import OfSplit, Predictions
from pepr_mlops.comparison.runs import Evidence, label
from pepr_mlops.comparison.sampling import Measured
from pepr_mlops.names import PERFORMANCE
from pepr_mlops.spec import SWEEPABLE, RunSpec, as_text

# Columns by how those of the folds become one. Other numbers are those that all folds share, or
# missing; texts are those of the first fold that has one.
_SUMS = re.compile(
    r"energy_wh|carbon_gco2e|train_time_s|unmeasured_s|paused_s|(val|test)_images"
    r"|metrics\.(energy|carbon)/.*|metrics\.time/(?!images_per_s).*"
)
_GREATEST = re.compile(r"memory_gb|metrics\.memory/.*|start_time|end_time")
_SPLITS = ("test", "val")


@dataclass(frozen=True)
class Pooled:
    """The rows to compare, and the evidence about them.

    `runs` has a row for each run that is no fold, and one for the folds of each cross-validation
    under the index and the id of the first, with `fold_runs`, the ids of all of them with blanks
    between, in the order of the folds. `row` is the index in `runs` for each run. The `evidence`
    has the predictions of all folds under the id of the first.
    """

    runs: pd.DataFrame
    row: pd.Series[Any]
    evidence: Evidence


def pooled(runs: pd.DataFrame, evidence: Evidence) -> Pooled:
    """Pool the folds of each cross-validation of `runs`, of which none is `impossible`."""
    chosen = of_folds(runs)
    ids = pd.Series(None, runs.index, dtype="str")
    if not chosen.any():
        return Pooled(runs.assign(fold_runs=ids), runs.index.to_series(), evidence)
    folds = runs[chosen].sort_values("fold", kind="stable")
    numbers = _numbers(folds)
    first = folds.index.to_series().groupby(numbers).transform("first")
    predictions = {
        str(own["run_id"].iloc[0]): _together([evidence.predictions[run] for run in own["run_id"]])
        for _, own in folds.groupby(first)
    }
    one = _one_row(folds, first)
    one["fold_runs"] = folds.groupby(first)["run_id"].agg(" ".join)
    _measure(one, predictions)
    rows = pd.concat([runs.assign(fold_runs=ids)[~chosen], one])
    row = first.reindex(runs.index).fillna(runs.index.to_series()).astype(runs.index.dtype)
    known = replace(evidence, predictions={**evidence.predictions, **predictions})
    return Pooled(rows.loc[row.drop_duplicates()], row, known)


def impossible(
    runs: pd.DataFrame,
    left_out: Collection[str],
    doubted: Collection[str],
    costs: Sequence[str],
    evidence: Evidence,
) -> pd.DataFrame:
    """Why folds cannot be pooled: the runs of an incomplete cross-validation, and of one whose P or
    costs are not known, with `run_id`, `reason` and `text` as `checks.left_out`.

    `left_out` are ids of runs that do not count, `doubted` of those whose predictions cannot be
    believed.
    """
    folds = runs[of_folds(runs)].sort_values("fold", kind="stable")
    found: list[tuple[str, str, str]] = []
    if len(folds):
        usable = {*folds["run_id"]} - {*left_out}
        believed = {
            run: predictions
            for run, predictions in evidence.predictions.items()
            if isinstance(predictions, Predictions) and run not in {*doubted}
        }
        needed = folds[["run_id", "folds", "fold", "status", "performance_metric", *costs]]
        for _, every in needed.groupby(_numbers(folds)):  # few columns are faster to divide
            own = every[every["run_id"].isin(usable)]
            why = None if own.empty else _fault(every, own, folds, believed, costs)
            if why is not None:
                found += [(run, *why) for run in own["run_id"]]
    return pd.DataFrame(found, columns=["run_id", "reason", "text"], dtype="str")


def _numbers(folds: pd.DataFrame) -> pd.Series[int]:
    """For each run the number of its cross-validation: runs that differ in nothing but the fold."""
    settings = [*comparable(["energy_wh", "memory_gb"]), *own_params(folds)]
    columns = ["experiment", "model", "seed", "initial_weights", *settings]
    differ = mixed(folds, columns) or columns[:1]  # few columns are faster to group by
    return conditions(folds, differ).groupby(differ, observed=True).ngroup()


def _fault(
    every: pd.DataFrame,
    own: pd.DataFrame,
    runs: pd.DataFrame,
    believed: Mapping[str, Predictions],
    costs: Sequence[str],
) -> tuple[str, str] | None:
    """Why the runs `own` of a cross-validation, of `every` that was found, have no P or cost; all
    columns of them are in `runs`."""
    n, there = int(own["folds"].iloc[0]), {int(fold) for fold in own["fold"]}
    absent = [fold for fold in range(1, n + 1) if fold not in there]
    if absent:
        return "missing_folds", _missing(every, runs.loc[every.index[0]], absent, n)
    without = [
        int(fold)
        for fold, run in zip(own["fold"], own["run_id"], strict=True)
        if run not in believed
    ]
    if without:
        verb = "has" if len(without) == 1 else "have"
        return "fold_predictions", (
            "P of all folds is computed from their predictions, and "
            f"{_named(without, n)} {verb} none that can be used"
        )
    parts = [believed[run] for run in own["run_id"]]
    if len({(part.task, part.classes) for part in parts}) > 1:
        return "fold_predictions", "its folds do not predict the same classes"
    if _overlap([part.test for part in parts]):
        return "fold_predictions", "its folds have test images in common, which would count twice"
    metric = own["performance_metric"].iloc[0]
    if _value(metric, _together(parts)) is None:
        name = metric if isinstance(metric, str) else "a P without a name"
        return "no_performance", (
            f"{name} cannot be computed from the predictions of all its folds; choose another "
            "--performance, such as test/accuracy"
        )
    for cost in costs:
        adds_up = _SUMS.fullmatch(cost) or _GREATEST.fullmatch(cost)
        if not adds_up and own[cost].nunique(dropna=False) > 1:
            return "no_cost", f"its folds differ in {label(cost)}, which does not add up"
    return None


def _missing(every: pd.DataFrame, run: pd.Series[Any], absent: Sequence[int], n: int) -> str:
    """Which folds are missing, and how to train those that were not with the settings of a run."""
    trained = set(every.loc[every["status"] == "FINISHED", "fold"])
    doubtful = [fold for fold in absent if fold in trained]
    texts = []
    if doubtful:
        verb = "is" if len(doubtful) == 1 else "are"
        texts.append(f"{_named(doubtful, n)} {verb} left out by another rule")
    if len(absent) > len(doubtful):
        folds = [fold for fold in absent if fold not in trained]
        verb = "is" if len(folds) == 1 else "are"
        command = _command(run, folds)
        texts.append(
            f"{_named(folds, n)} {verb} missing under its conditions; train with {command}"
        )
    return "; ".join(texts)


def _named(folds: Sequence[int], n: int) -> str:
    *most, last = map(str, folds)
    return f"folds {', '.join(most)} and {last} of {n}" if most else f"fold {last} of {n}"


def _command(run: pd.Series[Any], folds: Sequence[int]) -> str:
    """The command line that trains these folds with the settings of a run."""
    words = ["pepr", "sweep"]
    for f in fields(RunSpec):
        text = run.get(f"params.{f.name}")
        if f.name == "fold":
            text = ",".join(map(str, folds))
        essential = f.name in ("model", "dataset", "seed")
        differs = isinstance(text, str) and (essential or text != as_text(f.default))
        if f.name in SWEEPABLE and differs:
            words += [f"--{f.name.replace('_', '-')}", str(text)]
    return f"`{shlex.join(words)}`"


# What all folds predicted -----------------------------------------------------------------------


def _together(parts: Sequence[Predictions | str]) -> Predictions:
    """The predictions of all folds; those for validation where all have some for other images."""
    found = [part for part in parts if isinstance(part, Predictions)]
    val = [part.val for part in found if part.val is not None]
    complete = len(val) == len(found) and not _overlap(val)
    test = _joined([part.test for part in found])
    return replace(found[0], test=test, val=_joined(val) if complete else None)


def _joined(splits: Sequence[OfSplit]) -> OfSplit:
    images = [split.images for split in splits if split.images is not None]
    names = [n for n in splits[0].groups if all(n in split.groups for split in splits)]
    return OfSplit(
        np.concatenate([split.labels for split in splits]),
        np.concatenate([split.probabilities for split in splits]),
        np.concatenate(images) if len(images) == len(splits) else None,  # type: ignore[arg-type]
        {name: np.concatenate([split.groups[name] for split in splits]) for name in names},
    )


def _overlap(splits: Sequence[OfSplit]) -> bool:
    """Whether an image is in several of the splits; rows of published files have no names."""
    names = [
        set(split.images.tolist())
        for split in splits
        if split.images is not None and split.images.dtype.kind == "U"
    ]
    return len(set().union(*names)) < sum(map(len, names))


def _value(metric: object, predictions: Predictions) -> float | None:
    """P by the name of the metric that it is, None where predictions do not determine it."""
    measured = Measured.parse(metric) if isinstance(metric, str) else None
    if measured is None or measured.name not in METRICS or predictions.on(measured.split) is None:
        return None
    found = value(measured.name, predictions.of(measured.split))
    return 1 - found if found is not None and measured.complement else found


# What all folds cost ----------------------------------------------------------------------------


def _one_row(folds: pd.DataFrame, by: pd.Series[Any]) -> pd.DataFrame:
    """A row for each value of `by`, the index: the columns of the folds by the rules above."""
    groups = folds.groupby(by)
    numbers = folds.select_dtypes(["number", "boolean", "bool"]).columns
    sums = [c for c in numbers if _SUMS.fullmatch(c)]
    greatest = [c for c in folds if _GREATEST.fullmatch(c)]
    shared = [c for c in numbers if c not in {*sums, *greatest}]
    one = groups.first()
    one[sums] = groups[sums].sum(skipna=False)
    one[greatest] = groups[greatest].max(skipna=False)
    one[shared] = one[shared].where(groups[shared].nunique(dropna=False) == 1)
    return one[folds.columns]


def _measure(one: pd.DataFrame, predictions: Mapping[str, Predictions]) -> None:
    """Set P, and the metrics that the predictions of all folds give."""
    names = {f"metrics.{split}/{name}": (split, name) for split in _SPLITS for name in METRICS}
    logged = {column: how for column, how in names.items() if column in one}
    rows = []
    for run, metric in zip(one["run_id"], one["performance_metric"], strict=True):
        of_all = predictions[run]
        found: dict[str, Any] = {
            column: None if of_all.on(split) is None else value(name, of_all.of(split))
            for column, (split, name) in logged.items()
        }
        rows.append({**found, PERFORMANCE: _value(metric, of_all)})
    table = pd.DataFrame(rows, one.index, [*logged, PERFORMANCE], dtype="float64")
    one[list(table.columns)] = table
