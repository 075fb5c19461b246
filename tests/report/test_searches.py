"""What a report says about a frugal search."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from pepr_mlops.report.searches import sentence
from pepr_mlops.sweep.observed import Objective

RECORD = {
    "cost": "energy_wh",
    "decide_on": "val",
    "prior": {"lidc": 0.5, "pneumonia": 0.5},
    "answer": ["ghostnet_100"],
    "holds": 0.914,
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
            "a frugal search for the 1 best by PePR with energy_wh, α = 1 (decided on val) trained "
            "12 of 131 models to the end for 140 Wh, 2.0% of about 7 kWh (6.5 kWh to 8 kWh) for "
            "all; it found ghostnet_100, which training all would confirm with an estimated chance "
            "of 91%; it learned from runs on lidc, pneumonia",
        ),
        (
            Objective(top=1, within=0.01),
            {"answer": [], "holds": None, "prior": None, "exhaustive": None},
            "a frugal search for the least energy_wh with P at most 0.01 below the best (decided on"
            " val) trained 12 of 131 models to the end for 140 Wh; it found none yet",
        ),
    ],
)
def test_a_search_is_a_sentence(target: Objective, changed: dict[str, object], says: str) -> None:
    assert sentence({**RECORD, "objective": asdict(target), **changed}) == says
