"""timm's results on ImageNet and its speed benchmarks, from the folder `results` of its repository.

A run is a set of weights at an image size, named as timm names it, with the speeds of one card in
one precision, memory layout and compiler. The benchmarks measure architectures, so they are joined
on the name before the dot and on the image size; where timm has not measured that pair, the run has
no speed. What a benchmark measured on is known from the name of its file alone.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from pepr_mlops.errors import WrongUse
from pepr_mlops.imports.files import AMOUNT, FinishedRun, Number, read_csv

_WHERE = "https://github.com/huggingface/pytorch-image-models (folder results)"
_SOURCE = "timm results-imagenet.csv"
_EXPERIMENT = "imagenet"
_TRAINING = (
    "imagenet_training"  # training speeds of another card or setting than the inference ones
)
_IMAGES = 50_000  # of the validation set of ImageNet-1k, on which the file has its results
_PIXELS, _PER_CENT = Number(1, 1e6, integer=True), Number(0, 100)
_COLUMNS = {
    "infer": ["infer_samples_per_sec", "infer_gmacs"],
    "train": ["train_samples_per_sec"],
}
_NAME = re.compile(
    r"benchmark-(infer|train)-(?P<precision>\w+)-(?P<layout>nchw|nhwc|channels_last)"
    r"-pt(?P<torch>\d+)-(cu\d+|cpu)-(?P<card>[\w.-]+?)(-(?P<compiler>dynamo|inductor))?\.csv",
    re.ASCII,
)
_LAYOUTS = {"nchw": "contiguous"}  # the others are channels_last
_CAPITALS = re.compile(r"rtx\d+|a100|h100")  # the cards that NVIDIA writes so


@dataclass(frozen=True)
class _Conditions:
    """What the speeds of a file were measured on and with. A card that is not known by name is as
    the name of the file has it; `compiler` is None where none was used."""

    card: str
    precision: str
    layout: str
    compiler: str | None

    def __str__(self) -> str:
        compiler = self.compiler or "no compiler"
        return ", ".join([self.card, self.precision, self.layout, compiler])


@dataclass(frozen=True)
class _Benchmark:
    """A file of speeds, of `kind` infer or train, and the version of PyTorch as an integer: 240."""

    path: Path
    kind: str
    torch: int
    conditions: _Conditions


def read(folder: Path) -> list[FinishedRun]:
    """A run for each row of `folder/results-imagenet.csv`, with the speeds of the newest
    `benchmark-infer-*.csv` and `benchmark-train-*.csv` (by PyTorch's version, then by name) in
    `folder`, if any.

    Speeds of one card, precision, layout and compiler are in one run of the experiment `imagenet`.
    If the newest file of training has others, its speeds are in runs of `imagenet_training`.
    Files whose names do not give these are not read (`notes`). Raises `WrongUse` for a file that is
    missing, has other content or names a model twice.
    """
    results = _results(folder)
    runs = []
    for experiment, benchmarks in _chosen(folder).items():
        rows, keys = results, ["architecture", "img_size"]
        for one in benchmarks:
            how = "inner" if experiment == _TRAINING else "left"
            rows = rows.merge(_speeds(one), on=keys, how=how, validate="many_to_one")
        runs += [_run(row, experiment, benchmarks) for row in rows.to_dict("records")]
    return runs


def notes(folder: Path) -> list[str]:
    """Which benchmarks `read` takes and what they were measured on, and which it cannot place."""
    texts = []
    for experiment, benchmarks in _chosen(folder).items():
        for one in benchmarks:
            speeds = "inference" if one.kind == "infer" else "training"
            n = len(_placed(folder, one.kind))
            chosen = f", the newest of {n} files" if n > 1 else ""
            texts.append(
                f"{speeds} speeds of {experiment}: {one.conditions} ({one.path.name}{chosen})"
            )
    odd = sorted(p.name for p in folder.glob("benchmark-*.csv") if not _NAME.fullmatch(p.name))
    return texts + [
        f"{name} is left out: its name is not "
        "benchmark-{infer|train}-PRECISION-{nchw|nhwc|channels_last}-ptVERSION-cuVERSION-CARD.csv"
        for name in odd
    ]


def _results(folder: Path) -> pd.DataFrame:
    path = folder / "results-imagenet.csv"
    numbers = {"img_size": _PIXELS, "top1": _PER_CENT, "top5": _PER_CENT}
    results = read_csv(path, ["model"], numbers | {"param_count": Number(1e-6, 1e9)}, _WHERE)
    results["architecture"] = results["model"].str.split(".").str[0]
    results = results.drop_duplicates()
    twice = results.duplicated(["model", "img_size"])
    if twice.any():
        first = results.loc[twice, "model"].iloc[0]
        raise WrongUse(f"import: {path} has two results of {first}")
    return results


def _placed(folder: Path, kind: str) -> list[_Benchmark]:
    """The benchmarks of a kind whose names give what they were measured on, the newest last."""
    found = []
    for path in folder.glob(f"benchmark-{kind}-*.csv"):
        if name := _NAME.fullmatch(path.name):
            card, layout = name["card"], name["layout"]
            conditions = _Conditions(
                card.upper() if _CAPITALS.fullmatch(card) else card,
                name["precision"],
                _LAYOUTS.get(layout, "channels_last"),
                name["compiler"],
            )
            found.append(_Benchmark(path, kind, int(name["torch"]), conditions))
    return sorted(found, key=lambda one: (one.torch, one.path.name))


def _chosen(folder: Path) -> dict[str, list[_Benchmark]]:
    """The newest benchmarks for each experiment, which share their conditions."""
    newest = [placed[-1] for kind in _COLUMNS if (placed := _placed(folder, kind))]
    if len({one.conditions for one in newest}) > 1:
        return {_EXPERIMENT: newest[:1], _TRAINING: newest[1:]}
    return {_EXPERIMENT: newest}


def _speeds(one: _Benchmark) -> pd.DataFrame:
    columns, size = _COLUMNS[one.kind], f"{one.kind}_img_size"
    numbers = {size: _PIXELS, **dict.fromkeys(columns, AMOUNT)}
    speeds = read_csv(one.path, ["model"], numbers, _WHERE, optional=columns[1:])
    speeds = speeds.rename(columns={"model": "architecture", size: "img_size"})
    return speeds.drop_duplicates(["architecture", "img_size"])


def _run(row: dict[Any, Any], experiment: str, benchmarks: list[_Benchmark]) -> FinishedRun:
    model, size = row["model"], int(row["img_size"])
    source = _SOURCE
    metrics = {
        "test/accuracy": row["top1"] / 100,
        "performance": row["top1"] / 100,
        "test/top5_accuracy": row["top5"] / 100,
        "inference/ms_per_image": 1000 / row.get("infer_samples_per_sec", math.nan),
        "training/ms_per_image": 1000 / row.get("train_samples_per_sec", math.nan),
        "inference/gmacs": row.get("infer_gmacs", math.nan),
    }
    tags = {
        "pepr.experiment": experiment,
        "pepr.performance": "test/accuracy",
        "pepr.energy_source": "none",
        "pepr.test_images": str(_IMAGES),
        "pepr.parameters": str(round(row["param_count"] * 1e6)),
        **{f"timm.benchmark_{one.kind}": one.path.name for one in benchmarks},
    }
    params = {"model": model, "dataset": "imagenet", "image_size": str(size)}
    if benchmarks:
        measured = benchmarks[0].conditions
        tags["pepr.hardware"] = measured.card
        params |= {
            "precision": measured.precision,
            "layout": measured.layout,
            "compile": str(measured.compiler is not None).lower(),
        }
        source = f"{_SOURCE} and speeds of {measured}"  # each card and setting has runs of its own
    return FinishedRun(
        experiment=experiment,
        name=model,
        source=source,
        key=f"{model}@{size}",
        params=params,
        tags=tags,
        points=tuple((name, v, 0) for name, v in metrics.items() if not math.isnan(v)),
    )
