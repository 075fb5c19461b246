"""The data sets known by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pepr_mlops.data import digits, lidc, medmnist
from pepr_mlops.errors import WrongUse
from pepr_mlops.names import Task
from pepr_mlops.spec import SIZES


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A data set: `images` per split, `sizes` in pixels per side, and which of them are `on_disk`.

    A data set that has to be built first has no `classes`, `images` and `sizes` yet.
    """

    name: str
    alias: str | None = None
    task: Task
    classes: tuple[str, ...]
    channels: int
    images: Mapping[str, int]
    sizes: tuple[int, ...]
    licence: str
    on_disk: tuple[int, ...]


def catalogue(data_root: str | None) -> tuple[Entry, ...]:
    """Every data set, with its files in `data_root` or medmnist's own folder.

    Raises `WrongUse` where that folder is absent.
    """
    return (_digits(), _lidc(data_root), *(_medmnist(flag, data_root) for flag in medmnist.FLAGS))


def _digits() -> Entry:
    splits = digits.load()
    size = splits.train.images.shape[1]
    return Entry(
        name=splits.name,
        task=splits.task,
        classes=splits.classes,
        channels=splits.channels,
        images={name: len(split) for name, split in splits.by_name().items()},
        sizes=(size,),
        licence="CC BY 4.0",
        on_disk=(size,),  # scikit-learn brings it
    )


def _lidc(data_root: str | None) -> Entry:
    try:
        classes, shapes = lidc.outline(lidc.find(data_root))
    except WrongUse:  # not built yet, or damaged
        classes, shapes = (), {}
    sizes = tuple({shape[1] for shape in shapes.values()})
    return Entry(
        name=lidc.NAME,
        task="binary-class",
        classes=classes,
        channels=1,
        images={split: shape[0] for split, shape in shapes.items()},
        sizes=sizes,
        licence="CC BY 3.0",
        on_disk=sizes,
    )


def _medmnist(flag: str, data_root: str | None) -> Entry:
    from medmnist import INFO

    info = INFO[flag]
    return Entry(
        name=flag,
        alias={name: alias for alias, name in medmnist.ALIASES.items()}.get(flag),
        task=info["task"],
        classes=medmnist.class_names(flag),
        channels=info["n_channels"],
        images=info["n_samples"],
        sizes=SIZES,
        licence=info["license"],
        on_disk=tuple(n for n in SIZES if medmnist.place(flag, n, data_root).exists()),
    )
