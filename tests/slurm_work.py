"""Work for jobs of Slurm, in a module that they import within a moment."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pepr_mlops.errors import TimeLimit
from pepr_mlops.sweep.engine import Report, Task
from pepr_mlops.sweep.worker import _end_with


@dataclass(frozen=True)
class Acting:
    """Does what `acts` has for the seed of a task, in the first start of its job, and finishes at
    once in later ones. It writes to `folder` which job it was in."""

    folder: Path
    checkpoints: Path
    acts: Mapping[int, str]

    def __call__(self, task: Task, say: Callable[[str], None]) -> Report:
        _end_with("")  # as `Worker`
        seed, restarts = task.spec.seed, int(os.environ.get("SLURM_RESTART_COUNT", "0"))
        here = {name: os.environ[f"SLURM_{name}"] for name in ("ARRAY_JOB_ID", "JOB_ID")}
        with (self.folder / f"{seed}").open("a") as file:
            file.write(json.dumps({**here, "restarts": restarts, "begun_s": time.time()}) + "\n")
        act = self.acts.get(seed, "finish") if restarts == 0 else "finish"
        try:
            if act == "say":
                say("tracking: away")
            elif act == "lose the node":
                os.kill(os.getppid(), signal.SIGKILL)
            elif act == "save":
                saved = self.checkpoints / task.spec.fingerprint
                saved.mkdir(parents=True)
                (saved / "state.pt").touch()
            while act in ("last", "save"):
                time.sleep(0.05)
        except TimeLimit as error:
            return Report(task.spec, error.reason, str(error))
        except SystemExit:
            return Report(task.spec, "killed")
        return Report(task.spec, "finished")

    def starts(self, seed: int) -> list[dict[str, Any]]:
        """What was written about a task."""
        path = self.folder / f"{seed}"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
