"""How the ranking moves with α and with the weights of two resources."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from pepr_mlops.comparison import pepr
from pepr_mlops.comparison.words import cost_words
from pepr_mlops.names import PERFORMANCE
from pepr_mlops.report import theme
from pepr_mlops.report.figures.common import Count, Panel, styles
from pepr_mlops.report.material import Material, NothingToDraw


@dataclass(frozen=True)
class Options:
    """The `top` models are drawn; `resources` are the two whose weights change."""

    top: Count = 6
    resources: tuple[str, ...] = ()


COLUMNS = ["setting", "value", "label", "score", "rank"]
ALPHAS = tuple(float(a) for a in np.round(np.geomspace(1, 100, 25), 4))
SHARES = tuple(float(w) for w in np.round(np.linspace(0, 1, 21), 4))


def data(material: Material, comparison_set: str, resources: tuple[str, ...]) -> pd.DataFrame:
    """Score and rank of every model at each α and each share of the second resource, in COLUMNS.

    `setting` is `alpha` (with the requested weights) or `weight` (with the requested α and
    the rest of the weight on the first resource).
    """
    rows = material.models_of(comparison_set)
    question = material.question(comparison_set)
    p = rows[PERFORMANCE].to_numpy()
    settings = [("alpha", a, pepr.pepr(p, rows["R"].to_numpy(), alpha=a)) for a in ALPHAS]
    if len(resources) == 2:
        r = rows[[f"R {name}" for name in resources]].to_numpy()
        settings += [
            ("weight", w, pepr.pepr(p, r, weights=(1 - w, w), alpha=question.alpha)) for w in SHARES
        ]
    frames = []
    for name, value, scores in settings:
        table = pd.DataFrame({"label": rows["label"].to_numpy(), "score": scores.to_numpy()})
        rank = table["score"].rank(ascending=False, method="min").astype(int)
        frames.append(table.assign(setting=name, value=value, rank=rank))
    return pd.concat(frames, ignore_index=True)[COLUMNS]


def draw(
    points: pd.DataFrame,
    resources: tuple[str, ...],
    colours: Mapping[str, Mapping[str, str]],
) -> go.Figure:
    """Rank over α, and over the weight where two resources are weighted; the first place on top."""
    settings = [name for name in ("alpha", "weight") if (points["setting"] == name).any()]
    figure = make_subplots(rows=len(settings), cols=1, vertical_spacing=0.22 / len(settings))
    for i, (label, rows) in enumerate(points.groupby("label", sort=False)):
        for row, setting in enumerate(settings, 1):
            at = rows[rows["setting"] == setting]
            figure.add_scatter(
                x=at["value"],
                y=at["rank"],
                customdata=at["score"],
                mode="lines+markers",
                name=theme.name(str(label)),
                legendgroup=str(i),
                showlegend=row == 1,
                line={"width": 1.5},
                marker={"size": 7, "maxdisplayed": 6, **colours[str(label)]},
                hovertemplate="rank %{y}, score %{customdata:.3f}<extra>%{fullData.name}</extra>",
                row=row,
                col=1,
            )
    for row, setting in enumerate(settings, 1):
        most = int(points.loc[points["setting"] == setting, "rank"].max())
        step = math.ceil(most / 6) if most <= 12 else 5 * math.ceil(most / 30)
        places = list(range(1, most + 1, step)) if most <= 12 else [1, *range(step, most + 1, step)]
        bounds = [most * 1.05 + 0.5, 0.5 - 0.05 * most]
        figure.update_yaxes(title="rank", range=bounds, tickvals=places, row=row, col=1)
    ticks = [1, 2, 5, 10, 20, 50, 100]
    title = "α: the greater, the less costs count"
    figure.update_xaxes(title=title, type="log", tickvals=ticks, row=1, col=1)
    if len(settings) > 1:
        title = f"weight of {theme.text(cost_words(resources[1])['name'])}"
        figure.update_xaxes(title=title, tickformat=".0%", row=2, col=1)
    return figure.update_layout(height=130 + 250 * len(settings))


def panel(material: Material, options: Options, comparison_set: str) -> Panel:
    names = tuple(material.resources(comparison_set))
    resources = options.resources or names[:2]
    unknown = [name for name in resources if name not in names]
    if unknown:
        raise NothingToDraw(f"not every model has a cost {unknown[0]}")
    every = data(material, comparison_set, resources)
    chosen = material.models_of(comparison_set).nsmallest(options.top, "rank")["label"]
    points = every[every["label"].isin(chosen)]
    return Panel(
        title="How the ranking moves",
        caption=_caption(every[every["setting"] == "alpha"]),
        reading=(
            f"The lines are the {len(chosen)} models that rank best with the original settings. As "
            "α grows, performance counts more and cost less." + _weighted(resources)
        ),
        figure=draw(points, resources, styles(material, comparison_set)),
        table=points,
    )


def _weighted(resources: tuple[str, ...]) -> str:
    if len(resources) < 2:
        return ""
    one, two = (cost_words(name)["name"] for name in resources)
    return f" The lower plot shifts the weight from {one} to {two}."


def _caption(alpha: pd.DataFrame) -> str:
    """Who has the first place at which α."""
    winners = alpha[alpha["rank"] == 1].groupby("value", sort=False)["label"].agg(_together)
    first, last = winners.iloc[0], winners.iloc[-1]
    changes = list(winners.index[winners != winners.shift()])[1:]
    if not changes:
        return f"{first} ranks first for every α from {ALPHAS[0]:g} to {ALPHAS[-1]:g}."
    if len(changes) == 1:
        return f"{first} ranks first at α = 1, and {last} from α = {changes[0]:.2g} on."
    return (
        f"The first place changes {len(changes)} times as α grows: {first} ranks first at α = 1 "
        f"and {last} at α = {ALPHAS[-1]:g}."
    )


def _together(winners: pd.Series[str]) -> str:
    """Those who share the first place."""
    others = f" (with {len(winners) - 1} more)" if len(winners) > 1 else ""
    return f"{winners.iloc[0]}{others}"
