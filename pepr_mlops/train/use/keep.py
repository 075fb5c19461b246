"""Keeping the weights of a training with its run."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import torch
from safetensors.torch import save

from pepr_mlops.comparison.predictions import Predictions
from pepr_mlops.costs.device import versions
from pepr_mlops.data import resize
from pepr_mlops.data.splits import Splits
from pepr_mlops.spec import Job
from pepr_mlops.tracking import Run
from pepr_mlops.train.trainer import channel_statistics
from pepr_mlops.train.use.description import FILE, VERSION, Description, Weights

FOLDER = "model"  # of a run's artifacts


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
    logged: Run, network: torch.nn.Module, found: Description, predictions: Predictions
) -> None:
    """Log the weights of the last epoch, with the thresholds that `predictions` give."""
    state = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    content = save(state)
    chosen = predictions.thresholds
    weights = Weights(
        file="last.safetensors",
        epoch=found.epochs,
        digest=hashlib.blake2b(content, digest_size=16).hexdigest(),
        bytes=len(content),
        thresholds=None if chosen is None else tuple(chosen.tolist()),
    )
    files = {weights.file: content, FILE: replace(found, weights={"last": weights}).as_json()}
    for name, one in files.items():
        logged.file(name, one, folder=FOLDER)
    logged.tag({"pepr.model": f"last={weights.digest}"})
