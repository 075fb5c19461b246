"""`predict`: the probabilities of any number of images, written to a table while they are made."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
import torch

from pepr_mlops.comparison.evaluation import class_counts, evaluate
from pepr_mlops.comparison.metrics import Floats
from pepr_mlops.comparison.predictions import OfSplit
from pepr_mlops.data.inputs import Form, Image, Inputs
from pepr_mlops.data.own.listing import UNSURE, Known
from pepr_mlops.data.own.pixels import Reading, Unusable
from pepr_mlops.data.splits import Pixels
from pepr_mlops.errors import WorkFailed
from pepr_mlops.names import PATIENT
from pepr_mlops.train.use.description import Description, Weights
from pepr_mlops.train.use.model import BATCH
from pepr_mlops.train.use.rule import Rule
from pepr_mlops.train.use.written import FILE, FRAME, opened, write_errors

_MOST_THREADS = 8  # each holds a decoded image, which may take gigabytes


class Predictor(Protocol):
    """A trained model, whatever runs it."""

    @property
    def description(self) -> Description: ...
    @property
    def weights(self) -> Weights: ...
    def of_batch(self, images: Pixels) -> Floats: ...


@dataclass(frozen=True)
class Evaluation:
    """What predictions are worth: `metrics` as `evaluation.evaluate` and `classes` as
    `evaluation.class_counts`, of so many `images` and, where known, `patients`."""

    metrics: pd.DataFrame
    classes: pd.DataFrame
    images: int
    patients: int | None


@dataclass(frozen=True)
class Outcome:
    """What was predicted. `images` counts the rows of the table, `earlier` the files that it had
    before, `counts` the images of each class or label, and `positive` those from the threshold on,
    None without one. `faults` are files that gave no image and why; the table `errors` has them.
    `evaluation` is None where no label is known."""

    images: int
    earlier: int
    counts: dict[str, int]
    positive: int | None
    faults: list[tuple[str, str]]
    errors: Path | None
    evaluation: Evaluation | None


def form_of(found: Description) -> Form:
    """What the images of a model are made of."""
    reading = Reading(**{f.name: getattr(found, f.name) for f in fields(Reading)})
    return Form(
        reading=reading,
        bounds=found.bounds,
        grey=found.colour == "grey",
        known=Known(found.classes, found.task),
        dataset=found.dataset,
        data_digest=found.data_digest,
    )


def predict(
    model: Predictor, inputs: Inputs, out: Path, rule: Rule, *, batch_size: int = BATCH
) -> Outcome:
    """Write a row for each image to the table `out`, and evaluate them where labels are known.

    Columns: `file`, `frame` (of a file with several, from 0) and those of `Rule.header`. A call
    with the same model, rule and images continues an earlier one. Files that give no image are
    listed in the outcome and passed over. Raises as `written.opened`, and `WorkFailed` where the
    memory is too small.
    """
    faults: list[tuple[str, str]] = []
    settings = _settings(model, inputs, rule)
    with opened(out, [FILE, FRAME, *rule.header()], settings) as table:
        earlier = len(table.done.intersection(inputs.names))
        rest = [i for i, name in enumerate(inputs.names) if name not in table.done]
        images = _images(inputs, rest, faults)
        while part := list(islice(images, batch_size)):
            answers = rule.rows(_chances(model, np.stack([image for *_, image in part])))
            pairs = zip(part, answers, strict=True)
            table.add([[inputs.names[i], frame, *row] for (i, frame, _), row in pairs])
        errors = write_errors(out, faults)
    rows, chances = _read(out, inputs, rule)
    return Outcome(
        images=len(rows),
        earlier=earlier,
        counts=rule.counts(chances),
        positive=None if rule.positive is None else int(rule.above(chances).sum()),
        faults=faults,
        errors=errors,
        evaluation=_evaluation(inputs, rows, chances, rule, model),
    )


def _settings(model: Predictor, inputs: Inputs, rule: Rule) -> dict[str, Any]:
    """What decides on the rows of a table."""
    found = model.description
    return {
        "model": found.model,
        "weights": model.weights.digest,
        "epoch": model.weights.epoch,
        "images": inputs.source,
        "classes": found.classes,
        "thresholds": rule.thresholds,
        "bounds": found.bounds,
        **asdict(form_of(found).reading),
    }


def _chances(model: Predictor, images: Pixels) -> Floats:
    try:
        return model.of_batch(images)
    except torch.OutOfMemoryError as error:
        raise WorkFailed(
            f"batch: out of memory with {len(images)} images at once; give a smaller --batch, and "
            "the same command continues"
        ) from error


def _images(
    inputs: Inputs, rows: Sequence[int], faults: list[tuple[str, str]]
) -> Iterator[tuple[int, int, Pixels]]:
    """The number of the file, the frame and the pixels of each image, in the order of the files.

    Files are decoded by threads, a few before they are needed. Those without an image are added to
    `faults`.
    """
    from tqdm import tqdm

    n = len(inputs.names)
    with tqdm(None, "predicting", n, unit="file", disable=None, initial=n - len(rows)) as bar:
        for i, found in _decoded(inputs, rows):
            if isinstance(found, Unusable):
                faults.append((inputs.names[i], str(found)))
            else:
                yield from ((i, frame, image) for frame, image in found)
            bar.update()


def _decoded(inputs: Inputs, rows: Sequence[int]) -> Iterator[tuple[int, list[Image] | Unusable]]:
    def careful(i: int) -> list[Image] | Unusable:
        try:
            return inputs.images(i)
        except Unusable as error:
            return error

    threads = min(os.cpu_count() or 1, _MOST_THREADS)
    pool = ThreadPoolExecutor(threads)
    waiting: deque[tuple[int, Future[list[Image] | Unusable]]] = deque()
    try:
        for i in rows:
            waiting.append((i, pool.submit(careful, i)))
            if len(waiting) > 2 * threads:  # more would fill the memory
                first, found = waiting.popleft()
                yield first, found.result()
        for first, found in waiting:
            yield first, found.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _read(out: Path, inputs: Inputs, rule: Rule) -> tuple[np.ndarray[Any, Any], Floats]:
    """The number of the file of each row of the table, and its probabilities [rows, classes]."""
    table = pd.read_csv(out, dtype=str, keep_default_na=False)
    number = {name: i for i, name in enumerate(inputs.names)}
    table = table[table[FILE].isin(number)]  # the others were removed since
    columns = slice(3, 3 + len(rule.classes))  # after the file, the frame and the class
    chances = table.iloc[:, columns].to_numpy().astype(np.float32).astype(np.float64)
    return table[FILE].map(number).to_numpy(np.int64), chances


def _evaluation(
    inputs: Inputs, rows: np.ndarray[Any, Any], chances: Floats, rule: Rule, model: Predictor
) -> Evaluation | None:
    if inputs.labels is None:
        return None
    labels = inputs.labels[rows]
    known = (labels.reshape(len(labels), -1) != UNSURE).any(axis=1)
    if not known.any():
        return None
    rows, labels, chances = rows[known], labels[known], chances[known]
    files, place = np.unique(rows, return_inverse=True)
    patients = inputs.patients(files)
    groups = {}
    if patients is not None:
        own = patients[place]
        groups[PATIENT] = np.where(own == "", [f"\0{i}" for i in range(len(own))], own)
    found, task = OfSplit(labels, chances, rows, groups), model.description.task
    limits = rule.thresholds or model.weights.thresholds  # of several classes, each against others
    if rule.several:
        named: Any = rule.above(chances).astype(float)
    else:
        named = np.eye(len(rule.classes))[chances.argmax(axis=1)]
    return Evaluation(
        evaluate(found, task, None if limits is None else np.array(limits), named),
        class_counts(found, task, rule.classes, named),
        len(labels),
        None if patients is None else len(np.unique(groups[PATIENT])),
    )
