"""From 8-bit images of any size to what the network takes, as a part of the network."""

from __future__ import annotations

from typing import Any

import torch

from pepr_mlops.data.resize import HALF, weights
from pepr_mlops.train.use.description import Description


class Preprocessing(torch.nn.Module):
    """Images uint8 [n, h, w] grey or [n, h, w, 3] RGB as floats [n, channels, size, size].

    The pixels are those that training had (`data.resize`), for any h and w, also symbolic ones.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, description: Description) -> None:
        super().__init__()
        self._grey = description.colour == "grey"
        self._channels, self._size = description.channels, description.image_size
        self._fit = description.fit
        self._normalised = description.mean is not None
        if description.mean is not None and description.std is not None:
            for name, values in (("mean", description.mean), ("std", description.std)):
                self.register_buffer(name, torch.tensor(values).view(1, -1, 1, 1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = images.unsqueeze(1) if self._grey else images.permute(0, 3, 1, 2)
        x = self._square(x.float()) / 255
        x = x.expand(-1, self._channels, -1, -1)
        if self._normalised:
            x = (x - self.mean) / self.std
        return x

    def _square(self, x: torch.Tensor) -> torch.Tensor:
        height, width = x.shape[-2:]
        if not torch.compiler.is_exporting() and height == width == self._size:
            return x  # as the matrices would leave it
        down = self._weights(height, width, x.device)
        across = self._weights(width, height, x.device)
        return (down @ x @ across.T + HALF).floor().clamp(0, 255)

    def _weights(self, n: Any, other: Any, device: torch.device) -> torch.Tensor:
        rows, columns = (
            torch.arange(side, dtype=torch.float64, device=device) for side in (self._size, n)
        )
        found: torch.Tensor = weights(
            *(rows[:, None], columns[None], n, self._size, other, self._fit),
            least=torch.sym_min,
            most=torch.sym_max,
        )
        return found.float()
