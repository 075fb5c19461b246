"""Makes the images that the README and docs/reporting.md show.

    python docs/images.py DIR

DIR holds the paper's released results (all_results.csv). They are imported into a store of their
own, reported, and a few figures and the first screen of the page, on a desktop and on a phone, are
kept as PNG files in docs/images.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from pepr_mlops.comparison import Question
from pepr_mlops.comparison.answer import Terms
from pepr_mlops.imports import SOURCES
from pepr_mlops.report import dashboards, page, sources
from pepr_mlops.report.images import images
from pepr_mlops.tracking import import_runs

_FIGURES = {  # file name by the start of the title in the dashboard `paper`
    "Performance against energy": "plane",
    "PePR curves": "curves",
    "Pretrained or from scratch": "pretrained",
    "Medians of small and large": "sizes",
    "How the ranking moves": "sensitivity",
}
_MARGIN = 0.07  # at which these runs can show that models are good enough
_SCREENS = {"page": (1400, 900), "phone": (390, 844)}


def main(results: Path) -> None:
    folder = Path(__file__).parent / "images"
    paper = dashboards.load("paper")
    with tempfile.TemporaryDirectory() as made:
        uri = f"sqlite:///{made}/mlflow.db"
        import_runs(SOURCES["pepr-paper"](results), uri)
        question = Question(resources=("E",), normalisation="zero")
        source = sources.read(["derma_pt"], list(paper.experiments), tracking_uri=uri)
        prepared, notes = sources.sort(source, question, paper.experiments)
        material = sources.material(source, prepared, question, terms=Terms(_MARGIN))
        panels, _ = page.panels(material, paper)
        for start, name in _FIGURES.items():
            (panel,) = (p for p in panels if p.title.startswith(start))
            (path,) = images([panel], ["png"], Path(made))
            _small(path, folder / f"{name}.png")
        html = Path(made) / "page.html"
        html.write_text(
            page.html(material, dashboards.load("default"), notes, command="", made=""),
            encoding="utf-8",
        )
        for name, (width, height) in _SCREENS.items():
            _first_screen(html, Path(made) / f"{name}.png", width, height)
            _small(Path(made) / f"{name}.png", folder / f"{name}.png")


def _small(image: Path, out: Path) -> None:
    """The picture in 128 colours, a quarter of the size."""
    Image.open(image).convert("RGB").quantize(128).save(out, optimize=True)


def _first_screen(html: Path, out: Path, width: int, height: int) -> None:
    """The page as it opens in a window of so many px."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox"]
        )
        tab = browser.new_page(viewport={"width": width, "height": height})
        tab.goto(f"file://{html}")
        tab.wait_for_function("() => document.documentElement.dataset.drawn === 'yes'")
        tab.wait_for_selector("#hero .plot .xtick")
        tab.screenshot(path=out)
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
