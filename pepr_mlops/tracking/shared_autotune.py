"""Autotuned settings shared by runs: one run tries them, the others take what it found."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pepr_mlops.process import is_alive
from pepr_mlops.text import matches
from pepr_mlops.tracking import ownership
from pepr_mlops.tracking.claims import claim
from pepr_mlops.tracking.server import connect, experiment_names, translated_errors

if TYPE_CHECKING:
    from pepr_mlops.tracking.run import Run

KEY, _CLAIM = "pepr.trial", "pepr.trial_claim"
_FROM = "pepr.setting_from"


def shared_settings(
    run: Run, key: str, names: Sequence[str], note: Callable[[str], None]
) -> dict[str, Any] | None:
    """The settings `names` that another run with this `key` has found, logged in this one too.

    None where this run is to find them: it then logs each as the tag `pepr.NAME`, for which all
    others that share the key wait. Of several runs that begin at once one tries, as in
    `ownership.verdict`; one whose process vanished is not waited for. Raises `WorkFailed` when the
    server does not answer.
    """
    client = connect(run.uri)
    claimed = noted = False
    with translated_errors(client):
        client.set_tag(run.run_id, KEY, key)
        experiments, of_key = list(experiment_names(client)), f"tags.`{KEY}` {matches(key)}"
        while True:
            found = client.search_runs(
                experiments, of_key, max_results=1000, order_by=["attributes.start_time ASC"]
            )
            others = [other for other in found if other.info.run_id != run.run_id]
            for other in others:
                tags = other.data.tags
                if all(f"pepr.{name}" in tags for name in names):
                    if claimed:
                        client.delete_tag(run.run_id, _CLAIM)
                    # Before the settings, or others would take them for this run's own.
                    client.set_tag(run.run_id, _FROM, tags.get(_FROM, other.info.run_id))
                    for name in names:
                        client.set_tag(run.run_id, f"pepr.{name}", tags[f"pepr.{name}"])
                    return {name: tags[f"pepr.{name}"] for name in names}
            claims = [
                replace(claim(other), claim=other.data.tags[_CLAIM])
                for other in others
                if _CLAIM in other.data.tags
            ]
            alive = [c for c in claims if c.is_alive(time.time(), ownership.STALE_S, is_alive)]
            if not claimed and not alive:
                client.set_tag(run.run_id, _CLAIM, ownership.REQUESTED)
                claimed = True
                continue
            verdict = ownership.verdict(run.run_id, alive) if claimed else "claimed"
            if verdict == ownership.HELD:
                client.set_tag(run.run_id, _CLAIM, ownership.HELD)
                return None
            if claimed and verdict == "claimed":
                client.delete_tag(run.run_id, _CLAIM)  # it only reads now, or none wins
                claimed = False
            if not claimed and not noted:
                first = min(alive, key=lambda c: (c.claim != ownership.HELD, c.run_id))
                note(f"waits for run {first.run_id}, which tries settings for the same model")
                noted = True
            time.sleep(random.uniform(0.2, 0.6))
