"""MLflow's own pages in a real browser: two runs, their curves side by side."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import needs
from mlflow import MlflowClient
from playwright.sync_api import Page, sync_playwright

import pepr_mlops
from pepr_mlops import RunSpec
from pepr_mlops.names import METRICS

WATCHED = ("train/loss", "test/accuracy", "energy/train_wh")
# Every line that is drawn on the page: run, metric, steps, values.
DRAWN = """[...document.querySelectorAll('.js-plotly-plot')].flatMap(
    plot => plot.data.map(t => [t.name, t.metricKey, [...(t.x || [])], [...(t.y || [])]]))"""


@pytest.fixture
def page() -> Iterator[Page]:
    chromium = needs(Path("/usr/bin/chromium"), "a browser")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser.new_page(viewport={"width": 1600, "height": 1200})
        browser.close()


def _curves(page: Page, address: str, runs: int) -> dict[tuple[str, str], tuple[Any, Any]]:
    """Steps and values by run and metric, once all watched ones are drawn, and no others."""
    page.goto(address)
    search = page.get_by_placeholder("Search metric charts")
    search.fill(f"^({'|'.join(WATCHED)})$", timeout=180_000)
    page.wait_for_function(
        f"""() => {{
            const drawn = {DRAWN};
            return {list(WATCHED)}.every(
                key => new Set(drawn.filter(t => t[1] === key && t[2].length).map(t => t[0])).size
                       === {runs});
        }}""",
        polling=1000,  # else at every frame, which takes the time to draw
        timeout=180_000,
    )
    return {(name, key): (x, y) for name, key, x, y in page.evaluate(DRAWN)}


def test_two_runs_show_and_compare_without_a_gap(
    page: Page, server: str, store: str, shapes: Path
) -> None:
    client = MlflowClient(server)
    names = {}
    for model in ("resnet10t", "mobilenetv2_050"):
        spec = RunSpec(
            model=model,
            dataset=str(shapes),
            image_size=32,
            epochs=2,
            pretrained=False,
            experiment="viewed",
        )
        run = pepr_mlops.run(spec, tracking_uri=server).run
        names[f"{model} 0 from scratch"] = run.run_id
    experiment = client.get_experiment_by_name("viewed").experiment_id

    together = _curves(page, f"{server}/#/experiments/{experiment}/runs?compareRunsMode=CHART", 2)
    for name, run_id in names.items():
        alone = _curves(page, f"{server}/#/experiments/{experiment}/runs/{run_id}/model-metrics", 1)
        for metric in WATCHED:
            history = client.get_metric_history(run_id, metric)
            expected = ([1, 2], pytest.approx([m.value for m in history]))
            assert together[name, metric] == expected
            assert alone[name, metric] == expected

    runs = "[" + ",".join(f'"{run_id}"' for run_id in names.values()) + "]"
    page.goto(f'{server}/#/compare-runs?runs={runs}&experiments=["{experiment}"]')
    page.get_by_text("pepr.energy_source").wait_for(timeout=180_000)
    metrics = [set(client.get_run(run_id).data.metrics) for run_id in names.values()]
    assert metrics[0] == metrics[1] <= set(METRICS)  # no gap in the table
    cells = page.locator("tr", has_text="pepr.energy_source").inner_text().split()
    assert cells[0] == "pepr.energy_source"
    assert cells[1] == cells[2]
    assert cells[1] in ("measured", "estimated")
