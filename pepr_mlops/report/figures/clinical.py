"""Clinical metrics of the models that matter, with intervals: the choice and the best ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from pepr_mlops.comparison import clinical
from pepr_mlops.comparison.predictions import Predictions
from pepr_mlops.comparison.words import metric_name, sentence
from pepr_mlops.names import METRICS
from pepr_mlops.report import theme
from pepr_mlops.report.figures.common import Panel, answer_of, error_bars, styles
from pepr_mlops.report.material import Material, NothingToDraw
from pepr_mlops.text import decimals


@dataclass(frozen=True)
class Options:
    """None: the models are the good-enough one and the best by performance and by PePR."""


def models(material: Material, comparison_set: str) -> dict[str, Sequence[Predictions]]:
    """The predictions of the good-enough model, of the best performer and of the best by PePR.

    Raises `NothingToDraw` where none of them has predictions of all of its runs.
    """
    answer = answer_of(material, comparison_set)
    by_score = answer.models.loc[answer.models["score"].idxmax(), "label"]
    runs = material.runs_of(comparison_set)
    known = material.part(comparison_set).comparison.known
    found: dict[str, Sequence[Predictions]] = {}
    for label in dict.fromkeys([answer.choice or answer.best, answer.best, by_score]):
        predictions = known.of(runs.loc[runs["label"] == label, "run_id"])
        if predictions is not None:
            found[label] = predictions
    if not found:
        raise NothingToDraw(
            "the runs of the chosen model and of the best ones logged no predictions "
            "(predictions.npz), as imported runs"
        )
    return found


def draw(table: pd.DataFrame, colours: Mapping[str, Mapping[str, str]]) -> go.Figure:
    """A plot for each metric, whose scales differ, with a mark and its number for each model."""
    names = list(dict.fromkeys(table["model"]))
    metrics = list(dict.fromkeys(table.loc[table["value"].notna(), "metric"]))
    height = 90 + len(metrics) * (50 + 26 * len(names))
    figure = make_subplots(
        rows=len(metrics),
        cols=1,
        subplot_titles=[sentence(_title(metric)) for metric in metrics],
        vertical_spacing=50 / (height - 90) if len(metrics) > 1 else 0,
    )
    for i, name in enumerate(names):
        for row, metric in enumerate(metrics, 1):
            shown = table[(table["model"] == name) & (table["metric"] == metric)]
            shown = shown[shown["value"].notna()]
            figure.add_scatter(
                x=shown["value"],
                y=[i] * len(shown),
                error_x=error_bars(
                    shown["low"], shown["value"], shown["high"], colours[name]["color"]
                ),
                mode="markers+text",
                text=[f"{value:.3f}" for value in shown["value"]],
                textposition="top center",
                textfont={"size": 11},
                cliponaxis=False,
                name=theme.name(name),
                legendgroup=str(i),
                showlegend=row == 1,
                marker={"size": 9, **colours[name]},
                customdata=[_interval(one) for one in shown.to_dict("records")],
                hovertemplate="%{x:.3f} %{customdata}<extra>%{fullData.name}</extra>",
                row=row,
                col=1,
            )
    figure.update_yaxes(
        range=[len(names) - 0.6, -0.9], showticklabels=False, ticks="", showgrid=False
    )
    figure.update_xaxes(nticks=4)
    figure.update_annotations(font={"size": 13}, x=0, xanchor="left")
    return figure.update_layout(height=height, showlegend=True, margin={"t": 44})


def _title(metric: str) -> str:
    lower = " (lower is better)" if METRICS[f"test/{metric}"].better == "lower" else ""
    return metric_name(f"test/{metric}") + lower


def _interval(row: Mapping[str, Any]) -> str:
    low, high = row["low"], row["high"]
    return str(row["missing"]) or f"(95% {decimals(low)} to {decimals(high)})"


def panel(material: Material, options: Options, comparison_set: str) -> Panel:
    question = material.question(comparison_set)
    found = clinical.table(
        models(material, comparison_set), draws=question.draws, seed=question.seed
    )
    missing = found[found["value"].isna()]
    without = [
        f"{', '.join(dict.fromkeys(map(_title, rows['metric'])))} of "
        f"{', '.join(dict.fromkeys(rows['model']))}: {why}"
        for why, rows in missing.groupby("missing", sort=False)
    ]
    return Panel(
        title="Clinical metrics",
        caption=_caption(found),
        reading=(
            "Points are means over the runs of a model, one class against the rest. Sensitivity "
            "and specificity are at thresholds chosen on validation. The lines are 95% intervals, "
            "which account for the test images alone. "
            + "".join(f"Not known: {text}. " for text in without)
        ).strip(),
        figure=draw(found, styles(material, comparison_set)),
        table=found,
    )


def _caption(table: pd.DataFrame) -> str:
    """The first metric that is known."""
    known = table[table["value"].notna()]
    if known.empty:
        return "None of the clinical metrics is known."
    metric = known["metric"].iloc[0]
    values = [
        f"{row['model']} {row['value']:.3f}"
        + (f" (95% {row['low']:.3f} to {row['high']:.3f})" if row["low"] == row["low"] else "")
        for row in known[known["metric"] == metric].to_dict("records")
    ]
    return f"{sentence(metric_name(f'test/{metric}'))}: {', '.join(values)}."
