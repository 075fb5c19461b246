"""Reading the tables of others, which may be missing or not what they are taken for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from pepr_mlops.errors import WrongUse


def read_csv(path: Path, columns: Sequence[str], where: str) -> pd.DataFrame:
    """The table at `path`, which must have `columns`; `where` says where to get it.

    Raises `WrongUse` for a file that is missing, unreadable or without those columns, and for
    rows that lack one of them.
    """
    if not path.is_file():
        raise WrongUse(f"import: there is no {path.name} in {path.parent}; get it from {where}")
    try:
        table = pd.read_csv(path, thousands=",")
    except (OSError, ValueError) as error:
        raise WrongUse(f"import: {path} is no readable CSV table ({error})") from error
    missing = [c for c in columns if c not in table]
    if missing:
        raise WrongUse(
            f"import: {path} has no column {', '.join(missing)}; it is not the file of {where}"
        )
    holes = table[list(columns)].isna().any(axis=1)
    if holes.any():
        raise WrongUse(f"import: row {holes.idxmax() + 2} of {path} is incomplete; get it anew")
    return table
