"""P of the good-enough model and of the best performer in groups of the test images."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
import plotly.graph_objects as go

from pepr_mlops.comparison import answer_text
from pepr_mlops.report import theme
from pepr_mlops.report.figures.common import Panel, answer_of, error_bars
from pepr_mlops.report.material import Material, NothingToDraw


@dataclass(frozen=True)
class Options:
    """None: the groups are those that the runs logged."""


def draw(table: pd.DataFrame, performance: str) -> go.Figure:
    """P with its interval, a row for each group and a mark for each model."""
    names = table["group"] + " " + table["value"]
    rows = list(dict.fromkeys(names))
    counts = table.groupby(names)["n"].first()
    models = list(dict.fromkeys(table["model"]))
    figure = go.Figure()
    for i, model in enumerate(models):
        shown = table[(table["model"] == model) & table["performance"].notna()]
        shift = 0.3 * (i - (len(models) - 1) / 2)
        figure.add_scatter(
            x=shown["performance"],
            y=[rows.index(name) + shift for name in names[shown.index]],
            error_x=error_bars(shown["low"], shown["performance"], shown["high"]),
            mode="markers",
            name=theme.text(model),
            marker={"size": 9, **theme.style(i)},
            hovertemplate="%{x:.4f}<extra>%{fullData.name}</extra>",
        )
    figure.update_layout(
        xaxis={"title": f"{theme.text(performance)} with its 95 % interval"},
        yaxis={
            "tickvals": list(range(len(rows))),
            "ticktext": [f"{theme.text(name)} ({counts[name]:,})" for name in rows],
            "range": [len(rows) - 0.4, -0.6],
            "ticks": "",
        },
        showlegend=True,
        height=150 + 44 * len(rows),
    )
    return figure


def panel(material: Material, options: Options, comparison_set: str) -> Panel:
    answer = answer_of(material, comparison_set)
    table = answer.subgroups
    if table.empty:
        raise NothingToDraw(
            "the runs of the chosen model and of the best logged no subgroups of the test images, "
            "such as a column sex of images.csv"
        )
    worse = answer_text.subgroups(answer)
    return Panel(
        title=f"Subgroups: {comparison_set}",
        caption=(
            f"{answer.metric} on the test images of each group, whose number is in brackets. "
            + (f"{worse}. " if worse else "")
            + "The intervals account for the images alone and are not corrected for the number of "
            "groups."
        ),
        figure=draw(table, answer.metric),
        table=table,
    )
