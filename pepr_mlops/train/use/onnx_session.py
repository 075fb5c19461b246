"""A trained model as ONNX, executed by onnxruntime on the CPU."""

from __future__ import annotations

from importlib import metadata, util
from pathlib import Path
from typing import Any

import torch

from pepr_mlops.comparison.metrics import Floats
from pepr_mlops.data.splits import Pixels
from pepr_mlops.errors import WrongUse
from pepr_mlops.names import FORMS
from pepr_mlops.train.use.model import Model
from pepr_mlops.train.use.profile import Subject

_PACKAGES = ("onnx", "onnxscript", "onnxruntime")


def check() -> None:
    """Raise `WrongUse` where what exports and executes ONNX is not installed."""
    missing = [name for name in _PACKAGES if util.find_spec(name) is None]
    if missing:
        raise WrongUse(f"onnx: install {', '.join(missing)} with `pip install {' '.join(missing)}`")


def subject(model: Model, folder: Path) -> Subject:
    """The model as ONNX, which is written into the folder."""
    import onnxruntime

    path = folder / "model.onnx"
    export(model, path)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()

    def opened() -> Any:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    session = opened()
    (name,) = (one.name for one in session.get_inputs())

    def predict(images: Pixels) -> Floats:
        (found,) = session.run(None, {name: images})
        chances: Floats = found
        return chances

    versions = {"onnxruntime": metadata.version("onnxruntime")}
    return Subject(FORMS[1], model.description, "fp32", predict, opened, versions)


def export(model: Model, path: Path) -> None:
    """Write the model as ONNX, for batches of any size of images of the size it was trained on."""
    size = model.description.image_size
    shape = (2, size, size) if model.description.colour == "grey" else (2, size, size, 3)
    torch.onnx.export(
        model.classifier.cpu(),
        (torch.zeros(shape, dtype=torch.uint8),),
        str(path),
        dynamo=True,
        dynamic_shapes=({0: torch.export.Dim("images")},),
        input_names=["images"],
        output_names=["probabilities"],
        verbose=False,
    )
