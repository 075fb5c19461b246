"""Figures as images for papers and slides, drawn by the browser of this machine."""

from __future__ import annotations

import asyncio
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


def images(
    panels: Sequence[Panel],
    formats: Sequence[str],
    folder: Path,
    done: Callable[[Path], object] = lambda path: None,
) -> list[Path]:
    """Write each panel in each format of FORMATS into `folder`, light, 170 mm wide.

    SVG and PDF are vectors throughout. What only a screen has (buttons, traces that wait for a
    click) is left out. `done` is called with each file. Raises `WorkFailed` without a Chrome or
    Chromium, and for a folder that cannot be written.
    """
    requested = [
        (printed(panel.figure), form, folder / f"{i:02d}-{panel.kind}.{form}")
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


def printed(figure: go.Figure) -> go.Figure:
    """The figure for print."""
    paper = go.Figure([t for t in figure.data if t.visible != "legendonly"], figure.layout)
    paper.update_layout(template=theme.template(), height=figure.layout.height or _HEIGHT)
    paper.layout.updatemenus = ()
    return paper
