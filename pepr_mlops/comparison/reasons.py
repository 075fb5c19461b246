"""Why runs are left out or doubtful: rows of `run_id`, `reason` (one word) and `text`. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Reason = tuple[str, str, str]


def reasons(
    runs: pd.DataFrame | Mapping[str, Any],
    rows: pd.Series[bool],
    reason: str,
    text: Callable[[Row], str],
) -> list[Reason]:
    """Run, reason and text of the rows that are true."""
    places = np.flatnonzero(rows.to_numpy(bool, na_value=False))
    values = _Columns(runs, places)
    return [(values["run_id"][i], reason, text(Row(values, i))) for i in range(len(places))]


def frame_of(found: Iterable[list[Reason]]) -> pd.DataFrame:
    return pd.DataFrame(chain(*found), columns=["run_id", "reason", "text"], dtype="str")


class _Columns(dict[str, list[Any]]):
    """The columns of some rows of a frame as lists, each made when it is first asked for."""

    def __init__(self, runs: pd.DataFrame | Mapping[str, Any], places: NDArray[np.intp]) -> None:
        self._runs = runs
        self._places = places

    def __missing__(self, name: str) -> list[Any]:
        found: list[Any] = self._runs[name].iloc[self._places].tolist()
        self[name] = found
        return found


@dataclass(frozen=True)
class Row:
    """A row by its columns' names: a text needs few of hundreds, all of which `iterrows` makes."""

    columns: _Columns
    place: int

    def __getitem__(self, name: str) -> Any:
        return self.columns[name][self.place]
