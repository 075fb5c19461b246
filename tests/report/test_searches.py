"""What a report says about a frugal search."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest

from pepr_mlops.report.searches import sentence, sentences
from pepr_mlops.sweep.observed import Objective
from pepr_mlops.tracking.experiments import TAG_LIMIT
from pepr_mlops.tracking.searches import as_tag

RECORD = {
    "cost": "energy_wh",
    "decide_on": "val",
    "seed": 1,
    "prior": {"lidc": 0.5, "pneumonia": 0.5},
    "answer": ["ghostnet_100"],
    "holds": 0.914,
    "continues": False,
    "candidates": 131,
    "finished": 12,
    "spending": "energy_wh",
    "spent": 140.0,
    "exhaustive": 7000.0,
    "exhaustive_range": [6500.0, 8000.0],
}


@pytest.mark.parametrize(
    ("target", "changed", "says"),
    [
        (
            Objective(top=1),
            {},
            "a frugal search for the best by PePR-E, α = 1 (seed 1, decided on validation) trained "
            "12 of 131 models to the end for 140 Wh, 2.0% of about 7 kWh (6.5 kWh to 8 kWh) for "
            "all; it found ghostnet_100, which training all would confirm with an estimated chance "
            "of 91%; it learned from runs on lidc, pneumonia",
        ),
        (
            Objective(top=1, within=0.01),
            {"answer": [], "holds": None, "prior": None, "exhaustive": None, "continues": True},
            "a frugal search for the least energy of training with P at most 0.01 below the best "
            "(seed 1, decided on validation) has so far trained 12 of 131 models to the end for "
            "140 Wh; it found none yet",
        ),
        (
            Objective(top=7, alpha=2.0),
            {"answer": list("abcdefg"), "prior": None, "exhaustive": None, "holds": None},
            "a frugal search for the 7 best by PePR-E, α = 2 (seed 1, decided on validation) "
            "trained 12 of 131 models to the end for 140 Wh; it found a, b, c, d, e and 2 more",
        ),
    ],
)
def test_a_search_is_a_sentence(target: Objective, changed: dict[str, object], says: str) -> None:
    assert sentence({**RECORD, "objective": asdict(target), **changed}) == says


def test_the_record_of_another_version_is_named() -> None:
    record = {**RECORD, "objective": asdict(Objective(top=1))}
    good, bad = sentences({"one": record, "two": {"version": 9}})
    assert good == sentence(record)
    assert bad == "the record of the frugal search two cannot be read by this version"


def test_a_long_record_keeps_the_first_answers_and_families() -> None:
    record = {
        **RECORD,
        "prior_gain": [[0.1, 0.1, 0.1]] * 10,
        "answer": [f"a_model_with_a_long_name_{i:04d}" for i in range(1000)],
        "prior": {f"data set {i}": 0.001 * i for i in range(45)},
    }
    short = json.loads(as_tag(record))
    assert len(as_tag(record)) <= TAG_LIMIT
    assert short["answer"] == [*record["answer"][:40], "…"]
    assert list(short["prior"])[:2] == ["data set 44", "data set 43"]
    assert sum(short["prior"].values()) == pytest.approx(sum(record["prior"].values()))
    assert json.loads(as_tag(RECORD)) == RECORD
    gains = {**RECORD, "prior_gain": [[0.1, 0.1, 0.1]] * 1000}
    assert json.loads(as_tag(gains)) == {**RECORD, "prior_gain": None}
