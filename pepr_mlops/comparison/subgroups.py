"""P of a few models in groups of the test images, such as the patients of one sex. Pure.

A model that is good enough for all images may be worse than another for some of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from pepr_mlops.comparison.draws import Sample
from pepr_mlops.comparison.estimates import estimate, means
from pepr_mlops.comparison.predictions import OfSplit, Predictions
from pepr_mlops.comparison.sampling import Measured
from pepr_mlops.names import GROUP_VALUES, PATIENT

COLUMNS = (
    *("group", "value", "n", "model", "performance", "low", "high", "missing"),
    *("behind", "behind_low", "behind_high"),
)


def subgroups(
    models: Mapping[str, Sequence[Predictions]],
    best: str,
    measured: Measured | None,
    *,
    draws: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """P of models, means over their runs, in each group of the test images, in COLUMNS.

    `models` are predictions of the runs by model. A row for each column of the data that all of
    them logged (`group`), each value of it and each model: `n`, the fewest images of a run; P with
    its 95% interval and `missing`, why one of them is not there; `behind`, how far P is below that
    of `best` on the same images, with its interval, missing for `best` itself. Intervals account
    for the images alone. Columns of more than 20 values are left out.
    """
    every = [predictions for runs in models.values() for predictions in runs]
    rows = []
    for group in sorted(set.intersection(*(set(p.test.groups) for p in every)) - {PATIENT}):
        values = np.unique(np.concatenate([p.test.groups[group] for p in every]))
        for value in values if len(values) <= GROUP_VALUES else ():
            parts = {
                model: [_part(predictions, group, value) for predictions in runs]
                for model, runs in models.items()
            }
            n = min(len(part.test.labels) for runs in parts.values() for part in runs)
            same = {"group": group, "value": str(value), "n": n}
            rows += [same | row for row in _rows(parts, best, measured, draws, seed)]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _part(predictions: Predictions, group: str, value: str) -> Predictions:
    """The predictions for the test images whose `group` is `value`."""
    test = predictions.test
    here = test.groups[group] == value
    images = None if test.images is None else test.images[here]
    patients = {PATIENT: test.groups[PATIENT][here]} if PATIENT in test.groups else {}
    return replace(
        predictions, test=OfSplit(test.labels[here], test.probabilities[here], images, patients)
    )


def _rows(
    parts: Mapping[str, Sequence[Predictions]],
    best: str,
    measured: Measured | None,
    draws: int,
    seed: int,
) -> Iterator[dict[str, object]]:
    """P of each model in one group."""
    samples = {model: _samples(runs, measured) for model, runs in parts.items()}
    known = {model: found for model, found in samples.items() if found is not None}
    values, errors = means(list(known.values()), draws, seed) if known else (np.array([]),) * 2
    places = {model: i for i, model in enumerate(known)}
    for model in parts:
        if model not in known:
            yield {"model": model, "missing": "these images do not determine it"}
            continue
        i = places[model]
        found = estimate(values[i], errors[:, i])
        row: dict[str, object] = {"model": model, "performance": found.pop("value"), **found}
        if model != best and best in known:
            b = places[best]
            away = estimate(values[b] - values[i], errors[:, b] - errors[:, i], -1.0)
            row |= {f"behind_{end}": away[end] for end in ("low", "high")}
            row["behind"] = away["value"]
        yield row


def _samples(parts: Sequence[Predictions], measured: Measured | None) -> list[Sample] | None:
    """How P of each run depends on its images, None where these do not determine it."""
    on_test = None if measured is None else measured.on("test")
    if on_test is None or any(len(part.test.labels) == 0 for part in parts):
        return None
    found = [on_test.sample(part) for part in parts]
    known = [sample for sample in found if sample is not None]
    return known if len(known) == len(found) else None
