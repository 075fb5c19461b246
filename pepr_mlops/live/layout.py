"""The parts of the live page. Names that people gave are children, which Dash shows as text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dash import dcc, html

from pepr_mlops.comparison.table import cost_unit
from pepr_mlops.live import view_state
from pepr_mlops.live.content import Table
from pepr_mlops.live.view_state import View
from pepr_mlops.names import RESOURCES
from pepr_mlops.report.dashboards import Dashboard
from pepr_mlops.report.material import Material

TICK_S = 3  # between two polls of the server
_GRAPH: Any = {"displaylogo": False, "responsive": True,
          "modeBarButtonsToRemove": ["select2d", "lasso2d", "autoScale2d"]}  # fmt: skip

_STORES = ("dark", "version", "address", "seen", "known", "run-page", "late", "done")
_SHORT = {"E": "energy", "C": "CO2e", "M": "memory", "T": "time", "D": "data"}
_WORDS = {
    "minmax": "least to greatest",
    "zero": "none to greatest",
    "robust": "between quantiles",
    "refuse": "refuse",
    "stratify": "a set each",
    "allow": "mix",
    "none": "none",
    "kind": "type",
    "efficient": "efficient",
    "size": "size",
    "R": "R",
    "cost": "cost",
}


def page(dashboard: Dashboard, view: View, offered: Sequence[str]) -> html.Div:
    """The page before anything is read."""
    main = main_figure(dashboard)
    return html.Div(
        [
            dcc.Location(id="url", refresh=False),
            dcc.Interval(id="tick", interval=TICK_S * 1000),
            *(dcc.Store(id=name) for name in _STORES),
            dcc.Download(id="file"),
            html.Header([html.H1(dashboard.title), html.P(id="trouble", role="alert")]),
            html.Details(
                [html.Summary("Controls"), _controls(view, offered)], id="controls", open=True
            ),
            html.Main(
                [
                    html.Div(id="messages", role="status"),
                    html.P(id="problem", role="alert"),
                    html.P(id="headline"),
                    html.Div(id="warnings"),
                    slot("main", main is not None),
                    html.Div(html.Table(id="ranking"), className="scroll", tabIndex=0),
                    html.P(id="more", className="caption"),
                    *(slot(i) for i, _ in others(dashboard)),
                    html.Details([html.Summary("Notes"), html.Ul(id="notes")]),
                ]
            ),
            html.Footer(
                html.Div(
                    [
                        html.Button("Export this view as HTML", id="export", disabled=True),
                        html.Span("or"),
                        html.Code(id="command"),
                        dcc.Clipboard(target_id="command", title="copy the command"),
                    ]
                )
            ),
        ],
        id="page",
    )


def main_figure(dashboard: Dashboard) -> int | None:
    """Which figure of the dashboard follows the controls at once: its first plane."""
    return next((i for i, f in enumerate(dashboard.figures) if f.kind == "plane"), None)


def others(dashboard: Dashboard) -> list[tuple[int, Any]]:
    """All figures but the main one, with their places in the dashboard."""
    return [(i, f) for i, f in enumerate(dashboard.figures) if i != main_figure(dashboard)]


def slot(name: int | str, shown: bool = True) -> html.Section:
    """The place of one figure."""
    return html.Section(
        [
            dcc.Store(id=f"digest-{name}"),
            html.H2(id=f"title-{name}"),
            dcc.Graph(
                id=f"graph-{name}", config=_GRAPH, responsive=True, style={"display": "none"}
            ),
            html.P(id=f"caption-{name}", className="caption"),
        ],
        className="figure",
        hidden=not shown,
    )


def _controls(view: View, offered: Sequence[str]) -> html.Div:
    return html.Div(
        [
            _field(
                "Experiments",
                dcc.Dropdown(
                    id="experiments",
                    options=list(view.experiments),
                    value=list(view.experiments),
                    multi=True,
                    placeholder="one or several",
                ),
            ),
            html.Div(
                _field("Comparison set", dcc.Dropdown(id="set", placeholder="the first")),
                id="sets",
                hidden=True,
            ),
            html.Div(
                [
                    *(html.Span(word, className="head")
                      for word in ("Resource", "Weight", "Share", "At most")),
                    *(part for i, name in enumerate(offered) for part in _resource(i, name)),
                    html.Span("P: performance", className="name"),
                    html.Span("at least", className="share least"),
                    _limit("least", "P at least"),
                ],
                className="resources",
            ),
            _field(
                "α: the higher, the less resources count",
                _slider("alpha", 1, view_state.MOST_ALPHA, 0.1, view.alpha),
            ),
            _choice("R is normalised from", "normalisation", view_state.NORMALISATIONS),
            _choice("Runs that differ in conditions", "mixed", view_state.MIXED),
            dcc.Checklist(
                id="strict",
                options=[{"label": "leave out doubtful runs", "value": "strict"}],
                value=[],
            ),
            _field("Images classified a year", _limit("images", "images a year")),
            _field("Years of use", _limit("years", "years of use")),
            _choice("Colour by", "colour", view_state.COLOURS),
            _choice("Horizontal axis", "axis", view_state.AXES),
            _field(
                "Rows of the table",
                dcc.Input(
                    id="rows", type="number", min=1, max=view_state.MOST_ROWS, step=1, debounce=True
                ),
            ),
        ],
        className="controls",
    )  # fmt: skip


def _resource(i: int, name: str) -> list[Any]:
    """The controls of one resource, cells of a grid."""
    words = f"{name}: {_SHORT[name]}" if name in _SHORT else name
    title = RESOURCES[name].help if name in RESOURCES else name
    return [
        dcc.Checklist(
            id=f"use-{i}",
            options=[{"label": words, "value": "use", "title": title}],
            value=[],
            className="name",
        ),
        _slider(f"weight-{i}", 0, 1, 0.01, view_state.WEIGHT, allow_direct_input=False),
        html.Span(id=f"share-{i}", className="share"),
        _limit(f"limit-{i}", f"{name} at most", cost_unit(name)),
    ]


def resource_class(known: bool, used: bool) -> str:
    """The class in CSS of the row of a resource."""
    return "name" + (" used" if used else "") + ("" if known else " unknown")


def _slider(name: str, low: float, high: float, step: float, value: float, **more: Any) -> Any:
    return dcc.Slider(
        id=name, min=low, max=high, step=step, value=value, marks=None, tooltip=None, **more
    )


def _limit(name: str, title: str, unit: str = "") -> html.Span:
    return html.Span(
        dcc.Input(
            id=name, type="number", min=0, step="any", debounce=True, placeholder=unit or "no limit"
        ),
        title=f"{title} ({unit})" if unit else title,
    )


def _field(label: str, control: Any) -> html.Div:
    return html.Div([html.Span(label, className="label"), control], className="field")


def _choice(label: str, name: str, values: Sequence[str]) -> html.Div:
    options = [{"label": _WORDS[v], "value": v} for v in values]
    return _field(label, dcc.RadioItems(id=name, options=options, value=values[0], inline=True))


def table(content: Table) -> list[Any]:
    """The rows of the ranking."""
    classes = ["number" if right else None for right in content.right]
    heads = [html.Th(h, className=c) for h, c in zip(content.headings, classes, strict=True)]
    rows = []
    for texts, page in zip(content.rows, content.pages, strict=True):
        cells: list[Any] = list(texts)
        if page is not None:  # the model leads to its run
            cells[1] = html.A(cells[1], href=page, target="_blank", rel="noopener")
        rows.append(html.Tr([html.Td(c, className=k) for c, k in zip(cells, classes, strict=True)]))
    return [html.Thead(html.Tr(heads)), html.Tbody(rows)]


def notes(material: Material, more: Sequence[str]) -> list[Any]:
    """The notes on all comparisons that are shown, each once."""
    stated = [note for part in material.parts if part.main for note in part.comparison.notes]
    return [html.Li(note) for note in dict.fromkeys([*stated, *more])]


def height(figure: Any) -> dict[str, str]:
    """How tall a figure is on the page: its own height, else that of most."""
    return {"height": f"{figure.layout.height or 440}px"}
