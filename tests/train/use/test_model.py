"""A trained model sees the pixels that training saw, for images of any size."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from made_model import described

from pepr_mlops.data.batches import Batches
from pepr_mlops.data.resize import square
from pepr_mlops.data.splits import Split, Splits
from pepr_mlops.errors import WrongUse
from pepr_mlops.names import MULTI_LABEL
from pepr_mlops.train import models
from pepr_mlops.train.trainer import channel_statistics
from pepr_mlops.train.use.description import Description, Weights
from pepr_mlops.train.use.model import Classifier, Model
from pepr_mlops.train.use.preprocessing import Preprocessing

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
WEIGHTS = Weights("last.safetensors", 3, "0" * 32, 1, None)


def _model(description: Description) -> Model:
    torch.manual_seed(0)
    network = models.build(
        description.model,
        classes=len(description.classes),
        channels=description.channels,
        image_size=description.image_size,
        pretrained=False,
    )
    classifier = Classifier(network, description).eval()
    return Model(classifier, description, WEIGHTS, torch.device("cpu"))


def _images(n: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, *shape), np.uint8)


@pytest.mark.parametrize("size", [28, 32, 100])
@pytest.mark.parametrize(("colour", "channels"), [("grey", 1), ("grey", 3), ("rgb", 3)])
@pytest.mark.parametrize("normalised", [False, True])
def test_the_network_sees_what_it_saw_in_training(
    size: int, colour: str, channels: int, normalised: bool
) -> None:
    images = _images(4, size, size, *(() if colour == "grey" else (3,)))
    split = Split(images, np.arange(4) % 2)
    splits = Splits("x", "x", "binary-class", ("a", "b"), channels, split, split, split)
    mean = std = normalise = None
    if normalised:
        mean, std = channel_statistics(IMAGENET, channels)
        normalise = tuple(torch.tensor(v).view(1, -1, 1, 1) for v in (mean, std))
    batches = Batches(
        *(split, splits),
        image_size=32,
        device=torch.device("cpu"),
        resident=True,
        layout=torch.contiguous_format,
        normalise=normalise,  # type: ignore[arg-type]
    )
    trained, _ = next(batches.take([torch.arange(4)]))
    description = described(colour=colour, channels=channels, mean=mean, std=std)
    seen = Preprocessing(description)(torch.from_numpy(images))
    torch.testing.assert_close(seen, trained, atol=1e-6, rtol=0)


@pytest.mark.parametrize("fit", ["stretch", "pad", "crop"])
@pytest.mark.parametrize("shape", [(50, 80), (301, 64), (64, 47, 3), (20, 20)])
def test_pixels_are_those_of_prepared_files(fit: str, shape: tuple[int, ...]) -> None:
    grey = len(shape) == 2
    (image,) = images = _images(1, *shape)
    channels = 1 if grey else 3
    description = described(fit=fit, colour="grey" if grey else "rgb", channels=channels)
    seen = Preprocessing(description)(torch.from_numpy(images))[0] * 255
    prepared = square(image, 32, fit, grey).reshape(32, 32, channels)
    assert np.array_equal(seen.permute(1, 2, 0).round().numpy(), prepared)


def test_an_image_of_the_right_size_passes_an_exported_graph_unchanged() -> None:
    module, images = Preprocessing(described()), torch.from_numpy(_images(2, 32, 32))
    exported = torch.export.export(module, (images,)).module()
    assert torch.equal(exported(images) * 255, images[:, None].float())


def test_probabilities_do_not_depend_on_the_batch() -> None:
    model, images = _model(described()), _images(7, 40, 30)
    together = model.probabilities(images)
    np.testing.assert_allclose(together.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(model.probabilities(images, 2), together, atol=1e-6)
    assert model.probabilities(images[:0]).shape == (0, 2)


def test_labels_of_one_image_are_independent() -> None:
    model = _model(described(task=MULTI_LABEL))
    x = torch.from_numpy(_images(3, 32, 32))
    logits = model.network(model.preprocessing(x)).detach().double().numpy()
    expected = 1 / (1 + np.exp(-logits))
    np.testing.assert_allclose(model.probabilities(x.numpy()), expected, atol=1e-6)


@pytest.mark.parametrize("shape", [(2, 32, 32, 3), (2, 32), (32, 32)])
def test_images_of_another_form_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(WrongUse, match=r"is not uint8 \[n, h, w\]"):
        _model(described()).probabilities(_images(shape[0], *shape[1:]))
    with pytest.raises(WrongUse, match=r"images: float64 \[1, 8, 8\] is not uint8"):
        _model(described()).probabilities(np.zeros((1, 8, 8)))  # type: ignore[arg-type]
