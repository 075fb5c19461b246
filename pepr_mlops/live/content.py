"""What the page shows of a view: the answer, the table and the figures. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from pepr_mlops.comparison import means, selection
from pepr_mlops.comparison.runs import column as column_of
from pepr_mlops.comparison.selection import Budget
from pepr_mlops.comparison.table import column, cost_unit, readable
from pepr_mlops.errors import WrongUse
from pepr_mlops.live.view_state import View
from pepr_mlops.names import PERFORMANCE
from pepr_mlops.report import page, theme
from pepr_mlops.report.dashboards import FigureSpec
from pepr_mlops.report.figures import OF_A_SET
from pepr_mlops.report.figures.common import Panel
from pepr_mlops.report.figures.ranking import named
from pepr_mlops.report.material import KEYS, Material
from pepr_mlops.text import number

_GREY = "rgba(128,128,128,0.25)"
_MOST_FLAGS = 60  # characters of a cell


@dataclass(frozen=True)
class Ranking:
    """The models of one comparison set that are within the budgets, best first.

    `fitting` are rows of `Material.models`, `models` is how many models the set has, `limits` are
    the budgets in words.
    """

    comparison_set: str
    fitting: pd.DataFrame
    models: int
    limits: tuple[str, ...]


def shown_set(material: Material, view: View) -> str:
    """The comparison set that is shown: the chosen one where it is there, else the first."""
    sets = material.main_sets
    return view.chosen_set if view.chosen_set in sets else sets[0]


def ranking(material: Material, view: View) -> Ranking:
    """The ranking under the budgets. Raises `WrongUse` for a budget for a cost of no run."""
    name = shown_set(material, view)
    rows = material.models_of(name)
    budgets = [Budget(f"cost {r}", "max", limit) for r, limit in view.at_most]
    if view.at_least is not None:
        budgets.append(Budget(PERFORMANCE, "min", view.at_least))
    rows = _with_costs(material, rows, [r for r, _ in view.at_most])
    fitting = selection.select(rows, budgets, "score").fitting.sort_values(
        ["rank", PERFORMANCE], ascending=[True, False], kind="stable"
    )
    words = [f"{r} ≤ {number(limit)} {cost_unit(r)}".strip() for r, limit in view.at_most]
    if view.at_least is not None:
        words.append(f"P ≥ {number(view.at_least)}")
    return Ranking(name, fitting, len(rows), tuple(words))


def _with_costs(material: Material, rows: pd.DataFrame, resources: Sequence[str]) -> pd.DataFrame:
    """The rows with the costs that budgets limit although no score uses them."""
    name = rows["comparison_set"].iloc[0]
    known = material.resources(name)  # a column may be there for another set alone
    absent = [r for r in resources if r not in known]
    if not absent:
        return rows
    rows = rows.drop(columns=[f"cost {r}" for r in absent], errors="ignore")
    found = material.part(name).comparison
    extra = means(found, {f"cost {r}": column_of(found.used, r) for r in absent})
    return rows.merge(extra, on=KEYS, how="left", validate="one_to_one")


def headline(shown: Ranking) -> str:
    """The answer in a sentence or two: the best by score, and by performance, within budgets."""
    within = f"Within {', '.join(shown.limits)}: " if shown.limits else ""
    if shown.fitting.empty:
        return f"{within}none of the {shown.models} models of {shown.comparison_set} fits."
    best = shown.fitting.iloc[0]
    top = shown.fitting.sort_values([PERFORMANCE, "R"], ascending=[False, True]).iloc[0]
    interval = ""
    if not best["no_interval"]:
        interval = f" (95 % {best['ci_low']:.4f} to {best['ci_high']:.4f})"
    first = (
        f"{best['label']} has the best PePR-{best['scored_by']}, {best['score']:.4f}{interval}, "
        f"P {best[PERFORMANCE]:.4f}"
    )
    if top["label"] == best["label"]:
        second = "; no other performs better" if len(shown.fitting) > 1 else ""
    else:
        second = f"; {top['label']} performs best, P {top[PERFORMANCE]:.4f}"
    fit = len(shown.fitting)
    count = f"{fit} of {shown.models} models fit" if shown.limits else f"{fit} models compared"
    return f"{within}{first}{second}. {count} in {shown.comparison_set}."


@dataclass(frozen=True)
class Table:
    """Cells as text, and which columns are flush right. `pages` are addresses of the runs' pages,
    or None."""

    headings: tuple[str, ...]
    right: tuple[bool, ...]
    rows: tuple[tuple[str, ...], ...]
    pages: tuple[str | None, ...]


def table(shown: Ranking, material: Material, view: View) -> Table:
    """The first rows of the ranking; intervals that are still being found are an ellipsis."""
    rows = named(shown.fitting.head(view.rows))
    rows["codes"] = [c if len(c) <= _MOST_FLAGS else f"{c[:_MOST_FLAGS]}…" for c in rows["codes"]]
    known = [*view.resources, *(r for r, _ in view.at_most), *("E", "M", "T")]
    costs = [
        r for r in dict.fromkeys(known) if f"cost {r}" in rows and rows[f"cost {r}"].notna().any()
    ]
    by = rows["scored_by"].iloc[0] if len(rows) else "+".join(view.resources)
    keys = [
        *("rank", "model", "P", *(f"cost {r}" for r in costs), "R", "score", "interval", "ranks"),
        *("kind", "parameters_m", "n", "energy_source", "codes"),
    ]
    columns = [column(key, by) for key in keys]
    pages = tuple(material.run_page and material.run_page + run for run in rows["run_id"])
    return Table(
        headings=tuple(c.heading for c in columns),
        right=tuple(c.right for c in columns),
        rows=tuple(readable(rows, keys).itertuples(index=False, name=None)),
        pages=pages,
    )


def panel(material: Material, spec: FigureSpec, view: View) -> Panel:
    """One figure of a dashboard. Raises `NothingToDraw`."""
    name = shown_set(material, view) if spec.kind in OF_A_SET else None
    return page.panel(material, spec, name)


def plane(material: Material, spec: FigureSpec, view: View, shown: Ranking) -> Panel:
    """The figure of cost and performance: models outside the budgets grey, groups in colour.

    The best within the budgets is ringed, and the budgets are lines where the axes are theirs.
    """
    if hasattr(spec.options, "axis"):
        spec = replace(spec, options=replace(spec.options, axis=view.axis))
    found = panel(material, spec, view)
    rows = material.models_of(shown.comparison_set).set_index("label")
    groups = rows[view.colour].fillna("not known") if view.colour != "none" else None
    within = set(shown.fitting["label"])
    figure = found.figure
    figure.layout.updatemenus = ()  # the control of the page says which axis
    _colour(figure, within if shown.limits else None, groups)
    if shown.limits and len(shown.fitting):
        best = shown.fitting.iloc[0]
        x = best["R"] if not _in_cost(found, view) else best[f"cost {best['scored_by']}"]
        figure.add_scatter(
            x=[x], y=[best[PERFORMANCE]], mode="markers", name="best within budgets",
            marker={"size": 20, "symbol": "circle-open", "color": theme.RED,
                    "line": {"width": 3}}, hoverinfo="skip",
        )  # fmt: skip
    line = {"color": theme.RED, "width": 1, "dash": "dash"}
    if view.at_least is not None:
        figure.add_hline(y=view.at_least, line=line)
    limit = dict(view.at_most).get(str(rows["scored_by"].iloc[0]))
    if limit is not None and _in_cost(found, view):
        figure.add_vline(x=limit, line=line)
    return found


def _in_cost(found: Panel, view: View) -> bool:
    costs = found.table["cost"]
    return view.axis == "cost" and bool(costs.notna().all() and costs.nunique() > 1)


def _colour(figure: go.Figure, within: set[str] | None, groups: pd.Series[str] | None) -> None:
    """Colour the points of the models by their group, those outside the budgets grey."""
    if within is None and groups is None:
        return
    fitting = None if within is None else {theme.text(label) for label in within}
    group_of = {} if groups is None else {theme.text(m): g for m, g in groups.items()}
    styles = {group: theme.style(i) for i, group in enumerate(sorted(set(group_of.values())))}
    for trace in figure.data:
        if trace.name not in ("models", "Pareto set") or trace.text is None:
            continue
        colours: list[Any] = [trace.marker.color] * len(trace.text)
        if groups is not None:
            colours = [styles[group_of[label]]["color"] for label in trace.text]
            if trace.name == "models":
                trace.marker.symbol = [styles[group_of[m]]["symbol"] for m in trace.text]
                trace.showlegend = False
        if fitting is not None:
            colours = [
                c if label in fitting else _GREY
                for c, label in zip(colours, trace.text, strict=True)
            ]
            trace.marker.line = {"width": 0}
        trace.marker.color = colours
    for name, style in styles.items():
        figure.add_scatter(
            x=[None], y=[None], mode="markers", name=theme.text(name), marker={**style, "size": 8}
        )


def known(sources: Sequence[pd.DataFrame], resources: Sequence[str]) -> list[str]:
    """The resources that at least one run of every frame has a number of."""

    def has(runs: pd.DataFrame, resource: str) -> bool:
        with suppress(WrongUse):
            return bool(runs[column_of(runs, resource)].notna().any())
        return False

    return [r for r in resources if all(has(runs, r) for runs in sources)]
