"""The performance of one run from its predictions: overall, by class and by subgroup. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from pepr_mlops.comparison.estimates import estimate, means
from pepr_mlops.comparison.metrics import BIASED, METRICS, value
from pepr_mlops.comparison.predictions import OfSplit, Predictions
from pepr_mlops.comparison.sampling import Measured
from pepr_mlops.names import MULTI_LABEL, PATIENT

_DRAWS = 500  # some metrics sort the images in each draw
_NEED_THRESHOLD = ("sensitivity", "specificity")
OF_CLASS = ("sensitivity", "specificity", "auc", "average_precision")
NOT_LOGGED = "no interval: its predictions were not logged"


@dataclass(frozen=True)
class Measure:
    """One metric with its 95% interval over the images; `missing` says why a number is None, and
    is empty where all are there."""

    metric: str
    value: float | None
    low: float | None = None
    high: float | None = None
    missing: str = ""


@dataclass(frozen=True)
class OfClass:
    """One class or label against the rest: how many images of val and test are of it and are known
    not to be, the probability from which an image counts as it, and the metrics `OF_CLASS`."""

    name: str
    val: int | None
    positive: int
    negative: int
    threshold: float | None
    measures: tuple[Measure, ...]


def measures(
    predictions: Predictions, split: str, names: Sequence[str] = tuple(METRICS)
) -> tuple[Measure, ...]:
    """The metrics on a split, which the predictions have, with intervals."""
    found = {name: value(name, predictions.of(split)) for name in names}
    samples = {}
    for name, known in found.items():
        sample = Measured(False, split, name).sample(predictions)
        if known is not None and sample is not None:
            samples[name] = sample
    errors = means([[s] for s in samples.values()], _DRAWS, 0)[1] if samples else np.empty((0, 0))
    of_metric = dict(zip(samples, errors.T, strict=True))
    return tuple(
        _measure(name, known, of_metric.get(name), predictions.thresholds is None)
        for name, known in found.items()
    )


def _measure(
    name: str, known: float | None, errors: np.ndarray | None, no_threshold: bool
) -> Measure:
    if known is None:
        of_val = no_threshold and name in _NEED_THRESHOLD
        return Measure(name, None, missing=_NO_THRESHOLD if of_val else _NO_CLASS)
    if errors is None:
        why = "no interval: few images bias it upwards" if name in BIASED else NOT_LOGGED
        return Measure(name, known, missing=why)
    drawn = estimate(known, errors)
    low, high = (None if drawn[end] != drawn[end] else float(drawn[end]) for end in ("low", "high"))
    return Measure(name, known, low, high, str(drawn["missing"]))


_NO_THRESHOLD = "no threshold: validation does not have images of every class"
_NO_CLASS = "a class has no images"


def logged(run: pd.Series, split: str) -> tuple[Measure, ...]:
    """The metrics that a run without predictions logged."""
    values = {name: run.get(f"metrics.{split}/{name}") for name in METRICS}
    return tuple(
        Measure(name, float(number), missing=NOT_LOGGED)
        for name, number in values.items()
        if number is not None and np.isfinite(number)
    )


def by_class(predictions: Predictions) -> tuple[OfClass, ...]:
    """Each class against the rest on the test set, of a binary task the second class alone; each
    label of several where it is known."""
    return tuple(_by_class(predictions))


def _by_class(predictions: Predictions) -> Iterator[OfClass]:
    first = 1 if predictions.task == "binary-class" else 0
    for place, name in list(enumerate(predictions.classes))[first:]:
        test = _against_rest(predictions, predictions.test, place)
        val = predictions.val
        of_val = None if val is None else _against_rest(predictions, val, place)
        binary = Predictions("binary-class", ("rest", name), test, of_val)
        chosen = binary.thresholds
        yield OfClass(
            name,
            None if of_val is None else int(of_val.labels.sum()),
            int(test.labels.sum()),
            int((test.labels == 0).sum()),
            None if chosen is None else float(chosen[0]),
            measures(binary, "test", OF_CLASS) if len(test.labels) else (),
        )


def _against_rest(predictions: Predictions, split: OfSplit, place: int) -> OfSplit:
    """Whether each image is of the class, where that is known, and its probability."""
    if predictions.task == MULTI_LABEL:
        known, positive = split.labels[:, place] >= 0, split.labels[:, place] == 1
    else:
        known, positive = np.ones(len(split.labels), bool), split.labels == place
    chance = split.probabilities[known, place]
    patients = {PATIENT: split.groups[PATIENT][known]} if PATIENT in split.groups else {}
    images = None if split.images is None else split.images[known]
    both = np.column_stack([1 - chance, chance])
    return OfSplit(positive[known].astype(np.int64), both, images, patients)


def counts(predictions: Predictions, split: str) -> list[int] | None:
    """How many images of a split are of each class, None where it was not logged."""
    found = predictions.on(split)
    if found is None:
        return None
    if predictions.task == MULTI_LABEL:
        return [int(n) for n in (found.labels == 1).sum(axis=0)]
    return [int(n) for n in np.bincount(found.labels, minlength=len(predictions.classes))]


def patients(predictions: Predictions, split: str) -> int | None:
    """How many patients the images of a split are of, None where that is not known."""
    found = predictions.on(split)
    if found is None or PATIENT not in found.groups:
        return None
    return len(np.unique(found.groups[PATIENT]))
