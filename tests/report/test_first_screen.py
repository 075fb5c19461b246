"""The first screen in a browser: the verdict of each state for each reader, tiles and figure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
import pytest
from browser import BARE, opened, written
from made import DIGEST, accuracies, material, run, worse_in
from playwright.sync_api import Page, ViewportSize, expect

from pepr_mlops.comparison import Question, pepr
from pepr_mlops.comparison.answer import Answer, Terms
from pepr_mlops.comparison.inference import Use
from pepr_mlops.comparison.predictions import OfSplit, Predictions
from pepr_mlops.comparison.runs import Evidence
from pepr_mlops.comparison.words import amount
from pepr_mlops.report import page
from pepr_mlops.report.material import Material
from pepr_mlops.report.spending import Price

IMAGES = {"pepr.test_images": "4000"}
MARGIN = Terms(0.02)
EXACT = Question(draws=200, seed_sd=0.0001)
READERS = ("clinician", "researcher", "funder")
PHONE: ViewportSize = {"width": 390, "height": 844}
DESKTOP: ViewportSize = {"width": 1400, "height": 900}
LONG = "Ωλ-модель-" * 6  # 60 characters


@pytest.fixture(scope="module")
def tab(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """A page for all tests, which `show` gives the facts of each."""
    with opened(browser, written(good(), tmp_path_factory.mktemp("page"))) as shown:
        yield shown


def show(
    tab: Page, found: Material, settings: str = "", screen: ViewportSize = DESKTOP, **options: Any
) -> None:
    """The page of other facts, as it is with `settings` in its address."""
    tab.set_viewport_size(screen)
    facts = page.content(found, BARE, **options).data
    tab.evaluate(
        "([facts, settings]) => { page = facts; history.replaceState(null, '', '#' + settings);"
        " read(); update(); }",
        [facts, settings],
    )


def compared(
    wrong: Mapping[str, tuple[int, float]],
    terms: Terms = MARGIN,
    question: Question = EXACT,
    **changed: Any,
) -> Material:
    """Models that name so many of 4,000 images wrong, of the same images, and take so many Wh."""
    place = np.arange(4000)
    right = {model: place >= n for model, (n, _) in wrong.items()}
    runs = [
        run(model, performance=1 - n / 4000, energy_wh=wh, tags=IMAGES | changed.get("tags", {}))
        for model, (n, wh) in wrong.items()
    ]
    return material(runs, question=question, evidence=accuracies(right), terms=terms)


def good() -> Material:
    return compared({"large": (400, 50.0), "small": (420, 10.0)})


def tied() -> Material:
    models = {"large": (400, 50.0), "small": (420, 10.0), "slim": (416, 10.1), "tiny": (418, 10.2)}
    return compared(models)


def only_best() -> Material:
    return compared({"large": (400, 50.0), "small": (800, 10.0)})


def undecided() -> Material:
    """500 images, on which two models 2 points apart cannot be told."""
    return material([run("large", performance=0.8, energy_wh=50.0), run("small", performance=0.78)])


SAYS = {
    "good": (
        good,
        "Good enough",
        "small",
        {
            "clinician": "It finds the right diagnosis in 89.5% of test images, 0.5 points fewer "
            "than the most accurate model, and takes a fifth of the energy to train.",
            "researcher": "It reaches 89.5% test accuracy, 0.5 points below large, for a fifth of "
            "the training energy, and ranks 1 of 2 by PePR-E (0.895).",
            "funder": "It takes 10 Wh to train instead of 50 Wh, which saves 0.008 € in "
            "electricity, for an accuracy 0.5 points lower.",
        },
    ),
    "tied": (
        tied,
        "Good enough, tied",
        "small",
        {
            "clinician": "It finds the right diagnosis in 89.5% of test images, 0.5 points fewer "
            "than the most accurate model, and takes a fifth of the energy to train; slim and tiny "
            "are good enough, too, and may be as cheap.",
            "researcher": "It reaches 89.5% test accuracy, 0.5 points below large, for a fifth of "
            "the training energy; slim and tiny are good enough, too, and may be as cheap.",
            "funder": "It takes 10 Wh to train instead of 50 Wh, which saves 0.008 € in "
            "electricity, for an accuracy 0.5 points lower; slim and tiny are good enough, "
            "too, and may be as cheap.",
        },
    ),
    "only_best": (
        only_best,
        "No cheaper model is good enough",
        "large",
        {
            "clinician": "It finds the right diagnosis in 90.0% of test images, more than the "
            "other model, and takes 50 Wh to train; small would be good enough with a margin of "
            "{next} points.",
            "researcher": "It reaches 90.0% test accuracy, the higher of 2 models, and takes 50 Wh "
            "to train; small would be good enough with a margin of {next} points.",
            "funder": "It takes 50 Wh to train, 0.01 € in electricity, and is the best of all; "
            "small would be good enough with a margin of {next} points.",
        },
    ),
    "one": (
        lambda: compared({"alone": (400, 50.0)}),
        "One model so far",
        "alone",
        {
            "clinician": "It finds the right diagnosis in 90.0% of test images and takes 50 Wh to "
            "train.",
            "researcher": "It reaches 90.0% test accuracy and takes 50 Wh to train.",
            "funder": "It takes 50 Wh to train, 0.01 € in electricity, and finds the right "
            "diagnosis in 90.0% of test images.",
        },
    ),
}


@pytest.mark.parametrize("state", SAYS)
def test_each_state_has_a_sentence_for_each_reader(tab: Page, state: str) -> None:
    made, eyebrow, name, sentences = SAYS[state]
    found = made()
    (answer,) = found.answers.values()
    at_most = answer.models.set_index("label")["at_most"].get("small", 0.0)
    margin = f"{np.ceil(at_most * 1000) / 10:g}"
    show(tab, found, price=Price(0.2, "€"))
    assert tab.evaluate("answered(page.groups[0], settings).state") == state
    assert words(tab, ".eyebrow") == eyebrow
    assert words(tab, "h1") == name
    for reader, sentence in sentences.items():
        tab.locator(f"#reader input[value={reader}]").check()
        assert lead(tab) == sentence.format(next=margin)


def lead(tab: Page) -> str:
    """The sentence without the buttons that explain its terms."""
    return words(tab, ".lead").replace(" ?", "")


def words(tab: Page, selector: str) -> str:
    """The text of the first element, with usual spaces."""
    return tab.locator(selector).first.inner_text().replace("\u00a0", " ")


def test_an_open_verdict_says_how_likely_and_what_would_decide(tab: Page) -> None:
    found = undecided()
    (answer,) = found.answers.values()
    row = answer.row("small")
    show(tab, found)
    assert words(tab, ".eyebrow") == "Cannot tell yet"
    likely = answer.models.set_index("label")["likely"]
    name = "small" if likely["small"] >= 0.5 else "large"
    assert words(tab, "h1") == name
    sure = words(tab, ".sure")
    claim = (
        "to be at most 1 point below" if name == "small" else "that no model is more than 1 point"
    )
    assert sure.startswith(f"{100 * likely[name]:.2g}% likely {claim}")
    assert row["verdict"] == "cannot tell"


def test_an_estimate_is_called_one_before_its_number(tab: Page) -> None:
    source = {"pepr.energy_source": "estimated"}
    found = compared({"large": (400, 50.0), "small": (420, 10.0)}, tags=source)
    show(tab, found)
    assert words(tab, ".eyebrow") == "Good enough"
    assert lead(tab).endswith("and takes an estimated fifth of the energy to train.")
    assert "estimated, in 6 min" in words(tab, ".tiles")
    assert "training energy, estimated (log scale) →" in figure_text(tab)
    assert words(tab, "#hero figcaption").endswith(" Energy estimated.")
    tab.locator("#reader input[value=funder]").check()
    assert lead(tab).startswith("It takes an estimated 10 Wh to train instead of 50 Wh")


def figure_text(tab: Page) -> str:
    return " ".join(tab.locator("#hero svg text").all_text_contents())


def test_validation_chooses_and_the_test_set_reports(tab: Page) -> None:
    place = np.arange(4000)
    wrong = {"large": (400, 360), "small": (420, 400)}  # of 4,000 test and of 4,000 val images
    runs, predictions = [], {}
    for i, (model, counts) in enumerate(wrong.items()):
        test, val = (
            OfSplit(np.zeros(4000, int), np.column_stack([1 - p, p]))
            for p in (np.where(place >= n, 0.1, 0.8) for n in counts)
        )
        predictions[f"run{i}"] = Predictions("binary-class", ("a", "b"), test, val, DIGEST)
        p_test, p_val = (1 - n / 4000 for n in counts)
        metrics = {"val/accuracy": p_val}
        runs.append(run(model, performance=p_test, energy_wh=50 - 40 * i, metrics=metrics))
    evidence = Evidence(predictions=predictions)
    found = material(runs, question=EXACT, evidence=evidence, terms=MARGIN)
    show(tab, found)
    assert lead(tab) == (
        "It finds the right diagnosis in 89.5% of test images and takes a fifth of the energy of "
        "large, which is 1.0 point better on validation."
    )
    assert "Validation chose it; the test set only says how good it is." in words(tab, ".sure")
    assert words(tab, "#hero figcaption").startswith("Higher is more accurate on validation")
    assert "↑ accuracy on validation" in figure_text(tab)
    assert tab.evaluate(
        "document.querySelector('#hero .plot').data.map((t) => [...t.y]).flat()"
    ) == [
        pytest.approx(0.91),
        pytest.approx(0.9),
    ]


def test_without_a_known_error_nothing_is_shown_to_be_good(tab: Page) -> None:
    untested = {"pepr.test_images": None}
    found = material([run("a", tags=untested), run("b", energy_wh=50.0, tags=untested)])
    show(tab, found)
    assert words(tab, ".eyebrow") == "Cannot tell yet"
    assert "How far it may be off is not known" in words(tab, ".sure")
    assert "no interval" in words(tab, ".tiles")
    assert "null" not in words(tab, "#answer")


def test_a_model_that_has_learnt_nothing_is_not_recommended_in_green(tab: Page) -> None:
    # both name class 0 for each of 4,000 images, a tenth of which are of class 1
    labels = (np.arange(4000) % 10 == 0).astype(int)
    split = OfSplit(labels, np.tile([0.9, 0.1], (4000, 1)))
    same = Predictions("binary-class", ("a", "b"), split, None, DIGEST)
    runs = [run(n, performance=0.9, energy_wh=wh, tags=IMAGES) for n, wh in (("a", 50), ("b", 10))]
    evidence = Evidence(predictions={"run0": same, "run1": same})
    found = material(runs, question=EXACT, evidence=evidence, terms=MARGIN)
    show(tab, found)
    assert words(tab, ".eyebrow.doubt") == "Has learnt nothing"
    assert words(tab, ".lead") == (
        "In at least one run it names one class for every image, so that it reaches 90.0% test "
        "accuracy without having learnt anything. Train it longer or with other settings before "
        "you choose."
    )
    assert tab.evaluate("short(answered(page.groups[0], settings))") == "b has learnt nothing"


def test_a_metric_that_is_no_share_has_no_points_and_no_percent(tab: Page) -> None:
    auc = {"pepr.performance": "test/auc", "pepr.test_images": None}
    runs = [
        run("large", performance=0.95, energy_wh=50.0, metrics={"test/auc": 0.95}, tags=auc),
        run("small", performance=0.94, energy_wh=10.0, metrics={"test/auc": 0.94}, tags=auc),
    ]
    found = material(runs, terms=Terms(0.02))
    show(tab, found)
    assert lead(tab) == (
        "It may be good enough: it reaches an AUC of 0.940, where 0.5 is chance and 1 is "
        "perfect, 0.010 less than the best model, and takes a fifth of the energy to train."
    )
    caption = words(tab, "#hero figcaption")
    assert caption.endswith("Shaded: at most 0.02 below the best.")
    ticks = tab.locator("#hero .ytick text").all_text_contents()
    assert all("%" not in tick for tick in ticks)


def test_another_cost_than_energy_has_its_own_words(tab: Page) -> None:
    runs = [
        run("large", performance=0.8, memory_gb=8.0, tags={"pepr.test_images": None}),
        run("small", performance=0.795, memory_gb=2.0, tags={"pepr.test_images": None}),
    ]
    found = material(runs, question=Question(resources=("M",), draws=50))
    show(tab, found, "reader=funder")
    assert "It may be good enough: it needs 2 GB of memory" in lead(tab)
    assert "memory" in figure_text(tab)
    tab.locator("#reader input[value=clinician]").check()
    assert lead(tab).endswith("and needs a quarter of the memory.")


def test_use_is_part_of_the_cost(tab: Page) -> None:
    profile = IMAGES | {
        "pepr.inference_values": "wh_per_image",
        "pepr.inference_hardware": "AMD EPYC",
        "pepr.inference_energy_source": "measured",
        "pepr.inference_energy_components": "cpu=measured",
    }
    runs = [
        run("early", energy_wh=10.0, metrics={"inference/wh_per_image": 0.002}, tags=profile),
        run("late", energy_wh=30.0, metrics={"inference/wh_per_image": 0.001}, tags=profile),
    ]
    question = Question(draws=200, seed_sd=0.001, use=Use(10_000, 5))
    found = material(runs, question=question, terms=Terms(0.2, decide_on="test"))
    show(tab, found)
    # 10 Wh + 50,000 images of 2 mWh = 110 Wh, and 30 Wh + 50,000 of 1 mWh = 80 Wh
    assert words(tab, "h1") == "late"
    assert "80 Wh" in words(tab, ".tiles")
    assert "10,000 images a year for 5 years" in words(tab, ".tiles")
    tab.evaluate("change({images: 1000})")
    # 10 + 5,000 * 0.002 = 20 Wh, and 30 + 5,000 * 0.001 = 35 Wh
    assert words(tab, "h1") == "early"
    assert "20 Wh" in words(tab, ".tiles")


def test_no_cost_is_made_up(tab: Page) -> None:
    show(tab, good())
    tab.evaluate("change({images: 1000})")  # no model was profiled
    assert words(tab, "h1") == "No model"
    assert lead(tab) == (
        "No model with a known energy is good enough; large performs best: it finds the right "
        "diagnosis in 90.0% of test images."
    )
    assert "not known" in words(tab, ".tiles")
    caption = words(tab, "#hero figcaption")
    assert caption == "No model has a known energy of training and use."
    assert tab.locator("#hero .plot").is_hidden()


def test_limits_leave_models_out(tab: Page) -> None:
    found = only_best()
    show(tab, found, 'limits={"E":20}')
    assert words(tab, "h1") == "No model"
    assert lead(tab) == (
        "No model within your limits is good enough; large performs best: it finds the right "
        "diagnosis in 90.0% of test images and takes 50 Wh to train."
    )
    show(tab, good(), 'limits={"E":20}')
    assert words(tab, "h1") == "small"
    assert "Only models within your limits were considered." in words(tab, ".sure")
    show(tab, found, 'limits={"E":5}')
    assert "There is no such model." in words(tab, ".sure")


PARTS = {  # the best takes so many times the energy of the choice
    1.0: "about as much energy",
    1.04: "about as much energy",
    1.5: "67% of the energy",
    1.98: "half the energy",
    2.5: "40% of the energy",
    2.88: "a third of the energy",
    5.6: "18% of the energy",
    6.1: "a sixth of the energy",
    8.0: "an eighth of the energy",
    12.5: "8% of the energy",
    0.5: "2 times the energy",
}
AMOUNTS = {
    ("17.54", "Wh"): "17.5 Wh",
    ("0.0123", "Wh"): "12.3 mWh",
    ("999.9", "Wh"): "1 kWh",
    ("1234567", "Wh"): "1.23 MWh",
    ("0", "Wh"): "0 Wh",
    ("90", "s"): "90 s",
    ("600", "s"): "10 min",
    ("9000", "s"): "2.5 h",
    ("0.25", "GB"): "250 MB",
    ("12345", "images"): "12,300 images",
}


def test_numbers_are_rounded_and_fractions_named_only_where_they_are_close(tab: Page) -> None:
    show(tab, good())
    for times, words in PARTS.items():
        assert tab.evaluate("(times) => part(times, 'energy', false)", times) == words
    for (value, unit), words in AMOUNTS.items():
        assert tab.evaluate("([v, u]) => amount(Number(v), u)", [value, unit]) == words
        assert amount(float(value), unit) == words
    # the half width of an interval, as a share, and the accuracy that it justifies
    for half, words in {0.06: "86%", 0.015: "85.8%", 0.002: "85.83%"}.items():
        shown = tab.evaluate(
            "(half) => performanceWords(page.groups[0].metric, 0.8583, decimalsOf(0.5 - half, "
            "0.5 + half))",
            half,
        )
        assert shown == words


def test_the_page_answers_as_the_library_does(tab: Page) -> None:
    models = {f"m{i}": (400 + 17 * i % 230, 10.0 + 7 * i) for i in range(12)}
    show(tab, compared(models, Terms(0.01)))
    for margin in (0.01, 0.02, 0.035, 0.005):
        (answer,) = compared(models, Terms(margin)).answers.values()
        tab.evaluate("(margin) => change({margin})", margin)
        assert_same(tab, answer)
        share = answer.savings.get("E")
        if share is not None and answer.choice != answer.best:
            shown = tab.evaluate("answered(page.groups[0], settings).saving")
            assert shown["amount"] == pytest.approx(share.amount)
            assert shown["times"] == pytest.approx(share.times)


def assert_same(tab: Page, answer: Answer) -> None:
    shown = tab.evaluate(
        "(({choice, best, counts}) => [choice && choice.label, best.label, counts.good, "
        "counts.open, counts.bad])(answered(page.groups[0], settings))"
    )
    verdicts = ("good enough", "cannot tell", "not good enough")
    assert shown == [answer.choice, answer.best, *(len(answer.of(v)) for v in verdicts)]


def test_alpha_and_weights_score_as_the_library_does(tab: Page) -> None:
    p, r = [0.6, 0.8, 0.7], {"E": [0.0, 0.25, 1.0], "M": [0.0, 1.0, 0.25]}
    runs = [
        run(name, performance=p[i], energy_wh=10 + 40 * r["E"][i], memory_gb=2 + 4 * r["M"][i])
        for i, name in enumerate("abc")
    ]
    question = Question(resources=("E", "M"), weights=(0.5, 0.5), draws=20)
    show(tab, material(runs, question=question))
    tab.evaluate("change({alpha: 3, weights: {E: 1, M: 3}})")
    scores = pepr.pepr(pd.Series(p), pd.DataFrame(r), weights=(0.25, 0.75), alpha=3)
    shown = tab.evaluate(
        "Object.fromEntries(answered(page.groups[0], settings).rows"
        ".map((row) => [row.label, row.score]))"
    )
    assert shown == pytest.approx(dict(zip("abc", scores, strict=True)))


def test_the_readers_setting_is_in_the_address_and_changes_no_fact(tab: Page) -> None:
    show(tab, good(), screen=DESKTOP)
    numbers = sorted(tab.locator(".tiles .value").all_inner_texts())
    tab.locator("#reader input[value=clinician]").focus()
    tab.keyboard.press("ArrowRight")
    tab.keyboard.press("ArrowRight")
    assert tab.evaluate("location.hash") == "#reader=funder"
    assert tab.evaluate("document.activeElement.value") == "funder"
    assert sorted(tab.locator(".tiles .value").all_inner_texts()) == numbers
    assert tab.locator(".tile dt").first.inner_text() == "Saved"
    tab.evaluate("change({margin: 0.05})")
    tab.locator(".changed").click()
    assert tab.evaluate("location.hash") == "#reader=funder&margin=0.05"
    assert tab.evaluate("document.activeElement.id") == "what-if"


def test_groups_have_a_switch_and_a_reason(tab: Page) -> None:
    runs = [
        *(run(name, performance=0.8) for name in ("a", "b", "c")),
        *(run(name, performance=0.6, pretrained=False) for name in ("a", "b")),
    ]
    found = material(runs, question=Question(mixed="stratify", draws=20))
    show(tab, found)
    names = tab.locator("#group b").all_inner_texts()
    assert names == ["pretrained", "from scratch"]
    assert tab.locator("#group label").nth(1).inner_text().split("\n")[1] == "2 models"
    assert "differ in pretraining" in tab.locator("#groups .why").inner_text()
    assert tab.locator("#about").text_content() == "derma: 3 fine-tuned models on DermaMNIST"
    tab.locator("#group input").nth(1).check()
    about = "derma: 2 models trained from scratch on DermaMNIST"
    assert tab.locator("#about").text_content() == about
    assert "60%" in words(tab, ".tiles")
    assert tab.evaluate("location.hash").startswith("#group=")


@pytest.mark.parametrize("screen", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("made", [good, tied, only_best, undecided])
def test_the_first_screen_needs_no_scrolling(tab: Page, screen: Any, made: Any) -> None:
    show(tab, made(), price=Price(0.2, "€"), screen=screen)
    height = screen["height"]
    for reader in READERS:
        tab.locator(f"#reader input[value={reader}]").check()
        for part in ("#answer", "#hero"):
            box = tab.locator(part).bounding_box()
            assert box is not None
            assert box["y"] + box["height"] <= height - 30, (part, reader)


def test_long_names_break_nothing(tab: Page) -> None:
    names = {f"{LONG}{i}<b>x</b>": (400 + 10 * i, 50.0 - 20 * i) for i in range(2)}
    show(tab, compared(names), screen=PHONE)
    assert tab.evaluate("document.documentElement.scrollWidth") == 390
    assert words(tab, "h1") in names
    assert tab.locator("#answer b b, #hero svg b").count() == 0
    assert "…" in figure_text(tab)


def test_dots_show_which_models_are_good_enough_and_a_key_says_how(tab: Page) -> None:
    models = {"large": (400, 50.0), "small": (420, 10.0)}  # 0.5 points apart: marked
    models |= {
        "slim": (416, 20.0),
        "near": (480, 30.0),
        "poor": (560, 40.0),
    }  # 0.4, 2, 4 points
    show(tab, compared(models), screen=DESKTOP)
    tab.wait_for_function("() => document.querySelector('#hero .plot').data[1].y.length === 1")
    dots = tab.evaluate(
        """document.querySelector('#hero .plot').data.slice(0, 3)
            .map((t) => [t.marker.symbol, t.text.map((words) => words.match(/<b>(.*?)</)[1])])"""
    )
    assert dots == [["circle", ["slim"]], ["circle-open", ["near"]], ["circle", ["poor"]]]
    key = tab.locator("#hero .key").inner_text().split("   ")
    assert key == ["● good enough", "○ cannot tell", "· not good enough"]
    show(tab, good(), screen=DESKTOP)
    assert tab.locator("#hero .key").inner_text() == ""


def test_models_far_below_are_cut_off_and_counted(tab: Page) -> None:
    models = {f"m{i}": (400 + 10 * i, 10.0 + i) for i in range(8)} | {"worst": (3600, 20.0)}
    show(tab, compared(models), screen=DESKTOP)
    expect(tab.locator("#hero .scatterlayer .point")).to_have_count(8)
    assert tab.locator("#hero .missing").inner_text().startswith("1 model below ")
    assert "8 models" in str(tab.locator("#hero .plot").get_attribute("aria-label"))


def test_a_click_opens_the_run(tab: Page) -> None:
    found = material([run("a"), run("b", energy_wh=50.0)], run_page="http://127.0.0.1:9/#/runs/")
    show(tab, found)
    tab.evaluate("window.open = (address) => { window.opened = address; }")
    tab.evaluate(
        "document.querySelector('#hero .plot').emit('plotly_click', {points: [{id: 'run1'}]})"
    )
    assert tab.evaluate("window.opened") == "http://127.0.0.1:9/#/runs/run1"


def test_a_worse_subgroup_keeps_the_answer(tab: Page) -> None:
    show(tab, worse_in("F"))
    assert words(tab, "h1") == "small"
