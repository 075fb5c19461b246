"""The space of models: how many parameters they have and what they cost (Fig. 2c)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from pydantic import StrictBool

from pepr_mlops.comparison.table import cost_unit
from pepr_mlops.names import PERFORMANCE
from pepr_mlops.report import theme
from pepr_mlops.report.figures.common import Panel, by_category, classified, correlation
from pepr_mlops.report.material import Material, NothingToDraw, cost_title
from pepr_mlops.text import number, p_value


@dataclass(frozen=True)
class Options:
    """`resource` is on the y axis, by default the set's main one; `log` makes it logarithmic."""

    resource: str = ""
    log: StrictBool = False


COLUMNS = [
    *("label", "parameters", "size", "efficient", "cost", "P", "R", "score"),
    *("energy_source", "run_id"),
]
_SMALL, _LARGE = "rgba(0,158,115,0.10)", "rgba(213,94,0,0.08)"


def data(material: Material, comparison_set: str, resource: str) -> pd.DataFrame:
    """A row per model that says how many parameters it has, in COLUMNS, the smallest first.

    `size` is that of `significance.sizes`, `efficient` as the paper has it, missing for other
    models. Raises `NothingToDraw` for a resource that not every model has a cost of, and
    where no model says its parameters.
    """
    known = material.resources(comparison_set)
    if resource not in known:
        raise NothingToDraw(
            f"not every model has a cost {resource}; valid: {', '.join(known) or 'none'}"
        )
    rows = material.models_of(comparison_set)
    table = rows.assign(cost=rows[f"cost {resource}"], P=rows[PERFORMANCE])[rows["parameters"] > 0]
    if table.empty:
        raise NothingToDraw("no run says how many parameters its model has")
    return table.sort_values(["parameters", "label"])[COLUMNS].reset_index(drop=True)


def draw(points: pd.DataFrame, middle: float, *, resource: str, log: bool) -> go.Figure:
    """Models by their parameters, shaded below and above `middle`, the median."""
    low, high = points["parameters"].min() / 1.25, points["parameters"].max() * 1.25
    figure = go.Figure()
    for start, end, fill in ((low, middle, _SMALL), (middle, high, _LARGE)):
        figure.add_vrect(x0=start, x1=end, fillcolor=fill, line={"width": 0}, layer="below")
    line = {"color": theme.NEUTRAL, "width": 1.5, "dash": "dash"}
    figure.add_vline(x=middle, line=line, layer="below")
    for word, x, side in (("small", 0.01, "left"), ("large", 0.99, "right")):
        figure.add_annotation(
            text=word, x=x, y=0.995, xref="x domain", yref="y domain", xanchor=side, yanchor="top",
            showarrow=False,
        )  # fmt: skip
    points = points.assign(category=classified(points, "efficient"))
    hover = (
        f"%{{x:.4s}} parameters<br>%{{y:.4g}} {theme.text(cost_unit(resource))}"
        "<br>score %{customdata[2]}<br>P %{customdata[0]}<br>R %{customdata[1]}"
    )
    details = ("P", "R", "score")
    figure.add_traces(by_category(points, "efficient", "parameters", "cost", hover, details))
    figure.update_layout(
        xaxis={"title": "parameters", "type": "log", "range": list(np.log10([low, high]))},
        yaxis={"title": theme.text(cost_title(resource)), "type": "log" if log else "linear",
               "rangemode": "normal" if log else "tozero"},
    )  # fmt: skip
    return figure


def panel(material: Material, options: Options, comparison_set: str) -> Panel:
    known = material.resources(comparison_set)
    resource = options.resource or (known[0] if known else "E")
    points = data(material, comparison_set, resource)
    free = int((points["cost"] <= 0).sum())
    if options.log and free:
        raise NothingToDraw(f"a logarithmic axis has no place for {free} models that cost nothing")
    middle = float(points["parameters"].median())
    return Panel(
        title=f"Parameters and {cost_title(resource).split(' (')[0]}: {comparison_set}",
        caption=_caption(points, len(material.models_of(comparison_set)), middle, resource),
        figure=draw(points, middle, resource=resource, log=options.log),
        table=points,
    )


def _caption(points: pd.DataFrame, models: int, middle: float, resource: str) -> str:
    unit = f" {cost_unit(resource)}".rstrip()
    parts = [
        f"Each point is one of {len(points)} models. Those with more than the median of "
        f"{middle:,.0f} parameters are large, the others small."
    ]
    found = correlation(points["parameters"], points["cost"])
    if found is not None:
        parts.append(
            f"Spearman's rank correlation of cost and parameters is {found[0]:.2f} "
            f"({p_value(found[1])})."
        )
    for by, words in (
        ("size", {"small": "small models", "large": "large ones"}),
        ("efficient", {"yes": "models the paper calls efficient", "no": "its other models"}),
    ):
        groups = points.groupby(by)["cost"].agg(["median", "size"])
        if len(groups) == 2:
            medians = [
                f"{number(groups.at[value, 'median'])}{unit} for {word} (n = "
                f"{groups.at[value, 'size']})"
                for value, word in words.items()
            ]
            parts.append(f"The median cost is {' and '.join(medians)}.")
    missing = models - len(points)
    if missing:
        parts.append(f"Left out: {missing} without a known number of parameters.")
    return " ".join(parts)
