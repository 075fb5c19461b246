"""Reads published tables for runs, and refuses missing files and files with other content."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from pepr_mlops.errors import WrongUse

_PLAIN = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
_THOUSANDS = re.compile(r"[1-9]\d{0,2}(,\d{3})+(\.\d+)?", re.ASCII)  # 1,234.5, but not 0,850


@dataclass(frozen=True)
class Number:
    """The valid numbers of a column: from `low` to `high`, integers only or any."""

    low: float
    high: float
    integer: bool = False

    def allows(self, values: pd.Series[float]) -> pd.Series[bool]:
        return values.between(self.low, self.high) & (not self.integer or values % 1 == 0)

    def __str__(self) -> str:
        return f"a {'whole ' * self.integer}number from {self.low:g} to {self.high:g}"


AMOUNT = Number(1e-12, 1e12)  # of anything that is not nothing
SHARE = Number(0, 1)


@dataclass(frozen=True)
class FinishedRun:
    """A run that others measured, ready to be logged. `points` are metric, value and step.

    `key` is its identity within its source: importing it again finds it by `source` and `key`.
    """

    experiment: str
    name: str
    source: str
    key: str
    params: Mapping[str, str]
    tags: Mapping[str, str]
    points: tuple[tuple[str, float, int], ...]


def read_csv(
    path: Path,
    texts: Sequence[str],
    numbers: Mapping[str, Number],
    where: str,
    optional: Sequence[str] = (),
) -> pd.DataFrame:
    """The named columns of the table at `path`; `where` says where to get it.

    The `optional` columns, which are in `numbers`, may be absent or have empty cells. Raises
    `WrongUse` for a file that is missing, unreadable or without one of the other columns, for a row
    without one of them, and for a cell that is not a valid number.
    """
    if not path.is_file():
        raise WrongUse(f"import: there is no {path.name} in {path.parent}; get it from {where}")
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, skipinitialspace=True)
    except (OSError, ValueError) as error:
        raise WrongUse(f"import: {path} is not a readable CSV table ({error})") from error
    required = [*texts, *(c for c in numbers if c not in optional)]
    missing = [c for c in required if c not in table]
    if missing:
        raise WrongUse(
            f"import: {path} has no column {', '.join(missing)}; it is not the file of {where}"
        )
    table = table.reset_index(drop=True).reindex(columns=[*texts, *numbers], fill_value="")
    cells = table.apply(lambda column: column.fillna("").str.strip())
    holes = (cells[required] == "").any(axis=1)
    if holes.any():
        raise WrongUse(
            f"import: row {holes.idxmax() + 2} of {path} is incomplete; download it again"
        )
    found = cells.copy()
    for name, valid in numbers.items():
        found[name] = cells[name].map(_number).astype(float)
        wrong = ~(valid.allows(found[name]) | (cells[name] == ""))
        if wrong.any():
            row = wrong.idxmax()
            raise WrongUse(
                f"import: {name} of row {row + 2} of {path} is {cells[name][row][:40]!r}, not "
                f"{valid}; download it again"
            )
    return found


def _number(text: str) -> float:
    if _THOUSANDS.fullmatch(text):
        text = text.replace(",", "")
    return float(text) if _PLAIN.fullmatch(text) else np.nan
