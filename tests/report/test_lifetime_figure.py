"""The figure of training and use, and the sentences of a report."""

from __future__ import annotations

import pytest
from made import frame, material, run

from pepr_mlops.comparison import Question
from pepr_mlops.comparison.answer import Terms
from pepr_mlops.comparison.inference import Use
from pepr_mlops.report import summary
from pepr_mlops.report.figures import lifetime
from pepr_mlops.report.material import Material, NothingToDraw

PROFILE = {
    "pepr.inference_values": "wh_per_image",
    "pepr.inference_hardware": "AMD EPYC",
    "pepr.inference_energy_source": "measured",
    "pepr.inference_energy_components": "cpu=measured",
    "pepr.test_images": "100000",
}


def _material(use: Use | None) -> Material:
    """Two models that cross at 20,000 images."""
    runs = [
        run("early", energy_wh=10.0, metrics={"inference/wh_per_image": 0.002}, tags=PROFILE),
        run("late", energy_wh=30.0, metrics={"inference/wh_per_image": 0.001}, tags=PROFILE),
    ]
    question = Question(draws=200, seed_sd=0.001, use=use)
    return material(runs, question=question, terms=Terms(0.2, decide_on="test"))


def test_lines_cross_where_the_sentence_says() -> None:
    found = lifetime.panel(_material(Use(20_000, 5)), lifetime.Options(), "derma")
    assert "From 4,000 images a year for 5 years on" in found.caption
    crossing = [line.x0 for line in found.figure.layout.shapes if line.x0 == line.x1]
    assert crossing == [pytest.approx(4000), pytest.approx(20_000)]
    assert found.figure.layout.xaxis.type == found.figure.layout.yaxis.type == "log"
    wide = found.table.pivot_table(index="images_per_year", columns="model", values="total_wh")
    cheaper = wide["late"] < wide["early"]
    assert (cheaper == (wide.index > 4000)).all()
    assert set(found.table["use_source"]) == {"measured"}


def test_without_images_a_year_one_training_is_still_stated() -> None:
    found = lifetime.panel(_material(None), lifetime.Options(), "derma")
    assert found.caption.startswith("From 20,000 images a year for 1 year on")
    assert "One training of early = 5,000 images of use" in found.reading
    reasons = summary.answer(_material(None), "derma").reasons
    assert any("One training of early = 5,000 images" in text for text in reasons)


def test_without_a_profile_there_is_nothing_to_draw() -> None:
    with pytest.raises(NothingToDraw, match="no good-enough model was profiled"):
        lifetime.panel(material([run("a"), run("b")]), lifetime.Options(), "derma")
    assert "inference_hardware" in frame([run("a")])
