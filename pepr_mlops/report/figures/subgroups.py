"""P of the good-enough model and of the best performer in groups of the test images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd
import plotly.graph_objects as go

from pepr_mlops.comparison import answer_text
from pepr_mlops.comparison.words import metric_name, sentence
from pepr_mlops.report import theme
from pepr_mlops.report.figures.common import (
    Panel,
    answer_of,
    error_bars,
    performance_axis,
    performance_hover,
    styles,
    wrapped,
)
from pepr_mlops.report.material import Material, NothingToDraw


@dataclass(frozen=True)
class Options:
    """None: the groups are those that the runs logged."""


def draw(
    table: pd.DataFrame, performance: str, colours: Mapping[str, Mapping[str, str]]
) -> go.Figure:
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
            error_x=error_bars(
                shown["low"], shown["performance"], shown["high"], colours[model]["color"]
            ),
            mode="markers",
            name=theme.name(model),
            marker={"size": 10, **colours[model]},
            hovertemplate=f"{performance_hover(performance, 'x')}<extra>%{{fullData.name}}</extra>",
        )
    return figure.update_layout(
        xaxis={**performance_axis(performance), "nticks": 5},
        yaxis={
            "tickvals": list(range(len(rows))),
            "ticktext": [f"{wrapped(name, 22)} ({counts[name]:,})" for name in rows],
            "range": [len(rows) - 0.4, -0.6],
            "showgrid": False,
        },
        showlegend=True,
        height=130 + 44 * len(rows),
    )


def panel(material: Material, options: Options, comparison_set: str) -> Panel:
    answer = answer_of(material, comparison_set)
    table = answer.subgroups
    if table.empty:
        raise NothingToDraw(
            "the runs of the chosen model and of the best logged no subgroups of the test images, "
            "such as a column sex of images.csv"
        )
    worse = answer_text.subgroups(answer)
    performance = metric_name(answer.metric)
    compared = " and ".join(dict.fromkeys(table["model"]))
    return Panel(
        title=f"{sentence(performance)} in groups of the test images",
        caption=f"{worse or f'The {performance} of {compared} in each group of test images'}.",
        reading=(
            "Points are means over the runs of a model, lines their 95% intervals. The number of "
            "test images of a group is in brackets. The intervals account for the images alone and "
            "are not corrected for the number of groups."
        ),
        figure=draw(table, answer.metric, styles(material, comparison_set)),
        table=table,
    )
