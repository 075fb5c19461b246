"""What a page gives away: files, citations, paper; and that everybody can use it."""

from __future__ import annotations

import csv
import io
import re
import zipfile
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from browser import opened, written
from made import material, run
from playwright.sync_api import Browser, Page
from test_ranking_table import HOSTILE, RUNS

from pepr_mlops.report import works


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    formula = run("=1+1", performance=0.5, energy_wh=60.0, memory_gb=7.0)
    found = material([*RUNS, formula])
    return written(found, tmp_path_factory.mktemp("downloads"))


def downloaded(tab: Page, button: str) -> tuple[str, bytes]:
    with tab.expect_download() as found:
        tab.get_by_role("button", name=button).click()
    return found.value.suggested_filename, Path(found.value.path()).read_bytes()


def test_one_archive_has_all_numbers_and_citations(browser: Browser, made: Path) -> None:
    with opened(browser, made) as tab:
        name, content = downloaded(tab, "Download all (ZIP)")
    assert name == "pepr.zip"
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == [
            *("ranking.csv", "01-plane.csv", "methods.txt", "references.bib"),
        ]
        rows = list(csv.DictReader(io.StringIO(archive.read("01-plane.csv").decode())))
        assert {r["label"]: float(r["cost"]) for r in rows} == {
            **{"a": 10, "b": 20, "c": 30, HOSTILE: 50, "'=1+1": 60},
        }
        assert b"selvan2025pepr" in archive.read("references.bib")
        assert archive.read("methods.txt").startswith(b"We compared 5 models")


def test_what_is_saved_has_its_unit(browser: Browser, made: Path) -> None:
    with opened(browser, made, "columns=model,saving&sort=model") as tab:
        _, content = downloaded(tab, "Ranking as shown (CSV)")
    rows = list(csv.DictReader(io.StringIO(content.decode())))
    assert {row["model"]: (float(row["saved"]), row["saved_unit"]) for row in rows} == {
        model: (50 - wh, "Wh")
        for model, wh in {"'=1+1": 60, HOSTILE: 50, "a": 10, "b": 20, "c": 30}.items()
    }


def test_the_table_is_a_file_as_it_is_shown(browser: Browser, made: Path) -> None:
    with opened(browser, made, "columns=model,p,cost&sort=-cost") as tab:
        name, content = downloaded(tab, "Ranking as shown (CSV)")
    assert name == "ranking.csv"
    rows = list(csv.DictReader(io.StringIO(content.decode())))
    assert [row["model"] for row in rows] == ["'=1+1", HOSTILE, "c", "b", "a"]
    assert [float(row["cost"]) for row in rows] == [60, 50, 30, 20, 10]
    assert list(rows[0]) == [
        *("model", "performance", "cost", "cost_low", "cost_high", "cost_estimated"),
        *("cost_name", "cost_unit"),
    ]


def test_the_methods_text_is_copied(browser: Browser, made: Path) -> None:
    rights = ["clipboard-read", "clipboard-write"]
    with opened(browser, made, permissions=rights) as tab:
        tab.locator("#copy-methods").click()
        tab.get_by_role("button", name="Copied").wait_for()
        copied = tab.evaluate("navigator.clipboard.readText()")
    assert copied.startswith("We compared 5 models")


def test_a_work_is_one_line_of_text_and_an_entry() -> None:
    assert works.ZEUS.text == (
        "J. You, J.-W. Chung, M. Chowdhury: Zeus: Understanding and Optimizing GPU Energy "
        "Consumption of DNN Training. USENIX Symposium on Networked Systems Design and "
        "Implementation (NSDI), 2023."
    )
    assert works.PNEUMONIA.text.startswith("D. S. Kermany et al.: Identifying Medical")
    assert works.PNEUMONIA.text.endswith("Cell 172(5), 2018.")
    assert works.CARS.text.startswith("European Environment Agency: Average CO2 emissions")
    assert works.HSU.bibtex.splitlines() == [
        "@article{hsu1981simultaneous,",
        "  title = {Simultaneous Confidence Intervals for All Distances from the 'Best'},",
        "  author = {Hsu, J. C.},",
        "  journal = {Annals of Statistics},",
        "  volume = {9},",
        "  year = {1981}",
        "}",
    ]


def test_every_work_has_a_key_of_its_own_and_balanced_braces() -> None:
    found = [work for work in vars(works).values() if isinstance(work, works.Work)]
    assert len({work.key for work in found}) == len(found) >= 16
    for work in found:
        assert work.bibtex.count("{") == work.bibtex.count("}")
        assert "{" not in work.text


def test_paper_has_the_verdict_and_then_the_evidence(browser: Browser, made: Path) -> None:
    with opened(browser, made) as tab:
        printed = tab.pdf(format="A4", prefer_css_page_size=True)
        assert len(re.findall(rb"/Type\s*/Page\b", printed)) == 2
        tab.emulate_media(media="print")
        for shown in ("#verdict", "table.ranking", ".explained:has(.doubt)", "#methods-text"):
            assert tab.locator(shown).first.is_visible(), shown
        for hidden in ("#controls", "#contents", ".figure", "#search", "#files"):
            assert not tab.locator(hidden).first.is_visible(), hidden


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1400, 390])
def test_axe_finds_nothing_serious(browser: Browser, made: Path, scheme: str, width: int) -> None:
    screen = {"color_scheme": scheme, "viewport": {"width": width, "height": 900}}
    with opened(browser, made, "reader=researcher", **screen) as tab:
        tab.locator(".columns summary").click()
        found = Axe().run(tab).response["violations"]
    grave = [v for v in found if v["impact"] in ("serious", "critical")]
    assert [(v["id"], [node["target"] for node in v["nodes"]]) for v in grave] == []


def test_the_buttons_of_a_figure_have_names_and_are_reached_by_keyboard(
    browser: Browser, made: Path
) -> None:
    with opened(browser, made) as tab:
        plane = tab.locator(".figure[data-kind=plane]")
        plane.scroll_into_view_if_needed()
        plane.locator(".modebar-btn").first.wait_for(state="attached")
        csv_button = plane.get_by_role("button", name="CSV of Accuracy against training energy")
        csv_button.focus()
        focused = (
            "document.activeElement.getAttribute('aria-label') || document.activeElement.tagName"
        )
        passed = []
        for _ in range(3):
            tab.keyboard.press("Shift+Tab")
            passed.append(tab.evaluate(focused))
        assert passed == ["SUMMARY", "Reset axes", "Download plot"]
        ring = "getComputedStyle(document.activeElement).outlineWidth"
        assert tab.evaluate(ring) == "2px"
        with tab.expect_download():
            tab.keyboard.press("Enter")
        copies = tab.locator("#methods > button, #methods details button").all_text_contents()
        assert copies == ["Copy text", "Copy BibTeX"]


def test_a_section_is_reached_by_keyboard_and_keeps_the_settings(
    browser: Browser, made: Path
) -> None:
    with opened(browser, made, "alpha=2") as tab:
        tab.locator("#contents").get_by_role("link", name="Data").focus()
        tab.keyboard.press("Enter")
        assert tab.evaluate("document.activeElement.id") == "data"
        assert tab.url.endswith("#alpha=2")
        current = tab.locator("#contents [aria-current]")
        current.get_by_text("Data").wait_for()
        assert current.count() == 1


def test_a_term_is_explained_to_a_keyboard_and_a_finger(browser: Browser, made: Path) -> None:
    phone = {"viewport": {"width": 390, "height": 844}, "has_touch": True}
    with opened(browser, made, **phone) as tab:
        button = tab.locator('#controls .term[data-explains="alpha"]')
        button.tap()
        assert "with a larger α, cost counts less" in tab.locator("#tip").inner_text()
        assert tab.locator("#term-alpha").count() == 1
        tab.keyboard.press("Escape")
        assert tab.locator("#tip").is_hidden()
