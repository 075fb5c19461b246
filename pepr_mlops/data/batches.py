"""From 8-bit images, in memory or on disk, to the batches a network sees."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from pepr_mlops.data.resize import HALF
from pepr_mlops.data.splits import Pixels, Split, Splits
from pepr_mlops.data.stored import Stored
from pepr_mlops.names import MULTI_LABEL

# Share of a GPU's memory that a data set may take, so that enough is left for training. It is not a
# share of the free memory, which changes with time: the images count in the measured peak.
_RESIDENT_SHARE = 0.25


class Batches:
    """One split in batches of float images [n, channels, size, size] and labels.

    The images are stored with 8 bits: on `device` if `resident`, else in the host's memory or on
    disk, from which each batch is copied. While the network works on a batch, the next one is read
    from disk into one of two buffers. On the device they are resized as `data.resize` says, become
    floats in [0, 1], are changed by `augment`, repeated over the channels, and normalised with a
    mean and a standard deviation per channel, `normalise`. `known` is the share of the labels of
    each image that are known, [n] on the host: 1 where an image has one class.
    """

    def __init__(
        self,
        split: Split,
        splits: Splits,
        *,
        image_size: int,
        device: torch.device,
        resident: bool,
        layout: torch.memory_format,
        normalise: tuple[torch.Tensor, torch.Tensor] | None,
        augment: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ) -> None:
        self.images = _placed(split.images, device if resident else None)
        labels = torch.from_numpy(split.labels)
        self.known = (labels >= 0).reshape(len(labels), -1).double().mean(dim=1)
        self.labels = labels.to(device)
        if splits.task == MULTI_LABEL:
            self.labels = self.labels.float()
        self._channels = splits.channels
        self._size = image_size
        self._device = device
        self._layout = layout
        self._normalise = normalise
        self._augment = augment

    def __len__(self) -> int:
        return len(self.images)

    def order(self, batch_size: int, shuffle: torch.Generator | None) -> list[torch.Tensor]:
        """Indices of each batch. A last batch of a single image joins the batch before it.

        Batch normalisation cannot train on one image, and without the image training has too few.
        """
        n = len(self)
        indices = torch.arange(n) if shuffle is None else torch.randperm(n, generator=shuffle)
        parts = list(indices.split(batch_size))
        if len(parts) > 1 and len(parts[-1]) == 1:
            parts[-2:] = [torch.cat(parts[-2:])]
        return parts

    def take(self, order: list[torch.Tensor]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """The images and labels of each batch of indices, on the device."""
        stored = isinstance(self.images, Stored)
        for indices, images in self._read(order) if stored else self._chosen(order):
            on_device = indices.to(self._device, non_blocking=True)
            yield self._prepare(images), self.labels[on_device]

    def _chosen(self, order: list[torch.Tensor]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """The indices and images of each batch of a split in memory, on the device."""
        assert isinstance(self.images, torch.Tensor)
        for indices in order:
            images = self.images[indices.to(self.images.device, non_blocking=True)]
            if images.device != self._device and self._device.type == "cuda":
                images = images.pin_memory()  # so that the copy does not wait for the work before
            yield indices, images.to(self._device, non_blocking=True)

    def _read(self, order: list[torch.Tensor]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """The same of a split on disk."""
        assert isinstance(self.images, Stored)
        images, on_gpu = self.images, self._device.type == "cuda"
        shape = (max(map(len, order)), *images.shape[1:])
        buffers = [torch.empty(shape, dtype=torch.uint8, pin_memory=on_gpu) for _ in range(2)]
        copied = [torch.cuda.Event() for _ in range(2)] if on_gpu else []

        def fill(step: int) -> torch.Tensor:
            if copied:  # the buffer is free once its last batch is on the device
                copied[step % 2].synchronize()
            part = buffers[step % 2][: len(order[step])]
            images.read(order[step].numpy(), part.numpy())
            return part

        with ThreadPoolExecutor(1) as reader:
            coming = reader.submit(fill, 0)
            for step, indices in enumerate(order):
                batch = coming.result()
                on_device = batch.to(self._device, non_blocking=on_gpu)
                if on_gpu:
                    copied[step % 2].record()
                if step + 1 < len(order):
                    coming = reader.submit(fill, step + 1)
                yield indices, on_device

    def _prepare(self, images: torch.Tensor) -> torch.Tensor:
        x = images.unsqueeze(1) if images.ndim == 3 else images.permute(0, 3, 1, 2)
        x = resized(x.float(), self._size).div_(255)
        if self._augment is not None:
            x = self._augment(x)
        x = x.expand(-1, self._channels, -1, -1)
        if self._normalise is not None:
            mean, std = self._normalise
            x = (x - mean) / std
        return x.contiguous(memory_format=self._layout)


def resized(x: torch.Tensor, size: int) -> torch.Tensor:
    """Square images [n, channels, h, h] of floats from 0 to 255 in another size, as
    `resize.square`; the same where they have it."""
    if x.shape[-1] == x.shape[-2] == size:
        return x
    shrinks = x.shape[-1] > size
    x = torch.nn.functional.interpolate(x, (size, size), mode="bilinear", antialias=shrinks)
    return x.add_(HALF).floor_().clamp_(0, 255)


def _placed(images: Pixels | Stored, device: torch.device | None) -> torch.Tensor | Stored:
    """The images on the device, or where they are without one."""
    if isinstance(images, np.ndarray):
        found = torch.from_numpy(images)
        return found if device is None else found.to(device)
    if device is None or device.type == "cpu":
        return images
    on_device = torch.empty(images.shape, dtype=torch.uint8, device=device)
    start = 0
    for part in images.parts():
        on_device[start : start + len(part)] = torch.from_numpy(part)
        start += len(part)
    return on_device


def fits(splits: Splits, device: torch.device) -> bool:
    """Whether all images may stay on the device during training."""
    if device.type != "cuda":
        return device.type == "cpu"
    total = torch.cuda.get_device_properties(device).total_memory
    needed = sum(part.images.nbytes for part in splits.by_name().values())
    return needed <= _RESIDENT_SHARE * total
