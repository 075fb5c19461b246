"""What predictions are worth where the labels are known: metrics with intervals. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from pepr_mlops.comparison import estimates
from pepr_mlops.comparison.draws import Sample, by_images
from pepr_mlops.comparison.metrics import METRICS, Floats, Predicted
from pepr_mlops.comparison.predictions import OfSplit
from pepr_mlops.names import MULTI_LABEL, Task

SHOWN = ("accuracy", "balanced_accuracy", "auc", "sensitivity", "specificity")
_OF_NAMES = ("accuracy", "balanced_accuracy")
_DRAWS = 2000


def evaluate(
    found: OfSplit,
    task: Task,
    thresholds: Floats | None,
    named: Floats,
    *,
    draws: int = _DRAWS,
    seed: int = 0,
) -> pd.DataFrame:
    """Each metric SHOWN, with a 95% interval by drawing patients, or images where none is known.

    `thresholds` are those of `metrics.Predicted`. `named` [n, classes] is 1 for each class or label
    that was named: accuracies are of these. Columns `metric`, `value`, `low`, `high` and `missing`,
    why one of the numbers is not there.
    """
    predicted = Predicted(found.labels, found.probabilities, task, thresholds)
    answers = Predicted(found.labels, named.astype(float), task, thresholds)
    metrics = {name: METRICS[name](answers if name in _OF_NAMES else predicted) for name in SHOWN}
    known = {name: metric for name, metric in metrics.items() if metric is not None}
    samples = [Sample(metric, found.clusters, found.test_set) for metric in known.values()]
    values, errors = by_images(samples, draws, seed)
    rows: dict[str, dict[str, object]] = {
        name: {
            "missing": "no threshold"
            if thresholds is None and name in ("sensitivity", "specificity")
            else "a class has no images"
        }
        for name in SHOWN
    }
    for name, value, error in zip(known, values, errors.T, strict=True):
        rows[name] = dict(estimates.estimate(value, error))
    frame = [{"metric": name, **row} for name, row in rows.items()]
    return pd.DataFrame(frame, columns=["metric", *estimates.COLUMNS])


def class_counts(found: OfSplit, task: Task, classes: Sequence[str], named: Floats) -> pd.DataFrame:
    """For each class or label, a row: `images` of it, those predicted as it (`predicted`) and those
    of both (`right`). `named` [n, classes] is 1 where it was predicted. A label that is not known
    counts nowhere."""
    truth = found.labels
    if task != MULTI_LABEL:
        truth = (truth[:, None] == np.arange(len(classes))).astype(np.int64)
    predicted = (named > 0) & (truth >= 0)
    return pd.DataFrame(
        {
            "class": list(classes),
            "images": (truth == 1).sum(axis=0),
            "predicted": predicted.sum(axis=0),
            "right": (predicted & (truth == 1)).sum(axis=0),
        }
    )
