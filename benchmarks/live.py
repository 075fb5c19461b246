"""How soon does the live page follow a control?

    python benchmarks/live.py --models 1000

A SQLite store gets so many runs of different models, ten epochs each. In headless Chromium a key
moves the weight of energy; the clock runs from the key until the table shows other scores, and
apart from it over the server's answer alone.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
from common import machine, write
from playwright.sync_api import sync_playwright

from pepr_mlops.imports.files import FinishedRun
from pepr_mlops.spec import RunSpec
from pepr_mlops.tracking import import_runs

_EPOCHS = 10
_KEYS = ("ArrowRight", "PageUp", "ArrowLeft", "End", "Home") * 2  # each moves the slider
_FOLLOW = """() => {
    const words = () => document.querySelector('#ranking').innerText;
    const was = words();
    window.follows = null;
    const started = performance.now();
    const watch = new MutationObserver(() => {
        if (words() === was) return;
        window.follows = performance.now() - started;
        watch.disconnect();
    });
    watch.observe(document.querySelector('#page'),
        { subtree: true, childList: true, characterData: true });
}"""


@click.command()
@click.option("--models", default=1000, show_default=True)
@click.option("--out", type=click.Path(path_type=Path))
def main(models: int, out: Path | None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        uri = f"sqlite:///{folder}/mlflow.db"
        import_runs(_runs(models), uri)
        command = [sys.executable, "-m", "pepr_mlops", "dashboard", "--port", "0"]
        server = subprocess.Popen(
            [*command, "--tracking-uri", uri], stdout=subprocess.PIPE, text=True
        )
        try:
            assert server.stdout is not None
            found = _followed(server.stdout.readline().split()[0])
        finally:
            server.terminate()
            server.wait(30)
    write({**machine(), "models": models, "epochs": _EPOCHS, **found}, out)


def _followed(address: str) -> dict[str, Any]:
    answers: list[float] = []
    follows: list[float] = []
    view = "?experiment=live&resource=E&resource=M&resource=T"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox"]
        )
        tab = browser.new_page(viewport={"width": 1280, "height": 900})
        started = time.perf_counter()
        tab.goto(address + view)
        tab.wait_for_selector("#ranking tbody tr", timeout=120_000)
        first_s = time.perf_counter() - started
        for key in _KEYS:
            _quiet(tab)
            tab.locator("#weight-0 [role=slider]").focus()
            tab.evaluate(_FOLLOW)
            with tab.expect_response(
                lambda r: "ranking.children" in (r.request.post_data or "")
            ) as answer:
                tab.keyboard.press(key)
            tab.wait_for_function("() => window.follows !== null", timeout=20_000)
            answer.value.finished()
            timing = answer.value.request.timing
            answers.append(timing["responseEnd"] - timing["requestStart"])
            follows.append(float(tab.evaluate("() => window.follows")))
        browser.close()
    return {
        "first_view_s": first_s,
        "answer_ms": {"median": float(np.median(answers)), "most": max(answers)},
        "followed_ms": {"median": float(np.median(follows)), "most": max(follows)},
    }


def _quiet(tab: Any) -> None:
    """Wait until the intervals and the other figures have come."""
    tab.wait_for_function("() => !document.querySelector('#ranking').innerText.includes('…')")
    tab.wait_for_load_state("networkidle")


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
