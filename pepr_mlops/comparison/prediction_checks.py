"""Which logged predictions cannot be those that a run was scored by. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from pepr_mlops.comparison.metrics import SCORES, value
from pepr_mlops.comparison.predictions import Predictions
from pepr_mlops.comparison.runs import Evidence
from pepr_mlops.names import MULTI_LABEL, PATIENT
from pepr_mlops.text import printable

_LOGGED = {(split, name): f"metrics.{split}/{name}" for split in ("test", "val") for name in SCORES}
# A score as a float of 32 bits is off by less than this, and one label of ten million by more.
_ROUNDING = 1e-7
_FOLD = ["folds", "fold"]
_LONGEST = 40  # characters of a digest in a text


def contradictions(runs: pd.DataFrame, evidence: Evidence) -> dict[str, str]:
    """By run why its predictions cannot be used, as a clause.

    They are wrong in themselves, contradict what the run logged, or are of other images than those
    of most of `runs` of its experiment on the same data and fold. Runs without predictions have no
    entry.
    """
    if not evidence.predictions:
        return {}
    columns = ["run_id", "experiment", "data_digest", *_FOLD, "seed", *_LOGGED.values()]
    here = runs.reindex(columns=columns).drop_duplicates("run_id")
    here[_FOLD] = here[_FOLD].fillna(0)  # 0 is no fold
    found, rest = {}, []
    for row in here[here["run_id"].isin(evidence.predictions)].to_dict("records"):
        predictions = evidence.predictions[row["run_id"]]
        why = _of_run(predictions, row["data_digest"], {n: row[c] for n, c in _LOGGED.items()})
        if why is not None:
            found[row["run_id"]] = why
        elif isinstance(predictions, Predictions):
            rest.append({**row, **_images(predictions)})
    return found | dict(_of_other_images(pd.DataFrame(rest))) if rest else found


def one_class(evidence: Evidence) -> dict[str, str]:
    """The runs of which `only_class` is true, with its clause."""
    found = {
        run: only_class(predictions)
        for run, predictions in evidence.predictions.items()
        if isinstance(predictions, Predictions) and not predictions.fault()
    }
    return {run: text for run, text in found.items() if text is not None}


def only_class(predictions: Predictions) -> str | None:
    """Which class is named for every test image, although several occur, as a clause, or None."""
    test = predictions.test
    named = np.unique(test.probabilities.argmax(axis=1))
    if predictions.task == MULTI_LABEL or len(named) > 1 or len(np.unique(test.labels)) < 2:
        return None
    name = printable(predictions.classes[int(named[0])])
    return f"it names {name[:_LONGEST]} for each of {len(test.labels):,} test images"


def _of_run(
    predictions: Predictions | str, digest: Any, scores: Mapping[tuple[str, str], float]
) -> str | None:
    """What is wrong without regard to other runs."""
    if isinstance(predictions, str):
        return predictions
    fault = predictions.fault()
    if fault is not None:
        return printable(fault)
    theirs = predictions.data_digest
    if theirs is not None and pd.notna(digest) and theirs != digest:
        return (
            f"its predictions are of other data (digest {printable(theirs)[:_LONGEST]}, "
            f"not {digest})"
        )
    for (split, name), logged in scores.items():
        given = None if predictions.on(split) is None else value(name, predictions.of(split))
        if given is not None and abs(given - logged) > _ROUNDING:
            return f"its predictions give {split}/{name} {given:.6g}, and it logged {logged:.6g}"
    return None


def _images(predictions: Predictions) -> dict[str, Any]:
    """What identifies the test images. Of earlier versions the patients are not known, and of some
    data sets the files are not: only runs that know the same can be told apart."""
    test = predictions.test
    known = f"{test.images is not None} {PATIENT in test.groups}"
    return {"count": len(test.labels), "known": known, "test_set": test.test_set}


def _of_other_images(runs: pd.DataFrame) -> Iterator[tuple[str, str]]:
    same = ["experiment", "data_digest", *_FOLD]
    sizes = {
        run: f"has {own:,} test images, the other runs on its data {usual:,}"
        for run, own, usual in _unusual(runs, same, "count")
    }
    yield from sizes.items()
    alike = runs[~runs["run_id"].isin(sizes)]
    # a seed may draw a test set of its own
    for run, *_ in _unusual(alike, [*same, "seed", "known"], "test_set"):
        yield run, "its test images are others than those of the other runs"


def _unusual(runs: pd.DataFrame, same: Sequence[str], what: str) -> Iterator[tuple[str, Any, Any]]:
    """Runs that differ from the majority of the runs with equal `same`: id, own and usual value."""
    for _, alike in runs.groupby(list(same)):
        ((usual, count),) = Counter(alike[what].tolist()).most_common(1)
        if 2 * count > len(alike):
            for run, own in zip(alike["run_id"], alike[what], strict=True):
                if own != usual:
                    yield run, own, usual
