"""What a frugal search believed, found and spent, in a sentence of a report. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pepr_mlops.comparison.words import amount


def sentence(record: Mapping[str, Any]) -> str:
    """The record of `search.Search.record` in words, without a full stop."""
    target, unit = record["objective"], "Wh" if record["spending"] == "energy_wh" else "s"
    sought = f"the {target['top']} best by PePR with {record['cost']}, α = {target['alpha']:g}"
    if target["within"] is not None:
        sought = f"the least {record['cost']} with P at most {target['within']:g} below the best"
    text = f"a frugal search for {sought} (decided on {record['decide_on']}) trained "
    text += f"{record['finished']} of {record['candidates']} models to the end for "
    text += amount(record["spent"], unit)
    if record["exhaustive"]:
        low, high = (amount(end, unit) for end in record["exhaustive_range"])
        spread = "" if low == high else f" ({low} to {high})"
        share = record["spent"] / record["exhaustive"]
        text += f", {share:.1%} of about {amount(record['exhaustive'], unit)}{spread} for all"
    text += f"; it found {', '.join(record['answer']) or 'none yet'}"
    if record["holds"] is not None:
        text += ", which training all would confirm with an estimated chance of "
        text += f"{record['holds']:.0%}"
    if record["prior"]:
        text += f"; it learned from runs on {', '.join(record['prior'])}"
    return text
