"""From runs to PePR scores one can defend: what may be compared, scored with intervals. Pure."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from pepr_mlops import quality, score, stats
from pepr_mlops.carbon import Intensity
from pepr_mlops.errors import WorkFailed, WrongUse, nearest
from pepr_mlops.frame import column, label, metrics
from pepr_mlops.names import COMPARED, METRICS, PERFORMANCE, RESOURCES
from pepr_mlops.quality import Evidence
from pepr_mlops.spec import LATER

Mixed = Literal["refuse", "stratify", "allow"]
Intervals = Callable[..., pd.DataFrame]  # `stats.intervals`, or what stands for it

ENERGY_ERROR = 0.05  # relative standard deviation of a measured energy


@dataclass(frozen=True)
class Question:
    """What is asked of the runs.

    `performance` is the metric that is P, or None for what each run calls its performance.
    `resources` are letters of `names.RESOURCES`, columns or metrics. Without `weights` each
    resource has a score of its own; with them, summing to 1, there is one score of all. `mixed`
    says what to do with runs that differ in what a comparison set shares. `intensity` replaces
    each run's own grid intensity. `model_param` is the parameter that names the model. `draws` are
    those of the bootstrap; with none the intervals are missing.
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
    draws: int = 2000
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.resources:
            raise WrongUse(f"resource: name one or more of {', '.join(RESOURCES)} or a metric")
        if len(set(self.resources)) < len(self.resources):
            raise WrongUse(f"resource: {', '.join(self.resources)} names one twice")
        if (self.reference is None) == (self.normalisation == "reference"):
            raise WrongUse(
                "normalisation: reference and the saved bounds (--reference FILE) go together; "
                "give both or neither"
            )
        if not 0 <= self.energy_error < 1:
            raise WrongUse(
                f"energy_error: {self.energy_error:g} is not a relative error from 0 to below 1"
            )
        score.check_quantiles(self.quantiles)
        score.pepr(
            np.ones(1), np.zeros((1, len(self.resources))), weights=self.weights, alpha=self.alpha
        )


@dataclass(frozen=True)
class Comparison:
    """The answer.

    | frame | a row is | columns |
    | --- | --- | --- |
    | `scores` | a model in a comparison set by one score, best first | `comparison_set`, `resource` (letter or name of what it is scored by), `model`, `variant` (what tells rows of one model apart, or empty), `n` (runs averaged), `performance`, `performance_sd`, `cost`, `cost_sd` (missing where several are weighted; standard deviations over the runs), `R`, `score`, `ci_low`, `ci_high`, `rank`, `rank_low`, `rank_high`, `top_share`, `energy_source`, `flags` (texts), `codes` (a word for each) |
    | `costs` | a model in a comparison set by one resource | `comparison_set`, `resource`, `model`, `variant`, `cost`, `cost_sd`, `R` |
    | `runs` | a run that was found | `run_id`, `model`, `experiment`, `comparison_set`, `used`, `reasons` (why not), `flags`, `codes` |
    | `used` | a run that was scored | those of the frame of runs, `comparison_set`, `variant` |
    | `sets` | a comparison set | `comparison_set`, `experiment`, `models`, `runs`, `fingerprint`, `energy_source`, `shared` (what its runs have in common), `bounds` (`score.Bounds` by cost column) |

    `notes` go with every output. `reference` has the bounds of the first set.
    """  # noqa: E501

    scores: pd.DataFrame
    costs: pd.DataFrame
    runs: pd.DataFrame
    used: pd.DataFrame
    sets: pd.DataFrame
    notes: list[str]
    reference: score.Reference


@dataclass(frozen=True)
class Prepared:
    """Runs sorted into comparison sets, which `score_sets` can score in many ways.

    `question` says which runs, costs and sets these are; its weights, α, normalisation and errors
    do not matter yet. `judged` has a row for each run that was found, `members` the runs of each
    set by its name, with `comparison_set` and `variant`, and `shared` what they have in common.
    """

    question: Question
    costs: list[str]
    judged: pd.DataFrame
    members: dict[str, pd.DataFrame]
    shared: dict[str, dict[str, str]]
    notes: list[str]


def compare(
    runs: pd.DataFrame,
    question: Question,
    evidence: Evidence | None = None,
    intervals: Intervals = stats.intervals,
) -> Comparison:
    """Score runs of `query.load_runs`, each experiment by itself.

    Runs that cannot be compared are left out and doubtful ones flagged (`quality`), seeds are
    averaged per model, and costs are normalised over the models of one comparison set. `intervals`
    is asked for those of each set. Raises `WorkFailed` when nothing is left, and `WrongUse` for
    runs that differ in what a comparison set shares, with the groups and their sizes, unless
    `question.mixed` says what to do.
    """
    return score_sets(prepare(runs, question, evidence), question, intervals)


def prepare(runs: pd.DataFrame, question: Question, evidence: Evidence | None = None) -> Prepared:
    """Decide which runs may be compared with which, raising as `compare`."""
    chosen, costs = choose(runs, question)
    judged = judge(chosen, costs, question.strict, evidence)
    usable = chosen[judged["used"].to_numpy()]
    if usable.empty:
        remedy = _remedy(judged, runs)
        raise WorkFailed(f"no run can be compared: {tally(judged)}; `pepr runs` lists them{remedy}")
    _check_range(usable, costs)
    notes, members, shared = _notes(chosen, usable, costs, question), {}, {}
    for _, of_experiment in usable.groupby("experiment", sort=False):
        for name, rows, told in _comparison_sets(of_experiment, costs, question):
            notes += told
            common = _shared(rows, costs)
            differ = _other_than_reference(common, costs, question)
            if differ:
                if question.mixed != "allow":
                    raise WrongUse(
                        f"reference: it is of other conditions than {name} ({differ}); choose "
                        "--allow-mixed to use it all the same"
                    )
                notes.append(f"MIXED, as allowed: the reference is not of {name} ({differ})")
                name += " [MIXED reference]"
            if name in members:
                raise WrongUse(f"experiment: two sets are called {name}; score them one by one")
            members[name], shared[name] = rows.assign(comparison_set=name), common
    placed = pd.concat([rows["comparison_set"] for rows in members.values()])
    judged["comparison_set"] = placed  # by row: a run may be in two experiments
    return Prepared(question, costs, judged, members, shared, notes)


def _check_range(usable: pd.DataFrame, costs: Sequence[str]) -> None:
    """Raise `WrongUse` for what no mean over seeds may hide: P not a share, a negative cost."""
    for name, valid, hint in (
        (PERFORMANCE, usable[PERFORMANCE].between(0, 1), "in [0, 1]; give a share, not per cent"),
        *((cost, usable[cost] >= 0, "a cost from 0; name another") for cost in costs),
    ):
        if not valid.all():
            run = usable[~valid].iloc[0]
            more = f" (and {(~valid).sum() - 1} more runs)" if (~valid).sum() > 1 else ""
            raise WrongUse(
                f"{label(name)}: {run[name]:g} of run {run['run_id']} ({run['model']}){more} is "
                f"not {hint}"
            )


def score_sets(
    prepared: Prepared, question: Question, intervals: Intervals = stats.intervals
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


def inspect(
    runs: pd.DataFrame, question: Question, evidence: Evidence | None = None
) -> tuple[pd.DataFrame, list[str]]:
    """`Comparison.runs` without scoring, also where nothing can be compared, and notes.

    A note tells of runs that differ in what a comparison set shares, with the groups.
    """
    chosen, costs = choose(runs, question)
    judged = judge(chosen, costs, question.strict, evidence)
    usable = chosen[judged["used"].to_numpy()]
    notes = _notes(chosen, usable, costs, question)
    for experiment, members in usable.groupby("experiment", sort=False):
        differ = quality.mixed(members, quality.comparable(members, costs))
        if differ:
            names = quality.groups(members, differ)
            notes.append(f"{experiment} mixes {', '.join(differ)} ({quality.listed(names)})")
    return judged, notes


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


def choose(runs: pd.DataFrame, question: Question) -> tuple[pd.DataFrame, list[str]]:
    """The runs with `model`, `performance` and costs as asked for, and the columns of the costs.

    Raises `WrongUse` for names no run has and for a performance that is better when lower.
    """
    chosen = runs.copy(deep=False)  # pandas copies what is written to
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
    if question.performance not in (None, PERFORMANCE):
        metric = METRICS.get(question.performance)
        if metric is not None and metric.better != "higher":
            raise WrongUse(
                f"performance: {question.performance} is not better when higher; choose another"
            )
        if question.performance not in metrics(runs):
            raise WrongUse(
                f"performance: no run has the metric {question.performance!r}"
                f"{nearest(question.performance, metrics(runs)) or '.'} "
                f"Valid: {', '.join(metrics(runs)) or 'none'}"
            )
        chosen[PERFORMANCE] = runs[f"metrics.{question.performance}"]
        chosen["performance_metric"] = question.performance
    if question.intensity is not None:
        pue = chosen["pue"].fillna(1.0)
        chosen["carbon_gco2e"] = chosen["energy_wh"] / 1000 * question.intensity.g_per_kwh * pue
        chosen["carbon_intensity_g_per_kwh"] = question.intensity.g_per_kwh
    costs = [column(chosen, name) for name in question.resources]
    if PERFORMANCE in costs:
        raise WrongUse("resource: performance is P and no cost; name another")
    for name, cost in zip(question.resources, costs, strict=True):
        if costs.count(cost) > 1:
            raise WrongUse(f"resource: {name} is {label(cost)}, which another names too; drop one")
    return chosen, costs


def judge(
    chosen: pd.DataFrame, costs: Sequence[str], strict: bool, evidence: Evidence | None = None
) -> pd.DataFrame:
    """`Comparison.runs` but for the sets: a row for each of `chosen`, under the same index.

    Of a run that was repeated the newest counts that is not left out itself.
    """
    known = evidence or Evidence(energies=chosen)
    parts = []
    for _, of_experiment in chosen.groupby("experiment", sort=False):
        out = quality.left_out(of_experiment, costs)
        flags = quality.flagged(of_experiment, costs, known)
        if strict:
            barred = flags.assign(text="strict: " + flags["text"])
            out = pd.concat([out, barred[~barred["run_id"].isin(out["run_id"])]])
            flags = flags[~flags["run_id"].isin(barred["run_id"])]
        rest = of_experiment[~of_experiment["run_id"].isin(out["run_id"])]
        out = pd.concat([out, quality.repeated(rest)])
        rows = of_experiment[["run_id", "model", "experiment"]].copy()
        rows["used"] = ~rows["run_id"].isin(out["run_id"])
        rows["reasons"] = _lists(out, "text", rows)
        rows["flags"] = _lists(flags, "text", rows)
        rows["codes"] = _lists(pd.concat([out, flags]), "reason", rows)
        parts.append(rows)
    if not parts:
        columns = ["run_id", "model", "experiment", "used", "reasons", "flags", "codes"]
        return pd.DataFrame(columns=columns).astype({"used": "bool"})
    return pd.concat(parts).loc[chosen.index]


def _lists(found: pd.DataFrame, column: str, rows: pd.DataFrame) -> list[list[str]]:
    """For each row what was found about its run, without repetitions."""
    of: dict[str, dict[str, None]] = {}
    for run, text in zip(found["run_id"].tolist(), found[column].tolist(), strict=True):
        of.setdefault(run, {})[text] = None
    lists: dict[str, list[str]] = {run: list(texts) for run, texts in of.items()}
    nothing: list[str] = []  # one for all: tens of thousands would set off a search for garbage
    return [lists.get(run, nothing) for run in rows["run_id"].tolist()]


def _remedy(judged: pd.DataFrame, runs: pd.DataFrame) -> str:
    """What to ask for instead where names are all that is missing."""
    codes = {code for codes in judged["codes"] for code in codes}
    words = []
    if "no_model" in codes:
        names = [c.removeprefix("params.") for c in runs if c.startswith("params.")]
        words.append(f"--model-param names the model: {', '.join(names) or 'no parameters'}")
    if codes & {"no_cost", "no_performance"}:
        words.append(f"metrics there are: {', '.join(metrics(runs)) or 'none'}")
    return "".join(f"; {word}" for word in words)


def tally(judged: pd.DataFrame) -> str:
    """How many runs were found and left out, by the first reason of each."""
    out = judged[~judged["used"]]
    words = Counter(codes[0] for codes in out["codes"])
    listed = ", ".join(f"{n} {word.replace('_', ' ')}" for word, n in words.most_common())
    return f"{len(judged)} found, {len(out)} left out" + (f" ({listed})" if listed else "")


# Comparison sets -------------------------------------------------------------------------------


def _comparison_sets(
    runs: pd.DataFrame, costs: Sequence[str], question: Question
) -> list[tuple[str, pd.DataFrame, list[str]]]:
    """Name, runs and notes of each set of one experiment; `variant` tells rows of a model apart."""
    experiment = str(runs["experiment"].iloc[0])
    differ = quality.mixed(runs, quality.comparable(runs, costs))
    if not differ:
        return [(experiment, runs.assign(variant=_variants(runs, costs, [])), [])]
    names = quality.groups(runs, differ)
    told = f"{experiment} mixes {', '.join(differ)} ({quality.listed(names)})"
    if question.mixed == "refuse":
        raise WrongUse(
            f"experiment: {told}; choose --stratify for a score set of each, --allow-mixed to "
            "score them together, or other runs"
        )
    if question.mixed == "stratify":
        note = f"{experiment} is split by {', '.join(differ)}"
        return [
            (f"{experiment} [{name}]", rows.assign(variant=_variants(rows, costs, [])), [note])
            for name, rows in runs.groupby(names, sort=True)
        ]
    note = f"MIXED, as allowed: {told}; R compares unlike with unlike"
    name = f"{experiment} [MIXED {', '.join(differ)}]"
    return [(name, runs.assign(variant=_variants(runs, costs, differ)), [note])]


def _variants(runs: pd.DataFrame, costs: Sequence[str], differ: Sequence[str]) -> pd.Series[str]:
    """What tells rows of one model apart in a set, empty where nothing does.

    What the set mixes; a setting that is the cost; and, where it differs between runs of one
    model, the weights it started from and parameters of one's own: these are no repetitions that
    may be averaged.
    """
    own = runs["logged_by_pepr"]
    within = ["initial_weights", *quality.own_params(runs)]
    by = [
        *differ,
        *(c for c in costs if c in COMPARED and runs[c].nunique(dropna=False) > 1),
        *(c for c in within if (runs[own].groupby("model")[c].nunique(dropna=False) > 1).any()),
    ]
    if not by:
        return pd.Series("", runs.index, dtype="str")
    return quality.groups(runs, by)


def _score(
    members: pd.DataFrame, costs: Sequence[str], question: Question, intervals: Intervals
) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, score.Bounds], list[str]]:
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
        relative[cost] = score.normalise(mean, bounds[cost])
        parts.append(
            names.assign(
                comparison_set=name,
                resource=resource,
                cost=mean,
                cost_sd=spread[cost],
                R=relative[cost],
            )
        )
        clipped = score.outside(mean, bounds[cost])
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
                "score": score.pepr(
                    means[PERFORMANCE], shares, weights=weights, alpha=question.alpha
                ),
                "energy_source": energy_source.fillna(quality.NOT_KNOWN),
            }
        )
        error = {c: question.energy_error for c in columns if quality.about_energy([c])}
        drawn = values[[PERFORMANCE, *columns]].assign(model=by_row.ngroup())
        found = intervals(drawn, scoring, error=error, draws=question.draws, seed=question.seed)
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


def _bounds(cost: str, values: pd.Series[float], question: Question) -> score.Bounds:
    if question.reference is None:
        return score.bounds(values, question.normalisation, question.quantiles)
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
    bounds: Mapping[str, score.Bounds],
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


def _shared(members: pd.DataFrame, costs: Sequence[str]) -> dict[str, str]:
    """What the runs of a set have in common, as text; `several` where that is not one value."""
    compared = quality.comparable(members, costs)
    if "carbon_gco2e" in costs:
        compared.append("carbon_intensity_g_per_kwh")
    return quality.in_common(members, compared)


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


def _other_than_reference(here: Mapping[str, str], costs: Sequence[str], question: Question) -> str:
    """In what a set differs from that of the reference, in words; empty where in nothing."""
    if question.reference is None:
        return ""
    for cost in costs:
        if cost not in question.reference.bounds:
            raise WrongUse(
                f"reference: it has no bounds of {label(cost)}; valid: "
                f"{', '.join(map(label, question.reference.bounds))}"
            )
    there = question.reference.origin["shared"]
    if there.get("compile", quality.NOT_KNOWN) != quality.NOT_KNOWN:  # of jobs of this package
        there = {**LATER, **there}
    return "; ".join(
        f"{c} {there[c]} there, {here.get(c, quality.NOT_KNOWN)} here"
        for c in there
        if here.get(c) != there[c] or there[c] == "several"
    )


def _joined(values: pd.Series[Any]) -> str:
    return " and ".join(
        sorted({v if isinstance(v, str) else quality.NOT_KNOWN for v in values.unique()})
    )


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
            f"more; intervals take {question.energy_error:.0%} (--energy-error)"
        )
    imported = used["imported_from"].dropna().unique()
    if len(imported):
        notes.append(f"IMPORTED, not measured by pepr: {', '.join(imported)}")
    if "carbon_gco2e" in costs:
        notes += _carbon_notes(used, question)
    foreign = ~found["logged_by_pepr"]
    if foreign.any():
        values = quality.conditions(found[foreign], quality.comparable(found, costs))
        unknown = [c for c in values if (values[c] == quality.NOT_KNOWN).all()]
        notes.append(
            f"{foreign.sum()} of {len(found)} runs were not logged by pepr: their "
            f"{', '.join(unknown)} are not known, so that differences there go unnoticed, their "
            "power, counters and repetitions cannot be checked, and runs of one model are averaged "
            "whatever they differ in besides"
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
