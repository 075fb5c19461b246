"""The live page as a Flask application, and serving it."""

from __future__ import annotations

import errno
import hashlib
import logging
import socket
from collections.abc import Callable, Sequence

from flask import Flask, Response, request
from werkzeug.serving import BaseWSGIServer, make_server

from pepr_mlops.errors import PeprError, WrongUse
from pepr_mlops.live import states
from pepr_mlops.live.access import Guard
from pepr_mlops.live.view import View, parse
from pepr_mlops.live.watch import Watch
from pepr_mlops.report import page
from pepr_mlops.report.dashboards import Dashboard
from pepr_mlops.report.templates import TEMPLATES, asset
from pepr_mlops.text import address, file_name

# Nothing of the page may come from, or go to, anywhere else. Plotly writes styles into elements.
_POLICY = (
    "default-src 'none'; connect-src 'self'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; frame-ancestors 'none'; "
    "form-action 'none'; base-uri 'none'"
)
_FOR_GOOD = "private, max-age=31536000, immutable"  # the address has a digest of the content


class Routes:
    """The answers to requests. `name` is the dashboard's on the command line, `default` the view of
    an address without experiments."""

    def __init__(
        self, watch: Watch, name: str, default: View, tracking_uri: str | None = None
    ) -> None:
        self._watch, self._name, self._default = watch, name, default
        self._uri = address(tracking_uri) if tracking_uri else None
        js = page.script() + asset("assets/live.js")
        self._scripts = {"plotly.min.js": page.plotly_script(), "page.js": js}

    def _view(self) -> tuple[View, list[str]]:
        """The view of the request, and what is wrong in it."""
        given = {key: texts for key, texts in request.args.lists() if key != "version"}
        return parse(given, self._default)

    def skeleton(self) -> str:
        """The page without content, which its script requests."""
        view, messages = self._view()
        first = states.reading(view.experiments).content(", ".join(view.experiments) or "PePR")
        return TEMPLATES.get_template("assets/live.html").render(
            title=first.data["title"],
            css=page.style() + asset("assets/live.css"),
            main=first.main,
            data=page.as_json({**first.data, "experiments": view.experiments}),
            messages=messages,
            view=view,
            command=view.command(self._name, self._uri),
            scripts=[f"{file}?{_digest(text)}" for file, text in self._scripts.items()],
        )

    def changes(self) -> Response:
        """What a page that shows `version` does not know yet, as JSON."""
        view, _ = self._view()
        news = self._watch.news(view)
        answer = {
            "version": news.shown and news.shown.version,
            "doing": news.doing,
            "trouble": news.trouble and vars(news.trouble),
            "under_way": news.running,
            "finished": news.shown and news.shown.finished,
        }
        if news.shown and news.shown.version != request.args.get("version"):
            answer |= vars(news.shown.content)
        return _json(answer)

    def experiments(self) -> Response:
        """The experiments of the server, as JSON."""
        links = states.links_to(self._watch.experiments)
        return _json([{"name": one.name, "text": one.text, "about": one.about} for one in links])

    def report(self) -> Response:
        """The view as a page that opens without a server."""
        view, _ = self._view()
        try:
            text = self._watch.report(view, view.command(self._name, self._uri))
        except PeprError as error:
            return Response(f"{error}\n", 409, mimetype="text/plain")
        file = file_name(f"pepr-report-{'-'.join(view.experiments)}") + ".html"
        answer = Response(text, mimetype="text/html")
        answer.headers.set("Content-Disposition", "attachment", filename=file)
        return answer

    def script(self, file: str) -> Response:
        """A script of the page, which a browser need not request again."""
        answer = Response(self._scripts[file], mimetype="text/javascript")
        answer.headers["Cache-Control"] = _FOR_GOOD
        return answer


def create(
    dashboard: Dashboard,
    *,
    name: str = "default",
    experiments: Sequence[str] = (),
    tracking_uri: str | None = None,
    guard: Guard | None = None,
) -> Flask:
    """The application. `name` is the dashboard's on the command line.

    Without a `guard` the page answers this machine only.
    """
    app = Flask(__name__, static_folder=None)
    app.before_request((guard or Guard.of("127.0.0.1")).check)
    app.after_request(_limited)
    watch = Watch(dashboard, tracking_uri)
    watch.start()
    routes = Routes(watch, name, View(tuple(experiments)), tracking_uri)
    rules: dict[str, Callable[..., str | Response]] = {
        "/": routes.skeleton,
        "/changes": routes.changes,
        "/experiments": routes.experiments,
        "/report": routes.report,
        "/<any('plotly.min.js', 'page.js'):file>": routes.script,
    }
    for rule, answer in rules.items():
        app.add_url_rule(rule, view_func=answer)
    return app


def _limited(response: Response) -> Response:
    """The answer with what a browser may do with it."""
    response.headers["Content-Security-Policy"] = _POLICY
    response.headers["Cross-Origin-Resource-Policy"] = "same-origin"
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "no-referrer"
    return response


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _json(content: object) -> Response:
    answer = Response(page.as_json(content), mimetype="application/json")
    answer.headers["Cache-Control"] = "no-store"
    return answer


def listen(app: Flask, host: str, port: int) -> BaseWSGIServer:
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
        return make_server(host, taken.getsockname()[1], app, threaded=True, fd=taken.fileno())
