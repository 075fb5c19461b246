"""One choice of settings for all runs that would try the same: made by one, found by the others."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pepr_mlops.process import is_alive
from pepr_mlops.text import matches
from pepr_mlops.tracking import ownership
from pepr_mlops.tracking.claims import claim, experiment_ids
from pepr_mlops.tracking.server import connect, told

if TYPE_CHECKING:
    from pepr_mlops.tracking.run import Run

KEY, _CLAIM = "pepr.trial", "pepr.trial_claim"
_FROM = "pepr.setting_from"


def choice_of_others(
    run: Run, key: str, names: Sequence[str], note: Callable[[str], None]
) -> dict[str, Any] | None:
    """The settings `names` that another run with this `key` has chosen, logged in this one too.

    None where this run is to choose: it then logs each as the tag `pepr.NAME`, which all others
    that share the key wait for. Of several runs that begin at once one chooses, as in
    `ownership.verdict`; one whose process vanished is not waited for. Raises `WorkFailed` when the
    server does not answer.
    """
    client = connect(run.uri)
    wanting = noted = False
    with told(run.uri):
        client.set_tag(run.run_id, KEY, key)
        experiments, of_key = experiment_ids(client), f"tags.`{KEY}` {matches(key)}"
        while True:
            found = client.search_runs(
                experiments, of_key, max_results=1000, order_by=["attributes.start_time ASC"]
            )
            others = [other for other in found if other.info.run_id != run.run_id]
            for other in others:
                tags = other.data.tags
                if all(f"pepr.{name}" in tags for name in names):
                    if wanting:
                        client.delete_tag(run.run_id, _CLAIM)
                    chosen = {name: tags[f"pepr.{name}"] for name in names}
                    # Before the settings, or others would take them for this run's own choice.
                    client.set_tag(run.run_id, _FROM, tags.get(_FROM, other.info.run_id))
                    for name, value in chosen.items():
                        client.set_tag(run.run_id, f"pepr.{name}", value)
                    return chosen
            claims = [
                replace(claim(other), claim=other.data.tags[_CLAIM])
                for other in others
                if _CLAIM in other.data.tags
            ]
            alive = [c for c in claims if c.lives(time.time(), ownership.STALE_S, is_alive)]
            if not wanting and not alive:
                client.set_tag(run.run_id, _CLAIM, ownership.WANTED)
                wanting = True
                continue
            verdict = ownership.verdict(run.run_id, alive) if wanting else "claimed"
            if verdict == ownership.HELD:
                client.set_tag(run.run_id, _CLAIM, ownership.HELD)
                return None
            if wanting and verdict == "claimed":
                client.delete_tag(run.run_id, _CLAIM)  # it only reads now, or none wins
                wanting = False
            if not wanting and not noted:
                first = min(alive, key=lambda c: (c.claim != ownership.HELD, c.run_id))
                note(f"waits for run {first.run_id}, which tries settings for the same model")
                noted = True
            time.sleep(random.uniform(0.2, 0.6))
