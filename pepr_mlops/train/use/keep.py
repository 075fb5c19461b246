"""Keeping the weights of a training with its run."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from pepr_mlops.comparison.predictions import Predictions
from pepr_mlops.costs.device import versions
from pepr_mlops.data import resize
from pepr_mlops.data.splits import Splits
from pepr_mlops.errors import one_line
from pepr_mlops.files import digest_of
from pepr_mlops.spec import Job
from pepr_mlops.tracking import Run
from pepr_mlops.tracking.read.model_files import FILE, WHICH
from pepr_mlops.tracking.read.weights import FOLDER, MISSING, TAG
from pepr_mlops.train.trainer import channel_statistics
from pepr_mlops.train.use.best import Best
from pepr_mlops.train.use.description import VERSION, Description, Weights
from pepr_mlops.train.use.weights_file import write


def describe(
    job: Job, splits: Splits, network: torch.nn.Module, initial_weights: str, epochs: int
) -> Description:
    """What a training says of its model; its weights are still to be added."""
    mean = std = None
    if job.intensities == "pretrained":
        pretrained: Any = network.pretrained_cfg
        mean, std = channel_statistics(pretrained, splits.channels)
    reading = {name: getattr(job, name) for name in ("fit", "frames", "window", "axis", "every")}
    return Description(
        version=VERSION,
        model=job.model,
        classes=splits.classes,
        task=splits.task,
        colour="grey" if splits.train.images.ndim == 3 else "rgb",
        channels=splits.channels,
        image_size=job.image_size,
        resize=resize.NAME,
        intensities=job.intensities,
        mean=mean,
        std=std,
        **reading,
        bounds=splits.window,
        precision=job.precision,
        epochs=epochs,
        parameters=sum(p.numel() for p in network.parameters()),
        dataset=splits.name,
        data_digest=job.data_digest,
        initial_weights=initial_weights,
        weights={},
        versions=versions(),
    )


def log(
    logged: Run,
    network: torch.nn.Module,
    found: Description,
    predictions: Predictions,
    keep: str,
    best: Best | None,
) -> str | None:
    """Log the weights that `keep` names: of the last epoch, whose thresholds `predictions` give, of
    the `best` one, or both.

    What cannot be written costs only the weights: the tag `pepr.model_missing` says which and why,
    and so does what is returned.
    """
    missing = {"best": best.missing} if best is not None and best.weights is None else {}

    def fill(folder: Path) -> tuple[list[str], dict[str, str]]:
        weights: dict[str, Weights] = {}
        if keep in ("last", "both"):
            weights["last"] = _last(folder / "last.safetensors", network, found, predictions)
        if best is not None and best.weights is not None:
            if "last" in weights and best.weights.epoch == found.epochs:
                weights["best"] = weights["last"]
            else:
                weights["best"] = best.weights
                shutil.copyfile(best.path, folder / best.weights.file)
                _sync(folder / best.weights.file)
        (folder / FILE).write_bytes(replace(found, weights=weights).as_json())
        _sync(folder / FILE)
        digests = {name: one.digest for name, one in weights.items()}
        digests["model"] = digest_of(folder / FILE)
        files = dict.fromkeys(one.file for one in weights.values())
        return [*files, FILE], {TAG: ",".join(f"{name}={one}" for name, one in digests.items())}

    if keep != "best" or not missing:
        try:
            logged.folder(FOLDER, fill)
        except OSError as error:
            why = error.strerror or one_line(error)
            missing = dict.fromkeys(WHICH if keep == "both" else [keep], why)
    if not missing:
        return None
    text = "; ".join(f"{name}: {why}" for name, why in missing.items())
    logged.tag({MISSING: text})
    return f"weights: the run is logged without some of its weights ({text})"


def _last(
    path: Path, network: torch.nn.Module, found: Description, predictions: Predictions
) -> Weights:
    chosen = predictions.thresholds
    thresholds = None if chosen is None else tuple(chosen.tolist())
    written = write(network.state_dict(), path)
    return Weights(path.name, found.epochs, written.digest, written.bytes, thresholds)


def _sync(path: Path) -> None:
    """Wait until a file is on the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
