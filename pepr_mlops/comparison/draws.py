"""Equally likely values of what the runs of a comparison set measured. Pure.

Three things make a number uncertain. The test set is a sample: images are drawn with replacement,
the same for all models that share it (patients where they are known, B. Efron, R. Tibshirani 1993).
Another seed gives another P: a normal error with the spread between runs (`spread`). An energy is
measured or estimated: a relative error (`Errors`). All models of a draw err at once, so that what
they have in common cancels in their differences.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pepr_mlops.comparison.conditions import about_energy
from pepr_mlops.comparison.metrics import Bools, Ints, Ratios, Weighted, together
from pepr_mlops.comparison.pepr import Floats
from pepr_mlops.comparison.profiles import form_of, is_energy
from pepr_mlops.comparison.spread import ASSUMED, Spread, moderated
from pepr_mlops.names import FORMS

Singles = NDArray[np.float32]

_AT_ONCE = 4_000_000  # weights of images in memory at a time
_WIDEST = 50.0  # of a logarithm, whose exponential stays finite; t of one degree has no bound
UNDETERMINED = 0.01  # share of draws in which a class may be absent
NOT_KNOWN = "unknown number of test images"
TOO_FEW = "too few test images of a class"
DOUBTFUL = "doubtful predictions"
NO_SHARE = "P is not a share of images, and no predictions show its error"
_REMEDIES = {
    NOT_KNOWN: "; give --test-images",
    DOUBTFUL: "; `pepr runs` lists the runs, and --drop predictions leaves them out",
}
STATED = "--seed-sd"


@dataclass(frozen=True)
class Errors:
    """Relative standard deviations of energies, and the spread of P between runs for sets in which
    no model has several.

    A measured energy errs by `measured`, each model by itself: what a sensor misses depends on the
    work, so that more seeds do not average it out. An estimated one errs by `common`, the same for
    all models of a machine, and by `own`, each model by itself. In a published
    comparison (R. Fischer 2025, arXiv:2509.22092) estimates were off by up to 40%; nothing bounds
    the error on another machine. Here 95% are taken to be off by up to 44%.
    """

    measured: float = 0.05
    common: float = 0.2
    own: float = 0.1
    spread: Spread = ASSUMED


@dataclass(frozen=True)
class Sample:
    """How P of a run depends on the images it was measured on: `metric` under weights of them,
    the `clusters` of images (`OfSplit.clusters`) and what names them all (`OfSplit.test_set`)."""

    metric: Weighted
    clusters: Ints
    test_set: str


@dataclass(frozen=True)
class Draws:
    """`performance` and the `costs` by column, [draws, `models`]; `value` is P as measured.

    P is the sum of `value`, `images` [draws, models], the error of the images, and a normal one of
    the variance `seeds` [models], that of a mean over the runs. `missing` says for each model why
    the error of the images is not known, and is empty where it is. `sampled`
    are the models whose images were drawn, and `spread` that of P between runs where no model has
    several.
    """

    models: pd.Index
    value: Floats
    performance: Floats
    costs: Mapping[str, Floats]
    images: Floats
    seeds: Floats
    missing: tuple[str, ...]
    sampled: Bools
    spread: Spread | None


def draw(
    runs: pd.DataFrame,
    models: pd.Index,
    samples: Mapping[str, Sample],
    costs: Sequence[str],
    errors: Errors,
    *,
    draws: int = 2000,
    seed: int = 0,
) -> Draws:
    """Draws of the `models` of a comparison set.

    `runs` has one row per run: `run_id`, `model` (its place in `models`), `performance`, the
    columns `costs`, `energy` (`estimated`, or anything else), `machine`, for each form of use that
    costs are of `energy FORM` and `machine FORM`, `images` (how many test images `performance` is a
    share of, or NaN) and `doubt` (why a run has no believable sample, or empty). P of a model
    without `samples` errs by the binomial law of its `images`, as if its runs shared them, apart
    from other models.

    The spread between runs that images explain is not added a second time: of several runs on one
    test set it is the variance of their distances from their mean, over the draws of images.
    """
    runs = runs.sort_values("model", kind="stable")
    model = runs["model"].to_numpy()
    counts = np.bincount(model)
    value = runs.groupby("model")["performance"].mean().to_numpy(float)
    images, explained, unknown = _by_images(runs, samples, value, draws, seed)
    rng = np.random.default_rng(seed)
    apart = runs["performance"].to_numpy(float) - value[model]
    squares = np.asarray(np.bincount(model, apart**2), dtype=float)
    variance, freedom = _between_runs(squares, explained, counts, errors.spread)
    seeds = variance / counts
    normal = rng.standard_normal(images.shape) * _wider(freedom, draws, rng)
    doubts = runs.groupby("model")["doubt"].max()  # one of them, where there are several
    return Draws(
        models,
        value,
        np.clip(value + images + normal * np.sqrt(seeds), 0, 1),
        _drawn_costs(runs, model, costs, errors, draws, rng),
        images,
        seeds,
        tuple(doubt or why for doubt, why in zip(doubts, unknown, strict=True)),
        runs["run_id"].isin(list(samples)).groupby(runs["model"]).any().to_numpy(),
        errors.spread if counts.max() == 1 else None,
    )


def _wider(freedom: Floats, draws: int, rng: np.random.Generator) -> Floats:
    """What makes normal errors those of Student's t, [draws, models]: models of equal degrees of
    freedom share the error of their spread."""
    wider = np.ones((draws, len(freedom)))
    for d in np.unique(freedom[np.isfinite(freedom)]):
        wider[:, freedom == d] = np.sqrt(d / rng.chisquare(d, (draws, 1)))
    return wider


def _between_runs(
    squares: Floats, explained: Floats, counts: Ints, spread: Spread
) -> tuple[Floats, Floats]:
    """The variance of P between runs that images do not explain, and its degrees of freedom."""
    freedom = np.asarray(counts - 1.0)
    if not freedom.any():
        same = np.full(len(counts), spread.sd**2)
        return same, np.full(len(counts), float(spread.freedom))
    found = moderated(np.asarray(squares / np.maximum(freedom, 1)), freedom)
    total, by_images = float(squares.sum()), float((freedom * explained).sum())
    # of all models together: of one it is too uncertain, and often more than its runs differ
    rest = max(0.0, 1 - by_images / total) if total > 0 else 0.0
    return found.variance * rest, found.freedom


# The test images --------------------------------------------------------------------------------


def _by_images(
    runs: pd.DataFrame, samples: Mapping[str, Sample], value: Floats, draws: int, seed: int
) -> tuple[Floats, Floats, list[str]]:
    """The error of P by the images, [draws, models], the variance between the runs of a model that
    it explains, and why it is not known, [models].

    A model of an unknown number of images is drawn as if it had those of the others, so that these
    have ranks; where no number is known, its error is 0.
    """
    sampled = runs[runs["run_id"].isin(list(samples))]
    model, ids = sampled["model"].to_numpy(), sampled["run_id"].tolist()
    _, found = by_images([samples[run] for run in ids], draws, seed)
    number = runs.groupby("model")["images"].first().to_numpy(float).copy()
    number[model] = [len(np.unique(samples[run].clusters)) for run in ids]
    undetermined = np.isnan(found)
    found[undetermined] = 0.0
    counts = np.bincount(model, minlength=len(value))
    images = np.zeros((draws, len(value)))
    np.add.at(images.T, model, found.T)
    images /= np.maximum(counts, 1)
    apart = np.bincount(model, (found - images[:, model]).var(axis=0), len(value))
    absent = np.bincount(model, undetermined.mean(axis=0), len(value)) / np.maximum(counts, 1)
    known = np.isfinite(number)
    why = np.select([absent > UNDETERMINED, ~known], [TOO_FEW, NOT_KNOWN], "").tolist()
    if known.any():
        number[~known] = np.median(number[known])
    rng = np.random.default_rng([seed, 1])
    for j in np.flatnonzero(~images.any(axis=0) & np.isfinite(number)):
        right = value[j] * number[j]  # Jeffreys' posterior has a width at 0 and 1, too
        images[:, j] = rng.beta(right + 0.5, number[j] - right + 0.5, draws) - value[j]
    return images, apart / np.maximum(counts - 1, 1), why


def _together(metrics: Sequence[Weighted]) -> Weighted:
    """Metrics of the same images under weights, [draws, metrics]."""
    ratios = [m for m in metrics if isinstance(m, Ratios)]
    if len(ratios) == len(metrics):
        return together(ratios)
    return lambda weights: np.array([metric(weights) for metric in metrics]).T


def by_images(samples: Sequence[Sample], draws: int, seed: int) -> tuple[Floats, Floats]:
    """The metric of each sample, and its error by its images, [draws, samples]; those of one test
    set get the same images. NaN where the images do not determine the metric."""
    values, errors = np.zeros(len(samples)), np.zeros((draws, len(samples)))
    sets: dict[str, list[int]] = {}
    for place, sample in enumerate(samples):
        sets.setdefault(sample.test_set, []).append(place)
    for name, places in sets.items():
        clusters = shared_clusters([samples[i] for i in places])
        size, every = len(np.unique(clusters)), np.ones((1, len(clusters)))
        at = _together([samples[i].metric for i in places])
        values[places] = at(every)[0]
        for some, weights in weights_of(clusters, draws, seed, name):
            errors[some, places] = at(weights) - values[places]
        errors[:, places] *= np.sqrt(size / max(1, size - 1))
    return values, errors


def shared_clusters(samples: Sequence[Sample]) -> Ints:
    """The patients of one test set, which files of earlier versions do not know."""
    return min((sample.clusters for sample in samples), key=lambda clusters: int(clusters.max()))


def weights_of(clusters: Ints, draws: int, seed: int, name: str) -> Iterator[tuple[slice, Singles]]:
    """How often each image is drawn, [draws, images], some draws at a time.

    The draws of a test set depend on its `name` and `seed` alone.
    """
    rng = np.random.default_rng([seed, *name.encode()])
    size = int(clusters.max()) + 1
    at_once = max(1, _AT_ONCE // max(size, len(clusters)))
    for start in range(0, draws, at_once):
        some = slice(start, min(start + at_once, draws))
        rows = some.stop - some.start
        taken = rng.integers(0, size, (rows, size)) + size * np.arange(rows)[:, None]
        times = np.bincount(taken.ravel(), minlength=rows * size).reshape(rows, size)
        yield some, times.astype(np.float32)[:, clusters]


# Costs ------------------------------------------------------------------------------------------


def _drawn_costs(
    runs: pd.DataFrame,
    model: Ints,
    costs: Sequence[str],
    errors: Errors,
    draws: int,
    rng: np.random.Generator,
) -> dict[str, Floats]:
    """Mean costs by column, [draws, models]. Costs of one run vary together, and so do those that
    are made of energy."""
    means = runs.groupby("model")[list(costs)].mean().to_numpy(float)
    counts = np.bincount(model)
    apart = runs[list(costs)].to_numpy(float) / np.where(means > 0, means, 1)[model]
    apart = np.nan_to_num(apart - (means > 0)[model])  # of models without the cost
    freedom = int((counts - 1).sum())
    varied = np.zeros((draws, *means.shape))
    if freedom and len(costs):
        variances, directions = np.linalg.eigh(apart.T @ apart / freedom)
        root = directions * np.sqrt(np.maximum(variances, 0))
        normal = rng.standard_normal(varied.shape) @ root.T
        wider = np.sqrt(freedom / rng.chisquare(freedom, (draws, 1, 1)))
        varied = normal * wider / np.sqrt(counts)[:, None]
    varied = varied.clip(-_WIDEST, _WIDEST)
    factors = _energy_factors(runs, errors, draws, len(counts), rng)
    return {
        c: means[:, j] * np.exp(varied[..., j]) * factors.get(_kind(c), 1.0)
        for j, c in enumerate(costs)
    }


def _kind(cost: str) -> str:
    """What a cost is the energy of, empty for one that is made of none."""
    if is_energy(cost):
        return form_of(cost)
    return "training" if about_energy([cost]) else ""


def _energy_factors(
    runs: pd.DataFrame, errors: Errors, draws: int, models: int, rng: np.random.Generator
) -> dict[str, Floats]:
    """True over given energy of each kind, [draws, models].

    What estimates have in common they have for training and use alike on one machine.
    """
    kinds = {"training": "", **{form: f" {form}" for form in FORMS if f"energy {form}" in runs}}
    machines = pd.DataFrame({kind: runs[f"machine{of}"].fillna("") for kind, of in kinds.items()})
    names = np.unique(machines.to_numpy(str))
    shared = rng.standard_normal((draws, len(names)))
    found = {}
    for kind, of in kinds.items():
        place = pd.Series(np.searchsorted(names, machines[kind].to_numpy(str)), runs.index)
        common = shared[:, place.groupby(runs["model"]).first().to_numpy()]
        estimated = (runs[f"energy{of}"] == "estimated").groupby(runs["model"]).any().to_numpy()
        own = rng.standard_normal((draws, models))
        found[kind] = np.where(
            estimated,
            (1 + errors.common) ** common * (1 + errors.own) ** own,
            (1 + errors.measured) ** own,
        )
    return found


def error_notes(drawn: Draws) -> list[str]:
    """What a reader must know about the errors of a comparison set."""
    found = []
    if drawn.spread is not None:
        sd, source = f"{drawn.spread.sd:.2g}", drawn.spread.source
        remedy = "" if source == STATED else ", or state it with --seed-sd"
        found.append(
            f"each model has one run, so P is taken to vary between runs by {sd} ({source}); train "
            f"more seeds{remedy}"
        )
    by_law = ~drawn.sampled & np.array([not why for why in drawn.missing])
    if by_law.any():
        found.append(
            f"{by_law.sum()} of {len(by_law)} models have no predictions: the error of their P is "
            "that of as many independent images, unpaired and approximate"
        )
    for why in sorted({why for why in drawn.missing if why}):
        n = drawn.missing.count(why)
        found.append(
            f"no interval for {n} of {len(drawn.missing)} models: {why}{_REMEDIES.get(why, '')}"
        )
    return found
