"""From the label cells of a table to classes and labels. Pure."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from pepr_mlops.data.own.listing import UNSURE, Known
from pepr_mlops.data.splits import Labels
from pepr_mlops.errors import WrongUse, nearest
from pepr_mlops.names import MULTI_LABEL, Task
from pepr_mlops.text import few

SEPARATOR = "|"  # between the names of several labels in one cell
MOST_CLASSES = 1000
MISSING = {"", "na", "n/a", "nan", "null", "?"}  # blank cells, as programs and people write them
_BITS = {"0": 0, "1": 1, "-1": UNSURE}
_COUNTS_AS = {"negative": 0, "positive": 1}
_NUMBER = re.compile(r"[+-]?\d+([.,]\d+)?", re.ASCII)
_INTEGRAL = re.compile(r"([+-]?\d+)[.,]0+", re.ASCII)

_Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Labelled:
    """`labels` as in `listing.Listing`, of the rows that `usable` [n] marks: the others are to be
    left out, and their labels mean nothing. `notes` are on what was decided."""

    labels: Labels
    classes: tuple[str, ...]
    task: Task
    usable: _Mask
    notes: tuple[str, ...] = ()


def labelled(
    cells: pd.DataFrame, uncertain: str, source: str, known: Known | None = None
) -> Labelled:
    """The labels of the rows, from one column of classes or of names joined by |, or from several
    columns of 0 and 1. If each row has exactly one 1, the columns are classes.

    -1 and blank cells, also those written as `MISSING`, are uncertain: `uncertain` is what they
    count as, one of the values of `RunSpec.uncertain`. A blank cell between names that are joined
    by | is no label. Raises `WrongUse` for uncertain labels that nothing is said of and for cells
    that are no labels.

    With `known` the cells are read for that task, and the classes are those that it has, whichever
    of them the rows have. Raises `WrongUse` for others.
    """
    if cells.shape[1] > 1:
        found = _of_columns(cells, uncertain, source, known)
    else:
        column = cells.iloc[:, 0].map(lambda text: unicodedata.normalize("NFC", text))
        bars = column.str.contains(SEPARATOR, regex=False).any()
        if bars if known is None else known.several:
            found = _joined(column, source, known)
        else:
            found = _of_column(column, uncertain, source, known)
    return found if known is None else _as_known(found, known, source)


def places_of(classes: Sequence[str], task: Task, known: Known, source: str) -> Labels:
    """The index of each class of an external set in those of the training.

    Raises `WrongUse` for another task and for a class that the training does not have.
    """
    if (task == MULTI_LABEL) != known.several:
        has, needs = ("one class", "several labels") if known.several else ("labels", "one class")
        raise WrongUse(
            f"external: {source} has {has} for each image and the data set {needs}; write its "
            "labels as the data set has them"
        )
    if unknown := [name for name in classes if name not in known.classes]:
        remedy = f"name the classes as the data set does: {few(known.classes, 10)}"
        raise WrongUse(
            f"external: {source} has the class {unknown[0]!r}, which the data set does not have"
            f"{nearest(unknown[0], known.classes) or ';'} {remedy}",
            logged=f"external: {source} has {len(unknown):,} classes that the data set does not "
            f"have; {remedy}",
        )
    return np.array([known.classes.index(name) for name in classes], dtype=np.int64)


def is_binary(cells: pd.Series) -> bool:
    """Whether there is nothing but 0, 1, -1 and blank, and some 0 or 1."""
    bits = {_bit(cell) for cell in cells.unique()}
    return None not in bits and bits != {UNSURE}


def check_classes(
    classes: Sequence[str], images: int, source: str, remedy: str = "add images of another class"
) -> None:
    """Raise `WrongUse` unless these can be the classes of so many images."""
    if len(classes) < 2:
        start = f"dataset: {source} needs at least two classes with images"
        found = ", ".join(classes) or "none"
        raise WrongUse(f"{start}, found {found}; {remedy}", logged=f"{start}; {remedy}")
    if len(classes) > MOST_CLASSES or len(classes) == images:
        raise WrongUse(
            f"dataset: {source} has {len(classes):,} different labels for {images:,} images, which "
            "look like identifiers or measurements; name columns or folders of classes"
        )
    refuse_alike(classes, source)


def refuse_alike(classes: Sequence[str], source: str) -> None:
    """Raise `WrongUse` for classes that differ in nothing but case and blanks."""
    alike = defaultdict(list)
    for name in classes:
        alike[" ".join(name.split()).casefold()].append(name)
    for names in alike.values():
        if len(names) > 1:
            raise WrongUse(
                f"dataset: {source} has the classes {' and '.join(map(repr, names))}, which differ "
                "in case or blanks alone; spell them alike",
                logged=f"dataset: {source} has classes that differ in case or blanks alone; spell "
                "them alike",
            )


def _as_known(found: Labelled, known: Known, source: str) -> Labelled:
    """The same labels as indices or columns of the known classes."""
    places = places_of(found.classes, found.task, known, source)
    if not found.usable.any():
        raise WrongUse(f"external: {source} has no image with a class; give some, or leave it out")
    if not known.several:
        return replace(found, labels=places[found.labels], classes=known.classes, task=known.task)
    if absent := [name for name in known.classes if name not in found.classes]:
        raise WrongUse(
            f"external: {source} has {len(found.classes)} of the {len(known.classes)} labels of "
            f"the data set; add a column for each of {few(absent)}"
        )
    labels = np.empty_like(found.labels)
    labels[:, places] = found.labels
    return replace(found, labels=labels, classes=known.classes)


def is_missing(cell: str) -> bool:
    return cell.casefold() in MISSING


def _bit(cell: str) -> int | None:
    if is_missing(cell):
        return UNSURE
    return _BITS.get(_integral(cell.replace("\N{MINUS SIGN}", "-")))


def _integral(cell: str) -> str:
    """1.0 and 1,0 as 1, since tables with blank cells are saved so."""
    found = _INTEGRAL.fullmatch(cell)
    return found[1] if found else cell


def _of_column(cells: pd.Series, uncertain: str, source: str, known: Known | None) -> Labelled:
    if is_binary(cells):
        return _of_bits(cells, uncertain, source, known)
    blank = cells.map(is_missing).to_numpy(dtype=bool)
    n = int(blank.sum())
    if n and uncertain != "ignore":
        raise WrongUse(
            f"dataset: {source} has {n:,} rows without a class; give it, or leave these images out "
            "with --uncertain ignore"
        )
    names = cells[~blank]
    if all(_number(name) is not None for name in names.unique()):
        names = names.map(_integral)
    classes = sorted(names.unique(), key=_order)
    if known is None:
        check_classes(classes, len(names), source)
    labels = np.full(len(cells), UNSURE, dtype=np.int64)
    labels[~blank] = pd.Index(classes).get_indexer(names)
    return Labelled(labels, tuple(classes), task_of(classes), ~blank, _left_out(n))


def _of_bits(cells: pd.Series, uncertain: str, source: str, known: Known | None) -> Labelled:
    """One column of 0 and 1: two classes of these names."""
    labels = _bits(cells)
    unsure = labels == UNSURE
    n = int(unsure.sum())
    if n and uncertain == "refuse":
        raise _uncertain(n, [str(cells.name)], source)
    if uncertain in _COUNTS_AS:
        labels[unsure] = _COUNTS_AS[uncertain]
        usable, notes = np.ones(len(cells), dtype=bool), _counted(n, uncertain)
    else:
        usable, notes = ~unsure, _left_out(n)
    if known is None:
        check_classes([str(i) for i in np.unique(labels[usable])], int(usable.sum()), source)
    return Labelled(labels, ("0", "1"), "binary-class", usable, notes)


def _of_columns(cells: pd.DataFrame, uncertain: str, source: str, known: Known | None) -> Labelled:
    for name in cells.columns:
        wrong = [cell for cell in cells[name].unique() if _bit(cell) is None]
        if wrong:
            n = int(cells[name].isin(wrong).sum())
            raise WrongUse(
                f"label_columns: column {name!r} of {source} has cells other than 0, 1, -1, blank "
                f"and NA in {n:,} rows, the first in row {cells[name].isin(wrong).idxmax()}; name "
                "one column of classes or several of 0 and 1",
                logged=f"label_columns: column {name!r} of {source} has cells other than 0, 1, -1, "
                "blank and NA; name one column of classes or several of 0 and 1",
            )
    classes = tuple(map(str, cells.columns))
    refuse_alike(classes, source)
    labels = np.stack([_bits(cells[name]) for name in cells.columns], axis=1)
    unsure = labels == UNSURE
    n = int(unsure.sum())
    usable = np.ones(len(labels), dtype=bool)
    one_class = known is None or not known.several
    if one_class and not n and (labels.sum(axis=1) == 1).all():
        note = f"each row has one 1 in the {len(classes)} label columns, so they are classes"
        one_hot = labels.argmax(axis=1).astype(np.int64)
        return Labelled(one_hot, classes, task_of(classes), usable, (note,))
    if n and uncertain == "refuse":
        raise _uncertain(n, [classes[i] for i in np.flatnonzero(unsure.any(axis=0))], source)
    if uncertain in _COUNTS_AS:
        labels[unsure] = _COUNTS_AS[uncertain]
        return Labelled(labels, classes, MULTI_LABEL, usable, _counted(n, uncertain))
    notes = (f"{n:,} uncertain labels count neither as 0 nor as 1",) if n else ()
    return Labelled(labels, classes, MULTI_LABEL, usable, notes)


def _joined(cells: pd.Series, source: str, known: Known | None) -> Labelled:
    codes, texts = pd.factorize(cells)
    sets = [
        {name for part in text.split(SEPARATOR) if not is_missing(name := part.strip())}
        for text in texts
    ]
    trained = () if known is None else known.classes
    classes = sorted(set(trained).union(*sets), key=_order)
    if not 2 <= len(classes) <= MOST_CLASSES:
        check_classes(classes, len(cells), source)
    refuse_alike(classes, source)
    of_text = np.array([[name in names for name in classes] for names in sets], dtype=np.int64)
    labels: Labels = of_text[codes]
    n = int((labels.sum(axis=1) == 0).sum())
    notes = (f"{n:,} images have no label",) if n else ()
    return Labelled(labels, tuple(classes), MULTI_LABEL, np.ones(len(cells), dtype=bool), notes)


def _bits(cells: pd.Series) -> Labels:
    codes, texts = pd.factorize(cells)
    of_text: Labels = np.array([_bit(text) for text in texts], dtype=np.int64)
    return np.asarray(of_text[codes], dtype=np.int64)


def _number(name: str) -> float | None:
    return float(name.replace(",", ".")) if _NUMBER.fullmatch(name) else None


def _order(name: str) -> tuple[bool, float, str]:
    """Numbers by their value before other names."""
    value = _number(name)
    return value is None, value or 0.0, name


def task_of(classes: Sequence[str]) -> Task:
    return "binary-class" if len(classes) == 2 else "multi-class"


def _left_out(n: int) -> tuple[str, ...]:
    return (f"{n:,} images without a certain class were left out",) if n else ()


def _counted(n: int, uncertain: str) -> tuple[str, ...]:
    return (f"{n:,} uncertain labels count as {uncertain}",) if n else ()


def _uncertain(n: int, columns: Sequence[str], source: str) -> WrongUse:
    return WrongUse(
        f"dataset: {source} has {n:,} uncertain labels (-1, blank or NA) in {few(columns)}; say "
        "what they count as with --uncertain ignore, negative or positive"
    )
