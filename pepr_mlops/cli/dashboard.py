"""`pepr dashboard`: the live page."""

from __future__ import annotations

import click

from pepr_mlops.cli.options import tracking_uri
from pepr_mlops.cli.output import note, say

_EVERYWHERE = ("0.0.0.0", "::", "")  # addresses that another machine cannot use


@click.command
@click.option(
    "--experiment",
    "experiments",
    multiple=True,
    metavar="NAME",
    help="experiment to show first; may be repeated",
)
@tracking_uri
@click.option(
    "--dashboard", default="default", show_default=True, metavar="NAME|FILE", help="which figures"
)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="on an address that others reach, the page requires the token in its printed address",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8050,
    show_default=True,
    help="0 for any free port",
)
@click.option(
    "--allow-host",
    "allowed",
    multiple=True,
    metavar="NAME",
    help="name under which a proxy or container serves the page; may be repeated",
)
def command(
    experiments: tuple[str, ...],
    tracking_uri: str | None,
    dashboard: str,
    host: str,
    port: int,
    allowed: tuple[str, ...],
) -> None:
    """Show experiments on a live page in the browser, until Ctrl-C.

    It is the page of `pepr report` and follows the server: new runs, their progress and their end.
    The address in the browser holds what it shows; the page can be downloaded as a report.

    \b
    Examples:
      pepr dashboard
      pepr dashboard --experiment derma --tracking-uri http://localhost:5000 --port 8051
      pepr dashboard --experiment derma --dashboard mine.toml
    """
    import socket
    from contextlib import suppress

    from pepr_mlops.errors import WorkFailed, WrongUse
    from pepr_mlops.live import app
    from pepr_mlops.live.access import Guard
    from pepr_mlops.report import dashboards
    from pepr_mlops.tracking import read
    from pepr_mlops.tracking.read.tables import NO_STORE
    from pepr_mlops.tracking.server import nobody_listens, store_can_be_made

    board = dashboards.load(dashboard)
    try:
        read.require(experiments, tracking_uri=tracking_uri)
    except WrongUse as error:
        if error.reason != NO_STORE or not store_can_be_made(tracking_uri):
            raise
    except WorkFailed as error:
        if nobody_listens(error):  # a wrong address is more likely than a server that is away
            raise
        note(f"{error}; the page waits for it")
    guard = Guard.of(host, allowed)
    page = app.create(
        board,
        name=dashboard,
        experiments=experiments,
        tracking_uri=tracking_uri,
        guard=guard,
    )
    server = app.listen(page, host, port)
    name = socket.gethostname() if host in _EVERYWHERE else host
    name = f"[{name}]" if ":" in name else name
    token = "" if guard.token is None else f"?token={guard.token}"
    with suppress(KeyboardInterrupt):
        say(f"http://{name}:{server.port}/{token} (Ctrl-C to stop)")
        server.serve_forever()
