"""The patches of one scan, cut in a process of its own and saved until all scans are cut."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np

from pepr_mlops.data.lidc_build import dicom
from pepr_mlops.data.lidc_build.dicom import Skipped
from pepr_mlops.data.lidc_build.nodules import Outlined, Scan
from pepr_mlops.data.lidc_build.patches import corner, grey
from pepr_mlops.data.splits import Pixels


@dataclass(frozen=True)
class Part:
    """The patches of a scan, saved in the file `path`: the `outlined` nodules with a patch, in the
    order of the images in the file, and the `skipped` slices."""

    scan: Scan
    path: Path
    outlined: tuple[Outlined, ...]
    skipped: tuple[Skipped, ...]

    def images(self) -> Pixels:
        """The patches [n, size, size]."""
        with np.load(self.path) as arrays:
            return np.asarray(arrays["images"])


@dataclass(frozen=True)
class Cutter:
    """Cuts patches into files of `folder`; the other fields are those of `build.Settings`."""

    folder: Path
    patch: int
    size: int
    window_hu: tuple[float, float]

    def __call__(self, task: tuple[Scan, Mapping[float, Path]]) -> Part:
        """Cut the patches of a scan from its slices, whose files are given by position (mm).

        Patches that an earlier call cut from the same files are reused.
        """
        scan, files = task
        path = self.folder / f"{scan.series}.npz"
        if (indices_before := _cut_before(path, files)) is not None:
            return Part(scan, path, tuple(scan.outlined[i] for i in indices_before), ())
        images: list[Pixels] = []
        indices: list[int] = []
        skipped: list[Skipped] = []
        used = []
        for z_mm, here in groupby(range(len(scan.outlined)), lambda i: scan.outlined[i].z_mm):
            if z_mm not in files:
                continue
            image = dicom.pixels(files[z_mm])
            if isinstance(image, Skipped):
                skipped.append(image)
                continue
            used.append(files[z_mm])
            for i in here:
                row, column = corner(scan.outlined[i].row, scan.outlined[i].column, self.patch)
                square = image[row : row + self.patch, column : column + self.patch]
                images.append(grey(square, self.window_hu, self.size))
                indices.append(i)
        unfinished = path.with_suffix(".unfinished")
        with unfinished.open("wb") as file:
            shape = (len(images), self.size, self.size)
            stacked = np.array(images, dtype=np.uint8).reshape(shape)
            np.savez(file, images=stacked, indices=indices, sources=_states(used))
        os.replace(unfinished, path)
        return Part(scan, path, tuple(scan.outlined[i] for i in indices), tuple(skipped))


def _cut_before(path: Path, files: Mapping[float, Path]) -> list[int] | None:
    """Indices of the patches that an earlier call cut from these files, None if it did not."""
    try:
        with np.load(path) as arrays:
            same = str(arrays["sources"]) == _states(files.values())
            return [int(i) for i in arrays["indices"]] if same else None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def _states(files: Iterable[Path]) -> str:
    """Text that changes with the names, sizes and times of change of files."""
    return json.dumps(sorted([str(f), (s := f.stat()).st_size, s.st_mtime_ns] for f in files))
