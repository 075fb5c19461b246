"""Can each of the paper's 131 models be exported, and does it predict the same then?

python benchmarks/export_models.py --out export_models.json

Each model is built at 256×256 with random weights, which have seen one batch, in a process of its
own, and written as weights, as an MLflow model and as ONNX. The result has the largest difference
of a probability on other images for each, and why one could not be written. `spread` is the
largest difference of a probability between two of the images. The result is written after each
model, and those already in it are skipped.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
from common import machine

from pepr_mlops.paper_models import paper_models

FORMATS = ("torch", "mlflow", "onnx")
SIZE, CLASSES, LIMIT_S = 256, 9, 600
SHAPES = ((4, SIZE, SIZE), (1, SIZE, SIZE), (3, 200, 300))


@click.command()
@click.option("--model", "models", multiple=True, help="only these  [default: all 131]")
@click.option("--limit-s", default=LIMIT_S, help="time for a model")
@click.option("--again", is_flag=True, help="also models that failed before")
@click.option("--out", type=click.Path(path_type=Path), required=True)
def main(models: tuple[str, ...], limit_s: int, again: bool, out: Path) -> None:
    result = json.loads(out.read_text()) if out.exists() else {}
    rows: dict[str, Any] = result.get("models", {})
    for row in paper_models():
        before = rows.get(row.model)
        skipped = before is not None and not (again and any("reason" in v for v in before.values()))
        if skipped or (models and row.model not in models):
            continue
        rows[row.model] = measured(row.model, limit_s)
        content = {**machine(), "image_size": SIZE, "shapes": SHAPES, "models": rows}
        part = out.with_suffix(".part")
        part.write_text(json.dumps(content, indent=1) + "\n")
        part.replace(out)
        print(row.model, json.dumps(rows[row.model]), flush=True)


def measured(model: str, limit_s: int) -> dict[str, Any]:
    """What one process found; what it did not get to has that as its reason."""
    with tempfile.TemporaryDirectory() as folder:
        lines = Path(folder) / "found.jsonl"
        lines.touch()
        environment = {**os.environ, "TMPDIR": folder}
        try:
            ended = subprocess.run(
                [sys.executable, __file__, "--one", model, str(lines)],
                timeout=limit_s,
                env=environment,
                capture_output=True,
                text=True,
            )
            last = (ended.stderr.strip().splitlines() or ["ended"])[-1][:300]
            reason = f"status {ended.returncode}: {last}"
        except subprocess.TimeoutExpired:
            reason = f"not done within {limit_s} s"
        found: dict[str, Any] = {}
        for line in lines.read_text().splitlines():
            found |= json.loads(line)
    return {form: found.get(form, {"reason": reason}) for form in FORMATS}


def one(model: str, lines: Path) -> None:
    """Write one model in each format, and a line for each."""

    from pepr_mlops.train.use import export

    trained = random_model(model)
    checks = [images(seed, *shape) for seed, shape in enumerate(SHAPES, start=1)]
    expected = [trained.of_batch(one) for one in checks]
    finite = all(np.isfinite(e).all() for e in expected)
    spread = float(np.ptp(np.concatenate(expected), axis=0).max())

    def record(form: str, write: Callable[[Path], Any]) -> None:
        began_s = time.monotonic()
        folder = lines.parent / form
        try:
            assert finite, "the model's own probabilities are not finite"
            predict = write(folder)
            largest = max(
                export.difference(e, np.asarray(predict(one), float))
                for e, one in zip(expected, checks, strict=True)
            )
            sizes = [file.stat().st_size for file in folder.rglob("*") if file.is_file()]
            found: dict[str, Any] = {"difference": largest, "spread": spread, "bytes": sum(sizes)}
        except Exception as error:
            text = " ".join(str(error).split())
            found = {"reason": f"{type(error).__name__}: {text}"[:300]}
        found["seconds"] = round(time.monotonic() - began_s, 1)
        with lines.open("a") as file:
            file.write(json.dumps({form: found}) + "\n")

    record("torch", lambda folder: export.write_torch(trained, folder))
    record("mlflow", lambda folder: export.write_mlflow(trained, folder, "none"))
    record("onnx", lambda folder: export.write_onnx(trained, folder, "none"))


def images(seed: int, n: int, height: int, width: int) -> np.ndarray:
    """Images [n, height, width, 3] that differ in brightness, contrast and colour, with noise."""
    rng = np.random.default_rng(seed)
    centre, contrast = rng.uniform(40, 215, (n, 1, 1, 3)), rng.uniform(5, 40, (n, 1, 1, 3))
    ramps = np.linspace(-1, 1, height)[:, None, None] * np.linspace(-1, 1, width)[:, None]
    noise = rng.standard_normal((n, height, width, 3))
    return (centre + contrast * (ramps + noise)).clip(0, 255).astype(np.uint8)


def random_model(name: str, image_size: int = SIZE) -> Any:
    """A model of random weights, from a seed, whose normalisations have the statistics of a batch
    and whose logits have a standard deviation of 1."""
    import torch

    from pepr_mlops.data import resize
    from pepr_mlops.train import models
    from pepr_mlops.train.use.description import VERSION, Description, Weights
    from pepr_mlops.train.use.model import Classifier, Model

    torch.manual_seed(0)
    network = models.build(
        name, classes=CLASSES, channels=3, image_size=image_size, pretrained=False
    )
    network.requires_grad_(False)
    for module in network.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.momentum = 1.0
            module.weight.uniform_(0.5, 1.5)  # also those that begin as 0, behind which all is 0
    seen = torch.from_numpy(images(0, 8, image_size, image_size)).permute(0, 3, 1, 2)
    seen = (seen / 255 - 0.45) / 0.225
    network(seen)
    network.eval()
    last = list(network.get_classifier().parameters())
    for parameter in last:
        if parameter.ndim > 1 and not parameter.any():
            parameter.normal_()  # one that begins as 0 gives 0 for every image
    spread = network(seen).std()
    for parameter in last:
        parameter.div_(spread)
    weights = Weights("last.safetensors", epoch=1, digest="", bytes=0, thresholds=None)
    description = Description(
        version=VERSION,
        model=name,
        classes=tuple(f"class {i}" for i in range(CLASSES)),
        task="multi-class",
        colour="rgb",
        channels=3,
        image_size=image_size,
        fit="stretch",
        resize=resize.NAME,
        intensities="pretrained",
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        frames="middle",
        window="auto",
        axis=0,
        every=1,
        bounds=None,
        precision="fp32",
        epochs=1,
        parameters=sum(p.numel() for p in network.parameters()),
        dataset="random",
        data_digest="",
        initial_weights="none",
        weights={"last": weights},
        versions={},
    )
    classifier = Classifier(network, description).eval().requires_grad_(False)
    return Model(classifier, description, weights, torch.device("cpu"))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        one(sys.argv[2], Path(sys.argv[3]))
    else:
        main()
