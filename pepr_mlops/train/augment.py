"""Random changes of training images on the device, other ones for each image of a batch.

The transforms of torchvision change all images of a batch alike, and image by image they take
longer than a step of a small network. Here a batch is resampled once, by an affine map for each
image, which is flip, rotation and crop in one: of 32 images of 256 pixels, on two CPU cores, in a
twentieth of the time. Tests compare each change with torchvision's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

_DEGREES = 15.0
_AREA = 0.8  # of an image, at least, that a crop shows
_LIGHT = 0.2  # relative change of brightness and of contrast, at most


@dataclass(frozen=True)
class Changes:
    """What happens to each of n images. `flipped` [n] is 0 or 1; `degrees` [n], counter-clockwise;
    a crop is square, of the share `side` [n] of the image's side, its centre `away` [n, 2] (x, y)
    from the image's, of which half a side is 1; `brightness` and `contrast` [n] are factors."""

    flipped: torch.Tensor
    degrees: torch.Tensor
    side: torch.Tensor
    away: torch.Tensor
    brightness: torch.Tensor
    contrast: torch.Tensor


class Augmentation:
    """The `flips` or the `standard` changes of images [n, channels, size, size] in [0, 1].

    They are drawn on the host, from a `generator` of their own, so that the order of the images and
    what the network draws do not depend on them. Its seed is apart from theirs: generators of one
    seed draw the same numbers, and images early in the order would be flipped more often.
    """

    def __init__(self, kind: str, seed: int) -> None:
        self._kind = kind
        own = np.random.SeedSequence([seed, 1]).generate_state(1, np.uint64)
        self.generator = torch.Generator().manual_seed(int(own[0]))

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        n = len(x)
        if self._kind == "flips":
            return flip(x, self._flipped(n).to(x.device, non_blocking=True))
        return change(x, self.draw(n))

    def draw(self, n: int) -> Changes:
        side = (1 - (1 - _AREA) * self._uniform(n)).sqrt()
        return Changes(
            flipped=self._flipped(n),
            degrees=_DEGREES * self._symmetric(n),
            side=side,
            away=(1 - side)[:, None] * self._symmetric(n, 2),
            brightness=1 + _LIGHT * self._symmetric(n),
            contrast=1 + _LIGHT * self._symmetric(n),
        )

    def _flipped(self, n: int) -> torch.Tensor:
        return torch.randint(2, (n,), generator=self.generator)

    def _uniform(self, *shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=self.generator)

    def _symmetric(self, *shape: int) -> torch.Tensor:
        return 2 * self._uniform(*shape) - 1


def flip(x: torch.Tensor, flipped: torch.Tensor) -> torch.Tensor:
    """Mirror left and right the images [n, channels, height, width] that are `flipped` [n]."""
    return torch.where(flipped.bool()[:, None, None, None], x.flip(-1), x)


def change(x: torch.Tensor, changes: Changes) -> torch.Tensor:
    """Change each image; where it shows what was outside the image, it is black."""
    maps = _maps(changes).to(x.device, non_blocking=True)
    grid = torch.nn.functional.affine_grid(maps, list(x.shape), align_corners=False)
    x = torch.nn.functional.grid_sample(x, grid, align_corners=False)
    light = torch.stack([changes.brightness, changes.contrast])[..., None, None, None]
    brightness, contrast = light.to(x.device, non_blocking=True)
    x = (x * brightness).clamp_(0, 1)
    mean = _grey(x).mean(dim=(-2, -1), keepdim=True)
    return torch.lerp(mean, x, contrast).clamp_(0, 1)


def _maps(changes: Changes) -> torch.Tensor:
    """From places in the changed image to places in the image, [n, 2, 3]: a crop of the rotated
    image, flipped."""
    angle = changes.degrees * (math.pi / 180)
    cos, sin = angle.cos(), angle.sin()
    rotation = torch.stack([torch.stack([cos, -sin], -1), torch.stack([sin, cos], -1)], -2)
    mirror = torch.stack([1 - 2.0 * changes.flipped, torch.ones_like(cos)], -1)
    scaled = rotation * (changes.side[:, None] * mirror)[:, None, :]
    centre = rotation @ changes.away[..., None]
    return torch.cat([scaled, centre], dim=-1)


def _grey(x: torch.Tensor) -> torch.Tensor:
    """The luma of images in RGB (ITU-R 601-2), of which torchvision takes the mean."""
    if x.shape[1] != 3:
        return x
    weights = torch.tensor([0.299, 0.587, 0.114], device=x.device).view(3, 1, 1)
    return (x * weights).sum(dim=1, keepdim=True)
