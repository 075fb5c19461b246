"""Where the energy went: over the epochs, by component and phase, and what each Wh bought."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from pepr_mlops.names import COMPONENTS, PHASES
from pepr_mlops.report import theme
from pepr_mlops.report.figures import curves
from pepr_mlops.report.figures.common import SPREAD, Count, Panel, chosen_models, of_folds
from pepr_mlops.report.material import Material, NothingToDraw
from pepr_mlops.text import number


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


def draw_history(points: pd.DataFrame, show: str, performance: str) -> go.Figure:
    """A line per model: energy over the epochs, or P over the energy."""
    figure = go.Figure()
    bought = show == "bought"
    for i, (label, rows) in enumerate(points.groupby("label", sort=False)):
        figure.add_scatter(
            x=rows["energy_wh"] if bought else rows["step"],
            y=rows["P"] if bought else rows["energy_wh"],
            mode="lines+markers",
            name=theme.text(label),
            line={"dash": "dot" if rows["estimated"].any() else "solid"},
            marker={"size": 6, **theme.style(i)},
            customdata=rows[["step", "energy_wh", "P", "gain_per_wh"]].to_numpy(),
            hovertemplate="epoch %{customdata[0]}: %{customdata[1]:.4g} Wh, "
            "P %{customdata[2]:.4f}, %{customdata[3]:.3g} per Wh in it"
            "<extra>%{fullData.name}</extra>",
        )
    energy = {"title": "training energy so far (Wh)"}
    if bought:
        x, y = {**energy, "type": "log"}, {"title": f"P: {theme.text(performance)}"}
    else:
        x, y = {"title": "epoch"}, {**energy, "rangemode": "tozero"}
    return figure.update_layout(xaxis=x, yaxis=y)


_HATCHED = {"train": "", "eval": "/", "trial": "x"}


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
                y=theme.texts(rows.index),
                x=rows["energy_wh"],
                orientation="h",
                name=f"{phase}, {component}" + (" (estimated)" if estimated else ""),
                marker={
                    "color": theme.COLOURS[components.index(component)],
                    "pattern": {"shape": _HATCHED[phase]},
                },
                hovertemplate="%{y}: %{x:.4g} Wh<extra>%{fullData.name}</extra>",
            )
    figure.update_layout(
        barmode="stack",
        xaxis={"title": "energy (Wh)"},
        yaxis={"type": "category", "autorange": "reversed"},
        height=140 + 26 * len(order),
    )
    return figure


def panel(material: Material, options: Options, comparison_set: str) -> Panel:
    divided = options.show == "split"
    table = split(material, comparison_set) if divided else history(material, comparison_set)
    if options.show == "epochs" and table["estimated"].all():
        raise NothingToDraw("only the energy of full runs is known, not that of their epochs")
    ranked = material.models_of(comparison_set)["label"]
    order = chosen_models(options.models, ranked, table["label"], options.top, "known energy")
    if divided:
        title, caption = "Energy by component and phase", _shares(table)
        figure = draw_split(table[table["label"].isin(order)], order)
    else:
        table = table.set_index("label").loc[order].reset_index()
        bought = options.show == "bought"
        title = "Performance bought by energy" if bought else "Energy over the epochs"
        caption = _bought(table) if bought else _epochs(table)
        caption += of_folds(material, comparison_set)
        figure = draw_history(table, options.show, material.performance_name(comparison_set))
    return Panel(f"{title}: {comparison_set}", caption, figure, table)


def _shares(parts: pd.DataFrame) -> str:
    """Shares of the energy, over the models for which they are known."""
    wide = parts.pivot_table(index="label", columns="phase", values="energy_wh", aggfunc="sum")
    both = wide.reindex(columns=["train", "eval"]).dropna()
    words = "Evaluation is not part of E; its energy is not known for any model."
    if len(both):
        share = both["eval"].sum() / both.to_numpy().sum()
        words = (
            f"Evaluation, which is not part of E, used {share:.0%} of the energy of training and "
            f"evaluation of the {len(both)} of {len(wide)} models for which it is known."
        )
    train = parts[parts["phase"] == "train"]
    known = train[train["component"] != "total"]
    if known.empty:
        return f"The components are not known. {words}"
    by_part = known.groupby("component")["energy_wh"].sum().sort_values(ascending=False)
    listed = ", ".join(f"{part} {wh / by_part.sum():.0%}" for part, wh in by_part.items())
    return (
        f"Energy of training by component, for {known['label'].nunique()} of "
        f"{train['label'].nunique()} models: {listed}. {words}"
    )


def _epochs(points: pd.DataFrame) -> str:
    last = points.groupby("label")["energy_wh"].max().sort_values()
    return (
        f"A straight line means that all epochs cost the same. {last.index[-1]} used "
        f"{number(last.iloc[-1])} Wh, {last.index[0]} {number(last.iloc[0])} Wh."
    )


def _bought(points: pd.DataFrame) -> str:
    ends = points.groupby("label", sort=False)
    first, last = ends.first().iloc[0], ends.last().iloc[0]
    model = points["label"].iloc[0]
    return (
        f"The steeper a line, the more performance a Wh adds. {model} reaches P = {first['P']:.3f} "
        f"with its first {number(first['energy_wh'], 3)} Wh and {last['P']:.3f} with "
        f"{number(last['energy_wh'], 3)} Wh." + (SPREAD if points["estimated"].any() else "")
    )
