"""A table with a row for each image."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from pepr_mlops.data.own import cells, walk
from pepr_mlops.data.own.columns import Options, Uses, choose, group, patients_of
from pepr_mlops.data.own.labels import labelled
from pepr_mlops.data.own.listing import Known, Listing, Texts
from pepr_mlops.data.own.pairs import Paired, paired
from pepr_mlops.data.own.split_names import SPELLINGS, split_of
from pepr_mlops.errors import WrongUse
from pepr_mlops.files import dataset_name
from pepr_mlops.text import few

_SPLIT_ADVICE = (
    f"write one of {', '.join(SPELLINGS)} in each row, or in none to draw the splits; or name the "
    "right column with --split-column, or this one with --group-columns if it has no splits"
)


def listing(path: Path, options: Options, known: Known | None = None) -> Listing:
    """The images that a table names, in the order of their files.

    The files are below the folder `options.images` or, without it, the table's own. Raises
    `WrongUse` for a file that is no table, for columns that cannot be told apart, and for rows and
    files that do not match. The table of an external set is read for the classes `known` of a
    training, and its splits do not count.
    """
    source, table = str(path), cells.read(path)
    uses = choose(table, options, source, known)
    root, found, matches = _matches(path, table, uses, options)
    by_use = uses.by_use
    labels = labelled(matches.rows[list(uses.labels)], options.uncertain, source, known)
    rows = matches.rows[labels.usable]
    patients, merged = patients_in(rows, uses.patient)
    return Listing(
        name=dataset_name(str(path)),
        root=root,
        files=np.array(matches.files, dtype=np.str_)[labels.usable],
        labels=labels.labels[labels.usable],
        classes=labels.classes,
        task=labels.task,
        splits=_splits(None if uses.split is None else rows[uses.split], len(rows), source),
        patients=patients,
        groups={name: texts(group(rows[name])) for name in uses.groups},
        by_table=True,
        columns={use: ",".join(names) for use, names in by_use.items()},
        notes=(uses.text, *uses.notes, *found.notes, *matches.notes, *labels.notes, *merged),
        details=(*found.details, *matches.details),
        left_out=matches.left_out,
    )


def to_predict(path: Path, options: Options, known: Known, *, labels: bool) -> Listing:
    """As `listing` of an external set, with all images: the label of one without a certain class is
    -1, and so is every one without `labels`."""
    source, table = str(path), cells.read(path, least=1)
    uses = choose(table, options, source, known, labels=labels)
    root, found, matches = _matches(path, table, uses, options, strict=False)
    notes: tuple[str, ...] = ()
    numbers = known.unsure(len(matches.files))
    if labels:
        read = labelled(matches.rows[list(uses.labels)], options.uncertain, source, known)
        numbers[read.usable], notes = read.labels[read.usable], read.notes
    patients, merged = patients_in(matches.rows, uses.patient)
    return Listing(
        name=dataset_name(source),
        root=root,
        files=np.array(matches.files, dtype=np.str_),
        labels=numbers,
        classes=known.classes,
        task=known.task,
        splits=np.full(len(matches.files), ""),
        patients=patients,
        by_table=True,
        notes=(uses.text, *found.notes, *matches.notes, *notes, *merged),
        details=(*found.details, *matches.details),
    )


def _matches(
    path: Path, table: pd.DataFrame, uses: Uses, options: Options, *, strict: bool = True
) -> tuple[Path, walk.Found, Paired]:
    """The folder of the images, what is in it, and the rows of the table with their files."""
    root = _images(options.images) or path.parent
    found = walk.find(root, without={path.name}, strict=strict)
    in_use = [name for use, names in uses.by_use.items() if use != "image" for name in names]
    rows, files = table[in_use], table[uses.image]
    return root, found, paired(rows, files, found.images, root, options.missing, str(path))


def patients_in(rows: pd.DataFrame, column: str | None) -> tuple[Texts | None, tuple[str, ...]]:
    """The patients of the rows, None where none is known, and notes, as `columns.patients_of`."""
    if column is None:
        return None, ()
    patients, notes = patients_of(rows[column])
    return texts(patients) if (patients != "").any() else None, notes


def texts(column: Sequence[str] | pd.Series) -> Texts:
    """The cells of a column as an array."""
    return np.array(list(column), dtype=np.str_)


def _images(folder: str | None) -> Path | None:
    if folder is not None and not os.path.isdir(folder):
        raise WrongUse(
            f"images: there is no folder {folder}; name the folder that the files of the table are "
            "in"
        )
    return None if folder is None else Path(folder)


def _splits(column: pd.Series | None, n: int, source: str) -> Texts:
    """The split of each row, empty where all are to be drawn."""
    if column is None or (column == "").all():
        return np.full(n, "", dtype="<U5")
    blank = int((column == "").sum())
    if blank:
        raise WrongUse(
            f"split_column: {column.name} is blank in {blank:,} of {n:,} rows of {source}; "
            f"{_SPLIT_ADVICE}"
        )
    names = {value: split_of(value) for value in column.unique()}
    if wrong := sorted(value for value, split in names.items() if split is None):
        raise WrongUse(
            f"split_column: {column.name} of {source} has values that are no splits "
            f"({few([repr(value) for value in wrong])}); {_SPLIT_ADVICE}",
            logged=f"split_column: {column.name} of {source} has {len(wrong):,} values that are no "
            f"splits; {_SPLIT_ADVICE}",
        )
    if "train" not in names.values():
        raise WrongUse(
            f"split_column: {column.name} of {source} has no row of train; mark the training "
            "images, or leave the column empty to draw the splits"
        )
    return texts(column.map(names))
