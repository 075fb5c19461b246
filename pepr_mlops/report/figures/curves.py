"""The PePR curve of one or several models over their epochs (the paper's Eq. 2 and Fig. 2b)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from pepr_mlops.comparison import pepr
from pepr_mlops.comparison.words import cost_title, cost_words, metric_name
from pepr_mlops.names import COMPLEMENT, PERFORMANCE, RESOURCES
from pepr_mlops.report import theme
from pepr_mlops.report.figures.common import (
    DOTTED,
    SPREAD,
    Count,
    Panel,
    chosen_models,
    of_folds,
    performance_hover,
    styles,
)
from pepr_mlops.report.figures.placing import Axis, Label, add_labels, along
from pepr_mlops.report.material import Material, NothingToDraw
from pepr_mlops.text import number


@dataclass(frozen=True)
class Options:
    """`models` are drawn, by default the `top` ones by score; `resource` grows with the epochs."""

    models: tuple[str, ...] = ()
    top: Count = 5
    resource: str = ""


COLUMNS = ["label", "step", "cost", "R", "P", "score", "estimated"]


def so_far(material: Material, comparison_set: str, resource: str) -> pd.DataFrame:
    """Cost and performance of each model of a set after each epoch: `label`, `step`, `cost`, `P`,
    `estimated`.

    Runs of one model are averaged over the epochs that all of them have. Of a cross-validation P is
    the mean over the folds, whose costs add up, after the epochs that all folds have. Where only
    the cost of the full run is known, it is spread evenly over the epochs and `estimated` is true;
    runs whose cost is known for a part only are left out. CO2e uses the requested intensity, if
    any. Raises `NothingToDraw` without histories, and for resources that do not grow with training.
    """
    metric = RESOURCES[resource].metric if resource in RESOURCES else None
    if metric is None:
        raise NothingToDraw(f"{resource} does not add up over epochs; E, C and T do")
    question = material.question(comparison_set)
    performance = question.performance or PERFORMANCE
    runs = material.runs_of(comparison_set)
    folds = runs["fold_runs"].fillna(runs["run_id"]).str.split()
    of_row = runs[["label", "pue"]].assign(row=runs["run_id"], folds=folds.str.len(), run_id=folds)
    epochs = material.epochs.merge(of_row.explode("run_id"), on="run_id")
    if performance in epochs and material.performance_name(comparison_set).startswith(COMPLEMENT):
        epochs[performance] = 1 - epochs[performance]
    if resource == "C" and question.intensity is not None and "energy/train_wh" in epochs:
        kwh = epochs["energy/train_wh"] / 1000
        epochs[metric] = kwh * question.intensity.g_per_kwh * epochs["pue"].fillna(1.0)
    if performance not in epochs or metric not in epochs:
        raise NothingToDraw("the runs have no history of epochs")
    epochs = epochs.dropna(subset=[performance]).sort_values(["run_id", "step"])
    epochs = epochs[epochs["step"] > 0]
    by_run = epochs.groupby("run_id")
    known = by_run[metric].transform("count") == by_run["step"].transform("size")
    end = by_run["step"].transform("max")
    # of the last epoch, or the sum is of a part of the run: its sensor was lost
    at_end = epochs[metric].where(epochs["step"] == end)
    even = at_end.groupby(epochs["run_id"]).transform("max") * epochs["step"] / end
    epochs["cost"] = epochs[metric].where(known, even)
    epochs["estimated"] = ~known
    epochs = epochs[np.isfinite(epochs["cost"]) & epochs[performance].between(0, 1)]
    if epochs.empty:
        raise NothingToDraw(f"the runs have no history of {performance} and {metric}")
    of_runs = epochs.groupby(["label", "row", "step"], as_index=False).agg(
        cost=("cost", "sum"),
        P=(performance, "mean"),
        estimated=("estimated", "any"),
        known=("run_id", "size"),
        folds=("folds", "first"),
    )
    of_runs = of_runs[of_runs["known"] == of_runs["folds"]]
    means = of_runs.groupby(["label", "step"], as_index=False).agg(
        cost=("cost", "mean"),
        P=("P", "mean"),
        estimated=("estimated", "any"),
        runs=("row", "size"),
    )
    in_all = means["runs"] == means.groupby("label")["runs"].transform("max")
    return means[in_all].drop(columns="runs").reset_index(drop=True)


def data(
    material: Material, comparison_set: str, resource: str, by: pepr.Bounds | None = None
) -> pd.DataFrame:
    """The PePR curves of all models of a set: a row per model and epoch, in COLUMNS.

    R is the cost `so_far`, normalised by `by` or, if None, from no cost to that of the dearest
    model of the set: with R = 0 at the cheapest model, the first epochs would vanish. Raises
    `NothingToDraw` as `so_far`, and for a resource that not every model has.
    """
    if resource not in material.resources(comparison_set):
        raise NothingToDraw(f"not every model has a cost {resource}")
    means = so_far(material, comparison_set, resource)
    by = by or pepr.Bounds(0, float(material.models_of(comparison_set)[f"cost {resource}"].max()))
    means["R"] = pepr.normalise(means["cost"], by)
    means["score"] = pepr.pepr(
        means["P"], means["R"], alpha=material.question(comparison_set).alpha
    )
    return means[COLUMNS]


def peaks(points: pd.DataFrame) -> pd.DataFrame:
    """The maximum of each curve, `pepr.peak`: `label`, `R`, `P`, `score`."""
    tops = {label: pepr.peak(curve) for label, curve in points.groupby("label", sort=False)}
    rows = [(label, top.resource, top.performance, top.score) for label, top in tops.items()]
    return pd.DataFrame(rows, columns=["label", "R", "P", "score"])


def draw(
    points: pd.DataFrame,
    tops: pd.DataFrame,
    *,
    resource: str,
    performance: str,
    colours: Mapping[str, Mapping[str, str]],
) -> go.Figure:
    """Score over R for each model, its maximum marked, the region beyond it thick."""
    figure = go.Figure()
    hover = (
        f"epoch %{{customdata[0]}}: score %{{y:.3f}}<br>"
        f"{performance_hover(performance, 'customdata[1]')}<br>"
        f"{theme.text(cost_title(resource))} %{{customdata[2]:.4g}}, R %{{x:.3f}}"
        "<extra>%{fullData.name}</extra>"
    )
    for i, (label, curve) in enumerate(points.groupby("label", sort=False)):
        style = colours[str(label)]
        of_model = {"legendgroup": str(i), "name": theme.name(str(label))}
        figure.add_scatter(
            x=curve["R"],
            y=curve["score"],
            mode="lines+markers",
            line={"color": style["color"], "dash": "dot" if curve["estimated"].any() else "solid"},
            marker={"size": 5, "symbol": style["symbol"]},
            customdata=curve[["step", "P", "cost"]].to_numpy(),
            hovertemplate=hover,
            **of_model,
        )
        top = tops[tops["label"] == label].iloc[0]
        figure.add_scatter(
            x=[top["R"]],
            y=[top["score"]],
            mode="markers",
            marker={"size": 13, "symbol": "star", "color": style["color"]},
            showlegend=False,
            hovertemplate="best score %{y:.3f} at R %{x:.3f}<extra>%{fullData.name}</extra>",
            **of_model,
        )
        after = curve[curve["R"] >= top["R"]]
        if len(after) > 1:
            figure.add_scatter(
                x=after["R"],
                y=after["score"],
                mode="lines",
                line={"color": style["color"], "width": 9},
                opacity=0.22,
                showlegend=False,
                hoverinfo="skip",
                **of_model,
            )
    return _with_axes(figure, points, resource, colours)


_HEIGHT = 420  # px


def _with_axes(
    figure: go.Figure,
    points: pd.DataFrame,
    resource: str,
    colours: Mapping[str, Mapping[str, str]],
) -> go.Figure:
    """Axes with room for the names of the models at the end of their curves, and the names."""
    span = float(points["score"].max() - points["score"].min()) or 0.1
    x = Axis(0.0, 1.08 * float(points["R"].max()))
    y = Axis(float(points["score"].min()) - 0.05 * span, float(points["score"].max()) + 0.2 * span)
    title = f"normalised {cost_words(resource)['name']} (R)"
    dotted = DOTTED if points["estimated"].any() else ""
    figure.update_layout(
        xaxis={"title": {"text": f"{theme.text(title)}{dotted}"}, "range": x.range},
        yaxis={"title": {"text": "PePR score"}, "range": y.range},
        height=_HEIGHT,
    )
    labels = [
        Label(
            float(end["R"]), float(end["score"]), end["label"],
            colour=colours[end["label"]]["color"],
        )
        for end in points.groupby("label", sort=False).tail(1).to_dict("records")
    ]  # fmt: skip
    lines = points.groupby("label", sort=False)
    crowd = along((curve["R"], curve["score"]) for _, curve in lines)
    direct = add_labels(figure, labels, x, y, crowd=crowd, height=_HEIGHT - 90, every=True)
    return figure.update_layout(showlegend=not direct)


def panel(material: Material, options: Options, comparison_set: str) -> Panel:
    resource = options.resource or next(
        (n for n in material.resources(comparison_set) if n in ("E", "C", "T")), "E"
    )
    every = data(material, comparison_set, resource)
    ranked = material.models_of(comparison_set)["label"]
    chosen = chosen_models(
        options.models, ranked, every["label"], options.top, "a history of epochs"
    )
    points = every.set_index("label").loc[chosen].reset_index()
    tops = peaks(points)
    best = tops.loc[tops["score"].idxmax()]
    performance, cost = material.performance_name(comparison_set), cost_words(resource)["name"]
    return Panel(
        title="PePR curves over the epochs",
        caption=(
            f"{best['label']} reaches the best score of these models, {best['score']:.3f}, at "
            f"{number(100 * best['R'], 2)}% of the {cost} of the dearest model."
        ),
        reading=" ".join(
            [
                "A line is the score of a model if training had stopped after each epoch. R is 0 "
                f"at no cost and 1 at the {cost} of the dearest model. The star is a model's best "
                f"score; on the thick line after it, the gain in {metric_name(performance)} is "
                f"worth less than the extra {cost}.",
                SPREAD if points["estimated"].any() else "",
                of_folds(material, comparison_set),
            ]
        ).strip(),
        figure=draw(
            points,
            tops,
            resource=resource,
            performance=performance,
            colours=styles(material, comparison_set),
        ),
        table=points,
    )
