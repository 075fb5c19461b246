"""The measurements released with the PePR paper: 131 models in 8 experiments.

`all_results.csv` of https://github.com/saintslab/PePR. Its columns are read by their content, which
their names do not always describe: `energy` is kWh and includes the building's overhead, `co2`
grams, `mem*` GB; `test_00` to `test_09` are test accuracies after each epoch, averaged over full
batches of 32; `train_time` is the last epoch with its evaluation, so that the training time is
about ten times that, and is marked as an estimate.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pepr_mlops.errors import WrongUse
from pepr_mlops.imports.files import AMOUNT, SHARE, FinishedRun, Number, read_csv

_WHERE = "https://github.com/saintslab/PePR (folder data)"
_SOURCE = "PePR paper, all_results.csv"
_EPOCHS = 10
_EXACT = 1e-3  # of counts, which the file has in single precision

# What each experiment trained on, and how. A tenth of the data is drawn in `*_small`; of
# derma_smallest neither the fraction nor the initial weights are stated.
_EXPERIMENTS: dict[str, dict[str, str]] = {
    "derma": {"dataset": "derma", "pretrained": "false", "fraction": "1.0"},
    "derma_pt": {"dataset": "derma", "pretrained": "true", "fraction": "1.0"},
    "derma_small": {"dataset": "derma", "pretrained": "true", "fraction": "0.1"},
    "derma_smallest": {"dataset": "derma"},
    "lidc": {"dataset": "lidc", "pretrained": "true", "fraction": "1.0"},
    "lidc_small": {"dataset": "lidc", "pretrained": "true", "fraction": "0.1"},
    "pneumonia": {"dataset": "pneumonia", "pretrained": "true", "fraction": "1.0"},
    "pneumonia_small": {"dataset": "pneumonia", "pretrained": "true", "fraction": "0.1"},
}
_TEST_IMAGES = {"derma": 1984, "lidc": 3008, "pneumonia": 608}  # in full batches of 32
_PROTOCOL = {  # section 3 of the paper
    "epochs": str(_EPOCHS),
    "batch_size": "32",
    "lr": "0.0005",
    "image_size": "256",
    "intensities": "unit",
    "precision": "fp32",
}
_TAGS = {
    "pepr.performance": "test/accuracy",
    "pepr.memory": "memory/reserved_gb",
    "pepr.energy_source": "imported",
    "pepr.energy_components": "total=imported",
    "pepr.energy_method": "carbontracker, overhead of the building included",
    "pepr.time_source": "estimated",
    # the card of 25.4 GB; 350 W of it, a desktop CPU and the overhead come to 600 W in clean rows
    "pepr.hardware": "NVIDIA GeForce RTX 3090",
    "pepr.machine_power_limit_w": "1000",
    "pepr.pue": "1",  # it is in the energy
}
_ACCURACIES = [f"test_{epoch:02d}" for epoch in range(_EPOCHS)]
_NUMBERS = {
    "num_param": Number(1, 1e15, integer=True),
    **dict.fromkeys(["energy", "co2", "memR", "memM", "train_time"], AMOUNT),
    **dict.fromkeys(_ACCURACIES, SHARE),
}


def read(folder: Path) -> list[FinishedRun]:
    """A run for each row of `folder/all_results.csv`. Raises `WrongUse` for any other file."""
    path = folder / "all_results.csv"
    table = read_csv(path, ["model", "dataset"], _NUMBERS, _WHERE)
    unknown = sorted(set(table["dataset"]) - set(_EXPERIMENTS))
    if unknown:
        raise WrongUse(
            f"import: {path} has the unknown experiment {unknown[0]!r}; "
            f"valid: {', '.join(_EXPERIMENTS)}"
        )
    twice = table[table.duplicated(["dataset", "model"])]
    if len(twice):
        first = twice.iloc[0]
        raise WrongUse(f"import: {path} has two results of {first['model']} on {first['dataset']}")
    return [_run(row) for row in table.to_dict("records")]


def _run(row: dict[Any, Any]) -> FinishedRun:
    experiment, model = row["dataset"], row["model"]
    points = [
        (name, row[column], epoch)
        for epoch, column in enumerate(_ACCURACIES, start=1)
        for name in ("test/accuracy", "performance")
    ]
    images = _TEST_IMAGES[_EXPERIMENTS[experiment]["dataset"]]
    hits = [row[column] * images for column in _ACCURACIES]
    # A few rows have accuracies of other images.
    fits = all(abs(n - round(n)) < _EXACT for n in hits)
    totals = {
        "energy/train_wh": row["energy"] * 1000,
        "carbon/train_gco2e": row["co2"],
        "memory/reserved_gb": row["memR"],
        "memory/allocated_gb": row["memM"],
        "time/last_epoch_s": row["train_time"],
        "time/train_s": row["train_time"] * _EPOCHS,
    }
    return FinishedRun(
        experiment=experiment,
        name=model,
        source=_SOURCE,
        key=f"{experiment}/{model}",
        params={"model": model, **_EXPERIMENTS[experiment], **_PROTOCOL},
        tags={
            **_TAGS,
            "pepr.experiment": experiment,
            "pepr.parameters": str(int(row["num_param"])),
            **({"pepr.test_images": str(images)} if fits else {}),
            "pepr.carbon_intensity_g_per_kwh": f"{row['co2'] / row['energy']:.6g}",
            "pepr.carbon_source": "grid when it was trained, by carbontracker",
        },
        points=(*points, *((name, value, _EPOCHS) for name, value in totals.items())),
    )
