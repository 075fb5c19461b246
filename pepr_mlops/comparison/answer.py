"""The answer to which model is good enough and what it saves, for one comparison set. Pure.

Models are chosen on the deciding split, validation where runs logged its predictions, and reported
on the test set: a winner chosen by the test set looks better there than it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import get_args

import numpy as np
import pandas as pd

from pepr_mlops.comparison import good_enough, lifetime, subgroups
from pepr_mlops.comparison.draws import Draws, shared_clusters
from pepr_mlops.comparison.good_enough import BAD, GOOD, LEVEL, MARGIN, OPEN, Saving, judge
from pepr_mlops.comparison.lifetime import Lifetime
from pepr_mlops.comparison.metrics import Floats, Ints
from pepr_mlops.comparison.question import Question
from pepr_mlops.comparison.runs import column
from pepr_mlops.comparison.sampling import Measured, draws_of, images_of
from pepr_mlops.comparison.scores import Comparison, means, other_costs
from pepr_mlops.errors import WrongUse
from pepr_mlops.names import LIFETIME, PERFORMANCE, RESOURCES, ScoredOn

SPLITS: tuple[ScoredOn, ...] = get_args(ScoredOn)
KEYS = ["model", "variant"]
_FAR = 3.0  # standard errors by which validation and test differ by more than chance
_TAILS = (0.025, 0.975)
_SPLITS, _CHOOSING = 300, 0.9  # of the images, to choose on and to score on


@dataclass(frozen=True)
class Terms:
    """How to choose: the `margin` of P below the best that is good enough, the confidence `level`,
    and the split to `decide_on`, or None for validation where there are predictions for it."""

    margin: float = MARGIN
    level: float = LEVEL
    decide_on: ScoredOn | None = None

    def __post_init__(self) -> None:
        good_enough.check(self.margin, self.level)
        if self.decide_on not in (None, *SPLITS):
            raise WrongUse(f"decide_on: {self.decide_on!r} is not one of {', '.join(SPLITS)}")


USUAL = Terms()


@dataclass(frozen=True)
class Shift:
    """Mean P of all models on validation and on the test set, which differ by more than sampling
    allows."""

    val: float
    test: float


@dataclass(frozen=True)
class Answer:
    """The answer for one comparison set.

    `models` has a row per model: `model`, `variant`, `label`, `decided` (P on the deciding split),
    `decided_low`, `decided_high` (missing where its error is not known), the columns of
    `good_enough.judge`, `performance` (P on the test set), `p_low`, `p_high`, `no_interval`,
    `R`, `score`, `decided_score` (with P on the deciding split), `rank_low`, `rank_high`, `n`,
    `energy_source`, `codes`, `likely` (share of draws in which it is no more than the margin behind
    the best), and each cost by its name, with its interval in `COST_low` and `COST_high`, and
    in `COST_noise` the standard deviation of the part of its logarithm's error that models do not
    share (missing for a cost of 0); the good-enough ones come first, the cheapest by the first of
    `resources` on top. `scored_by` names PePR. `choice` and `best` are labels: the cheapest
    good-enough model, or None, and the one of the greatest P on the deciding split. `savings` of
    the choice are by resource. `without_val` is how many runs keep validation from deciding, since
    they have no predictions for it although others do. `limited` says whether only some models were
    chosen from.
    `subgroups` are of the choice and the best, as `subgroups.subgroups`; empty where their runs
    logged none. `agrees` are the α for which PePR chooses the same model. `optimism` is by how much
    a winner chosen on this test set is expected to be worse on others, None where it was not.
    `external` is the metric that is P on external sets by name, the mean over the runs of the
    choice, or of the best where there is none. `lifetime` is None where no good-enough model was
    profiled.
    """

    comparison_set: str
    terms: Terms
    split: ScoredOn
    metric: str
    decided_by: str
    images: int | None
    resources: tuple[str, ...]
    scored_by: str
    models: pd.DataFrame
    choice: str | None
    best: str
    savings: Mapping[str, Saving]
    agrees: tuple[float, float] | None
    optimism: float | None
    shift: Shift | None
    subgroups: pd.DataFrame
    without_val: int
    limited: bool
    external: Mapping[str, float] = field(default_factory=dict)
    lifetime: Lifetime | None = None

    @property
    def resource(self) -> str:
        """What is cheap."""
        return self.resources[0]

    def of(self, verdict: str) -> list[str]:
        """The models of this verdict, by `label`."""
        return list(self.models.loc[self.models["verdict"] == verdict, "label"])

    def row(self, name: str) -> pd.Series:
        """The row of `models` with this label."""
        return self.models.set_index("label", drop=False).loc[name]


@dataclass(frozen=True)
class Choices:
    """The models of one comparison set with P on the `split` that decides.

    `members` are its runs and `decided` the same with P on that split. `costs` are columns of runs
    by the names of resources, the requested ones first. `table` is `Answer.models` without a
    verdict.
    """

    comparison: Comparison
    question: Question
    comparison_set: str
    terms: Terms
    split: ScoredOn
    measured: Measured | None
    members: pd.DataFrame
    decided: pd.DataFrame
    costs: Mapping[str, str]
    table: pd.DataFrame

    @property
    def decided_by(self) -> str:
        """P on the split that decides."""
        return _name(self.decided)


def choices(
    comparison: Comparison,
    question: Question,
    name: str,
    terms: Terms = USUAL,
    limits: Sequence[str] = (),
) -> Choices:
    """The models of the comparison set `name`, with the columns `limits` in their table.

    Raises `WrongUse` where runs have no P on the split to decide on, and for a set that has several
    metrics as P.
    """
    comparison.drawn(name)  # or there is no answer
    if question.use is not None:
        used = lifetime.with_use(comparison.used, name, question.use)
        comparison = replace(comparison, used=used)
    members = comparison.used[comparison.used["comparison_set"] == name]
    measured = metric_of(members)
    split = _split(members, measured, comparison, terms)
    decided = _on(members, measured, split)
    costs = {r: column(members, r) for r in question.resources}
    costs |= {r: RESOURCES[r].column for r in other_costs(comparison, question)}
    if question.use is not None:
        costs = {LIFETIME: LIFETIME, **costs}
    scores = comparison.scores[comparison.scores["comparison_set"] == name]
    scores = scores[scores["resource"] == scores["resource"].iloc[0]]
    own = [*KEYS, PERFORMANCE, "p_low", "p_high", "no_interval", "R", "score", "rank_low"]
    table = scores[[*own, "rank_high", "n", "energy_source", "codes"]]
    by_model = decided.groupby(KEYS)[PERFORMANCE].mean().rename("decided")
    table = table.merge(by_model, on=KEYS, validate="one_to_one")
    table["decided_score"] = question.alpha * table["decided"] / (question.alpha + table["R"])
    for taken in set(table) & set(limits):
        raise WrongUse(f"{taken}: a budget cannot have this name; the answer has such a column")
    found = means(comparison, costs | {n: column(members, n) for n in limits})
    found = found[found["comparison_set"] == name].drop(columns="comparison_set")
    table = table.merge(found, on=KEYS, validate="one_to_one")
    table["label"] = table["model"] + table["variant"].map(lambda v: f" ({v})" if v else "")
    return Choices(
        *(comparison, question, name, terms, split, measured, members, decided, costs, table)
    )


def answer(found: Choices, among: pd.DataFrame | None = None) -> Answer:
    """The answer for one comparison set; `among` are the rows of its table to choose from, by
    default all."""
    table = found.table if among is None else among
    keys = pd.MultiIndex.from_frame(table[KEYS])
    members, decided = (
        rows[pd.MultiIndex.from_frame(rows[KEYS]).isin(keys)]
        for rows in (found.members, found.decided)
    )
    question, known, terms = found.question, found.comparison.known, found.terms
    drawn = draws_of(decided, list(found.costs.values()), question, known)
    judged = judge(drawn, terms.margin, terms.level)
    judged = judged.join(_errors(drawn, found.costs, terms.margin))
    table = table.merge(judged, left_on=KEYS, right_index=True, validate="one_to_one")
    resources, resource = lifetime.resources(question), next(iter(found.costs))
    verdict = pd.Categorical(table["verdict"], [GOOD, OPEN, BAD])
    table = table.assign(order=verdict).sort_values(["order", resource], kind="stable")
    choice = table.iloc[0] if table["verdict"].iloc[0] == GOOD else None
    if question.use is not None:
        lifetime.check(table, question.use)
    best = table.loc[table["decided"].idxmax()]
    savings, agrees = {}, None
    if choice is not None:
        places = [list(drawn.models).index(tuple(row[KEYS])) for row in (choice, best)]
        by_place = table.set_index(KEYS).reindex(drawn.models)
        savings = {
            r: good_enough.saving(drawn, c, by_place[r].to_numpy(float), *places)
            for r, c in found.costs.items()
            if by_place.iloc[places][r].notna().all()  # the best may not have been profiled
        }
        p, r = (by_place[c].to_numpy(float) for c in (PERFORMANCE, "R"))
        agrees = good_enough.agreement(p, r, places[0])
    validated = drawn if found.split == "val" else _drawn_on_val(members, found)
    return Answer(
        comparison_set=found.comparison_set,
        terms=terms,
        split=found.split,
        metric=_name(members),
        decided_by=found.decided_by,
        images=images_of(decided, found.split, question, known),
        resources=resources,
        scored_by="+".join(question.resources) if question.weights else question.resources[0],
        models=table.drop(columns="order").reset_index(drop=True),
        choice=None if choice is None else choice["label"],
        best=best["label"],
        savings=savings,
        agrees=agrees,
        optimism=None if found.split == "val" else _optimism(decided, found),
        shift=None if validated is None else _shift(validated, found),
        subgroups=_subgroups(members, [best] if choice is None else [choice, best], found),
        without_val=0 if found.split == "val" or terms.decide_on else _some_without_val(found),
        limited=among is not None,
        external=_external(members, best if choice is None else choice),
        lifetime=lifetime.of(members, table, best["label"], question, known),
    )


def _errors(drawn: Draws, costs: Mapping[str, str], margin: float) -> pd.DataFrame:
    """How sure P and the costs of each model are, as in `Answer.models`."""
    behind = drawn.performance.max(axis=1)[:, None] - drawn.performance
    found = pd.DataFrame({"likely": (behind <= margin).mean(axis=0)}, drawn.models)
    known = [not why for why in drawn.missing]
    low, high = np.quantile(drawn.performance, _TAILS, axis=0)
    found["decided_low"], found["decided_high"] = (np.where(known, q, np.nan) for q in (low, high))
    for name, column_ in costs.items():
        drawn_costs = drawn.costs[column_]
        found[f"{name}_low"], found[f"{name}_high"] = np.quantile(drawn_costs, _TAILS, axis=0)
        found[f"{name}_noise"] = _noise(drawn_costs)
    return found


def _noise(costs: Floats) -> Floats:
    """The standard deviation of the part of the logarithms' errors that models do not share,
    [models], of costs [draws, models]; missing for costs that are missing or 0."""
    found, some = np.full(costs.shape[1], np.nan), (costs > 0).all(axis=0)
    if some.any():
        logs = np.log(costs[:, some])
        own = logs - logs.mean(axis=1, keepdims=True)
        n = own.shape[1]
        found[some] = own.std(axis=0) * np.sqrt(n / max(n - 1, 1))  # for the mean taken away
    return found


def _external(members: pd.DataFrame, row: pd.Series) -> dict[str, float]:
    """Of the sets that all runs of the model of `row` were evaluated on."""
    metric = _name(members).rpartition("/")[2]
    own = members[(members[KEYS] == row[KEYS]).all(axis=1)]
    found = {
        column.split("/")[1]: own[column]
        for column in own
        if column.startswith("metrics.external/") and column.split("/")[2:] == [metric]
    }
    return {name: float(values.mean()) for name, values in found.items() if values.notna().all()}


def _subgroups(members: pd.DataFrame, rows: list[pd.Series], found: Choices) -> pd.DataFrame:
    """Those of the models of `rows`, the last of which is the best."""
    models = {}
    for row in rows:
        runs = members[(members[KEYS] == row[KEYS]).all(axis=1)]["run_id"]
        predictions = found.comparison.known.of(runs)
        if predictions is None:
            return pd.DataFrame(columns=list(subgroups.COLUMNS))
        models[row["label"]] = predictions
    drawn = {"draws": found.question.draws, "seed": found.question.seed}
    return subgroups.subgroups(models, rows[-1]["label"], found.measured, **drawn)


def _name(members: pd.DataFrame) -> str:
    """What P is called."""
    metric = members["performance_metric"].iloc[0]
    return metric if isinstance(metric, str) else PERFORMANCE


def metric_of(members: pd.DataFrame) -> Measured | None:
    """The metric that is P, None where it has no name. Raises `WrongUse` for several."""
    names = members["performance_metric"].dropna().unique()
    if len(names) > 1:
        raise WrongUse(
            f"performance: the runs have several, {', '.join(names)}; name one that all of "
            "them have with --performance"
        )
    return Measured.parse(names[0]) if len(names) else None


def _on(members: pd.DataFrame, measured: Measured | None, split: ScoredOn) -> pd.DataFrame:
    """The runs with P on a split."""
    other = None if measured is None or split == "test" else measured.on(split)
    if other is None:
        return members
    return members.assign(**{PERFORMANCE: other.of(members), "performance_metric": str(other)})


def _drawn_on_val(members: pd.DataFrame, found: Choices) -> Draws | None:
    """Draws of P on validation, None where a run has none."""
    on_val = None if found.measured is None else found.measured.on("val")
    if on_val is None or on_val.of(members).isna().any():
        return None
    on_val_runs = _on(members, found.measured, "val")
    return draws_of(on_val_runs, [], found.question, found.comparison.known)


def _split(
    members: pd.DataFrame, measured: Measured | None, comparison: Comparison, terms: Terms
) -> ScoredOn:
    if measured is not None and measured.split == "val":
        if terms.decide_on == "test":
            raise WrongUse(
                f"decide_on: P is {measured}, which is not of the test set; choose --performance "
                f"{measured.on('test')}"
            )
        return "val"
    if terms.decide_on == "test":
        return "test"
    val = measured.on("val") if measured is not None else None
    missing = len(members) if val is None else int(val.of(members).isna().sum())
    if terms.decide_on == "val":
        if missing:
            raise WrongUse(
                f"decide_on: {missing} of {len(members)} runs have no {val or 'P'} on validation; "
                "choose --decide-on test"
            )
        return "val"
    return "test" if missing or _without_val(members, comparison) else "val"


def _some_without_val(found: Choices) -> int:
    without = _without_val(found.members, found.comparison)
    return without if without < len(found.members) else 0


def _without_val(members: pd.DataFrame, comparison: Comparison) -> int:
    """How many runs have no believable predictions for validation."""
    known = comparison.known.predictions
    return sum(run not in known or known[run].val is None for run in members["run_id"])


def _optimism(members: pd.DataFrame, choices: Choices) -> float | None:
    """By how much P of the winner falls from the images it was chosen by to others, on average.

    The cheapest model within the margin of the best is chosen on nine tenths of the images (or
    patients) drawn without replacement, and scored on the others; a bootstrap would find about
    twice as much, since its draws repeat images. None without predictions of one test set.
    """
    known, question = choices.comparison.known.predictions, choices.question
    pairs = zip(members["run_id"], members["performance_metric"], strict=True)
    found = [Measured.parse(metric).sample(known[run]) for run, metric in pairs if run in known]
    samples = [sample for sample in found if sample is not None]
    if len(samples) < len(members) or len({s.test_set for s in samples}) != 1:
        return None
    rows = members.groupby(KEYS)
    cost = next(iter(choices.costs.values()))
    model, costs = rows.ngroup().to_numpy(), rows[cost].mean().to_numpy(float)
    rng, clusters = np.random.default_rng(question.seed), shared_clusters(samples)
    order = rng.random((min(question.draws, _SPLITS), int(clusters.max()) + 1)).argsort(axis=1)
    chosen_by = (order < _CHOOSING * order.shape[1]).astype(float)[:, clusters]
    drawn, left = (
        _by_model([s.metric(w) for s in samples], model) for w in (chosen_by, 1 - chosen_by)
    )
    costs = np.nan_to_num(costs, nan=np.inf)  # of models that were not profiled
    good = drawn >= drawn.max(axis=1, keepdims=True) - choices.terms.margin
    winner = np.where(good, costs, np.inf).argmin(axis=1)
    each = np.arange(len(winner))
    return float(np.nanmean(drawn[each, winner] - left[each, winner]))


def _by_model(values: Sequence[Floats], model: Ints) -> Floats:
    """Means of runs, each [draws], over their models: [draws, models]."""
    table = np.array(values)
    return np.array([table[model == j].mean(axis=0) for j in range(model.max() + 1)]).T


def _error_of_mean(drawn: Draws, places: Ints) -> float:
    """The standard error of the mean P of models by the images, which those without predictions are
    taken to share."""
    images = drawn.images[:, places]
    if drawn.sampled[places].all():
        return float(images.mean(axis=1).std())
    return float(images.std(axis=0).mean())


def _shift(val: Draws, found: Choices) -> Shift | None:
    """Where validation and test disagree by over 3 standard errors and by more than the margin."""
    test = found.comparison.drawn(found.comparison_set)
    places = test.models.get_indexer(val.models)
    if any(val.missing) or any(test.missing[i] for i in places):
        return None
    on_val, on_test = float(val.value.mean()), float(test.value[places].mean())
    error = np.hypot(_error_of_mean(val, np.arange(len(places))), _error_of_mean(test, places))
    far = abs(on_val - on_test) > max(_FAR * error, found.terms.margin)
    return Shift(on_val, on_test) if far else None
