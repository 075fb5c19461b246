"""A batch: the folder on a shared disk by which a sweep and the jobs of one array communicate.

For each index of the array it has `INDEX.log`, `INDEX.notes`, and for the first task of the job
`INDEX.0.task`, which becomes `INDEX.0.taken` once the job has begun it, and `INDEX.0.report`. A job
that waits for further tasks finds them as `INDEX.1.task` and so on, until it writes `INDEX.closed`.
"""

from __future__ import annotations

import json
import os
import pickle
import re
import secrets
import shutil
import stat
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pepr_mlops.errors import WrongUse
from pepr_mlops.files import write_private
from pepr_mlops.sweep.engine import NO_FAILURE, NOTE, Report, Task, Work
from pepr_mlops.sweep.slurm.options import Options

_FILE = re.compile(r"(\d+)\.(?:(\d+)\.(task|taken|report)|(closed))")


@dataclass(frozen=True)
class Orders:
    """What the jobs of a batch do: `work` for each task, whose output goes to the folder `logs`.

    They asked Slurm for what `options` and `device` say. After a task a job waits `stay_s` for a
    further one. At most `max_jobs` of the batch run at once.
    """

    work: Work
    logs: Path
    checkpoints: Path
    options: Options
    device: str
    stay_s: float = 0.0
    max_jobs: int | None = None


@dataclass(frozen=True)
class Stage:
    """How far one index of the array is: the `number` of its last task, whether the job has begun
    and reported that, and whether it takes no other."""

    number: int = 0
    taken: bool = False
    reported: bool = False
    closed: bool = False


@dataclass(frozen=True)
class Batch:
    """The batch in `folder`, whose name is that of the batch. All methods raise `OSError`."""

    folder: Path

    @classmethod
    def create(cls, home: Path) -> Batch:
        """An empty batch below `home`, for its user alone, since the tasks may hold passwords.
        Raises `WrongUse` where it cannot be created."""
        name = f"{time.strftime('%Y%m%d%H%M%S')}{secrets.token_hex(3)}"
        try:
            home.mkdir(parents=True, exist_ok=True)
            (home / name).mkdir(mode=0o700)
        except OSError as error:
            raise WrongUse(
                f"checkpoints: {home} cannot be written ({error.strerror}); name a folder on a "
                "disk that all nodes share (--checkpoints DIR)"
            ) from error
        batch = cls(home / name)
        if not batch.is_private():
            batch.delete()
            raise WrongUse(
                f"checkpoints: others could write to a folder in {home}, whatever its rights; name "
                "a folder on another disk that all nodes share (--checkpoints DIR)"
            )
        return batch

    @classmethod
    def all(cls, home: Path) -> list[Batch]:
        """The batches of this user below `home`, the oldest first."""
        with suppress(FileNotFoundError):
            found = [cls(path) for path in sorted(home.iterdir())]
            return [batch for batch in found if batch.is_private()]
        return []

    def is_private(self) -> bool:
        """Whether its folder is of this user, and nobody else can write there: tasks are pickles,
        so that who can write one can run code."""
        with suppress(FileNotFoundError):  # just deleted
            found = self.folder.lstat()
            own = found.st_uid == os.getuid() and not found.st_mode & 0o077
            return own and stat.S_ISDIR(found.st_mode)
        return False

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def script(self) -> Path:
        return self.folder / "script"

    def fill(self, orders: Orders, tasks: Sequence[Task], script: str) -> None:
        """Write what the jobs need, the first task of each by its index."""
        self._write("orders", pickle.dumps(orders))
        for index, task in enumerate(tasks):
            self.assign(index, 0, task)
        self._write("script", script.encode())

    def orders(self) -> Orders:
        return self._unpickled("orders")  # type: ignore[no-any-return]

    def is_filled(self) -> bool:
        """Whether `fill` has begun, by this version."""
        return (self.folder / "orders").exists()

    @property
    def job(self) -> str | None:
        """The id of the array, None while it is not known to be submitted."""
        with suppress(FileNotFoundError):
            return (self.folder / "job").read_text()
        return None

    def submitted(self, job: str) -> None:
        self._write("job", job.encode())

    def stages(self) -> dict[int, Stage]:
        """How far each index is. The names of a folder are listed, since a disk in the network may
        answer for a single file from its memory."""
        found: dict[int, dict[str, Any]] = {}
        for name in os.listdir(self.folder):
            if (match := _FILE.fullmatch(name)) is None:
                continue
            stage = found.setdefault(int(match[1]), {"number": 0, "files": set()})
            if match[4]:
                stage["closed"] = True
                continue
            if int(match[2]) > stage["number"]:
                stage |= {"number": int(match[2]), "files": set()}
            if int(match[2]) == stage["number"]:
                stage["files"].add(match[3])
        return {
            index: Stage(
                stage["number"],
                bool(stage["files"] & {"taken", "report"}),
                "report" in stage["files"],
                stage.get("closed", False),
            )
            for index, stage in sorted(found.items())
        }

    def unfinished(self) -> dict[int, Stage]:
        """The stages of jobs that have something to do, or wait for it. What a signal ended counts
        as not reported: Slurm may have put the job back in the queue."""
        stays = self.orders().stay_s > 0
        found = {}
        for index, stage in self.stages().items():
            if stage.reported and self._reason(index, stage.number) == "killed":
                found[index] = replace(stage, reported=False)
            elif not stage.reported or (stays and not stage.closed):
                found[index] = stage
        return found

    def is_done(self) -> bool:
        """Whether all its jobs have ended without a failure, so that nobody needs it."""
        return bool(stages := self.stages()) and all(
            stage.closed and stage.reported and self._reason(index, stage.number) in NO_FAILURE
            for index, stage in stages.items()
        )

    def age_s(self) -> float:
        """Seconds since a file was added."""
        return time.time() - self.folder.stat().st_mtime

    def assign(self, index: int, number: int, task: Task) -> None:
        """Give a job its next task."""
        self._write(f"{index}.{number}.task", pickle.dumps(task))

    def retract(self, index: int, number: int) -> bool:
        """Take a task back; False where the job has begun it."""
        with suppress(FileNotFoundError):
            (self.folder / f"{index}.{number}.task").unlink()
            return True
        return False

    def take(self, index: int, number: int) -> Task | None:
        """Begin a task, or begin it again; None where there is none."""
        taken = self.folder / f"{index}.{number}.taken"
        with suppress(FileNotFoundError):
            os.rename(self.folder / f"{index}.{number}.task", taken)
        return self.task(index, number) if taken.exists() else None

    def task(self, index: int, number: int) -> Task:
        try:
            return self._unpickled(f"{index}.{number}.task")  # type: ignore[no-any-return]
        except FileNotFoundError:
            return self._unpickled(f"{index}.{number}.taken")  # type: ignore[no-any-return]

    def report(self, index: int, number: int, report: Report) -> None:
        content = {"reason": report.reason, "error": report.error}
        self._write(f"{index}.{number}.report", json.dumps(content).encode())

    def reported(self, index: int, number: int, task: Task) -> Report:
        content = json.loads((self.folder / f"{index}.{number}.report").read_text())
        return Report(task.spec, content["reason"], content["error"])

    def begin(self, index: int) -> int:
        """The number of the task that a job of this index begins with: its first, or after another
        start of the job the one that this did not end."""
        (self.folder / f"{index}.closed").unlink(missing_ok=True)
        stage = self.stages()[index]
        if stage.reported and self._reason(index, stage.number) != "killed":
            return stage.number + 1
        (self.folder / f"{index}.{stage.number}.report").unlink(missing_ok=True)
        return stage.number

    def note(self, index: int, line: str) -> None:
        """Pass on a message of a task."""
        with (self.folder / f"{index}.notes").open("a") as file:
            file.write(json.dumps(line) + "\n")

    def notes(self, index: int, after: int, task: Task) -> list[Report]:
        """The messages of a job from the line `after` on."""
        with suppress(FileNotFoundError):
            lines = (self.folder / f"{index}.notes").read_text().split("\n")[:-1]
            return [Report(task.spec, NOTE, json.loads(line)) for line in lines[after:]]
        return []

    def close(self, index: int) -> None:
        """Take no more tasks."""
        (self.folder / f"{index}.closed").touch()

    def last_words(self, index: int) -> str:
        """The last line of a job's log, or nothing."""
        with suppress(OSError):
            lines = (self.folder / f"{index}.log").read_text(errors="replace").split("\n")
            return next((line.strip() for line in reversed(lines) if line.strip()), "")
        return ""

    def end(self) -> None:
        """Let jobs that wait for further tasks end."""
        (self.folder / "over").touch()

    def is_over(self) -> bool:
        return (self.folder / "over").exists()

    def delete(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def _reason(self, index: int, number: int) -> str:
        content = json.loads((self.folder / f"{index}.{number}.report").read_text())
        return str(content["reason"])

    def _write(self, name: str, content: bytes) -> None:
        write_private(self.folder / name, content)

    def _unpickled(self, name: str) -> Any:
        try:
            return pickle.loads((self.folder / name).read_bytes())
        except (pickle.UnpicklingError, AttributeError, ImportError, EOFError) as error:
            raise OSError(f"{name} was written by another version ({error})") from error
