"""How a network is trained: its loss, its optimizer and the learning rate of each step."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch

from pepr_mlops.data.splits import Splits
from pepr_mlops.errors import WrongUse
from pepr_mlops.names import MULTI_LABEL
from pepr_mlops.spec import RunSpec

_OPTIMIZERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}


def optimiser(
    spec: RunSpec, weights: Iterable[torch.nn.Parameter], device: torch.device, *, graphs: bool
) -> torch.optim.Optimizer:
    """The optimiser of `weights`; with `graphs` its steps can be recorded as CUDA graphs."""
    # A graph repeats the numbers it was recorded with; a tensor can change between its launches.
    recorded = graphs and scheduled(spec)
    kind: type[torch.optim.Adam] = _OPTIMIZERS[spec.optimizer]
    return kind(
        weights,
        lr=torch.tensor(spec.lr, device=device) if recorded else spec.lr,
        weight_decay=spec.weight_decay,
        fused=device.type in ("cpu", "cuda") or None,  # each weight is read once, not ten times
        capturable=graphs,
    )


def scheduled(spec: RunSpec) -> bool:
    """Whether the learning rate changes from step to step."""
    return spec.schedule != "constant" or spec.warmup > 0


def rate(spec: RunSpec, step: int, steps: int) -> float:
    """The share of `spec.lr` in a step of the training, from 0, of which an epoch has `steps`.

    It rises linearly from 0 over the epochs of the warm-up. Then it stays at 1, or falls to 0 after
    the last epoch as half a cosine.
    """
    warm = spec.warmup * steps
    if step < warm:
        return step / warm
    if spec.schedule == "constant":
        return 1.0
    done = (step - warm) / (spec.epochs * steps - warm)
    return (1 + math.cos(math.pi * done)) / 2


def set_rate(optimiser: torch.optim.Optimizer, lr: float) -> None:
    for group in optimiser.param_groups:
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(lr)
        else:
            group["lr"] = lr


def losses(
    spec: RunSpec, splits: Splits, device: torch.device
) -> tuple[torch.nn.Module, torch.nn.Module]:
    """The loss to train with, and the one to evaluate with, which has no weights of classes: so
    that evaluations compare whatever a network was trained with. Any set that is evaluated may have
    labels that are not known."""
    train = torch.from_numpy(splits.train.labels)
    balanced = spec.class_weights == "balanced"
    if splits.task != MULTI_LABEL:
        weights = balance(train, len(splits.classes)).to(device) if balanced else None
        return torch.nn.CrossEntropyLoss(weights), torch.nn.CrossEntropyLoss()
    weights = balance_of_labels(train, splits.classes).to(device) if balanced else None
    loss = KnownLabels if (train < 0).any() else torch.nn.BCEWithLogitsLoss
    return loss(pos_weight=weights), KnownLabels()


def balance(labels: torch.Tensor, classes: int) -> torch.Tensor:
    """n / (classes · n_c) for each class c, as scikit-learn has it. [classes]"""
    counts = torch.bincount(labels, minlength=classes)
    return (len(labels) / (classes * counts.double())).float()


def balance_of_labels(labels: torch.Tensor, classes: Sequence[str]) -> torch.Tensor:
    """The known negative images for each positive one of each label, [labels]. Raises `WrongUse`
    for a label without negative images."""
    positive, negative = (labels == 1).sum(dim=0), (labels == 0).sum(dim=0)
    if not negative.all():
        name = classes[int((negative == 0).nonzero()[0])]
        raise WrongUse(
            "class_weights: balanced needs training images with and without each label, and none "
            f"is without {name}; use class_weights=none, or remove the label"
        )
    return (negative.double() / positive).float()


class KnownLabels(torch.nn.Module):
    """`BCEWithLogitsLoss` over the known labels of a batch, 0 without any; -1 is not known.

    It is in fp32 at least: bf16 cannot count beyond 256.
    """

    def __init__(self, pos_weight: torch.Tensor | None = None) -> None:
        super().__init__()
        self._pos_weight = pos_weight

    def forward(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        if logits.dtype.itemsize < 4:
            logits = logits.float()
        known = (labels >= 0).to(logits.dtype)
        total = torch.nn.functional.binary_cross_entropy_with_logits(
            logits, labels.clamp(min=0), known, reduction="sum", pos_weight=self._pos_weight
        )
        return total / known.sum().clamp(min=1)


def cautions(spec: RunSpec) -> list[str]:
    """What a reader of the numbers must know about the recipe."""
    if spec.tune == "head" and not spec.pretrained:
        return ["tune: the head is trained on top of random weights, since pretrained is false"]
    return []


def notes(spec: RunSpec) -> list[str]:
    """What the training does to its images and weights besides the protocol of the paper."""
    found = []
    if spec.augment == "flips":
        found.append("augment: half of the training images are flipped in each epoch")
    if spec.augment == "standard":
        found.append(
            "augment: training images are flipped, rotated by up to 15°, cropped to 80 to 100% of "
            "their area, and changed by up to 20% in brightness and contrast"
        )
    if spec.tune == "head":
        found.append("tune: only the classifier is trained, on the features of a frozen network")
    return found
