"""How far off is the forecast after the first epoch, and how far carbontracker's rule?

    python benchmarks/forecast.py --out benchmarks/results/forecast.json

Trains small models on digits (or with --data-root on PneumoniaMNIST, real X-rays) as `pepr train`
does, and reads from each run's tracking store what was forecast after the first epoch and what it
came to. carbontracker's rule on the same run is the mean of the monitored epochs, by default the
first alone, times the epochs (`carbontracker/predictor.py`).

An error is the forecast over the final value, less one; `median_error` is the median of their sizes
and `bias` that of themselves. `epochs_cv` is how much the epochs after the first differ among
themselves, standard deviation over mean, which no forecast can foresee.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Any

import click
import pandas as pd
from common import machine, write

from pepr_mlops import RunSpec
from pepr_mlops.query import load_epochs, load_runs

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
    data: dict[str, Any] = {"dataset": "digits"}
    if data_root is not None:
        data = {"dataset": "pneumonia", "size": 28, "data_root": str(data_root.resolve())}
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for i, (model, image_size, batch_size, fraction) in enumerate(RUNS[:runs]):
            spec = RunSpec(
                model=model,
                image_size=image_size,
                batch_size=batch_size,
                fraction=fraction * (0.25 if data_root else 1.0),  # there are four times as many
                epochs=epochs,
                pretrained=False,
                experiment=f"run {i}",
                **data,
            )
            rows.append(_row(spec, f"sqlite:///{folder}/mlflow.db"))
            click.echo(rows[-1], err=True)
    write(
        {
            **machine(),
            "dataset": data["dataset"],
            "epochs": epochs,
            "energy_source": sorted({row["energy_source"] for row in rows}),
            **{cost: _summary([row[cost] for row in rows]) for cost in COSTS},
            "runs": rows,
        },
        out,
    )


def _row(spec: RunSpec, tracking_uri: str) -> dict[str, Any]:
    """What a job in a process of its own forecast, and came to."""
    words = [f"{name}={value}" for name, value in spec.as_params().items()]
    subprocess.run(
        [sys.executable, "-m", "pepr_mlops.cli.project", *words],
        check=True,
        env={**os.environ, "MLFLOW_TRACKING_URI": tracking_uri},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    (run,) = load_runs(spec.experiment, tracking_uri=tracking_uri).to_dict("records")
    names = [name for pair in COSTS.values() for name in pair]
    history = load_epochs([run["run_id"]], names, tracking_uri=tracking_uri).set_index("step")
    return {
        "model": spec.model,
        "image_size": spec.image_size,
        "batch_size": spec.batch_size,
        "fraction": spec.fraction,
        "energy_source": run["energy_source"],
        **{
            cost: _errors(history[so_far], history.loc[1, ahead])
            for cost, (so_far, ahead) in COSTS.items()
        },
    }


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
