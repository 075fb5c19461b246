"""`model.json`: all that is needed to use the weights next to it, and to check that they are
the right ones.

It is data alone: loading a model executes nothing that a file says.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from pepr_mlops.errors import WrongUse
from pepr_mlops.files import digest_of as digest_of
from pepr_mlops.files import read_json
from pepr_mlops.names import MULTI_LABEL, Task
from pepr_mlops.tracking.read import model_files
from pepr_mlops.tracking.read.model_files import FILE as FILE
from pepr_mlops.tracking.read.model_files import Which as Which
from pepr_mlops.validation import checked

VERSION = 1


@dataclass(frozen=True)
class Weights:
    """One file of weights: its name, the epoch it is of, its digest (BLAKE2b, 32 hexadecimal
    digits) and size, and the probabilities from which an image counts as positive, one for each
    class (of a binary task for the second alone), chosen on validation after that epoch, or None
    where that has no images of a class."""

    file: str
    epoch: int
    digest: str
    bytes: int
    thresholds: tuple[float, ...] | None


@dataclass(frozen=True)
class Description:
    """A trained model.

    `model` is its name as `RunSpec` has it, `channels` are those that the network takes; images of
    the `colour` grey are repeated to them. `image_size`, `fit`, `frames`, `window`, `axis`, `every`
    and `intensities` are those of `RunSpec`, `bounds` the grey values that become black and white
    in images that need a window of percentiles. `resize` names how images are resized. Images in
    [0, 1] become (x - mean) / std, by channel, or stay as they are without `mean`. `precision` is
    that of the training, in which `load_model` predicts too. `epochs` is the epoch that P of the
    run is of. `weights` are by `Which`. `initial_weights` are those the training started from.
    """

    version: int
    model: str
    classes: tuple[str, ...]
    task: Task
    colour: Literal["grey", "rgb"]
    channels: int
    image_size: int
    fit: str
    resize: str
    intensities: str
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    frames: str
    window: str
    axis: int
    every: int
    bounds: tuple[float, float] | None
    precision: str
    epochs: int
    parameters: int
    dataset: str
    data_digest: str
    initial_weights: str
    weights: dict[str, Weights]
    versions: dict[str, str]

    def chosen(self, which: Which | None = None) -> Weights:
        """The weights `which`, by default the last if they were kept. Raises `WrongUse`."""
        name = model_files.chosen(which, self.weights)
        if name not in self.weights:
            raise WrongUse(
                f"weights: the {name} ones of {self.model} were not kept; there are: "
                f"{', '.join(self.weights) or 'none'}"
            )
        return self.weights[name]

    def only(self, which: Which) -> Description:
        """The same with one file of weights."""
        return replace(self, weights={which: self.chosen(which)})

    @property
    def several(self) -> bool:
        """Whether an image may have several labels, so that probabilities do not sum to 1."""
        return self.task == MULTI_LABEL

    def as_json(self) -> bytes:
        return json.dumps(asdict(self), indent=2).encode()


def read(folder: Path) -> Description:
    """The description in a folder. Raises `WrongUse` for one that is missing, damaged or of another
    version."""
    path = folder / FILE
    try:
        content = read_json(path, "model")
    except OSError as error:
        raise WrongUse(
            f"model: {path} cannot be read ({error.strerror}); name a run, or a folder that "
            "`pepr export` wrote"
        ) from error
    if not isinstance(content, Mapping) or content.get("version") != VERSION:
        found = content.get("version") if isinstance(content, Mapping) else None
        raise WrongUse(
            f"model: {path} has version {found}, and this pepr_mlops reads {VERSION}; install the "
            "version of pepr_mlops that wrote it, or export the model again"
        )
    description: Description = checked(Description, content, f"model: {path}")
    _check_classes(description, path)
    return description


def _check_classes(found: Description, path: Path) -> None:
    """Raise `WrongUse` where parts of a description contradict each other."""
    columns = 1 if found.task == "binary-class" else len(found.classes)
    lengths = {
        "mean": (found.mean, found.channels),
        "std": (found.std, found.channels),
        **{
            f"thresholds of {name}": (weights.thresholds, columns)
            for name, weights in found.weights.items()
        },
    }
    for name, (values, n) in lengths.items():
        if values is not None and len(values) != n:
            raise WrongUse(
                f"model: {path} has {len(values)} values of {name} for {n}; export the model again"
            )
