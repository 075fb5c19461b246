"""Clinical metrics and calibration of a few models on the test set, from their predictions. Pure.

All are means over the runs of a model. Intervals account for the test images, which are drawn once
for all models and metrics.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from pepr_mlops.comparison import estimates
from pepr_mlops.comparison.draws import Sample
from pepr_mlops.comparison.metrics import BIASED, METRICS, SCORES, reliability, value
from pepr_mlops.comparison.predictions import Predictions
from pepr_mlops.comparison.sampling import Measured

SHOWN = ("balanced_accuracy", "auc", *(name for name in METRICS if name not in SCORES))
_DRAWS = 500  # some metrics sort the images in each draw
_BIAS = "no interval: few images bias it upwards"
_THRESHOLD = ("sensitivity", "specificity")
NO_THRESHOLD = "no validation predictions, which choose the threshold"


def table(
    models: Mapping[str, Sequence[Predictions]], *, draws: int = _DRAWS, seed: int = 0
) -> pd.DataFrame:
    """Each metric SHOWN of each model, from the predictions of its runs by model.

    Columns `metric`, `model`, `value`, `low`, `high` (95% over at most 500 draws of the images)
    and `missing`, why one of the numbers is not there.
    """
    rows: list[dict[str, object]] = []
    samples: list[list[Sample]] = []
    for metric in SHOWN:
        for model, runs in models.items():
            found = [Measured(False, "test", metric).sample(run) for run in runs]
            known = [sample for sample in found if sample is not None]
            row: dict[str, object] = {"metric": metric, "model": model}
            if metric in BIASED:
                row |= {"value": _mean(metric, runs), "missing": _BIAS}
            elif len(known) == len(found):
                samples.append(known)
            else:
                no_threshold = metric in _THRESHOLD and any(run.thresholds is None for run in runs)
                row["missing"] = NO_THRESHOLD if no_threshold else "a class has no test images"
            rows.append(row)
    values, errors = estimates.means(samples, min(draws, _DRAWS), seed)
    known_rows = (row for row in rows if "missing" not in row)
    for row, mean, error in zip(known_rows, values, errors.T, strict=True):
        row |= estimates.estimate(mean, error)
    return pd.DataFrame(rows, columns=["metric", "model", *estimates.COLUMNS])


def _mean(metric: str, runs: Sequence[Predictions]) -> float:
    values = [value(metric, run.of("test")) for run in runs]
    return float(np.mean([np.nan if one is None else one for one in values]))


def curves(models: Mapping[str, Sequence[Predictions]]) -> pd.DataFrame:
    """The reliability curve of each model on the test set, its runs together.

    Columns `model`, `confidence` and `accuracy` (means over the answers in a bin of the confidence)
    and `images`, the number of answers of a run in the bin; a multi-label task has an answer for
    each label. Empty bins are left out.
    """
    frames = []
    for model, runs in models.items():
        found = [reliability(run.of("test")) for run in runs]
        counts = np.array([one.count for one in found], dtype=float)
        total = counts.sum(axis=0)
        filled = total > 0
        columns = {
            name: (counts * np.nan_to_num([getattr(one, name) for one in found])).sum(axis=0)
            for name in ("confidence", "accuracy")
        }
        frames.append(
            pd.DataFrame(
                {
                    "model": model,
                    **{name: sums[filled] / total[filled] for name, sums in columns.items()},
                    "images": total[filled] / len(found),
                }
            )
        )
    return pd.concat(frames, ignore_index=True)
