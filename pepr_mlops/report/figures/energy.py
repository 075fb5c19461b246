"""Where the energy went: over the epochs, by component and phase, and what each Wh bought."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from pepr_mlops.comparison.words import amount, metric_name, sentence, value_text
from pepr_mlops.names import COMPONENTS, PHASES
from pepr_mlops.report import theme
from pepr_mlops.report.figures import curves
from pepr_mlops.report.figures.common import (
    DOTTED,
    SPREAD,
    Count,
    Panel,
    chosen_models,
    log_ticks,
    of_folds,
    performance_axis,
    performance_hover,
    spans_decades,
    styles,
)
from pepr_mlops.report.figures.placing import Axis, Label, add_labels, along
from pepr_mlops.report.material import Material, NothingToDraw


@dataclass(frozen=True)
class Options:
    """`show` is energy over `epochs`, its `split`, or the performance it `bought`."""

    show: Literal["epochs", "split", "bought"] = "epochs"
    top: Count = 6
    models: tuple[str, ...] = ()


def history(material: Material, comparison_set: str) -> pd.DataFrame:
    """Energy and performance so far, a row per model and epoch: `label`, `step`, `energy_wh`, `P`,
    `gain`, `gain_per_wh`, `estimated`.

    `gain` is what the epoch added to P and `gain_per_wh` that by its energy; both are missing in
    the first epoch, before which P is not known. Raises `NothingToDraw` as `curves.so_far`.
    """
    points = curves.so_far(material, comparison_set, "E")
    points = points.rename(columns={"cost": "energy_wh"}).sort_values(["label", "step"])
    by_model = points.groupby("label")
    points["gain"] = by_model["P"].diff()
    spent = by_model["energy_wh"].diff()
    points["gain_per_wh"] = points["gain"] / spent.where(spent > 0)
    columns = ["label", "step", "energy_wh", "P", "gain", "gain_per_wh", "estimated"]
    return points[columns].reset_index(drop=True)


def split(material: Material, comparison_set: str) -> pd.DataFrame:
    """Energy by model, phase and component, in Wh: `label`, `phase`, `component`, `energy_wh`,
    `source`.

    Means over the runs of a model. Where not all of them have the same components, the component
    is `total`; where one of them has not even that, the phase is left out. Raises `NothingToDraw`
    where there is none.
    """
    runs = material.runs_of(comparison_set)
    means = pd.concat({phase: _means(runs, phase) for phase in PHASES}, axis=1)
    known = means.stack([0, 1]).dropna()
    if known.empty:
        raise NothingToDraw("no run has its energy")
    found = known.rename_axis(["label", "phase", "component"]).reset_index(name="energy_wh")
    components = runs.drop_duplicates("label").set_index("label")["energy_components"]
    of_run = found["label"].map(components)
    found["source"] = [_source(c, p) for c, p in zip(of_run, found["component"], strict=True)]
    return found


def _means(runs: pd.DataFrame, phase: str) -> pd.DataFrame:
    """Mean energy over the runs of each label, by component or else in total; missing otherwise."""
    metrics = {part: f"metrics.energy/{phase}_{part}_wh" for part in COMPONENTS}
    metrics["total"] = f"metrics.energy/{phase}_wh"
    nothing = pd.Series(np.nan, runs.index)
    wh = pd.DataFrame({part: runs.get(metric, nothing) for part, metric in metrics.items()})
    by_label = wh.where(np.isfinite(wh)).groupby(runs["label"], sort=False)
    known = by_label.count()
    some, every = known > 0, known.eq(by_label.size(), axis=0)
    parts = list(COMPONENTS)
    split = some[parts].any(axis=1) & (some[parts] == every[parts]).all(axis=1)
    use = some[parts].mul(split, axis=0).assign(total=every["total"] & ~split)
    return by_label.mean().where(use)


def _source(components: object, part: str) -> str | None:
    """The source of a component, from `cpu=measured,gpu=measured`."""
    return dict(word.split("=", 1) for word in str(components).split(",") if "=" in word).get(part)


_HEIGHT = 420  # px


def draw_history(
    points: pd.DataFrame, show: str, performance: str, colours: Mapping[str, Mapping[str, str]]
) -> go.Figure:
    """A line per model, named at its end: energy over the epochs, or P over the energy."""
    across, up = ("energy_wh", "P") if show == "bought" else ("step", "energy_wh")
    figure = go.Figure()
    for label, rows in points.groupby("label", sort=False):
        figure.add_scatter(
            x=rows[across],
            y=rows[up],
            mode="lines+markers",
            name=theme.name(str(label)),
            line={"dash": "dot" if rows["estimated"].any() else "solid"},
            marker={"size": 6, **colours[str(label)]},
            customdata=rows[["step", "energy_wh", "P", "gain_per_wh"]].to_numpy(),
            hovertemplate="epoch %{customdata[0]}: %{customdata[1]:.4g} Wh<br>"
            f"{performance_hover(performance, 'customdata[2]')}, gain "
            "%{customdata[3]:.3g} per Wh<extra>%{fullData.name}</extra>",
        )
    x, y = _span(points[across], across == "energy_wh"), _span(points[up], False, up != "P")
    axis = performance_axis(performance)
    dotted = DOTTED if points["estimated"].any() else ""
    energy: dict[str, Any] = {"title": {"text": f"training energy so far (Wh){dotted}"}}
    if x.log:
        energy |= log_ticks(x.low, x.high)
    layout = (energy, axis) if show == "bought" else ({"title": {"text": "epoch"}}, energy)
    figure.update_layout(
        xaxis={**layout[0], "range": x.range},
        yaxis={**layout[1], "range": y.range},
        height=_HEIGHT,
    )
    labels = [
        Label(
            float(end[across]), float(end[up]), end["label"],
            colour=colours[end["label"]]["color"],
        )
        for end in points.groupby("label", sort=False).tail(1).to_dict("records")
    ]  # fmt: skip
    lines = points.groupby("label", sort=False)
    crowd = along((line[across], line[up]) for _, line in lines)
    direct = add_labels(figure, labels, x, y, crowd=crowd, height=_HEIGHT - 90, every=True)
    return figure.update_layout(showlegend=not direct)


def _span(values: pd.Series[float], may_be_log: bool, from_zero: bool = False) -> Axis:
    """An axis for values, with room for names."""
    low, high = float(values.min()), float(values.max())
    if may_be_log and spans_decades(values):
        return Axis(low / 1.2, high * 1.5, log=True)
    room = high - low or abs(high) or 1.0
    return Axis(0.0 if from_zero else low - 0.05 * room, high + 0.15 * room)


_HATCHED = {"train": "", "eval": "/", "trial": "x"}
_PHASES = {"train": "training", "eval": "evaluation", "trial": "trial of settings"}
_PARTS = {"gpu": "GPU", "cpu": "CPU", "total": "all components"}


def draw_split(parts: pd.DataFrame, order: list[str]) -> go.Figure:
    """Stacked bars, one per model; what is not training is hatched."""
    figure = go.Figure()
    components = list(dict.fromkeys(parts["component"]))
    for phase in PHASES:
        for component in components:
            at = (parts["phase"] == phase) & (parts["component"] == component)
            rows = parts[at].set_index("label").reindex(order).dropna(subset=["energy_wh"])
            if rows.empty:
                continue
            estimated = (rows["source"] == "estimated").any()
            figure.add_bar(
                y=[order.index(label) for label in rows.index],
                x=rows["energy_wh"],
                text=theme.texts(rows.index),
                textposition="none",
                orientation="h",
                name=f"{_PHASES[phase]}, {_PARTS.get(component, component)}"
                + (" (estimated)" if estimated else ""),
                marker={
                    "color": theme.COLOURS[components.index(component)],
                    "pattern": {"shape": _HATCHED[phase]},
                },
                hovertemplate="%{text}: %{x:.4g} Wh<extra>%{fullData.name}</extra>",
            )
    return figure.update_layout(
        barmode="stack",
        bargap=0.35,
        xaxis={"title": {"text": "energy (Wh)"}, "nticks": 5},
        yaxis={
            "tickvals": list(range(len(order))),
            "ticktext": [theme.name(label) for label in order],
            "range": [len(order) - 0.4, -0.6],
            "showgrid": False,
        },
        legend={"traceorder": "normal"},
        showlegend=True,
        height=150 + 28 * len(order),
    )


def panel(material: Material, options: Options, comparison_set: str) -> Panel:
    divided = options.show == "split"
    table = split(material, comparison_set) if divided else history(material, comparison_set)
    if options.show == "epochs" and table["estimated"].all():
        raise NothingToDraw("only the energy of full runs is known, not that of their epochs")
    ranked = material.models_of(comparison_set)["label"]
    order = chosen_models(options.models, ranked, table["label"], options.top, "known energy")
    if divided:
        shown = table[table["label"].isin(order)]
        return Panel(
            title="Energy by component and phase",
            caption=_by_component(table) or _dearest(shown),
            reading=_of_evaluation(table),
            figure=draw_split(shown, order),
            table=table,
        )
    table = table.set_index("label").loc[order].reset_index()
    bought = options.show == "bought"
    performance = material.performance_name(comparison_set)
    how = (
        f"The steeper a line, the more {metric_name(performance)} a watt-hour adds."
        if bought
        else "A straight line means that all epochs cost the same."
    )
    reading = [how, SPREAD if table["estimated"].any() else "", of_folds(material, comparison_set)]
    return Panel(
        title=f"{sentence(metric_name(performance))} bought by energy"
        if bought
        else "Energy over the epochs",
        caption=_bought(table, performance) if bought else _epochs(table),
        reading=" ".join(filter(None, reading)),
        figure=draw_history(table, options.show, performance, styles(material, comparison_set)),
        table=table,
    )


def _by_component(parts: pd.DataFrame) -> str | None:
    """The shares of the components of training, where any are known."""
    train = parts[parts["phase"] == "train"]
    known = train[train["component"] != "total"]
    if known.empty:
        return None
    by_part = known.groupby("component")["energy_wh"].sum().sort_values(ascending=False)
    shares = [f"{_PARTS.get(str(c), c)} {wh / by_part.sum():.0%}" for c, wh in by_part.items()]
    return (
        f"Training energy by component, for {known['label'].nunique()} of "
        f"{train['label'].nunique()} models: {', '.join(shares)}."
    )


def _dearest(parts: pd.DataFrame) -> str:
    by_model = parts.groupby("label")["energy_wh"].sum().sort_values()
    return (
        f"{by_model.index[-1]} used the most energy of these models, "
        f"{amount(by_model.iloc[-1], 'Wh')}; its components are not known."
    )


def _of_evaluation(parts: pd.DataFrame) -> str:
    """The share of evaluation in the energy of the models for which it is known."""
    wide = parts.pivot_table(index="label", columns="phase", values="energy_wh", aggfunc="sum")
    both = wide.reindex(columns=["train", "eval"]).dropna()
    start = "Evaluation is hatched and no part of the training energy that models are compared by"
    if both.empty:
        return f"{start}; its energy is not known for any model."
    share = both["eval"].sum() / both.to_numpy().sum()
    return (
        f"{start}. It used {share:.0%} of the energy of training and evaluation of the {len(both)} "
        f"of {len(wide)} models for which it is known."
    )


def _epochs(points: pd.DataFrame) -> str:
    last = points.groupby("label")["energy_wh"].max().sort_values()
    most = f"{last.index[-1]} used {amount(last.iloc[-1], 'Wh')}"
    if len(last) == 1:
        return f"{most}."
    return f"{most} in all its epochs, {last.index[0]} {amount(last.iloc[0], 'Wh')}."


def _bought(points: pd.DataFrame, performance: str) -> str:
    ends = points.groupby("label", sort=False)
    first, last = ends.first().iloc[0], ends.last().iloc[0]
    return (
        f"{points['label'].iloc[0]} reaches {value_text(performance, first['P'])} "
        f"{metric_name(performance)} with its first {amount(first['energy_wh'], 'Wh')} and "
        f"{value_text(performance, last['P'])} with {amount(last['energy_wh'], 'Wh')}."
    )
