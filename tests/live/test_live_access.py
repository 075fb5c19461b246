"""Who is answered by the live page: its own scripts under its own names, elsewhere with a token."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest
from conftest import needs
from flask import Response, request
from flask.testing import FlaskClient
from made import logged, run
from playwright.sync_api import expect, sync_playwright

from pepr_mlops.live import app
from pepr_mlops.live.access import Guard
from pepr_mlops.live.view import View
from pepr_mlops.live.watch import Watch
from pepr_mlops.report.dashboards import parse

BOARD = parse({"figure": [{"kind": "plane"}]}, "test")
Served = tuple[str, str, str, list[tuple[str | None, int]]]
EVERY = ("/", "/changes", "/experiments", "/page.js", "/plotly.min.js")


def _client(guard: Guard | None = None) -> FlaskClient:
    return app.create(BOARD, tracking_uri="sqlite:///nowhere.db", guard=guard).test_client()


@pytest.fixture(scope="module")
def here() -> FlaskClient:
    return _client()


@pytest.mark.parametrize("path", EVERY)
def test_the_page_answers_only_under_its_own_names(here: FlaskClient, path: str) -> None:
    for host in ("127.0.0.1:8050", "localhost:9", "LOCALHOST", "[::1]:8050", "127.8.8.8"):
        assert here.get(path, headers={"Host": host}).status_code == 200, host
    for host in ("evil.example", "evil.example:8050", "10.0.0.1:8050", "localhost.evil.example",
                 "127.0.0.1.evil.example", "me@localhost", "[::1", "", "8.8.8.8"):  # fmt: skip
        answer = here.get(path, headers={"Host": host})
        assert answer.status_code == 403, host
        assert len(answer.data) < 100


def test_other_names_are_those_that_were_allowed() -> None:
    proxied = _client(Guard.of("127.0.0.1", ["pepr.lab.example"]))
    assert proxied.get("/", headers={"Host": "PEPR.lab.example"}).status_code == 200
    assert proxied.get("/", headers={"Host": "other.lab.example"}).status_code == 403


@pytest.mark.parametrize(
    ("headers", "answered"),
    [
        ({}, True),  # a program of this machine
        ({"Origin": "http://localhost:8050"}, True),
        ({"Origin": "http://localhost:8050", "Sec-Fetch-Site": "same-origin"}, True),
        ({"Origin": "http://localhost:9999"}, False),  # another server of this machine
        ({"Origin": "http://evil.example"}, False),
        ({"Origin": "https://pepr.lab.example"}, False),
        ({"Origin": "null"}, False),
        ({"Sec-Fetch-Site": "cross-site"}, False),
        ({"Sec-Fetch-Site": "same-site"}, False),
    ],
)
def test_scripts_of_other_pages_read_nothing(
    here: FlaskClient, headers: dict[str, str], answered: bool
) -> None:
    for method in (here.get, here.post):
        answer = method("/changes", headers={"Host": "localhost:8050", **headers})
        assert (answer.status_code != 403) == answered


def test_a_form_of_another_page_is_refused(here: FlaskClient) -> None:
    form = {"Host": "localhost", "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert here.post("/", headers=form).status_code == 403


def test_a_proxy_forwards_under_another_name_than_the_browser() -> None:
    proxied = _client(Guard.of("127.0.0.1", ["pepr.lab.example"]))
    for origin, refused in (("https://pepr.lab.example", False), ("https://evil.example", True)):
        answer = proxied.get("/changes", headers={"Host": "127.0.0.1:8050", "Origin": origin})
        assert (answer.status_code == 403) == refused


def test_a_link_of_another_page_leads_here_and_its_script_does_not(here: FlaskClient) -> None:
    foreign = {"Host": "localhost", "Sec-Fetch-Site": "cross-site"}
    assert here.get("/", headers={**foreign, "Sec-Fetch-Mode": "navigate"}).status_code == 200
    for mode in ("no-cors", "cors"):
        answer = here.get("/changes", headers={**foreign, "Sec-Fetch-Mode": mode})
        assert answer.status_code == 403


def test_every_answer_says_what_a_browser_may_do(here: FlaskClient) -> None:
    for host in ("localhost", "evil.example"):
        for path in EVERY:
            headers = here.get(path, headers={"Host": host}).headers
            policy = dict(part.split(maxsplit=1)
                          for part in headers["Content-Security-Policy"].split("; "))  # fmt: skip
            assert policy["default-src"] == policy["frame-ancestors"] == "'none'"
            assert policy["form-action"] == policy["base-uri"] == "'none'"
            assert policy["connect-src"] == "'self'"
            assert policy["script-src"] == "'self'"
            assert headers["X-Content-Type-Options"] == "nosniff"
            assert headers["Referrer-Policy"] == "no-referrer"
            assert headers["Cross-Origin-Resource-Policy"] == "same-origin"


def test_nothing_can_be_written_and_an_error_shows_no_code(
    here: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    for method in ("post", "put", "delete", "patch"):
        assert getattr(here, method)("/changes").status_code == 405
    monkeypatch.setattr("pepr_mlops.live.watch.Watch.news", lambda *_: 1 / 0)
    wrong = here.get("/changes")
    assert wrong.status_code == 500
    assert b"Traceback" not in wrong.data
    assert b"ZeroDivision" not in wrong.data
    assert not here.application.debug


@pytest.mark.parametrize(
    ("host", "needs_token"),
    [("127.0.0.1", False), ("localhost", False), ("::1", False), ("0.0.0.0", True), ("::", True),
     ("10.1.2.3", True), ("", True), ("no.such.host.invalid", True)],
)  # fmt: skip
def test_a_page_that_others_can_reach_requires_a_token(host: str, needs_token: bool) -> None:
    token = Guard.of(host).token
    assert (token is not None) == needs_token
    if token is not None:
        assert len(token) == 43  # 256 bits
        assert token != Guard.of(host).token


@pytest.fixture
def open_() -> tuple[FlaskClient, str]:
    guard = Guard.of("0.0.0.0")
    assert guard.token is not None
    return _client(guard), guard.token


@pytest.mark.parametrize("path", EVERY)
def test_without_the_token_nothing_is_answered(open_: tuple[FlaskClient, str], path: str) -> None:
    client, token = open_
    assert client.get(path).status_code == 401
    assert client.post(path).status_code == 401
    for wrong in ("", "x", token[:-1], token + "x", token.lower(), "ü"):
        assert client.get(path, query_string={"token": wrong}).status_code == 403
        assert client.get(path, headers={"Authorization": f"Bearer {wrong}"}).status_code == 403
    assert client.get(path, headers={"Authorization": f"Basic {token}"}).status_code == 401
    good = client.get(path, headers={"Authorization": f"Bearer {token}"})
    assert good.status_code == 200
    assert "Set-Cookie" not in good.headers


def test_the_token_becomes_a_cookie(open_: tuple[FlaskClient, str]) -> None:
    client, token = open_
    search = {"experiment": ['"><script>', "b"], "token": token}
    entered = client.get("/x", query_string=search)
    assert entered.headers["Set-Cookie"].endswith("; HttpOnly; Path=/; SameSite=Strict")
    assert entered.headers["Cache-Control"] == "no-store"
    body = entered.get_data(as_text=True)
    assert 'content="0;url=/?experiment=%22%3E%3Cscript%3E&amp;experiment=b"' in body
    assert token not in body
    assert client.get("/").status_code == 200
    assert client.get("/", headers={"Host": "evil.example"}).status_code == 403
    elsewhere = {"Host": "192.168.1.7:8050", "Authorization": f"Bearer {token}"}
    assert client.get("/", headers=elsewhere).status_code == 200
    other = _client(Guard.of("0.0.0.0"))
    name, _, value = entered.headers["Set-Cookie"].partition(";")[0].partition("=")
    other.set_cookie(name, value)
    assert other.get("/").status_code == 401


@pytest.fixture
def served(store: str, downloads: tuple[Path, str]) -> Iterator[Served]:
    """Address without and with the token of a page that others can reach, and a foreign page.

    Last come its answers: the Sec-Fetch-Site of each request, and the status.
    """
    for model in ("a", "b"):
        logged(store, run(model), "derma")
    guard = Guard.of("0.0.0.0")
    served = app.create(BOARD, tracking_uri=store, guard=guard)
    answers: list[tuple[str | None, int]] = []

    @served.after_request
    def _(answer: Response) -> Response:
        answers.append((request.headers.get("Sec-Fetch-Site"), answer.status_code))
        return answer

    server = app.listen(served, "0.0.0.0", 0)
    Thread(target=server.serve_forever, daemon=True).start()
    folder, foreign = downloads
    (folder / "index.html").write_text("foreign")
    address = f"http://127.0.0.1:{server.port}/"
    yield address, f"{address}?token={guard.token}", foreign, answers
    server.shutdown()


def test_a_browser_comes_in_by_the_token_and_a_foreign_page_does_not(
    served: Served,
) -> None:
    address, with_token, foreign, answers = served
    token = with_token.partition("=")[2]
    chromium = needs(Path("/usr/bin/chromium"), "a browser")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium,
            args=["--no-sandbox", "--host-resolver-rules=MAP evil.test 127.0.0.1"],
        )
        page = browser.new_page()
        sent: list[dict[str, str]] = []
        page.on("request", lambda r: sent.append({"url": r.url, **r.headers}))
        assert page.goto(address).status == 401
        page.goto(foreign.replace("127.0.0.1", "localhost"))  # another site
        page.evaluate("address => { location.href = address; }", f"{with_token}&experiment=derma")
        page.wait_for_function("() => document.documentElement.dataset.version", timeout=60_000)
        assert page.evaluate("page.groups.length") == 1
        expect(page).to_have_url(f"{address}?experiment=derma")
        assert page.evaluate("document.cookie") == ""
        carried = [r for r in sent if token in str(r)]
        assert [r["url"] for r in carried] == [f"{with_token}&experiment=derma"]
        assert not [r for r in sent if token in r.get("referer", "")]
        page.go_back()
        assert page.url == foreign.replace("127.0.0.1", "localhost") + "/"
        # a foreign page of the same machine, and a name that was bound to this machine later
        page.goto(foreign)
        answers.clear()
        page.evaluate(
            """async address => {
                const body = new Blob(["{}"], {type: "text/plain"});
                const how = {mode: "no-cors", credentials: "include"};
                for (const [path, more] of [["changes", {method: "POST", body}], ["report", {}]]) {
                    await fetch(address + path, {...how, ...more}).catch(() => null);
                }
            }""",
            address,
        )
        assert [a for a in answers if a[0] != "same-origin"] == [("same-site", 403)] * 2
        rebound = address.replace("127.0.0.1", "evil.test")
        assert page.goto(rebound).status == 403
        assert page.goto(f"{rebound}?token={token}").status == 403
        browser.close()


def test_the_command_prints_the_address_with_the_token(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('[[figure]]\nkind = "plane"\n')
    process = subprocess.Popen(
        [sys.executable, "-m", "pepr_mlops", "dashboard", "--host", "0.0.0.0", "--port", "0",
         "--dashboard", "mine.toml", "--tracking-uri", f"sqlite:///{tmp_path}/none.db"],
        cwd=tmp_path, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    line = process.stdout.readline()
    process.terminate()
    process.communicate(timeout=60)
    assert re.fullmatch(r"http://[^/\s]+:\d+/\?token=[\w-]{43} \(Ctrl-C to stop\)\n", line)
    assert "0.0.0.0" not in line


def test_the_page_shows_no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    uri = "http://user:S3cret@127.0.0.1:9"
    client = app.create(BOARD, experiments=["derma"], tracking_uri=uri).test_client()
    page = client.get("/").get_data(as_text=True)
    assert "--tracking-uri http://127.0.0.1:9<" in page
    watch = Watch(BOARD, uri)
    watch.news(View(("derma",)))
    watch.round()
    news = watch.news(View(("derma",)))
    assert news.shown is not None
    assert "http://127.0.0.1:9 refused" in news.shown.content.main
    refused = client.get("/report")
    assert refused.status_code == 409
    assert "S3cret" not in f"{page} {news} {refused.get_data(as_text=True)}"
