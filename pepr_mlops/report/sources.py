"""From a tracking server to the material of a report, for the static page and the live one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from pepr_mlops.comparison import Prepared, Question, conditions, prepare, score_sets
from pepr_mlops.comparison.answer import USUAL, Terms
from pepr_mlops.comparison.runs import Evidence
from pepr_mlops.comparison.selected import first_run
from pepr_mlops.comparison.sets import Mixed
from pepr_mlops.errors import PeprError, WrongUse
from pepr_mlops.report import searches
from pepr_mlops.report.dashboards import Companion
from pepr_mlops.report.label import Label, label_of, references
from pepr_mlops.report.material import HISTORY, Material, Part, gather
from pepr_mlops.report.templates import made_now
from pepr_mlops.tracking import read as query


@dataclass(frozen=True)
class Source:
    """What was read from the server, by the names of experiments.

    `epochs` are of the runs of `main`; `missing` are companions that the server does not have, and
    `searches` has a sentence for each frugal search of `main`.
    """

    main: tuple[str, ...]
    runs: Mapping[str, pd.DataFrame]
    evidence: Mapping[str, Evidence]
    epochs: pd.DataFrame
    missing: tuple[str, ...]
    run_page: str | None
    searches: tuple[str, ...] = ()


def read(
    experiments: Sequence[str],
    companions: Sequence[str] = (),
    *,
    performance: str | None = None,
    where: Sequence[tuple[str, str]] = (),
    tracking_uri: str | None = None,
) -> Source:
    """Read the experiments, and those of `companions` that exist, with histories and evidence.

    `performance` is the metric that is P where it is not each run's own, `where` as of
    `conditions.where` for the requested experiments. Raises as these and `query.load_runs`.
    """
    main = tuple(dict.fromkeys(experiments))
    runs = {
        name: conditions.where(query.load_runs(name, tracking_uri=tracking_uri), where)
        for name in main
    }
    missing = []
    for name in dict.fromkeys(companions):
        if name in runs:
            continue
        try:
            runs[name] = query.load_runs(name, tracking_uri=tracking_uri)
        except WrongUse:
            missing.append(name)
    ids = [run for name in main for run in runs[name]["run_id"]]
    metrics = dict.fromkeys([*HISTORY, *([performance] if performance else [])])
    return Source(
        main,
        runs,
        {n: query.load_evidence(r, tracking_uri=tracking_uri) for n, r in runs.items()},
        query.load_epochs(ids, list(metrics), tracking_uri=tracking_uri),
        tuple(missing),
        query.run_page(tracking_uri),
        tuple(
            sentence
            for name in main
            for sentence in searches.sentences(query.load_searches(name, tracking_uri=tracking_uri))
        ),
    )


def sort(
    source: Source, question: Question, companions: Mapping[str, Companion] = {}
) -> tuple[dict[str, Prepared], list[str]]:
    """Which runs of each experiment may be compared, and notes on experiments that are not shown.

    Runs of a requested experiment that must not be compared together are shown in groups. Raises
    as `comparison.prepare` where no requested experiment can be shown.
    """
    prepared: dict[str, Prepared] = {}
    errors: list[PeprError] = []
    notes = [f"{name} is not on this server, so it is not shown" for name in source.missing]
    for name, runs in source.runs.items():
        main = name in source.main
        requested = question if main else _of_companion(question, companions[name])
        try:
            prepared[name] = _prepared(runs, requested, source.evidence[name], main)
        except PeprError as error:
            errors += [error] if main else []
            notes.append(f"{name} is not shown: {error}")
    if errors and prepared.keys().isdisjoint(source.main):
        raise errors[0]
    return prepared, [*notes, *source.searches]


def _prepared(runs: pd.DataFrame, question: Question, evidence: Evidence, main: bool) -> Prepared:
    """The runs of one experiment, sorted; those of a main one that differ in groups."""
    try:
        return prepare(runs, question, evidence)
    except Mixed:
        if not main:
            raise
        return prepare(runs, replace(question, mixed="stratify"), evidence)


def material(
    source: Source,
    prepared: Mapping[str, Prepared],
    question: Question,
    publications: pd.DataFrame | None = None,
    terms: Terms = USUAL,
) -> Material:
    """Score what was sorted, by the weights and normalisation of `question`, and gather it; models
    are chosen by `terms`."""
    parts = []
    for name, sorted_ in prepared.items():
        main = name in source.main
        as_sorted = Companion(sorted_.question.resources, sorted_.question.mixed)
        requested = question if main else _of_companion(question, as_sorted)
        scored = score_sets(sorted_, requested)
        parts.append(Part(scored, requested, source.runs[name], main))
    return gather(
        parts, source.epochs, terms=terms, run_page=source.run_page, publications=publications
    )


def energy_labels(material: Material, tracking_uri: str | None = None) -> list[Label]:
    """The label of the good-enough model of each requested set, and that of the best performer, of
    their run with the lowest seed, which is `best`; none without a letter. Of a cross-validation it
    is of one fold."""
    rows = []
    for name, answer in material.answers.items():
        part = material.part(name)
        used, runs = part.comparison.used, part.found
        used = used[used["comparison_set"] == name]
        for chosen in dict.fromkeys([answer.choice or answer.best, answer.best]):
            run_id = first_run(used, answer.row(chosen))["run_id"]
            rows.append(runs[runs["run_id"] == run_id].iloc[0])
    inputs = query.load_inputs([row["run_id"] for row in rows], tracking_uri=tracking_uri)
    trained = {run_id: own.get("train") for run_id, own in inputs.items()}
    found, made = references(), made_now()
    labels = [
        label_of(row, logged.images if logged else None, found, made=made)
        for row in rows
        for logged in [trained[row["run_id"]]]
    ]
    return [one for one in labels if one.training.letter or one.use.letter]


def _of_companion(question: Question, companion: Companion) -> Question:
    """The question for an experiment that is shown with the requested ones."""
    reference = question.normalisation == "reference"
    return replace(
        question,
        resources=companion.resources or question.resources,
        weights=None,
        reference=None,
        normalisation="minmax" if reference else question.normalisation,
        mixed=companion.mixed or question.mixed,
    )
