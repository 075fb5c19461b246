"""The ranking of a comparison set, with the columns of the paper's Table 1 and its intervals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd
import plotly.graph_objects as go

from pepr_mlops.comparison.table import column, cost_unit, readable
from pepr_mlops.comparison.words import cost_words, metric_name
from pepr_mlops.names import PERFORMANCE
from pepr_mlops.report import theme
from pepr_mlops.report.figures.common import (
    Count,
    Panel,
    choice_and_best,
    error_bars,
    performance_hover,
)
from pepr_mlops.report.material import Material
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


def draw(
    shown: pd.DataFrame, by: str, performance: str, colours: Mapping[str, Mapping[str, str]]
) -> go.Figure:
    """Scores with their intervals, the best on top; `colours` are of the models that have one."""
    drawn = shown.assign(
        place=range(len(shown)),
        colour=[colours.get(m, {}).get("color", theme.NEUTRAL) for m in shown["model"]],
    )
    figure = go.Figure()
    for colour, rows in drawn.groupby("colour", sort=False):
        figure.add_scatter(
            x=rows["score"],
            y=rows["place"],
            text=theme.texts(rows["model"]),
            ids=list(rows["run_id"]),
            mode="markers",
            marker={"size": 10, "color": colour},
            error_x=error_bars(rows["ci_low"], rows["score"], rows["ci_high"], str(colour)),
            customdata=rows[["P", "rank", "rank_low", "rank_high", "R", "cost"]].to_numpy(),
            hovertemplate="<b>%{text}</b><br>score %{x:.3f}, rank %{customdata[1]} (95% "
            "%{customdata[2]} to %{customdata[3]})<br>"
            f"{performance_hover(performance, 'customdata[0]')}<br>"
            "%{customdata[5]}<br>R %{customdata[4]:.3f}<extra></extra>",
        )
    figure.update_layout(
        xaxis={"title": {"text": f"PePR-{theme.text(by)} score"}, "nticks": 5},
        yaxis={
            "tickvals": list(drawn["place"]),
            "ticktext": [theme.name(model) for model in shown["model"]],
            "range": [len(shown) - 0.4, -0.6],
            "showgrid": False,
        },
        height=theme.TOP + 60 + 26 * len(shown),
        showlegend=False,
    )
    return figure


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
    performance = material.performance_name(comparison_set)
    return Panel(
        title=f"Ranking by PePR-{by}",
        caption=_caption(table),
        reading=_reading(table, metric_name(performance), cost_words(by)["name"], options.top),
        figure=draw(
            shown.assign(R=rows.loc[shown["model"], "R"].to_numpy(), cost=costs),
            by,
            performance,
            theme.styles((), *choice_and_best(material, comparison_set)),
        ),
        table=table,
        paper=_paper(shown, by),
    )


def _paper(shown: pd.DataFrame, by: str) -> pd.DataFrame:
    """The shown rows as text, under headings."""
    columns = headings(shown, by)
    return readable(shown, list(columns)).rename(columns=columns)


def _caption(table: pd.DataFrame) -> str:
    best = table.iloc[0]
    verb = "scores" if len(table) == 1 else "has the best score,"
    score = f"{best['model']} {verb} {best['score']:.3f}"
    if best["no_interval"]:
        return f"{score} (no interval: {best['no_interval']})."
    score += f" (95% interval {best['ci_low']:.3f} to {best['ci_high']:.3f})"
    if len(table) == 1:
        return f"{score}."
    first = int((table["rank_low"] == 1).sum())
    if first > 1:
        return f"{score}, but {first} models could rank first."
    return f"{score}, and no other model ranks first in its 95% interval."


def _reading(table: pd.DataFrame, performance: str, cost: str, top: int) -> str:
    last = (
        f" The last row is the model with the best {performance}."
        if len(listed(table, top)) > top
        else ""
    )
    return (
        f"A point is the PePR score of a model, its {performance} per normalised {cost}; the line "
        f"is the 95% interval. The higher the score, the more {performance} for the cost.{last}"
    )
