"""Does a frugal search find what training everything finds, and what does it take here?

    python benchmarks/search.py --data-root DIR

Twelve small models from scratch on PneumoniaMNIST (real X-rays, 28 px): a frugal search by PePR,
and then all of them to the end, each with a tracking store of its own. Processes start and end for
every step of the search; `wall_s` has that, energy and time of training do not. P is that on
test in both.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import click
import pandas as pd
from common import machine, write

from pepr_mlops.comparison import pepr
from pepr_mlops.sweep import plan, sweep
from pepr_mlops.sweep.driver import Result
from pepr_mlops.sweep.engine import Report
from pepr_mlops.sweep.jobs import jobs
from pepr_mlops.sweep.observed import Objective

MODELS = (
    *("resnet18d", "resnet10t", "mobilenetv2_050", "mobilenetv3_small_050", "lcnet_050"),
    *("tinynet_e", "mobilenetv2_035", "resnet14t", "mnasnet_small", "semnasnet_075", "regnetx_002"),
    "regnety_002",
)


@click.command()
@click.option("--data-root", type=click.Path(path_type=Path), required=True)
@click.option("--models", default=len(MODELS), help="the first so many")
@click.option("--epochs", default=10)
@click.option("--top", default=3)
@click.option("--out", type=click.Path(path_type=Path))
def main(data_root: Path, models: int, epochs: int, top: int, out: Path | None) -> None:
    specs = jobs(
        {
            "model": list(MODELS[:models]),
            "dataset": "pneumonia",
            "data_root": str(data_root.resolve()),
            "size": 28,
            "image_size": 28,
            "epochs": epochs,
            "pretrained": False,
            "device": "cpu",
        }
    )
    with tempfile.TemporaryDirectory() as folder:
        searching = _settings(Path(folder) / "frugal")
        search = sweep.frugal(specs, searching, "E", Objective(top=top), "test")
        sought, search_s = _sweep(specs, searching, search)
        every, all_s = _sweep(specs, _settings(Path(folder) / "all"), plan.exhaustive)
        found = search.verdict(sought.jobs, sought.runs)
        forecasts = sought.runs[sought.runs["probe"].notna()].set_index("model")
    truth = every.runs.set_index("model")
    by = pepr.bounds(truth["energy_wh"], "zero")
    truth["R"] = pepr.normalise(truth["energy_wh"], by)
    truth["score"] = pepr.pepr(truth["performance"], truth["R"])
    best = list(truth["score"].sort_values(ascending=False).index)
    write(
        {
            **machine(),
            "energy_source": sorted(set(every.runs["energy_source"])),
            "top_of_all": best[:top],
            "top_of_search": found.top,
            "best_found": best[0] in found.top,
            "hits": len({*best[:top]} & {*found.top}),
            "could_still_be_in_the_top": found.possible,
            "all": _costs(every.runs, all_s),
            "search": _costs(sought.runs, search_s),
            "forecast_of_all_wh": found.exhaustive,
            "models": [_row(m, truth.loc[m], found.table.loc[m], forecasts.loc[m]) for m in best],
        },
        out,
    )


def _settings(folder: Path) -> sweep.Settings:
    folder.mkdir()
    return sweep.Settings(f"sqlite:///{folder}/mlflow.db", folder / "checkpoints")


def _sweep(specs: Any, settings: sweep.Settings, strategy: Any) -> tuple[Result, float]:
    def show(report: Report) -> None:
        click.echo(f"{report.spec.model} {report.reason} {report.error or ''}", err=True)

    started = time.perf_counter()
    ended = sweep.run(specs, settings, lambda status: None, show, strategy)
    assert not ended.errors, ended.errors
    return ended, time.perf_counter() - started


def _costs(runs: pd.DataFrame, wall_s: float) -> dict[str, float]:
    return {
        "train_wh": float(runs["energy_wh"].sum()),
        "train_and_eval_wh": float(plan.spent_wh(runs).sum()),
        "train_s": float(runs["train_time_s"].sum()),
        "wall_s": wall_s,
    }


def _row(model: str, truth: Any, sought: Any, probe: Any) -> dict[str, Any]:
    return {
        "model": model,
        "P": truth["performance"],
        "energy_wh": truth["energy_wh"],
        "R": truth["R"],
        "score": truth["score"],
        "probe_forecast_wh": probe["metrics.forecast/train_wh"],
        "searched_epochs": int(sought["epoch"]),
        "searched_state": sought["state"],
        "searched_P": None if pd.isna(sought["P"]) else sought["P"],
        "searched_cost_wh": sought["cost"],
    }


if __name__ == "__main__":
    main()
