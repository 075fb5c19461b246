"""`pepr sync`: send what the tracking server does not have yet."""

from __future__ import annotations

import click


@click.command
@click.option(
    "--tracking-uri",
    help="server for runs that no server knows yet [default: the one they were started for]",
)
def command(tracking_uri: str | None) -> int:
    """Send what the tracking server does not have yet.

    Runs keep their log entries on this disk until the server has them. This sends the entries of
    runs whose process has ended: runs that ended while the server was down, and killed runs, which
    become FAILED. Of runs of --offline it also sends those that are under way.

    \b
    Examples:
      pepr sync
      pepr train --dataset digits --no-pretrained --image-size 32 --offline && pepr sync
    """
    from pepr_mlops.cli.output import say
    from pepr_mlops.tracking import sync
    from pepr_mlops.tracking.journal import home

    runs, unsent = 0, 0
    for run in sync(tracking_uri):
        runs += 1
        if run.problem is not None:
            unsent += 1
            say(f"{run.name}: still in {run.folder} ({run.problem})", err=True)
        elif run.run_id is not None:
            text = f"{run.entries} entries sent to {run.uri}"
            say(f"{run.name}: {text}; run {run.run_id} is {run.status}")
    if not runs:
        folder = f"{home()} (PEPR_JOURNAL names another folder)"
        say(f"nothing to send in {folder}", err=True)
    return int(unsent > 0)
