"""Any number of the models against any other, by category (Fig. 3c, 3d, 4b and A.2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from pepr_mlops.comparison.significance import sizes
from pepr_mlops.comparison.words import sentence
from pepr_mlops.names import PERFORMANCE
from pepr_mlops.report import theme
from pepr_mlops.report.figures.common import (
    NEITHER,
    WORDS,
    Panel,
    averaged,
    by_category,
    chosen_sets,
    classified,
    correlation,
    in_sentence,
    log_ticks,
    performance_axis,
    quantity_title,
    spans_decades,
    wrapped,
)
from pepr_mlops.report.material import Material, NothingToDraw
from pepr_mlops.text import number, p_value


@dataclass(frozen=True)
class Options:
    """`y` against `x`, each a column of `Material.models` or a metric, distinguished `by` category.

    `score` is the main score. Of several `experiments`, by default the requested ones, each model's
    mean is drawn.
    """

    x: str = "parameters"
    y: tuple[str, ...] = (PERFORMANCE, "score")
    by: Literal["efficient", "kind", "size"] = "efficient"
    experiments: tuple[str, ...] = ()


def data(material: Material, options: Options) -> pd.DataFrame:
    """A row per model: `label`, `category` (in the words of the legend), `run_id`, x and every y.

    `run_id` is missing where several experiments are averaged. Small and large are relative to the
    models of the same experiments. Rows that miss a number are left out.
    Raises `NothingToDraw` for unknown experiments and names, and where no row is left.
    """
    names = list(dict.fromkeys([options.x, *options.y]))
    if not options.y:
        raise NothingToDraw("y names nothing to draw")
    rows = averaged(material, chosen_sets(material, options.experiments), names)
    rows["size"] = sizes(rows["parameters"])
    rows["category"] = classified(rows, options.by)
    rows = rows.dropna(subset=names)
    if rows.empty:
        raise NothingToDraw(f"no model has all of {', '.join(names)}")
    return rows[["label", "category", "run_id", *names]].reset_index(drop=True)


def draw(
    points: pd.DataFrame, options: Options, titles: Mapping[str, str], performance: str
) -> go.Figure:
    """One plot for each y above the next, over one x axis; `titles` are those of the axes and
    `performance` the metric that is P."""
    figure = make_subplots(
        rows=len(options.y), cols=1, shared_xaxes=True, vertical_spacing=0.16 / len(options.y)
    )
    for i, y in enumerate(options.y, 1):
        for trace in by_category(points, options.by, options.x, y, "%{y:.4g} at %{x:.4s}"):
            trace.update(legendgroup=trace.name, showlegend=i == 1)
            figure.add_trace(trace, row=i, col=1)
        axis = {"title": {"text": wrapped(titles[y], 24)}}
        figure.update_yaxes(
            {**performance_axis(performance), **axis} if y == PERFORMANCE else axis, row=i, col=1
        )
    figure.update_xaxes(title={"text": theme.text(titles[options.x])}, row=len(options.y), col=1)
    sized = options.x == "parameters"
    wide = options.x != "rank" and spans_decades(points[options.x])
    if points[options.x].min() > 0 if sized else wide:
        low, high = points[options.x].min() / 1.25, points[options.x].max() * 1.25
        scale = 1e6 if sized else 1.0
        figure.update_xaxes(range=np.log10([low, high]), **log_ticks(low, high, scale=scale))
    return figure.update_layout(height=130 + 230 * len(options.y), showlegend=True)


def panel(material: Material, options: Options) -> Panel:
    points = data(material, options)
    sets = chosen_sets(material, options.experiments)
    titles = {name: quantity_title(material, sets, name) for name in (options.x, *options.y)}
    first, *others = _correlations(material, sets, points, options, titles)
    shown = sentence(" and ".join(in_sentence(titles[y]) for y in options.y))
    return Panel(
        title=f"{shown} against {in_sentence(titles[options.x])} by {_BY[options.by]}",
        caption=first,
        reading=" ".join(
            [
                _origin(points, material, sets),
                *others,
                f"Medians of {in_sentence(titles[options.y[0]])}: "
                f"{_medians(points, options.by, options.y[0])}.",
            ]
        ),
        figure=draw(points, options, titles, material.performance_name(*sets)),
        table=points,
        sets=tuple(sets),
    )


_BY = {"efficient": "efficiency", "kind": "kind of network", "size": "size"}


def _origin(points: pd.DataFrame, material: Material, sets: Sequence[str]) -> str:
    experiments = material.sets.set_index("comparison_set").loc[sets, "experiment"].unique()
    every = material.models.loc[material.models["comparison_set"].isin(sets), "label"]
    if len(experiments) > 1:
        left = every.nunique() - len(points)
        return (
            f"Each point is the mean of one of {len(points)} models over {', '.join(experiments)}"
            + (f". Left out: {left} that are not in all of them." if left else ".")
        )
    left = len(every) - len(points)
    where = f"{experiments[0]}, split into {len(sets)} comparison sets" * (len(sets) > 1)
    return f"Each point is one of {len(points)} models of {where or experiments[0]}" + (
        f". Left out: {left} for which a number is missing." if left else "."
    )


def _correlations(
    material: Material,
    sets: Sequence[str],
    points: pd.DataFrame,
    options: Options,
    titles: Mapping[str, str],
) -> list[str]:
    """A sentence for each y; a single one where points repeat a model."""
    rows = material.models[material.models["comparison_set"].isin(sets)]
    if rows.duplicated(["experiment", "model"]).any():
        return ["Some models appear more than once, so no correlation is given."]
    x = in_sentence(titles[options.x])
    sentences = []
    for name in options.y:
        y = in_sentence(titles[name])
        y = f"the {y}" if y.startswith("PePR") else y
        found = correlation(points[options.x], points[name])
        if found is None:
            sentences.append(f"The rank correlation of {y} with {x} is not defined.")
            continue
        strength, p = found
        moves = "rises with" if strength > 0 else "falls with"
        moves = moves if p < 0.05 else "shows no correlation with"
        sentences.append(
            f"{sentence(y)} {moves} {x} (Spearman's rank correlation {strength:.2f}, {p_value(p)}, "
            f"n = {len(points)})."
        )
    return sentences


def _medians(points: pd.DataFrame, by: str, y: str) -> str:
    groups = points.groupby("category")[y].agg(["median", "size"])
    names = [n for n in (*WORDS[by].values(), NEITHER) if n in groups.index]
    return ", ".join(
        f"{number(groups.loc[n, 'median'])} {n} (n = {groups.loc[n, 'size']})" for n in names
    )
