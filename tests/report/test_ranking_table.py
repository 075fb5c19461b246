"""The table of models in a browser: what it shows, its order, ties, search and pages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from browser import opened, written
from made import material, run
from playwright.sync_api import Browser, Page

from pepr_mlops.comparison import Question

HOSTILE = "<script>alert(1)</script>"
# PePR by energy: R is 0, 0.25, 0.5 and 1, so that the scores are 0.6, 0.64, 0.4667 and 0.45.
RUNS = [
    run("a", performance=0.60, energy_wh=10.0, memory_gb=2.0, tags={"pepr.parameters": "1200000"}),
    run("b", performance=0.80, energy_wh=20.0, memory_gb=6.0),
    run("c", performance=0.70, energy_wh=30.0, memory_gb=3.0),
    run(HOSTILE, performance=0.90, energy_wh=50.0, memory_gb=5.0),
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = material(RUNS, run_page="http://127.0.0.1:9/#/runs/")
    return written(found, tmp_path_factory.mktemp("table"))


def models(tab: Page) -> list[str]:
    return tab.locator(".ranking tbody tr[data-model]").evaluate_all(
        "rows => rows.map((row) => row.dataset.model)"
    )


def cells(tab: Page, key: str) -> list[str]:
    """The texts of the column that is sorted by the button `key`."""
    return tab.evaluate(
        """(key) => {
            const table = document.querySelector("table.ranking");
            const heads = [...table.tHead.rows[0].cells];
            const i = heads.findIndex((head) => head.querySelector(".sort").dataset.key === key);
            const rows = [...table.querySelectorAll("tr[data-model]")];
            return rows.map((row) => row.cells[i].innerText.trim());
        }""",
        key,
    )


def head(tab: Page, key: str) -> Any:
    return tab.locator(f'.ranking .sort[data-key="{key}"]')


def test_models_stand_by_score_with_what_they_cost_and_save(browser: Browser, made: Path) -> None:
    with opened(browser, made) as tab:
        assert models(tab) == ["b", "a", "c", HOSTILE]
        assert cells(tab, "p") == ["80%", "60%", "70%", "90%"]
        assert cells(tab, "cost") == ["20 Wh", "10 Wh", "30 Wh", "50 Wh"]
        assert cells(tab, "saving") == ["60% less", "80% less", "40% less", "—"]
        assert cells(tab, "model")[3] == f"{HOSTILE}chosenbest accuracy"
        link = tab.locator('.ranking tr[data-model="b"] a')
        assert link.get_attribute("href") == "http://127.0.0.1:9/#/runs/run1"
        assert tab.locator(".ranking th script, .ranking th img").count() == 0


def test_readers_see_other_columns_and_may_choose(browser: Browser, made: Path) -> None:
    with opened(browser, made, "reader=researcher") as tab:
        assert cells(tab, "score")[0].startswith("0.64")
        tab.locator(".columns summary").click()
        tab.get_by_label("parameters (millions)").check()
        assert cells(tab, "parameters")[1] == "1.2"
        assert "parameters" in tab.url
        tab.get_by_role("button", name="Usual columns").click()
        assert head(tab, "parameters").count() == 0
        assert "columns" not in tab.url


def test_a_click_on_a_heading_sorts_and_a_second_one_turns_the_order(
    browser: Browser,
    made: Path,
) -> None:
    with opened(browser, made) as tab:
        head(tab, "p").click()
        assert models(tab) == [HOSTILE, "b", "c", "a"]
        assert tab.locator("th[aria-sort]").get_attribute("aria-sort") == "descending"
        assert tab.evaluate("document.activeElement.dataset.key") == "p"
        tab.keyboard.press("Enter")
        assert models(tab) == ["a", "c", "b", HOSTILE]
        head(tab, "model").click()
        assert models(tab) == [HOSTILE, "a", "b", "c"]
        tab.reload()
        assert models(tab) == [HOSTILE, "a", "b", "c"]


def test_a_search_finds_parts_of_names(browser: Browser, made: Path) -> None:
    with opened(browser, made) as tab:
        tab.get_by_label("Search models").fill("SCRIPT")
        assert models(tab) == [HOSTILE]
        assert tab.locator(".pager").inner_text().strip() == "1 model"
        tab.get_by_label("Search models").fill("nothing")
        assert models(tab) == []
        assert "No model has “nothing” in its name" in tab.locator(".ties").inner_text()


def test_ranks_that_overlap_that_of_the_first_are_one_group(browser: Browser, made: Path) -> None:
    with opened(browser, made) as tab:
        found = tab.evaluate(
            """tiesOf([[1, 3], [1, 2], [3, 4], [4, 5], [5, 5]]
                .map(([rank_low, rank_high]) => ({rank_low, rank_high})))"""
        )
        assert found == [0, 0, 0, 1, 1]
        assert tab.evaluate("tiesOf([{rank_low: null, rank_high: null}])") is None


def test_the_text_counts_the_models_that_could_rank_first(browser: Browser, made: Path) -> None:
    with opened(browser, made) as tab:
        found = tab.evaluate(
            """(() => {
                const rows = [[1, 2], [1, 3], [3, 4]].map(([rank_low, rank_high]) =>
                    ({...table.at.answer.rows[0], rank_low, rank_high}));
                const answer = {...table.at.answer, rows};
                return tiesText({...table.at, answer, ties: tiesOf(rows)}, rows);
            })()"""
        )
        assert " 2 models could rank first (95% intervals). A bar on the left joins " in found


def test_one_model_is_neither_chosen_nor_the_best(browser: Browser, tmp_path: Path) -> None:
    with opened(browser, written(material(RUNS[:1]), tmp_path)) as tab:
        assert tab.locator(".ranking .mark").count() == 0
        assert head(tab, "verdict").count() == head(tab, "saving").count() == 0


def test_one_poor_epoch_does_not_flatten_the_learning_curves(browser: Browser, made: Path) -> None:
    with opened(browser, made) as tab:
        curves = "[{curve: [0.1, 0.7, 0.8, 0.8, 0.8]}, {curve: [0.7, 0.8, 0.9, 0.9, 0.9, null]}]"
        assert tab.evaluate(f"curveRange({curves})") == [0.7, 0.9]
        assert tab.evaluate("curveRange([{curve: []}])") == [0, 1]


def test_what_is_missing_is_a_dash_with_its_reason(browser: Browser, tmp_path: Path) -> None:
    runs = [{**r, "tags": {**r["tags"], "pepr.test_images": None}} for r in RUNS[:3]]
    with opened(browser, written(material(runs), tmp_path), "columns=model,interval") as tab:
        assert cells(tab, "interval") == ["—"] * 3
        reason = tab.locator(".ranking td.interval span").first.get_attribute("title")
        assert reason is not None
        assert reason.startswith("No interval: ")


def test_a_curve_is_the_mean_over_the_epochs(browser: Browser, tmp_path: Path) -> None:
    epochs = pd.DataFrame(
        {"run_id": ["run0"] * 3 + ["run1"] * 3, "step": [1, 2, 3] * 2,
         "performance": [0.2, 0.4, 0.6, 0.5, 0.7, 0.8]}
    )  # fmt: skip
    found = material(RUNS[:2], epochs=epochs)
    with opened(browser, written(found, tmp_path), "reader=researcher") as tab:
        drawn = tab.locator('tr[data-model="a"] polyline').get_attribute("points")
        # from 0.2 at the bottom (y = 12) to 0.8 at the top (y = 2)
        assert drawn == "2.0,12.0 60.0,8.7 118.0,5.3"


def test_many_models_have_pages(browser: Browser, tmp_path: Path) -> None:
    runs = [run(f"m{i:03d}", performance=0.5 + i / 1000, energy_wh=20.0) for i in range(120)]
    found = material(runs, question=Question(draws=20))
    with opened(browser, written(found, tmp_path)) as tab:
        assert models(tab)[0] == "m119"
        assert len(models(tab)) == 50
        tab.get_by_role("button", name="Next").click()
        tab.get_by_role("button", name="Next").click()
        assert models(tab) == [f"m{i:03d}" for i in range(19, -1, -1)]
        assert "101–120 of 120 models" in tab.locator(".pager").inner_text()
        assert tab.get_by_role("button", name="Next").is_disabled()


def test_a_phone_has_the_other_columns_in_the_row(browser: Browser, made: Path) -> None:
    with opened(browser, made, viewport={"width": 390, "height": 844}) as tab:
        assert head(tab, "verdict").count() == 0
        assert tab.locator("table.ranking").evaluate("t => t.scrollWidth") <= 390
        tab.get_by_role("button", name="More about b").click()
        assert "60% less" in tab.locator("tr.more").inner_text()
        assert tab.evaluate("document.documentElement.scrollWidth") <= 390
