"""What the first screen does not claim of numbers that are estimated, unknown or changed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from browser import opened, written
from made import accuracies, material, run
from playwright.sync_api import Page
from test_first_screen import EXACT, IMAGES, MARGIN, compared, good, lead, show, words

from pepr_mlops.comparison import Question
from pepr_mlops.report.groups import groups

PROFILE = {
    "pepr.inference_values": "wh_per_image",
    "pepr.inference_hardware": "AMD EPYC",
    "pepr.inference_energy_source": "estimated",
    "pepr.inference_energy_components": "cpu=estimated",
}


@pytest.fixture(scope="module")
def tab(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with opened(browser, written(good(), tmp_path_factory.mktemp("page"))) as shown:
        yield shown


def test_the_best_is_not_the_cheapest_where_a_cheaper_model_has_no_interval(tab: Page) -> None:
    runs = [
        run("large", performance=0.9, energy_wh=50.0, tags=IMAGES),
        run("odd", performance=0.888123456, energy_wh=5.0, tags={"pepr.test_images": None}),
    ]
    known = accuracies({"large": np.arange(4000) >= 400})
    show(tab, material(runs, question=EXACT, evidence=known, terms=MARGIN))
    assert words(tab, "h1") == "large"
    assert words(tab, ".eyebrow") == "No cheaper model is shown to be good enough"
    assert "Cheaper models\n1\nof 2 models" in words(tab, ".tiles")


def test_a_model_outside_the_limits_is_not_the_one_that_may_be_good_enough(tab: Page) -> None:
    models = {"large": (400, 50.0), "small": (500, 10.0), "mid": (490, 20.0)}
    show(tab, compared(models), 'limits={"E":30}')
    assert words(tab, "h1") == "mid"  # 2.25 points behind: the only one that may be within 2
    assert lead(tab).startswith("It may be good enough: it finds the right diagnosis in 87.8%")


def test_a_reader_of_published_numbers_can_choose_a_margin_but_no_images(tab: Page) -> None:
    row = "{at_most: 0.0312, likely: 0.6, more_images: 28, more_runs: 3, n: 1}"
    show(tab, good())
    ours, published = (
        tab.evaluate(f"(imported) => decides({{...page.groups[0], imported}}, {row})", imported)
        for imported in (False, True)
    )
    assert ours.startswith("About 110,000 test images (28 times as many) and 3 runs of each model")
    assert published == "A margin of 3.2 points would decide."


def test_likely_alone_is_not_confident_of_all(tab: Page) -> None:
    show(tab, good())
    row = {"likely": 0.98, "at_most": 0.03, "no_interval": ""}
    sure = tab.evaluate(
        "(row) => certainty({...page.groups[0]}, settings, {state: 'open', choice: null, best: row,"
        " likely: row, rows: [row]})",
        row,
    )
    assert sure[0] == "98% likely"
    assert sure[1].endswith("but not shown with 95% confidence in all comparisons at once.")
    assert tab.evaluate("likelyWords({likely: 0.9999})") == "over 99%"
    assert tab.evaluate("likelyWords({likely: 0.001})") == "under 1%"


def test_an_estimated_time_is_called_one(tab: Page) -> None:
    tags = IMAGES | {"pepr.time_source": "estimated"}
    runs = [
        run("large", performance=0.9, train_time_s=1000.0, tags=tags),
        run("small", performance=0.895, train_time_s=100.0, tags=tags),
    ]
    place = np.arange(4000)
    known = accuracies({"large": place >= 400, "small": place >= 420})
    question = Question(resources=("T",), draws=200, seed_sd=0.0001)
    show(tab, material(runs, question=question, evidence=known, terms=MARGIN))
    assert lead(tab).endswith("and takes an estimated tenth of the time to train.")
    assert words(tab, "#hero figcaption").endswith(" Time estimated.")


def test_an_estimated_energy_of_use_is_called_one(tab: Page) -> None:
    place = np.arange(4000)
    right = {"large": place >= 400, "small": place >= 420}
    runs = [
        run(model, performance=float(named.mean()), energy_wh=50.0 - 40 * i, tags=IMAGES | PROFILE)
        for i, (model, named) in enumerate(right.items())
    ]
    for i, made in enumerate(runs):
        made["metrics"]["inference/wh_per_image"] = 0.002 - 0.001 * i
    show(tab, material(runs, question=EXACT, evidence=accuracies(right), terms=MARGIN))
    assert "estimated" not in words(tab, "#answer")
    tab.evaluate("change({images: 12345})")
    # 10 Wh + 12,345 images of 1 mWh = 22.3 Wh of 74.7 Wh
    assert lead(tab).endswith("and takes an estimated 30% of the energy to train and use.")
    assert "partly estimated, 12,345 images a year for 1 year" in words(tab, ".tiles")
    assert words(tab, "#hero figcaption").endswith(" Energy partly estimated.")


def test_no_use_without_the_energy_of_training(tab: Page) -> None:
    runs = [
        run(model, memory_gb=8.0 - 6 * i, energy_wh=None if i else 50.0, tags=IMAGES | PROFILE)
        for i, model in enumerate(("large", "small"))
    ]
    for made in runs:
        made["metrics"]["inference/wh_per_image"] = 0.001
    question = Question(resources=("M",), draws=50)
    show(tab, material(runs, question=question, terms=MARGIN), "images=1000")
    assert "NaN" not in words(tab, "#main")
    assert "With a known cost\n0\nof 2 models" in words(tab, ".tiles")


def test_another_grid_changes_the_co2e_that_models_are_chosen_by(tab: Page) -> None:
    tags = IMAGES | {"pepr.carbon_intensity_g_per_kwh": "400"}
    runs = [
        run("large", energy_wh=50.0, metrics={"carbon/train_gco2e": 20.0}, tags=tags),
        run("small", energy_wh=10.0, metrics={"carbon/train_gco2e": 4.0}, tags=tags),
    ]
    question = Question(resources=("C",), draws=50, seed_sd=0.001)
    show(tab, material(runs, question=question, terms=MARGIN))
    assert tab.evaluate("answered(page.groups[0], settings).choice.cost") == pytest.approx(4.0)
    tab.evaluate("change({grams: 100})")
    assert tab.evaluate("answered(page.groups[0], settings).choice.cost") == pytest.approx(1.0)
    assert "1 g" in words(tab, ".tiles")


def test_a_cost_of_0_ties_with_no_other(tab: Page) -> None:
    found = compared({"large": (400, 50.0), "slim": (410, 10.0), "free": (420, 0.0)})
    show(tab, found)
    assert words(tab, "h1") == "free"
    assert words(tab, ".eyebrow") == "Good enough"
    (answer,) = found.answers.values()
    noise = answer.models.set_index("label")["E_noise"]
    # 5% of a measured energy, in each model by itself
    assert list(noise[["large", "slim"]]) == pytest.approx([np.log(1.05)] * 2, rel=0.2)
    assert np.isnan(noise["free"])


def test_use_is_not_compared_between_machines() -> None:
    use = {"inference/wh_per_image": 0.001}
    other = PROFILE | {"pepr.inference_hardware": "NVIDIA H200"}
    runs = [run("a", metrics=use, tags=PROFILE), run("b", metrics=use, tags=PROFILE)]
    (group,) = groups(material(runs))
    assert [row["wh_per_image"] for row in group["rows"]] == [0.001, 0.001]
    (group,) = groups(material([runs[0], run("b", metrics=use, tags=other)]))
    assert [row["wh_per_image"] for row in group["rows"]] == [None, None]
