"""A way to a server that can be made to fail: down, silent, in error, slow, losing answers."""

from __future__ import annotations

import http.client
import http.server
import threading
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

MODES = ("pass", "hang", "error", "slow", "lose")
_SLOW_S = 2.0


class Proxy:
    """Passes requests on to `upstream` as `mode` says; `down` and `up` take it away for a while.

    `hang` never answers, `error` answers 500, `slow` after two seconds, and `lose` lets the server
    do what the request says and drops the answer. `on_request` is called with each path first.
    A path that ends as one of `answers` gets that status and body.
    """

    def __init__(self, upstream: str) -> None:
        parts = urlsplit(upstream)
        self.upstream = (parts.hostname or "", parts.port or 80)
        self.mode = "pass"
        self.on_request: Callable[[str], None] = lambda path: None
        self.answers: dict[str, tuple[int, bytes]] = {}
        self.paths: list[str] = []
        self._port = 0
        self._ended = threading.Event()
        self.up()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def up(self) -> None:
        self._server = _Server(("127.0.0.1", self._port), _handler(self))
        self._port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def down(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def close(self) -> None:
        self._ended.set()
        self.down()

    def wait_forever(self) -> None:
        self._ended.wait()


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, *given: Any) -> None:
        """Say nothing of a client that has left."""


def _handler(proxy: Proxy) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def _pass(self) -> None:
            proxy.paths.append(self.path)
            proxy.on_request(self.path)
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            for end, (status, content) in proxy.answers.items():
                if self.path.endswith(end):
                    self._answer(status, {"Content-Type": "text/html"}, content)
                    return
            if proxy.mode == "hang":
                proxy.wait_forever()
                return
            if proxy.mode == "error":
                self._answer(500, {}, b'{"error_code": "INTERNAL_ERROR", "message": "injected"}')
                return
            if proxy.mode == "slow":
                time.sleep(_SLOW_S)
            upstream = http.client.HTTPConnection(*proxy.upstream, timeout=60)
            headers = {k: v for k, v in self.headers.items() if k.lower() != "connection"}
            upstream.request(self.command, self.path, body, headers)
            answer = upstream.getresponse()
            content = answer.read()
            upstream.close()
            if proxy.mode != "lose":
                self._answer(answer.status, dict(answer.getheaders()), content)

        def _answer(self, status: int, headers: dict[str, str], content: bytes) -> None:
            self.send_response(status)
            for key, value in headers.items():
                if key.lower() not in ("connection", "content-length", "transfer-encoding", "date"):
                    self.send_header(key, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _pass  # noqa: N815 - http.server's names

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    return Handler
