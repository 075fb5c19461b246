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
from pepr_mlops.names import PERFORMANCE
from pepr_mlops.report import theme
from pepr_mlops.report.figures import curves
from pepr_mlops.report.figures.common import Panel
from pepr_mlops.report.material import Material, NothingToDraw, cost_title


@dataclass(frozen=True)
class Options:
    """`axis` is the x axis at first; with `paths` each model's epochs are visible at first."""

    axis: Literal["R", "cost"] = "R"
    paths: StrictBool = False


COLUMNS = [
    *("label", "R", "cost", "P", "score", "rank", "n", "pareto", "knee"),
    *("energy_source", "codes", "run_id"),
]
_MOST_PATHS = 150  # models whose epochs are drawn, the best ones: more are a grey cloud


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
) -> go.Figure:
    """Isolines of αP/(α+R) under the models, the Pareto set joined, the knee and the best named.

    `bounds` are the costs of R = 0 and R = 1, None where R is of several costs.
    """
    both = bounds is not None and bounds.low < bounds.high
    first = _AXES.index(options.axis) if both else 0
    low, high = _heights(points, epochs if options.paths else epochs.head(0))
    traces = [
        _isolines(low, high, bounds, alpha),
        *_paths(epochs, True if options.paths else "legendonly"),
        *_models(points, _hover(by, both)),
    ]
    figure = go.Figure([trace.update(x=xs[first]) for trace, xs in traces])
    named = named_points(points)
    for i, (_, row) in enumerate(named.iterrows()):
        figure.add_annotation(
            x=row[_AXES[first]],
            y=row["P"],
            text=theme.text(row["label"]),
            showarrow=True,
            arrowhead=0,
            ax=14,
            ayref="y",
            ay=high - (0.03 + 0.055 * i) * (high - low),  # one under another, whatever their P
            xanchor="left",
            font={"size": 11},
        )
    axes = [f"R, normalised {_words(by)}", cost_title(by)]
    figure.update_layout(
        xaxis={"title": axes[first]},
        yaxis={"title": f"P: {theme.text(performance)}", "range": [low, high]},
    )
    if both:
        _switch(figure, named, [xs for _, xs in traces], axes, first)
    return figure


_AXES = ("R", "cost")
_Trace = tuple[Any, list[list[Any]]]  # what is drawn, and where its points lie on each of _AXES


def _heights(points: pd.DataFrame, epochs: pd.DataFrame) -> tuple[float, float]:
    """The least and the greatest P of the figure, with room for names."""
    low = max(0.0, float(min([points["P"].min(), *epochs["P"]])) - 0.05)
    greatest = float(points["P"].max())
    return low, greatest + 0.35 * (greatest - low)


def _isolines(low: float, high: float, bounds: pepr.Bounds | None, alpha: float) -> _Trace:
    r, p = np.linspace(0, 1, 21), np.linspace(low, min(high, 1.0), 41)
    trace = go.Contour(
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
    least, most = (bounds.low, bounds.high) if bounds is not None else (0.0, 1.0)
    return trace, [list(r), list(least + r * (most - least))]


def _paths(epochs: pd.DataFrame, visible: bool | str) -> list[_Trace]:
    """The epochs of all models as one trace, with gaps between the models."""
    if epochs.empty:
        return []
    lines: dict[str, list[Any]] = {"R": [], "cost": [], "P": [], "text": []}
    for label, path in epochs.groupby("label", sort=False):
        for column in ("R", "cost", "P"):
            lines[column] += [*path[column].round(6), None]
        lines["text"] += [*(f"{theme.text(label)}, epoch {s}" for s in path["step"]), None]
    trace = go.Scatter(
        y=lines["P"],
        mode="lines+markers",
        line={"color": theme.FAINT, "width": 1},
        marker={"size": 3, "color": theme.NEUTRAL},
        text=lines["text"],
        hovertemplate="%{text}: P %{y:.4f}<extra></extra>",
        name="epochs",
        visible=visible,
    )
    return [(trace, [lines["R"], lines["cost"]])]


def _models(points: pd.DataFrame, hover: str) -> list[_Trace]:
    front = points[points["pareto"]].sort_values("R")
    best = points.nsmallest(1, "rank")
    groups: list[tuple[str, Mapping[str, Any], pd.DataFrame]] = [
        ("models", {"mode": "markers", "marker": {"color": theme.SKY, "size": 7, "opacity": 0.75,
                    "line": {"width": 0.5, "color": theme.BLUE}}}, points[~points["pareto"]]),
        ("Pareto set", {"mode": "lines+markers", "line": {"color": theme.ORANGE, "width": 1.5},
                        "marker": {"size": 9, "symbol": "diamond", "color": theme.ORANGE}}, front),
        ("knee", {"mode": "markers", "marker": {"size": 17, "symbol": "square-open",
                  "color": theme.GREEN, "line": {"width": 2.5}}}, points[points["knee"]]),
        ("best score", {"mode": "markers", "marker": {"size": 15, "symbol": "star",
                        "color": theme.RED}}, best),
    ]  # fmt: skip
    return [
        (
            go.Scatter(
                y=rows["P"],
                text=theme.texts(rows["label"]),
                ids=list(rows["run_id"]),
                customdata=rows[["score", "R", "cost", "rank", "n"]].to_numpy(),
                hovertemplate=hover,
                name=name,
                **style,
            ),
            [list(rows[axis]) for axis in _AXES],
        )
        for name, style, rows in groups
    ]


def named_points(points: pd.DataFrame) -> pd.DataFrame:
    """The few models named in the figure: best by score, best by P, the knee, the cheapest."""
    best, knee = [points["rank"].idxmin(), points["P"].idxmax()], points.index[points["knee"]]
    return points.loc[list(dict.fromkeys([*best, *knee, points["R"].idxmin()]))].sort_values("R")


def _switch(
    figure: go.Figure, named: pd.DataFrame, xs: list[list[Any]], axes: list[str], first: int
) -> None:
    """Buttons that change between R and the cost itself."""
    buttons = []
    for i, word in enumerate(("R", axes[1].rpartition("(")[2].rstrip(")") or "cost")):
        moved = {f"annotations[{j}].x": float(x) for j, x in enumerate(named[_AXES[i]])}
        args = [{"x": [x[i] for x in xs]}, {"xaxis.title.text": axes[i], **moved}]
        buttons.append({"label": word, "method": "update", "args": args})
    place = {"x": 1, "xanchor": "right", "y": 1.02, "yanchor": "bottom", "direction": "right"}
    menu = {"type": "buttons", "buttons": buttons, "active": first, **place}
    figure.update_layout(updatemenus=[menu])


def _hover(by: str, both: bool) -> str:
    cost = f"<br>{theme.text(_words(by))} %{{customdata[2]:.4g}} {theme.text(cost_unit(by))}"
    return (
        "<b>%{text}</b><br>score %{customdata[0]:.4f} (rank %{customdata[3]})<br>P %{y:.4f}<br>"
        f"R %{{customdata[1]:.4f}}{cost if both else ''}<br>runs %{{customdata[4]}}<extra></extra>"
    )


def _words(by: str) -> str:
    return "cost" if "+" in by else cost_title(by).split(" (")[0]


def panel(material: Material, options: Options, comparison_set: str) -> Panel:
    points = data(material, comparison_set)
    by = material.models_of(comparison_set)["scored_by"].iloc[0]
    knee = points.loc[points["knee"], "label"]
    return Panel(
        title=f"Performance against cost: {comparison_set}",
        caption=(
            f"Each point is one of {len(points)} models: higher is better, further left cheaper, "
            "and along a dotted line the PePR score is the same. "
            f"{int(points['pareto'].sum())} are Pareto-optimal: no model is both better and cheaper"
            + (f"; extra cost pays off up to {knee.iloc[0]}, little beyond it" if len(knee) else "")
            + f". {points.nsmallest(1, 'rank')['label'].iloc[0]} has the best score."
        ),
        figure=draw(
            points,
            paths(material, comparison_set),
            by=by,
            performance=material.performance_name(comparison_set),
            bounds=material.bounds(comparison_set, by),
            options=options,
            alpha=material.question(comparison_set).alpha,
        ),
        table=points,
    )
