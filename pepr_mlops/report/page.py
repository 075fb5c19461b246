"""A report as one HTML file that needs no network: material in, text out."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import pandas as pd
from plotly.offline import get_plotlyjs

from pepr_mlops.comparison.table import readable
from pepr_mlops.report import cautions, theme
from pepr_mlops.report import summary as words
from pepr_mlops.report.dashboards import Dashboard, FigureSpec
from pepr_mlops.report.figures import KINDS, OF_A_SET
from pepr_mlops.report.figures.common import Panel
from pepr_mlops.report.figures.ranking import headings, listed
from pepr_mlops.report.label import Label, spoken, svg
from pepr_mlops.report.material import Material, NothingToDraw
from pepr_mlops.report.spending import spent_words
from pepr_mlops.report.templates import TEMPLATES, asset
from pepr_mlops.text import cell

PLOTLY_FILE = "plotly.min.js"  # next to the page with `plotlyjs="directory"`


def panels(material: Material, board: Dashboard) -> tuple[list[Panel], list[tuple[str, str]]]:
    """The figures of a dashboard in its order, those of a set once for each requested set.

    Second, the title or kind of each figure that these runs have no data for, and why.
    """
    found, missing = [], []
    for spec in board.figures:
        for name in material.main_sets if spec.kind in OF_A_SET else [None]:
            try:
                found.append(panel(material, spec, name))
            except NothingToDraw as nothing:
                missing.append((spec.title or spec.kind, str(nothing)))
    return found, list(dict.fromkeys(missing))


def panel(material: Material, spec: FigureSpec, comparison_set: str | None) -> Panel:
    """One figure of a dashboard, of a set where its kind is of one. Raises `NothingToDraw`."""
    sets: tuple[str, ...] = () if comparison_set is None else (comparison_set,)
    found: Panel = KINDS[spec.kind].panel(material, spec.options, *sets)
    title = spec.title or found.title
    if spec.title is not None and sets and len(material.main_sets) > 1:
        title = f"{title}: {comparison_set}"
    caption = found.caption if spec.caption is None else spec.caption
    sets = found.sets or sets
    found = replace(found, kind=spec.kind, title=title, caption=caption, sets=sets)
    return stamped(found, cautions.stamps(material, sets))


def stamped(panel: Panel, warning: str) -> Panel:
    """The panel with the warning, if any, in its figure and caption."""
    if not warning:
        return panel
    panel.figure.add_annotation(
        text=f"<b>{theme.text(warning)}</b>",
        xref="paper",
        yref="paper",
        x=1,
        y=0,
        xanchor="right",
        yanchor="bottom",
        showarrow=False,
        font={"color": theme.RED, "size": 13},
    )
    return replace(panel, caption=f"{warning}. {panel.caption}")


def html(
    material: Material,
    board: Dashboard,
    notes: Sequence[str] = (),
    labels: Sequence[Label] = (),
    *,
    command: str,
    made: str,
    plotlyjs: Literal["inside", "directory"] = "inside",
) -> str:
    """The page. `command` makes it again and `made` says when and by which version it was made;
    `labels` are the energy labels to show.

    Everything that people named is text in it, never markup or script. With `plotlyjs="directory"`
    the page expects PLOTLY_FILE next to it, else it contains it.
    """
    drawn, missing = panels(material, board)
    summary = words.summarise(material, notes)
    js, plotly = asset("page.js"), get_plotlyjs() if plotlyjs == "inside" else None
    return TEMPLATES.get_template("page.html").render(
        policy=_policy(js, plotly),
        title=board.title,
        subtitle=", ".join(material.main_sets),
        summary=summary,
        spent=spent_words(summary.spent),
        labels=[(_encoded(svg(label)), spoken(label)) for label in labels],
        figures=[
            {
                "panel": panel,
                "csv": _packed(panel.table),
                "file": f"{i:02d}-{panel.kind}.csv",
                "ranking": _ranking(panel, material) if panel.recompute else None,
            }
            for i, panel in enumerate(drawn, 1)
        ],
        missing=missing,
        css=asset("page.css"),
        js=js,
        plotly=plotly,
        plotly_file=PLOTLY_FILE,
        data=_json(
            {
                "figures": [_figure(panel, material) for panel in drawn],
                "templates": {
                    name: theme.template(dark=name == "dark").to_plotly_json()
                    for name in ("light", "dark")
                },
                "runPage": material.run_page,
            }
        ),
        command=command,
        made=made,
    )


def _encoded(svg: str) -> str:
    return base64.b64encode(svg.encode()).decode()


def _policy(js: str, plotly: str | None) -> str:
    """What a browser lets the page do: run these scripts and no other, and ask no network."""
    inside = [js] if plotly is None else [js, plotly]
    digests = [base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in inside]
    scripts = [f"'sha256-{digest}'" for digest in digests]
    if plotly is None:
        scripts += ["'self'", "file:"]
    return (
        f"default-src 'none'; script-src {' '.join(scripts)}; style-src 'unsafe-inline'; "
        "img-src data: blob:; font-src data:; base-uri 'none'; form-action 'none'"
    )


def _figure(panel: Panel, material: Material) -> dict[str, Any]:
    figure = json.loads(panel.figure.to_json())
    figure["layout"].pop("template", None)  # the page has both, light and dark
    if panel.recompute is None:
        return dict(figure)
    rows = {model: row["cells"] for model, row in _ranking(panel, material)["every"].items()}
    if material.run_page is not None:
        figure["runs"] = dict(zip(panel.table["model"], panel.table["run_id"], strict=True))
    known = {key: _short(panel.recompute[key]) for key in ("P", "R")}
    return {**figure, "recompute": {**panel.recompute, **known}, "rows": rows}


def _ranking(panel: Panel, material: Material) -> dict[str, Any]:
    """The table under a ranking: headings, the rows shown, and every row by its model."""
    assert panel.recompute is not None
    columns = headings(panel.table, panel.recompute["by"])
    texts = readable(panel.table, list(columns)).itertuples(index=False, name=None)
    every = {
        row.model: {"cells": cells, "page": material.run_page and material.run_page + row.run_id}
        for row, cells in zip(panel.table.itertuples(), texts, strict=True)
    }
    shown = [every[model] for model in listed(panel.table, panel.recompute["top"])["model"]]
    return {"headings": columns, "shown": shown, "every": every}


def _packed(table: pd.DataFrame) -> str:
    """The table as CSV, compressed and in base64: the page unpacks it for a download."""
    flat = table.drop(columns="run_id", errors="ignore").map(
        lambda v: float(f"{v:.10g}") if isinstance(v, float) else v
    )
    text = flat.map(cell).rename(columns=cell).to_csv(index=False, lineterminator="\n")
    return base64.b64encode(gzip.compress(text.encode(), 9, mtime=0)).decode()


def _short(value: Any) -> Any:
    """Numbers of seven digits: more would only be weight."""
    if isinstance(value, float):
        return float(f"{value:.7g}")
    if isinstance(value, Mapping):
        return {k: _short(v) for k, v in value.items()}
    return [_short(v) for v in value] if isinstance(value, list) else value


def _json(content: Any) -> str:
    """JSON that cannot end the script element it stands in."""
    text = json.dumps(content, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text
