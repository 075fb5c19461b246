"""How far off is the forecast after the first epoch, and how far carbontracker's rule?

    python benchmarks/forecast.py --out benchmarks/results/forecast.json

Trains small models on digits (or with --data-root on PneumoniaMNIST, real X-rays) as a sweep does,
each in a process of its own, and reads from each run what was forecast after the first epoch and
what it came to. carbontracker's rule on the same run is the mean of the monitored epochs, by
default the first alone, times the epochs (`carbontracker/predictor.py`).

An error is the forecast over the final value, less one; `median_error` is the median of their sizes
and `bias` that of themselves. `epochs_cv` is how much the epochs after the first differ among
themselves, standard deviation over mean, which no forecast can foresee.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Any

import click
import pandas as pd
from common import machine, write

from pepr_mlops import RunSpec
from pepr_mlops.data import identify_all
from pepr_mlops.sweep import sweep
from pepr_mlops.tracking.read import load_epochs, load_runs

# model, pixels, images of a batch, share of the training set
RUNS = (
    ("resnet10t", 64, 32, 1.0),
    ("mobilenetv2_050", 96, 32, 1.0),
    ("lcnet_050", 128, 32, 1.0),
    ("mobilenetv3_small_050", 96, 32, 1.0),
    ("tinynet_e", 96, 16, 1.0),
    ("regnetx_002", 64, 32, 1.0),
    ("mnasnet_small", 64, 32, 1.0),
    ("resnet18d", 32, 32, 0.7),
    ("regnety_002", 64, 64, 1.0),
    ("mobilenetv2_035", 96, 64, 1.0),
    ("resnet14t", 32, 32, 1.0),
)
COSTS = {
    "energy": ("energy/train_wh", "forecast/train_wh"),
    "time": ("time/train_s", "forecast/train_s"),
}
RULES = ("forecast", "carbontracker")


@click.command()
@click.option("--data-root", type=click.Path(path_type=Path), help="train on PneumoniaMNIST there")
@click.option("--runs", default=len(RUNS), help="the first so many")
@click.option("--epochs", default=5)
@click.option("--out", type=click.Path(path_type=Path))
def main(data_root: Path | None, runs: int, epochs: int, out: Path | None) -> None:
    head = machine()
    data: dict[str, Any] = {"dataset": "digits"}
    share = 1.0
    if data_root is not None:  # of four times as many images
        data = {"dataset": "pneumonia", "size": 28, "data_root": str(data_root.resolve())}
        share = 0.7 if head["device"].startswith("cuda") else 0.25
    named = [
        RunSpec(
            model=model,
            image_size=image_size,
            batch_size=batch_size,
            fraction=fraction * share,
            epochs=epochs,
            pretrained=False,
            experiment="forecast",
            **data,
        )
        for model, image_size, batch_size, fraction in RUNS[:runs]
    ]
    with tempfile.TemporaryDirectory() as folder:
        uri = f"sqlite:///{folder}/mlflow.db"
        sweep.run(
            identify_all(named),
            sweep.Settings(tracking_uri=uri, checkpoints=Path(folder) / "checkpoints"),
            lambda status: None,
            lambda report: click.echo(f"{report.spec.model}: {report.reason}", err=True),
        )
        rows = _rows(uri)
    assert len(rows) == runs
    write(
        {
            **head,
            "dataset": data["dataset"],
            "epochs": epochs,
            "energy_source": sorted({row["energy_source"] for row in rows}),
            **{cost: _summary([row[cost] for row in rows]) for cost in COSTS},
            "runs": rows,
        },
        out,
    )


def _rows(uri: str) -> list[dict[str, Any]]:
    """What each run forecast, and came to."""
    runs = load_runs("forecast", tracking_uri=uri)
    names = [name for pair in COSTS.values() for name in pair]
    points = load_epochs(list(runs["run_id"]), names, tracking_uri=uri).set_index("step")
    histories = dict(list(points.groupby("run_id")))
    columns = ["model", "image_size", "batch_size", "fraction", "energy_source"]
    rows = []
    for run in runs.to_dict("records"):
        history = histories[run["run_id"]]
        rows.append({name: run[name] for name in columns})
        for cost, (so_far, forecast) in COSTS.items():
            rows[-1][cost] = _errors(history[so_far], history.loc[1, forecast])
    return rows


def _errors(so_far: pd.Series[float], forecast: float) -> dict[str, float]:
    """Of a cost after each epoch, whose index counts from 1."""
    final, epochs = float(so_far.iloc[-1]), len(so_far)
    naive = float(so_far.loc[1]) * epochs
    later = list(so_far.diff().dropna())
    return {
        "first_epoch": float(so_far.loc[1]),
        "final": final,
        "forecast": float(forecast),
        "carbontracker": naive,
        "forecast_error": float(forecast) / final - 1,
        "carbontracker_error": naive / final - 1,
        "epochs_cv": stdev(later) / fmean(later),
    }


def _summary(of: list[dict[str, float]]) -> dict[str, float]:
    sizes = {rule: [abs(row[f"{rule}_error"]) for row in of] for rule in RULES}
    return {
        **{f"{rule}_median_error": median(sizes[rule]) for rule in RULES},
        **{f"{rule}_bias": median(row[f"{rule}_error"] for row in of) for rule in RULES},
        "forecast_nearer": sum(a < b for a, b in zip(*sizes.values(), strict=True)),
        "epochs_cv_median": median(row["epochs_cv"] for row in of),
    }


if __name__ == "__main__":
    main()
