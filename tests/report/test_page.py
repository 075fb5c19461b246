"""The page in a real browser, without a network."""

from __future__ import annotations

import base64
import csv
import gzip
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import opened
from made import material, run
from playwright.sync_api import Page

from pepr_mlops.comparison import Question
from pepr_mlops.errors import WrongUse
from pepr_mlops.report import dashboards, figures, page
from pepr_mlops.report.material import Material
from pepr_mlops.report.spending import Price

HOSTILE = "<script>alert(1)</script>"
RUNS = [
    run("a", performance=0.60, energy_wh=10.0, memory_gb=2.0, tags={"pepr.parameters": "1000"}),
    run("b", performance=0.80, energy_wh=20.0, memory_gb=6.0, tags={"pepr.parameters": "2000"}),
    run("c", performance=0.70, energy_wh=30.0, memory_gb=3.0, tags={"pepr.parameters": "3000"}),
    run(HOSTILE, performance=0.90, energy_wh=50.0, memory_gb=5.0),
]
TITLE = "</title><img src=x onerror=alert(2)>"
KINDS = ["ranking", "plane", "sensitivity", "space"]
BOARD = dashboards.parse(
    {
        "title": TITLE,
        "figure": [
            {"kind": "ranking", "caption": "</script><b>bold</b>"},
            *({"kind": kind} for kind in KINDS[1:]),
            {"kind": "publications"},
        ],
    },
    "tests",
)
DRAWN = "document.documentElement.dataset.drawn === 'yes'"


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


@pytest.fixture
def tab(browser: Any, shown: Material, tmp_path: Path) -> Iterator[Page]:
    with opened(browser, _written(shown, tmp_path)) as page_:
        yield page_


def _scrolled(tab: Page) -> None:
    """Figures are drawn when they come near the window."""
    figures = tab.locator(".figure:not([hidden])")
    for i in range(figures.count()):
        figures.nth(i).scroll_into_view_if_needed()
        figures.nth(i).locator(".main-svg").first.wait_for(state="attached")


def test_every_figure_is_drawn_or_listed_with_a_reason(tab: Page) -> None:
    kinds = tab.locator(".figure").evaluate_all("s => s.map(x => x.dataset.kind)")
    assert sorted(kinds) == sorted(KINDS)
    _scrolled(tab)
    plane = tab.locator(".figure[data-kind=plane]")
    assert plane.locator(".scatterlayer .point").count() >= 4
    missing = tab.locator("#missing li").text_content() or ""
    assert missing.startswith("Publications by region: ")
    assert "--publications DIR" in missing


def test_every_kind_of_figure_has_a_title_and_a_section() -> None:
    assert set(figures.TITLE) == set(figures.SECTION) == set(figures.KINDS)


def test_what_people_named_is_text(tab: Page) -> None:
    assert tab.title() == TITLE
    assert tab.locator("#title").inner_text() == TITLE
    ranking = tab.locator(".figure[data-kind=ranking]")
    assert "</script><b>bold</b>" in ranking.locator(".caption").inner_text()
    assert tab.locator(".caption b, header img").count() == 0
    _scrolled(tab)
    assert HOSTILE in (ranking.locator(".plot").text_content() or "")
    assert HOSTILE in tab.locator("footer").inner_text()
    assert f"note {HOSTILE}" in tab.locator("#conditions").inner_text()


def test_a_browser_runs_no_script_but_the_pages_own(
    browser: Any, shown: Material, tmp_path: Path
) -> None:
    own = browser.new_context(offline=True)
    tab = own.new_page()
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
    own.close()
    assert refused == [None, "script-src-elem", "script-src-attr", "connect-src"]


def test_a_changed_plotly_js_is_refused_and_the_answer_stands(
    browser: Any, shown: Material, tmp_path: Path
) -> None:
    path = _written(shown, tmp_path)
    changed = base64.b64encode(gzip.compress(b"window.ran = true")).decode()
    start, rest = path.read_text().split('<script id="plotly" type="text/plain">')
    packed, end = rest.split("</script>", 1)
    assert len(packed) > 600_000
    path.write_text(f'{start}<script id="plotly" type="text/plain">{changed}</script>{end}')
    own = browser.new_context(offline=True)
    tab = own.new_page()
    refused = []
    tab.on("console", lambda m: refused.append(m.text) if m.type == "error" else None)
    tab.goto(f"file://{path}")
    tab.wait_for_function(f"() => {DRAWN}")
    assert tab.evaluate("window.ran") is None
    assert any("Content Security Policy" in text for text in refused)
    assert tab.locator("#answer h1").inner_text() == HOSTILE
    own.close()


def test_without_scripts_the_answer_and_its_doubts_are_read(
    browser: Any, shown: Material, tmp_path: Path
) -> None:
    own = browser.new_context(offline=True, java_script_enabled=False)
    tab = own.new_page()
    tab.goto(f"file://{_written(shown, tmp_path)}")
    answer = tab.locator("#answer").inner_text()
    assert (
        f"{HOSTILE} is good enough: with 95% confidence its accuracy is at most 1 point" in answer
    )
    assert "reaches 90% accuracy on the test set" in answer
    assert "Each model was trained once" in tab.locator("#conditions").inner_text()
    own.close()


def test_each_badge_leads_to_its_explanation(tab: Page) -> None:
    links = tab.locator("#trust a")
    assert links.first.get_attribute("class") == "badge doubt"
    targets = [links.nth(i).get_attribute("href") or "" for i in range(links.count())]
    assert len(targets) == 6
    for target in targets:
        assert tab.locator(f"#conditions {target} p").count() == 1


def test_a_point_opens_its_run(tab: Page) -> None:
    _scrolled(tab)
    tab.evaluate("window.open = (address) => { window.opened = address; }")
    tab.evaluate(
        "document.querySelector('.figure .plot').emit('plotly_click', {points: [{id: 'run3'}]})"
    )
    assert tab.evaluate("window.opened") == "http://127.0.0.1:9/#/runs/run3"


def test_the_numbers_of_a_figure_are_downloaded(tab: Page) -> None:
    button = tab.locator(".figure[data-kind=plane] .csv")
    with tab.expect_download() as download:
        button.click()
    assert download.value.suggested_filename == "02-plane.csv"
    rows = list(csv.DictReader(io.StringIO(Path(download.value.path()).read_text())))
    assert {r["label"]: float(r["cost"]) for r in rows} == {"a": 10, "b": 20, "c": 30, HOSTILE: 50}


def test_dark_and_light_and_a_phone(browser: Any, shown: Material, tmp_path: Path) -> None:
    path = _written(shown, tmp_path)
    phone = {"viewport": {"width": 360, "height": 800}, "color_scheme": "dark"}
    with opened(browser, path, **phone) as tab:
        _scrolled(tab)
        paper = "getComputedStyle(document.querySelector('.figure .main-svg')).backgroundColor"
        dark = tab.evaluate(paper)
        assert tab.evaluate("document.documentElement.dataset.theme") == "dark"
        assert tab.evaluate("document.documentElement.scrollWidth") <= 360
        tab.locator("#theme").click()
        tab.wait_for_function(f"() => {paper} !== {json.dumps(dark)}")
        assert tab.evaluate("document.documentElement.dataset.theme") == "light"


def test_estimates_stand_on_the_page_and_in_every_figure(browser: Any, tmp_path: Path) -> None:
    runs = [{**r, "tags": {**r["tags"], "pepr.energy_source": "estimated"}} for r in RUNS]
    with opened(browser, _written(material(runs), tmp_path)) as tab:
        assert tab.locator("#trust a").first.inner_text() == "energy estimated"
        _scrolled(tab)
        for figure in tab.locator(".figure .plot").all():
            assert "energy estimated" in (figure.text_content() or "").lower()


def test_plotly_js_may_be_next_to_the_page(browser: Any, shown: Material, tmp_path: Path) -> None:
    path = _written(shown, tmp_path, plotlyjs="directory")
    assert path.stat().st_size < 300_000
    (tmp_path / page.PLOTLY_FILE).write_text(page.plotly_script())
    with opened(browser, path) as tab:
        _scrolled(tab)


def test_plotly_js_is_of_the_version_that_makes_the_figures() -> None:
    from plotly.offline import get_plotlyjs_version

    first = page.plotly_script()[:100]
    assert f"plotly.js (cartesian - minified) v{get_plotlyjs_version()}\n" in first


def test_groups_have_their_own_figures_badges_and_conditions(browser: Any, tmp_path: Path) -> None:
    runs = [*RUNS[:3], run("a", precision="bf16"), run("b", precision="bf16", energy_wh=30.0)]
    found = material(runs, question=Question(mixed="stratify", draws=20))
    drawn, _ = page.panels(found, BOARD)
    names = [f"derma [precision={p}]" for p in ("fp32", "bf16")]
    planes = [p for p in drawn if p.kind == "plane"]
    assert [p.sets for p in planes] == [(name,) for name in names]
    assert [p.title.rpartition(": ")[2] for p in planes] == ["precision fp32", "precision bf16"]
    shown = "boxes => boxes.filter(b => b.offsetParent !== null).map(b => b.dataset.group)"
    for name, address in zip(names, ("", "group=derma+%5Bprecision%3Dbf16%5D"), strict=True):
        with opened(browser, _written(found, tmp_path), address) as tab:
            for part in (
                "#trust li",
                ".explained",
                "#conditions .facts",
                ".figure[data-kind=plane]",
            ):
                assert set(tab.locator(part).evaluate_all(shown)) == {name}, part


def test_the_data_in_the_page_is_json_that_ends_no_script(shown: Material) -> None:
    text = page.html(shown, BOARD, command="", made="", price=Price.parse("0.30€"))
    data = text.split('<script id="facts" type="application/json">')[1].split("</script>")[0]
    assert "<" not in data
    facts = json.loads(data)
    assert HOSTILE in [row["label"] for row in facts["groups"][0]["rows"]]
    assert (facts["price"], facts["currency"]) == (0.3, "€")


@pytest.mark.parametrize(
    ("text", "amount", "currency"),
    [("0.30€", 0.3, "€"), ("0.3 EUR", 0.3, "EUR"), ("$0.15", 0.15, "$"), ("2 kr", 2.0, "kr")],
)
def test_a_price_is_a_number_and_its_currency(text: str, amount: float, currency: str) -> None:
    assert Price.parse(text) == Price(amount, currency)


@pytest.mark.parametrize("text", ["0.30", "€", "-1€", "0,30€", "€0.3€", "nan €", "1e3 €"])
def test_a_price_without_one_of_them_is_refused(text: str) -> None:
    with pytest.raises(WrongUse, match="currency"):
        Price.parse(text)
