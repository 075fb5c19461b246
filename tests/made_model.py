"""Trained models made for tests: untrained networks in a folder, as an export writes it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from pepr_mlops.data import resize
from pepr_mlops.train import models
from pepr_mlops.train.use.description import FILE, VERSION, Description, Weights, digest_of


def described(**changed: Any) -> Description:
    """`test_resnet` for grey images of 32 pixels of two classes; `changed` are other fields."""
    usual = Description(
        version=VERSION,
        model="test_resnet",
        classes=("dark", "light"),
        task="binary-class",
        colour="grey",
        channels=1,
        image_size=32,
        fit="stretch",
        resize=resize.NAME,
        intensities="unit",
        mean=None,
        std=None,
        frames="first",
        window="auto",
        axis=2,
        every=1,
        bounds=None,
        precision="fp32",
        epochs=1,
        parameters=0,
        dataset="shapes",
        data_digest="0123456789abcdef",
        initial_weights="none",
        weights={},
        versions={},
    )
    return replace(usual, **changed)


def model_folder(
    folder: Path,
    classes: tuple[str, ...] = ("dark", "light"),
    *,
    thresholds: tuple[float, ...] | None = None,
    seed: int = 0,
    **changed: Any,
) -> Path:
    """A folder with the weights of `described`."""
    task = "binary-class" if len(classes) == 2 else "multi-class"
    found = described(**{"classes": classes, "task": task, **changed})
    torch.manual_seed(seed)
    network = models.build(
        found.model,
        classes=len(classes),
        channels=found.channels,
        image_size=found.image_size,
        pretrained=False,
    )
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "last.safetensors"
    save_file({name: one.contiguous() for name, one in network.state_dict().items()}, path)
    weights = Weights(path.name, 1, digest_of(path), path.stat().st_size, thresholds)
    (folder / FILE).write_bytes(replace(found, weights={"last": weights}).as_json())
    return folder
