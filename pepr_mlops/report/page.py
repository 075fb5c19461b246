"""A report as one HTML file that needs no network: material in, text out."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import resources
from typing import Any, Literal

import pandas as pd

from pepr_mlops.report import badges, cautions, theme
from pepr_mlops.report import summary as words
from pepr_mlops.report.dashboards import Dashboard, FigureSpec
from pepr_mlops.report.figures import KINDS, OF_A_SET, SECTION, TITLE
from pepr_mlops.report.figures.common import Panel
from pepr_mlops.report.groups import groups
from pepr_mlops.report.label import Label, spoken, svg
from pepr_mlops.report.material import Material, NothingToDraw
from pepr_mlops.report.spending import Price, spent_words
from pepr_mlops.report.templates import TEMPLATES, asset
from pepr_mlops.text import cell

# In the order of the page, after the verdict.
SECTIONS = {
    "ranking": "Ranking",
    "what-if": "What if",
    "costs": "Costs",
    "fairness": "Fairness and calibration",
    "kinds": "Models by kind and size",
    "conditions": "Conditions and doubts",
    "methods": "Methods and citations",
    "data": "Data",
}
_ONLY_FIGURES = ("fairness", "kinds")
_PARTS = (
    *("settings", "answer", "figures", "dom", "words", "first", "hero", "columns", "ranking"),
    *("whatif", "contents", "glossary", "zip", "files", "print", "page"),
)
_STYLES = ("page", "first", "table", "print")
_CURRENCY = "€"  # of a price that only the reader gives
_PLOTLY = resources.files("pepr_mlops.report") / "plotlyjs" / "plotly-cartesian.min.js.gz"
PLOTLY_FILE = "plotly.min.js"  # next to the page with `plotlyjs="directory"`


def panels(material: Material, board: Dashboard) -> tuple[list[Panel], list[tuple[str, str]]]:
    """The figures of a dashboard in its order, those of a set once for each requested set.

    Second, the title of each figure that these runs have no data for, and why.
    """
    found, missing = [], []
    for spec in board.figures:
        for name in material.main_sets if spec.kind in OF_A_SET else [None]:
            try:
                found.append(panel(material, spec, name))
            except NothingToDraw as nothing:
                missing.append((spec.title or TITLE[spec.kind], str(nothing)))
    return found, list(dict.fromkeys(missing))


def panel(material: Material, spec: FigureSpec, comparison_set: str | None) -> Panel:
    """One figure of a dashboard, of a set where its kind is of one. Raises `NothingToDraw`."""
    sets: tuple[str, ...] = () if comparison_set is None else (comparison_set,)
    found: Panel = KINDS[spec.kind].panel(material, spec.options, *sets)
    title = spec.title or found.title
    if sets and len(material.main_sets) > 1:
        title = f"{title}: {material.title(*sets)}"
    caption = found.caption if spec.caption is None else spec.caption
    sets = found.sets or sets
    found = replace(found, kind=spec.kind, title=title, caption=caption, sets=sets)
    doubts = cautions.stamps(material, sets)
    if doubts:
        theme.add_doubts(found.figure, doubts)
    return found


@dataclass(frozen=True)
class Content:
    """What a page shows of some runs: `main`, the HTML between head and foot, and `data`, the facts
    and figures that its script draws."""

    main: str
    data: dict[str, Any]


def html(
    material: Material,
    board: Dashboard,
    notes: Sequence[str] = (),
    labels: Sequence[Label] = (),
    *,
    command: str,
    made: str,
    price: Price | None = None,
    plotlyjs: Literal["inside", "directory"] = "inside",
) -> str:
    """The page. `command` makes it again and `made` says when and by which version it was made;
    `labels` are the energy labels to show, `price` is that of a kWh.

    Everything that people named is text in it, never markup or script. With `plotlyjs="directory"`
    the page expects PLOTLY_FILE next to it, else it contains it.
    """
    shown = content(material, board, notes, labels, price=price)
    plotly = plotly_script() if plotlyjs == "inside" else None
    js = script()
    return TEMPLATES.get_template("assets/page.html").render(
        policy=_policy(js, plotly),
        title=shown.data["title"],
        css=style(),
        main=shown.main,
        command=command,
        made=made,
        plotly=None if plotly is None else base64.b64encode(_PLOTLY.read_bytes()).decode(),
        plotly_file=PLOTLY_FILE,
        data=as_json(shown.data),
        js=js,
    )


def plotly_script() -> str:
    """plotly.js with all kinds of figures that a page has: a third of the one in Python's package,
    of the same version, which a browser runs in a third of the time."""
    return gzip.decompress(_PLOTLY.read_bytes()).decode()


def script() -> str:
    """The script of the page: its parts, each of which may use what stands before."""
    return "".join(asset(f"assets/{name}.js") for name in _PARTS)


def style() -> str:
    """The style of the page, of its parts."""
    return "".join(asset(f"assets/{name}.css") for name in _STYLES)


def content(
    material: Material,
    board: Dashboard,
    notes: Sequence[str] = (),
    labels: Sequence[Label] = (),
    *,
    price: Price | None = None,
) -> Content:
    """What the page shows. Raises as `Material.answers`."""
    drawn, missing = panels(material, board)
    summary = words.summarise(material, notes)
    found = groups(material)
    title = board.title or ", ".join(dict.fromkeys(g["experiment"] for g in found))
    main = TEMPLATES.get_template("assets/main.html").render(
        summary=summary,
        badges=badges.badges(material),
        sections=_sections(drawn),
        missing=missing,
        spent=spent_words(summary.spent),
        labels=[(_encoded(svg(label)), spoken(label)) for label in labels],
    )
    return Content(
        main,
        {
            "title": title,
            "reader": "clinician",
            "price": price and price.amount,
            "currency": price.currency if price else _CURRENCY,
            "runPage": material.run_page,
            "groups": found,
            "figures": [_figure(panel) for panel in drawn],
            "templates": {
                name: theme.template(dark=name == "dark").to_plotly_json()
                for name in ("light", "dark")
            },
        },
    )


def _sections(drawn: Sequence[Panel]) -> list[dict[str, Any]]:
    """The sections of the page with their figures, without those that would be empty."""
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in SECTIONS}
    for i, panel in enumerate(drawn):
        found[SECTION[panel.kind]].append(
            {
                "panel": panel,
                "place": i,
                "group": panel.sets[0] if panel.kind in OF_A_SET else None,
                "csv": _packed(_csv(panel.table)),
                "file": f"{i + 1:02d}-{panel.kind}.csv",
            }
        )
    return [
        {"id": name, "title": SECTIONS[name], "figures": figures}
        for name, figures in found.items()
        if figures or name not in _ONLY_FIGURES
    ]


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


def _figure(panel: Panel) -> dict[str, Any]:
    figure = json.loads(panel.figure.to_json())
    figure["layout"].pop("template", None)  # the page has both, light and dark
    return dict(figure)


def _packed(text: str) -> str:
    """The text compressed and in base64; the page unpacks it."""
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()


def _csv(table: pd.DataFrame) -> str:
    """The table as a file for a download."""
    flat = table.drop(columns="run_id", errors="ignore").map(
        lambda v: float(f"{v:.10g}") if isinstance(v, float) else v
    )
    text: str = flat.map(cell).rename(columns=cell).to_csv(index=False, lineterminator="\n")
    return text


def as_json(content: Any) -> str:
    """JSON that cannot end the script element it stands in."""
    text = json.dumps(content, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text
