"""Which runs are compared with which: judged one by one, then sorted into comparison sets. Pure."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from pepr_mlops.comparison.checks import flagged, left_out, repeated
from pepr_mlops.comparison.conditions import (
    NOT_KNOWN,
    about_energy,
    comparable,
    conditions,
    groups,
    in_common,
    listed,
    mixed,
    of_earlier_jobs,
    own_params,
    places,
)
from pepr_mlops.comparison.folds import impossible, pooled
from pepr_mlops.comparison.inference import Use
from pepr_mlops.comparison.notes import notes_on, same_ranking
from pepr_mlops.comparison.predictions import Predictions
from pepr_mlops.comparison.question import Question, choose
from pepr_mlops.comparison.runs import Evidence, label, metrics
from pepr_mlops.comparison.sampling import Knowledge
from pepr_mlops.comparison.words import CONDITIONS, all_of, left_out_words
from pepr_mlops.errors import WorkFailed, WrongUse
from pepr_mlops.names import COMPARED, PERFORMANCE

_MOST_NAMED = 4  # conditions in a message


class Mixed(WrongUse):
    """The runs of an experiment differ in what a comparison set shares."""


@dataclass(frozen=True)
class Prepared:
    """Runs sorted into comparison sets, which `score_sets` can score in many ways.

    `question` says which runs, costs and sets these are; its weights, α, normalisation and errors
    do not matter yet. `judged` has a row for each run that was found, `members` the runs of each
    set by its name, with `comparison_set` and `variant`, where the folds of a cross-validation are
    one (`folds`), `row` the index in `members` of each run that is used, by its index in `judged`,
    `shared` what they have in common, and `known` what is known about their errors.
    """

    question: Question
    costs: list[str]
    judged: pd.DataFrame
    row: pd.Series[Any]
    members: dict[str, pd.DataFrame]
    shared: dict[str, dict[str, str]]
    notes: list[str]
    known: Knowledge


def prepare(runs: pd.DataFrame, question: Question, evidence: Evidence | None = None) -> Prepared:
    """Decide which runs may be compared with which, raising as `compare`."""
    chosen, costs = choose(runs, question)
    judged = judge(chosen, costs, question.strict, evidence, question.drop, question.use)
    usable = chosen[judged["used"].to_numpy()]
    if usable.empty:
        why, remedy = _most_frequent_error(chosen), _remedy(judged, runs, costs)
        raise WorkFailed(
            f"no run can be compared: {tally(judged)}{why}; `pepr runs` lists them{remedy}"
        )
    found = pooled(usable, evidence or Evidence())
    _check_range(found.runs, costs)
    notes, members, shared = notes_on(chosen, usable, costs, question), {}, {}
    for _, of_experiment in found.runs.groupby("experiment", sort=False):
        for name, rows, more in _comparison_sets(of_experiment, costs, question):
            notes += more
            intensity = ["carbon_intensity_g_per_kwh"] if "carbon_gco2e" in costs else []
            common = in_common(rows, [*comparable(costs), *intensity])
            differ = _other_than_reference(common, costs, question)
            if differ:
                if question.mixed != "allow":
                    raise WrongUse(
                        f"reference: it is of other conditions than {name} ({differ}); choose "
                        "--allow-mixed to use it all the same, or --save-reference to write one of "
                        "these runs"
                    )
                notes.append(
                    f"the reference is of other conditions than {name}, as allowed ({differ})"
                )
                name += " [MIXED reference]"
            if name in members:
                raise WrongUse(f"experiment: two sets are called {name}; score them one by one")
            if about_energy(costs):
                notes += same_ranking(name, rows)
            members[name], shared[name] = rows.assign(comparison_set=name), common
    placed = pd.concat([rows["comparison_set"] for rows in members.values()])
    judged["comparison_set"] = found.row.map(placed)  # by row: a run may be in two experiments
    known = _known(judged, found.evidence)
    return Prepared(question, costs, judged, found.row, members, shared, notes, known)


def _known(judged: pd.DataFrame, evidence: Evidence) -> Knowledge:
    doubted = judged["codes"].map(lambda codes: "predictions" in codes).astype(bool)
    doubtful = frozenset(judged.loc[doubted, "run_id"])
    predictions = {
        run_id: found
        for run_id, found in evidence.predictions.items()
        if run_id not in doubtful and isinstance(found, Predictions)
    }
    return Knowledge(predictions, doubtful, evidence.spread)


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


def inspect(
    runs: pd.DataFrame, question: Question, evidence: Evidence | None = None
) -> tuple[pd.DataFrame, list[str]]:
    """`Comparison.runs` without scoring, also where nothing can be compared, and notes.

    Runs that differ in what a comparison set shares are in a note, with their groups.
    """
    chosen, costs = choose(runs, question)
    judged = judge(chosen, costs, question.strict, evidence, question.drop, question.use)
    usable = chosen[judged["used"].to_numpy()]
    notes = notes_on(chosen, usable, costs, question)
    for _, members in usable.groupby("experiment", sort=False):
        differ = mixed(members, comparable(costs))
        if differ:
            notes.append(_mixes(members, differ))
    return judged, notes


def judge(
    chosen: pd.DataFrame,
    costs: Sequence[str],
    strict: bool,
    evidence: Evidence | None = None,
    drop: Collection[str] = (),
    use: Use | None = None,
) -> pd.DataFrame:
    """`Comparison.runs` but for the sets: a row for each of `chosen`, under the same index.

    With a `use` runs are flagged for what is doubtful about the energy of use, too.
    `strict` leaves out every flagged run, `drop` those with one of these flags. Of a run that was
    repeated the newest counts that is not left out itself, and folds count together or not at all.
    """
    known = evidence or Evidence(energies=chosen, twins=chosen)
    parts = []
    for _, of_experiment in chosen.groupby("experiment", sort=False):
        out = left_out(of_experiment, costs)
        flags = flagged(of_experiment, [*costs, *([] if use is None else [use.column])], known)
        barred = flags if strict else flags[flags["reason"].isin(drop)]
        if len(barred):
            barred = barred.assign(text=("strict: " if strict else "dropped: ") + barred["text"])
            out = pd.concat([out, barred[~barred["run_id"].isin(out["run_id"])]])
            flags = flags[~flags["run_id"].isin(barred["run_id"])]
        rest = of_experiment[~of_experiment["run_id"].isin(out["run_id"])]
        out = pd.concat([out, repeated(rest)])
        doubted = flags.loc[flags["reason"] == "predictions", "run_id"]
        out = pd.concat([out, impossible(of_experiment, out["run_id"], doubted, costs, known)])
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
    by_run: dict[str, dict[str, None]] = {}
    for run, text in zip(found["run_id"].tolist(), found[column].tolist(), strict=True):
        by_run.setdefault(run, {})[text] = None
    lists = {run: list(texts) for run, texts in by_run.items()}
    nothing: list[str] = []  # one for all: tens of thousands would start the garbage collector
    return [lists.get(run, nothing) for run in rows["run_id"].tolist()]


def _remedy(judged: pd.DataFrame, runs: pd.DataFrame, costs: Sequence[str]) -> str:
    """Which options help where only names are missing."""
    codes = {code for codes in judged["codes"] for code in codes}
    words = []
    if "no_model" in codes:
        names = [c.removeprefix("params.") for c in runs if c.startswith("params.")]
        words.append(f"--model-param names the model: {', '.join(names) or 'no parameters'}")
    if "no_cost" in codes and "carbon_gco2e" in costs:
        words.append("--country or --carbon-intensity gives CO2e from energy")
    elif codes & {"no_cost", "no_performance"}:
        words.append(f"metrics there are: {', '.join(metrics(runs)) or 'none'}")
    return "".join(f"; {word}" for word in words)


def _most_frequent_error(runs: pd.DataFrame) -> str:
    """The error of the reason that most of the runs without a result have, with its remedy, or
    nothing."""
    failed = runs[runs["reason"].notna() & (runs["status"] != "FINISHED")]
    if failed.empty:
        return ""
    errors = failed.loc[failed["reason"] == failed["reason"].mode()[0], "error"].dropna()
    return f"; the most frequent error: {errors.iloc[0]}" if len(errors) else ""


def tally(judged: pd.DataFrame) -> str:
    """How many runs were found and left out, by the first reason of each."""
    why = left_out_counts(judged[~judged["used"]])
    n = len(judged) - int(judged["used"].sum())
    return f"{len(judged)} found, {n} left out" + (f" ({why})" if why else "")


def left_out_counts(out: pd.DataFrame) -> str:
    """How many of the runs that are left out have each first reason: `2 killed; 1 cost not
    known`."""
    firsts = zip(out["codes"], out["reasons"], strict=True)
    words = Counter(left_out_words(codes[0], texts[0]) for codes, texts in firsts)
    ordered = sorted(words.items(), key=lambda one: (-one[1], one[0]))
    return "; ".join(f"{n} {word}" for word, n in ordered)


def _comparison_sets(
    runs: pd.DataFrame, costs: Sequence[str], question: Question
) -> list[tuple[str, pd.DataFrame, list[str]]]:
    """Name, runs and notes of each set of one experiment; `variant` names a row of a model."""
    experiment = str(runs["experiment"].iloc[0])
    differ = mixed(runs, comparable(costs))
    if not differ:
        return [(experiment, runs.assign(variant=_variants(runs, costs, [])), [])]
    if question.mixed == "refuse":
        raise Mixed(
            f"experiment: {_mixes(runs, differ)}; choose --stratify for a score set of each, "
            f"{_of_largest(runs, differ)} for the largest, or --allow-mixed to score them together"
        )
    if question.mixed == "stratify":
        note = (
            f"The runs of {experiment} differ in {all_of(_named(differ))}, so that each group of "
            f"alike runs is scored by itself{_data(runs)}"
        )
        return [
            (f"{experiment} [{name}]", rows.assign(variant=_variants(rows, costs, [])), [note])
            for name, rows in runs.groupby(groups(runs, differ), sort=True)
        ]
    note = f"{_mixes(runs, differ)}, as allowed: compare their costs with care"
    name = f"{experiment} [MIXED {', '.join(differ)}]"
    return [(name, runs.assign(variant=_variants(runs, costs, differ)), [note])]


def _mixes(runs: pd.DataFrame, differ: Sequence[str]) -> str:
    """The first conditions in which the runs of an experiment differ, and how many share each."""
    shown, more = differ[:_MOST_NAMED], len(differ) - _MOST_NAMED
    names = ", ".join(shown) + (f" and {more} more" if more > 0 else "")
    sizes = listed(groups(runs, shown))
    return f"{runs['experiment'].iloc[0]} mixes {names} ({sizes}){_data(runs)}"


def _named(differ: Sequence[str]) -> list[str]:
    """Conditions in words."""
    return [CONDITIONS.get(c, c.rpartition(".")[2].replace("_", " ")) for c in differ]


def _of_largest(runs: pd.DataFrame, differ: Sequence[str]) -> str:
    """The options that choose the largest group."""
    rows = conditions(runs, differ).astype("str")
    largest = rows.value_counts().index[0]
    options = []
    for name, value in zip(differ, largest, strict=True):
        if rows[name].nunique() > 1:  # the options so far leave several groups
            rows = rows[rows[name] == value]
            options.append(f"--where {shlex.quote(f'{name}={value}')}")
    return " ".join(options)


def _data(runs: pd.DataFrame) -> str:
    """Where the data of each digest were and when they were last used, and how to identify the data
    of other runs; nothing where all are the same."""
    if runs["data_digest"].nunique(dropna=False) == 1:
        return ""
    texts = [
        f"{digest} is {' or '.join(places(rows))} (last {rows['start_time'].max():%Y-%m-%d %H:%M})"
        for digest, rows in runs.groupby("data_digest")
    ]
    if runs["data_digest"].isna().any():
        name = runs["experiment"].iloc[0]
        texts.append(f"`pepr data identify --experiment {name}` finds out which data others used")
    return f"; {', '.join(texts)}"


def _variants(runs: pd.DataFrame, costs: Sequence[str], differ: Sequence[str]) -> pd.Series[str]:
    """What distinguishes rows of one model in a set, empty where nothing does.

    What the set mixes; a setting that is the cost; and, where it differs between runs of one
    model, the initial weights and parameters of one's own code: such runs are not averaged.
    """
    ours = runs[runs["logged_by_pepr"]]
    within = ["initial_weights", *own_params(runs)]
    columns = [
        *differ,
        *(c for c in costs if c in COMPARED and runs[c].nunique(dropna=False) > 1),
        *(c for c in within if (ours.groupby("model")[c].nunique(dropna=False) > 1).any()),
    ]
    return groups(runs, columns) if columns else pd.Series("", runs.index, dtype="str")


def _other_than_reference(here: Mapping[str, str], costs: Sequence[str], question: Question) -> str:
    """In what a set differs from that of the reference, as text; empty where in nothing."""
    if question.reference is None:
        return ""
    for cost in costs:
        if cost not in question.reference.bounds:
            raise WrongUse(
                f"reference: it has no bounds of {label(cost)}; valid: "
                f"{', '.join(map(label, question.reference.bounds))}"
            )
    there = question.reference.origin["shared"]
    if there.get("compile", NOT_KNOWN) != NOT_KNOWN:  # of jobs of this package
        there = {**{c: text for c, text in of_earlier_jobs().items() if c in here}, **there}
    names = {**there, **here} if there else {}  # bounds by hand are of no conditions
    of_jobs = NOT_KNOWN not in (there.get("compile", NOT_KNOWN), here.get("compile", NOT_KNOWN))
    if of_jobs and there.get("data_digest", NOT_KNOWN) == here["data_digest"] != NOT_KNOWN:
        names = {c: text for c, text in names.items() if c not in ("dataset", "size")}
    pairs = {c: (there.get(c, NOT_KNOWN), here.get(c, NOT_KNOWN)) for c in names}
    return "; ".join(
        f"{c} {a} there, {b} here" for c, (a, b) in pairs.items() if a != b or a == "several"
    )
