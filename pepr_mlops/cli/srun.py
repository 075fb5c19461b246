"""Commands that work once however often `srun` starts them."""

from __future__ import annotations

from typing import Any

import click

from pepr_mlops.cli.options import Command
from pepr_mlops.cli.output import say
from pepr_mlops.process import srun_task


class Once(Command):
    """A command that trains or measures on one device.

    Of several tasks of `srun` the first one runs it: each would train the same model, and count the
    energy of the others.
    """

    def invoke(self, ctx: click.Context) -> Any:
        task, tasks = srun_task()
        if task > 0:
            say(
                f"srun: task {task} of {tasks} (from 0) has nothing to do: {ctx.info_name} runs "
                "once, in task 0",
                err=True,
            )
            return 0
        if tasks > 1:
            say(
                f"srun: it started {tasks} tasks, but {ctx.info_name} runs once, in this one; give "
                "srun --ntasks=1, and --cpus-per-task for more CPUs",
                err=True,
            )
        return super().invoke(ctx)
