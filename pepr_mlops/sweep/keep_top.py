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
from pepr_mlops.tracking.read import weights
from pepr_mlops.tracking.read.model_files import WHICH, Which

_SETTLED = ("done", "failed")
# Columns of the frame of runs: the weights that a run has, why it has none, and whether it was
# trained with `--keep-top`.
_WEIGHTS, _MISSING = f"tags.{weights.TAG}", f"tags.{weights.MISSING}"
_OWN = "tags.pepr.keep_top"


@dataclass(frozen=True)
class KeepTop:
    """Keep the weights of the `n` best models only: `by` the cheapest good-enough ones (`cost`), P
    (`performance`) or PePR (`score`), on the split that decides in `pepr select`.

    Raises `WrongUse` for other values."""

    n: int
    by: By = "cost"

    def __post_init__(self) -> None:
        if self.n < 1:
            raise WrongUse(f"keep_top: {self.n} is not 1 or more")
        if self.by not in BY:
            raise WrongUse(f"by: {self.by!r} is not one of {', '.join(BY)}")

    def check(self, specs: Sequence[Job]) -> None:
        """Raise `WrongUse` where no weights are kept."""
        if all(spec.keep == NONE for spec in specs):
            raise WrongUse("keep_top: --keep none keeps no weights; leave one of the two out")

    def __str__(self) -> str:
        return f"--keep-top {self.n} --by {self.by}"


def losers(
    runs: pd.DataFrame, keep: KeepTop, question: Question, evidence: Evidence
) -> list[tuple[str, str]]:
    """Model and run of the runs whose weights are not needed, all of the same settings at once.

    A model that ties with the n-th stays: one whose interval of P reaches that of the n-th, whose
    rank by PePR may be n, or of which it is open whether it is good enough. So does one whose error
    is not known.
    """
    compared = compare(runs, question, evidence)
    found: list[tuple[str, str]] = []
    for name in compared.sets["comparison_set"]:
        choices = answer.choices(compared, question, str(name))
        for model in _out(choices, keep):
            own = choices.members[(choices.members[KEYS] == model).all(axis=1)]
            ids = own["fold_runs"].fillna(own["run_id"]).str.split().explode()
            found += [(model[0], run_id) for run_id in ids]
    return found


def _out(choices: Choices, keep: KeepTop) -> list[tuple[str, str]]:
    """The models, with their variants, that fall out of one comparison set."""
    table = choices.table.set_index(KEYS)
    if keep.by == "performance":
        safe = _ties_by_performance(choices, keep.n)
    elif keep.by == "score":
        best = table["decided_score"].rank(ascending=False, method="min") <= keep.n
        safe = best | ~(table["rank_low"] > keep.n)
    else:
        judged: Answer = answer.answer(choices)
        models = judged.models.set_index(KEYS)
        good = models["verdict"] == GOOD
        cheapest = models.loc[good, judged.resource].nsmallest(keep.n, keep="all").index
        safe = (models["verdict"] != BAD) & (~good | models.index.isin(cheapest))
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

    All runs of its jobs are compared, and only those that were trained with `--keep-top` lose their
    weights. Models with jobs to come are left as they are. Where the choice depends on costs, which
    are judged among all models, nothing is dropped before all jobs are done.
    """
    jobs = result.jobs
    settled = jobs["state"].isin(_SETTLED) | jobs.index.isin(list(result.given_up))
    waiting = {spec.model for spec in jobs.loc[~settled, "spec"]}
    compared = result.runs[result.runs["spec"].isin(list(jobs.index))]
    if (waiting and keep.by != "performance") or not {_WEIGHTS, _OWN} <= set(compared):
        return 0
    own = set(compared.loc[compared[_WEIGHTS].notna() & compared[_OWN].notna(), "run_id"])
    if not own:
        return 0
    resources = ("T",) if jobs["spec"].iloc[0].energy == "off" else ("E",)
    question = Question(resources=resources, mixed="stratify")
    found = losers(compared, keep, question, read_evidence(compared))
    ids = [run_id for model, run_id in found if model not in waiting and run_id in own]
    return drop(ids, f"dropped by {keep}") if ids else 0


def without_weights(jobs: pd.DataFrame, runs: pd.DataFrame, keep: KeepTop | None) -> list[str]:
    """A note on the jobs (`plan.states`) that are done and lack weights which they would keep, but
    for those that `keep` drops."""
    columns = runs.set_index("run_id").reindex(columns=[_WEIGHTS, _MISSING])
    lacking: list[tuple[Job, list[Which]]] = []
    for spec, run_id in jobs.loc[jobs["state"] == "done", ["spec", "run_id"]].to_numpy():
        there, why = columns.loc[run_id].fillna("")
        if keep is not None and why:
            continue
        names = WHICH if spec.keep == "both" else [name for name in WHICH if name == spec.keep]
        if missing := [name for name in names if name not in weights.digests_in(there)]:
            lacking.append((spec, missing))
    if not lacking:
        return []
    spec, missing = lacking[0]
    names = [name for name in WHICH if any(name in some for _, some in lacking)]
    return [
        f"{len(lacking)} job{' is' if len(lacking) == 1 else 's are'} done and without "
        f"{' or '.join(names)} weights on the tracking server; "
        f"`{weights.command(spec.as_params(), missing[-1])}` trains one again"
    ]
