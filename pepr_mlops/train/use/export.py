"""A trained model for other programs: an MLflow model, an ONNX graph, or its weights.

What is written predicts from 8-bit images of any size, in 32-bit floats on the CPU. It is compared
with the model before it is put in place.
"""

from __future__ import annotations

import errno
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch

from pepr_mlops.comparison.metrics import Floats
from pepr_mlops.data.splits import Pixels
from pepr_mlops.errors import WrongUse, one_line
from pepr_mlops.tracking import registry
from pepr_mlops.train.use import description as described
from pepr_mlops.train.use import weights_file
from pepr_mlops.train.use.description import Description
from pepr_mlops.train.use.model import Model, open_folder
from pepr_mlops.train.use.onnx_session import ONNX, OnnxModel, check_packages

Format = Literal["mlflow", "onnx", "torch"]
FORMATS: tuple[Format, ...] = get_args(Format)
# How far a probability may be from the model's.
TOLERANCES: dict[Format, float] = {"mlflow": 1e-4, "onnx": 1e-3, "torch": 1e-4}
# Lengths of 0 and 1 would become constants of the graph, and equal ones a condition.
_EXAMPLE = (2, 20, 24)

_ROOM = 4  # times the weights: a graph, the weights, and a copy of each while they are made

Predict = Callable[[Pixels], Any]


@dataclass(frozen=True)
class Exported:
    """Where a model is, the bytes of its folder, the digest of its `model.json`, which has that
    of the weights, and the largest difference of a probability from the model's on `images` images.
    """

    folder: Path
    format: Format
    bytes: int
    digest: str
    difference: float
    images: int


def export(model: Model, to: Format, folder: Path, run_id: str) -> Exported:
    """Write a model on the CPU to `folder`, which must be missing or empty.

    Raises `WrongUse` for a model that cannot be exported so, or that would predict otherwise than
    the one given; then nothing is written.
    """
    if to not in FORMATS:
        raise WrongUse(f"to: {to!r} is not one of {', '.join(FORMATS)}")
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise WrongUse(f"out: {folder} exists and is not an empty folder; name another --out")
    parent = folder.absolute().parent
    try:
        parent.mkdir(parents=True, exist_ok=True)
        _check_room(model, parent)
        with tempfile.TemporaryDirectory(prefix=".pepr-export-", dir=parent) as temporary:
            part = Path(temporary) / "model"
            predict = _written(model, to, part, run_id)
            checks = list(check_images(model.description))
            difference = compared(model, to, predict, checks)
            if folder.exists():
                folder.rmdir()
            part.rename(folder)
    except OSError as error:
        raise WrongUse(f"out: {folder} cannot be written ({error.strerror or error})") from error
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    inner = folder / registry.EXTRA if to == "mlflow" else folder
    digest = described.digest_of(inner / described.FILE)
    return Exported(folder, to, size, digest, difference, sum(map(len, checks)))


def _check_room(model: Model, *places: Path) -> None:
    """Raise `OSError` where a disk is too full: PyTorch would end the process halfway."""
    needed = _ROOM * sum(t.numel() * t.element_size() for t in model.network.state_dict().values())
    for place in (*places, Path(tempfile.gettempdir())):
        free = shutil.disk_usage(place).free
        if free < needed:
            text = f"it needs {needed / 1e6:.0f} MB, and {place} has {free / 1e6:.0f} MB left"
            raise OSError(errno.ENOSPC, f"no space left on device: {text}")


def compared(model: Model, to: Format, predict: Predict, checks: list[Pixels]) -> float:
    """The largest difference of a probability between `predict` and the model in 32-bit floats.

    Raises `WrongUse` where it is above the tolerance of the format, or the class is another one
    though the two most probable ones are not that close.
    """
    exact = _in_full(model)
    tolerance, largest = TOLERANCES[to], 0.0
    for images in checks:
        expected = exact.of_batch(images)
        try:
            found = np.asarray(predict(images), dtype=float)
        except Exception as error:  # of the graph, for another number or size of images
            raise _refused(model, to, one_line(error)) from error
        apart = difference(expected, found)
        if not apart <= tolerance:
            why = f"its probabilities differ by {apart:.2g}, more than {tolerance:g}, on images of "
            raise _refused(model, to, why + f"{images.shape[1]}×{images.shape[2]} pixels")
        largest = max(largest, apart)
        second, first = np.sort(expected, axis=1)[:, -2:].T
        clear = (first - second > tolerance) & (not model.description.several)
        if (clear & (expected.argmax(1) != found.argmax(1))).any():
            raise _refused(model, to, "it predicts another class")
    return largest


def difference(expected: Floats, found: Floats) -> float:
    """The largest difference of two arrays; infinite where their shapes differ, NaN where one
    has NaN."""
    if expected.shape != found.shape:
        return float("inf")
    return float(np.abs(expected - found).max())


def check_images(description: Description) -> Iterator[Pixels]:
    """Batches with 200 images: noise, and gradients without noise, of four sizes."""
    rng = np.random.default_rng(0)
    size = description.image_size
    depth = () if description.colour == "grey" else (3,)
    for height, width in (
        (size, size),
        (2 * size + 1, size + 3),
        (size // 2 + 1, size),
        (37, 50),
    ):
        for n in (1, 24):
            yield rng.integers(0, 256, (n, height, width, *depth), dtype=np.uint8)
        yield _gradients(rng, 25, height, width, depth)


def _gradients(
    rng: np.random.Generator, n: int, height: int, width: int, depth: tuple[int, ...]
) -> Pixels:
    """Linear ramps between two random intensities, across and down in random proportions."""
    down, across = np.linspace(0, 1, height)[:, None], np.linspace(0, 1, width)
    parts = rng.random((n, 1, 1))
    ramps = parts * down + (1 - parts) * across
    low, high = rng.integers(0, 256, (2, n, 1, 1, *depth))
    ramps = ramps.reshape(*ramps.shape, *(1 for _ in depth))
    found: Pixels = (low + (high - low) * ramps).round().astype(np.uint8)
    return found


def example(description: Description) -> Pixels:
    """The images that a graph is traced with."""
    depth = () if description.colour == "grey" else (3,)
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (*_EXAMPLE, *depth), dtype=np.uint8)


def _written(model: Model, to: Format, folder: Path, run_id: str) -> Predict:
    """Write a format to a new folder; what it predicts, read from there."""
    if to == "torch":
        return write_torch(model, folder)
    write = write_onnx if to == "onnx" else write_mlflow
    try:
        return write(model, folder, run_id)
    except (WrongUse, OSError):
        raise
    except Exception as error:  # of torch.export or of the converter, for what they cannot trace
        raise _refused(model, to, one_line(error)) from error


def _refused(model: Model, to: Format, why: str) -> WrongUse:
    others = ", ".join(other for other in FORMATS if other != to)
    return WrongUse(
        f"export: {model.description.model} cannot be exported to {to} ({why}); nothing was "
        f"written: choose another format ({others})"
    )


def write_torch(model: Model, folder: Path) -> Predict:
    """Write the weights and `model.json`; what they predict once opened, in 32-bit floats."""
    folder.mkdir()
    name = Path(model.weights.file).name
    weights_file.write(model.network.state_dict(), folder / name)
    _describe(model, folder, name)
    opened = open_folder(folder)
    return _in_full(opened).of_batch


def write_mlflow(model: Model, folder: Path, run_id: str) -> Predict:
    """Write an MLflow model, with the weights and `model.json` in it; what its server answers."""
    with tempfile.TemporaryDirectory() as temporary:
        plain = Path(temporary) / "model"
        write_torch(model, plain)
        found = {"run_id": run_id, "thresholds": model.weights.thresholds}
        found |= asdict(described.read(plain))
        files = sorted(plain.iterdir())
        images, classes = example(model.description), len(model.description.classes)
        registry.save(model.classifier, folder, images, classes, found, files)
    return registry.opened(folder)


def write_onnx(model: Model, folder: Path, run_id: str) -> Predict:
    """Write an ONNX graph and `model.json`; what onnxruntime computes from it."""
    check_packages()
    images = torch.from_numpy(example(model.description))
    free = {i: torch.export.Dim(name) for i, name in enumerate(("n", "height", "width"))}
    graph = torch.export.export(model.classifier, (images,), dynamic_shapes=(free,))
    names: dict[str, Any] = {"input_names": ["images"], "output_names": ["probabilities"]}
    found = torch.onnx.export(graph, dynamo=True, verbose=False, **names)
    assert found is not None
    classes = json.dumps(model.description.classes)
    found.model.metadata_props.update({"run_id": run_id, "classes": classes})
    folder.mkdir()
    found.save(str(folder / ONNX))
    _describe(model, folder, ONNX)
    written = described.read(folder)
    return OnnxModel(folder / ONNX, written, written.chosen()).of_batch


def _describe(model: Model, folder: Path, name: str) -> None:
    """Write `model.json` for the file `name` of the folder, which has the weights."""
    path = folder / name
    size, digest = path.stat().st_size, described.digest_of(path)
    weights = replace(model.weights, file=name, bytes=size, digest=digest)
    which = next(name for name, one in model.description.weights.items() if one == model.weights)
    alone = replace(model.description, weights={which: weights})
    (folder / described.FILE).write_bytes(alone.as_json())


def _in_full(model: Model) -> Model:
    """The model in 32-bit floats."""
    return replace(model, description=replace(model.description, precision="fp32"))
