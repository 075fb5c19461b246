"""Patients and subgroups of the images of a folder, from the table DIR/images.csv."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pepr_mlops.data.splits import Split, Splits
from pepr_mlops.errors import WrongUse, one_line
from pepr_mlops.names import GROUP_VALUES, PATIENT

TABLE = "images.csv"
_FILE = "file"
_UNKNOWN = "not known"
# Other names that people give the column of patients, without case and signs.
_SPELLINGS = {"pid", "mrn"}


@dataclass(frozen=True)
class _Table:
    """The cells of each file, in the order of `names`."""

    path: Path
    names: Sequence[str]
    rows: Mapping[str, Sequence[str]]


def with_groups(splits: Splits, root: Path) -> Splits:
    """The same splits, where `val` and `test` have the groups of `root/images.csv`, if it exists.

    The table has a row for each image: its `file` as in `Split.origins`, and in any other columns
    its groups. Patients become numbers from 0 in the order of the images of the split. Raises
    `WrongUse` for a table that cannot be read or has not one row for each of these images.
    """
    path = root / TABLE
    if not path.exists():
        return splits
    table = _read(path)
    grouped = {name: _grouped(getattr(splits, name), table) for name in ("val", "test")}
    many = {name for split in grouped.values() for name in split.groups if _too_many(split, name)}
    few = {
        name: replace(split, groups={n: v for n, v in split.groups.items() if n not in many})
        for name, split in grouped.items()
    }
    notes = [
        f"{TABLE}: {name} is not logged: it has over {GROUP_VALUES} different values, which may "
        "name people; make it coarser to see subgroups"
        for name in sorted(many)
    ]
    return replace(splits, notes=(*splits.notes, *notes), val=few["val"], test=few["test"])


def _too_many(split: Split, name: str) -> bool:
    return name != PATIENT and len(np.unique(split.groups[name])) > GROUP_VALUES


def _grouped(split: Split, table: _Table) -> Split:
    assert split.origins is not None
    files = [str(file) for file in split.origins]
    for file in files:
        if file not in table.rows:
            raise WrongUse(
                f"dataset: {table.path} has no row for {file}; add one, with exactly this path in "
                f"the column {_FILE}"
            )
    groups = {
        name: _group(name, [table.rows[file][i] for file in files])
        for i, name in enumerate(table.names)
        if name not in ("", _FILE)
    }
    return replace(split, groups=groups)


def _group(name: str, cells: Sequence[str]) -> npt.NDArray[np.str_]:
    if name != PATIENT:
        return np.array([cell or _UNKNOWN for cell in cells], dtype=np.str_)
    # Each image of an unknown patient counts as a patient of its own.
    keys = [(cell, None if cell else i) for i, cell in enumerate(cells)]
    numbers = {key: str(i) for i, key in enumerate(dict.fromkeys(keys))}
    return np.array([numbers[key] for key in keys], dtype=np.str_)


def _read(path: Path) -> _Table:
    """The table. Errors are logged, so they name no cell but the file, and no column of a table
    whose first line may be an image."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            lines = [(reader.line_num, [cell.strip() for cell in row]) for row in reader if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise WrongUse(
            f"dataset: {path} is not a readable table ({one_line(error)}); save it as CSV in UTF-8"
        ) from error
    _, names = lines[0] if lines else (1, [])
    if _FILE not in names:
        raise WrongUse(
            f"dataset: {path} has no column {_FILE}; name the columns in its first line, separated "
            f"by commas, such as {_FILE},{PATIENT},sex"
        )
    for i, name in enumerate(names):
        if name and name in names[:i]:
            raise WrongUse(f"dataset: {path} has two columns {name}; rename or remove one")
        letters = re.sub("[^a-z]", "", name.lower())
        if name != PATIENT and (letters in _SPELLINGS or re.search("patient|subject", letters)):
            raise WrongUse(
                f"dataset: {path} has a column {name}, whose values would be logged; rename it to "
                f"{PATIENT}, which is logged as numbers, or remove it"
            )
    rows: dict[str, list[str]] = {}
    for number, cells in lines[1:]:
        if len(cells) != len(names):
            raise WrongUse(
                f"dataset: line {number} of {path} has {len(cells)} cells for {len(names)} "
                "columns; put a cell with a comma in double quotes"
            )
        image = cells[names.index(_FILE)]
        if image in rows:
            raise WrongUse(f"dataset: {path} has two rows for {image}; remove one")
        rows[image] = cells
    return _Table(path, names, rows)
