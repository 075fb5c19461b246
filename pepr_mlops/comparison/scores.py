"""From comparison sets to PePR scores with intervals, ranks and flags. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from pepr_mlops.comparison import intervals as stats
from pepr_mlops.comparison import pepr
from pepr_mlops.comparison.conditions import NOT_KNOWN, about_energy
from pepr_mlops.comparison.question import Question
from pepr_mlops.comparison.runs import Evidence, label
from pepr_mlops.comparison.sets import Prepared, prepare
from pepr_mlops.names import PERFORMANCE

Intervals = Callable[..., pd.DataFrame]  # what stands for `stats.intervals`


@dataclass(frozen=True)
class Comparison:
    """The answer.

    | frame | a row is | columns |
    | --- | --- | --- |
    | `scores` | a model in a comparison set by one score, best first | `comparison_set`, `resource` (letter or name of what it is scored by), `model`, `variant` (what tells rows of one model apart, or empty), `n` (runs averaged), `performance`, `performance_sd`, `cost`, `cost_sd` (missing where several are weighted; standard deviations over the runs), `R`, `score`, `ci_low`, `ci_high`, `no_interval` (why they are missing, or empty), `rank`, `rank_low`, `rank_high`, `top_share`, `energy_source`, `flags` (texts), `codes` (a word for each) |
    | `costs` | a model in a comparison set by one resource | `comparison_set`, `resource`, `model`, `variant`, `cost`, `cost_sd`, `R` |
    | `runs` | a run that was found | `run_id`, `model`, `experiment`, `comparison_set`, `used`, `reasons` (why not), `flags`, `codes` |
    | `used` | a run that was scored | those of the frame of runs, `comparison_set`, `variant` |
    | `sets` | a comparison set | `comparison_set`, `experiment`, `models`, `runs`, `fingerprint`, `energy_source`, `shared` (what its runs have in common), `bounds` (`pepr.Bounds` by cost column) |

    `notes` go with every output. `reference` has the bounds of the first set.
    """  # noqa: E501

    scores: pd.DataFrame
    costs: pd.DataFrame
    runs: pd.DataFrame
    used: pd.DataFrame
    sets: pd.DataFrame
    notes: list[str]
    reference: pepr.Reference


def compare(
    runs: pd.DataFrame,
    question: Question,
    evidence: Evidence | None = None,
    intervals: Intervals | None = None,
) -> Comparison:
    """Score runs of `query.load_runs`, each experiment by itself.

    Runs that cannot be compared are left out and doubtful ones flagged (`checks`), seeds are
    averaged per model, and costs are normalised over the models of one comparison set. `intervals`
    is asked for those of each set. Raises `WorkFailed` when nothing is left, and `WrongUse` for
    runs that differ in what a comparison set shares, with the groups and their sizes, unless
    `question.mixed` says what to do.

    >>> from pepr_mlops import Question, compare, load_runs
    >>> found = compare(load_runs("digits"), Question(resources=("E", "T")))
    >>> found.scores.groupby("model")["resource"].agg(list).to_dict()
    {'test_efficientnet': ['E', 'T'], 'test_resnet': ['E', 'T']}
    """
    return score_sets(prepare(runs, question, evidence), question, intervals)


def score_sets(
    prepared: Prepared, question: Question, intervals: Intervals | None = None
) -> Comparison:
    """Score what was prepared for the same resources, by this weighting and normalisation."""
    if question.resources != prepared.question.resources:
        raise ValueError("the runs were prepared for other resources")
    costs, judged, notes = prepared.costs, prepared.judged, list(prepared.notes)
    scores, parts, sets = [], [], []
    for name, members in prepared.members.items():
        scored, of_resources, bounds, clipped = _score(members, costs, question, intervals)
        notes += clipped
        scores.append(_with_flags(scored, members, judged.loc[members.index, ["flags", "codes"]]))
        parts.append(of_resources)
        common = {"shared": prepared.shared[name]}
        sets.append(_describe(name, members, costs, question, bounds) | common)
    described = pd.DataFrame(sets)
    alone = int((described["models"] == 1).sum())
    if alone and question.reference is None:
        notes.append(
            f"{alone} of {len(described)} sets have one model, whose R is 0 for want of more"
        )
    return Comparison(
        pd.concat(scores).reset_index(drop=True),
        pd.concat(parts).reset_index(drop=True),
        judged.reset_index(drop=True),
        pd.concat(prepared.members.values()),
        described,
        list(dict.fromkeys(notes)),
        _reference(described, question),
    )


def means(comparison: Comparison, columns: Mapping[str, str]) -> pd.DataFrame:
    """Means over the runs of each row of `scores`, by `comparison_set`, `model` and `variant`.

    `columns` are columns of the frame of runs by the names they get. A mean is missing where any
    of the runs has no finite value.
    """
    keys = ["comparison_set", "model", "variant"]
    chosen = comparison.used[keys].assign(
        **{
            name: comparison.used[column].astype(float).replace([np.inf, -np.inf], np.nan)
            for name, column in columns.items()
        }
    )
    return chosen.groupby(keys, sort=False).mean(skipna=False).reset_index()


def _score(
    members: pd.DataFrame, costs: Sequence[str], question: Question, intervals: Intervals | None
) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, pepr.Bounds], list[str]]:
    """Rows of `Comparison.scores` and `.costs` of one set, its bounds, notes on clipped costs."""
    name = members["comparison_set"].iloc[0]
    values = members[["model", "variant", "energy_source", PERFORMANCE, *costs]].copy()
    row = ["model", "variant"]
    by_row = values.groupby(row)
    names = by_row.size().index.to_frame()
    sources = values.drop_duplicates([*row, "energy_source"]).groupby(row)["energy_source"]
    energy_source = sources.agg(_joined) if len(sources.obj) > len(names) else sources.first()
    means, spread = by_row[[PERFORMANCE, *costs]].mean(), by_row[[PERFORMANCE, *costs]].std(ddof=1)
    bounds, notes, relative, parts = {}, [], {}, []
    for resource, cost in zip(question.resources, costs, strict=True):
        mean = means[cost].rename(label(cost))
        bounds[cost] = _bounds(cost, mean, question)
        relative[cost] = pepr.normalise(mean, bounds[cost])
        parts.append(
            names.assign(
                comparison_set=name,
                resource=resource,
                cost=mean,
                cost_sd=spread[cost],
                R=relative[cost],
            )
        )
        clipped = pepr.outside(mean, bounds[cost])
        if clipped and question.normalisation != "robust":
            notes.append(
                f"{name}: {clipped} of {len(mean)} models cost {label(cost)} outside the "
                "reference and are taken at its edge"
            )
    tables = []
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
                "model": names["model"],
                "variant": names["variant"],
                "n": by_row.size(),
                "performance": means[PERFORMANCE],
                "performance_sd": spread[PERFORMANCE],
                "cost": means[columns[0]] if len(columns) == 1 else np.nan,
                "cost_sd": spread[columns[0]] if len(columns) == 1 else np.nan,
                "R": shares.mul(weights, axis=1).sum(axis=1),
                "score": pepr.pepr(
                    means[PERFORMANCE], shares, weights=weights, alpha=question.alpha
                ),
                "energy_source": energy_source.fillna(NOT_KNOWN),
            }
        )
        error = {c: question.energy_error for c in columns if about_energy([c])}
        drawn = values[[PERFORMANCE, *columns]].assign(model=by_row.ngroup())
        draw = intervals or stats.intervals
        found = draw(drawn, scoring, error=error, draws=question.draws, seed=question.seed)
        table = table.join(found.set_index(names.index))
        table["rank"] = table["score"].rank(ascending=False, method="min").astype(int)
        tables.append(table.sort_values(["rank", "performance"], ascending=[True, False]))
    return pd.concat(tables), pd.concat(parts), bounds, notes


def _scored_by(
    costs: Sequence[str], question: Question
) -> list[tuple[str, list[str], list[float]]]:
    """Name, cost columns and weights of each score that is asked for."""
    if question.weights is None:
        return [(n, [c], [1.0]) for n, c in zip(question.resources, costs, strict=True)]
    return [("+".join(question.resources), list(costs), list(question.weights))]


def _bounds(cost: str, values: pd.Series[float], question: Question) -> pepr.Bounds:
    if question.reference is None:
        return pepr.bounds(values, question.normalisation, question.quantiles)
    return question.reference.bounds[cost]


def _with_flags(scored: pd.DataFrame, members: pd.DataFrame, doubts: pd.DataFrame) -> pd.DataFrame:
    """The doubts about a row's runs, one row for each of `members`, and fewer seeds than others."""
    # dictionaries keep the order and drop what is said twice; groupby.agg takes ten times as long
    told: dict[tuple[str, str], tuple[dict[str, None], dict[str, None]]] = {}
    keys = zip(members["model"].tolist(), members["variant"].tolist(), strict=True)
    for key, flags, codes in zip(keys, doubts["flags"], doubts["codes"], strict=True):
        of_row = told.setdefault(key, ({}, {}))
        of_row[0].update(dict.fromkeys(flags))
        of_row[1].update(dict.fromkeys(codes))
    found = [told[key] for key in zip(scored["model"], scored["variant"], strict=True)]
    usual = int(scored["n"].max())
    few = [n < usual for n in scored["n"]]
    return scored.assign(
        flags=[
            [*flags, *[f"{n} of {usual} seeds"] * less]
            for (flags, _), n, less in zip(found, scored["n"], few, strict=True)
        ],
        codes=[
            [*codes, *["fewer_seeds"] * less] for (_, codes), less in zip(found, few, strict=True)
        ],
    )


def _describe(
    name: str,
    members: pd.DataFrame,
    costs: Sequence[str],
    question: Question,
    bounds: Mapping[str, pepr.Bounds],
) -> dict[str, Any]:
    return {
        "comparison_set": name,
        "experiment": members["experiment"].iloc[0],
        "models": members[["model", "variant"]].drop_duplicates().shape[0],
        "runs": len(members),
        "fingerprint": _fingerprint(members, costs, question),
        "energy_source": _joined(members["energy_source"]),
        "bounds": dict(bounds),
    }


def _fingerprint(members: pd.DataFrame, costs: Sequence[str], question: Question) -> str:
    """Twelve digits that change with any run, number or setting of the set."""
    columns = ["run_id", "model", "variant", PERFORMANCE, *costs]
    ordered = members[columns].sort_values("run_id")
    rows = list(zip(*(ordered[c].tolist() for c in columns), strict=True))
    settings = [
        question.resources,
        question.weights,
        question.alpha,
        question.normalisation,
        question.quantiles if question.normalisation == "robust" else None,
        None if question.reference is None else question.reference.as_dict()["bounds"],
    ]
    return hashlib.sha256(json.dumps([rows, settings]).encode()).hexdigest()[:12]


def _reference(sets: pd.DataFrame, question: Question) -> pepr.Reference:
    """Bounds of the first set with what they came from, for `--save-reference`."""
    first = sets.iloc[0]
    return pepr.Reference(
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


def _joined(values: pd.Series[Any]) -> str:
    return " and ".join(sorted({v if isinstance(v, str) else NOT_KNOWN for v in values.unique()}))
