"""Figures as images for papers and slides, drawn by the browser of this machine."""

from __future__ import annotations

import asyncio
import textwrap
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import plotly.graph_objects as go

from pepr_mlops.errors import WorkFailed
from pepr_mlops.report import theme
from pepr_mlops.report.figures.common import Panel

FORMATS = ("png", "svg", "pdf")

# CSS pixels, 96 to the inch: 170 mm is the text width of a two-column page on A4.
_WIDTH, _HEIGHT = 643, 400
_PNG_SCALE = 300 / 96  # 300 dots an inch
_TITLE, _LINE = 75, 20  # characters of a line of the title and its height in px


def images(
    panels: Sequence[Panel],
    formats: Sequence[str],
    folder: Path,
    done: Callable[[Path], object] = lambda path: None,
) -> list[Path]:
    """Write each panel in each format of FORMATS into `folder`, light, 170 mm wide.

    SVG and PDF are vectors throughout. `done` is called with each file. Raises `WorkFailed` without
    a Chrome or Chromium, and for a folder that cannot be written.
    """
    requested = [
        (printed(panel), form, folder / f"{i:02d}-{panel.kind}.{form}")
        for i, panel in enumerate(panels, 1)
        for form in formats
    ]
    with ThreadPoolExecutor(1) as apart:  # a notebook has an event loop of its own
        apart.submit(asyncio.run, _write(requested, done)).result()
    return [path for _, _, path in requested]


async def _write(
    requested: Sequence[tuple[go.Figure, str, Path]], done: Callable[[Path], object]
) -> None:
    """One browser for all images: starting it takes most of the time."""
    import kaleido
    from choreographer.errors import BrowserDepsError, BrowserFailedError, ChromeNotFoundError

    try:
        async with kaleido.Kaleido(n=1, mathjax=False) as browser:
            for figure, form, path in requested:
                scale = _PNG_SCALE if form == "png" else 1
                size = {"width": _WIDTH, "height": figure.layout.height, "scale": scale}
                options = {"format": form, **size}
                await browser.write_fig(figure, path, options, cancel_on_error=True)
                done(path)
    except (ChromeNotFoundError, BrowserDepsError, BrowserFailedError) as error:
        raise WorkFailed(
            "format: png, svg and pdf are drawn by Chrome or Chromium, and none was found or would "
            "start; install one (apt install chromium), name it with BROWSER_PATH, or ask for "
            "--format html"
        ) from error
    except OSError as error:
        raise WorkFailed(f"out: images cannot be written ({error})") from error


def printed(panel: Panel) -> go.Figure:
    """The figure of a panel for print, with its title, which the page shows above the figure."""
    paper = go.Figure(panel.figure)
    lines = [f"<b>{line}</b>" for line in theme.texts(textwrap.wrap(panel.title, _TITLE))]
    room = _LINE * len(lines)
    if paper.layout.title.text:  # doubts, which have their room already
        style = f"color:{theme.DOUBT['light']};font-size:13px"
        lines.append(f'<span style="{style}">{paper.layout.title.text}</span>')
    top = paper.layout.margin.t
    return paper.update_layout(
        template=theme.template(),
        title={
            "text": "<br>".join(lines),
            "font": {"size": 14, "color": theme.INK},
            "pad": {"t": 8 + _LINE * (len(lines) - 1)},  # plotly places the last line
        },
        margin={"t": (theme.TOP if top is None else top) + room},
        height=(paper.layout.height or _HEIGHT) + room,
    )
