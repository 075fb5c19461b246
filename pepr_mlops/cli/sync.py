"""`pepr sync`: what the tracking server has not got yet."""

from __future__ import annotations

import click

_EXAMPLE = """
    \b
    Examples:
      pepr sync
      pepr train --dataset digits --no-pretrained --image-size 32 --offline && pepr sync
"""


@click.command(
    help="Send what the tracking server has not got yet.\n\n"
    "Runs keep what they log on this disk until the server has it. This sends what is left of "
    "runs whose process has ended: those of --offline, those that ended while the server was "
    "away, and those that were killed, which become FAILED.\n" + _EXAMPLE
)
@click.option(
    "--tracking-uri",
    help="server of runs that no server knows yet [default: the one they were meant for]",
)
def command(tracking_uri: str | None) -> int:
    from pepr_mlops.cli.output import say
    from pepr_mlops.tracking import sync
    from pepr_mlops.tracking.journal import home

    kept = there = 0
    for run in sync(tracking_uri):
        there += 1
        if run.problem is not None:
            kept += 1
            say(f"{run.name}: kept in {run.folder} ({run.problem})", err=True)
        elif run.run_id is not None:
            what = f"{run.entries} entries sent to {run.uri}"
            say(f"{run.name}: {what}; run {run.run_id} is {run.status}")
    if not there:
        nothing = "nothing waits in" if home().is_dir() else "nothing was ever kept in"
        say(f"{nothing} {home()} (PEPR_JOURNAL names another folder)", err=True)
    return int(kept > 0)
