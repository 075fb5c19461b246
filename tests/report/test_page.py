"""The page in a real browser, without a network."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import needs
from made import material, run
from playwright.sync_api import Page, sync_playwright

from pepr_mlops.comparison import Question, pepr
from pepr_mlops.report import dashboards, page
from pepr_mlops.report.material import Material

HOSTILE = "<script>alert(1)</script>"
RUNS = [
    run("a", performance=0.60, energy_wh=10.0, memory_gb=2.0, tags={"pepr.parameters": "1000"}),
    run("b", performance=0.80, energy_wh=20.0, memory_gb=6.0, tags={"pepr.parameters": "2000"}),
    run("c", performance=0.70, energy_wh=30.0, memory_gb=3.0, tags={"pepr.parameters": "3000"}),
    run(HOSTILE, performance=0.90, energy_wh=50.0, memory_gb=5.0),
]
TITLE = "</title><img src=x onerror=alert(2)>"
BOARD = dashboards.parse(
    {
        "title": TITLE,
        "figure": [
            {"kind": "ranking", "caption": "</script><b>bold</b>"},
            {"kind": "plane"},
            {"kind": "sensitivity"},
            {"kind": "space"},
            {"kind": "publications"},
        ],
    },
    "tests",
)


def _written(found: Material, folder: Path, **options: Any) -> Path:
    path = folder / "page.html"
    text = page.html(
        found, BOARD, [f"note {HOSTILE}"], command=f"pepr {HOSTILE}", made="now", **options
    )
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def shown() -> Material:
    return material(RUNS, run_page="http://127.0.0.1:9/#/runs/")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    chromium = needs(Path("/usr/bin/chromium"), "a browser")
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def tab(browser: Any, shown: Material, tmp_path: Path) -> Iterator[Page]:
    """The page, drawn; a request to a network, a warning or a dialog fails the test."""
    yield from _open(browser, _written(shown, tmp_path))


def _open(browser: Any, path: Path, **context: Any) -> Iterator[Page]:
    wrong: list[str] = []
    opened = browser.new_context(offline=True, **context)
    tab = opened.new_page()
    tab.on("console", lambda m: wrong.append(m.text) if m.type in ("error", "warning") else None)
    tab.on("pageerror", lambda error: wrong.append(str(error)))
    tab.on("dialog", lambda dialog: (wrong.append(dialog.message), dialog.dismiss()))
    tab.on(
        "request",
        lambda r: None if r.url.startswith(("file:", "data:", "blob:")) else wrong.append(r.url),
    )
    tab.goto(f"file://{path}")
    tab.wait_for_function("() => document.documentElement.dataset.drawn === 'yes'")
    yield tab
    opened.close()
    assert wrong == []


def _ranking(tab: Page) -> list[list[str]]:
    rows = tab.locator("table.ranking tbody tr")
    return [
        [row.locator("td").nth(i).inner_text() for i in (0, 1, -4)]
        for row in [rows.nth(k) for k in range(rows.count())]
    ]


def test_every_figure_is_drawn_or_listed_with_a_reason(tab: Page) -> None:
    assert tab.locator(".plot .main-svg").count() >= 4
    kinds = tab.locator("section.figure").evaluate_all("s => s.map(x => x.dataset.kind)")
    assert kinds == ["ranking", "plane", "sensitivity", "space"]
    drawn = tab.locator("#figure-1 .scatterlayer .point").count()
    assert drawn >= 4
    assert "--publications DIR" in tab.locator("#missing").inner_text()


def test_what_people_named_is_text(tab: Page) -> None:
    assert tab.title().startswith(TITLE)
    assert tab.locator("h1").inner_text() == TITLE
    assert HOSTILE in tab.locator("table.ranking").inner_text()
    assert "</script><b>bold</b>" in tab.locator(".caption").first.inner_text()
    assert tab.locator(".caption b, h1 img").count() == 0
    ticks = tab.locator("#figure-0 .ytick text")
    assert HOSTILE in [ticks.nth(i).text_content() for i in range(ticks.count())]
    assert HOSTILE in tab.locator("footer").inner_text()


def test_a_browser_runs_no_script_but_the_pages_own(
    browser: Any, shown: Material, tmp_path: Path
) -> None:
    opened = browser.new_context(offline=True)
    tab = opened.new_page()
    tab.goto(f"file://{_written(shown, tmp_path)}")
    refused = tab.evaluate(
        """async () => {
            const refused = [];
            document.addEventListener("securitypolicyviolation",
                                      (e) => refused.push(e.effectiveDirective));
            const script = document.createElement("script");
            script.textContent = "window.ran = true";
            document.body.append(script);
            document.body.insertAdjacentHTML("beforeend", "<b onclick='window.ran = true'>x</b>");
            document.body.lastElementChild.click();
            await fetch("https://example.org").catch(() => null);
            await new Promise((next) => setTimeout(next));
            return [window.ran, ...refused];
        }"""
    )
    opened.close()
    assert refused == [None, "script-src-elem", "script-src-attr", "connect-src"]


def test_sliders_score_again_as_the_library_does(tab: Page) -> None:
    assert [row[1] for row in _ranking(tab)] == ["b", "a", "c", HOSTILE]
    before = tab.locator("table.ranking tbody").inner_html()
    for name, value in (("E", 0.25), ("M", 0.75), ("alpha", 3)):
        tab.locator(f'.controls input[name="{name}"]').evaluate(
            "(e, v) => { e.value = v; e.dispatchEvent(new Event('input', {bubbles: true})); }",
            value,
        )
    p, r = [0.6, 0.8, 0.7, 0.9], [[0, 0], [0.25, 1], [0.5, 0.25], [1, 0.75]]
    import pandas as pd

    expected = pepr.pepr(
        pd.Series(p, ["a", "b", "c", HOSTILE]),
        pd.DataFrame(r, ["a", "b", "c", HOSTILE]),
        weights=(0.25, 0.75),
        alpha=3,
    ).sort_values(ascending=False)
    assert [row[1] for row in _ranking(tab)] == list(expected.index)
    values = tab.locator("table.ranking tbody tr").evaluate_all(
        "rows => rows.map(r => r.cells[[...r.closest('table').tHead.rows[0].cells]"
        ".findIndex(h => h.dataset.key === 'score')].textContent)"
    )
    assert values == [f"{s:.4f}" for s in expected]
    drawn = tab.evaluate("[...document.getElementById('figure-0').data[0].x]")
    assert drawn == pytest.approx(list(expected))
    assert tab.evaluate("document.getElementById('figure-0').data[0].ids") == [
        f"run{['a', 'b', 'c', HOSTILE].index(model)}" for model in expected.index
    ]
    tab.get_by_role("button", name="Reset", exact=True).click()
    assert tab.locator("table.ranking tbody").inner_html() == before


def test_odd_weights_come_back_as_they_were_requested(browser: Any, tmp_path: Path) -> None:
    question = Question(resources=("E", "M"), weights=(0.62, 0.38), alpha=30.25, draws=20)
    for tab in _open(browser, _written(material(RUNS, question=question), tmp_path)):
        before = tab.locator("table.ranking tbody").inner_html()
        slide = "(e, v) => { e.value = v; e.dispatchEvent(new Event('input', {bubbles: true})); }"
        tab.locator('.controls input[name="M"]').evaluate(slide, 1)
        drawn = tab.evaluate("[...document.getElementById('figure-0').data[0].x]")
        r = {"E": (0, 0.25, 0.5, 1), "M": (0, 1, 0.25, 0.75)}
        total = [(0.62 * e + m) / 1.62 for e, m in zip(*r.values(), strict=True)]
        p = (0.6, 0.8, 0.7, 0.9)
        expected = sorted((30.25 * q / (30.25 + t) for q, t in zip(p, total, strict=True)))
        assert sorted(drawn) == pytest.approx(expected)
        tab.get_by_role("button", name="Reset", exact=True).click()
        assert tab.locator("table.ranking tbody").inner_html() == before


def test_a_model_links_to_its_run(tab: Page) -> None:
    link = tab.locator("table.ranking a", has_text=re.compile("^b$"))
    assert link.get_attribute("href") == "http://127.0.0.1:9/#/runs/run1"
    tab.evaluate("window.open = (address) => { window.opened = address; }")
    tab.evaluate(
        "document.getElementById('figure-0').emit('plotly_click', {points: [{id: 'run3'}]})"
    )
    assert tab.evaluate("window.opened") == "http://127.0.0.1:9/#/runs/run3"


def test_the_numbers_of_a_figure_are_downloaded(tab: Page, shown: Material) -> None:
    with tab.expect_download() as download:
        tab.locator(".csv").nth(1).click()
    assert download.value.suggested_filename == "02-plane.csv"
    rows = list(csv.DictReader(io.StringIO(Path(download.value.path()).read_text())))
    assert {r["label"]: float(r["cost"]) for r in rows} == {"a": 10, "b": 20, "c": 30, HOSTILE: 50}


def test_the_legend_hides_and_shows(tab: Page) -> None:
    before = tab.locator("#figure-1 .scatterlayer .trace").count()
    tab.locator("#figure-1 .legendtoggle").nth(1).click(force=True)
    tab.wait_for_function(
        f"() => document.querySelectorAll('#figure-1 .scatterlayer .trace').length !== {before}"
    )


def test_dark_and_light_and_a_phone(browser: Any, shown: Material, tmp_path: Path) -> None:
    path = _written(shown, tmp_path)
    phone = {"viewport": {"width": 360, "height": 800}, "color_scheme": "dark"}
    for tab in _open(browser, path, **phone):
        paper = "getComputedStyle(document.querySelector('.main-svg')).backgroundColor"
        assert tab.evaluate(paper) == "rgb(22, 25, 29)"
        page_width = "document.documentElement.scrollWidth"
        assert tab.evaluate(page_width) <= 360
        tab.locator("#theme").click()
        tab.wait_for_function(f"() => {paper} === 'rgb(255, 255, 255)'")


def test_estimates_stand_on_the_page_and_in_every_figure(browser: Any, tmp_path: Path) -> None:
    runs = [{**r, "tags": {**r["tags"], "pepr.energy_source": "estimated"}} for r in RUNS]
    for tab in _open(browser, _written(material(runs), tmp_path)):
        assert "ESTIMATED" in tab.locator(".warning").inner_text()
        figures = tab.locator("section.figure")
        for i in range(figures.count()):
            svg = figures.nth(i).locator(".plot .infolayer").first.text_content()
            assert "energy ESTIMATED" in (svg or ""), i


@pytest.mark.parametrize(("width", "height"), [(1200, 800), (360, 740)])
def test_the_verdict_is_on_the_first_screen_above_all_warnings(
    browser: Any, tmp_path: Path, width: int, height: int
) -> None:
    doubtful = {"pepr.energy_source": "estimated", "pepr.data_leak": "3 of 4"}
    runs = [{**r, "tags": {**r["tags"], **doubtful}} for r in RUNS]
    screen = {"viewport": {"width": width, "height": height}}
    for tab in _open(browser, _written(material(runs), tmp_path), **screen):
        verdict = tab.locator(".answer")
        assert HOSTILE in verdict.inner_text()
        assert "within 0.01 of the best test/accuracy, with 95% confidence" in verdict.inner_text()
        (of_verdict, first_warning) = (
            found.bounding_box() for found in (verdict, tab.locator(".warning").first)
        )
        assert of_verdict is not None
        assert first_warning is not None
        assert of_verdict["y"] + of_verdict["height"] <= first_warning["y"] < height
        assert tab.locator(".warning").count() == 2


def test_plotly_js_may_be_next_to_the_page(browser: Any, shown: Material, tmp_path: Path) -> None:
    from plotly.offline import get_plotlyjs

    path = _written(shown, tmp_path, plotlyjs="directory")
    assert path.stat().st_size < 200_000
    (tmp_path / page.PLOTLY_FILE).write_text(get_plotlyjs())
    for tab in _open(browser, path):
        assert tab.locator(".plot .main-svg").count() >= 4


def test_several_sets_have_their_own_figures() -> None:
    runs = [*RUNS[:2], run("a", precision="bf16"), run("b", precision="bf16", energy_wh=30.0)]
    found = material(runs, question=Question(mixed="stratify", draws=20))
    drawn, _ = page.panels(found, BOARD)
    assert [p.sets for p in drawn if p.kind == "plane"] == [
        ("derma [precision=bf16]",),
        ("derma [precision=fp32]",),
    ]


def test_the_data_in_the_page_is_json_that_ends_no_script(shown: Material) -> None:
    text = page.html(shown, BOARD, command="", made="")
    data = text.split('<script id="data" type="application/json">')[1].split("</script>")[0]
    assert "<" not in data
    assert HOSTILE in json.loads(data)["figures"][0]["rows"]
