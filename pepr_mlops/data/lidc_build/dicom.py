"""Slices of CT scans in DICOM files."""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pepr_mlops.data.lidc_build.patches import SIDE, Hounsfield
from pepr_mlops.errors import WrongUse

try:
    import pydicom
except ImportError as error:
    raise WrongUse(
        "dicom: the package pydicom, which reads it, is not installed; in the clone "
        "`uv pip install -e '.[lidc]' -c constraints.txt`"
    ) from error

_TAGS = ["Modality", "SeriesInstanceUID", "PatientID", "ImagePositionPatient", "InstanceNumber"]
_MARK = b"DICM"  # after a preamble of 128 bytes: DICOM PS3.10, section 7.1
_TO_META = 132 + 12  # bytes before what FileMetaInformationGroupLength counts
_LARGEST = 16 << 20  # bytes; a slice has half a MiB of pixels


@dataclass(frozen=True)
class Slice:
    """`z_mm` is the third number of ImagePositionPatient, `instance` InstanceNumber."""

    series: str
    z_mm: float
    instance: int
    path: Path


@dataclass(frozen=True)
class Skipped:
    """What could not be used and why: `kind` is a word for programs. It quotes no DICOM field,
    since fields may identify the patient."""

    kind: str
    path: str
    detail: str


def slices(folder: Path, patients: Mapping[str, str]) -> list[Slice | Skipped]:
    """The CT slices of the files in `folder` itself, without their pixels, and other DICOM files.

    `patients` are those of the annotated series, by SeriesInstanceUID. A file that is not DICOM by
    its name or its content, such as the collection's XML, is ignored.
    """
    return [
        _slice(path, patients)
        for path in sorted(folder.iterdir())
        if path.is_file() and (path.suffix.lower() == ".dcm" or _is_marked(path))
    ]


def _is_marked(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == _MARK
    except OSError:
        return True  # to be listed as unreadable


def _slice(path: Path, patients: Mapping[str, str]) -> Slice | Skipped:
    # The warnings of pydicom quote values, which may identify the patient.
    with warnings.catch_warnings(action="ignore"):
        try:
            if _is_too_large(path):
                return Skipped("too_large", str(path), "it is not a single slice")
            header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=_TAGS)
            if header.get("Modality") != "CT":
                return Skipped("not_ct", str(path), "its modality is not CT")
            series = str(header.SeriesInstanceUID)
            if series not in patients:
                return Skipped("wrong_series", str(path), "its series has no annotations")
            if header.get("PatientID") != patients[series]:
                return Skipped("wrong_patient", str(path), f"it is not of {patients[series]}")
            z_mm = float(header.ImagePositionPatient[2])
            return Slice(series, z_mm, int(header.get("InstanceNumber") or 0), path)
        except Exception as error:  # pydicom raises almost any error on damaged files
            return unreadable(path, error)


def pixels(path: Path) -> Hounsfield | Skipped:
    """Hounsfield units [512, 512] of a slice of `slices`."""
    with warnings.catch_warnings(action="ignore"):  # as above
        try:
            image = pydicom.dcmread(path)
            frames = int(image.get("NumberOfFrames") or 1)
            if (image.Rows, image.Columns, frames) != (SIDE, SIDE, 1):  # before it uses memory
                return Skipped("wrong_shape", str(path), "it is not one image of 512 × 512 pixels")
            hounsfield = image.pixel_array * float(image.RescaleSlope) + float(
                image.RescaleIntercept
            )
            return np.asarray(hounsfield, dtype=np.float32).reshape(SIDE, SIDE)
        except Exception as error:  # as above
            return unreadable(path, error)


def unreadable(path: Path, error: Exception) -> Skipped:
    """A file or folder that cannot be read. The message of the error is omitted, since it may quote
    a field."""
    kind = f"{type(error).__module__}.{type(error).__name__}".removeprefix("builtins.")
    return Skipped("unreadable", str(path), f"cannot be read: {kind}")


def _is_too_large(path: Path) -> bool:
    """Whether a file would take far more memory than a slice. Before pydicom reads the header of a
    deflated file, it inflates all of it, to a thousand times its size."""
    if path.stat().st_size > _LARGEST:
        return True
    meta = pydicom.filereader.read_file_meta_info(path)
    if meta.get("TransferSyntaxUID") != pydicom.uid.DeflatedExplicitVRLittleEndian:
        return False
    with path.open("rb") as file:
        file.seek(_TO_META + meta.FileMetaInformationGroupLength)
        inflated = zlib.decompressobj(-zlib.MAX_WBITS).decompress(file.read(), _LARGEST + 1)
    return len(inflated) > _LARGEST
