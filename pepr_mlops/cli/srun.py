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
                f"srun: task {task} of 0 to {tasks - 1} ends; {ctx.info_name} runs in task 0",
                err=True,
            )
            return 0
        if tasks > 1:
            say(
                f"srun: started {tasks} tasks; this one runs {ctx.info_name}, the others end; use "
                "--ntasks=1, and --cpus-per-task for more CPUs",
                err=True,
            )
        return super().invoke(ctx)
