"""What the network sees: floats, sizes, channels, layout and order."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional

from pepr_mlops.data.batches import Batches, resized
from pepr_mlops.data.resize import square
from pepr_mlops.data.splits import Split, Splits
from pepr_mlops.data.stored import Stored
from pepr_mlops.names import MULTI_LABEL


def _splits(n: int = 10, size: int = 28, channels: int = 1) -> Splits:
    rng = np.random.default_rng(0)
    shape = (n, size, size) if channels == 1 else (n, size, size, 3)
    split = Split(rng.integers(0, 256, shape, dtype=np.uint8), np.arange(n) % 2)
    return Splits("x", "x", "binary-class", ("a", "b"), channels, split, split, split)


def _batches(splits: Splits, **options: object) -> Batches:
    defaults: dict[str, object] = {
        "image_size": 28,
        "device": torch.device("cpu"),
        "resident": True,
        "layout": torch.contiguous_format,
        "normalise": None,
    }
    return Batches(splits.train, splits, **(defaults | options))  # type: ignore[arg-type]


def _all(batches: Batches) -> tuple[torch.Tensor, torch.Tensor]:
    return next(batches.take([torch.arange(len(batches))]))


def test_pixels_become_shares_of_255() -> None:
    splits = _splits()
    x, y = _all(_batches(splits))
    assert torch.equal(x[:, 0], torch.from_numpy(splits.train.images).float() / 255)
    assert y.tolist() == splits.train.labels.tolist()


@pytest.mark.parametrize("size", [64, 17])
def test_resizing_is_torchvisions(size: int) -> None:
    splits = _splits(channels=3)
    x, _ = _all(_batches(splits, image_size=size))
    floats = torch.from_numpy(splits.train.images).permute(0, 3, 1, 2).float()
    expected = functional.resize(floats, [size, size], antialias=True)
    torch.testing.assert_close(x * 255, expected, atol=0.502, rtol=0)  # rounded to 8 bits
    torch.testing.assert_close(x * 255, (x * 255).round(), atol=1e-4, rtol=0)


@pytest.mark.parametrize(("before", "after"), [(28, 64), (28, 17), (224, 256), (300, 224)])
def test_pixels_are_those_that_files_of_ones_own_get(before: int, after: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, before, before), np.uint8)
    here = resized(torch.from_numpy(images)[:, None].float(), after)[:, 0].numpy()
    own = np.stack([square(image, after, "stretch", True) for image in images])
    assert np.abs(here - own).max() <= 1
    assert (here != own).mean() < 1e-3


def test_grey_is_repeated_for_a_colour_network() -> None:
    x, _ = _all(_batches(replace(_splits(), channels=3)))
    assert x.shape == (10, 3, 28, 28)
    assert torch.equal(x[:, 0], x[:, 2])


def test_normalised_per_channel() -> None:
    mean, std = torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.5, 0.25, 1.0])
    splits = _splits(channels=3)
    pair = (mean.view(1, 3, 1, 1), std.view(1, 3, 1, 1))
    plain, _ = _all(_batches(splits))
    x, _ = _all(_batches(splits, normalise=pair))
    torch.testing.assert_close(x[0, 1], (plain[0, 1] - 0.2) / 0.25)


def test_the_layout_is_that_of_the_settings() -> None:
    x, _ = _all(_batches(_splits(channels=3), layout=torch.channels_last))
    assert x.is_contiguous(memory_format=torch.channels_last)


def test_every_image_comes_once_in_an_order_the_seed_decides() -> None:
    batches = _batches(_splits(n=70))
    orders = [
        torch.cat(batches.order(32, torch.Generator().manual_seed(seed))).tolist()
        for seed in (1, 1, 2)
    ]
    assert sorted(orders[0]) == list(range(70))
    assert orders[0] == orders[1] != orders[2]
    assert [len(part) for part in batches.order(32, None)] == [32, 32, 6]


def test_a_single_image_left_over_joins_the_batch_before() -> None:
    assert [len(p) for p in _batches(_splits(n=65)).order(32, None)] == [32, 33]


def test_several_labels_are_floats_for_their_loss() -> None:
    splits = replace(_splits(), task=MULTI_LABEL)
    assert _all(_batches(splits))[1].dtype == torch.float32


@pytest.mark.parametrize("size", [28, 17])
def test_images_on_disk_give_the_same_batches(tmp_path: Path, size: int) -> None:
    splits = _splits(n=70, channels=3)
    path = tmp_path / "images.u8"
    path.write_bytes(splits.train.images.tobytes())
    stored = replace(splits.train, images=Stored(path, (28, 28, 3), np.arange(70)))
    in_memory = _batches(splits, image_size=size)
    on_disk = _batches(replace(splits, train=stored), image_size=size)
    order = in_memory.order(8, torch.Generator().manual_seed(1))
    for _ in range(2):
        pairs = zip(in_memory.take(order), on_disk.take(order), strict=True)
        for (x, y), (other_x, other_y) in pairs:
            assert torch.equal(x, other_x)
            assert torch.equal(y, other_y)
    next(on_disk.take(order))  # and one that is left early, as by a budget
