"""How large is a report, how long does it take to make, and how long until a browser has drawn it?

    python benchmarks/report.py --models 131 --models 1000
    python benchmarks/report.py --models 131 --runs 1000 --runs 10000 --runs 100000

Runs of so many different models, one of each or as many seeds as `--runs` takes, with ten epochs
each and two energy components, are made in memory; the page is written to a file and opened in
headless Chromium without a network, the fastest of five times.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd
from common import machine, write

from pepr_mlops.comparison import Question, compare
from pepr_mlops.comparison.runs import tidy
from pepr_mlops.report import dashboards, page
from pepr_mlops.report.material import HISTORY, Material, Part, gather
from pepr_mlops.spec import RunSpec

_EPOCHS = 10


@click.command()
@click.option("--models", multiple=True, type=int, default=(131, 1000), show_default=True)
@click.option("--runs", multiple=True, type=int, help="in all  [default: one per model]")
@click.option("--out", type=click.Path(path_type=Path))
def main(models: tuple[int, ...], runs: tuple[int, ...], out: Path | None) -> None:
    pages = [_page(m, n) for m in models for n in runs or (m,)]
    write({**machine(), "epochs": _EPOCHS, "pages": pages}, out)


def _page(models: int, runs: int) -> dict[str, Any]:
    started = time.perf_counter()
    material = made(models, runs)
    compared = time.perf_counter()
    text = page.html(
        material, dashboards.load("default"), command="benchmark", made="Made by a benchmark."
    )
    rendered = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "page.html"
        path.write_text(text, encoding="utf-8")
        drawn = [_drawn(path) for _ in range(5)]
    first_s, every_s = (min(times) for times in zip(*drawn, strict=True))
    return {
        "models": models,
        "runs": runs,
        "size_mb": len(text.encode()) / 1e6,
        "compare_s": compared - started,
        "render_s": rendered - compared,
        "first_screen_s": first_s,
        "all_figures_s": every_s,
    }


# Figures are drawn when they come near the window, one after another.
_SCROLL = """async () => {
  for (const figure of document.querySelectorAll(".figure:not([hidden])")) {
    figure.scrollIntoView();
    while (!figure.querySelector(".main-svg")) await new Promise(requestAnimationFrame);
  }
}"""


def _drawn(path: Path) -> tuple[float, float]:
    """Seconds from opening the page until its first screen is drawn, and until all figures are,
    when one scrolls through."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox"]
        )
        tab = browser.new_context(offline=True, viewport={"width": 1400, "height": 900}).new_page()
        started = time.perf_counter()
        tab.goto(f"file://{path}")
        tab.wait_for_selector("#hero .main-svg")
        tab.evaluate("() => new Promise(requestAnimationFrame)")  # painted
        first = time.perf_counter() - started
        tab.evaluate(_SCROLL)
        every = time.perf_counter() - started
        browser.close()
    return first, every


def made(models: int, n: int | None = None) -> Material:
    """Material of so many models, a run each or `n` in all, as a GPU would have measured them."""
    rng = np.random.default_rng(0)
    n = n or models
    model, seed = np.arange(n) % models, np.arange(n) // models
    parameters = np.sort(10 ** rng.uniform(6, 8.2, models))[model]
    energy_wh = 5 + parameters / 1e6 * rng.uniform(0.5, 2, models)[model]
    energy_wh *= 1 + 0.02 * rng.random(n)
    p = rng.beta(20, 5, models)[model] * (1 - 0.02 * rng.random(n))
    ids = [f"{i:032x}" for i in range(n)]
    params = RunSpec().as_params() | {"model": "", "seed": ""}
    raw = pd.DataFrame(
        {
            "run_id": ids,
            "status": "FINISHED",
            "start_time": pd.Timestamp("2026-11-01", tz="UTC"),
            "end_time": pd.Timestamp("2026-11-01 01:00", tz="UTC"),
            "mlflow_experiment": "benchmark",
            "non_finite": "",
            **{f"params.{key}": value for key, value in params.items()},
            "tags.pepr.experiment": "benchmark",
            "tags.pepr.performance": "test/accuracy",
            "tags.pepr.memory": "memory/reserved_gb",
            "tags.pepr.energy_source": "measured",
            "tags.pepr.energy_components": "cpu=measured,gpu=measured",
            "tags.pepr.hardware": "made up",
            "tags.pepr.parameters": [f"{n:.0f}" for n in parameters],
            "metrics.performance": p,
            "metrics.energy/train_wh": energy_wh,
            "metrics.energy/train_gpu_wh": energy_wh * 0.8,
            "metrics.energy/train_cpu_wh": energy_wh * 0.2,
            "metrics.memory/reserved_gb": 1 + parameters / 1e7,
            "metrics.time/train_s": energy_wh * 20,
        }
    )
    raw["params.model"] = [f"architecture_{i:04d}_with_a_name" for i in model]
    raw["params.seed"] = seed.astype(str)
    runs = tidy(raw)
    steps = np.arange(1, _EPOCHS + 1)
    share = steps / _EPOCHS
    epochs = pd.DataFrame(
        {
            "run_id": np.repeat(ids, _EPOCHS),
            "step": np.tile(steps, n),
            "performance": np.outer(p, 1 - 0.4 * np.exp(-3 * share)).ravel(),
            "energy/train_wh": np.outer(energy_wh, share).ravel(),
            "time/train_s": np.outer(energy_wh * 20, share).ravel(),
        }
    ).reindex(columns=["run_id", "step", *HISTORY])
    question = Question(resources=("E",))
    return gather([Part(compare(runs, question), question, runs)], epochs)


if __name__ == "__main__":
    main()
