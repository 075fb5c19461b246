"""What frugal searches believed and found: a tag of their experiment for each, in JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pepr_mlops.tracking.experiments import TAG_LIMIT, experiment_id
from pepr_mlops.tracking.server import connect, translated_errors

SEARCH_TAG = "pepr.search."


def log_search(
    experiment: str, name: str, record: Mapping[str, Any], tracking_uri: str | None = None
) -> None:
    """Write the record of the search of this name, in place of its earlier one.

    Where MLflow would not take a text so long, what it believed of gains is left out, and then all
    but the first answers and families of data. Raises `WorkFailed` when the server cannot be
    reached.
    """
    client = connect(tracking_uri)
    with translated_errors(client):
        client.set_experiment_tag(
            experiment_id(client, experiment), SEARCH_TAG + name, as_tag(record)
        )


def as_tag(record: Mapping[str, Any]) -> str:
    """The record in JSON, of at most `TAG_LIMIT` characters."""
    text = json.dumps(record, separators=(",", ":"))
    for most in (10**6, 40, 10, 3):
        if len(text) <= TAG_LIMIT:
            break
        text = json.dumps(_shortened(record, most), separators=(",", ":"))
    return text


def _shortened(record: Mapping[str, Any], most: int) -> dict[str, Any]:
    answer = list(record["answer"])
    shares = sorted((record["prior"] or {}).items(), key=lambda of: -of[1])
    if len(answer) > most:
        answer = [*answer[:most], "…"]
    if len(shares) > most:
        shares = [*shares[:most], ("…", round(sum(share for _, share in shares[most:]), 4))]
    return {**record, "prior_gain": None, "answer": answer, "prior": dict(shares) or None}
