"""One figure of a report with all that belongs to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import pandas as pd
import plotly.graph_objects as go
from pydantic import Field

Count = Annotated[int, Field(strict=True, gt=0)]  # how many to show


@dataclass(frozen=True)
class Panel:
    """A figure, what to read off it and the numbers drawn.

    `title` and `caption` are plain text, `table` is what the CSV file of the figure holds, and
    `sets` names the comparison sets it shows. `recompute` is what a page needs to score anew when
    a slider moves, where the figure has sliders.
    """

    kind: str
    title: str
    caption: str
    figure: go.Figure
    table: pd.DataFrame
    sets: tuple[str, ...]
    recompute: Mapping[str, Any] | None = None
