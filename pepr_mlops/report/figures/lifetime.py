"""Energy of training and use against images a year, and from where on another model is cheaper."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from pepr_mlops.comparison import lifetime_text
from pepr_mlops.comparison.lifetime import Lifetime
from pepr_mlops.comparison.profiles import remedy
from pepr_mlops.report import theme
from pepr_mlops.report.figures.common import Panel, answer_of
from pepr_mlops.report.material import Material, NothingToDraw

_POINTS = 61
_REACH = 100.0  # times the break-evens and the images of one training, to both sides


@dataclass(frozen=True)
class Options:
    """None: the models are the good-enough ones and the best performer, as far as they were
    profiled, and images and years are those of the question."""


def lines(found: Lifetime) -> pd.DataFrame:
    """A row per model and number of images a year: `model`, `good`, `images_per_year`, `total_wh`,
    `training_source`, `use_source`."""
    models = found.models
    marks = [*(models["images"] / found.years), *(step.images for step in found.steps)]
    marks += [] if found.use is None else [found.use.images_per_year]
    marks = [mark for mark in marks if mark > 0]
    at = np.geomspace(min(marks) / _REACH, max(marks) * _REACH, _POINTS)
    return pd.concat(
        [
            pd.DataFrame(
                {
                    "model": row["label"],
                    "good": row["good"],
                    "images_per_year": at,
                    "total_wh": row["training_wh"] + at * found.years * row["wh_per_image"],
                    "training_source": row["training_source"],
                    "use_source": row["use_source"],
                }
            )
            for row in models.to_dict("records")
        ],
        ignore_index=True,
    )


def draw(table: pd.DataFrame, found: Lifetime) -> go.Figure:
    """A line per model on logarithmic axes; the break-evens with their intervals."""
    figure = go.Figure()
    for i, (model, rows) in enumerate(table.groupby("model", sort=False)):
        good = bool(rows["good"].iloc[0])
        figure.add_scatter(
            x=rows["images_per_year"],
            y=rows["total_wh"],
            mode="lines",
            name=theme.text(f"{model}{'' if good else ' (not shown to be good enough)'}"),
            line={"color": theme.style(i)["color"], "dash": "solid" if good else "dot"},
            hovertemplate="%{x:.4g} images a year: %{y:.4g} Wh<extra>%{fullData.name}</extra>",
        )
    most = float(table["images_per_year"].max())
    for step in found.steps:
        figure.add_vrect(
            x0=max(step.low, float(table["images_per_year"].min())),
            x1=min(step.high, most),
            fillcolor=theme.NEUTRAL,
            opacity=0.15,
            line_width=0,
        )
        figure.add_vline(x=step.images, line={"color": theme.RED, "dash": "dash", "width": 1})
    if found.use is not None:
        line = {"color": theme.NEUTRAL, "dash": "dot", "width": 2}
        figure.add_vline(x=found.use.images_per_year, line=line)
    years = f"{found.years:g} year{'s' * (found.years != 1)}"
    return figure.update_layout(
        xaxis={"title": f"images a year, for {years}", "type": "log"},
        yaxis={"title": "energy of training and use (Wh)", "type": "log"},
    )


def panel(material: Material, options: Options, comparison_set: str) -> Panel:
    found = answer_of(material, comparison_set).lifetime
    if found is None:
        raise NothingToDraw(
            "no good-enough model was profiled, or their profiles are of different conditions; "
            f"{remedy('inference/wh_per_image')} measures the energy of use"
        )
    table = lines(found)
    shown = " ".join(f"{line}." for line in lifetime_text.sentences(found))
    marks = "Dashed where the cheapest good-enough model changes, with the 95 % interval. "
    requested = "" if found.use is None else "Dotted upright at the images of the question. "
    return Panel(
        f"Energy of training and use: {comparison_set}",
        f"{marks if found.steps else ''}{requested}{shown}",
        draw(table, found),
        table,
    )
