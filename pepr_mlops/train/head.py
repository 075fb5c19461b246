"""Training the classifier alone, on the features that a frozen network has of each image."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

from pepr_mlops.data.batches import Batches
from pepr_mlops.data.stored import Stored
from pepr_mlops.errors import WrongUse

Body = Callable[[torch.Tensor], torch.Tensor]


def split(network: torch.nn.Module, model: str, example: torch.Tensor) -> torch.nn.Module:
    """Freeze all of a timm network but its classifier, and return that.

    `features` gives what the classifier takes. Raises `WrongUse` for a network that does not pass
    the features of the `example` images through its classifier to its output.
    """
    network.eval().requires_grad_(False)
    classifier = _classifier(network, example)
    if classifier is None:
        raise WrongUse(
            f"tune: the classifier of {model} cannot be trained apart from its other layers; use "
            "tune=all, or another model"
        )
    return classifier.requires_grad_(True)


def _classifier(network: Any, example: torch.Tensor) -> torch.nn.Module | None:
    """The classifier of a network whose output is classifier(features), else None."""
    classifier = network.get_classifier() if hasattr(network, "get_classifier") else None
    if not isinstance(classifier, torch.nn.Module) or not list(classifier.parameters()):
        return None
    calls: list[tuple[torch.Tensor, torch.Tensor]] = []
    hook = classifier.register_forward_hook(lambda _, given, out: calls.append((given[0], out)))
    with torch.inference_mode(), hook:
        output = network(example)
    if len(calls) != 1 or not torch.equal(calls[0][1], output):
        return None
    try:
        with torch.inference_mode():
            found = features(network, example)
    except (AttributeError, TypeError):  # it has no features apart from its head
        return None
    same = found.shape == calls[0][0].shape and torch.allclose(found, calls[0][0], atol=1e-4)
    return classifier if same else None


def features(network: Any, x: torch.Tensor) -> torch.Tensor:
    """What the classifier of a timm network takes, for images [n, channels, size, size]."""
    found: torch.Tensor = network.forward_head(network.forward_features(x), pre_logits=True)
    return found


class Features:
    """The features of one split in batches, as `Batches` has its images.

    `body` computes them. With `once` it does so when they are first needed, and they are stored
    where the images are; without, which changing images need, it does so for each batch.
    """

    def __init__(self, batches: Batches, body: Body, batch_size: int, *, once: bool = True) -> None:
        self._batches, self._body, self._batch_size = batches, body, batch_size
        self._once = once
        self._stored: torch.Tensor | None = None
        self.labels, self.known = batches.labels, batches.known

    def __len__(self) -> int:
        return len(self._batches)

    def order(self, batch_size: int, shuffle: torch.Generator | None) -> list[torch.Tensor]:
        return self._batches.order(batch_size, shuffle)

    def take(self, order: list[torch.Tensor]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """The features and labels of each batch of indices, on the device."""
        if not self._once:
            yield from ((self._body(x), y) for x, y in self._batches.take(order))
            return
        self.compute()
        assert self._stored is not None
        stored, device = self._stored, self.labels.device
        for indices in order:
            on_device = indices.to(device, non_blocking=True)
            chosen = indices if stored.device.type == "cpu" else on_device
            yield stored[chosen].to(device, non_blocking=True), self.labels[on_device]

    @property
    def pending(self) -> bool:
        """Whether features are still to be computed and stored."""
        return self._once and self._stored is None

    def compute(self) -> None:
        """Compute and store the features of all images, unless that was done."""
        if self.pending:
            parts = list(torch.arange(len(self)).split(self._batch_size))
            images = self._batches.images
            where = torch.device("cpu") if isinstance(images, Stored) else images.device
            self._stored = torch.cat(
                [self._body(x).to(where) for x, _ in self._batches.take(parts)]
            )
