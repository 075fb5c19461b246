"""A trained model in memory: its network, its preprocessing, and what it predicts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from pepr_mlops.comparison.metrics import Floats
from pepr_mlops.data.splits import Pixels
from pepr_mlops.data.stored import Stored
from pepr_mlops.errors import WrongUse, one_line
from pepr_mlops.tracking.read import model_files
from pepr_mlops.train import models
from pepr_mlops.train.trainer import AUTOCAST
from pepr_mlops.train.use import description as described
from pepr_mlops.train.use.description import Description, Weights, Which
from pepr_mlops.train.use.preprocessing import Preprocessing

BATCH = 32


class Classifier(torch.nn.Module):
    """Images uint8 [n, h, w] grey or [n, h, w, 3] RGB of any size to probabilities [n, classes]:
    what is exported."""

    def __init__(self, network: torch.nn.Module, description: Description) -> None:
        super().__init__()
        self.preprocessing = Preprocessing(description)
        self.network = network
        self._several = description.several

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.chances(self.network(self.preprocessing(images)))

    def chances(self, logits: torch.Tensor) -> torch.Tensor:
        """Logits as probabilities, in 32 bits."""
        logits = logits.float()
        return logits.sigmoid() if self._several else logits.softmax(dim=1)


@dataclass(frozen=True)
class Model:
    """A trained model, in evaluation mode on `device`; `weights` are those loaded."""

    classifier: Classifier
    description: Description
    weights: Weights
    device: torch.device

    @property
    def network(self) -> torch.nn.Module:
        """The timm network, which takes what `preprocessing` returns and returns logits."""
        return self.classifier.network

    @property
    def preprocessing(self) -> Preprocessing:
        return self.classifier.preprocessing

    def probabilities(self, images: Pixels | Stored, batch_size: int = BATCH) -> Floats:
        """Probabilities [n, classes] of images uint8 [n, h, w] grey or [n, h, w, 3] RGB, in the
        precision of the training. Raises `WrongUse` for images of another form."""
        parts = [self.of_batch(part) for part in _batches(images, batch_size)]
        return np.concatenate(parts) if parts else np.empty((0, len(self.description.classes)))

    def of_batch(self, images: Pixels) -> Floats:
        """`probabilities` of one batch."""
        colours = 3 if self.description.colour == "grey" else 4
        if images.ndim != colours or images.dtype != np.uint8 or images.shape[3:] not in ((), (3,)):
            form = "[n, h, w]" if colours == 3 else "[n, h, w, 3]"
            raise WrongUse(
                f"images: {images.dtype} {list(images.shape)} is not uint8 {form}, which "
                f"{self.description.model} was trained on; convert them"
            )
        dtype = AUTOCAST.get(self.description.precision)
        x = torch.from_numpy(np.ascontiguousarray(images)).to(self.device)
        with torch.inference_mode():
            x = self.preprocessing(x)
            with torch.autocast(self.device.type, dtype=dtype, enabled=dtype is not None):
                logits = self.network(x)
            found: Floats = self.classifier.chances(logits).double().cpu().numpy()
        return found


def _batches(images: Pixels | Stored, size: int) -> Iterator[Pixels]:
    if isinstance(images, Stored):
        for start in range(0, len(images), size):
            part = np.empty((min(size, len(images) - start), *images.shape[1:]), np.uint8)
            images.read(np.arange(start, start + len(part)), part)
            yield part
    else:
        yield from (images[start : start + size] for start in range(0, len(images), size))


def open_folder(
    folder: Path, which: Which | None = None, device: torch.device | str = "cpu"
) -> Model:
    """The model in a folder with `model.json` and its weights.

    Raises `WrongUse` for a folder without, for weights that are not those described, and for a
    network that cannot be built or takes others.
    """
    from safetensors.torch import load_file

    description = described.read(folder)
    weights = description.chosen(which)
    path = folder / Path(weights.file).name
    model_files.check(path, weights.digest, f"that {described.FILE} describes", "copy it again")
    network = models.build(
        description.model,
        classes=len(description.classes),
        channels=description.channels,
        image_size=description.image_size,
        pretrained=False,
    )
    try:
        network.load_state_dict(load_file(path))
    except Exception as error:  # of safetensors, or of torch for other names and shapes
        raise WrongUse(
            f"weights: {path} does not fit {description.model} with {len(description.classes)} "
            f"classes ({one_line(error)[:160]}); install the timm that trained it "
            f"({description.versions.get('timm', 'not known')}), or copy the model again"
        ) from error
    classifier = Classifier(network, description).eval().requires_grad_(False)
    return Model(classifier.to(device), description, weights, torch.device(device))
