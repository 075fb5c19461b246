"""The live page in a real browser that reaches nothing but this machine."""

from __future__ import annotations

import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest
from conftest import needs
from made import logged, run
from mlflow import MlflowClient
from playwright.sync_api import BrowserContext, Page, expect, sync_playwright

from pepr_mlops.errors import WrongUse
from pepr_mlops.live import app
from pepr_mlops.report.dashboards import parse
from pepr_mlops.report.templates import asset

EVIL = "<script>alert(1)</script>"
MODELS = {  # P, Wh
    "resnet18d": (0.80, 20.0),
    "ghostnet_100": (0.70, 10.0),
    EVIL: (0.90, 50.0),
    "vit_tiny_patch16_224": (0.60, 30.0),
}
BOARD = parse({"title": f"</title>{EVIL}", "figure": [{"kind": "plane"}]}, "test")
MINUTE = 60_000  # ms
ROWS = "() => page.groups.flatMap(group => group.rows.map(row => row.label))"


@pytest.fixture(scope="module")
def folder(_empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the store of the page lies."""
    folder = tmp_path_factory.mktemp("live")
    shutil.copy(_empty_store, folder / "mlflow.db")
    uri = f"sqlite:///{folder}/mlflow.db"
    for i, (model, (p, wh)) in enumerate(MODELS.items()):
        for name in ("derma", EVIL):
            made = run(model, performance=p, energy_wh=wh + (name == EVIL), start=1000 + i,
                       tags={"pepr.experiment": name})  # fmt: skip
            logged(uri, made, name)
    return folder


@pytest.fixture(scope="module")
def uri(folder: Path) -> str:
    return f"sqlite:///{folder}/mlflow.db"


def _serve(store: str) -> Iterator[str]:
    """Address of the page, served in a thread."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pepr_mlops.live.watch.TICK_S", 0.3)
        patch.setattr("pepr_mlops.live.watch._OPEN_S", 4.0)  # else it redraws what tests have shown
        patch.setattr(
            app, "asset", lambda name: asset(name).replace("TICK_MS = 3000", "TICK_MS = 500")
        )
        server = app.listen(app.create(BOARD, tracking_uri=store), "127.0.0.1", 0)
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.port}/"
        server.shutdown()
        thread.join(10)


@pytest.fixture(scope="module")
def address(uri: str) -> Iterator[str]:
    yield from _serve(uri)


@pytest.fixture(scope="module")
def browser() -> Iterator[BrowserContext]:
    chromium = needs(Path("/usr/bin/chromium"), "a browser")
    with sync_playwright() as playwright:
        nowhere = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
        started = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", nowhere]
        )
        yield started.new_context(viewport={"width": 1280, "height": 900})
        started.close()


@pytest.fixture
def page(browser: BrowserContext) -> Iterator[Page]:
    """An empty page; at its end it has requested nothing from others and no script complained."""
    page = browser.new_page()
    wrong: list[str] = []
    here = ("http://127.0.0.1:", "data:", "blob:")
    page.on("request", lambda r: None if r.url.startswith(here) else wrong.append(r.url))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("dialog", lambda dialog: (wrong.append(dialog.message), dialog.dismiss()))
    page.on("console", lambda m: wrong.append(m.text)
            if "Content Security Policy" in m.text else None)  # fmt: skip
    yield page
    page.close()
    assert wrong == []


def _open(page: Page, address: str, search: str = "?experiment=derma") -> None:
    page.goto(address + search)
    page.wait_for_function("() => page.groups.length > 0", timeout=MINUTE)


def _state(page: Page, address: str, eyebrow: str) -> None:
    page.goto(address)
    expect(page.locator(".no-results .eyebrow")).to_have_text(eyebrow, timeout=MINUTE)


def test_the_page_opens_at_once_and_says_what_it_reads(page: Page, address: str) -> None:
    page.route("**/changes*", lambda route: None)  # a server that takes its time
    page.goto(f"{address}?experiment=derma")
    expect(page.locator("h1")).to_have_text("Reading runs of derma …")
    expect(page.locator("#trouble")).to_be_empty()


def test_it_shows_what_the_report_shows(page: Page, address: str, uri: str) -> None:
    _open(page, address)
    assert set(page.evaluate(ROWS)) == set(MODELS)
    expect(page.locator("#updated")).to_have_text(re.compile(r"Updated \d\d:\d\d"))
    expect(page.locator("#under-way")).to_be_hidden()
    page.locator("figure.figure").first.scroll_into_view_if_needed()
    expect(page.locator(".figure .main-svg").first).to_be_visible(timeout=MINUTE)
    expect(page.locator("footer code")).to_have_text(
        f"pepr report --experiment derma --tracking-uri {uri}"
    )


def test_the_experiments_are_offered_and_a_click_opens_one(page: Page, address: str) -> None:
    _state(page, address, "Experiments")
    expect(page.locator("h1")).to_have_text("Which experiment?")
    expect(page.locator(".links a", has_text=EVIL)).to_have_count(1)
    with page.expect_navigation():
        page.locator(".links a", has_text=re.compile("^derma$")).click()
    page.wait_for_function("() => page.groups.length === 1", timeout=MINUTE)
    expect(page).to_have_url(f"{address}?experiment=derma")


def test_the_choice_of_experiments_works_by_keyboard(page: Page, address: str) -> None:
    _open(page, address)
    for _ in range(10):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.closest('#choice') !== null"):
            break
    page.keyboard.press("Enter")
    boxes = page.locator("#choice input[type=checkbox]")
    expect(boxes.first).to_be_focused()
    assert {EVIL, "derma"} <= set(page.locator("#choice label span").all_text_contents())
    page.keyboard.press("Escape")
    expect(page.locator("#choice summary")).to_be_focused()
    page.keyboard.press("Enter")
    page.get_by_role("checkbox", name=EVIL).focus()
    page.keyboard.press("Space")
    with page.expect_navigation():
        page.keyboard.press("Enter")
    page.wait_for_function("() => page.groups.length === 2", timeout=MINUTE)
    assert {group["name"] for group in page.evaluate("page.groups")} == {"derma", EVIL}


def test_names_are_text(page: Page, address: str) -> None:
    _open(page, address, f"?experiment={EVIL}")
    assert EVIL in page.evaluate(ROWS)
    expect(page.locator("#title")).to_contain_text(EVIL)
    assert page.locator("script", has_text="alert(1)").count() == 0
    _state(page, f"{address}?experiment={EVIL}2&{EVIL}=1", "Not found")
    expect(page.locator("h1")).to_contain_text(f"{EVIL}2")
    expect(page.locator(".message").first).to_contain_text(EVIL)


def test_a_run_that_ends_appears_and_the_reader_loses_nothing(
    page: Page, address: str, uri: str
) -> None:
    for i, model in enumerate(("a", "b", "c")):
        made = run(model, start=5000 + i, tags={"pepr.experiment": "growing"})
        logged(uri, made, "growing")
    _open(page, address, "?experiment=growing#margin=0.05")
    columns = page.locator("main details summary").first
    columns.click()
    columns.focus()
    page.get_by_role("searchbox", name="Search models").fill("a")
    columns.focus()
    page.evaluate("scrollTo(0, 300)")
    assert page.evaluate("scrollY") > 0
    top = "summary => summary.getBoundingClientRect().top"
    place = columns.evaluate(top)
    made = run("newcomer", start=6000, performance=0.9, tags={"pepr.experiment": "growing"})
    logged(uri, made, "growing")
    page.wait_for_function(f"() => ({ROWS})().includes('newcomer')", timeout=MINUTE)
    assert page.evaluate("settings.margin") == 0.05
    assert page.evaluate("page.groups[0].margin") == 0.01
    expect(page.locator("main details").first).to_have_attribute("open", "")
    expect(columns).to_be_focused()
    expect(page.get_by_role("searchbox", name="Search models")).to_have_value("a")
    expect(page.locator("#table tbody").first).not_to_contain_text("newcomer")  # which has no a
    assert columns.evaluate(top) == pytest.approx(place, abs=1)
    assert page.url.endswith("#margin=0.05")


def test_runs_under_way_have_a_bar_and_a_forecast(page: Page, address: str, uri: str) -> None:
    name, now = "going", int(time.time() * 1000)
    for model in ("a", "b"):
        logged(uri, run(model, tags={"pepr.experiment": name}), name)
    made = run("slow", status="RUNNING", start=now, epochs=10, train_time_s=180.0,
               energy_wh=1.5, tags={"pepr.experiment": name})  # fmt: skip
    points = [(metric, value, 3) for metric, value in made["metrics"].items()]
    run_id = logged(uri, {**made, "points": points}, name)
    _open(page, address, f"?experiment={name}")
    strip = page.locator("#under-way")
    expect(strip).to_contain_text(
        "2 runs finished, 1 running; 2 of 3 models have a result", timeout=MINUTE
    )
    expect(strip).to_contain_text("epoch 3 of 10, until about")
    expect(strip).to_contain_text("1.5 Wh so far, about 3.5 Wh to come")
    assert strip.locator("progress").evaluate("bar => bar.value / bar.max") == 0.3
    client = MlflowClient(uri)
    client.log_metric(run_id, "time/train_s", 240.0, step=4)
    expect(strip).to_contain_text("epoch 4 of 10", timeout=MINUTE)
    client.set_terminated(run_id)
    expect(strip).to_be_hidden(timeout=MINUTE)
    page.wait_for_function(f"() => ({ROWS})().includes('slow')", timeout=MINUTE)


def test_an_experiment_that_has_just_begun_shows_its_first_run_later(
    page: Page, address: str, uri: str
) -> None:
    _state(page, f"{address}?experiment=begun", "Not found")
    made = run("first", status="RUNNING", start=7000, tags={"pepr.experiment": "begun"})
    run_id = logged(uri, made, "begun")
    expect(page.locator(".no-results .eyebrow")).to_have_text("So far", timeout=MINUTE)
    expect(page.locator("#under-way")).to_contain_text("0 runs finished, 1 running")
    expect(page.locator("#under-way li")).to_contain_text("no forecast")
    MlflowClient(uri).set_terminated(run_id)
    page.wait_for_function("() => page.groups.length === 1", timeout=MINUTE)
    expect(page.locator(".no-results")).to_have_count(0)


def test_runs_that_all_failed_say_why(page: Page, address: str, uri: str) -> None:
    for i in range(3):
        tags = {"pepr.experiment": "failed", "pepr.reason": "crashed",
                "pepr.error": f"ValueError: {EVIL}"}  # fmt: skip
        logged(uri, run(f"m{i}", status="FAILED", tags=tags), "failed")
    _state(page, f"{address}?experiment=failed", "Nothing finished")
    expect(page.locator("h1")).to_have_text("All 3 runs ended without a result")
    expect(page.locator("blockquote")).to_have_text(f"ValueError: {EVIL}")


def test_runs_that_differ_are_groups(page: Page, address: str, uri: str) -> None:
    for i, model in enumerate(("a", "b", "c")):
        for pretrained in (True, False)[: 1 + (i > 0)]:
            tags = {"pepr.experiment": "mixed"}
            logged(uri, run(model, start=8000 + i, pretrained=pretrained, tags=tags), "mixed")
    _open(page, address, "?experiment=mixed")
    assert page.evaluate("page.groups.map(group => [group.name, group.rows.length])") == [
        ["mixed [pretrained=true]", 3],
        ["mixed [pretrained=false]", 2],
    ]


def test_one_run_is_shown(page: Page, address: str, uri: str) -> None:
    logged(uri, run("only", tags={"pepr.experiment": "one"}), "one")
    _open(page, address, "?experiment=one")
    assert page.evaluate(ROWS) == ["only"]


def test_an_empty_server_shows_how_to_train(page: Page, store: str) -> None:
    for address in _serve(store):
        _state(page, address, "No runs yet")
        expect(page.locator(".no-results code")).to_contain_text(f"--tracking-uri {store}")
        page.get_by_role("button", name="Copy").click()
        expect(page.locator("#copy-command")).to_have_text(re.compile("Copied|Selected"))


def test_a_store_that_is_missing_is_reported_until_it_returns(
    page: Page, address: str, folder: Path
) -> None:
    _open(page, address)
    shutil.move(folder / "mlflow.db", folder / "away.db")
    try:
        trouble = page.locator("#trouble")
        expect(trouble).to_contain_text("No news from the tracking server", timeout=MINUTE)
        expect(trouble).to_contain_text("there is no store")
        assert set(page.evaluate(ROWS)) == set(MODELS)  # what was known stays
    finally:
        shutil.move(folder / "away.db", folder / "mlflow.db")
    expect(page.locator("#trouble")).to_be_empty(timeout=MINUTE)


def test_a_page_that_is_opened_while_the_store_is_missing_fills_itself(
    page: Page, folder: Path, uri: str
) -> None:
    shutil.move(folder / "mlflow.db", folder / "away.db")
    served = _serve(uri)
    try:
        _state(page, f"{next(served)}?experiment=derma", "No runs yet")
        expect(page.locator(".no-results code")).to_contain_text("--experiment derma")
        expect(page.locator("#trouble")).to_be_empty()
    finally:
        shutil.move(folder / "away.db", folder / "mlflow.db")
    page.wait_for_function("() => page.groups.length === 1", timeout=MINUTE)
    expect(page.locator("#trouble")).to_be_empty()
    next(served, None)
    expect(page.locator("#trouble")).to_contain_text(
        "pepr dashboard has not answered", timeout=MINUTE
    )
    assert set(page.evaluate(ROWS)) == set(MODELS)


def test_the_view_is_downloaded_as_a_page_with_the_readers_margin(
    page: Page, address: str, tmp_path: Path
) -> None:
    _open(page, address, "?experiment=derma&alpha=2#margin=0.05")
    with page.expect_download(timeout=MINUTE) as download:
        page.locator("#download").click()
    path = tmp_path / "report.html"
    download.value.save_as(path)
    assert download.value.suggested_filename == "pepr-report-derma.html"
    content = path.read_text(encoding="utf-8")
    assert content.lower().startswith("<!doctype html>")
    assert "--alpha 2 --margin 0.05" in content
    assert EVIL not in content
    assert '"margin":0.05' in content


def test_it_fits_a_phone(page: Page, address: str) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    for search in ("", "?experiment=derma", "?experiment=nope"):
        page.goto(address + search)
        page.wait_for_function("() => document.documentElement.dataset.version")
        page.locator("#choice summary").click()
        expect(page.locator("#choice label").first).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        choice = page.locator("#choice form").bounding_box()
        assert choice is not None
        assert choice["x"] >= 0
        assert choice["x"] + choice["width"] <= 390


def test_a_port_that_is_taken_is_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(WrongUse, match=f"port: {port} is taken"):
            app.listen(app.create(BOARD), "127.0.0.1", port)


def _dashboard(*words: str, cwd: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "pepr_mlops", "dashboard", "--port", "0", *words],
        cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_the_command_prints_its_address_and_ends_on_an_interrupt(uri: str, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('[[figure]]\nkind = "plane"\n')
    default = signal.signal(signal.SIGINT, signal.SIG_DFL)  # a child inherits what nohup ignores
    try:
        process = _dashboard("--dashboard", "mine.toml", "--tracking-uri", uri, cwd=tmp_path)
    finally:
        signal.signal(signal.SIGINT, default)
    assert process.stdout is not None
    assert process.stdout.readline().startswith("http://127.0.0.1:")
    process.send_signal(signal.SIGINT)
    _, printed = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "Traceback" not in printed


def test_the_command_serves_a_page_where_there_is_no_store_yet(page: Page, tmp_path: Path) -> None:
    process = _dashboard(cwd=tmp_path)
    try:
        assert process.stdout is not None
        _state(page, process.stdout.readline().split()[0], "No runs yet")
        expect(page.locator(".no-results code")).to_contain_text(f"{tmp_path}/mlflow.db")
        assert list(tmp_path.iterdir()) == []
    finally:
        process.terminate()
        process.communicate(timeout=60)


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["--experiment", "dermma"], 2, "did you mean 'derma'?"),
        (
            ["--tracking-uri", "sqlite:///no/such/mlflow.db"],
            *(2, "there is no store no/such/mlflow.db"),
        ),
        (["--tracking-uri", "http://127.0.0.1:9"], 1, "(Connection refused)"),
    ],
)
def test_what_is_not_there_is_one_line_before_the_page_is_served(
    uri: str, tmp_path: Path, words: list[str], status: int, message: str
) -> None:
    process = _dashboard("--tracking-uri", uri, *words, cwd=tmp_path)
    printed, errors = process.communicate(timeout=60)
    assert process.returncode == status
    assert printed == ""
    assert message in errors
    assert errors.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
