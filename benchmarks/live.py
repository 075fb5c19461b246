"""How soon does the live page follow a reader, and how soon the server?

    python benchmarks/live.py --models 131 --models 1000

A SQLite store gets so many runs of different models, ten epochs each, and headless Chromium opens
the live page. Changes of the margin, α, a weight, the search and the order of the table are made in
turn; one clock runs from the event until the words and the table have been painted, another until
the figure has, too. Then a run is added, and the clock runs until the page shows it.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from itertools import chain
from pathlib import Path
from typing import Any

import click
import numpy as np
from common import machine, write
from playwright.sync_api import Page, sync_playwright

from pepr_mlops.imports.files import FinishedRun
from pepr_mlops.spec import RunSpec
from pepr_mlops.tracking import import_runs

_EPOCHS = 10
_CHANGES = 50
# The field, and what is typed into it in turn; the last is a heading of the table to click.
_FIELDS = {
    "margin": ("#set-margin", ["2", "3", "5", "7"]),
    "alpha": ("#set-alpha", ["2", "3", "1.5", "4"]),
    "weight": ("[id='set-weight-E']", ["0.3", "0.6", "0.9", "0.5"]),
    "search": ("#search", ["model_0", "model_01", "model_2", ""]),
}
_SORT = "#table th:nth-of-type({}) .sort"
_TIMED = """([selector, value]) => new Promise((done) => {
    const field = document.querySelector(selector), began = performance.now();
    const after = () => performance.now() - began, frame = requestAnimationFrame;
    let words;  // the first task after the frame with the words; the next one draws the figure
    frame(() => setTimeout(() => { words = after(); }));
    if (value === null) {
        field.click();
    } else {
        field.value = value;
        field.dispatchEvent(new Event("input", { bubbles: true }));
    }
    // the figure is drawn after that frame, and the frame after its own begins when it is painted
    frame(() => setTimeout(() => frame(() => frame(() => done([words, after()])))));
})"""


@click.command()
@click.option("--models", multiple=True, type=int, default=(131, 1000), show_default=True)
@click.option("--out", type=click.Path(path_type=Path))
def main(models: tuple[int, ...], out: Path | None) -> None:
    write({**machine(), "epochs": _EPOCHS, "pages": [_page(n) for n in models]}, out)


def _page(models: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        uri = f"sqlite:///{folder}/mlflow.db"
        *runs, newcomer = _runs(models + 1)
        import_runs(runs, uri)
        command = [sys.executable, "-m", "pepr_mlops", "dashboard", "--port", "0"]
        server = subprocess.Popen(
            [*command, "--tracking-uri", uri], stdout=subprocess.PIPE, text=True
        )
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox"]
        )
        try:
            assert server.stdout is not None
            address = server.stdout.readline().split()[0]
            tab = browser.new_page(viewport={"width": 1400, "height": 900})
            began = time.perf_counter()
            tab.goto(f"{address}?experiment=live&resource=E&resource=M&resource=T")
            skeleton_s = time.perf_counter() - began
            tab.wait_for_function("() => page.groups.length > 0", timeout=600_000)
            content_s = time.perf_counter() - began
            tab.wait_for_load_state("networkidle")
            changes = _changes(tab)
            import_runs([newcomer], uri)
            began = time.perf_counter()
            shown = "(n) => page.groups[0].rows.length === n"
            tab.wait_for_function(shown, arg=models + 1, timeout=600_000)
            news_s = time.perf_counter() - began
        finally:
            browser.close()
            server.terminate()
            server.wait(30)
    return {
        "models": models,
        "skeleton_s": skeleton_s,
        "content_s": content_s,
        "news_s": news_s,
        "changes": changes,
    }


def _changes(tab: Page) -> dict[str, Any]:
    """Milliseconds from a change until the page shows it, of each kind and of all."""
    times: dict[str, list[list[float]]] = {name: [] for name in [*_FIELDS, "sort"]}
    columns = tab.locator("#table th .sort").count()
    for i in range(_CHANGES):
        name = list(times)[i % len(times)]
        if name == "sort":
            selector = _SORT.format(1 + i // len(times) % columns)
            times[name].append(tab.evaluate(_TIMED, [selector, None]))
        else:
            selector, values = _FIELDS[name]
            value = values[i // len(times) % len(values)]
            times[name].append(tab.evaluate(_TIMED, [selector, value]))
        tab.wait_for_timeout(200)
    every = {"all": list(chain.from_iterable(times.values())), **times}
    return {name: _spread(ms) for name, ms in every.items()}


def _spread(ms: list[list[float]]) -> dict[str, float]:
    """Of [words, figure] of each change."""
    spread = {
        f"{part}_p{q}_ms": float(np.percentile(column, q))
        for part, column in zip(("words", "figure"), zip(*ms, strict=True), strict=True)
        for q in (50, 95)
    }
    return spread | {"n": len(ms)}


def _runs(models: int) -> list[FinishedRun]:
    rng = np.random.default_rng(0)
    parameters = np.sort(10 ** rng.uniform(6, 8.2, models))
    energy_wh = 5 + parameters / 1e6 * rng.uniform(0.5, 2, models)
    p = rng.beta(20, 5, models)
    tags = {
        "pepr.experiment": "live",
        "pepr.performance": "test/accuracy",
        "pepr.memory": "memory/reserved_gb",
        "pepr.energy_source": "measured",
        "pepr.energy_components": "gpu=measured",
        "pepr.hardware": "made up",
    }
    return [
        FinishedRun(
            experiment="live",
            name=f"model_{i:04d}",
            source="benchmark",
            key=str(i),
            params=RunSpec(model=f"model_{i:04d}").as_params(),
            tags={**tags, "pepr.parameters": f"{parameters[i]:.0f}"},
            points=tuple(
                (name, float(value), step)
                for step in range(1, _EPOCHS + 1)
                for name, value in (
                    ("performance", p[i] * (1 - 0.4 * np.exp(-0.3 * step))),
                    ("energy/train_wh", energy_wh[i] * step / _EPOCHS),
                    ("time/train_s", energy_wh[i] * 2 * step),
                    ("memory/reserved_gb", 1 + parameters[i] / 1e7),
                )
            ),
        )
        for i in range(models)
    ]


if __name__ == "__main__":
    main()
