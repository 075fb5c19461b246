"""What is written for other programs predicts what the model predicts, or is not written."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_model import described
from safetensors.torch import load_file

from pepr_mlops.errors import WrongUse
from pepr_mlops.names import MULTI_LABEL
from pepr_mlops.tracking import registry
from pepr_mlops.train import models
from pepr_mlops.train.use import export
from pepr_mlops.train.use.description import Weights
from pepr_mlops.train.use.model import Classifier, Model, open_folder

RUN = "a" * 32
FORMS: dict[str, dict[str, Any]] = {
    "grey": {},
    "grey images of a network with three channels, normalised": {
        "channels": 3,
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
        "fit": "pad",
    },
    "RGB with several labels": {
        "colour": "rgb",
        "channels": 3,
        "task": MULTI_LABEL,
        "fit": "crop",
        "classes": ("a", "b", "c"),
        "precision": "bf16",
    },
}


def trained(**changed: Any) -> Model:
    """A model of random weights whose probabilities differ between images."""
    weights = {"last": Weights("last.safetensors", 3, "0" * 32, 1, None)}
    usual = {"image_size": 33, "classes": ("a", "b"), "epochs": 3, "weights": weights}
    description = described(**{**usual, **changed})
    torch.manual_seed(0)
    network = models.build(
        description.model,
        classes=len(description.classes),
        channels=description.channels,
        image_size=description.image_size,
        pretrained=False,
    )
    head: Any = network.get_classifier()
    head.weight.data.mul_(20)
    classifier = Classifier(network, description).eval().requires_grad_(False)
    return Model(classifier, description, description.weights["last"], torch.device("cpu"))


def images(model: Model, n: int, height: int, width: int) -> np.ndarray:
    depth = () if model.description.colour == "grey" else (3,)
    return np.random.default_rng(7).integers(0, 256, (n, height, width, *depth), np.uint8)


def agree(model: Model, predict: Any) -> None:
    """For one image and for five, of odd sizes, small and large ones."""
    exact = replace(model, description=replace(model.description, precision="fp32"))
    spread = []
    for shape in ((1, 33, 33), (5, 20, 71), (1, 100, 9), (5, 130, 131)):
        x = images(model, *shape)
        expected = exact.probabilities(x)
        np.testing.assert_allclose(predict(x), expected, atol=1e-5)
        spread.append(np.ptp(expected))
    assert max(spread) > 0.01


@pytest.mark.parametrize("form", FORMS)
def test_onnxruntime_predicts_from_images_what_the_model_does(form: str, tmp_path: Path) -> None:
    import onnxruntime

    model = trained(**FORMS[form])
    written = export.export(model, "onnx", tmp_path / "new" / "model", RUN)
    assert written.images == 200
    assert written.difference < 1e-3
    session = onnxruntime.InferenceSession(tmp_path / "new" / "model" / "model.onnx")
    (image,), (chance,) = session.get_inputs(), session.get_outputs()
    assert (image.name, image.type) == ("images", "tensor(uint8)")
    assert chance.shape[1] == len(model.description.classes)
    found = session.get_modelmeta().custom_metadata_map
    assert json.loads(found["classes"]) == list(model.description.classes)
    assert found["run_id"] == RUN
    agree(model, lambda x: session.run(None, {"images": x})[0])


@pytest.mark.parametrize("form", FORMS)
def test_an_mlflow_model_predicts_from_images_what_the_model_does(
    form: str, tmp_path: Path
) -> None:
    import mlflow.pyfunc
    from mlflow.models import Model as Described

    model = trained(**FORMS[form])
    export.export(model, "mlflow", tmp_path / "model", RUN)
    agree(model, mlflow.pyfunc.load_model(str(tmp_path / "model")).predict)
    described: Any = Described.load(str(tmp_path / "model"))
    depth = () if model.description.colour == "grey" else (3,)
    (spec,) = described.signature.inputs
    assert (spec.type, spec.shape) == (np.uint8, (-1, -1, -1, *depth))
    assert described.metadata["classes"] == list(model.description.classes)
    assert described.metadata["run_id"] == RUN
    requirements = (tmp_path / "model" / "requirements.txt").read_text().split()
    assert [line.partition("==")[0] for line in requirements] == ["mlflow", "numpy", "torch"]
    assert not list(tmp_path.rglob("*.pkl"))
    agree(model, _in_full(open_folder(tmp_path / "model" / registry.EXTRA)).probabilities)


def test_weights_alone_are_the_model(tmp_path: Path) -> None:
    model = trained(**FORMS["RGB with several labels"])
    written = export.export(model, "torch", tmp_path / "model", RUN)
    assert sorted(file.name for file in (tmp_path / "model").iterdir()) == [
        "last.safetensors",
        "model.json",
    ]
    assert written.bytes == sum(f.stat().st_size for f in (tmp_path / "model").iterdir())
    found = open_folder(tmp_path / "model")
    assert found.description.precision == "bf16"
    agree(model, _in_full(found).probabilities)
    state = load_file(tmp_path / "model" / "last.safetensors")
    expected = model.network.state_dict()
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[name], expected[name]) for name in state)


def test_a_form_that_predicts_otherwise_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = trained()
    write = export.write_torch

    def wrong(model: Model, folder: Path) -> Any:
        write(model, folder)
        return lambda x: model.of_batch(x) + 3e-4

    monkeypatch.setattr(export, "write_torch", wrong)
    with pytest.raises(WrongUse, match=r"test_resnet cannot be exported to torch \(its probabilit"):
        export.export(model, "torch", tmp_path / "model", RUN)
    assert list(tmp_path.iterdir()) == []


def test_a_difference_of_nan_is_a_difference() -> None:
    model = trained()
    x = [images(model, 2, 8, 9)]
    with pytest.raises(WrongUse, match=r"differ by nan, more than 0\.001"):
        export.compared(model, "onnx", lambda x: np.full((2, 2), np.nan), x)
    with pytest.raises(WrongUse, match="differ by inf"):
        export.compared(model, "onnx", lambda x: np.zeros((2, 3)), x)


def test_a_difference_within_the_tolerance_may_not_change_a_clear_class() -> None:
    """0.5007 and 0.4993 are further apart than the tolerance, and each moves by less than it."""
    model = trained()

    class Close:
        def __call__(self, x: torch.Tensor) -> torch.Tensor:
            return torch.tensor([[0.5007, 0.4993]]).log()

    network: Any = Close()
    model.classifier._modules["network"] = network
    x = [images(model, 1, 33, 33)]
    assert export.compared(model, "onnx", lambda x: np.array([[0.5003, 0.4997]]), x) < 5e-4
    with pytest.raises(WrongUse, match="it predicts another class"):
        export.compared(model, "onnx", lambda x: np.array([[0.4999, 0.5001]]), x)


class _ByNumber(torch.nn.Module):
    """A network whose graph depends on how many images there are."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        means = x.mean((2, 3)).expand(-1, 2)
        return means if x.shape[0] < 4 else means * 2


@pytest.mark.parametrize("to", ["onnx", "mlflow"])
def test_a_network_of_a_fixed_batch_is_refused_with_its_reason(
    to: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = trained()
    model.classifier.network = _ByNumber()
    monkeypatch.setattr(export, "write_torch", _without_weights)
    with pytest.raises(WrongUse, match=rf"exported to {to} \(.*\); nothing was written"):
        export.export(model, to, tmp_path / "model", RUN)
    assert list(tmp_path.iterdir()) == []


def _without_weights(model: Model, folder: Path) -> Any:
    folder.mkdir()
    (folder / "last.safetensors").touch()
    export._describe(model, folder, "last.safetensors")


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    model = trained()
    (tmp_path / "empty").mkdir()
    export.export(model, "torch", tmp_path / "empty", RUN)
    before = (tmp_path / "empty" / "model.json").read_bytes()
    for taken in (tmp_path / "empty", tmp_path / "empty" / "model.json"):
        with pytest.raises(WrongUse, match=r"out: .* exists and is not an empty folder"):
            export.export(model, "torch", taken, RUN)
    assert (tmp_path / "empty" / "model.json").read_bytes() == before
    with pytest.raises(WrongUse, match="to: 'tflite' is not one of mlflow, onnx, torch"):
        export.export(model, "tflite", tmp_path / "x", RUN)  # type: ignore[arg-type]


def _in_full(model: Model) -> Model:
    return replace(model, description=replace(model.description, precision="fp32"))
