"""Performance of a set of predictions, each metric defined once. Pure.

Most metrics are means of ratios of sums over images (`Ratios`), so that a bootstrap over images is
a product of matrices: the weights of the images by draw, times what each image contributes. The
others need the images in the order of their probabilities. All are computed here, since
importing scikit-learn would cost every job a second; tests compare them with it.

`labels` are class indices [n], or 0/1 [n, labels] for a multi-label task, where -1 stands for not
known: no metric counts such a label of an image, and its other labels count. `probabilities` are
[n, classes] (two columns for a binary task) or [n, labels].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pepr_mlops.names import MULTI_LABEL, Task

Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.integer]
Bools = npt.NDArray[np.bool_]
Weighted = Callable[[Floats], Floats]  # a metric under each row of weights, [draws, images]

_BINS = 15  # of the calibration error, as C. Guo et al. 2017 have them
_SPECIFICITY = 0.9  # at which `sensitivity_at_90_specificity` is taken
BIASED = ("ece",)  # by few images, upwards: its draws say nothing of its error
SCORES = ("accuracy", "balanced_accuracy", "macro_f1", "auc")


@dataclass(frozen=True)
class Predicted:
    """The predictions of one model for the images of one split. `thresholds` are chosen on
    validation (`thresholds_of`), one for each column of `one_vs_rest`, or None."""

    labels: Ints
    probabilities: Floats
    task: Task
    thresholds: Floats | None = None


@dataclass(frozen=True)
class Ratios:
    """A metric as a mean over classes, each the sum of its `offset` and ratios Σwa / Σwb over the
    images.

    `above` and `below` are a and b, [classes, ratios, images], where `below` may have length 1 in
    place of classes and ratios. `offset` is [classes]. Weights that leave a denominator empty leave
    out the class.
    """

    above: Floats
    below: Floats
    offset: Floats | float = 0.0

    def __call__(self, weights: Floats) -> Floats:
        """The metric under each row of `weights`, [draws, images]; NaN where no class is left."""
        return self._of(_sums(weights, self.above), _sums(weights, self.below))

    def _of(self, above: Floats, below: Floats) -> Floats:
        with np.errstate(divide="ignore", invalid="ignore"):
            classes = (above / below).sum(axis=-1) + self.offset
            known = np.isfinite(classes)
            return np.asarray(np.where(known, classes, 0).sum(axis=-1) / known.sum(axis=-1))

    def complement(self) -> Ratios:
        """1 less the metric."""
        return Ratios(-self.above, self.below, 1 - self.offset)


def together(metrics: Sequence[Ratios]) -> Weighted:
    """Several metrics of the same images under weights, [draws, metrics], in one product."""
    below = [m.below for m in metrics]
    if all(np.array_equal(one, below[0]) for one in below):  # of the same labels: sum once
        below = below[:1]
    sides = [[m.above for m in metrics], below]
    flat = [
        np.concatenate([part.reshape(-1, part.shape[-1]) for part in parts]).T for parts in sides
    ]
    ends = [np.cumsum([np.prod(part.shape[:2]) for part in parts])[:-1] for parts in sides]

    def at(weights: Floats) -> Floats:
        sums = [
            np.split(weights @ columns.astype(weights.dtype, copy=False), places, axis=1)
            for columns, places in zip(flat, ends, strict=True)
        ]
        shaped = [
            [one.reshape(-1, *part.shape[:2]) for one, part in zip(own, parts, strict=True)]
            for own, parts in zip(sums, sides, strict=True)
        ]
        denominators = shaped[1] * (len(metrics) // len(below))
        pairs = zip(metrics, shaped[0], denominators, strict=True)
        return np.array([metric._of(*pair) for metric, *pair in pairs]).T

    return at


def _sums(weights: Floats, parts: Floats) -> Floats:
    """Weighted sums, [draws, classes, ratios], of parts [classes, ratios, images]."""
    flat = parts.reshape(-1, parts.shape[-1]).astype(weights.dtype, copy=False)
    return np.asarray(weights @ flat.T).reshape(len(weights), *parts.shape[:2])


def scores(labels: Ints, probabilities: Floats, task: Task) -> dict[str, float]:
    """Accuracy, balanced accuracy, macro F1 and AUC of one split.

    Accuracy and AUC follow `medmnist.evaluator`: accuracy is the share of all known labels when
    there are several, AUC one class against the rest and averaged. Balanced accuracy of several
    labels is averaged alike. A score the split does not determine (AUC where a class is absent) is
    left out of the result.
    """
    if len(labels) == 0 or len(labels) != len(probabilities):
        raise ValueError(f"{len(labels)} labels for {len(probabilities)} predictions")
    return _values(Predicted(labels, probabilities, task), SCORES)


def clinical(predicted: Predicted) -> dict[str, float]:
    """The other metrics of `METRICS`, one class against the rest and averaged where there are
    several; those that the split does not determine are left out."""
    return _values(predicted, [name for name in METRICS if name not in SCORES])


def _values(predicted: Predicted, names: tuple[str, ...] | list[str]) -> dict[str, float]:
    found = {name: value(name, predicted) for name in names}
    return {name: number for name, number in found.items() if number is not None}


def value(name: str, predicted: Predicted) -> float | None:
    """The metric `name` of `METRICS`, None where the split does not determine it."""
    weighted = METRICS[name](predicted)
    if weighted is None:
        return None
    found = float(weighted(np.ones((1, len(predicted.labels))))[0])
    return found if np.isfinite(found) else None


@dataclass(frozen=True)
class OneVsRest:
    """For each class or label, a column, whether an image is `positive` (of it) or `negative`, and
    its `chance`, all [images, columns]; of a binary task the second class alone. A label that is
    not known is neither."""

    positive: Bools
    negative: Bools
    chance: Floats

    @property
    def determined(self) -> bool:
        """Whether every column has images of both kinds."""
        return bool((self.positive.any(axis=0) & self.negative.any(axis=0)).all())

    def columns(self) -> list[tuple[Bools, Bools, Floats]]:
        """`positive`, `negative` and `chance` of each column."""
        return list(zip(self.positive.T, self.negative.T, self.chance.T, strict=True))


def one_vs_rest(predicted: Predicted) -> OneVsRest:
    labels, chances = predicted.labels, predicted.probabilities
    if predicted.task == MULTI_LABEL:
        return OneVsRest(labels == 1, labels == 0, chances)
    truth = labels[:, None] == np.arange(chances.shape[1])
    columns = slice(1, None) if predicted.task == "binary-class" else slice(None)
    return OneVsRest(truth[:, columns], ~truth[:, columns], chances[:, columns])


def thresholds_of(predicted: Predicted) -> Floats | None:
    """For each column of `one_vs_rest` the probability from which an image counts as positive: the
    one of the greatest sensitivity + specificity (W. J. Youden 1950), halfway to the next lower
    probability; None where a class is absent."""
    parts = one_vs_rest(predicted)
    if not parts.determined:
        return None
    found = []
    for positive, negative, chance in parts.columns():
        levels, tp, fp = _curve(positive, negative, chance, np.ones((1, len(chance))))
        best = int(np.argmax(tp[0] / tp[0, -1] - fp[0] / fp[0, -1]))
        following = levels[best + 1] if best + 1 < len(levels) else 0.0
        found.append((float(levels[best]) + float(following)) / 2)
    return np.array(found)


def images_right(name: str, predicted: Predicted) -> Bools | None:
    """Which of the images that the metric `name` is a share of are right, such as which of the
    positive ones of a sensitivity; None where it is no share of images."""
    made = {"accuracy": _accuracy, "sensitivity": _sensitivity, "specificity": _specificity}
    ratios = made[name](predicted) if name in made else None
    if ratios is None or len(ratios.above) > 1:  # a mean over classes
        return None
    right, of_kind = ratios.above[0, 0], ratios.below[0, 0]
    if not np.isin([right, of_kind], (0, 1)).all():  # shares of several labels
        return None
    return np.asarray(right[of_kind == 1] == 1)


def confusion(labels: Ints, probabilities: Floats, task: Task) -> Ints:
    """Counts [true class, predicted class]; for a multi-label task [label, 4]: true negatives,
    false positives, false negatives, true positives."""
    classes = _named(probabilities, task)
    if task == MULTI_LABEL:
        places = [
            (2 * true + named)[true >= 0] for true, named in zip(labels.T, classes.T, strict=True)
        ]
        return np.array([np.bincount(place, minlength=4) for place in places])
    n = probabilities.shape[1]
    return np.bincount(n * labels + classes, minlength=n * n).reshape(n, n)


def _named(probabilities: Floats, task: Task) -> Ints:
    """Class indices [n], or 0/1 per label [n, labels] at threshold 0.5 for a multi-label task."""
    if task == MULTI_LABEL:
        return (probabilities > 0.5).astype(np.int64)
    return np.asarray(np.argmax(probabilities, axis=1))


# Ratios of sums over images ---------------------------------------------------------------------


def _accuracy(predicted: Predicted) -> Ratios:
    right = predicted.labels == _named(predicted.probabilities, predicted.task)
    return _mean(right, predicted)


def _balanced_accuracy(predicted: Predicted) -> Ratios:
    labels, named = predicted.labels, _named(predicted.probabilities, predicted.task)
    if predicted.task == MULTI_LABEL:
        of_class = np.stack([labels == 0, labels == 1]).transpose(2, 0, 1).astype(float)
        right = (labels == named).T[:, None]
    else:
        of_class = (labels == np.unique(labels)[:, None])[:, None].astype(float)
        right = (labels == named)[None, None]
    seen = of_class.any(axis=-1, keepdims=True)
    kinds = seen.sum(axis=1, keepdims=True)  # none where no image has a known label
    above = of_class * right / np.maximum(kinds, 1)
    return Ratios(above, np.where(seen | (kinds == 0), of_class, 1.0))


def _macro_f1(predicted: Predicted) -> Ratios:
    labels, named = predicted.labels, _named(predicted.probabilities, predicted.task)
    known = _known(predicted).T
    if predicted.task == MULTI_LABEL:
        true, called = labels.T == 1, (named.T == 1) & known
    else:
        classes = np.union1d(labels, named)[:, None]
        true, called = labels == classes, named == classes
    total = true.astype(float) + called
    # F1 of a label that no image has or gets is 0, as scikit-learn has it, where it is known of any
    below = np.where(total.any(axis=1, keepdims=True), total, known)
    return Ratios(2.0 * (true & called)[:, None], below[:, None])


def auc(predicted: Predicted) -> Ratios | None:
    """The chance that a positive image ranks above a negative one, ties counting half.

    To first order in the weights, by the placements of E. R. DeLong et al. 1988: of each positive
    the share of negatives below it, and of each negative the share of positives above it. The
    variance over weights is DeLong's.
    """
    parts = one_vs_rest(predicted)
    if not parts.determined:
        return None
    below = np.stack([parts.positive.T, parts.negative.T], axis=1).astype(float)
    above = np.zeros(below.shape)
    for column, (positive, negative, chance) in enumerate(parts.columns()):
        p, n = chance[positive], chance[negative]
        ranks = _ranks(np.concatenate([p, n]))
        above[column, 0, positive] = (ranks[: len(p)] - _ranks(p)) / len(n)
        above[column, 1, negative] = 1 - (ranks[len(p) :] - _ranks(n)) / len(p)
    return Ratios(above, below, -(above[:, 0].sum(axis=1) / below[:, 0].sum(axis=1)))


def _sensitivity(predicted: Predicted) -> Ratios | None:
    return _recall(predicted, lambda parts, called: (parts.positive, called))


def _specificity(predicted: Predicted) -> Ratios | None:
    return _recall(predicted, lambda parts, called: (parts.negative, ~called))


def _recall(
    predicted: Predicted, chosen: Callable[[OneVsRest, Bools], tuple[Bools, Bools]]
) -> Ratios | None:
    parts = one_vs_rest(predicted)
    if predicted.thresholds is None or not parts.determined:
        return None
    of_kind, right = chosen(parts, parts.chance >= predicted.thresholds)
    return Ratios((of_kind & right).T[:, None].astype(float), of_kind.T[:, None].astype(float))


def _brier(predicted: Predicted) -> Ratios:
    """Mean squared error of the probabilities, halved over all classes so that it is in [0, 1] and,
    of a binary task, that of the second class; averaged over labels."""
    labels, chances = predicted.labels, predicted.probabilities.astype(float)
    if predicted.task == MULTI_LABEL:
        return _mean(np.square(chances - labels), predicted)
    truth = labels[:, None] == np.arange(chances.shape[1])
    return _mean(((chances - truth) ** 2).sum(axis=1) / 2, predicted)


def _mean(found: Floats | Bools, predicted: Predicted) -> Ratios:
    """The mean of what was `found` for each image or each known label, shaped as the labels."""
    known = _known(predicted)
    shares = [part.mean(axis=1)[None, None] for part in (found.reshape(known.shape) * known, known)]
    return Ratios(*shares)


def _known(predicted: Predicted) -> Bools:
    """Which labels are known, [images, labels]; [images, 1] where each image has one class."""
    return (predicted.labels >= 0).reshape(len(predicted.labels), -1)


def _ranks(values: Floats) -> Floats:
    """From 1, the mean rank for ties."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[place])


# Metrics of the images in order -----------------------------------------------------------------


def _curve(
    positive: Bools, negative: Bools, score: Floats, weights: Floats
) -> tuple[Floats, Floats, Floats]:
    """The different scores, descending, and the weights [draws, scores] of the positive and of the
    negative images with at least that score."""
    order = np.argsort(-score, kind="stable")
    order = order[(positive | negative)[order]]
    ordered = score[order]
    last = np.append(np.flatnonzero(np.diff(ordered)), len(ordered) - 1)
    taken = weights[:, order]
    tp = np.cumsum(taken * positive[order], axis=1)[:, last]
    fp = np.cumsum(taken * negative[order], axis=1)[:, last]
    return ordered[last], tp, fp


def _average_precision(positive: Bools, negative: Bools, score: Floats, weights: Floats) -> Floats:
    """Precision at each score, weighted by the recall that it adds (as scikit-learn)."""
    _, tp, fp = _curve(positive, negative, score, weights)
    with np.errstate(divide="ignore", invalid="ignore"):
        precision = np.where(tp + fp > 0, tp / (tp + fp), 0.0)
        return np.asarray((np.diff(tp, axis=1, prepend=0) * precision).sum(axis=1) / tp[:, -1])


def _sensitivity_at(positive: Bools, negative: Bools, score: Floats, weights: Floats) -> Floats:
    """The greatest sensitivity of a threshold with at least this specificity."""
    _, tp, fp = _curve(positive, negative, score, weights)
    with np.errstate(divide="ignore", invalid="ignore"):
        false_alarms = fp / fp[:, -1:]
        allowed = false_alarms <= 1 - _SPECIFICITY + 1e-12
        found = np.where(allowed, tp, 0).max(axis=1) / tp[:, -1]
    return np.asarray(np.where(fp[:, -1] > 0, found, np.nan))


def _over_classes(
    of_class: Callable[[Bools, Bools, Floats, Floats], Floats],
) -> Callable[[Predicted], Weighted | None]:
    """A metric of one class against the rest, averaged over the classes."""

    def metric(predicted: Predicted) -> Weighted | None:
        parts = one_vs_rest(predicted)
        if not parts.determined:
            return None
        columns = parts.columns()

        def at(weights: Floats) -> Floats:
            classes = np.array([of_class(*column, weights) for column in columns])
            known = np.isfinite(classes)
            with np.errstate(invalid="ignore"):
                return np.asarray(np.where(known, classes, 0).sum(axis=0) / known.sum(axis=0))

        return at

    return metric


@dataclass(frozen=True)
class Reliability:
    """Confidence and accuracy in equal bins of the confidence: `count`, mean `confidence` and
    `accuracy`, [bins], NaN in empty ones."""

    count: Ints
    confidence: Floats
    accuracy: Floats


def reliability(predicted: Predicted) -> Reliability:
    """The reliability curve of the named class, of several labels of all together."""
    confidence, right = _confidence(predicted)
    known = _known(predicted)
    place = _bin(confidence)[known]
    count = np.bincount(place, minlength=_BINS)
    with np.errstate(divide="ignore", invalid="ignore"):
        means = [
            np.bincount(place, values[known].astype(float), _BINS) / count
            for values in (confidence, right)
        ]
    return Reliability(count, *means)


def _confidence(predicted: Predicted) -> tuple[Floats, Bools]:
    """The probability of what was named, and whether it is right, [images, labels]."""
    chances = predicted.probabilities.astype(float)
    named = _named(predicted.probabilities, predicted.task)
    right = (named == predicted.labels).reshape(len(chances), -1)
    if predicted.task == MULTI_LABEL:
        return np.where(named == 1, chances, 1 - chances), right
    return np.take_along_axis(chances, named[:, None], axis=1), right


def _bin(confidence: Floats) -> Ints:
    """The bins are open below, so that 1 is in the last."""
    return np.clip(np.ceil(confidence * _BINS).astype(np.int64) - 1, 0, _BINS - 1)


def _calibration_error(predicted: Predicted) -> Weighted:
    """Expected calibration error (M. P. Naeini et al. 2015; C. Guo et al. 2017): the distance of
    confidence and accuracy in each bin, averaged over the known answers."""
    confidence, right = _confidence(predicted)
    known = _known(predicted)
    place, gap = _bin(confidence), (right - confidence) * known / known.shape[1]
    parts = np.array([np.where(place == b, gap, 0).sum(axis=1) for b in range(_BINS)])[None]
    share = known.mean(axis=1)
    return lambda weights: np.abs(_sums(weights, parts)).sum(axis=(1, 2)) / (weights @ share)


# Each by its name without the split: what computes it from predictions under weights of the images.
METRICS: dict[str, Callable[[Predicted], Weighted | None]] = {
    "accuracy": _accuracy,
    "balanced_accuracy": _balanced_accuracy,
    "macro_f1": _macro_f1,
    "auc": auc,
    "average_precision": _over_classes(_average_precision),
    "sensitivity": _sensitivity,
    "specificity": _specificity,
    "sensitivity_at_90_specificity": _over_classes(_sensitivity_at),
    "brier": _brier,
    "ece": _calibration_error,
}
