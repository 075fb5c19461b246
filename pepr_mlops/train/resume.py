"""Whether a job resumes an interrupted training, and from what."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pepr_mlops import tracking
from pepr_mlops.costs.device import hardware_text
from pepr_mlops.costs.recorder import Recorder
from pepr_mlops.errors import WorkFailed, WrongUse, one_line
from pepr_mlops.names import PERFORMANCE
from pepr_mlops.spec import Job
from pepr_mlops.tracking.ownership import HEARTBEAT_S
from pepr_mlops.tracking.server import impatient
from pepr_mlops.train.checkpoint import Checkpoint, Saved, load, of_other_files


@dataclass(frozen=True)
class Resumption:
    """The folder in which a job saves its training, and the training it resumes; None if none."""

    job: Job
    folder: Path | None
    machine: str
    saved: Saved | None

    @classmethod
    def find(
        cls,
        job: Job,
        checkpoints: Path | None,
        opening: Mapping[str, str],
        recorder: Recorder,
        tracking_uri: str | None,
        note: Callable[[str], None],
        *,
        offline: bool,
    ) -> Resumption:
        """Read the folder `checkpoints`; `recorder` continues from the costs saved there.

        A training on other hardware, with other sensors or on another server is not resumed, since
        their costs do not add up, nor `offline` one that was begun on a server, or the other way
        round. Raises `WrongUse` for a folder that cannot be written.
        """
        machine = _machine(opening)
        if checkpoints is None:
            return cls(job, None, machine, None)
        folder = _writable(checkpoints) / job.fingerprint
        try:
            saved = load(folder)
            if saved is None:
                for other in of_other_files(folder, job.earlier_fingerprint):
                    note(
                        f"starts from the beginning: images or weights changed since {other} was "
                        "saved"
                    )
            else:
                if saved.hardware != machine:
                    raise ValueError(f"it was begun on {saved.hardware}")
                with impatient():
                    if not tracking.has_run(saved.run_id, tracking_uri, offline=offline):
                        where = "this disk" if offline else "the tracking server"
                        raise ValueError(f"{where} has no run {saved.run_id}")
                recorder.resume(saved.recorded)
        except ValueError as error:
            note(f"starts again: the checkpoint cannot be resumed ({one_line(error)})")
            saved = None
        return cls(job, folder, machine, saved)

    def checkpoint(self, run: tracking.Run, recorder: Recorder) -> Checkpoint | None:
        """Where this attempt is saved; logs first what earlier attempts could not."""
        if self.folder is None:
            return None
        checkpoint = Checkpoint(self.folder, run.name, self.machine, self.job.earlier_fingerprint)
        if self.saved is not None:
            run.tag(_unmeasured(self.saved, run.earlier))
            # The attempt may have ended between saving and logging.
            if not run.has(PERFORMANCE, self.saved.epoch):
                run.log(self.saved.metrics, self.saved.epoch)
            try:
                checkpoint.costs(recorder.state(), clean=False)
            except OSError as error:  # else the costs of this attempt could be lost unnoticed
                raise WorkFailed(
                    f"checkpoints: {self.folder} cannot be written ({error.strerror}); free "
                    "space there"
                ) from error
        return checkpoint

    def discard(self) -> None:
        """Delete what was saved."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)


def _writable(folder: Path) -> Path:
    """The folder, created if absent."""
    why = "no right to write"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
    except OSError as error:
        why = str(error.strerror)
    raise WrongUse(f"checkpoints: {folder} cannot be written ({why}); name another folder")


def _machine(opening: Mapping[str, str]) -> str:
    """What the costs of two attempts must share to add up."""
    counted = ["pepr.energy_model"]
    if "cpu=" in opening.get("pepr.energy_components", ""):
        counted.append("pepr.cpu")
    models = [opening[name] for name in counted if name in opening]
    return hardware_text(opening) + (f", energy of {', '.join(models)}" if models else "")


def _unmeasured(saved: Saved, earlier: Mapping[str, str]) -> dict[str, str]:
    """The tag for the most time that interrupted attempts may have worked without a record."""
    if saved.clean:
        return {}
    before = float(earlier.get("pepr.unmeasured_s", 0))
    silent = int(earlier.get("pepr.heartbeat", 0)) / 1000 - saved.at_s
    return {"pepr.unmeasured_s": f"{before + max(0.0, silent) + HEARTBEAT_S:.1f}"}
