"""timm's results on ImageNet and its speed benchmarks, from the folder `results` of its repository.

A run is a set of weights at an image size, named as timm names it. The benchmarks measure
architectures, so they are joined on the name before the dot and on the image size; where timm has
not measured that pair, the run has no speed.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

from pepr_mlops.errors import WrongUse
from pepr_mlops.imports.files import AMOUNT, FinishedRun, Number, read_csv

_WHERE = "https://github.com/huggingface/pytorch-image-models (folder results)"
_SOURCE = "timm results-imagenet.csv"
_EXPERIMENT = "imagenet"
_IMAGES = 50_000  # of the validation set of ImageNet-1k, on which the file has its results
_PIXELS, _PER_CENT = Number(1, 1e6, integer=True), Number(0, 100)


def read(folder: Path) -> list[FinishedRun]:
    """A run for each row of `folder/results-imagenet.csv`, with the speeds of the newest
    `benchmark-infer-*.csv` and `benchmark-train-*.csv` (by PyTorch's version) in `folder`, if any.

    Raises `WrongUse` for a file that is missing, has other content or names a model twice.
    """
    path, keys = folder / "results-imagenet.csv", ["architecture", "img_size"]
    numbers = {"img_size": _PIXELS, "top1": _PER_CENT, "top5": _PER_CENT}
    results = read_csv(path, ["model"], numbers | {"param_count": Number(1e-6, 1e9)}, _WHERE)
    results["architecture"] = results["model"].str.split(".").str[0]
    results = results.drop_duplicates()
    twice = results.duplicated(["model", "img_size"])
    if twice.any():
        first = results.loc[twice, "model"].iloc[0]
        raise WrongUse(f"import: {path} has two results of {first}")
    names = {}
    for kind, columns in (
        ("infer", ["infer_samples_per_sec", "infer_gmacs"]),
        ("train", ["train_samples_per_sec"]),
    ):
        files = list(folder.glob(f"benchmark-{kind}-*.csv"))
        if files:
            newest = max(files, key=_version)
            size = f"{kind}_img_size"
            numbers = {size: _PIXELS, **dict.fromkeys(columns, AMOUNT)}
            speeds = read_csv(newest, ["model"], numbers, _WHERE, optional=columns[1:])
            speeds = speeds.rename(columns={"model": "architecture", size: "img_size"})
            speeds = speeds.drop_duplicates(keys)
            results = results.merge(speeds, on=keys, how="left", validate="many_to_one")
            names[kind] = newest.name
    return [_run(row, names) for row in results.to_dict("records")]


def _version(path: Path) -> tuple[int, str]:
    version = re.search(r"-pt(\d+)", path.name)
    return (int(version[1]) if version else 0, path.name)


def _run(row: dict[Any, Any], benchmarks: dict[str, str]) -> FinishedRun:
    model, size = row["model"], int(row["img_size"])
    metrics = {
        "test/accuracy": row["top1"] / 100,
        "performance": row["top1"] / 100,
        "test/top5_accuracy": row["top5"] / 100,
        "inference/ms_per_image": 1000 / row.get("infer_samples_per_sec", math.nan),
        "training/ms_per_image": 1000 / row.get("train_samples_per_sec", math.nan),
        "inference/gmacs": row.get("infer_gmacs", math.nan),
    }
    tags = {
        "pepr.experiment": _EXPERIMENT,
        "pepr.performance": "test/accuracy",
        "pepr.energy_source": "none",
        "pepr.test_images": str(_IMAGES),
        "pepr.parameters": str(round(row["param_count"] * 1e6)),
    }
    for kind, file in benchmarks.items():
        tags[f"timm.benchmark_{kind}"] = file
        card = re.search(r"-(rtx\d+|a100|h100)", file)
        if card:
            tags["pepr.hardware"] = card[1].upper()
    return FinishedRun(
        experiment=_EXPERIMENT,
        name=model,
        source=_SOURCE,
        key=f"{model}@{size}",
        params={"model": model, "dataset": "imagenet", "image_size": str(size)},
        tags=tags,
        points=tuple((name, v, 0) for name, v in metrics.items() if not math.isnan(v)),
    )
