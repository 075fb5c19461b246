"""Figures as images."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import needs
from made import material, run
from PIL import Image

from pepr_mlops.errors import WorkFailed
from pepr_mlops.report import page
from pepr_mlops.report.dashboards import FigureSpec
from pepr_mlops.report.figures import plane
from pepr_mlops.report.figures.common import Panel
from pepr_mlops.report.images import images


@pytest.fixture
def panel() -> Panel:
    found = material([run(m, energy_wh=e) for m, e in (("a", 1.0), ("b", 2.0), ("c", 4.0))])
    return page.panel(found, FigureSpec("plane", plane.Options()), "derma")


def test_print_size_and_vectors(panel: Panel, tmp_path: Path) -> None:
    needs(Path("/usr/bin/chromium"), "a browser")
    png, svg, pdf = images([panel], ["png", "svg", "pdf"], tmp_path)
    assert [p.name for p in (png, svg, pdf)] == ["01-plane.png", "01-plane.svg", "01-plane.pdf"]
    width, height = Image.open(png).size
    assert width / 300 * 25.4 == pytest.approx(170, abs=0.5)  # mm at 300 dots an inch
    assert height > 1000
    drawing = svg.read_text()
    assert "<image" not in drawing  # no raster of WebGL
    assert "updatemenu-button" not in drawing
    assert pdf.read_bytes().startswith(b"%PDF")


def test_without_a_browser_the_remedy_is_named(
    panel: Panel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BROWSER_PATH", str(tmp_path / "no-browser"))
    with pytest.raises(WorkFailed, match="apt install chromium"):
        images([panel], ["png"], tmp_path)
