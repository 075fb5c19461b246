"""The metadata of a card as Hugging Face has it, made by its own library."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from pepr_mlops.report.card import Card
from pepr_mlops.report.label import PRINT
from pepr_mlops.text import printable

# Metrics of the Hub, by our names of them.
_HUB = {"auc": "roc_auc", "macro_f1": "f1", "brier": "brier_score"}
_TASK = "image-classification"
_STARTS = {True: "fine-tuning", False: "pre-training"}


def metadata(card: Card) -> str:
    """The YAML in front of a card. What is not known is left out; `datasets` and `license` are,
    since a local name is none of the Hub's and a licence is for a person to choose."""
    from huggingface_hub import EvalResult, ModelCardData

    results = [EvalResult(**fields) for fields in _results(card)]
    known = [one.metric for one in card.test if one.value is not None]
    emissions = _emissions(card)
    found = ModelCardData(
        library_name="timm",
        pipeline_tag=_TASK,
        tags=[_TASK, "timm", "medical", "pepr"],
        metrics=[_HUB.get(name, name) for name in known] or None,
        model_name=printable(card.named),
        eval_results=results or None,
    )
    if emissions:
        found["co2_eq_emissions"] = emissions
    return found.to_yaml()


def _results(card: Card) -> Iterator[dict[str, Any]]:
    """A result for each metric on the test set and on each external set."""
    run = card.run
    data = printable(str(run["dataset"]))
    digest = run["data_digest"]
    for name, split, own in (
        (data, "test", card.test),
        *((printable(name), None, own) for name, own in card.external.items()),
    ):
        for one in own:
            if one.value is not None:
                yield {
                    "task_type": _TASK,
                    "dataset_type": name,
                    "dataset_name": name,
                    "dataset_split": split,
                    "dataset_revision": digest if split and isinstance(digest, str) else None,
                    "metric_type": _HUB.get(one.metric, one.metric),
                    "metric_name": one.metric.replace("_", " "),
                    "metric_value": one.value,
                }


def _emissions(card: Card) -> dict[str, Any]:
    """Grams of CO2e of the training, nothing where they are not known."""
    run, grams = card.run, card.emissions.grams
    if grams is None:
        return {}
    origin = PRINT.get(str(run["energy_source"]), "SOURCE NOT KNOWN")
    method = run.get("tags.pepr.energy_method")
    by = f" by {method}" if isinstance(method, str) else ""
    found = {
        "emissions": grams,
        "source": printable(f"energy {origin}{by}; {card.emissions.text}"),
        "training_type": None if pd.isna(run["pretrained"]) else _STARTS[bool(run["pretrained"])],
        "geographical_location": card.emissions.country,
        "hardware_used": _text(run["hardware"]),
    }
    return {name: value for name, value in found.items() if value is not None}


def _text(value: object) -> str | None:
    return printable(value) if isinstance(value, str) and value != "none" else None
