"""The calls of Slurm's programs: at most one in ten seconds, over all sweeps of a user."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from pepr_mlops.errors import WorkFailed, WrongUse
from pepr_mlops.files import cache_folder
from pepr_mlops.sweep.slurm.options import batch_of

EVERY_S = 10.0
_PATIENCE_S = 120.0  # for an answer of a busy controller
# States (squeue(1), JOB STATE CODES) after which Slurm does not run the job again.
ENDED = {
    *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL"),
    *("OUT_OF_MEMORY", "PREEMPTED", "REVOKED", "TIMEOUT"),
}
# Parts of the answers of a controller that is away or busy.
_AWAY = (
    *("Unable to contact slurm controller", "timed out", "Connection refused"),
    *("Zero Bytes", "Communication connection failure", "temporarily"),
)
# How a line begins that repeats the one before in general words.
_GENERAL = ("Batch job submission failed", "allocation failure")
# Parts of the answers to an impossible request, and the options to change.
_REMEDIES = {
    "partition": "--partition",
    "time limit": "--time",
    "feature": "--constraint",
    "node configuration": "--gres, --cpus, --mem or --constraint",
    "generic resource": "--gres",
    "account": "--account",
    "qos": "--qos",
    "--time": "--time",
}


@dataclass(frozen=True)
class Queued:
    """A job of an array in Slurm's queue: its `state` and the `reason` why it waits."""

    job: str
    index: int
    state: str
    reason: str
    batch: str


class Away(WorkFailed):
    """The controller of Slurm does not answer now, or the disk takes no tasks for it."""

    reason = "slurm"


class Scheduler:
    """Slurm, as one user of this machine reaches it."""

    def __init__(self) -> None:
        self._stamp = cache_folder() / "slurm"
        self._last_s = -EVERY_S

    def check(self, arguments: Sequence[str], script: Path) -> None:
        """Raise `WrongUse`, with Slurm's own words and what to change, for a request that Slurm
        would refuse."""
        try:
            self._call(["sbatch", "--test-only", *arguments, str(script)])
        except WrongUse as error:
            raise WrongUse(f"{error}; {self._remedy(str(error))}") from None

    def submit(self, arguments: Sequence[str], script: Path) -> str:
        """Submit a script and return the job's id. Raises `WrongUse` where Slurm refuses it."""
        out = self._call(["sbatch", "--parsable", *arguments, str(script)])
        return out.strip().partition(";")[0]  # the name of the cluster may follow

    def queue(self) -> list[Queued]:
        """The jobs of this user's sweeps that wait, run or have just ended."""
        words = ["squeue", "--noheader", "--array", "--states=all", f"--user={os.getuid()}"]
        found = []
        for line in self._call([*words, "--format=%F|%K|%T|%j|%r"]).splitlines():
            job, index, state, name, reason = [*line.split("|", 4), "", "", "", ""][:5]
            batch = batch_of(name)
            if batch is not None and index.isdecimal():
                found.append(Queued(job, int(index), state, reason, batch))
        return found

    def cancel(self, jobs: Sequence[str]) -> None:
        """Cancel jobs, named as `7_[0-3]`."""
        self._call(["scancel", "--quiet", *jobs])

    def longest_array(self) -> int:
        """How many jobs an array may have."""
        config = self._call(["scontrol", "show", "config"])
        found = re.search(r"^MaxArraySize\s*=\s*(\d+)", config, re.MULTILINE)
        return max(1, int(found[1])) if found else 1001

    def wait(self) -> None:
        """Wait until a call need not wait."""
        time.sleep(max(0.0, EVERY_S - self._age_s()))

    def is_due(self) -> bool:
        """Whether a call need not wait."""
        return self._age_s() >= EVERY_S

    def _remedy(self, why: str) -> str:
        options = [option for part, option in _REMEDIES.items() if part in why.lower()]
        change = f"change {options[0]}" if options else "change the options of the jobs"
        try:
            out = self._call(["sinfo", "--noheader", "--format=%R up to %l, gres %G, features %f"])
        except (WrongUse, WorkFailed):
            return f"{change}; `sinfo` lists what there is"
        choices = dict.fromkeys(out.replace(", features (null)", "").splitlines())
        return f"{change}; sinfo lists {'; '.join(choices)}"

    def _call(self, words: Sequence[str]) -> str:
        with self._turn():
            return _run(words)

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Wait until ten seconds after the last call of any sweep of this user."""
        lock = FileLock(self._stamp.with_suffix(".lock"))
        with ExitStack() as held:
            with suppress(OSError, NotImplementedError):  # no home, or one without locks
                self._stamp.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                held.enter_context(lock)
            self.wait()
            try:
                yield
            finally:
                self._last_s = time.monotonic()
                with suppress(OSError):
                    self._stamp.touch()

    def _age_s(self) -> float:
        """Seconds since the last call of any sweep of this user."""
        ages_s = [time.monotonic() - self._last_s]
        with suppress(OSError):
            ages_s.append(max(0.0, time.time() - self._stamp.stat().st_mtime))
        return min(ages_s)


def program(name: str) -> str:
    """The path of one of Slurm's programs. Raises `WrongUse` where there is none."""
    if (path := shutil.which(name)) is None:
        raise WrongUse(
            f"slurm: there is no {name} on the PATH; run the sweep on a login node of the cluster, "
            "or use --engine local or ray"
        )
    return path


def _run(words: Sequence[str]) -> str:
    """The output of one of Slurm's programs. Raises `Away` where the controller does not answer,
    and `WrongUse` for what Slurm refuses."""
    try:
        done = subprocess.run(
            [program(words[0]), *words[1:]],
            capture_output=True,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
            env=_environment(),
            timeout=_PATIENCE_S,
            start_new_session=True,  # Ctrl-C must not leave it unknown whether a job was submitted
        )
    except subprocess.TimeoutExpired:
        raise Away(f"slurm: {words[0]} did not answer within {_PATIENCE_S:g} s") from None
    if done.returncode == 0:
        return done.stdout
    why = _words(done.stderr) or f"{words[0]} exited with {done.returncode}"
    if any(part in done.stderr for part in _AWAY):
        raise Away(f"slurm: {why}")
    raise WrongUse(f"slurm: {why}")


def _environment() -> dict[str, str]:
    """That of this process without what describes a job of Slurm in which the sweep may run."""
    return {k: v for k, v in os.environ.items() if not k.startswith("SLURM") or k == "SLURM_CONF"}


def _words(stderr: str) -> str:
    """What a program of Slurm complains of, in one line without its own name; its last line often
    only repeats what the others say in detail."""
    lines = [re.sub(r"^(\w+: )?(error: )?", "", line).strip() for line in stderr.splitlines()]
    found = list(dict.fromkeys(filter(None, lines)))
    detailed = [line for line in found if not line.startswith(_GENERAL)]
    return "; ".join(detailed or found)
