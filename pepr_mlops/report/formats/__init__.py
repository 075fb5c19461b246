"""Runs in the file formats of others. Pure: frames of `comparison.runs.tidy` in, values out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd


def held(runs: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """What each run holds, by column: nothing for a missing value."""
    for run in runs.to_dict("records"):
        yield {str(column): value for column, value in run.items() if not pd.isna(value)}
