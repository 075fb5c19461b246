"""Describes any data set: what it holds, what its images look like, and which file is which."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from pepr_mlops import data
from pepr_mlops.data import medmnist
from pepr_mlops.data.describe_own import open_own
from pepr_mlops.data.description import (
    SAMPLE,
    Description,
    Measured,
    Sheet,
    Target,
    per_class_shown,
    spread,
)
from pepr_mlops.data.splits import Pixels, Splits, per_class
from pepr_mlops.errors import WrongUse
from pepr_mlops.spec import RunSpec


def open_target(spec: RunSpec) -> Target:
    """The data set of a spec. Raises `WrongUse` for what is none and for what cannot be used."""
    if Path(spec.dataset).suffix == ".npz":
        raise WrongUse(
            f"dataset: {spec.dataset} is a file of arrays, which only `pepr data check` reads; "
            "name a folder, a table or a known data set"
        )
    data.check_spec(spec)
    if spec.dataset not in data.NAMES:
        return open_own(spec)
    if spec.dataset in medmnist.FLAG_OF:
        medmnist.present(spec.dataset, spec.size, spec.data_root)
    return Named(spec, data.load(spec))


@dataclass(frozen=True)
class Named:
    """A data set that is known by name, in memory."""

    spec: RunSpec
    splits: Splits

    def describe(self) -> Description:
        splits = self.splits
        images = {name: len(split) for name, split in splits.by_name().items()}
        n, measured = sum(images.values()), Measured()
        for row in spread(np.arange(n), SAMPLE).tolist():
            image = self._image(row)
            measured.add(image.shape, image)
        fold = f"test is fold {self.spec.fold} of {self.spec.folds}; val is the next fold"
        return Description(
            name=splits.name,
            task=splits.task,
            classes=splits.classes,
            counts={
                name: per_class(split.labels, len(splits.classes))
                for name, split in splits.by_name().items()
            },
            images=images,
            splits="the same for every seed" if self.spec.folds is None else fold,
            grey=n if self._image(0).ndim == 2 else 0,
            sample=measured.sample(),
            digest=data.identify(self.spec).data_digest,
        )

    def contact_sheet(self) -> Sheet:
        splits = self.splits
        labels = np.concatenate([split.labels for split in splits.by_name().values()])
        return {
            name: [self._image(row) for row in rows.tolist()]
            for name, rows in per_class_shown(labels, splits.classes).items()
        }

    def files(self) -> pd.DataFrame:
        raise WrongUse(
            f"out: {self.splits.name} has no files of images; runs log their rows in the published "
            "data set"
        )

    def _image(self, row: int) -> Pixels:
        """An image of train, val and test in this order."""
        for split in self.splits.by_name().values():
            if row < len(split):
                assert isinstance(split.images, np.ndarray)  # of folders and tables alone not
                image: Pixels = split.images[row]
                return image
            row -= len(split)
        raise IndexError(row)
