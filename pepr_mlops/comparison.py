"""From runs to PePR scores one can defend: what may be compared, scored with intervals. Pure."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from pepr_mlops import quality, score, stats
from pepr_mlops.carbon import Intensity
from pepr_mlops.errors import WorkFailed, WrongUse, nearest
from pepr_mlops.frame import column, label
from pepr_mlops.quality import Evidence
from pepr_mlops.schema import METRICS, PERFORMANCE, RESOURCES

Mixed = Literal["refuse", "stratify", "allow"]

ENERGY_ERROR = 0.05  # relative standard deviation of a measured energy
DRAWS = 2000
TOP = 5


@dataclass(frozen=True)
class Question:
    """What is asked of the runs.

    `performance` is the metric that is P, or None for what each run calls its performance.
    `resources` are letters of `schema.RESOURCES`, columns or metrics. Without `weights` each
    resource has a score of its own; with them, summing to 1, there is one score of all. `mixed`
    says what to do with runs that differ in what a comparison set shares. `intensity` replaces
    each run's own grid intensity. `model_param` is the parameter that names the model.
    """

    performance: str | None = None
    resources: tuple[str, ...] = ("E",)
    weights: tuple[float, ...] | None = None
    alpha: float = 1.0
    normalisation: score.Method = "minmax"
    quantiles: tuple[float, float] = score.QUANTILES
    reference: score.Reference | None = None
    strict: bool = False
    mixed: Mixed = "refuse"
    intensity: Intensity | None = None
    model_param: str = "model"
    energy_error: float = ENERGY_ERROR
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.resources:
            raise WrongUse(f"resource: name one or more of {', '.join(RESOURCES)} or a metric")
        if len(set(self.resources)) < len(self.resources):
            raise WrongUse(f"resource: {', '.join(self.resources)} names one twice")
        if (self.reference is None) == (self.normalisation == "reference"):
            raise WrongUse(
                "normalisation: reference and saved bounds go together; give both or neither"
            )
        if not 0 <= self.energy_error < 1:
            raise WrongUse(
                f"energy_error: {self.energy_error:g} is not a relative error from 0 to below 1"
            )
        score.pepr(
            np.ones(1), np.zeros((1, len(self.resources))), weights=self.weights, alpha=self.alpha
        )


@dataclass(frozen=True)
class Comparison:
    """The answer.

    | frame | a row is | columns |
    | --- | --- | --- |
    | `scores` | a model in a comparison set by one score, best first | `comparison_set`, `resource` (letter or name of what it is scored by), `model`, `variant` (what tells rows of one model apart, or empty), `n` (runs averaged), `performance`, `performance_sd`, `cost`, `cost_sd` (missing where several are weighted; standard deviations over the runs), `R`, `score`, `ci_low`, `ci_high`, `rank`, `rank_low`, `rank_high`, `top_share`, `energy_source`, `flags` (texts), `codes` (a word for each) |
    | `runs` | a run that was found | `run_id`, `model`, `experiment`, `comparison_set`, `used`, `reasons` (why not), `flags`, `codes` |
    | `used` | a run that was scored | those of the frame of runs, `comparison_set`, `variant` |
    | `sets` | a comparison set | `comparison_set`, `experiment`, `models`, `runs`, `fingerprint`, `energy_source`, `shared` (what its runs have in common) |

    `notes` go with every output. `reference` has the bounds of the first set.
    """  # noqa: E501

    scores: pd.DataFrame
    runs: pd.DataFrame
    used: pd.DataFrame
    sets: pd.DataFrame
    notes: list[str]
    reference: score.Reference


def compare(runs: pd.DataFrame, question: Question, evidence: Evidence | None = None) -> Comparison:
    """Score runs of `query.load_runs`, each experiment by itself.

    Runs that cannot be compared are left out and doubtful ones flagged (`quality`), seeds are
    averaged per model, and costs are normalised over the models of one comparison set. Raises
    `WorkFailed` when nothing is left, and `WrongUse` for runs that differ in what a comparison set
    shares, with the groups and their sizes, unless `question.mixed` says what to do.
    """
    chosen, costs = choose(runs, question)
    verdicts = judge(chosen, costs, question.strict, evidence)
    usable = chosen[verdicts["used"].to_numpy()]
    if usable.empty:
        raise WorkFailed(f"no run can be compared: {tally(verdicts)}; `pepr runs` lists them")
    notes = _notes(chosen, usable, costs, question)
    parts, sets, placed = [], [], []
    flags = verdicts.set_index("run_id")[["flags", "codes"]]
    for _, of_experiment in usable.groupby("experiment", sort=False):
        for name, members, told in _comparison_sets(of_experiment, costs, question):
            notes += told
            members = members.assign(comparison_set=name)
            scored, bounds, clipped = _score(members, costs, question)
            notes += clipped
            parts.append(_with_flags(scored, members, flags))
            sets.append(_describe(name, members, costs, question, bounds))
            placed.append(members)
    used = pd.concat(placed)
    verdicts["comparison_set"] = verdicts["run_id"].map(used.set_index("run_id")["comparison_set"])
    described = pd.DataFrame(sets)
    return Comparison(
        pd.concat(parts, ignore_index=True),
        verdicts,
        used,
        described.drop(columns="bounds"),
        list(dict.fromkeys(notes)),
        _reference(described, question),
    )


def inspect(
    runs: pd.DataFrame, question: Question, evidence: Evidence | None = None
) -> tuple[pd.DataFrame, list[str]]:
    """`Comparison.runs` without scoring, also where nothing can be compared, and notes.

    A note tells of runs that differ in what a comparison set shares, with the groups.
    """
    chosen, costs = choose(runs, question)
    verdicts = judge(chosen, costs, question.strict, evidence)
    usable = chosen[verdicts["used"].to_numpy()]
    notes = _notes(chosen, usable, costs, question) if len(usable) else []
    for experiment, members in usable.groupby("experiment", sort=False):
        differ = quality.mixed(members, quality.comparable(members, costs))
        if differ:
            names = quality.groups(members, differ)
            notes.append(f"{experiment} mixes {', '.join(differ)} ({quality.listed(names)})")
    return verdicts, notes


def means(comparison: Comparison, columns: Mapping[str, str]) -> pd.DataFrame:
    """Means over the runs of each row of `scores`, by `comparison_set`, `model` and `variant`.

    `columns` are columns of the frame of runs by the names they get.
    """
    keys = ["comparison_set", "model", "variant"]
    chosen = comparison.used[keys].assign(
        **{name: comparison.used[column].astype(float) for name, column in columns.items()}
    )
    return chosen.groupby(keys, sort=False).mean().reset_index()


def by_run(comparison: Comparison, runs: pd.DataFrame) -> pd.DataFrame:
    """What to log to each run found: `run_id`, `name`, `score`, `basis`, and whether it is `new`.

    A run has the score of its model. `score` is missing for a run that has a score by the same
    name but is in no comparison set any more. `runs` is the frame that was compared.
    """
    scores = comparison.scores.merge(
        comparison.sets[["comparison_set", "fingerprint", "models"]], on="comparison_set"
    )
    scores["basis"] = (
        scores["fingerprint"]
        + " of "
        + scores["comparison_set"]
        + ": rank "
        + scores["rank"].astype(str)
        + " of "
        + scores["models"].astype(str)
    )
    keys = ["comparison_set", "model", "variant"]
    current = comparison.used[["run_id", *keys]].merge(scores, on=keys)
    parts = []
    for name, rows in current.groupby("resource"):
        logged = runs.set_index("run_id")
        basis = logged.get(f"tags.pepr.scored.{metric_name(str(name))}")
        rows = rows[["run_id", "score", "basis"]].assign(name=metric_name(str(name)), new=True)
        if basis is not None:
            rows["new"] = rows["run_id"].map(basis).fillna("") != rows["basis"]
            left = basis.dropna()
            left = left[~left.index.isin(rows["run_id"]) & ~left.str.startswith(SUPERSEDED)]
            gone = pd.DataFrame(
                {
                    "run_id": left.index,
                    "basis": f"{SUPERSEDED} " + left,
                    "name": rows["name"].iloc[0],
                }
            )
            rows = pd.concat([rows, gone.assign(score=np.nan, new=True)])
        parts.append(rows)
    return pd.concat(parts, ignore_index=True)


SUPERSEDED = "superseded:"


def metric_name(resource: str) -> str:
    """A score's name as MLflow allows it: letters, digits and `_-. :/`."""
    return re.sub(r"[^\w\-./: ]", "_", resource)


def choose(runs: pd.DataFrame, question: Question) -> tuple[pd.DataFrame, list[str]]:
    """The runs with `model`, `performance` and costs as asked for, and the columns of the costs.

    Raises `WrongUse` for names no run has and for a performance that is better when lower.
    """
    chosen = runs.copy()
    if question.model_param != "model":
        name = f"params.{question.model_param}"
        if name not in runs:
            known = [str(c).removeprefix("params.") for c in runs if c.startswith("params.")]
            raise WrongUse(
                f"model_param: no run has the parameter {question.model_param!r}"
                f"{nearest(question.model_param, known) or '.'} "
                f"Valid: {', '.join(known) or 'none'}"
            )
        chosen["model"] = runs[name]
    if question.performance is not None:
        name = column(runs, question.performance)
        metric = METRICS.get(question.performance)
        if metric is not None and metric.better != "higher":
            raise WrongUse(
                f"performance: {question.performance} is not better when higher; choose another"
            )
        chosen[PERFORMANCE] = runs[name]
        chosen["performance_metric"] = question.performance
    if question.intensity is not None:
        pue = chosen["pue"].fillna(1.0)
        chosen["carbon_gco2e"] = chosen["energy_wh"] / 1000 * question.intensity.g_per_kwh * pue
    costs = [column(chosen, name) for name in question.resources]
    return chosen, costs


def judge(
    chosen: pd.DataFrame, costs: Sequence[str], strict: bool, evidence: Evidence | None = None
) -> pd.DataFrame:
    """`Comparison.runs` but for the sets: which runs are used, and what was found about each."""
    out = quality.left_out(chosen, costs)
    flags = quality.flagged(chosen, costs, evidence)
    rows = chosen[["run_id", "model", "experiment"]].reset_index(drop=True)
    by_out = out.groupby("run_id")
    by_flag = flags.groupby("run_id")
    texts = by_out["text"].agg(list)
    doubts = by_flag["text"].agg(list)
    rows["used"] = ~rows["run_id"].isin(out["run_id"])
    rows["reasons"] = [texts.get(r, []) for r in rows["run_id"]]
    rows["flags"] = [doubts.get(r, []) for r in rows["run_id"]]
    if strict:
        barred = rows["used"] & rows["run_id"].isin(flags["run_id"])
        rows.loc[barred, "used"] = False
        rows["reasons"] = [
            [f"strict: {text}" for text in flag] if bar else reason
            for bar, reason, flag in zip(barred, rows["reasons"], rows["flags"], strict=True)
        ]
    codes = (
        pd.concat([out, flags]).groupby("run_id")["reason"].agg(lambda c: list(dict.fromkeys(c)))
    )
    rows["codes"] = [codes.get(r, []) for r in rows["run_id"]]
    return rows


def tally(verdicts: pd.DataFrame) -> str:
    """How many runs were found and left out, by the first reason of each."""
    out = verdicts[~verdicts["used"]]
    words = out["codes"].str[0].value_counts()
    listed = ", ".join(f"{n} {word.replace('_', ' ')}" for word, n in words.items())
    return f"{len(verdicts)} found, {len(out)} left out" + (f" ({listed})" if listed else "")


# Comparison sets -------------------------------------------------------------------------------


def _comparison_sets(
    runs: pd.DataFrame, costs: Sequence[str], question: Question
) -> list[tuple[str, pd.DataFrame, list[str]]]:
    """Name, runs and notes of each set of one experiment; `variant` tells rows of a model apart."""
    experiment = str(runs["experiment"].iloc[0])
    differ = quality.mixed(runs, quality.comparable(runs, costs))
    apart = _apart(runs, costs)
    runs = runs.assign(variant=_variants(runs, apart))
    if not differ:
        return [(experiment, runs, [])]
    names = quality.groups(runs, differ)
    told = f"{experiment} mixes {', '.join(differ)} ({quality.listed(names)})"
    if question.mixed == "refuse":
        raise WrongUse(
            f"experiment: {told}; choose --stratify for a score set of each, --allow-mixed to "
            "score them together, or other runs"
        )
    if question.mixed == "stratify":
        return [
            (f"{experiment} [{name}]", members, [f"{experiment} is split by {', '.join(differ)}"])
            for name, members in runs.groupby(names, sort=True)
        ]
    runs["variant"] = _variants(runs, [*differ, *apart])
    name = f"{experiment} [MIXED {', '.join(differ)}]"
    return [(name, runs, [f"MIXED, as allowed: {told}; R compares unlike with unlike"])]


def _apart(runs: pd.DataFrame, costs: Sequence[str]) -> list[str]:
    """Columns that tell rows of one model apart in any comparison set.

    The training fraction where it is the cost, and the weights it started from where a model has
    several: neither is a repetition that may be averaged.
    """
    apart = []
    if "fraction" in costs and runs["fraction"].nunique(dropna=False) > 1:
        apart.append("fraction")
    if (runs.groupby("model")["initial_weights"].nunique(dropna=False) > 1).any():
        apart.append("initial_weights")
    return apart


def _variants(runs: pd.DataFrame, by: Sequence[str]) -> pd.Series[str]:
    return quality.groups(runs, by) if by else pd.Series("", runs.index, dtype="str")


def _score(
    members: pd.DataFrame, costs: Sequence[str], question: Question
) -> tuple[pd.DataFrame, dict[str, score.Bounds], list[str]]:
    """Rows of `Comparison.scores` of one set, its bounds, and notes on costs they clip."""
    name = members["comparison_set"].iloc[0]
    row = members["model"] + members["variant"].map(lambda v: f" ({v})" if v else "")
    members = members.assign(row=row)
    by_row = members.groupby("row")
    means = by_row[[PERFORMANCE, *dict.fromkeys(costs)]].mean()
    spread = by_row[[PERFORMANCE, *dict.fromkeys(costs)]].std(ddof=1)
    bounds, notes, relative = {}, [], {}
    for cost in costs:
        values = means[cost].rename(label(cost))
        bounds[cost] = _bounds(cost, values, question)
        relative[cost] = score.normalise(values, bounds[cost])
        clipped = score.outside(values, bounds[cost])
        if clipped and question.normalisation != "robust":
            notes.append(
                f"{name}: {clipped} of {len(values)} models cost {label(cost)} outside the "
                "reference and are taken at its edge"
            )
    parts = []
    for label_, columns, weights in _scored_by(costs, question):
        scoring = stats.Scoring(
            columns,
            weights,
            question.normalisation,
            question.alpha,
            question.quantiles,
            bounds if question.reference is not None else None,
        )
        shares = pd.DataFrame({c: relative[c] for c in columns})
        table = pd.DataFrame(
            {
                "comparison_set": name,
                "resource": label_,
                "model": by_row["model"].first(),
                "variant": by_row["variant"].first(),
                "n": by_row.size(),
                "performance": means[PERFORMANCE],
                "performance_sd": spread[PERFORMANCE],
                "cost": means[columns[0]] if len(columns) == 1 else np.nan,
                "cost_sd": spread[columns[0]] if len(columns) == 1 else np.nan,
                "R": shares.mul(weights, axis=1).sum(axis=1),
                "score": score.pepr(
                    means[PERFORMANCE], shares, weights=weights, alpha=question.alpha
                ),
                "energy_source": by_row["energy_source"].agg(_joined),
            }
        )
        error = {c: question.energy_error for c in columns if quality.about_energy([c])}
        drawn = members.assign(model=members["row"])
        table = table.join(stats.intervals(drawn, scoring, error=error, seed=question.seed))
        table["rank"] = table["score"].rank(ascending=False, method="min").astype(int)
        parts.append(table.sort_values(["rank", "performance"], ascending=[True, False]))
    return pd.concat(parts), bounds, notes


def _scored_by(
    costs: Sequence[str], question: Question
) -> list[tuple[str, list[str], list[float]]]:
    """Name, cost columns and weights of each score that is asked for."""
    if question.weights is None:
        return [(n, [c], [1.0]) for n, c in zip(question.resources, costs, strict=True)]
    return [("+".join(question.resources), list(costs), list(question.weights))]


def _bounds(cost: str, values: pd.Series[float], question: Question) -> score.Bounds:
    if question.reference is None:
        return score.bounds(values, question.normalisation, question.quantiles)
    if cost not in question.reference.bounds:
        raise WrongUse(
            f"reference: it has no bounds of {label(cost)}; valid: "
            f"{', '.join(map(label, question.reference.bounds))}"
        )
    return question.reference.bounds[cost]


def _with_flags(scored: pd.DataFrame, members: pd.DataFrame, flags: pd.DataFrame) -> pd.DataFrame:
    """The doubts about a row's runs, and fewer seeds than the others."""
    told = members[["run_id", "model", "variant"]].join(flags, on="run_id")
    by_row = told.groupby(["model", "variant"])[["flags", "codes"]].agg(
        lambda lists: list(dict.fromkeys(text for texts in lists for text in texts))
    )
    found = by_row.loc[list(zip(scored["model"], scored["variant"], strict=True))]
    usual = int(scored["n"].max())
    few = [n < usual for n in scored["n"]]
    return scored.assign(
        flags=[
            texts + [f"{n} of {usual} seeds"] * less
            for texts, n, less in zip(found["flags"], scored["n"], few, strict=True)
        ],
        codes=[
            codes + ["fewer_seeds"] * less for codes, less in zip(found["codes"], few, strict=True)
        ],
    )


def _describe(
    name: str,
    members: pd.DataFrame,
    costs: Sequence[str],
    question: Question,
    bounds: Mapping[str, score.Bounds],
) -> dict[str, Any]:
    shared = quality.comparable(members, costs)
    common = [c for c in shared if members[c].nunique(dropna=False) == 1]
    texts = quality.as_text(members[common]).iloc[0].to_dict() if common else {}
    if question.reference is not None:
        _check_reference(name, texts, question)
    return {
        "comparison_set": name,
        "experiment": members["experiment"].iloc[0],
        "models": members[["model", "variant"]].drop_duplicates().shape[0],
        "runs": len(members),
        "fingerprint": _fingerprint(members, costs, question),
        "energy_source": _joined(members["energy_source"]),
        "shared": texts,
        "bounds": dict(bounds),
    }


def _fingerprint(members: pd.DataFrame, costs: Sequence[str], question: Question) -> str:
    """Twelve digits that change with any run, number or setting of the set."""
    rows = members.sort_values("run_id")[["run_id", PERFORMANCE, *costs]].to_numpy().tolist()
    settings = [
        question.resources,
        question.weights,
        question.alpha,
        question.normalisation,
        question.quantiles if question.normalisation == "robust" else None,
        None if question.reference is None else question.reference.as_dict()["bounds"],
    ]
    return hashlib.sha256(json.dumps([rows, settings]).encode()).hexdigest()[:12]


def _reference(sets: pd.DataFrame, question: Question) -> score.Reference:
    """Bounds of the first set with what they came from, for `--save-reference`."""
    first = sets.iloc[0]
    return score.Reference(
        first["bounds"],
        {
            "comparison_set": first["comparison_set"],
            "fingerprint": first["fingerprint"],
            "models": int(first["models"]),
            "runs": int(first["runs"]),
            "normalisation": question.normalisation,
            "shared": first["shared"],
        },
    )


def _check_reference(name: str, shared: Mapping[str, str], question: Question) -> None:
    assert question.reference is not None
    theirs = question.reference.origin.get("shared", {})
    differ = [
        f"{c} {theirs[c]} there, {shared.get(c, 'several')} here"
        for c in theirs
        if shared.get(c) != theirs[c]
    ]
    if differ and question.mixed != "allow":
        raise WrongUse(
            f"reference: it is of other conditions than {name} ({'; '.join(differ)}); choose "
            "--allow-mixed to use it all the same"
        )


def _joined(values: pd.Series[Any]) -> str:
    return " and ".join(sorted(values.fillna(quality.NOT_KNOWN).unique()))


# Notes -----------------------------------------------------------------------------------------


def _notes(
    found: pd.DataFrame, used: pd.DataFrame, costs: Sequence[str], question: Question
) -> list[str]:
    """What a reader of any output must know about all of it."""
    notes = []
    about_energy = quality.about_energy(costs)
    estimated = used["energy_source"].fillna("").str.contains("estimated")
    if about_energy and estimated.any():
        notes.append(
            f"the energy of {estimated.sum()} of {len(used)} runs is ESTIMATED, off by 40 % and "
            f"more; intervals take an error of {question.energy_error:.0%}"
        )
    imported = used["imported_from"].dropna().unique()
    if len(imported):
        notes.append(f"IMPORTED, not measured by pepr: {', '.join(imported)}")
    if "carbon_gco2e" in costs:
        notes += _carbon_notes(used, question)
    foreign = ~found["logged_by_pepr"]
    if foreign.any():
        unknown = [
            c
            for c in ("hardware", "energy_source", "precision", "batch_size", "image_size")
            if used[c].isna().any()
        ]
        notes.append(
            f"{foreign.sum()} of {len(found)} runs were not logged by pepr: "
            f"{', '.join(unknown)} are not known of all, so that differences there go unnoticed"
        )
    if used.groupby(["experiment", "model"]).size().max() == 1:
        notes.append(
            "one run per model: intervals hold the error of energy only, not that of training"
            if about_energy
            else "one run per model: intervals do not hold the error of training"
        )
    return notes


def _carbon_notes(used: pd.DataFrame, question: Question) -> list[str]:
    if question.intensity is not None:
        return [
            f"CO2e of all runs under {question.intensity.g_per_kwh:g} g/kWh "
            f"({question.intensity.source})"
        ]
    intensities = used["carbon_intensity_g_per_kwh"].dropna()
    if intensities.nunique() > 1:
        return [
            f"CO2e mixes grid intensities from {intensities.min():g} to {intensities.max():g} "
            "g/kWh with the models' cost; give --carbon-intensity or --country for one"
        ]
    return []
