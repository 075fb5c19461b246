"""The ranking of a comparison set, with the columns of the paper's Table 1 and its intervals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from pepr_mlops.comparison.table import column, cost_unit
from pepr_mlops.names import PERFORMANCE
from pepr_mlops.report import theme
from pepr_mlops.report.figures.common import Count, Panel, error_bars
from pepr_mlops.report.material import Material, cost_title
from pepr_mlops.text import number


@dataclass(frozen=True)
class Options:
    """How many of the best models are listed; the best by performance follows them."""

    top: Count = 10


def data(material: Material, comparison_set: str) -> pd.DataFrame:
    """All models of a set, best first: the columns of Table 1 and the intervals.

    `rank`, `model`, `kind`, `efficient`, `parameters_m` (millions), `cost NAME` for each resource,
    `P`, `P_sd` and `n` (over seeds), `p_low`, `p_high`, `score`, `ci_low`, `ci_high`, `no_interval`
    (why they are missing), `rank_low`, `rank_high`, `energy_source`, `codes`, `run_id`.
    """
    rows = named(material.models_of(comparison_set)).sort_values(
        ["rank", "P"], ascending=[True, False], kind="stable"
    )
    costs = [f"cost {name}" for name in material.resources(comparison_set)]
    columns = ["rank", "model", "kind", "efficient", "parameters_m", *costs, "P", "P_sd", "n"]
    columns += [
        "p_low",
        "p_high",
        "score",
        "ci_low",
        "ci_high",
        "no_interval",
        "rank_low",
        "rank_high",
    ]
    columns += ["energy_source", "codes", "run_id"]
    return rows[columns].reset_index(drop=True)


def named(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of `Material.models` with the names of `comparison.table`."""
    return rows.assign(
        model=rows["label"],
        parameters_m=rows["parameters"] / 1e6,
        P=rows[PERFORMANCE],
        P_sd=rows["performance_sd"],
        codes=rows["codes"].str.join(", "),
    )


def listed(table: pd.DataFrame, top: int) -> pd.DataFrame:
    """The rows of `data` that are shown: the best by score, and the best by P below them."""
    best = table.sort_values(["P", "rank"], ascending=[False, True]).head(1)
    return pd.concat([table.head(top), best]).drop_duplicates("model")


def headings(table: pd.DataFrame, by: str) -> dict[str, str]:
    """The columns people read, with their headings: those of Table 1 first."""
    keys = [
        *("rank", "model", "score", "P"),
        *(("P_sd", "n") if table["n"].max() > 1 else ()),
        "p_interval",
        *(str(c) for c in table if str(c).startswith("cost ")),
        *("interval", "ranks", "parameters_m", "kind", "efficient", "energy_source", "codes"),
    ]
    return {key: column(key, by).heading for key in keys}


def draw(shown: pd.DataFrame, by: str) -> go.Figure:
    """Scores with their intervals, the best on top."""
    figure = go.Figure(
        go.Scatter(
            x=shown["score"],
            y=theme.texts(shown["model"]),
            ids=list(shown["run_id"]),
            mode="markers",
            marker={"size": 10, "color": theme.BLUE},
            error_x=error_bars(shown["ci_low"], shown["score"], shown["ci_high"], theme.SKY),
            customdata=shown[["P", "rank", "rank_low", "rank_high", "R", "cost"]].to_numpy(),
            hovertemplate="<b>%{y}</b><br>score %{x:.4f}<br>P %{customdata[0]:.4f}<br>"
            "R %{customdata[4]:.4f}<br>cost %{customdata[5]}<br>rank %{customdata[1]}, 95 % "
            "%{customdata[2]}–%{customdata[3]}<extra></extra>",
            showlegend=False,
        )
    )
    figure.update_layout(
        xaxis={"title": f"PePR-{theme.text(by)} with its 95 % interval"},
        yaxis={"type": "category", "autorange": "reversed", "title": None},
        height=110 + 26 * len(shown),
        margin={"t": 20},
    )
    return figure


def recompute(material: Material, comparison_set: str, top: int) -> Mapping[str, Any]:
    """What the page's sliders score again: P and R of every model, and the requested setting."""
    question = material.question(comparison_set)
    names = material.resources(comparison_set)
    rows = material.models_of(comparison_set)
    requested = dict(zip(question.resources, question.weights or (1.0,), strict=False))
    return {
        "models": list(rows["label"]),
        "P": list(rows[PERFORMANCE]),
        "R": {name: list(rows[f"R {name}"]) for name in names},
        "titles": {name: cost_title(name) for name in names},
        "weights": {name: requested.get(name, 0.0) for name in names},
        "alpha": question.alpha,
        "by": rows["scored_by"].iloc[0],
        "top": top,
    }


def panel(material: Material, options: Options, comparison_set: str) -> Panel:
    table = data(material, comparison_set)
    shown = listed(table, options.top)
    rows = material.models_of(comparison_set).set_index("label")
    resources = material.question(comparison_set).resources
    costs = [  # `17.5 Wh, 2.02 GB`
        theme.text(
            ", ".join(f"{number(row[f'cost {r}'])} {cost_unit(r)}".strip() for r in resources)
        )
        for row in shown.to_dict("records")
    ]
    by = rows["scored_by"].iloc[0]
    return Panel(
        title=f"Ranking by PePR-{by}: {comparison_set}",
        caption=_caption(table, material.performance_name(comparison_set), options.top),
        figure=draw(shown.assign(R=rows.loc[shown["model"], "R"].to_numpy(), cost=costs), by),
        table=table,
        recompute=recompute(material, comparison_set, options.top),
    )


def _caption(table: pd.DataFrame, performance: str, top: int) -> str:
    best = table.iloc[0]
    if best["no_interval"]:
        interval, others = f"no interval: {best['no_interval']}", ""
    else:
        interval = f"95 % interval {best['ci_low']:.4f} to {best['ci_high']:.4f}"
        sure = int((table["rank_low"] == 1).sum())
        others = "No other model ranks" if sure == 1 else f"{sure} models could rank"
        others += " first in its 95 % interval. " if sure == 1 else " first in their intervals. "
    last = "; the last row is the best by P" if len(listed(table, top)) > top else ""
    return (
        f"{best['model']} has the best score, {best['score']:.4f} ({interval}). {others}"
        f"P is {performance}{last}. Intervals are shown for the original settings only and "
        "disappear when you move a slider."
    )
