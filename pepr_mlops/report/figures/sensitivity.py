"""How the ranking moves with α and with the weights of two resources."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from pepr_mlops.comparison import pepr
from pepr_mlops.names import PERFORMANCE
from pepr_mlops.report import theme
from pepr_mlops.report.figures.common import Count, Panel
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


def draw(points: pd.DataFrame, resources: tuple[str, ...]) -> go.Figure:
    """Rank over α, and over the weight where two resources are weighted; the first place on top."""
    both = "weight" in set(points["setting"])
    figure = make_subplots(rows=1, cols=1 + both, shared_yaxes=True, horizontal_spacing=0.06)
    for i, (label, rows) in enumerate(points.groupby("label", sort=False)):
        dash = theme.DASHES[i // len(theme.COLOURS) % len(theme.DASHES)]
        for col, setting in enumerate(("alpha", "weight")[: 1 + both], 1):
            at = rows[rows["setting"] == setting]
            figure.add_scatter(
                x=at["value"],
                y=at["rank"],
                customdata=at["score"],
                mode="lines+markers",
                name=theme.text(label),
                legendgroup=str(i),
                showlegend=col == 1,
                line={"dash": dash},
                marker={"size": 5, **theme.style(i)},
                hovertemplate="rank %{y}, score %{customdata:.4f}<extra>%{fullData.name}</extra>",
                row=1,
                col=col,
            )
    figure.update_yaxes(range=[points["rank"].max() * 1.05 + 0.5, 0.3])
    figure.update_yaxes(title="rank", row=1, col=1)
    ticks = [1, 2, 5, 10, 20, 50, 100]
    figure.update_xaxes(title="α: resources count less →", type="log", tickvals=ticks, row=1, col=1)
    if both:
        a, b = map(theme.text, resources)
        figure.update_xaxes(title=f"weight of {b} (rest: {a})", row=1, col=2)
    return figure


def panel(material: Material, options: Options, comparison_set: str) -> Panel:
    names = tuple(material.resources(comparison_set))
    resources = options.resources or names[:2]
    unknown = [name for name in resources if name not in names]
    if unknown:
        raise NothingToDraw(f"not every model has a cost {unknown[0]}")
    every = data(material, comparison_set, resources)
    chosen = material.models_of(comparison_set).nsmallest(options.top, "rank")["label"]
    points = every[every["label"].isin(chosen)]
    alpha = every[every["setting"] == "alpha"]
    first = [_first(alpha, value) for value in (ALPHAS[0], 10.0, ALPHAS[-1])]
    return Panel(
        title=f"How the ranking moves: {comparison_set}",
        caption=(
            f"The {len(chosen)} best models with the original settings. As α grows, performance "
            f"counts more and cost less. First place: {', '.join(first)}."
        ),
        figure=draw(points, resources),
        table=points,
    )


def _first(alpha: pd.DataFrame, value: float) -> str:
    """Who has the first place at one α, and how many share it."""
    winners = alpha.loc[(alpha["value"] == value) & (alpha["rank"] == 1), "label"]
    others = f" and {len(winners) - 1} more" if len(winners) > 1 else ""
    return f"{winners.iloc[0]}{others} at α = {value:g}"
