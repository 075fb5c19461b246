"""Whether the probabilities can be believed: accuracy over confidence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from pepr_mlops.comparison import clinical
from pepr_mlops.report import theme
from pepr_mlops.report.figures.clinical import models
from pepr_mlops.report.figures.common import Panel, styles
from pepr_mlops.report.material import Material


@dataclass(frozen=True)
class Options:
    """None: the models are those of the figure `clinical`."""


def draw(points: pd.DataFrame, colours: Mapping[str, Mapping[str, str]]) -> go.Figure:
    """Accuracy in bins of the confidence with the diagonal, and how many images are in each."""
    figure = make_subplots(
        rows=2, cols=1, shared_xaxes=True, row_heights=[0.72, 0.28], vertical_spacing=0.06
    )
    figure.add_scatter(
        x=[0, 1], y=[0, 1], mode="lines", name="calibrated", hoverinfo="skip", row=1, col=1,
        line={"color": theme.NEUTRAL, "dash": "dash", "width": 1},
    )  # fmt: skip
    for i, (model, rows) in enumerate(points.groupby("model", sort=False)):
        for row, column in ((1, "accuracy"), (2, "images")):
            figure.add_scatter(
                x=rows["confidence"],
                y=rows[column],
                customdata=rows["images"],
                mode="lines+markers",
                name=theme.name(str(model)),
                legendgroup=str(i),
                showlegend=row == 1,
                line={"width": 1.5},
                marker={"size": 7, **colours[str(model)]},
                hovertemplate="confidence %{x:.1%}, %{customdata:.0f} images: %{y}"
                "<extra>%{fullData.name}</extra>",
                row=row,
                col=1,
            )
    least = float(points["confidence"].min())
    figure.update_xaxes(range=[least - 0.03, 1.02], tickformat=".1~%")
    figure.update_xaxes(title="confidence in the named class", row=2, col=1)
    figure.update_yaxes(title="accuracy", range=[-0.03, 1.05], tickformat=".1~%", row=1, col=1)
    figure.update_yaxes(title="images", rangemode="tozero", nticks=4, row=2, col=1)
    return figure.update_layout(height=540, showlegend=True)


def panel(material: Material, options: Options, comparison_set: str) -> Panel:
    points = clinical.curves(models(material, comparison_set))
    return Panel(
        title="Confidence and accuracy",
        caption=_caption(points),
        reading=(
            "Accuracy on the test images in 15 equal bins of the confidence. Below the dashed line "
            "a model is too sure, above it not sure enough. The lower plot has the number of "
            "images of a run in each bin."
        ),
        figure=draw(points, styles(material, comparison_set)),
        table=points,
    )


def _caption(points: pd.DataFrame) -> str:
    """By how much the mean confidence of each model is beyond its accuracy."""
    found = []
    for model, rows in points.groupby("model", sort=False):
        gap = float(np.average(rows["confidence"] - rows["accuracy"], weights=rows["images"]))
        how = "overconfident" if gap > 0 else "underconfident"
        found.append(f"{model} is {how} by {abs(100 * gap):.1f} points")
    return f"On average {' and '.join(found)}."
