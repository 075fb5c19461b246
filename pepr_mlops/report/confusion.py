"""Which classes a model takes for which."""

from __future__ import annotations

import plotly.graph_objects as go

from pepr_mlops.performance import MULTI_LABEL, Ints, Task

_OUTCOMES = ("true negative", "false positive", "false negative", "true positive")


def figure(counts: Ints, classes: tuple[str, ...], task: Task, title: str) -> go.Figure:
    """Heat map of `performance.confusion`, coloured by the share of each row."""
    columns = _OUTCOMES if task == MULTI_LABEL else classes
    totals = counts.sum(axis=1, keepdims=True)
    shares = counts / totals.clip(min=1)
    heat = go.Heatmap(
        z=shares,
        x=list(columns),
        y=list(classes),
        customdata=counts,
        text=counts,
        texttemplate="%{text}",
        hovertemplate="%{y} → %{x}: %{customdata} images, %{z:.1%} of the row<extra></extra>",
        colorscale="Blues",
        zmin=0,
        zmax=1,
        colorbar={"title": "share of row", "tickformat": ".0%"},
    )
    drawn = go.Figure(heat)
    drawn.update_layout(
        title=title,
        xaxis={"title": "outcome" if task == MULTI_LABEL else "predicted", "type": "category"},
        yaxis={
            "title": "label" if task == MULTI_LABEL else "true class",
            "type": "category",
            "autorange": "reversed",
        },
        template="plotly_white",
    )
    return drawn
