"""Training and use: which model is cheaper over years, and from how many images on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from made import frame, run
from test_inference import profiled

from pepr_mlops.comparison import Question, compare, lifetime_text
from pepr_mlops.comparison.answer import Answer, Terms, answer, choices
from pepr_mlops.comparison.answer_text import sentences
from pepr_mlops.comparison.inference import Use
from pepr_mlops.comparison.lifetime import Lifetime, envelope
from pepr_mlops.costs.carbon import Intensity
from pepr_mlops.errors import WrongUse

TERMS = Terms(margin=0.2, decide_on="test")  # of which all models here are


def _crossing(**given: Any) -> list[dict[str, Any]]:
    """`early` trains with 10 Wh and needs 2 mWh an image, `late` 30 Wh and 1 mWh: they cross at
    20 Wh / 1 mWh = 20,000 images."""
    tags = {"pepr.test_images": "100000", **given}
    return [
        profiled("early", 0.002, energy_wh=10.0, tags=tags),
        profiled("late", 0.001, energy_wh=30.0, performance=0.81, tags=tags),
    ]


def _answer(runs: list[dict[str, Any]], use: Use | None, **given: Any) -> Answer:
    question = Question(use=use, seed_sd=0.001, **given)
    return answer(choices(compare(frame(runs), question), question, "derma", TERMS))


def _lifetime(runs: list[dict[str, Any]], use: Use | None, **given: Any) -> Lifetime:
    found = _answer(runs, use, **given).lifetime
    assert found is not None
    return found


def test_the_envelope_has_the_cheapest_line_everywhere() -> None:
    assert envelope([10, 30], [2, 1]) == [(0, 0), (20, 1)]
    assert envelope([10, 30, 12], [2, 1, 3]) == [(0, 0), (20, 1)]  # the third is never the cheapest
    assert envelope([10, 20, 40], [3, 2, 1]) == [(0, 0), (10, 1), (20, 2)]
    assert envelope([10, 10], [2, 1]) == [(0, 1)]
    training, each = np.array([5.0, 9, 11, 30, 31]), np.array([7.0, 4, 3.9, 1, 2])
    steps = envelope(list(training), list(each))
    for images in np.linspace(0, 20, 101):
        at = [place for start, place in steps if start <= images][-1]
        costs = training + each * images
        assert costs[at] == pytest.approx(costs.min())


def test_with_few_images_the_model_that_trains_cheaply_wins() -> None:
    found = _answer(_crossing(), Use(1000, 5))  # 5,000 images: 20 and 35 Wh
    assert (found.choice, found.resource) == ("early", "lifetime_wh")
    assert found.lifetime is not None
    assert found.lifetime.models["total_wh"].tolist() == pytest.approx([20.0, 35.0])
    assert (found.lifetime.first, found.lifetime.winner) == ("early", "early")


def test_doubts_about_the_energy_of_use_are_doubts_about_the_choice() -> None:
    tags = {
        "pepr.inference_energy_source": "estimated",
        "pepr.inference_unstable": "wh_per_image 20.3%",
    }
    runs = [*_crossing(**tags), run("early", 1, energy_wh=10.0)]
    question = Question(use=Use(1000, 5), seed_sd=0.001)
    found = compare(frame(runs), question)
    flags = {"inference_estimated", "inference_unstable"}
    assert all(flags <= set(codes) for codes in found.runs["codes"])
    assert any("inference: 2 of 3 runs were profiled" in note for note in found.notes)
    assert any("the energy of use of 3 of 3 runs is estimated" in note for note in found.notes)
    without = compare(frame(runs), Question(seed_sd=0.001))
    assert not any(flags & set(codes) for codes in without.runs["codes"])


def test_with_many_images_use_changes_the_choice() -> None:
    found = _answer(_crossing(), Use(20_000, 5))  # 100,000 images: 210 and 130 Wh
    assert found.choice == "late"
    assert found.lifetime is not None
    assert (found.lifetime.first, found.lifetime.winner) == ("early", "late")
    (step,) = found.lifetime.steps
    assert step.images == pytest.approx(4000)  # a year, for five
    assert (step.dearer, step.cheaper) == ("early", "late")
    assert step.low < 4000 < step.high
    text = ". ".join(sentences(found))
    assert "has the lowest energy of training and use" in text
    assert "for 130 Wh of training and use and 30 Wh of training energy alone" in text
    assert "With 20,000 images a year for 5 years late takes 130 Wh of training and use" in text
    assert "early, the cheapest by training alone, takes 210 Wh" in text
    assert "From 4,000 images a year for 5 years on (95%" in text


def test_one_training_is_so_many_images() -> None:
    found = _lifetime(_crossing(), None)
    assert found.models.set_index("label")["images"].to_dict() == {
        "early": pytest.approx(5000),
        "late": pytest.approx(30000),
    }
    assert lifetime_text.sentences(found)[0] == (
        "One training of early = 5,000 images of use (10 Wh measured, 2 mWh an image measured)"
    )


def test_carbon_is_energy_times_intensity_times_pue() -> None:
    given = {"intensity": Intensity(200.0, "given")}
    found = _lifetime(_crossing(**{"pepr.pue": "1.5"}), Use(1000, 5), **given)
    assert found.models["gco2e"].tolist() == pytest.approx([20 * 0.2 * 1.5, 35 * 0.2 * 1.5])
    assert _lifetime(_crossing(), Use(1000, 5)).models["gco2e"].isna().all()


def test_models_within_the_errors_are_alike() -> None:
    close = [profiled("a", 0.001, energy_wh=10.0), profiled("b", 0.00101, energy_wh=10.0)]
    for made in close:
        made["tags"]["pepr.test_images"] = "100000"
    found = _lifetime(close, Use(10_000))
    assert found.surely is not None
    assert 0.4 < found.surely < 0.7
    assert "cannot be told apart" in lifetime_text.sentences(found)[0]
    apart = _lifetime(_crossing(), Use(1000, 5))
    assert apart.surely == 1.0


def test_an_estimate_widens_the_break_even() -> None:
    estimated = {
        "pepr.inference_energy_source": "estimated",
        "pepr.inference_energy_components": "cpu=estimated",
    }
    (sure,), (unsure,) = (_lifetime(_crossing(**tags), Use(1000)).steps for tags in ({}, estimated))
    assert unsure.high / unsure.low > sure.high / sure.low


def test_a_best_performer_that_was_not_profiled_keeps_its_place() -> None:
    """It decides who is good enough, and is no candidate by use."""
    best = run("best", performance=0.85, energy_wh=5.0, tags={"pepr.test_images": "100000"})
    found = _answer([*_crossing(), best], Use(20_000, 5))
    assert (found.best, found.choice) == ("best", "late")
    assert found.lifetime is not None
    assert found.lifetime.missing == ("best",)
    assert "1 more good-enough model was not profiled (best)" in ". ".join(sentences(found))


def test_without_a_profile_or_with_several_kinds_the_remedy_is_named() -> None:
    with pytest.raises(WrongUse, match=r"no run of derma was profiled.*`pepr profile RUN`"):
        _answer([run("a"), run("b")], Use(1000))
    mixed = [*_crossing()[:1], *_crossing(**{"pepr.inference_hardware": "H100"})[1:]]
    with pytest.raises(WrongUse, match=r"mix inference_hardware \(inference_hardware=AMD EPYC"):
        _answer(mixed, Use(1000))
    assert _answer(mixed, None).lifetime is None
    for wrong in ({"images_per_year": 0}, {"images_per_year": 1, "years": -1}):
        with pytest.raises(WrongUse, match="above 0"):
            Use(**wrong)
