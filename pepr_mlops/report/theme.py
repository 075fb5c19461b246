"""How figures look: colours that everybody can distinguish, light and dark, on screen and paper."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

# M. Okabe, K. Ito, "Color Universal Design", 2008: distinct with every kind of colour vision.
ORANGE, GREEN, RED = "#E69F00", "#009E73", "#D55E00"
# The same idea with a contrast of 3 to 1 on the paper of both themes: the model that is good
# enough, the best performer, and all others in this order.
CHOICE, BEST = "#0f8f69", "#c96a1e"
COLOURS = ("#2e7fc1", "#bf62a0", "#9c7d14", "#7f74c9", "#c0504d", "#3f8f9d")
SYMBOLS = ("square", "triangle-up", "cross", "triangle-down", "x", "pentagon")
NEUTRAL = "#808080"
FAINT = "rgba(128,128,128,0.35)"
INK = "#1c1d1f"
LIGHT, DARK = "#ffffff", "#1b1e21"  # the paper of figures
HALO = {"light": "rgba(255,255,255,0.7)", "dark": "rgba(27,30,33,0.7)"}  # behind words
DOUBT = {"light": "#855600", "dark": "#f0c060"}  # words about doubts
TOP = 28  # px above a plot, room for the buttons that appear there
_DOUBT_LINE = 22  # px of a line of doubt

_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"
_LONGEST = 28  # characters of a name in a figure


def template(dark: bool = False) -> go.layout.Template:
    """Everything about a figure that is not data: fonts, grid, background, margins."""
    ink, grid, paper = ("#e8e8e6", "#33383d", DARK) if dark else (INK, "#e6e6e2", LIGHT)
    axis: dict[str, Any] = {
        "gridcolor": grid,
        "linecolor": grid,
        "zeroline": False,
        "ticks": "",
        "automargin": True,
        "title": {"standoff": 10, "font": {"size": 13}},
        "tickfont": {"size": 12},
    }
    return go.layout.Template(
        layout={
            "font": {"family": _FONT, "size": 13, "color": ink},
            "paper_bgcolor": paper,
            "plot_bgcolor": paper,
            "colorway": list(COLOURS),
            "xaxis": axis,
            "yaxis": {**axis, "nticks": 7, "ticklabelstandoff": 6},
            "hovermode": "closest",
            "hoverlabel": {"font": {"family": _FONT}, "align": "left"},
            "legend": {"orientation": "h", "yref": "container", "y": 0, "yanchor": "bottom", "x": 0,
                       "bgcolor": "rgba(0,0,0,0)"},
            "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": NEUTRAL, "activecolor": ink},
            "margin": {"l": 50, "r": 16, "t": TOP, "b": 48},
            "title": {"x": 0, "y": 1, "yanchor": "top", "pad": {"l": 8, "t": 8},
                      "font": {"size": 13, "color": DOUBT["dark" if dark else "light"]}},
            "annotationdefaults": {"font": {"color": ink, "size": 12}, "arrowcolor": NEUTRAL,
                                   "bgcolor": HALO["dark" if dark else "light"]},
        }
    )  # fmt: skip


def style(i: int) -> dict[str, str]:
    """Colour and symbol of the i-th of many, distinct without colour, too."""
    return {"color": COLOURS[i % len(COLOURS)], "symbol": SYMBOLS[i % len(SYMBOLS)]}


def styles(
    models: Sequence[str], choice: str | None, best: str | None
) -> dict[str, dict[str, str]]:
    """Colour and symbol of each of `models` in every figure of a page: the `choice` green, the
    `best` performer orange, the others in their order."""
    others = [model for model in models if model not in (choice, best)]
    found = {model: style(i) for i, model in enumerate(others)}
    marks: Mapping[str | None, dict[str, str]] = {
        best: {"color": BEST, "symbol": "diamond"},
        choice: {"color": CHOICE, "symbol": "circle"},
    }
    return found | {model: mark for model, mark in marks.items() if model is not None}


def add_doubts(figure: go.Figure, words: str) -> None:
    """Write a line about doubts above the plot, which keeps its size."""
    top = figure.layout.margin.t
    height = figure.layout.height
    figure.update_layout(
        title={"text": text(words)},
        margin={"t": (TOP if top is None else top) + _DOUBT_LINE},
        height=None if height is None else height + _DOUBT_LINE,
    )


def text(words: object) -> str:
    """What a person named, as plotly shows it: text, never its markup."""
    return html.escape(str(words), quote=False)


def texts(words: Any) -> list[str]:
    """`text` of each."""
    return [text(w) for w in words]


def name(words: str) -> str:
    """As `text`, the end of a long name cut off."""
    return text(shortened(words))


def shortened(words: str) -> str:
    """The words, as many as a figure has room for."""
    return words if len(words) <= _LONGEST else f"{words[: _LONGEST - 1]}…"
