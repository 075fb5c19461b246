"""The live page in a real browser that reaches nothing but this machine."""

from __future__ import annotations

import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pandas as pd
import pytest
from conftest import needs
from made import logged, run
from playwright.sync_api import BrowserContext, Page, expect, sync_playwright

from pepr_mlops.comparison import pepr
from pepr_mlops.errors import WrongUse
from pepr_mlops.live import app, layout
from pepr_mlops.report.dashboards import parse

EVIL = "<script>alert(1)</script>"
MODELS = {  # P, Wh, GB
    "resnet18d": (0.80, 20.0, 4.0),
    "ghostnet_100": (0.70, 10.0, 2.0),
    EVIL: (0.90, 50.0, 1.0),
    "vit_tiny_patch16_224": (0.60, 30.0, 8.0),
}
BOARD = parse(
    {
        "title": f"Tested </title>{EVIL}",
        "figure": [{"kind": "plane"}, {"kind": "ranking"}, {"kind": "conditions"}],
    },
    "test",
)
SCORES = "#ranking tbody td:nth-child({})"


@pytest.fixture(scope="module")
def folder(_empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the store of the page lies."""
    folder = tmp_path_factory.mktemp("live")
    shutil.copy(_empty_store, folder / "mlflow.db")
    uri = f"sqlite:///{folder}/mlflow.db"
    for i, (model, (p, wh, gb)) in enumerate(MODELS.items()):
        for name in ("derma", EVIL):
            tags = {"pepr.experiment": name}
            logged(uri, run(model, performance=p, energy_wh=wh + (name == EVIL), memory_gb=gb,
                            start=1000 + i, tags=tags), name)  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    """Of the page, served in a thread."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layout, "TICK_S", 1)
        page = app.create(BOARD, tracking_uri=f"sqlite:///{folder}/mlflow.db")
        server = app.listen(page, "127.0.0.1", 0)
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.port}/"
        server.shutdown()
        thread.join(10)


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
def page(browser: BrowserContext, address: str) -> Iterator[Page]:
    """An empty page; at its end it has requested nothing from others and no script complained."""
    page = browser.new_page()
    wrong: list[str] = []
    page.on("request", lambda r: None if r.url.startswith((address, "data:", "blob:"))
            else wrong.append(r.url))  # fmt: skip
    page.on("console", lambda m: wrong.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("dialog", lambda dialog: (wrong.append(dialog.message), dialog.dismiss()))
    page.on("response", lambda r: wrong.append(f"{r.status} {r.url}") if r.status >= 400 else None)
    yield page
    page.close()
    assert wrong == []


def _open(page: Page, address: str, search: str = "?experiment=derma") -> None:
    page.goto(address + search)
    expect(page.locator("#ranking tbody tr")).not_to_have_count(0, timeout=60_000)
    expect(page.locator("#ranking")).not_to_contain_text("…", timeout=60_000)


def _column(page: Page, heading: str) -> list[str]:
    headings = page.locator("#ranking th").all_text_contents()
    return page.locator(SCORES.format(headings.index(heading) + 1)).all_text_contents()


def _expected(weights: tuple[float, float]) -> dict[str, str]:
    costs = pd.DataFrame(MODELS, index=["P", "E", "M"]).T
    relative = pd.DataFrame(
        {name: pepr.normalise(costs[name], pepr.bounds(costs[name])) for name in ("E", "M")}
    )
    found = pepr.pepr(costs["P"], relative, weights=weights).sort_values(ascending=False)
    return {model: f"{value:.4f}" for model, value in found.items()}


def test_figures_are_drawn_and_a_sentence_stands_where_nothing_is(page: Page, address: str) -> None:
    _open(page, address)
    for name in ("main", "1"):
        expect(page.locator(f"#graph-{name} .main-svg").first).to_be_visible(timeout=60_000)
    expect(page.locator("#graph-main .scatterlayer .trace").first).to_be_attached()
    expect(page.locator("#caption-2")).to_contain_text("Nothing to draw", timeout=60_000)
    opened = page.evaluate(
        """() => {
            const opened = [];
            window.open = address => opened.push(address);
            const click = {points: [{curveNumber: 0, pointIndex: 1}]};
            const open = window.dash_clientside.live.open;
            open(click, {data: [{ids: ["a", "b/c"]}]}, "http://127.0.0.1/#/runs/");
            open(click, {data: [{}]}, "http://127.0.0.1/#/runs/");
            open(click, {data: [{ids: ["a", "b"]}]}, null);
            open(null, {data: []}, null);
            return opened;
        }"""
    )
    assert opened == ["http://127.0.0.1/#/runs/b%2Fc"]
    assert page.locator("h1").text_content() == f"Tested </title>{EVIL}"
    assert page.title() == "PePR"
    assert EVIL in _column(page, "model")


def test_a_weight_that_is_moved_moves_the_ranking(page: Page, address: str) -> None:
    _open(page, address, "?experiment=derma&resource=E&resource=M&weights=0.98,0.5")
    slider = page.locator("#weight-0 [role=slider]")
    slider.focus()
    for key in ("ArrowRight", "ArrowRight"):
        slider.press(key)
    share = 1 / 1.5
    expect(page.locator("#share-0")).to_have_text(f"{share:.2f}")
    expected = _expected((share, 1 - share))
    best = next(iter(expected.values()))
    expect(page.locator(SCORES.format(8)).first).to_have_text(best)
    assert dict(zip(_column(page, "model"), _column(page, "PePR-E+M"), strict=True)) == expected
    expect(page).to_have_url(re.compile("weights=1%2C0.5"))
    slider.press("Home")
    expected = _expected((0.0, 1.0))
    expect(page.locator(SCORES.format(8)).first).to_have_text(next(iter(expected.values())))
    assert _column(page, "model") == list(expected)


def test_an_address_brings_back_its_view(page: Page, address: str) -> None:
    search = (
        "?experiment=derma&resource=E&resource=M&weights=0.6%2C0.2&alpha=2&normalisation=zero"
        "&mixed=allow&strict=1&max=E%3D30&min=performance%3D0.65&colour=kind&axis=cost&rows=7"
    )
    _open(page, address, search)
    expect(page.locator("#share-0")).to_have_text("0.75")
    assert page.url.endswith(search)
    expect(page.locator("#headline")).to_contain_text("Within E ≤ 30 Wh, P ≥ 0.65")
    assert set(_column(page, "model")) == {"resnet18d", "ghostnet_100"}
    assert page.locator("#limit-0").input_value() == "30"
    assert page.locator("#rows").input_value() == "7"
    for name in ("zero", "allow", "kind", "cost"):
        expect(page.locator(f"input[type=radio][value={name}]")).to_be_checked()
    expect(page.locator("#strict input")).to_be_checked()
    command = page.locator("#command").text_content() or ""
    for words in ("--resource-weights 0.75,0.25", "--alpha 2", "--allow-mixed", "--strict"):
        assert words in command


def test_a_typed_budget_filters_the_ranking_and_is_in_the_address(page: Page, address: str) -> None:
    _open(page, address)
    page.locator("#limit-0").fill("25")
    page.locator("#limit-0").press("Enter")
    expect(page.locator("#headline")).to_contain_text("2 of 4 models fit")
    expect(page).to_have_url(f"{address}?experiment=derma&max=E%3D25")
    assert set(_column(page, "model")) == {"resnet18d", "ghostnet_100"}


def test_nonsense_in_the_address_is_reported_and_harmless(page: Page, address: str) -> None:
    _open(page, address, f"?experiment=derma&alpha={EVIL}&{EVIL}=1&rows=-3")
    messages = page.locator("#messages p")
    expect(messages).to_have_count(3)
    assert EVIL in messages.nth(0).text_content()
    assert _column(page, "model")


def test_an_experiment_named_like_a_script_is_text(page: Page, address: str) -> None:
    page.goto(address)
    headline = page.locator("#headline")
    expect(headline).to_have_text("Choose one or several experiments.", timeout=60_000)
    expect(page.locator("#trouble")).to_be_empty()
    page.locator("#experiments").click()
    page.get_by_text(EVIL, exact=True).last.click()
    expect(page.locator("#headline")).to_contain_text(EVIL, timeout=60_000)
    expect(page.locator("#title-main")).to_contain_text(EVIL)
    assert page.locator("script", has_text="alert(1)").count() == 0


def test_a_run_that_is_logged_meanwhile_appears(page: Page, address: str, folder: Path) -> None:
    uri = f"sqlite:///{folder}/mlflow.db"
    logged(uri, run("one", start=5000, tags={"pepr.experiment": "growing"}), "growing")
    _open(page, address, "?experiment=growing")
    logged(uri, run("newcomer", start=6000, performance=0.9,
                    tags={"pepr.experiment": "growing"}), "growing")  # fmt: skip
    expect(page.locator("#ranking")).to_contain_text("newcomer", timeout=60_000)


def test_a_store_that_is_missing_is_reported_until_it_returns(
    page: Page, address: str, folder: Path
) -> None:
    _open(page, address)
    shutil.move(folder / "mlflow.db", folder / "away.db")
    try:
        expect(page.locator("#trouble")).to_contain_text("there is no store", timeout=60_000)
        expect(page.locator("#ranking tbody tr")).to_have_count(4)  # what was known stays
    finally:
        shutil.move(folder / "away.db", folder / "mlflow.db")
    expect(page.locator("#trouble")).to_be_empty(timeout=60_000)


def test_a_page_that_is_opened_while_the_store_is_missing_fills_itself(
    browser: BrowserContext, folder: Path
) -> None:
    page = browser.new_page()
    fresh = app.create(BOARD, tracking_uri=f"sqlite:///{folder}/mlflow.db")
    server = app.listen(fresh, "127.0.0.1", 0)
    Thread(target=server.serve_forever, daemon=True).start()
    shutil.move(folder / "mlflow.db", folder / "away.db")
    try:
        page.goto(f"http://127.0.0.1:{server.port}/?experiment=derma")
        expect(page.locator("#trouble")).to_contain_text("there is no store", timeout=60_000)
    finally:
        shutil.move(folder / "away.db", folder / "mlflow.db")
    expect(page.locator("#ranking tbody tr")).to_have_count(4, timeout=60_000)
    expect(page.locator("#trouble")).to_be_empty()
    page.close()
    server.shutdown()


def test_the_view_is_exported_as_a_page_of_its_own(
    page: Page, address: str, tmp_path: Path
) -> None:
    _open(page, address, "?experiment=derma&alpha=2")
    with page.expect_download(timeout=60_000) as download:
        page.locator("#export").click()
    path = tmp_path / "report.html"
    download.value.save_as(path)
    assert download.value.suggested_filename == "pepr-report.html"
    content = path.read_text(encoding="utf-8")
    assert content.lower().startswith("<!doctype html>")
    assert "--alpha 2" in content
    assert EVIL not in content


def test_it_follows_the_browsers_colours_and_fits_a_phone(page: Page, address: str) -> None:
    page.set_viewport_size({"width": 380, "height": 800})
    _open(page, address)
    for scheme, paper, figure in (
        ("light", "rgb(255, 255, 255)", "#fff"),
        ("dark", "rgb(22, 25, 29)", "#16191d"),
    ):
        page.emulate_media(color_scheme=scheme)
        page.wait_for_function(
            "colour => document.querySelector('#graph-main .js-plotly-plot')"
            "._fullLayout.paper_bgcolor === colour", arg=figure,
        )  # fmt: skip
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == paper
    assert page.evaluate("document.documentElement.scrollWidth") <= 380
    assert not page.locator("#controls").evaluate("element => element.open")


def test_the_page_loads_nothing_from_elsewhere(page: Page, address: str) -> None:
    answer = page.request.get(address)
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    assert "https://" not in answer.text()


def test_a_port_that_is_taken_is_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(WrongUse, match=f"port: {port} is taken"):
            app.listen(app.create(BOARD), "127.0.0.1", port)


def test_the_command_prints_its_address_and_ends_on_an_interrupt(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('[[figure]]\nkind = "plane"\n')
    default = signal.signal(signal.SIGINT, signal.SIG_DFL)  # a child inherits what nohup ignores
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "pepr_mlops", "dashboard", "--port", "0", "--dashboard",
             "mine.toml"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
    finally:
        signal.signal(signal.SIGINT, default)
    assert process.stdout is not None
    assert process.stdout.readline().startswith("http://127.0.0.1:")
    process.send_signal(signal.SIGINT)
    _, printed = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "Traceback" not in printed
