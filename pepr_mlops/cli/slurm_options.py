"""The options of `pepr sweep --engine slurm`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from pepr_mlops.cli.options import option, together
from pepr_mlops.errors import WrongUse

if TYPE_CHECKING:
    from pepr_mlops.sweep.slurm.options import Options

slurm_options = together(
    option("Slurm", "--partition", "partition of the jobs", metavar="NAME"),
    option("Slurm", "--account", "account that pays for them", metavar="NAME"),
    option("Slurm", "--qos", "quality of service", metavar="NAME"),
    option(
        "Slurm", "--gres", "GPU of each job [default: gpu:1 with --device cuda]", metavar="gpu:1"
    ),
    option("Slurm", "--gpus-per-task", "the same, such as a100:1", metavar="[TYPE:]N"),
    option("Slurm", "--cpus", "CPUs of each job", type=click.IntRange(1)),
    option("Slurm", "--mem", "memory of each job, such as 32G", metavar="SIZE"),
    option(
        "Slurm", "--time", "time limit of each job, which continues after it", metavar="H:MM:SS"
    ),
    option("Slurm", "--constraint", "features of its node", metavar="FEATURES"),
    option(
        "Slurm",
        "--setup",
        "line of shell that runs before a job, such as 'module load cuda'; may be repeated",
        multiple=True,
        metavar="LINE",
    ),
    option(
        "Slurm",
        "--python",
        "command that starts Python on a node, such as 'apptainer exec --nv pepr.sif python' "
        "[default: the Python of this sweep]",
        metavar="COMMAND",
    ),
    option(
        "Slurm",
        "--max-jobs",
        "jobs that run at once [default: as many as Slurm allows; 1 for a search]",
        type=click.IntRange(1),
    ),
    option(
        "Slurm",
        "--sbatch",
        "further option of sbatch, such as --reservation=NAME; may be repeated",
        multiple=True,
        metavar="OPTION",
    ),
    option(
        "Slurm",
        "--offline",
        "nodes have no network: jobs leave their runs on the shared disk, and the sweep or "
        "`pepr sync` sends them",
        is_flag=True,
        default=None,
    ),
    option(
        "Slurm",
        "--detach",
        "submit the jobs and return; the same command without it reports and continues",
        is_flag=True,
    ),
)


def take(given: dict[str, Any], table: Any) -> tuple[Options, bool]:
    """Remove the options of Slurm from the `given` ones and return what the jobs request, with the
    rest from the table `[slurm]` of the sweep file, and whether to detach.

    Raises `WrongUse` for options of another engine, and for what a detached sweep cannot do.
    """
    from pepr_mlops.sweep.slurm.options import NAMES, parse

    flags = {name: given.pop(name) for name in NAMES}
    detach = given.pop("detach")
    used = [name for name, value in flags.items() if value not in (None, ())]
    if given["engine"] != "slurm":
        if used := [*used, *(["detach"] if detach else [])]:
            raise WrongUse(f"{used[0]}: it is an option of Slurm; add --engine slurm")
        return parse({}, {}), False
    if given["address"] is not None:
        raise WrongUse("address: it is that of a Ray cluster; leave it out with --engine slurm")
    if detach and given["budget_wh"] is not None:
        raise WrongUse(
            "detach: nothing would stop the jobs when the budget is used up; leave out --detach or "
            "--budget-wh"
        )
    return parse(flags, table), detach
