"""Energy of training and use against images a year, and from where on another model is cheaper."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from pepr_mlops.comparison import lifetime_text
from pepr_mlops.comparison.lifetime import Lifetime
from pepr_mlops.comparison.profiles import remedy
from pepr_mlops.report import theme
from pepr_mlops.report.figures.common import Panel, answer_of, log_ticks, styles
from pepr_mlops.report.figures.placing import Axis, Label, add_labels
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


_HEIGHT = 420  # px


def draw(
    table: pd.DataFrame, found: Lifetime, colours: Mapping[str, Mapping[str, str]]
) -> go.Figure:
    """A line per model on logarithmic axes; the break-evens with their intervals."""
    figure = go.Figure()
    ends = []
    for model, rows in table.groupby("model", sort=False):
        good, colour = bool(rows["good"].iloc[0]), colours[str(model)]["color"]
        doubt = "" if good else "not shown to be good enough"
        figure.add_scatter(
            x=rows["images_per_year"],
            y=rows["total_wh"],
            mode="lines",
            name=", ".join(filter(None, [theme.name(str(model)), doubt])),
            line={"color": colour, "dash": "solid" if good else "dot"},
            hovertemplate="%{x:.4g} images a year: %{y:.4g} Wh<extra>%{fullData.name}</extra>",
        )
        last = rows.iloc[-1]
        ends.append(Label(last["images_per_year"], last["total_wh"], str(model), doubt, colour))
    x = Axis(float(table["images_per_year"].min()), float(table["images_per_year"].max()), log=True)
    y = Axis(float(table["total_wh"].min()) / 1.5, float(table["total_wh"].max()) * 3, log=True)
    for step in found.steps:
        figure.add_vrect(
            x0=max(step.low, x.low),
            x1=min(step.high, x.high),
            fillcolor=theme.NEUTRAL,
            opacity=0.15,
            line_width=0,
        )
        figure.add_vline(x=step.images, line={"color": theme.NEUTRAL, "dash": "dash", "width": 1})
    if found.use is not None:
        line = {"color": theme.NEUTRAL, "dash": "dot", "width": 2}
        figure.add_vline(x=found.use.images_per_year, line=line)
    years = f"{found.years:g} year{'s' * (found.years != 1)}"
    figure.update_layout(
        xaxis={
            "title": {"text": f"images a year, for {years}"},
            "range": x.range,
            **log_ticks(x.low, x.high),
        },
        yaxis={
            "title": {"text": "energy of training and use"},
            "range": y.range,
            **log_ticks(y.low, y.high, "Wh", upright=True),
        },
        height=_HEIGHT,
    )
    crowd = (table["images_per_year"], table["total_wh"])
    direct = add_labels(figure, ends, x, y, crowd=crowd, height=_HEIGHT - 90, every=True)
    return figure.update_layout(showlegend=not direct)


def panel(material: Material, options: Options, comparison_set: str) -> Panel:
    found = answer_of(material, comparison_set).lifetime
    if found is None:
        why = "no good-enough model was profiled, or their profiles are of different conditions"
        if not material.imported(comparison_set):
            why += f"; {remedy('inference/wh_per_image')} measures the energy of use"
        raise NothingToDraw(why)
    table = lines(found)
    sentences = lifetime_text.sentences(found)
    if found.steps:  # where the lines cross is what the figure shows
        first = lifetime_text.step_text(found.steps[0], found.years)
        sentences = [first, *(text for text in sentences if text != first)]
    marks = []
    if found.steps:
        marks += [
            "The dashed line is where the cheapest good-enough model changes, the band its 95% "
            "interval"
        ]
    if found.use is not None:
        marks += [f"The dotted line is at {found.use.images_per_year:,.0f} images a year"]
    return Panel(
        title="Energy of training and use",
        caption=f"{sentences[0]}.",
        reading=" ".join(f"{text}." for text in [*marks, *sentences[1:]]),
        figure=draw(table, found, styles(material, comparison_set)),
        table=table,
    )
