"""How figures look: colours that everybody can distinguish, light and dark, on screen and paper."""

from __future__ import annotations

import html
from typing import Any

import plotly.graph_objects as go

# M. Okabe, K. Ito, "Color Universal Design", 2008: distinct with every kind of colour vision.
BLUE, ORANGE, GREEN = "#0072B2", "#E69F00", "#009E73"
RED, PURPLE, SKY = "#D55E00", "#CC79A7", "#56B4E9"
COLOURS = (BLUE, ORANGE, GREEN, RED, PURPLE, SKY)
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
NEUTRAL = "#808080"  # readable on white and on black
FAINT = "rgba(128,128,128,0.35)"

_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"


def template(dark: bool = False) -> go.layout.Template:
    """Everything about a figure that is not data: fonts, grid, background, margins."""
    ink, grid, paper = ("#e6e6e6", "#3a3f45", "#16191d") if dark else ("#222", "#e3e3e3", "#fff")
    axis: dict[str, Any] = {
        "gridcolor": grid,
        "linecolor": NEUTRAL,
        "zeroline": False,
        "ticks": "outside",
        "tickcolor": NEUTRAL,
        "automargin": True,
        "title": {"standoff": 8},
    }
    return go.layout.Template(
        layout={
            "font": {"family": _FONT, "size": 13, "color": ink},
            "paper_bgcolor": paper,
            "plot_bgcolor": paper,
            "colorway": list(COLOURS),
            "xaxis": axis,
            "yaxis": axis,
            "hovermode": "closest",
            "hoverlabel": {"font": {"family": _FONT}, "align": "left"},
            "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
            "margin": {"l": 55, "r": 20, "t": 50, "b": 50},
            "annotationdefaults": {"font": {"color": ink}, "arrowcolor": NEUTRAL},
            "updatemenudefaults": {
                "bgcolor": paper,
                "bordercolor": NEUTRAL,
                "font": {"color": "#888" if dark else ink},
            },
        }
    )


def style(i: int) -> dict[str, str]:
    """Colour and symbol of the marks of the i-th of many, distinct without colour, too."""
    return {"color": COLOURS[i % len(COLOURS)], "symbol": SYMBOLS[i % len(SYMBOLS)]}


def text(words: object) -> str:
    """What a person named, as plotly shows it: text, never its markup."""
    return html.escape(str(words), quote=False)


def texts(words: Any) -> list[str]:
    """`text` of each."""
    return [text(w) for w in words]
