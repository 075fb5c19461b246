"""Models over the plane of cost and performance, with lines of equal score (Fig. 2a, 4a)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from pydantic import StrictBool

from pepr_mlops.comparison import pepr, selection
from pepr_mlops.comparison.table import cost_unit
from pepr_mlops.comparison.words import cost_title, cost_words, metric_name, sentence
from pepr_mlops.names import PERFORMANCE
from pepr_mlops.report import theme
from pepr_mlops.report.figures import curves
from pepr_mlops.report.figures.common import (
    Panel,
    choice_and_best,
    log_ticks,
    performance_axis,
    performance_hover,
    spans_decades,
)
from pepr_mlops.report.figures.placing import Axis, Label, add_labels
from pepr_mlops.report.material import Material, NothingToDraw


@dataclass(frozen=True)
class Options:
    """`axis` is the x axis; with `paths` each model's epochs are drawn, too."""

    axis: Literal["R", "cost"] = "R"
    paths: StrictBool = False


COLUMNS = [
    *("label", "R", "cost", "P", "score", "rank", "n", "pareto", "knee"),
    *("energy_source", "codes", "run_id"),
]
_MOST_PATHS = 150  # models whose epochs are drawn, the best ones: more are a grey cloud
_HEIGHT = 440  # px


def data(material: Material, comparison_set: str) -> pd.DataFrame:
    """A row per model, in COLUMNS; `cost` is missing where several costs are weighted.

    `pareto` are the models that no other beats in both P and R, `knee` is the one farthest above
    the line between the cheapest and the best of them.
    """
    rows = material.models_of(comparison_set)
    by = rows["scored_by"].iloc[0]
    table = rows.rename(columns={PERFORMANCE: "P"}).assign(cost=rows.get(f"cost {by}", np.nan))
    table["pareto"] = selection.pareto(table, {"P": "higher", "R": "lower"})
    table["knee"] = table.index == selection.knee(table, "P", "R")  # None equals no index
    table["codes"] = table["codes"].str.join(", ")
    return table[COLUMNS].reset_index(drop=True)


def paths(material: Material, comparison_set: str) -> pd.DataFrame:
    """`curves.data` of the best models by the main resource, empty where that has no history."""
    rows = material.models_of(comparison_set)
    by = rows["scored_by"].iloc[0]
    try:
        every = curves.data(material, comparison_set, by, material.bounds(comparison_set, by))
    except NothingToDraw:
        return pd.DataFrame(columns=curves.COLUMNS)
    return every[every["label"].isin(rows.nsmallest(_MOST_PATHS, "rank")["label"])]


def draw(
    points: pd.DataFrame,
    epochs: pd.DataFrame,
    *,
    by: str,
    performance: str,
    bounds: pepr.Bounds | None,
    options: Options,
    alpha: float,
    marks: Marks,
) -> go.Figure:
    """Isolines of αP/(α+R) under the models, the Pareto set joined, models that matter named.

    `bounds` are the costs of R = 0 and R = 1, None where R is of several costs: then the x axis is
    R.
    """
    both = bounds is not None and bounds.low < bounds.high
    at = options.axis if both else "R"
    y = _heights(points, epochs)
    x, layout = _widths(points[at], by, at)
    figure = go.Figure([_isolines(x, y, bounds if at == "cost" else None, alpha)])
    if len(epochs):
        figure.add_trace(_paths(epochs, at))
    figure.add_traces(_models(points, at, _hover(by, performance, both), marks))
    figure.update_layout(
        xaxis=layout,
        yaxis={**performance_axis(performance), "range": y.range},
        height=_HEIGHT,
        showlegend=False,
    )
    crowd = (points[at], points["P"])
    add_labels(figure, _labels(points, at, marks), x, y, crowd=crowd, height=_HEIGHT - 90)
    return figure


def _heights(points: pd.DataFrame, epochs: pd.DataFrame) -> Axis:
    """The least and the greatest P of the figure, with room for names."""
    low, high = float(min([points["P"].min(), *epochs["P"]])), float(points["P"].max())
    room = max(high - low, 0.02)
    return Axis(max(0.0, low - 0.08 * room), high + 0.35 * room)


def _widths(at: pd.Series[float], by: str, axis: str) -> tuple[Axis, dict[str, Any]]:
    """The x axis, and the same as plotly has it."""
    least, most = float(at.min()), float(at.max())
    if axis == "cost" and spans_decades(at):
        x = Axis(least / 1.2, most * 1.2, log=True)
        ticks = log_ticks(x.low, x.high, cost_unit(by))
        words = f"{cost_words(by)['name']}, log scale"
    else:
        room = 0.05 * (most - least or most or 1)
        x, ticks = Axis(least - room, most + room), {}
        words = cost_title(by) if axis == "cost" else f"normalised {cost_words(by)['name']} (R)"
    return x, {"title": {"text": theme.text(words)}, "range": x.range, **ticks}


def _isolines(x: Axis, y: Axis, bounds: pepr.Bounds | None, alpha: float) -> go.Contour:
    """Lines of equal score over R, or over the cost that `bounds` normalise."""
    p = np.linspace(y.low, min(y.high, 1.0), 41)
    if bounds is None:
        r = at = np.linspace(0, 1, 21)
    else:
        at = np.linspace(max(bounds.low, x.low), bounds.high, 81)
        r = (at - bounds.low) / (bounds.high - bounds.low)
    return go.Contour(
        x=at,
        y=p,
        z=alpha * p[:, None] / (alpha + r[None, :]),
        contours={"coloring": "lines", "showlabels": True, "start": 0.05, "end": 0.95,
                  "size": 0.05, "labelfont": {"size": 11, "color": theme.NEUTRAL},
                  "labelformat": ".2f"},
        line={"width": 1, "dash": "dot"},
        colorscale=[[0, theme.FAINT], [1, theme.FAINT]],
        showscale=False,
        hoverinfo="skip",
        name="equal score",
    )  # fmt: skip


def _paths(epochs: pd.DataFrame, at: str) -> go.Scatter:
    """The epochs of all models as one trace, with gaps between the models."""
    lines: dict[str, list[Any]] = {at: [], "P": [], "text": []}
    for label, path in epochs.groupby("label", sort=False):
        for column in (at, "P"):
            lines[column] += [*path[column].round(6), None]
        lines["text"] += [*(f"{theme.text(label)}, epoch {s}" for s in path["step"]), None]
    return go.Scatter(
        x=lines[at],
        y=lines["P"],
        mode="lines+markers",
        line={"color": theme.FAINT, "width": 1},
        marker={"size": 3, "color": theme.NEUTRAL},
        text=lines["text"],
        hovertemplate="%{text}: %{y:.3f}<extra></extra>",
        name="epochs",
    )


def _models(points: pd.DataFrame, at: str, hover: str, marks: Marks) -> list[go.Scatter]:
    front = points[points["pareto"]].sort_values("R")
    grey = {"color": theme.NEUTRAL, "size": 7}
    groups: list[tuple[str, Mapping[str, Any], pd.DataFrame]] = [
        ("models", {"mode": "markers", "marker": {**grey, "opacity": 0.45}},
         points[~points["pareto"]]),
        ("Pareto set", {"mode": "lines+markers", "line": {"color": theme.NEUTRAL, "width": 1.2},
                        "marker": grey}, front),
    ]  # fmt: skip
    for model, colour in marks.colours.items():
        style = {"mode": "markers", "marker": {"color": colour, "size": 12}}
        groups.append((theme.text(model), style, points[points["label"] == model]))
    return [
        go.Scatter(
            x=rows[at],
            y=rows["P"],
            text=theme.texts(rows["label"]),
            ids=list(rows["run_id"]),
            customdata=rows[["score", "R", "cost", "rank", "n"]].to_numpy(),
            hovertemplate=hover,
            name=name,
            **style,
        )
        for name, style, rows in groups
    ]


@dataclass(frozen=True)
class Marks:
    """The models that are named, in the order of their importance: what each is, by its label, and
    their colours, where they have one."""

    roles: Mapping[str, str]
    colours: Mapping[str, str]


def marks(points: pd.DataFrame, choice: str | None, best: str | None) -> Marks:
    """The good-enough `choice`, the `best` performer where they are known, the best by score, the
    knee of the Pareto set and the cheapest model."""
    knee = points.loc[points["knee"], "label"]
    roles: dict[str, list[str]] = {}
    for label, role in (
        (choice, "good enough"),
        (best, "best performance"),
        (points.at[points["rank"].idxmin(), "label"], "best score"),
        *((label, "knee") for label in knee),
        (points.at[points["R"].idxmin(), "label"], "cheapest"),
    ):
        if label is not None:
            roles.setdefault(label, []).append(role)
    colours = {best: theme.BEST, choice: theme.CHOICE}
    return Marks(
        {label: ", ".join(words) for label, words in roles.items()},
        {label: colour for label, colour in colours.items() if label is not None},
    )


def _labels(points: pd.DataFrame, at: str, marks: Marks) -> list[Label]:
    rows = points.set_index("label")
    return [
        Label(
            float(rows.at[label, at]),
            float(rows.at[label, "P"]),
            label,
            role,
            marks.colours.get(label),
        )
        for label, role in marks.roles.items()
    ]


def _hover(by: str, performance: str, both: bool) -> str:
    name = theme.text(cost_words(by)["name"])
    cost = f"<br>{name} %{{customdata[2]:.4g}} {theme.text(cost_unit(by))}" if both else ""
    return (
        f"<b>%{{text}}</b><br>{performance_hover(performance, 'y')}{cost}<br>"
        "R %{customdata[1]:.3f}<br>score %{customdata[0]:.3f} (rank %{customdata[3]})<br>"
        "runs %{customdata[4]}<extra></extra>"
    )


def panel(material: Material, options: Options, comparison_set: str) -> Panel:
    points = data(material, comparison_set)
    by = material.models_of(comparison_set)["scored_by"].iloc[0]
    performance = material.performance_name(comparison_set)
    nothing = pd.DataFrame(columns=curves.COLUMNS)
    epochs = paths(material, comparison_set) if options.paths else nothing
    return Panel(
        title=f"{sentence(metric_name(performance))} against {cost_words(by)['name']}",
        caption=_caption(points),
        reading=_reading(
            metric_name(performance), cost_words(by)["name"], options.axis, len(epochs)
        ),
        figure=draw(
            points,
            epochs,
            by=by,
            performance=performance,
            bounds=material.bounds(comparison_set, by),
            options=options,
            alpha=material.question(comparison_set).alpha,
            marks=marks(points, *choice_and_best(material, comparison_set)),
        ),
        table=points,
    )


def _caption(points: pd.DataFrame) -> str:
    knee = points.loc[points["knee"], "label"]
    optimal = f"{int(points['pareto'].sum())} of {len(points)} models"
    if len(knee):
        return (
            f"Extra cost pays off up to {knee.iloc[0]} and hardly beyond it; {optimal} are "
            "Pareto-optimal."
        )
    return f"{optimal} are Pareto-optimal: no other model is both better and cheaper."


def _reading(performance: str, cost: str, axis: str, epochs: int) -> str:
    words = (
        f"Each point is a model: higher means a better {performance}, further left less {cost}. "
        "The solid line joins the Pareto-optimal models; no other model is both better and cheaper "
        "than one of them, and at its knee the gain per cost drops. Along a dotted line, which "
        "carries the score, the PePR score is the same."
    )
    if axis == "R":
        words += " R is the cost, normalised to lie between 0 and 1."
    return words + (" Thin lines are the epochs of a model." if epochs else "")
