"""The place of one run among the others of its experiment, and the doubts about it. Pure."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from pepr_mlops.comparison import Question, answer_text, inspect
from pepr_mlops.comparison.answer import KEYS, Answer
from pepr_mlops.comparison.intervals import rank_texts
from pepr_mlops.comparison.predictions import Predictions
from pepr_mlops.comparison.runs import Evidence
from pepr_mlops.comparison.selected import Selected
from pepr_mlops.report.card.facts import Standing
from pepr_mlops.text import decimals

_EVERY_COST = Question(resources=("E", "T"), draws=0)  # so that every flag is found


def judged(run_id: str, runs: pd.DataFrame, evidence: Evidence) -> pd.Series:
    """The row of a run in `Comparison.runs` with its flags about any cost."""
    rows, _ = inspect(runs, _EVERY_COST, evidence)
    return rows[rows["run_id"] == run_id].iloc[0]


def believable(row: pd.Series, evidence: Evidence) -> Predictions | str | None:
    """The predictions of the run that `judged` has as `row`, or why there are none."""
    if "predictions" in row["codes"]:
        return "its predictions contradict what it logged"
    return evidence.predictions.get(row["run_id"])


def standing(row: pd.Series, found: Selected | str) -> Standing:
    """The place of the run that `judged` has as `row` in the comparison set of `found`, which is
    why there is none otherwise."""
    run_id, flagged = row["run_id"], tuple(dict.fromkeys([*row["reasons"], *row["flags"]]))
    if isinstance(found, str):
        return Standing((f"Not ranked: {found}",), flagged)
    members = found.found.members
    ids = members["fold_runs"].fillna(members["run_id"])
    own = members[[run_id in text.split() for text in ids]]
    rows = found.found.comparison.scores
    key = ["comparison_set", *KEYS]
    model = rows[(rows[key] == own.iloc[0][key]).all(axis=1)].iloc[0]
    alone = model["n"] == 1 and not model["no_interval"]
    return Standing(
        tuple(_sentences(model, found)),
        flagged,
        (float(model["p_low"]), float(model["p_high"])) if alone else None,
        int(model["n"]),
        found.found.terms.margin,
    )


def _sentences(row: pd.Series, found: Selected) -> Iterator[str]:
    rows = found.found.comparison.scores
    of = (rows[["comparison_set", "resource"]] == row[["comparison_set", "resource"]]).all(axis=1)
    place = rank_texts(row.to_frame().T)[0]
    interval = f", with 95% confidence {place}" if place else ""
    yield (
        f"With a PePR-{row['resource']} of {decimals(row['score'])} its model has rank "
        f"{row['rank']:.0f} of {of.sum()} in {row['comparison_set']}{interval}"
    )
    if found.answer is None:
        yield "No model is within all budgets"
        return
    yield from _verdict(row, found.answer)
    yield answer_text.verdict(found.answer)
    yield from answer_text.basis(found.answer)


def _verdict(row: pd.Series, answer: Answer) -> Iterator[str]:
    """Whether the model is good enough, and how far it may be behind the best."""
    models = answer.models
    own = models[(models[KEYS] == row[KEYS]).all(axis=1)]
    if own.empty:
        yield "It is not within the budgets"
        return
    one = own.iloc[0]
    most = one["at_most"]
    bound = "its bound is not known" if most != most else f"at most {decimals(most)}"
    yield (
        f"Within {answer.terms.margin:g} of the best {answer.decided_by}: {one['verdict']}; it is "
        f"{decimals(one['behind'])} behind, {bound} with {answer.terms.level:.0%} confidence"
    )
