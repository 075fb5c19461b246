"""From comparison sets to PePR scores with intervals, ranks and flags. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from pepr_mlops.comparison import pepr
from pepr_mlops.comparison.conditions import NOT_KNOWN, comparable, mixed
from pepr_mlops.comparison.draws import Draws, error_notes
from pepr_mlops.comparison.intervals import Scoring, intervals, not_drawn
from pepr_mlops.comparison.notes import Explained
from pepr_mlops.comparison.question import Question
from pepr_mlops.comparison.runs import Evidence, column, label
from pepr_mlops.comparison.sampling import Knowledge, draws_of
from pepr_mlops.comparison.sets import Prepared, prepare
from pepr_mlops.errors import WrongUse
from pepr_mlops.names import PERFORMANCE, RESOURCES


@dataclass(frozen=True)
class Comparison:
    """The answer, in frames:

    - `scores`: a row is a model in a comparison set by one score, best first. `comparison_set`,
      `resource` (letter or name of what it is scored by), `model`, `variant` (what distinguishes
      rows of one model, or empty), `n` (runs averaged, the folds of a cross-validation being one),
      `performance`, `performance_sd`, `p_low`, `p_high`, `cost`, `cost_sd` (missing where several
      are weighted; standard deviations over the runs), `R`, `score`, `ci_low`, `ci_high`,
      `no_interval` (why they are missing, or empty), `rank`, `rank_low`, `rank_high`, `top_share`,
      `energy_source`, `flags` (texts), `codes` (a word for each).
    - `costs`: a row is a model in a comparison set by one resource. `comparison_set`, `resource`,
      `model`, `variant`, `cost`, `cost_sd`, `R`.
    - `runs`: a row is a run that was found. `run_id`, `model`, `experiment`, `comparison_set`,
      `used`, `reasons` (why not), `flags`, `codes`.
    - `used`: a row is a run that was scored, or the folds of a cross-validation. The columns of the
      frame of runs, `fold_runs` (of `folds.pooled`), `comparison_set`, `variant`.
    - `sets`: a row is a comparison set. `comparison_set`, `experiment`, `models`, `runs`,
      `fingerprint`, `energy_source`, `shared` (what its runs have in common), `bounds`
      (`pepr.Bounds` by cost column).

    `notes` belong to every output. `reference` has the bounds of the first set. `draws` are those
    of each set, and `known` what they were made from.
    """

    scores: pd.DataFrame
    costs: pd.DataFrame
    runs: pd.DataFrame
    used: pd.DataFrame
    sets: pd.DataFrame
    notes: list[str]
    reference: pepr.Reference
    draws: Mapping[str, Draws]
    known: Knowledge

    def drawn(self, comparison_set: str) -> Draws:
        """The draws of a set. Raises `WrongUse` where there are none."""
        if comparison_set not in self.draws:
            raise WrongUse("draws: 0 leaves the errors unknown that this needs; give 2000")
        return self.draws[comparison_set]


def compare(runs: pd.DataFrame, question: Question, evidence: Evidence | None = None) -> Comparison:
    """Score runs of `load_runs`, each experiment by itself.

    Runs that cannot be compared are left out and doubtful ones flagged (`checks`), seeds are
    averaged per model, and costs are normalised over the models of one comparison set. Raises
    `WorkFailed` when no run is left, and `WrongUse` for runs that differ in what a comparison set
    shares, with the groups and their sizes, unless `question.mixed` allows it.

    >>> from pepr_mlops import Question, compare, load_runs
    >>> found = compare(load_runs("digits"), Question(resources=("E", "T")))
    >>> found.scores.groupby("model")["resource"].agg(list).to_dict()
    {'test_efficientnet': ['E', 'T'], 'test_resnet': ['E', 'T']}
    """
    return score_sets(prepare(runs, question, evidence), question)


def score_sets(prepared: Prepared, question: Question) -> Comparison:
    """Score what was prepared for the same resources, by this weighting and normalisation."""
    if question.resources != prepared.question.resources:
        raise ValueError("the runs were prepared for other resources")
    costs, judged, notes = prepared.costs, prepared.judged, list(prepared.notes)
    if question.weights is None:
        scored_by = [(n, [c], [1.0]) for n, c in zip(question.resources, costs, strict=True)]
    else:
        scored_by = [("+".join(question.resources), costs, list(question.weights))]
    scores, parts, sets = [], [], []
    draws: dict[str, Draws] = {}
    for name, members in prepared.members.items():
        rows = _averaged(members, costs, question)
        notes += [f"{name}: {note}" for note in _clipped(rows, question)]
        if question.draws:
            draws[name] = draws_of(members, costs, question, prepared.known)
            notes += [Explained(f"{name}: {note}") for note in error_notes(draws[name])]
        scored = pd.concat(_scored(rows, *by, question, draws.get(name)) for by in scored_by)
        row = prepared.row[prepared.row.isin(members.index)]  # several runs, where they are folds
        texts = judged.loc[row.index, ["flags", "codes"]]
        scores.append(_with_flags(scored, members.loc[row], texts))
        parts += [
            rows.by(resource).assign(cost=rows.mean[c], cost_sd=rows.spread[c], R=rows.relative[c])
            for resource, c in zip(question.resources, costs, strict=True)
        ]
        sets.append(
            {
                "comparison_set": name,
                "experiment": members["experiment"].iloc[0],
                "models": len(rows.n),
                "runs": len(row),
                "fingerprint": _fingerprint(members, costs, question),
                "energy_source": _joined(members["energy_source"]),
                "bounds": rows.bounds,
                "shared": prepared.shared[name],
            }
        )
    described = pd.DataFrame(sets)
    alone = int((described["models"] == 1).sum())
    if alone and question.reference is None:
        notes.append(
            Explained(
                f"{alone} of {len(described)} sets {'has' if alone == 1 else 'have'} a single "
                "model, whose R is 0 since there is no other"
            )
        )
    return Comparison(
        pd.concat(scores).reset_index(drop=True),
        pd.concat(parts).reset_index(drop=True),
        judged.reset_index(drop=True),
        pd.concat(prepared.members.values()),
        described,
        list(dict.fromkeys(notes)),
        _reference(described, question),
        draws,
        prepared.known,
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


def other_costs(comparison: Comparison, question: Question) -> list[str]:
    """Those of E, M, T and C that were not requested but are known for every run.

    A resource that runs of one set measured in different ways is left out.
    """
    used = comparison.used
    found = []
    for name in ("E", "M", "T", "C"):
        cost = RESOURCES[name].column
        requested = [column(used, r) for r in question.resources]
        if cost in requested or not np.isfinite(used[cost].astype(float)).all():
            continue
        if question.reference is not None and cost not in question.reference.bounds:
            continue
        alike = set(comparable([cost])) - set(comparable(requested))
        if not any(mixed(rows, sorted(alike)) for _, rows in used.groupby("comparison_set")):
            found.append(name)
    return found


@dataclass(frozen=True)
class _Rows:
    """The models of one set, a row for each and its variant: means and standard deviations of P
    and costs by column, the bounds of each cost and R by them."""

    names: pd.DataFrame
    n: pd.Series[int]
    energy_source: pd.Series[str]
    mean: pd.DataFrame
    spread: pd.DataFrame
    bounds: dict[str, pepr.Bounds]
    relative: pd.DataFrame

    def by(self, resource: str) -> pd.DataFrame:
        """The columns that name a row of `Comparison.scores` and `.costs`."""
        return self.names.assign(resource=resource)[
            ["comparison_set", "resource", "model", "variant"]
        ]


def _averaged(members: pd.DataFrame, costs: Sequence[str], question: Question) -> _Rows:
    keys, numbers = ["model", "variant"], [PERFORMANCE, *costs]
    runs = members[[*keys, "energy_source", *numbers]]
    by_row = runs.groupby(keys)
    n = by_row.size()
    sources = runs.drop_duplicates([*keys, "energy_source"]).groupby(keys)["energy_source"]
    source = sources.agg(_joined) if len(sources.obj) > len(n) else sources.first()
    mean = by_row[numbers].mean()
    bounds = {
        c: pepr.bounds(mean[c], question.normalisation, question.quantiles)
        if question.reference is None
        else question.reference.bounds[c]
        for c in costs
    }
    return _Rows(
        names=n.index.to_frame().assign(comparison_set=members["comparison_set"].iloc[0]),
        n=n,
        energy_source=source.fillna(NOT_KNOWN),
        mean=mean,
        spread=by_row[numbers].std(ddof=1),
        bounds=bounds,
        relative=pd.DataFrame({c: pepr.normalise(mean[c], bounds[c]) for c in costs}),
    )


def _clipped(rows: _Rows, question: Question) -> list[str]:
    """Notes on costs outside the bounds."""
    if question.normalisation == "robust":
        return []
    found = {c: pepr.outside(rows.mean[c], bounds) for c, bounds in rows.bounds.items()}
    return [
        f"{n} of {len(rows.n)} models cost {label(cost)} outside the reference and are taken at "
        "its edge"
        for cost, n in found.items()
        if n
    ]


def _scored(
    rows: _Rows,
    by: str,
    costs: list[str],
    weights: list[float],
    question: Question,
    drawn: Draws | None,
) -> pd.DataFrame:
    """Rows of `Comparison.scores` by the score that is called `by`, best first."""
    alone = costs[0] if len(costs) == 1 else None
    relative = rows.relative[costs]
    p = rows.mean[PERFORMANCE]
    table = rows.by(by).assign(
        n=rows.n,
        performance=p,
        performance_sd=rows.spread[PERFORMANCE],
        cost=rows.mean[alone] if alone else np.nan,
        cost_sd=rows.spread[alone] if alone else np.nan,
        R=relative.mul(weights, axis=1).sum(axis=1),
        score=pepr.pepr(p, relative, weights=weights, alpha=question.alpha),
        energy_source=rows.energy_source,
    )
    bounds = rows.bounds if question.reference is not None else None
    scoring = Scoring(
        costs, weights, question.normalisation, question.alpha, question.quantiles, bounds
    )
    found = not_drawn(table.index) if drawn is None else intervals(drawn, scoring)
    table = table.join(found)
    table["rank"] = table["score"].rank(ascending=False, method="min").astype(int)
    return table.sort_values(["rank", "performance"], ascending=[True, False])


def _with_flags(scored: pd.DataFrame, members: pd.DataFrame, judged: pd.DataFrame) -> pd.DataFrame:
    """The flags of a row's runs, one row of `judged` for each of `members`, and of fewer seeds."""
    # dictionaries have an order and no repetitions; groupby.agg takes ten times as long
    flags: dict[tuple[str, str], dict[str, None]] = {}
    codes: dict[tuple[str, str], dict[str, None]] = {}
    keys = zip(members["model"].tolist(), members["variant"].tolist(), strict=True)
    for key, texts, words in zip(keys, judged["flags"], judged["codes"], strict=True):
        flags.setdefault(key, {}).update(dict.fromkeys(texts))
        codes.setdefault(key, {}).update(dict.fromkeys(words))
    usual = int(scored["n"].max())
    rows = list(zip(scored["model"], scored["variant"], strict=True))
    for key, n in zip(rows, scored["n"], strict=True):
        if n < usual:
            flags[key][f"{n} of {usual} seeds"] = None
            codes[key]["fewer_seeds"] = None
    return scored.assign(flags=[[*flags[k]] for k in rows], codes=[[*codes[k]] for k in rows])


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
    """Bounds of the first set with their origin, for `--save-reference`."""
    first = sets.iloc[0]
    names = ("comparison_set", "fingerprint", "shared")
    origin = {name: first[name] for name in names} | {"normalisation": question.normalisation}
    counts = {name: int(first[name]) for name in ("models", "runs")}
    return pepr.Reference(first["bounds"], origin | counts)


def _joined(values: pd.Series[Any]) -> str:
    return " and ".join(sorted({v if isinstance(v, str) else NOT_KNOWN for v in values.unique()}))
