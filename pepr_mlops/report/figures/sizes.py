"""Are small models as good, and do they score higher? Medians of both (Fig. A.1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from pepr_mlops.comparison import significance
from pepr_mlops.comparison.words import sentence
from pepr_mlops.names import PERFORMANCE
from pepr_mlops.report import theme
from pepr_mlops.report.figures.common import (
    Panel,
    chosen_sets,
    effect,
    error_bars,
    in_sentence,
    performance_axis,
    quantity_title,
    short,
    values,
    wrapped,
)
from pepr_mlops.report.material import Material, NothingToDraw
from pepr_mlops.text import number, p_value


@dataclass(frozen=True)
class Options:
    """`quantities` are columns of `Material.models` or metrics, `score` is the main score.

    `experiments` are by default the requested ones.
    """

    quantities: tuple[str, ...] = (PERFORMANCE, "score")
    experiments: tuple[str, ...] = ()


_STYLES = {
    "small": (theme.COLOURS[0], "diamond", -0.16),
    "large": (theme.COLOURS[2], "square", 0.16),
}


def data(material: Material, options: Options) -> pd.DataFrame:
    """A row per quantity and comparison set, with both groups and the tests of their difference.

    `comparison_set`, `quantity`; for small and large models `n_*`, `median_*`, `q1_*`, `q3_*`;
    of the Mann-Whitney test `statistic`, `p`, `p_holm` (corrected over all rows) and `cliffs_delta`
    (above 0 where small models have more); of the paper's t test `t`, `t_p` and `d`.

    Sets with fewer than 3 models in a group or with several rows of a model are left out. Raises
    `NothingToDraw` where none is left, and for unknown experiments and quantities.
    """
    rows = []
    for quantity in dict.fromkeys(options.quantities):
        for name in chosen_sets(material, options.experiments):
            members = material.models_of(name)
            counts = members["size"].value_counts().reindex(_STYLES, fill_value=0)
            if not members["model"].is_unique or counts.min() < significance.FEWEST:
                continue
            numbers = values(material, members, quantity)
            groups = {g: numbers[members["size"] == g].dropna() for g in _STYLES}
            if min(map(len, groups.values())) >= significance.FEWEST:
                rows.append({"comparison_set": name, "quantity": quantity, **_row(groups)})
    if not rows:
        raise NothingToDraw(
            f"no comparison set has {significance.FEWEST} small and {significance.FEWEST} large "
            "models whose parameters are known, one row each"
        )
    table = pd.DataFrame(rows)
    table["p_holm"] = significance.holm(table["p"])
    return table


def _row(groups: Mapping[str, pd.Series[float]]) -> dict[str, float]:
    row: dict[str, float] = {}
    for name, numbers in groups.items():
        row |= {
            f"n_{name}": len(numbers),
            f"median_{name}": float(numbers.median()),
            f"q1_{name}": float(numbers.quantile(0.25)),
            f"q3_{name}": float(numbers.quantile(0.75)),
        }
    t, ranks = significance.unpaired(groups["small"], groups["large"])
    return {
        **row,
        "statistic": ranks.statistic,
        "p": ranks.p,
        "cliffs_delta": ranks.effect,
        "t": t.statistic,
        "t_p": t.p,
        "d": t.effect,
    }


def draw(table: pd.DataFrame, titles: Mapping[str, str], performance: str) -> go.Figure:
    """Medians with the range of the middle half, a plot for each quantity, the test beneath each.

    `titles` are those of the quantities, `performance` is the metric that is P.
    """
    quantities = list(table["quantity"].unique())
    sets = list(table["comparison_set"].unique())
    height = 110 + len(quantities) * (60 + 58 * len(sets))
    figure = make_subplots(rows=len(quantities), cols=1, vertical_spacing=70 / (height - 100))
    for i, quantity in enumerate(quantities, 1):
        rows = table[table["quantity"] == quantity]
        places = [sets.index(name) for name in rows["comparison_set"]]
        for group, (colour, symbol, shift) in _STYLES.items():
            figure.add_scatter(
                x=short(rows[f"median_{group}"]),
                y=[place + shift for place in places],
                error_x=error_bars(
                    rows[f"q1_{group}"], rows[f"median_{group}"], rows[f"q3_{group}"], colour
                ),
                mode="markers",
                marker={"color": colour, "symbol": symbol, "size": 10},
                customdata=rows[f"n_{group}"],
                hovertemplate="median %{x:.4g} of %{customdata}<extra>%{fullData.name}</extra>",
                name=group,
                legendgroup=group,
                showlegend=i == 1,
                row=i,
                col=1,
            )
        for place, (_, row) in zip(places, rows.iterrows(), strict=True):
            figure.add_annotation(
                text=f"{p_value(row['p_holm'])}, Cliff's delta {effect(row['cliffs_delta'])}, "
                f"n = {row['n_small']} + {row['n_large']}",
                x=0.5, xref="x domain", y=place + 0.42, xanchor="center", showarrow=False,
                font={"size": 11}, row=i, col=1,
            )  # fmt: skip
        axis = {"title": {"text": theme.text(f"median {titles[quantity]}")}}
        if quantity == PERFORMANCE:
            axis = {**performance_axis(performance), **axis}
        figure.update_xaxes(axis, row=i, col=1)
    figure.update_yaxes(
        tickvals=list(range(len(sets))), ticktext=[wrapped(name) for name in sets], ticks="",
        showgrid=False, range=[len(sets) - 0.38, -0.5],
    )  # fmt: skip
    return figure.update_layout(height=height, showlegend=True)


def panel(material: Material, options: Options) -> Panel:
    table = data(material, options)
    sets = tuple(dict.fromkeys(table["comparison_set"]))
    table["comparison_set"] = table["comparison_set"].map(material.title)
    titles = {q: quantity_title(material, sets, q) for q in table["quantity"].unique()}
    of = [(table[table["quantity"] == q], in_sentence(titles[q])) for q in titles]
    caption, *others = [_finding(rows, title) for rows, title in of]
    return Panel(
        title=f"Small and large models: {' and '.join(map(in_sentence, titles.values()))}",
        caption=caption,
        reading=" ".join(
            [
                "Medians of small models (at most the median number of parameters) and large ones; "
                "lines span the middle half.",
                *others,
                *(_medians(rows, title) for rows, title in of if len(rows) > 1),
                f"The p values are from Mann-Whitney tests, corrected for {len(table)} tests "
                "(Holm). Cliff's delta is above 0 where small models have higher values.",
            ]
        ),
        figure=draw(table, titles, material.performance_name(*sets)),
        table=table,
        sets=sets,
    )


def _finding(rows: pd.DataFrame, title: str) -> str:
    """Whether a quantity differs, in the one or the several sets of `rows`."""
    differ = rows[rows["p_holm"] < 0.05]
    if len(rows) == 1:
        moves = f"a significantly {'higher' if rows['cliffs_delta'].iloc[0] > 0 else 'lower'}"
        words = (
            f"Small models have {moves} {title} than large ones"
            if len(differ)
            else f"Small and large models do not differ significantly in {title}"
        )
        return f"{words} ({_values(rows.iloc[0])})."
    if differ.empty:
        return (
            f"Small and large models do not differ significantly in {title} in any of {len(rows)} "
            "sets."
        )
    higher = int((differ["cliffs_delta"] > 0).sum())
    return (
        f"Small models have a significantly higher {title} in {higher} of {len(rows)} sets and a "
        f"lower one in {len(differ) - higher}."
    )


def _medians(rows: pd.DataFrame, title: str) -> str:
    sets = [f"{row['comparison_set']} {_values(row)}" for _, row in rows.iterrows()]
    return f"{sentence(title)}: {'; '.join(sets)}."


def _values(row: pd.Series[Any]) -> str:
    return (
        f"medians {number(row['median_small'], 3)} and {number(row['median_large'], 3)}, "
        f"{p_value(row['p_holm'])}"
    )
