"""Deletes the weights of runs that nobody needs any more."""

from __future__ import annotations

from collections.abc import Sequence

from pepr_mlops.tracking.read.weights import FOLDER, MISSING, TAG
from pepr_mlops.tracking.server import connect, enduring, translated_errors


def drop_weights(run_ids: Sequence[str], why: str, tracking_uri: str | None = None) -> int:
    """Delete the weights that these runs have on the server, and tag the runs with the reason; of
    how many runs. Raises `WorkFailed` where the server does not answer or refuses.

    The tags come first: an interruption may leave files that no run claims, never the reverse. They
    are put back where the deletion is refused.
    """
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    client, dropped = connect(tracking_uri), 0
    uri = str(client.tracking_uri)
    with enduring(), translated_errors(uri):
        for run_id in run_ids:
            run = client.get_run(run_id)
            tags, place = run.data.tags, run.info.artifact_uri
            if TAG not in tags:
                continue
            client.set_tag(run_id, MISSING, why)
            client.delete_tag(run_id, TAG)
            try:
                get_artifact_repository(place, tracking_uri=uri).delete_artifacts(FOLDER)
            except Exception:  # of the driver of any store
                client.set_tag(run_id, TAG, tags[TAG])
                if MISSING in tags:
                    client.set_tag(run_id, MISSING, tags[MISSING])
                else:
                    client.delete_tag(run_id, MISSING)
                raise
            dropped += 1
    return dropped
