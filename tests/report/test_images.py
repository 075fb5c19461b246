"""Figures as images."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import needs
from made import material, run
from PIL import Image

from pepr_mlops.errors import WorkFailed
from pepr_mlops.report import page, theme
from pepr_mlops.report.dashboards import FigureSpec
from pepr_mlops.report.figures import plane
from pepr_mlops.report.figures.common import Panel
from pepr_mlops.report.images import images, printed


@pytest.fixture
def panel() -> Panel:
    tags = {"pepr.energy_source": "estimated"}
    costs = {"a": 1.0, "b": 2.0, "c": 4.0}
    found = material([run(m, energy_wh=e, tags=tags) for m, e in costs.items()])
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
    assert "<b>" not in drawing
    assert "Accuracy against training energy" in drawing  # the page has the title above the figure
    assert "energy estimated" in drawing
    assert pdf.read_bytes().startswith(b"%PDF")


def test_doubts_and_title_have_room_above_the_plot(panel: Panel) -> None:
    figure = panel.figure
    plot = figure.layout.height - figure.layout.margin.t
    assert figure.layout.title.text == "energy estimated"
    paper = printed(panel)
    assert paper.layout.title.text == (
        "<b>Accuracy against training energy</b><br>"
        f'<span style="color:{theme.DOUBT["light"]};font-size:13px">energy estimated</span>'
    )
    assert paper.layout.height - paper.layout.margin.t == plot
    assert paper.layout.margin.t > figure.layout.margin.t
    assert figure.layout.title.text == "energy estimated"  # the page's own is as it was


def test_without_a_browser_the_remedy_is_named(
    panel: Panel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BROWSER_PATH", str(tmp_path / "no-browser"))
    with pytest.raises(WorkFailed, match="apt install chromium"):
        images([panel], ["png"], tmp_path)
