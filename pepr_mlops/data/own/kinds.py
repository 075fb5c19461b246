"""Which files are images, and of which kind, by their name or their first bytes."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Literal

from pepr_mlops.files import TABLES

Kind = Literal["picture", "dicom", "nifti", "array"]

_SUFFIXES: dict[str, Kind] = {
    **dict.fromkeys((".png", ".jpg", ".jpeg", ".jfif", ".bmp", ".gif"), "picture"),
    **dict.fromkeys((".tif", ".tiff", ".webp"), "picture"),
    **dict.fromkeys((".dcm", ".dicom", ".ima"), "dicom"),
    ".nii": "nifti",
    ".npy": "array",
}
_MAGIC, _MAGIC_AT = b"DICM", 128  # DICOM PS3.10, 7.1


def kind_of(path: Path) -> Kind | None:
    """The kind of an image file, None of others.

    A file without a suffix, or with one of digits as scanners write them, is DICOM if it has the
    mark of one. Raises `OSError` for such a file that cannot be read.
    """
    name = path.name.lower()
    stem, suffix = os.path.splitext(name)
    if suffix == ".gz":
        return _SUFFIXES.get(os.path.splitext(stem)[1]) if stem.endswith(".nii") else None
    if suffix in _SUFFIXES:
        return _SUFFIXES[suffix]
    if suffix and not re.fullmatch(r"\.\d+", suffix):
        return None
    with path.open("rb") as file:
        file.seek(_MAGIC_AT)
        return "dicom" if file.read(len(_MAGIC)) == _MAGIC else None


def is_table(path: str) -> bool:
    """Whether a file of this name is a table of images."""
    return path.lower().endswith(TABLES)


def is_own(dataset: str) -> bool:
    """Whether this is a folder or a table of images."""
    return os.path.isdir(dataset) or (is_table(dataset) and os.path.isfile(dataset))
