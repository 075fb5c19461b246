"""Claims and heartbeats on the tracking server: which process may run a job."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pepr_mlops.errors import Claimed
from pepr_mlops.process import is_alive, this_process
from pepr_mlops.text import matches
from pepr_mlops.tracking import ownership
from pepr_mlops.tracking.ownership import Claim
from pepr_mlops.tracking.server import connect, experiment_names, translated_errors

if TYPE_CHECKING:
    from mlflow import MlflowClient

_ATTEMPT = "pepr.attempt."
# Tags of one attempt, which the next one does not inherit.
_OF_ATTEMPT = (
    "pepr.reason",
    "pepr.error",
    "pepr.not_stored",
    "pepr.model_missing",
    "pepr.keep_top",
)
_AGAIN_S = 2.0  # after a heartbeat that did not get through


@dataclass(frozen=True)
class Attempt:
    """One attempt at a job.

    `spec` is the job's fingerprint. `exclusive` raises `Claimed` where another process does the job
    or has done it; `stale_s` as in `ownership.Claim.is_alive`. `continues` is the run of an earlier
    attempt to continue, where there is a checkpoint of it; the training of this one is `saved`,
    too. A `probe` only finds what the job costs.
    """

    spec: str
    exclusive: bool = False
    stale_s: float = ownership.STALE_S
    continues: str | None = None
    saved: bool = False
    probe: bool = False


class Heartbeat(threading.Thread):
    """Tags a run as alive; `taken` once another process has closed or continued the run."""

    def __init__(self, client: MlflowClient, run_id: str) -> None:
        super().__init__(daemon=True)
        self._client, self._run_id = client, run_id
        self._ended = threading.Event()
        self.taken = False

    def run(self) -> None:
        pause_s = ownership.HEARTBEAT_S
        while not self._ended.wait(pause_s):
            try:
                with translated_errors(self._client):
                    self.poll()
                    if not self.taken:
                        self._client.set_tag(self._run_id, "pepr.heartbeat", str(now_ms()))
                pause_s = ownership.HEARTBEAT_S
            except Exception:  # the outbox reports a server that is away
                pause_s = min(_AGAIN_S, ownership.HEARTBEAT_S)

    def poll(self) -> None:
        """Ask the server whose run it is."""
        run = self._client.get_run(self._run_id)
        mine = run.data.tags.get("pepr.process") == this_process()
        self.taken = self.taken or run.info.status != "RUNNING" or not mine

    def stop(self) -> None:
        self._ended.set()


def now_ms() -> int:
    """Milliseconds since 1970, MLflow's unit of time."""
    return int(time.time() * 1000)


def hold(client: MlflowClient, run_id: str, job: Attempt, *, begun: bool) -> None:
    """Wait until the run may do its job, or withdraw it as `_withdraw` does and raise `Claimed`."""
    job_filter = f"tags.`pepr.spec` {matches(job.spec)}"
    while True:
        with translated_errors(client):
            now_s = time.time()  # before the server answers: an answer may take minutes
            runs = client.search_runs(list(experiment_names(client)), job_filter, max_results=1000)
            claims = [claim(run) for run in runs if "pepr.probe" not in run.data.tags]
            others = [c for c in claims if _takes_job(c, now_s, job.stale_s)]
            found = ownership.verdict(run_id, others)
            if found == ownership.HELD:
                client.set_tag(run_id, "pepr.claim", ownership.HELD)
                running = [c.run_id for c in claims if c.status == "RUNNING" and c not in others]
                _close_lost(client, running)
                return
            if found == "claimed":
                other = next(c for c in others if c.run_id != run_id)
                claimed = Claimed(f"sweep: run {other.run_id} does this job or has done it")
                _withdraw(client, run_id, claimed, begun=begun)
                raise claimed
        time.sleep(random.uniform(0.2, 0.6))


def _takes_job(run: Claim, now_s: float, stale_s: float) -> bool:
    """Whether a run has done its job or may be doing it."""
    return run.status == "FINISHED" or run.is_alive(now_s, stale_s, is_alive)


def _withdraw(client: MlflowClient, run_id: str, why: Claimed, *, begun: bool) -> None:
    """Delete a run that was `begun` for the job; close one that continues an earlier attempt, and
    any that the user may not delete."""
    from mlflow.exceptions import MlflowException

    if begun:
        try:
            client.delete_run(run_id)
            return
        except MlflowException as error:
            if error.error_code != "PERMISSION_DENIED":
                raise
        client.set_tag(run_id, "pepr.reason", why.reason)
        client.set_tag(run_id, "pepr.error", str(why))
    client.set_terminated(run_id, "KILLED")


def claim(run: Any) -> Claim:
    tags = run.data.tags
    beat = tags.get("pepr.heartbeat")
    return Claim(
        run.info.run_id,
        run.info.status,
        tags.get("pepr.claim"),
        tags.get("pepr.process"),
        None if beat is None else int(beat) / 1000,
    )


def close_lost(run_ids: Iterable[str], tracking_uri: str | None = None) -> None:
    """Mark runs FAILED whose process has vanished, unless they ended meanwhile. Their measurements
    stay."""
    client = connect(tracking_uri)
    with translated_errors(client):
        _close_lost(client, run_ids)


def _close_lost(client: MlflowClient, run_ids: Iterable[str]) -> None:
    for run_id in run_ids:
        if client.get_run(run_id).info.status != "RUNNING":
            continue
        client.set_tag(run_id, "pepr.reason", ownership.LOST)
        client.set_tag(run_id, "pepr.error", "its process vanished; it sent no heartbeat since")
        client.set_terminated(run_id, "FAILED")


def identify(fingerprints: Mapping[str, tuple[str, str]], tracking_uri: str | None = None) -> None:
    """Tag finished runs with their job: by run id its fingerprint and the digest of its data."""
    from mlflow.entities import RunTag

    client = connect(tracking_uri)
    with translated_errors(client):
        for run_id, (fingerprint, data_digest) in fingerprints.items():
            tags = {"pepr.spec": fingerprint, "pepr.data_digest": data_digest}
            client.log_batch(run_id, tags=[RunTag(k, v) for k, v in tags.items()])


def job_tags(job: Attempt) -> dict[str, str]:
    tags = {
        "pepr.spec": job.spec,
        "pepr.process": this_process(),
        "pepr.heartbeat": str(now_ms()),
        "pepr.attempts": "1",
    }
    if job.probe:
        tags["pepr.probe"] = "begun"
    return {**tags, "pepr.claim": ownership.REQUESTED} if job.exclusive else tags


def reopen(client: MlflowClient, job: Attempt, run_id: str) -> tuple[Any, int]:
    """Continue the run of an earlier attempt, which only one process can.

    MLflow takes a parameter once: of two processes that write the same attempt it refuses one.
    Returns MLflow's run as that attempt left it, and the number of this one.
    """
    from mlflow.exceptions import MlflowException

    with translated_errors(client):
        run = client.get_run(run_id)
        claims, attempt = [claim(run)], 2
        while f"{_ATTEMPT}{attempt}" in run.data.params:
            attempt += 1
        if attempt > 1 + int(run.data.tags.get("pepr.attempts", "1")):  # begun, but not tagged yet
            process, _, ns = run.data.params[f"{_ATTEMPT}{attempt - 1}"].rpartition(" ")
            claims.append(Claim(run_id, "RUNNING", None, process, int(ns) / 1e9))
        if any(_takes_job(c, time.time(), job.stale_s) for c in claims):
            raise Claimed(f"sweep: run {run_id} does this job or has done it")
        try:
            client.log_param(run_id, f"{_ATTEMPT}{attempt}", f"{this_process()} {time.time_ns()}")
        except MlflowException as error:
            if error.error_code != "INVALID_PARAMETER_VALUE":
                raise
            raise Claimed(f"sweep: run {run_id} is being continued by another process") from error
        resume(client, run_id, {**job_tags(job), "pepr.attempts": str(attempt)})
    return run, attempt


def resume(client: MlflowClient, run_id: str, tags: Mapping[str, str]) -> None:
    """Mark a run RUNNING again, with the tags of a new attempt and without those of the former."""
    from mlflow.entities import RunTag

    # The new process before RUNNING, or a sweep that reads in between sees the former process and
    # closes the run; the attempt after RUNNING, or the run seems free in between.
    first = [RunTag(k, v) for k, v in tags.items() if k != "pepr.attempts"]
    client.log_batch(run_id, tags=first)
    client.update_run(run_id, "RUNNING")
    if "pepr.attempts" in tags:
        client.set_tag(run_id, "pepr.attempts", tags["pepr.attempts"])
    there = client.get_run(run_id).data.tags
    for tag in _OF_ATTEMPT:
        if tag in there:
            client.delete_tag(run_id, tag)
