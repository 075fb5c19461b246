"""The paper's models can be exported, and predict the same then."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from export_models import FORMATS, measured

from pepr_mlops.paper_models import paper_models

RESULT = Path(__file__).parents[1] / "benchmarks" / "results" / "export_models.json"
# The largest difference of a probability, and how many of the 131 models have to be within it.
RULES = {"torch": (1e-4, 131), "mlflow": (1e-4, 125), "onnx": (1e-3, 125)}


def _exported(found: dict[str, Any], form: str) -> bool:
    return "difference" in found and found["difference"] <= RULES[form][0]


def test_the_paper_s_models_are_exported_or_it_is_known_why_not() -> None:
    models = json.loads(RESULT.read_text())["models"]
    paper = {row.model for row in paper_models()}
    assert models.keys() == paper
    assert set(FORMATS) == RULES.keys()
    for form, (_, least) in RULES.items():
        found = {model: row[form] for model, row in models.items()}
        failed = [model for model, row in found.items() if not _exported(row, form)]
        assert len(failed) <= len(paper) - least, (form, failed)
        for model, row in found.items():
            assert _exported(row, form) or row["reason"], (model, form)
            assert "spread" not in row or row["spread"] > 0.001, (model, form)


@pytest.mark.slow
@pytest.mark.parametrize(
    "model", ["mobilevitv2_050", "halonet26t", "crossvit_9_240", "swinv2_base_window8_256"]
)
def test_models_of_attention_are_exported(model: str) -> None:
    for form, found in measured(model, 1800).items():
        assert _exported(found, form), (form, found)
