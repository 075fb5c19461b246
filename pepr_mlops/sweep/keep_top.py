"""Which weights of a sweep's models are dropped: those that are surely not among the best."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from pepr_mlops.comparison import Question, answer, compare
from pepr_mlops.comparison.answer import KEYS, Answer, Choices
from pepr_mlops.comparison.good_enough import BAD, GOOD, LEVEL
from pepr_mlops.comparison.runs import Evidence
from pepr_mlops.comparison.sampling import draws_of
from pepr_mlops.comparison.selected import BY, By
from pepr_mlops.errors import WrongUse
from pepr_mlops.spec import NONE, Job
from pepr_mlops.sweep.driver import Result

_SETTLED = ("done", "failed")
TAG = "tags.pepr.model"  # the column of runs that have weights


@dataclass(frozen=True)
class KeepTop:
    """Keep the weights of the `n` best models only: `by` the cheapest good-enough ones (`cost`), P
    (`performance`) or PePR (`score`), on the split that decides in `pepr select`."""

    n: int
    by: By = "cost"

    def __post_init__(self) -> None:
        if self.by not in BY:
            raise WrongUse(f"by: {self.by!r} is not one of {', '.join(BY)}")

    def check(self, specs: Sequence[Job]) -> None:
        """Raise `WrongUse` where no weights are kept."""
        if all(spec.keep == NONE for spec in specs):
            raise WrongUse("keep_top: --keep none keeps no weights; leave one of the two out")

    def __str__(self) -> str:
        return f"--keep-top {self.n} --by {self.by}"


def losers(
    runs: pd.DataFrame, keep: KeepTop, question: Question, evidence: Evidence, *, final: bool
) -> list[tuple[str, str]]:
    """Model and run of the runs whose weights are not needed, all of the same settings at once.

    A model that ties with the n-th stays: one whose interval of P reaches that of the n-th, whose
    rank by PePR may be n, or of which it is open whether it is good enough. So does one whose error
    is not known. Unless `final` only models are dropped that models still to come cannot bring
    back: the score and the cheapest good-enough models depend on all models.
    """
    compared = compare(runs, question, evidence)
    found: list[tuple[str, str]] = []
    for name in compared.sets["comparison_set"]:
        choices = answer.choices(compared, question, str(name))
        out = _out(choices, keep, final)
        for model in out:
            own = choices.members[(choices.members[KEYS] == model).all(axis=1)]
            ids = own["fold_runs"].fillna(own["run_id"]).str.split().explode()
            found += [(model[0], run_id) for run_id in ids]
    return found


def _out(choices: Choices, keep: KeepTop, final: bool) -> list[tuple[str, str]]:
    """The models, with their variants, that fall out of one comparison set."""
    table = choices.table.set_index(KEYS)
    if keep.by == "performance":
        safe = _ties_by_performance(choices, keep.n)
    elif keep.by == "score":
        best = table["decided_score"].rank(ascending=False, method="min") <= keep.n
        safe = best | ~(table["rank_low"] > keep.n) | (not final)
    else:
        judged: Answer = answer.answer(choices)
        models = judged.models.set_index(KEYS)
        good = models["verdict"] == GOOD
        cheapest = models.loc[good, judged.resource].nsmallest(keep.n, keep="all").index
        safe = (models["verdict"] != BAD) & (~good | models.index.isin(cheapest) | (not final))
    known = table["no_interval"] == ""
    return list(table.index[known & ~safe.reindex(table.index)])


def _ties_by_performance(choices: Choices, n: int) -> pd.Series[bool]:
    """Whether the interval of P of each model reaches that of the n-th, on the deciding split."""
    drawn = draws_of(choices.decided, [], choices.question, choices.comparison.known)
    tails = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
    low, high = np.quantile(drawn.performance, tails, axis=0)
    last = np.argsort(-drawn.value, kind="stable")[:n][-1]
    unknown = np.array([bool(why) for why in drawn.missing])
    among = drawn.value >= drawn.value[last]
    return pd.Series(among | unknown | (high >= low[last]) | unknown[last], drawn.models)


def prune(
    result: Result,
    keep: KeepTop,
    read_evidence: Callable[[pd.DataFrame], Evidence],
    drop: Callable[[Sequence[str], str], int],
) -> int:
    """Drop the weights of the models of a sweep that fall out; of how many runs.

    Models with jobs to come are left as they are, and runs of other sweeps are not compared.
    """
    jobs = result.jobs
    settled = jobs["state"].isin(_SETTLED) | jobs.index.isin(list(result.given_up))
    waiting = {spec.model for spec in jobs.loc[~settled, "spec"]}
    own = result.runs[result.runs["spec"].isin(list(jobs.index))]
    specs = list(jobs["spec"])
    resources = ("T",) if specs[0].energy == "off" else ("E",)
    question = Question(resources=resources, mixed="stratify")
    if TAG not in own or not own[TAG].notna().any():
        return 0
    found = losers(own, keep, question, read_evidence(own), final=not waiting)
    with_weights = set(own.loc[own[TAG].notna(), "run_id"])
    ids = [i for model, i in found if model not in waiting and i in with_weights]
    return drop(ids, f"dropped by {keep}") if ids else 0
