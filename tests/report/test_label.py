"""The energy label: letters that one can check by hand, and a file that every browser shows."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import energy_reference
import numpy as np
import pandas as pd
import pytest
from made import frame, run

from pepr_mlops.errors import WrongUse
from pepr_mlops.report import label
from pepr_mlops.report.label import Label, Reference, label_of, letter, references, svg

EIGHT = Reference("three models", "by hand", {"a": 4.0, "b": 8.0, "c": 90.0})
LIKE = {"pepr.hardware": "NVIDIA GeForce RTX 3090"}


def _label(images: int | None = 1000, found: Any = None, **changed: Any) -> Label:
    changed = {"epochs": 10, "image_size": 256, "precision": "fp32", **changed}
    made = run(**{**changed, "tags": {**LIKE, **changed.get("tags", {})}})
    return label_of(frame([made]).iloc[0], images, found or {"train": EIGHT}, made="on a day")


def _texts(found: Label) -> list[str]:
    return [
        str(e.text) for e in ElementTree.fromstring(svg(found)).iter() if e.tag.endswith("text")
    ]


def test_a_letter_is_a_factor_of_two_around_the_median() -> None:
    assert [letter(wh, EIGHT) for wh in (2, 4, 8, 16, 32)] == list("ABCDE")
    step = 2**0.5
    for low, high, below, above in (
        (8 / step**3, 8 / step**3, "A", "B"),
        (8 / step, 8 / step, "B", "C"),
        (8 * step, 8 * step, "C", "D"),
        (8 * step**3, 8 * step**3, "D", "E"),
    ):
        assert (letter(low * 0.999, EIGHT), letter(high * 1.001, EIGHT)) == (below, above)


def test_few_letters_change_without_a_tenth_of_the_reference() -> None:
    wh = references()["train"].wh
    names, rng = np.array(list(wh)), np.random.default_rng(0)
    full = Reference("all", "", wh)
    letters = [letter(wh[name], full) for name in names]
    changed = []
    for _ in range(500):
        left = rng.permutation(names)[: round(0.9 * len(names))]
        part = Reference("part", "", {name: wh[name] for name in left})
        changed.append(
            np.mean([letter(wh[n], part) != was for n, was in zip(names, letters, strict=True)])
        )
    assert np.mean(changed) < 0.03
    assert np.quantile(changed, 0.95) < 0.05
    assert max(changed) < 0.1


def test_all_letters_are_given_to_the_papers_models() -> None:
    reference = references()["train"]
    given = [letter(wh, reference) for wh in reference.wh.values()]
    assert {name: given.count(name) for name in "ABCDE"} == {
        "A": 2,
        "B": 30,
        "C": 52,
        "D": 27,
        "E": 14,
    }


def test_the_shipped_reference_is_what_the_released_results_give(paper_results: Path) -> None:
    made = energy_reference.reference(paper_results)
    assert json.loads(energy_reference.PLACE.read_text()) == made
    table = pd.read_csv(paper_results / "all_results.csv").set_index(["dataset", "model"])
    for model in ("ghostnet_100", "edgenext_base"):
        kwh = table.loc[("derma_pt", model), "energy"]
        assert made["train"]["wh"][model] == pytest.approx(kwh * 1e6 / (7007 * 10), rel=1e-5)
    # of six models all measurements are those on another data set
    assert len(made["train"]["wh"]) == 125


def test_the_number_is_wh_per_thousand_images_and_epoch() -> None:
    found = _label(images=2000, energy_wh=64.0, epochs=4).training
    assert found.wh == pytest.approx(64 / 2 / 4)
    assert (found.letter, found.origin, found.unlike) == ("C", "MEASURED", ())
    early = {"pepr.early_stop": "validation loss did not fall for 2 epochs: 2 of 4 epochs trained"}
    assert _label(images=2000, energy_wh=64.0, epochs=4, tags=early).training.wh == 16
    assert _label(images=2000, energy_wh=64.0, epochs=4, tags=early).training.letter == "D"


def test_other_conditions_than_those_of_the_reference_are_named() -> None:
    own = references()
    found = _label(found=own, tags={"pepr.hardware": "a CPU"}, image_size=32, precision="bf16")
    assert found.training.unlike == (
        "a CPU, not NVIDIA GeForce RTX 3090",
        "32 pixels, not 256 pixels",
        "bf16, not fp32",
    )
    text = " ".join(_texts(found))
    assert "Unlike the reference: 32 pixels, not 256 pixels" in text
    assert _label(found=own).training.unlike == ()


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"energy_wh": None}, "not measured"),
        ({"images": None}, "no letter: the number of training images is not known"),
        ({"energy_wh": 0.0}, "no letter: the energy is zero"),
        ({"tags": {"pepr.stopped": "budget_s"}}, "no letter: the number of epochs is not known"),
        ({"status": "KILLED"}, "no letter: the number of epochs is not known"),
    ],
)
def test_without_a_number_there_is_no_letter_but_a_reason(
    changed: dict[str, Any], why: str
) -> None:
    found = _label(**changed)
    assert (found.training.letter, found.training.missing) == (None, why)
    assert why in " ".join(_texts(found))


def test_the_use_has_a_letter_only_against_a_reference() -> None:
    metrics = {"inference/wh_per_image": 0.004}
    tags = {
        "pepr.inference_energy_source": "measured",
        "pepr.inference_hardware": "a phone",
        "pepr.inference_image_size": "256",
        "pepr.inference_values": "wh_per_image",
    }
    without = _label(metrics=metrics, tags=tags).use
    assert without.wh == pytest.approx(4)
    assert (without.letter, without.origin) == (None, "MEASURED")
    assert without.missing == "no letter: there is no measured reference"
    reference = {"use": Reference("ours", "", {"a": 8.0}, hardware="a clinic's PC")}
    use = _label(found=reference, metrics=metrics, tags=tags).use
    assert (use.letter, use.unlike) == ("B", ("a phone, not a clinic's PC",))
    smaller = {"use": Reference("ours", "", {"a": 8.0}, image_size="224")}
    unlike = _label(found=smaller, metrics=metrics, tags=tags).use.unlike
    assert unlike == ("256 pixels, not 224 pixels",)
    assert _label().use.missing == "not measured: pepr profile measures it"


def test_an_estimate_is_in_large_print() -> None:
    root = ElementTree.fromstring(svg(_label(tags={"pepr.energy_source": "estimated"})))
    sizes = {e.text: float(e.attrib["font-size"]) for e in root.iter() if e.tag.endswith("text")}
    assert sizes["Training: ESTIMATED"] >= 12
    assert min(sizes.values()) >= 8.5  # of 200 units: legible at 200 pixels


def test_what_people_named_is_text() -> None:
    hostile = "</text><script>alert(1)</script>&\"'\x07\n"
    found = svg(_label(model=hostile, dataset=hostile))
    root = ElementTree.fromstring(found)
    assert not [e for e in root.iter() if e.tag.endswith("script")]
    title = next(e for e in root.iter() if e.tag.endswith("title"))
    assert "<script>alert(1)</script>&\"'\\x07\\n on " in str(title.text)
    assert re.findall(r"https?://[^\"]+", found) == ["http://www.w3.org/2000/svg"]


def test_letters_are_legible_on_their_colours() -> None:
    """Contrast by WCAG 2.1 of the text's #111 with each arrow."""

    def luminance(colour: str) -> float:
        parts = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
        linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    for colour in label.COLOURS:
        assert (luminance(colour) + 0.05) / (luminance("#111111") + 0.05) > 4.5, colour


def test_a_reference_of_ones_own_replaces_what_it_has(tmp_path: Path) -> None:
    path = tmp_path / "ours.json"
    path.write_text('{"version": 1, "use": {"name": "ours", "source": "us", "wh": {"a": 0.5}}}')
    found = references(path)
    assert found["use"].wh == {"a": 0.5}
    assert found["train"] == references()["train"]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("{}", 'has no "version": 1'),
        ("[]", 'has no "version": 1'),
        ('{"version": 1, "use": {"name": "x", "source": "y", "wh": {}}}', "wh of use has nothing"),
        ('{"version": 1, "use": {"name": "x", "source": "y", "wh": {"a": 0}}}', "wh of use has 0"),
        ('{"version": 1, "drive": {"name": "x", "source": "y", "wh": {"a": 1}}}', "drive"),
        ("{", "is not JSON"),
    ],
)
def test_a_wrong_reference_is_one_line(content: str, why: str, tmp_path: Path) -> None:
    path = tmp_path / "ours.json"
    path.write_text(content)
    with pytest.raises(WrongUse, match="label_reference: ") as error:
        references(path)
    assert why in str(error.value)
    assert "\n" not in str(error.value)
    with pytest.raises(WrongUse, match="cannot be read"):
        references(tmp_path / "absent.json")
