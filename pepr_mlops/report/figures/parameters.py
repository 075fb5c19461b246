"""The space of models: how many parameters they have and what they cost (Fig. 2c)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from pydantic import StrictBool

from pepr_mlops.comparison.table import cost_unit
from pepr_mlops.comparison.words import cost_title, cost_words
from pepr_mlops.names import PERFORMANCE
from pepr_mlops.report import theme
from pepr_mlops.report.figures.common import (
    Panel,
    by_category,
    classified,
    correlation,
    log_ticks,
    performance_hover,
)
from pepr_mlops.report.material import Material, NothingToDraw
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
_LARGE = "rgba(128,128,128,0.10)"


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


def draw(
    points: pd.DataFrame, middle: float, *, resource: str, performance: str, log: bool
) -> go.Figure:
    """Models by their parameters, shaded above `middle`, the median."""
    low, high = points["parameters"].min() / 1.25, points["parameters"].max() * 1.25
    figure = go.Figure()
    figure.add_vrect(x0=middle, x1=high, fillcolor=_LARGE, line={"width": 0}, layer="below")
    for word, side in (("small", "right"), ("large", "left")):
        figure.add_annotation(
            text=word, x=float(np.log10(middle)), y=1, yref="y domain", xanchor=side,
            yanchor="bottom", showarrow=False, xshift=-4 if side == "right" else 4,
        )  # fmt: skip
    points = points.assign(category=classified(points, "efficient"))
    hover = (
        f"%{{x:.4s}} parameters<br>%{{y:.4g}} {theme.text(cost_unit(resource))}<br>"
        f"score %{{customdata[2]:.3f}}<br>{performance_hover(performance, 'customdata[0]')}<br>"
        "R %{customdata[1]:.3f}"
    )
    details = ("P", "R", "score")
    figure.add_traces(by_category(points, "efficient", "parameters", "cost", hover, details))
    title = theme.text(cost_title(resource))
    return figure.update_layout(
        xaxis={"title": {"text": "parameters (millions)"}, "range": list(np.log10([low, high])),
               **log_ticks(low, high, scale=1e6)},
        yaxis={"title": {"text": title}, "type": "log" if log else "linear",
               "rangemode": "normal" if log else "tozero"},
        height=420,
        showlegend=True,
    )  # fmt: skip


def panel(material: Material, options: Options, comparison_set: str) -> Panel:
    known = material.resources(comparison_set)
    resource = options.resource or (known[0] if known else "E")
    points = data(material, comparison_set, resource)
    free = int((points["cost"] <= 0).sum())
    if options.log and free:
        raise NothingToDraw(f"a logarithmic axis has no place for {free} models that cost nothing")
    middle = float(points["parameters"].median())
    cost = cost_words(resource)["name"]
    return Panel(
        title=f"Size of the models and {cost}",
        caption=_caption(points, cost),
        reading=_reading(points, len(material.models_of(comparison_set)), middle, resource),
        figure=draw(
            points,
            middle,
            resource=resource,
            performance=material.performance_name(comparison_set),
            log=options.log,
        ),
        table=points,
    )


def _caption(points: pd.DataFrame, cost: str) -> str:
    found = correlation(points["parameters"], points["cost"])
    if found is None:
        return f"The {cost} of {len(points)} models by their number of parameters."
    moves = "does not clearly depend on the size of a model"
    if found[1] < 0.05:
        moves = f"{'rises' if found[0] > 0 else 'falls'} with the size of a model"
    return (
        f"The {cost} {moves} (Spearman's rank correlation {found[0]:.2f}, {p_value(found[1])}, "
        f"{len(points)} models)."
    )


def _reading(points: pd.DataFrame, models: int, middle: float, resource: str) -> str:
    unit = f" {cost_unit(resource)}".rstrip()
    parts = [
        "Each point is a model. Those with more than the median of "
        f"{middle:,.0f} parameters (shaded) are large, the others small."
    ]
    for by, words in (
        ("size", {"small": "small models", "large": "large ones"}),
        ("efficient", {"yes": "models the paper calls efficient", "no": "its other models"}),
    ):
        groups = points.groupby(by)["cost"].agg(["median", "size"])
        if len(groups) == 2:
            medians = [
                f"{number(groups.at[value, 'median'], 3)}{unit} for {word} (n = "
                f"{groups.at[value, 'size']})"
                for value, word in words.items()
            ]
            parts.append(f"The median cost is {' and '.join(medians)}.")
    missing = models - len(points)
    if missing:
        parts.append(f"Left out: {missing} without a known number of parameters.")
    return " ".join(parts)
