"""What the jobs of a sweep ask Slurm for, as arguments of sbatch and as their script. Pure."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from pepr_mlops.errors import WrongUse
from pepr_mlops.spec import as_text
from pepr_mlops.validation import checked, refuse_unknown

SIGNAL_S = 120  # from Slurm's warning to the time limit: enough to close a run on a slow server
# Options of sbatch that the engine sets itself.
_OURS = (
    *("--array", "-a", "--job-name", "-J", "--output", "-o", "--error", "-e", "--input", "-i"),
    *("--nodes", "-N", "--ntasks", "-n", "--signal", "--parsable", "--test-only", "--wrap"),
)
# Options of `sbatch --time`: [days-]hours[:minutes[:seconds]] or minutes[:seconds].
_DAYS = re.compile(r"(\d+)-(\d+)(?::(\d+))?(?::(\d+))?")
_CLOCK = re.compile(r"(?:(?:(\d+):)?(\d+):)?(\d+)")


@dataclass(frozen=True)
class Options:
    """Options of sbatch by their names there (`cpus` is `--cpus-per-task`), None for those that the
    cluster decides.

    `setup` are lines of shell that run before a job, `python` is the command that starts Python on
    a node, `max_jobs` how many jobs may run at once, `sbatch` further options of sbatch, and
    `offline` whether nodes have no network, so that jobs leave their runs on the shared disk.
    """

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    gres: str | None = None
    gpus_per_task: str | None = None
    cpus: int | None = None
    mem: str | None = None
    time: str | None = None
    constraint: str | None = None
    setup: tuple[str, ...] = ()
    python: str | None = None
    max_jobs: int | None = None
    sbatch: tuple[str, ...] = ()
    offline: bool = False


_SEVERAL = ("setup", "sbatch")
NAMES = tuple(f.name for f in fields(Options))


def parse(flags: Mapping[str, Any], table: Any) -> Options:
    """The options of the command line, and of the table `[slurm]` of a sweep file where the command
    line has none. Raises `WrongUse` for unknown names and impossible values."""
    if not isinstance(table, Mapping):
        raise WrongUse(f"slurm: {table!r} is not a table; write [slurm] and its options below")
    refuse_unknown(table, NAMES, "option", "slurm")
    given = {**table, **{k: v for k, v in flags.items() if v not in (None, ())}}
    values = {
        name: _texts(value, name) if name in _SEVERAL else _text(value, name)
        for name, value in given.items()
    }
    found: Options = checked(Options, values, "slurm")
    for name in ("cpus", "max_jobs"):
        value = getattr(found, name)
        if value is not None and value < 1:
            raise WrongUse(f"slurm: {name}: {value} is not 1 or more")
    for word in found.sbatch:
        _check_extra(word)
    if found.time is not None:
        seconds(found.time)
    return found


def arguments(options: Options, device: str) -> list[str]:
    """The arguments of sbatch for jobs that compute on `device` (`RunSpec.device`).

    A job on a GPU has that GPU to itself, one on a CPU its node, since the energy is that of the
    device. Raises `WrongUse` where nothing says which of the two it is: with `auto`, a job whose
    node shows no GPU would train on the CPU.
    """
    gpu = options.gres is not None or options.gpus_per_task is not None
    if device == "auto":
        raise WrongUse(
            "device: auto does not say what to request from Slurm; give --device cuda for a GPU, "
            "or --device cpu for a complete node"
        )
    if device == "mps":
        raise WrongUse("device: mps is a GPU of macOS, which no Slurm node has; use cuda or cpu")
    named = {
        "partition": options.partition,
        "account": options.account,
        "qos": options.qos,
        "gres": "gpu:1" if device == "cuda" and not gpu else options.gres,
        "gpus-per-task": options.gpus_per_task,
        "cpus-per-task": options.cpus,
        "mem": options.mem,
        "time": options.time,
        "constraint": options.constraint,
    }
    return [
        *(f"--{name}={value}" for name, value in named.items() if value is not None),
        *(["--exclusive"] if device == "cpu" else []),
        *("--nodes=1", "--ntasks=1", "--requeue", "--open-mode=append", "--export=ALL"),
        f"--signal=B:USR1@{_signal_s(options.time)}",
        *options.sbatch,
    ]


def script(options: Options, folder: str) -> str:
    """The script of a batch of jobs in `folder`, each of which writes its own log there.

    The log is opened here, since sbatch reads `%` and `\\` in its `--output`.
    """
    python = [sys.executable] if options.python is None else shlex.split(options.python)
    node = [*python, "-P", "-m", "pepr_mlops.sweep.slurm.node", folder]
    return "\n".join(
        [
            "#!/bin/bash",
            f'exec >>{shlex.quote(folder)}/"$SLURM_ARRAY_TASK_ID".log 2>&1',
            *options.setup,
            f'exec {shlex.join(node)} "$SLURM_ARRAY_TASK_ID"',
            "",
        ]
    )


def job_name(experiment: str, batch: str) -> str:
    """The name of the jobs of a batch, which Slurm shows: safe characters only."""
    return f"pepr-{re.sub(r'[^A-Za-z0-9_.]', '_', experiment)[:40]}-{batch}"


def batch_of(name: str) -> str | None:
    """The batch of a job of this name; None for the jobs of others."""
    return name.rpartition("-")[2] if name.startswith("pepr-") else None


def indices(numbers: Sequence[int]) -> str:
    """Indices of an array as Slurm writes them, such as `0-3,7`."""
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and number == parts[-1][-1] + 1:
            parts[-1][1:] = [number]
        else:
            parts.append([number])
    return ",".join("-".join(map(str, part)) for part in parts)


def seconds(time: str) -> float | None:
    """Seconds of `--time`; None for no limit. Raises `WrongUse` for what Slurm would not take."""
    if time.upper() in ("UNLIMITED", "INFINITE"):
        return None
    if found := _DAYS.fullmatch(time):
        days, hours, minutes, rest = (int(part or 0) for part in found.groups())
        return float(((days * 24 + hours) * 60 + minutes) * 60 + rest)
    if found := _CLOCK.fullmatch(time):
        first, second, last = found.groups()
        if second is None:
            return float(last) * 60
        return float((int(first or 0) * 60 + int(second)) * 60 + int(last))
    raise WrongUse(
        f"slurm: time: {time!r} is not a time of Slurm, such as 90 (minutes), 1:30:00 or 2-12"
    )


def _signal_s(time: str | None) -> int:
    """How long before the time limit a job is to end: no more than a quarter of it."""
    limit_s = None if time is None else seconds(time)
    return SIGNAL_S if limit_s is None else int(min(SIGNAL_S, max(10, limit_s / 4)))


def _text(value: Any, name: str) -> str:
    if isinstance(value, list | dict) or not (text := as_text(value)).isprintable():
        raise WrongUse(f"slurm: {name}: {value!r} is not one printable value")
    return text


def _texts(value: Any, name: str) -> tuple[str, ...]:
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list | tuple) or not all(isinstance(v, str) for v in values):
        raise WrongUse(f"slurm: {name}: {value!r} is not a text or a list of texts")
    return tuple(values)


def _check_extra(word: str) -> None:
    """Raise `WrongUse` for what is no option of sbatch, or one that the engine sets."""
    if not word.startswith("-") or not word.isprintable():
        raise WrongUse(
            f"slurm: sbatch: {word!r} is not an option of sbatch, such as --reservation=NAME"
        )
    name = word.partition("=")[0] if word.startswith("--") else word[:2]
    if name in _OURS:
        raise WrongUse(f"slurm: sbatch: {name} is set by the sweep; leave it out")
