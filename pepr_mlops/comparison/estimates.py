"""Numbers of a few models from their predictions, with intervals by drawing images. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pepr_mlops.comparison.draws import UNDETERMINED, Sample, by_images
from pepr_mlops.comparison.metrics import Floats

COLUMNS = ("value", "low", "high", "missing")
_TAILS = (0.025, 0.975)
_ROUNDING = 1e-6  # of sums of weights in single precision


def estimate(value: float, errors: Floats, least: float = 0.0) -> dict[str, float | str]:
    """The COLUMNS: a number in [`least`, 1], its 95% interval by its `errors` on draws of the
    images, [draws], and why one of them is missing, or an empty text."""
    absent = np.isnan(errors)
    low = high = np.nan
    why = ""
    if not np.isfinite(value):
        why = "a class has no images"
    elif absent.mean() > UNDETERMINED:
        why = "no interval: too few images of a class"
    elif (np.abs(errors[~absent]) < _ROUNDING).all():
        why = "no interval: no draw of the images changes it"
    else:
        low, high = np.quantile(np.clip(value + errors[~absent], least, 1.0), _TAILS)
    return dict(zip(COLUMNS, (float(value), float(low), float(high), why), strict=True))


def means(models: Sequence[Sequence[Sample]], draws: int, seed: int) -> tuple[Floats, Floats]:
    """The mean of each model over its samples, [models], and its errors, [draws, models]."""
    values, errors = by_images([sample for samples in models for sample in samples], draws, seed)
    ends = np.cumsum([len(samples) for samples in models])[:-1]
    return (
        np.array([part.mean() for part in np.split(values, ends)]),
        np.array([part.mean(axis=1) for part in np.split(errors, ends, axis=1)]).T,
    )
