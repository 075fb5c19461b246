"""What a frugal search believed, found and spent, in a sentence of a report. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pepr_mlops.comparison.words import amount, percent
from pepr_mlops.names import RESOURCES
from pepr_mlops.text import few

_OF_COLUMN = {one.column: one for one in RESOURCES.values()}
_SPLITS = {"val": "validation", "test": "test"}


def sentences(records: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
    """A sentence for each record of `read.load_searches`, without a full stop."""
    found = []
    for name, record in records.items():
        try:
            found.append(sentence(record))
        except (AttributeError, KeyError, TypeError, ValueError):  # another version's
            found.append(f"the record of the frugal search {name} cannot be read by this version")
    return tuple(found)


def sentence(record: Mapping[str, Any]) -> str:
    """The record of `search.Search.record` in words."""
    target, unit = record["objective"], "Wh" if record["spending"] == "energy_wh" else "s"
    cost, top = _OF_COLUMN[record["cost"]], target["top"]
    sought = (
        f"the {f'{top} ' if top > 1 else ''}best by PePR-{cost.letter}, α = {target['alpha']:g}"
    )
    if target["within"] is not None:
        sought = f"the least {cost.help} with P at most {target['within']:g} below the best"
    trained = "has so far trained" if record["continues"] else "trained"
    text = f"a frugal search for {sought} (seed {record['seed']}, decided on "
    text += f"{_SPLITS[record['decide_on']]}) {trained} "
    text += f"{record['finished']} of {record['candidates']} models to the end for "
    text += amount(record["spent"], unit)
    if record["exhaustive"]:
        low, high = (amount(end, unit) for end in record["exhaustive_range"])
        spread = "" if low == high else f" ({low} to {high})"
        share = record["spent"] / record["exhaustive"]
        text += f", {share:.1%} of about {amount(record['exhaustive'], unit)}{spread} for all"
    text += f"; it found {few(record['answer']) or 'none yet'}"
    if record["holds"] is not None:
        text += ", which training all would confirm with an estimated chance of "
        text += percent(record["holds"])
    if record["prior"]:
        text += f"; it learned from runs on {few(list(record['prior']))}"
    return text
