"""Random changes of training images, against those of torchvision."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as tv

from pepr_mlops import RunSpec, data
from pepr_mlops.data.batches import Batches
from pepr_mlops.train.augment import Augmentation, Changes, change, flip
from pepr_mlops.train.trainer import Trainer

X = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def _changes(**fields: torch.Tensor) -> Changes:
    none: dict[str, Any] = {
        **{"flipped": torch.zeros(4, dtype=torch.long), "degrees": torch.zeros(4)},
        **{"side": torch.ones(4), "away": torch.zeros(4, 2)},
        **{"brightness": torch.ones(4), "contrast": torch.ones(4)},
    }
    return Changes(**none | fields)


def test_without_a_change_images_stay_as_they_are() -> None:
    assert torch.allclose(change(X, _changes()), X, atol=1e-4)


def test_flips_are_torchvisions_and_of_single_images() -> None:
    flipped = torch.tensor([1, 0, 0, 1])
    found = flip(X, flipped)
    expected = [tv.horizontal_flip(x) if f else x for x, f in zip(X, flipped, strict=True)]
    assert torch.equal(found, torch.stack(expected))
    assert torch.allclose(change(X, _changes(flipped=flipped)), found, atol=1e-4)


def test_each_change_is_torchvisions_of_each_image() -> None:
    degrees = torch.tensor([15.0, -15.0, 3.0, 0.0])
    factors = torch.tensor([0.8, 0.9, 1.1, 1.2])
    bilinear = {"interpolation": InterpolationMode.BILINEAR}
    found = change(X, _changes(degrees=degrees))
    for one, x, angle in zip(found, X, degrees.tolist(), strict=True):
        assert torch.allclose(one, tv.rotate(x, angle, **bilinear), atol=1e-4)
    brighter, sharper = (change(X, _changes(**{n: factors})) for n in ("brightness", "contrast"))
    for i, factor in enumerate(factors.tolist()):
        assert torch.allclose(brighter[i], tv.adjust_brightness(X[i], factor), atol=1e-4)
        assert torch.allclose(sharper[i], tv.adjust_contrast(X[i], factor), atol=1e-4)
    grey = X[:, :1]
    expected = torch.stack([tv.adjust_contrast(x, 0.8) for x in grey])
    found = change(grey, _changes(contrast=torch.full((4,), 0.8)))
    assert torch.allclose(found, expected, atol=1e-4)


def test_a_crop_is_torchvisions() -> None:
    """The centre of a crop of 56 of 64 pixels is 4 pixels right of the image's, 2 above it."""
    away = torch.tensor([[4 / 32, -2 / 32]] * 4)
    found = change(X, _changes(side=torch.full((4,), 56 / 64), away=away))
    expected = tv.resized_crop(X, 2, 8, 56, 56, [64, 64], antialias=False)
    inside = (..., slice(1, -1), slice(1, -1))  # at its border torchvision repeats a crop's pixels
    assert torch.allclose(found[inside], expected[inside], atol=1e-4)


def test_changes_are_drawn_in_their_limits_and_differ_between_images() -> None:
    drawn = Augmentation("standard", 0).draw(4000)
    assert 0.45 < drawn.flipped.double().mean() < 0.55
    assert 14.9 < drawn.degrees.abs().max() <= 15
    area = drawn.side**2
    assert 0.8 <= area.min() < 0.801
    assert 0.89 < area.mean() < 0.91
    assert (drawn.away.abs() <= (1 - drawn.side)[:, None]).all()  # the crop is in the image
    for factor in (drawn.brightness, drawn.contrast):
        assert 0.8 <= factor.min() < 0.801
        assert 1.199 < factor.max() <= 1.2
    assert len(drawn.degrees.unique()) > 3900


def _batches(augment: Augmentation | None) -> Batches:
    splits = data.load(RunSpec(dataset="digits", image_size=32, fraction=0.1))
    options: dict[str, Any] = {"device": torch.device("cpu"), "resident": True, "normalise": None}
    layout = torch.contiguous_format
    options |= {"image_size": 32, "layout": layout, "augment": augment}
    return Batches(splits.train, splits, **options)


def test_the_seed_decides_which_images_are_flipped() -> None:
    plain = _batches(None)
    order = plain.order(32, torch.Generator().manual_seed(0))
    original = torch.cat([x for x, _ in plain.take(order)])

    def flipped(seed: int) -> np.ndarray:
        found = torch.cat([x for x, _ in _batches(Augmentation("flips", seed)).take(order)])
        same = (found == original).flatten(1).all(dim=1)
        mirrored = (found == original.flip(-1)).flatten(1).all(dim=1)
        assert (same | mirrored).all()
        return mirrored.numpy()

    first = flipped(0)
    assert 0.35 < first.mean() < 0.65
    for batch in np.split(first, range(32, len(first), 32)):
        assert 0 < batch.sum() < len(batch)  # per image, not per batch
    assert (flipped(0) == first).all()
    assert (flipped(1) != first).any()


def test_flips_do_not_depend_on_the_place_of_an_image_in_the_data_set() -> None:
    """The order of the images is drawn with the same seed."""
    images = torch.tensor([1.0, 0.0]).expand(512, 1, 1, 2)
    even, odd = [], []
    for seed in range(40):
        order = torch.randperm(512, generator=torch.Generator().manual_seed(seed))
        flipped = Augmentation("flips", seed)(images)[:, 0, 0, 1]
        even.append(flipped[order % 2 == 0])
        odd.append(flipped[order % 2 == 1])
    for part in (even, odd):  # of 10,240 fair coins the share is within 0.015 of a half
        assert abs(float(torch.cat(part).mean()) - 0.5) < 0.015


@pytest.mark.parametrize("kind", ["flips", "standard"])
def test_only_training_images_change_and_their_order_does_not(kind: str) -> None:
    cpu = torch.device("cpu")
    options: dict[str, Any] = {"dataset": "digits", "image_size": 32, "fraction": 0.1}
    plain, changed = (
        Trainer(spec, data.load(spec), _network(), cpu)
        for spec in (RunSpec(**options), RunSpec(**options, augment=kind))
    )
    for part, same in (("train", False), ("val", True), ("test", True)):
        first, second = (
            next(getattr(t, part).take([torch.arange(16)]))[0] for t in (plain, changed)
        )
        assert torch.equal(first, second) is same
    orders = [t.train.order(32, torch.Generator().manual_seed(0)) for t in (plain, changed)]
    assert all(torch.equal(a, b) for a, b in zip(*orders, strict=True))


def _network() -> torch.nn.Module:
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(1024, 10))
    network.pretrained_cfg = {}  # type: ignore[assignment]
    return network
