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

    What it believed of gains is left out where MLflow would not take a text so long. Raises
    `WorkFailed` when the server cannot be reached.
    """
    text = json.dumps(record, separators=(",", ":"))
    if len(text) > TAG_LIMIT:
        text = json.dumps({**record, "prior_gain": None}, separators=(",", ":"))
    client = connect(tracking_uri)
    with translated_errors(client):
        client.set_experiment_tag(experiment_id(client, experiment), SEARCH_TAG + name, text)
