"""Are two named models different on the test images? Pure.

Two questions have two answers. Whether the models differ, each trained again and measured on other
images: a bootstrap over images and runs, the one to cite. Whether two trained networks differ on
other images: McNemar's exact test (Q. McNemar 1947) and DeLong's (E. R. DeLong et al. 1988) for
runs that share test images and seed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import bdtr, ndtr

from pepr_mlops.comparison.answer import metric_of
from pepr_mlops.comparison.metrics import Bools, Floats, Predicted, Ratios, auc, images_right
from pepr_mlops.comparison.predictions import OfSplit, Predictions
from pepr_mlops.comparison.question import Question
from pepr_mlops.comparison.sampling import Knowledge, images_of
from pepr_mlops.comparison.scores import Comparison
from pepr_mlops.comparison.significance import holm
from pepr_mlops.errors import WorkFailed, WrongUse, nearest
from pepr_mlops.names import PERFORMANCE
from pepr_mlops.text import few

COLUMNS = [
    *("where", "quantity", "a", "b", "seed", "n_a", "n_b", "images", "mean_a", "mean_b"),
    *("difference", "low", "high", "test", "n10", "n01", "statistic", "p", "p_holm"),
]
PAIRED, UNPAIRED = "paired bootstrap", "unpaired bootstrap"
APPROXIMATE = "unpaired binomial (approximate)"
_TAILS = (0.025, 0.975)
_Z = 1.959963984540054  # the normal quantile of 0.975


@dataclass(frozen=True)
class McNemar:
    """Of `images` images, `n10` are right by the first model alone and `n01` by the second alone;
    `p` is that of the exact test, two-sided."""

    images: int
    n10: int
    n01: int
    p: float


def mcnemar(a: Bools, b: Bools) -> McNemar:
    """McNemar's exact test of which images [n] two models get right: under the hypothesis each of
    the images on which they disagree is right by either with equal chance."""
    n10, n01 = int((a & ~b).sum()), int((~a & b).sum())
    return McNemar(len(a), n10, n01, min(1.0, 2 * float(bdtr(min(n10, n01), n10 + n01, 0.5))))


@dataclass(frozen=True)
class DeLong:
    """Two AUCs of one test set, the standard `error` of `a` less `b`, z and its two-sided p, NaN
    where the difference does not vary."""

    a: float
    b: float
    error: float
    z: float
    p: float


def delong(a: Predicted, b: Predicted) -> DeLong | None:
    """DeLong's test of two AUCs on the same images, None where a class is absent.

    The AUC of several classes is the mean of each against the rest: an image's contributions to
    them are added up before they are squared, so that the variance has DeLong's covariances.
    """
    one, two = auc(a), auc(b)
    if one is None or two is None:
        return None
    every = np.ones((1, len(a.labels)))
    first, second = float(one(every)[0]), float(two(every)[0])
    apart = _contributions(one) - _contributions(two)
    error = float(np.sqrt((apart**2).sum()))
    if not error > 0:
        return DeLong(first, second, error, np.nan, np.nan)
    z = (first - second) / error
    return DeLong(first, second, error, z, 2 * float(ndtr(-abs(z))))


def _contributions(of_auc: Ratios) -> Floats:
    """The first-order share of each image [n] in the error of a mean AUC. NaN where a class has
    only one image of a kind, which says nothing about its variance."""
    above, kind = of_auc.above, of_auc.below
    count = kind.sum(axis=-1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        apart = kind * (above - above.sum(axis=-1, keepdims=True) / count)
        parts = apart / np.sqrt(count * (count - 1))
    return np.asarray(parts.sum(axis=1).mean(axis=0))


def compared(
    comparison: Comparison, question: Question, a: str, b: str
) -> tuple[pd.DataFrame, list[str]]:
    """Tests of the models `a` and `b`, one row each in `COLUMNS`, and notes on them.

    For each comparison set that has both, P over all their runs, and for each two runs of one seed
    and test set accuracy (or the share that P is) and AUC. `difference` is `a` less `b` with its
    95% interval `low` to `high`. `p_holm` is corrected over all rows of one test. Raises
    `WrongUse` for an unknown model and one that has several rows in a set, and `WorkFailed` where
    no set has both.
    """
    _check(comparison, (a, b))
    rows: list[dict[str, Any]] = []
    notes: list[str] = []
    for name, members in comparison.used.groupby("comparison_set", sort=False):
        both = members[members["model"].isin([a, b])]
        if both["model"].nunique() == 2:
            pair = _pair(str(name), both, (a, b), comparison.known)
            over_runs, of_seeds = _over_runs(pair, comparison, question), list(_of_seeds(pair))
            rows += [over_runs, *of_seeds]
            notes += _notes(pair, over_runs["test"], bool(of_seeds))
    if not rows:
        raise WorkFailed(
            f"models: {a} and {b} are in no comparison set together, since their runs differ in "
            "more than the model; choose --allow-mixed to test them all the same"
        )
    table = pd.DataFrame(rows).reindex(columns=COLUMNS)
    for name in ("seed", "images", "n10", "n01"):  # integers, missing in some rows
        table[name] = pd.Series([row.get(name) for row in rows], dtype=object)
    table["p_holm"] = table.groupby("test")["p"].transform(holm)
    return table, notes


def _check(comparison: Comparison, models: Sequence[str]) -> None:
    known = sorted(comparison.used["model"].unique())
    for model in models:
        if model in known:
            continue
        if model in set(comparison.runs["model"]):
            raise WorkFailed(f"models: no run of {model} can be compared; `pepr runs` lists why")
        raise WrongUse(
            f"models: no run is of {model!r}{nearest(model, known) or '.'} There are: {few(known)}"
        )


@dataclass(frozen=True)
class _Pair:
    """The `members` of one comparison set that are runs of two models, the split of P, the name
    that it has there, or none, and by run the predictions for this split."""

    where: str
    members: pd.DataFrame
    models: tuple[str, str]
    split: str
    name: str
    predictions: Mapping[str, Predictions]

    def of(self, model: str) -> pd.DataFrame:
        """The runs of one of them."""
        return self.members[self.members["model"] == model]

    def images(self, run_id: str) -> OfSplit:
        """The predictions of a run that has some, with the images that they are for."""
        split = self.predictions[run_id].on(self.split)
        assert split is not None
        return split


def _pair(where: str, members: pd.DataFrame, models: tuple[str, str], known: Knowledge) -> _Pair:
    for model in models:
        variants = members.loc[members["model"] == model, "variant"].unique()
        if len(variants) > 1:
            raise WrongUse(
                f"models: {where} has several rows of {model} ({few(sorted(variants))}); choose "
                "one with --where"
            )
    measured = metric_of(members)
    split = (measured.split if measured else "") or "test"
    predictions = {
        run: known.predictions[run]
        for run in members["run_id"]
        if run in known.predictions and known.predictions[run].on(split) is not None
    }
    return _Pair(where, members, models, split, measured.name if measured else "", predictions)


def _over_runs(pair: _Pair, comparison: Comparison, question: Question) -> dict[str, Any]:
    """The row for P over all runs of both models, with the draws of their comparison set."""
    drawn = comparison.drawn(pair.where)
    a, b = (list(drawn.models.get_level_values("model")).index(model) for model in pair.models)
    apart = drawn.performance[:, a] - drawn.performance[:, b]
    low, high = np.quantile(apart, _TAILS)
    beyond = 2 * min((apart <= 0).mean(), (apart >= 0).mean())
    p = float(np.clip(beyond, 1 / len(apart), 1))
    if drawn.missing[a] or drawn.missing[b]:  # a note of the comparison has the reason
        low = high = p = np.nan
    metric = pair.members["performance_metric"].iloc[0]
    return {
        **_place(pair, None, *(len(pair.of(model)) for model in pair.models)),
        "quantity": metric if isinstance(metric, str) else PERFORMANCE,
        "images": images_of(pair.members, pair.split, question, comparison.known),
        "mean_a": float(drawn.value[a]),
        "mean_b": float(drawn.value[b]),
        "difference": float(drawn.value[a] - drawn.value[b]),
        "low": float(low),
        "high": float(high),
        "test": _kind(pair, sampled=bool(drawn.sampled[a] and drawn.sampled[b])),
        "p": p,
    }


def _kind(pair: _Pair, sampled: bool) -> str:
    if not sampled:
        return APPROXIMATE
    one, two = (
        {pair.images(run).test_set for run in pair.of(m)["run_id"] if run in pair.predictions}
        for m in pair.models
    )
    return PAIRED if one & two else UNPAIRED


def _of_seeds(pair: _Pair) -> Iterator[dict[str, Any]]:
    """Rows for each two runs that share a seed and a test set."""
    predicted = pair.members[pair.members["run_id"].isin(list(pair.predictions))]
    seeded = predicted.dropna(subset="seed").sort_values("seed")
    a, b = (seeded.loc[seeded["model"] == m, ["seed", "run_id"]] for m in pair.models)
    for seed, one, two in a.merge(b, on="seed").itertuples(index=False):
        if pair.images(one).test_set == pair.images(two).test_set:
            place = _place(pair, int(seed), 1, 1)
            predictions = [pair.predictions[run].of(pair.split) for run in (one, two)]
            for name, found in _tests(pair, *predictions):
                yield {**place, "quantity": f"{pair.split}/{name}", **found}


def _tests(pair: _Pair, a: Predicted, b: Predicted) -> Iterator[tuple[str, dict[str, Any]]]:
    """The metric and the columns of each test of two runs: of accuracy and of P where they are
    shares of images, and of AUC."""
    for name in dict.fromkeys(["accuracy", pair.name]):
        one, two = images_right(name, a), images_right(name, b)
        if one is not None and two is not None:
            found = mcnemar(one, two)
            yield (
                name,
                {
                    "images": found.images,
                    "mean_a": float(one.mean()),
                    "mean_b": float(two.mean()),
                    "difference": (found.n10 - found.n01) / found.images,
                    "test": "McNemar",
                    "n10": found.n10,
                    "n01": found.n01,
                    "p": found.p,
                },
            )
    areas = delong(a, b)
    if areas is not None:
        difference = areas.a - areas.b
        yield (
            "auc",
            {
                "images": len(a.labels),
                "mean_a": areas.a,
                "mean_b": areas.b,
                "difference": difference,
                "low": difference - _Z * areas.error,
                "high": difference + _Z * areas.error,
                "test": "DeLong",
                "statistic": areas.z,
                "p": areas.p,
            },
        )


def _place(pair: _Pair, seed: int | None, n_a: int, n_b: int) -> dict[str, Any]:
    a, b = pair.models
    return {"where": pair.where, "a": a, "b": b, "seed": seed, "n_a": n_a, "n_b": n_b}


def _notes(pair: _Pair, kind: str, single: bool) -> Iterator[str]:
    """What a reader must know about the rows of a set, where `single` are rows of one seed each."""
    both = " and ".join(pair.models)
    if kind == APPROXIMATE:
        without = len(pair.members) - len(pair.predictions)
        why = f"{without} of {len(pair.members)} runs of {both} have no predictions"
        if not without:
            why = f"the predictions of {both} do not determine P"
        yield (
            f"{pair.where}: no paired test is possible: {why}; the row takes their images as "
            "unpaired and is approximate"
        )
    elif kind == UNPAIRED:
        yield f"{pair.where}: {both} have no test images in common, so that no test is paired"
    if single:
        folds = pair.members["fold_runs"].notna().any()
        networks = "the networks of its folds" if folds else "these two trained networks"
        yield (
            f"{pair.where}: the row to cite is the {kind} over all runs; the tests of one seed are "
            f"about {networks} alone"
        )
    images = pair.images(next(iter(pair.predictions))) if single else None
    if images is not None and len(np.unique(images.clusters)) < len(images.labels):
        yield (
            f"{pair.where}: McNemar's and DeLong's tests take images as independent, but some are "
            f"of one patient; the {kind} draws patients"
        )
