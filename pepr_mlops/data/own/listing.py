"""What a folder or a table says of its images, before any is decoded. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pepr_mlops.data.splits import Labels
from pepr_mlops.names import MULTI_LABEL, Task

Texts = npt.NDArray[np.str_]
UNSURE = -1  # the label of an image that has none for sure


@dataclass(frozen=True)
class Known:
    """The classes and the task of a training, which the labels of an external set are read for."""

    classes: tuple[str, ...]
    task: Task

    @property
    def several(self) -> bool:
        """Whether an image may have several labels."""
        return self.task == MULTI_LABEL

    def unsure(self, n: int) -> Labels:
        """The labels of n images of which nothing is known, -1."""
        return np.full((n, len(self.classes)) if self.several else n, UNSURE, dtype=np.int64)


@dataclass(frozen=True)
class Listing:
    """The n image files of a data set of one's own, each once, in a fixed order.

    `name` is that of the data set. `files` [n] are paths relative to the folder `root`, with
    slashes. `labels` are class indices [n], or 0/1 [n, labels] for a multi-label task, -1 where an
    uncertain label is ignored. `classes` are the names of the classes or labels.

    `splits` [n] are train, val or test as given, or empty texts where a split is to be drawn.
    `patients` [n] are as the source has them, empty where unknown, and None without any.
    `groups` are subgroups by name, [n] texts.

    `by_table` says that labels and splits come from a table, and not from the paths of the files.
    `columns` are the columns of a table by their use (image, labels, patient, split, groups).
    `notes` are sentences about what was found and passed over. They are logged, so they name no
    file, no patient and no value of a table; `details` are lines for the terminal, which may.
    `left_out` names all rows and files that do not match, by what is wrong with them.
    """

    name: str
    root: Path
    files: Texts
    labels: Labels
    classes: tuple[str, ...]
    task: Task
    splits: Texts
    patients: Texts | None = None
    by_table: bool = False
    groups: Mapping[str, Texts] = field(default_factory=dict)
    columns: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    details: tuple[str, ...] = ()
    left_out: Mapping[str, list[str]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.files)

    def take(self, rows: npt.NDArray[np.int64]) -> Listing:
        """The listing of some of the files."""
        return replace(
            self,
            files=self.files[rows],
            labels=self.labels[rows],
            splits=self.splits[rows],
            patients=None if self.patients is None else self.patients[rows],
            groups={name: column[rows] for name, column in self.groups.items()},
        )

    def by_path(self) -> Listing:
        """The listing in the order of folders and names, whatever the order of a table's rows:
        training depends on it, and the digest of the data set does not."""
        paths = [file.split("/") for file in self.files.tolist()]
        rows = sorted(range(len(paths)), key=paths.__getitem__)
        return self.take(np.array(rows, dtype=np.int64))
