"""Reads published tables for runs, and refuses missing files and files with other content."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import pandas as pd

from pepr_mlops.errors import WrongUse
from pepr_mlops.imports import units
from pepr_mlops.names import COMPARED
from pepr_mlops.spec import RunSpec, as_text, convert
from pepr_mlops.validation import refuse_unknown

_PLAIN = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
# 1,234.5 and 1,234,567; but not 1,234, which may have a decimal comma.
_THOUSANDS = re.compile(r"[1-9]\d{0,2}((,\d{3})+\.\d+|(,\d{3}){2,})", re.ASCII)


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
# Parameters that others may name: what runs are compared by. `compile` marks jobs of `pepr train`.
_COMPARED = {"model", "seed", "country", *COMPARED} - {"compile"}
PARAMS = tuple(f.name for f in fields(RunSpec) if f.name in _COMPARED)
MOST_W = 10_000.0  # mean power of a training run, above which its unit is in doubt


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


def read_cells(path: Path, where: str) -> pd.DataFrame:
    """The cells of the CSV table at `path` as texts without blanks at their ends.

    Raises `WrongUse` for a file that is missing, unreadable, has rows longer than its header or two
    columns of one name.
    """
    if not path.is_file():
        raise WrongUse(f"import: there is no {path.name} in {path.parent}; get it from {where}")
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, skipinitialspace=True)
        header = pd.read_csv(path, header=None, nrows=1, dtype=str, skipinitialspace=True)
    except UnicodeDecodeError as error:
        raise WrongUse(f"import: {path} is not UTF-8 ({error.reason}); save it as UTF-8") from error
    except (OSError, ValueError) as error:
        raise WrongUse(f"import: {path} is not a readable CSV table ({error})") from error
    if not isinstance(table.index, pd.RangeIndex):  # the first cells became names of rows
        raise WrongUse(f"import: the rows of {path} have more cells than its header")
    names = header.iloc[0].dropna().str.strip()
    for name in names[names.duplicated()]:  # pandas renames the second
        raise WrongUse(f"import: {path} has two columns {name!r}; rename or delete one")
    return table.apply(lambda column: column.fillna("").str.strip())


def read_csv(
    path: Path,
    texts: Sequence[str],
    numbers: Mapping[str, Number],
    where: str,
    optional: Sequence[str] = (),
    remedy: str = "download it again",
) -> pd.DataFrame:
    """The named columns of the table at `path`; `where` says where to get it.

    The `optional` columns, which are in `texts` or `numbers`, may be absent or have empty cells.
    Raises `WrongUse` as `read_cells`, for a file without one of the other columns, for a row
    without one of them, and for a cell that is not a valid number; the last two say the `remedy`.
    """
    table = read_cells(path, where)
    required = [c for c in (*texts, *numbers) if c not in optional]
    missing = [c for c in required if c not in table]
    if missing:
        raise WrongUse(
            f"import: {path} has no column {', '.join(missing)}; it is not the file of {where}"
        )
    cells = table.reindex(columns=[*texts, *numbers], fill_value="")
    holes = (cells[required] == "").any(axis=1)
    if holes.any():
        raise WrongUse(f"import: row {holes.idxmax() + 2} of {path} is incomplete; {remedy}")
    found = cells.copy()
    for name, valid in numbers.items():
        found[name] = number_cells(cells[name], valid, path, remedy)
    return found


def number_cells(cells: pd.Series[str], valid: Number, path: Path, remedy: str) -> pd.Series[float]:
    """The cells of a column as numbers, NaN where they are empty.

    Raises `WrongUse` for the first that is not `valid`, with its row and the `remedy`.
    """
    found = cells.map(number_of).astype(float)
    wrong = ~(valid.allows(found) | (cells == ""))
    if wrong.any():
        row = wrong.idxmax()
        raise WrongUse(
            f"import: {cells.name} of row {row + 2} of {path} is {cells[row][:40]!r}, not {valid}; "
            f"{remedy}"
        )
    return found


def params_of(given: Mapping[str, str], where: str) -> dict[str, str]:
    """Parameters of runs as `pepr train` logs them. Raises `WrongUse`, which begins with `where`,
    for a name or value that it does not take."""
    refuse_unknown(given, PARAMS, "parameter", where)
    found = {}
    for name, text in given.items():
        try:
            found[name] = as_text(convert(name, text))
        except WrongUse as error:
            raise WrongUse(f"{where}: {error}") from error
    return found


def power_doubt(energy_wh: float | None, time_s: float | None) -> str | None:
    """Why an energy is hardly one of training, from the mean power that it means."""
    if energy_wh is None or not time_s:
        return None
    watts = units.convert(energy_wh, "Wh", "J") / time_s
    if watts <= MOST_W:
        return None
    return (
        f"its energy means {watts:,.0f} W over its training time, more than {MOST_W:,.0f} W: "
        "check the unit"
    )


def number_of(text: str) -> float | None:
    """A text as a number, with commas of thousands or without; None for any other text, and for one
    such as 1,234, whose comma may be of thousands or of decimals."""
    if _THOUSANDS.fullmatch(text):
        text = text.replace(",", "")
    return float(text) if _PLAIN.fullmatch(text) else None
