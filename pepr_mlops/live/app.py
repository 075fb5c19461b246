"""The live page as a Dash application, and serving it."""

from __future__ import annotations

import errno
import logging
import socket
from collections.abc import Sequence
from pathlib import Path

from dash import Dash
from flask import Flask, Response
from werkzeug.serving import BaseWSGIServer, make_server

from pepr_mlops.errors import WrongUse
from pepr_mlops.live.access import Guard
from pepr_mlops.live.callbacks import Callbacks
from pepr_mlops.report.dashboards import Dashboard

# Nothing of the page may come from, or go to, anywhere else. Plotly writes styles into elements.
_POLICY = (
    "default-src 'none'; connect-src 'self'; script-src 'self' {scripts}; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
    "frame-ancestors 'none'; form-action 'none'; base-uri 'none'"
)
_MOST_BYTES = 4 * 2**20  # of a request; one that lists 5,000 experiments takes 1 MB


def create(
    dashboard: Dashboard,
    *,
    name: str = "default",
    experiments: Sequence[str] = (),
    tracking_uri: str | None = None,
    guard: Guard | None = None,
) -> Dash:
    """The application. `name` is the dashboard's on the command line.

    Without a `guard` the page answers this machine only.
    """
    server = Flask(__name__, static_folder=None)
    server.config["MAX_CONTENT_LENGTH"] = _MOST_BYTES
    server.before_request((guard or Guard.of("127.0.0.1")).check)  # before anything of Dash's
    app = Dash(
        __name__,
        server=server,  # type: ignore[arg-type]  # a Flask, as its documentation says
        title="PePR",  # Dash puts it into the page as markup, so no name that people gave
        update_title="",
        assets_folder=str(Path(__file__).parent / "assets"),
        meta_tags=[{"name": "viewport", "content": "width=device-width, initial-scale=1"},
                   {"name": "color-scheme", "content": "light dark"}],
        serve_locally=True,
        add_log_handler=False,
    )  # fmt: skip
    Callbacks(dashboard, name, tuple(experiments), tracking_uri).connect(app)
    policy = _POLICY.format(scripts=" ".join(app.csp_hashes()))

    @server.after_request
    def limit(response: Response) -> Response:
        response.headers["Content-Security-Policy"] = policy
        response.headers["Cross-Origin-Resource-Policy"] = "same-origin"
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Referrer-Policy"] = "no-referrer"
        return response

    return app


def listen(app: Dash, host: str, port: int) -> BaseWSGIServer:
    """A server that is ready for `serve_forever`, on any free port for 0.

    Raises `WrongUse` for an address that it cannot listen on.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        taken = socket.create_server((host, port), family=family)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise WrongUse(f"port: {port} is taken on {host}; choose another --port") from error
        raise WrongUse(f"host: cannot listen on {host}:{port} ({error.strerror})") from error
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    with taken:  # the server has a copy
        return make_server(
            host, taken.getsockname()[1], app.server, threaded=True, fd=taken.fileno()
        )
