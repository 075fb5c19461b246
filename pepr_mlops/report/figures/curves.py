"""The PePR curve of one or several models over their epochs (the paper's Eq. 2 and Fig. 2b)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from pepr_mlops.comparison import pepr
from pepr_mlops.names import COMPLEMENT, PERFORMANCE, RESOURCES
from pepr_mlops.report import theme
from pepr_mlops.report.figures.common import (
    SPREAD,
    Count,
    Panel,
    chosen_models,
    in_sentence,
    of_folds,
)
from pepr_mlops.report.material import Material, NothingToDraw, cost_title


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


def draw(points: pd.DataFrame, tops: pd.DataFrame, name: str) -> go.Figure:
    """Score over R for each model, its maximum marked, the region beyond it thick."""
    figure = go.Figure()
    for i, (label, curve) in enumerate(points.groupby("label", sort=False)):
        style = theme.style(i)
        colour = style["color"]
        figure.add_scatter(
            x=curve["R"],
            y=curve["score"],
            mode="lines+markers",
            name=theme.text(label),
            legendgroup=str(i),
            line={"color": colour, "dash": "dot" if curve["estimated"].any() else "solid"},
            marker={"size": 5, "symbol": style["symbol"]},
            customdata=curve[["step", "P", "cost"]].to_numpy(),
            hovertemplate="epoch %{customdata[0]}: score %{y:.4f}, R %{x:.4f}, "
            f"P %{{customdata[1]:.4f}}, {name} %{{customdata[2]:.4g}}"
            "<extra>%{fullData.name}</extra>",
        )
        top = tops[tops["label"] == label].iloc[0]
        figure.add_scatter(
            x=[top["R"]],
            y=[top["score"]],
            mode="markers",
            marker={"size": 13, "symbol": "star", "color": colour, "line": {"width": 1}},
            legendgroup=str(i),
            showlegend=False,
            hovertemplate="greatest score %{y:.4f} at R %{x:.4f}<extra>%{fullData.name}</extra>",
            name=theme.text(label),
        )
        after = curve[curve["R"] >= top["R"]]
        if len(after) > 1:
            figure.add_scatter(
                x=after["R"],
                y=after["score"],
                mode="lines",
                line={"color": colour, "width": 9},
                opacity=0.22,
                legendgroup=str(i),
                showlegend=False,
                hoverinfo="skip",
            )
    figure.update_layout(
        xaxis={"title": f"R, normalised {in_sentence(name)}", "rangemode": "tozero"},
        yaxis={"title": "PePR score"},
    )
    return figure


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
    return Panel(
        title=f"PePR curves over the epochs: {comparison_set}",
        caption=(
            "The score if training had stopped after each epoch. R is 0 without any cost and 1 at "
            f"the cost of the dearest model of {comparison_set}. The star marks the best score of "
            "a model; on the thick line after it, the gain in performance is worth less than the "
            f"extra {in_sentence(cost_title(resource))}. {best['label']} reaches the best score of "
            f"these models, {best['score']:.4f}, at R = {best['R']:.3f}."
            + (SPREAD if points["estimated"].any() else "")
            + of_folds(material, comparison_set)
        ),
        figure=draw(points, tops, cost_title(resource)),
        table=points,
    )
