"""Slices of CT scans in DICOM files."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pepr_mlops.errors import WrongUse
from pepr_mlops.lidc.patches import SIDE, Hounsfield

if TYPE_CHECKING:
    from pydicom import Dataset

_TAGS = ["Modality", "SeriesInstanceUID", "PatientID", "ImagePositionPatient", "InstanceNumber"]
_MARK = b"DICM"  # after a preamble of 128 bytes: DICOM PS3.10, section 7.1


@dataclass(frozen=True)
class Slice:
    """`z_mm` is the third number of ImagePositionPatient, `instance` InstanceNumber."""

    series: str
    z_mm: float
    instance: int
    path: Path


@dataclass(frozen=True)
class Skipped:
    """What could not be used and why: `kind` is a word for programs. No value of a DICOM field
    is part of it, since those may tell who the patient is."""

    kind: str
    path: str
    detail: str


def check_installed() -> None:
    """Raise `WrongUse` without the package pydicom."""
    try:
        import pydicom  # noqa: F401
    except ImportError as error:
        raise WrongUse(
            "dicom: the package pydicom, which reads it, is not installed; "
            "pip install 'pepr_mlops[lidc]'"
        ) from error


def look(folder: Path, patients: Mapping[str, str]) -> Iterator[Slice | Skipped]:
    """The CT slices of the files in `folder` itself, without their pixels, and what is none.

    `patients` are those of the wanted series, by SeriesInstanceUID. Files that neither are nor
    claim to be DICOM, such as the collection's XML, are no matter.
    """
    for path in sorted(folder.iterdir()):
        if path.is_file() and (path.suffix.lower() == ".dcm" or _is_marked(path)):
            yield _look_at(path, patients)


def _is_marked(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == _MARK
    except OSError:
        return True  # to be listed as unreadable


def _look_at(path: Path, patients: Mapping[str, str]) -> Slice | Skipped:
    try:
        header = _read(path, stop_before_pixels=True, specific_tags=_TAGS)
        if header.get("Modality") != "CT":
            return Skipped("not_ct", str(path), "its modality is not CT")
        series = str(header.SeriesInstanceUID)
        if series not in patients:
            return Skipped("wrong_series", str(path), "its series has no annotations")
        if header.get("PatientID") != patients[series]:
            return Skipped("wrong_patient", str(path), f"it is not of {patients[series]}")
        z_mm = float(header.ImagePositionPatient[2])
        return Slice(series, z_mm, int(header.get("InstanceNumber") or 0), path)
    except Exception as error:  # pydicom raises almost anything on damaged files
        return _unreadable(path, error)


def pixels(path: Path) -> Hounsfield | Skipped:
    """Hounsfield units [512, 512] of a slice."""
    try:
        image = _read(path)
        frames = int(image.get("NumberOfFrames") or 1)
        if (image.Rows, image.Columns, frames) != (SIDE, SIDE, 1):  # before it takes memory
            return Skipped("wrong_shape", str(path), "it is not one image of 512 × 512 pixels")
        slope, intercept = float(image.RescaleSlope), float(image.RescaleIntercept)
        return np.asarray(image.pixel_array * slope + intercept, dtype=np.float32).reshape(
            SIDE, SIDE
        )
    except Exception as error:  # as above
        return _unreadable(path, error)


def _read(path: Path, **how: Any) -> Dataset:
    import pydicom

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of values that no field used here has
        return pydicom.dcmread(path, **how)


def _unreadable(path: Path, error: Exception) -> Skipped:
    return Skipped("unreadable", str(path), type(error).__name__)
