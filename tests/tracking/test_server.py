"""The errors of servers, each in one line with the address, what happened and what to do."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from pepr_mlops.errors import WorkFailed
from pepr_mlops.tracking import read
from pepr_mlops.tracking.server import nobody_listens

PAGE = b"<html><body><h1>Bad</h1>\n<p>Traceback (most recent call last): line 1</p></body></html>"
USUAL = "check the tracking URI (MLFLOW_TRACKING_URI or --tracking-uri) and that the server runs"


@contextmanager
def _answering(status: int, body: bytes = PAGE) -> Iterator[int]:
    """The port of a server that gives this answer to every POST."""

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"] or 0))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        yield listening.server_port
        listening.shutdown()


def _refusal(uri: str) -> WorkFailed:
    with pytest.raises(WorkFailed) as refused:
        read.load_runs("derma", tracking_uri=uri)
    return refused.value


@pytest.mark.parametrize(
    ("status", "body", "cause", "remedy"),
    [
        (502, PAGE, "HTTP status 502 Bad Gateway", USUAL),
        (404, PAGE, "HTTP status 404 Not Found", USUAL),
        (599, PAGE, "HTTP status 599", USUAL),
        (
            *(401, PAGE, "HTTP status 401 Unauthorized"),
            "check the user and password (MLFLOW_TRACKING_USERNAME, MLFLOW_TRACKING_PASSWORD)",
        ),
        (200, PAGE, "its answer is not that of an MLflow server", USUAL),
        (
            *(400, b'{"error_code": "INVALID_PARAMETER_VALUE", "message": "no"}'),
            *("INVALID_PARAMETER_VALUE: no", USUAL),
        ),
    ],
)
def test_the_page_of_a_server_is_not_quoted(
    status: int, body: bytes, cause: str, remedy: str
) -> None:
    with _answering(status, body) as port:
        found = _refusal(f"http://user:secret@127.0.0.1:{port}")
    assert str(found) == (
        f"tracking: http://127.0.0.1:{port} refused or did not answer ({cause}); {remedy}"
    )
    assert not nobody_listens(found)


@pytest.mark.parametrize(
    ("uri", "cause"),
    [
        ("http://user:secret@127.0.0.1:9", "Connection refused"),
        ("postgresql://user:secret@127.0.0.1:9/db", "Connection refused"),
        ("http://nowhere.invalid:5000", "the name of the host is not known"),
    ],
)
def test_where_nobody_listens_the_network_says_why(uri: str, cause: str) -> None:
    found = _refusal(uri)
    assert nobody_listens(found)
    address = uri.replace("user:secret@", "")
    assert str(found) == f"tracking: {address} refused or did not answer ({cause}); {USUAL}"
