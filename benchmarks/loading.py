"""What does it take to read one's own images, and do they stay out of memory?

    python benchmarks/loading.py

A table of JPEG files of twice the size that the model sees. The first job prepares the images; then
epochs of batches are read in random order, with one thread of torch and without a network. For
comparison, torchvision's ImageFolder reads the same files with two workers.
"""

from __future__ import annotations

import csv
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
import psutil
import torch
from common import machine, write
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from pepr_mlops import RunSpec, data
from pepr_mlops.data.batches import Batches

_BATCH = 32


@click.command()
@click.option("--images", default=20_000, show_default=True)
@click.option("--image-size", default=128, show_default=True)
@click.option("--epochs", default=3, show_default=True)
@click.option("--out", type=click.Path(path_type=Path))
def main(images: int, image_size: int, epochs: int, out: Path | None) -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["PEPR_CACHE"] = f"{folder}/cache"
        os.environ["PEPR_IMAGES"] = f"{folder}/prepared"
        table = _write(Path(folder), images, 2 * image_size)
        spec = RunSpec(dataset=str(table), images=f"{folder}/jpeg", image_size=image_size)
        rivals = [_seconds(_rival(Path(folder), image_size)) for _ in range(epochs)]
        first_s, splits = _timed_load(spec)
        again_s, splits = _timed_load(spec)
        batches = Batches(
            splits.train,
            splits,
            image_size=image_size,
            device=torch.device("cpu"),
            resident=True,
            layout=torch.contiguous_format,
            normalise=None,
        )
        before = _resident()
        order = batches.order(_BATCH, torch.Generator().manual_seed(0))
        own, resident = [], []
        for _ in range(epochs):
            own.append(_seconds(batches.take(order)))
            resident.append(_resident() - before)
        n = len(splits.train)
        result = {
            "images": images,
            "trained_on": n,
            "image_size": image_size,
            "prepared_gb": sum(part.images.nbytes for part in splits.by_name().values()) / 1e9,
            "prepare_s": first_s,
            "prepare_images_per_s": images / first_s,
            "load_again_s": again_s,
            "epoch_images_per_s": [n / seconds for seconds in own],
            "image_folder_images_per_s": [images / seconds for seconds in rivals],
            "resident_growth_mb": [grown / 1e6 for grown in resident],
        }
        write({**machine(), **result}, out)


def _write(folder: Path, images: int, size: int) -> Path:
    """The table and its files, in the folders of two classes, which ImageFolder needs."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (256, 16, 16, 3), dtype=np.uint8)
    with (folder / "labels.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "label", "patient"])
        for i in range(images):
            label = "ab"[i % 2]
            path = folder / "jpeg" / label / f"{i:06d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            shifted = np.roll(coarse[i % 256], i // 256, axis=0)  # no two alike
            Image.fromarray(shifted).resize((size, size)).save(path, quality=90)
            rows.writerow([f"{label}/{path.name}", label, i // 3])
    return folder / "labels.csv"


def _rival(folder: Path, size: int) -> Iterator[object]:
    to_float = v2.Compose(
        [v2.Resize((size, size)), v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]
    )
    dataset = ImageFolder(str(folder / "jpeg"), to_float)
    return iter(DataLoader(dataset, _BATCH, shuffle=True, num_workers=2))


def _timed_load(spec: RunSpec) -> tuple[float, data.Splits]:
    started = time.perf_counter()
    splits = data.load(data.identify(spec))
    return time.perf_counter() - started, splits


def _seconds(batches: Iterator[object]) -> float:
    started = time.perf_counter()
    for _ in batches:
        pass
    return time.perf_counter() - started


def _resident() -> int:
    return int(psutil.Process().memory_info().rss)


if __name__ == "__main__":
    main()
