"""What a reader can change in the page, with numbers that can be checked by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from browser import opened, written
from made import material, run
from playwright.sync_api import Browser, Page
from test_ranking_table import HOSTILE, RUNS, cells, models

from pepr_mlops.comparison import Question, pepr


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(material(RUNS), tmp_path_factory.mktemp("what-if"))


def put(tab: Page, name: str, value: object) -> None:
    tab.locator(f'#controls [data-setting="{name}"]').fill(str(value))


def test_weights_and_alpha_score_as_the_library_does(browser: Browser, made: Path) -> None:
    with opened(browser, made, "reader=researcher") as tab:
        put(tab, "alpha", 2)
        put(tab, "weight E", 0.5)
        put(tab, "weight M", 0.5)
        # 2 × 0.9 / (2 + 0.5 × 1 + 0.5 × 0.75) = 0.6261, and so on
        assert models(tab) == [HOSTILE, "b", "a", "c"]
        expected = pepr.pepr(
            pd.Series([0.9, 0.8, 0.6, 0.7]),
            pd.DataFrame([[1, 0.75], [0.25, 1], [0, 0], [0.5, 0.25]]),
            weights=(0.5, 0.5),
            alpha=2,
        )
        scores = tab.evaluate(
            "answered(groupOf(settings.group), settings).rows.map((r) => r.score)"
        )
        assert scores == pytest.approx(list(expected))
        assert scores[0] == pytest.approx(1.8 / 2.875)
        named = "dot(answered(page.groups[0], settings).rows[0], page.groups[0], settings, 'x')"
        assert "PePR-E+M 0.626" in tab.evaluate(named)
        assert cells(tab, "rank") == ["1", "2", "3", "4"]
        line = tab.locator(".differences").inner_text()
        assert line.startswith("Changed: α (was 1), weights.")
        assert "are not shown" in line
        tab.get_by_role("button", name="Reset", exact=True).click()
        assert models(tab) == ["b", "a", "c", HOSTILE]
        assert tab.url.endswith("#reader=researcher")


def test_a_margin_in_points_changes_what_is_good_enough(browser: Browser, made: Path) -> None:
    with opened(browser, made) as tab:
        assert tab.locator("tr.chosen").get_attribute("data-model") == HOSTILE
        put(tab, "margin", 50)
        assert tab.evaluate("settings.margin") == 0.5
        assert set(cells(tab, "verdict")) == {"good enough"}
        assert tab.locator("tr.chosen").get_attribute("data-model") == "a"
        assert "margin (was 1 point)" in tab.locator(".differences").inner_text()
        tab.reload()
        assert tab.locator("tr.chosen").get_attribute("data-model") == "a"


def test_limits_leave_models_out(browser: Browser, made: Path) -> None:
    with opened(browser, made, "margin=0.5") as tab:
        put(tab, "limit p", 75)
        assert tab.locator("tr.chosen").get_attribute("data-model") == "b"
        put(tab, "limit M", 5)
        assert tab.locator("tr.chosen").get_attribute("data-model") == HOSTILE
        assert cells(tab, "verdict") == [*["outside the limits"] * 3, "good enough"]
        put(tab, "limit M", "")
        assert tab.locator("tr.chosen").get_attribute("data-model") == "b"


def test_price_and_grid_make_money_and_emissions(browser: Browser, made: Path) -> None:
    with opened(browser, made, "reader=funder") as tab:
        put(tab, "price", 0.3)
        put(tab, "grams", 400)
        # 20 Wh are 0.02 kWh: 0.006 at 0.30 each, and 8 g at 400 g each
        assert cells(tab, "money") == ["0.006 €", "0.003 €", "0.009 €", "0.015 €"]
        assert cells(tab, "co2e") == ["8 g", "4 g", "12 g", "20 g"]


def on_grids() -> list[dict[str, Any]]:
    """Models of 50, 30 and 10 Wh, trained on grids of 100, 400 and 400 g/kWh."""
    return [
        run(
            model,
            performance=p,
            energy_wh=wh,
            metrics={"carbon/train_gco2e": wh / 1000 * grams},
            tags={"pepr.carbon_intensity_g_per_kwh": str(grams)},
        )
        for model, p, wh, grams in (
            ("large", 0.9, 50.0, 100),
            ("mid", 0.8, 30.0, 400),
            ("small", 0.7, 10.0, 400),
        )
    ]


@pytest.mark.parametrize(
    ("question", "made_r", "r"),
    [
        # 5, 12 and 4 g as the runs were trained; 10, 6 and 2 g at 200 g/kWh
        (Question(resources=("C",), draws=50), [1 / 8, 1, 0], [1, 0.5, 0]),
        (
            Question(
                resources=("C",),
                normalisation="reference",
                reference=pepr.Reference(
                    {"carbon_gco2e": pepr.Bounds(0.0, 20.0), "energy_wh": pepr.Bounds(0.0, 50.0)},
                    {"shared": {}},
                ),
                draws=50,
            ),
            [0.25, 0.6, 0.2],
            [0.5, 0.3, 0.1],
        ),
    ],
)
def test_another_grid_is_that_of_all_models(
    browser: Browser, tmp_path: Path, question: Question, made_r: list[float], r: list[float]
) -> None:
    rows = """answered(page.groups[0], settings).rows.map(
        (row) => [row.label, row.r, row.costs.C, row.score, row.rank_low]).sort()"""
    with opened(browser, written(material(on_grids(), question=question), tmp_path)) as tab:
        assert [row[1] for row in tab.evaluate(rows)] == pytest.approx(made_r)
        put(tab, "grams", 200)
        found = tab.evaluate(rows)
        assert [row[1] for row in found] == pytest.approx(r)
        assert [row[2] for row in found] == pytest.approx([10, 6, 2])
        scores = [p / (1 + x) for p, x in zip((0.9, 0.8, 0.7), r, strict=True)]
        assert [row[3] for row in found] == pytest.approx(scores)
        assert {row[4] for row in found} == {None}
        assert (
            "original settings, so they are not shown" in tab.locator(".differences").inner_text()
        )


def test_little_money_is_rounded(browser: Browser, made: Path) -> None:
    with opened(browser, made, "reader=funder&price=0.0123456789") as tab:
        # 20, 10, 30 and 50 Wh
        assert cells(tab, "money") == ["under 0.001 €"] * 4
        assert "electricity at 0.0123 €/kWh" in tab.locator("#table thead").inner_text()
        assert tab.evaluate("moneyWords(0)") == "0 €"
        assert tab.evaluate("moneyWords(0.00123456)") == "0.0012 €"


def profiled(model: str, training_wh: float, image_wh: float) -> dict[str, Any]:
    tags = {
        "pepr.inference_values": "wh_per_image",
        "pepr.inference_energy_source": "measured",
        "pepr.inference_energy_components": "cpu=measured",
        "pepr.inference_hardware": "AMD EPYC",
        "pepr.inference_unstable": "none",
        "pepr.inference_disturbed": "none",
    }
    metrics = {"inference/wh_per_image": image_wh}
    return run(model, energy_wh=training_wh, tags=tags, metrics=metrics)


def test_use_counts_where_it_was_measured(browser: Browser, tmp_path: Path, made: Path) -> None:
    runs = [profiled("a", 10.0, 0.002), profiled("b", 20.0, 0.001)]
    with opened(browser, written(material(runs), tmp_path)) as tab:
        put(tab, "images", 10000)
        put(tab, "years", 2)
        # 10 Wh + 2 × 10,000 × 0.002 Wh and 20 Wh + 2 × 10,000 × 0.001 Wh
        costs = tab.evaluate("table.at.answer.rows.map((row) => [row.label, row.cost]).sort()")
        assert costs == [["a", pytest.approx(50)], ["b", pytest.approx(40)]]
    with opened(browser, made) as tab:
        assert tab.locator('[data-setting="images"]').count() == 0
        assert "pepr profile" in tab.locator("#controls").inner_text()


@pytest.mark.parametrize("wrong", ["-1", "0", "", "150"])
def test_a_margin_that_makes_no_sense_is_marked(browser: Browser, made: Path, wrong: str) -> None:
    with opened(browser, made) as tab:
        put(tab, "margin", wrong)
        field = tab.locator('[data-setting="margin"]')
        assert field.get_attribute("aria-invalid") == "true"
        assert tab.evaluate("settings.margin") == 0.01


@pytest.mark.parametrize(
    "nonsense",
    [
        "margin=-1&alpha=0&by=nothing&weights=%5B1%5D&limits=%7B%22p%22%3A%22x%22%7D&price=%22a%22",
        "weights=null&limits=null",
    ],
)
def test_an_address_that_makes_no_sense_is_as_the_report_was_made(
    browser: Browser, made: Path, nonsense: str
) -> None:
    with opened(browser, made, nonsense) as tab:
        assert tab.evaluate("answered(groupOf(settings.group), settings).as_made")


def test_a_metric_that_is_no_share_has_a_margin_in_its_own_unit(
    browser: Browser,
    tmp_path: Path,
) -> None:
    tags = {"pepr.performance": "test/auc"}
    runs = [run(m, performance=p, energy_wh=e, tags=tags, metrics={"test/auc": p})
            for m, p, e in (("a", 0.8, 10.0), ("b", 0.9, 20.0))]  # fmt: skip
    found = material(runs, question=Question(draws=20))
    with opened(browser, written(found, tmp_path)) as tab:
        assert tab.locator('[data-setting="margin"]').input_value() == "0.01"
        assert "%" not in cells(tab, "p")[0]
