"""DICOM files made for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid


def dicom_file(path: Path, stored: np.ndarray, bits: int, **attributes: Any) -> Path:
    """A file with `stored` values [h, w], or [frames, h, w], of which `bits` are used, and further
    attributes by their keywords."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[path.name])
    header = Dataset()
    header.file_meta = meta
    header.SOPClassUID = meta.MediaStorageSOPClassUID
    header.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    header.PatientName, header.PatientID = "Planted^Name", "PLANTED-ID"
    header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
    header.Rows, header.Columns = stored.shape[-2:]
    if stored.ndim == 3:
        header.NumberOfFrames = len(stored)
    header.BitsAllocated = stored.dtype.itemsize * 8
    header.BitsStored, header.HighBit = bits, bits - 1
    header.PixelRepresentation = int(stored.dtype.kind == "i")
    for name, value in attributes.items():
        setattr(header, name, value)
    header.PixelData = stored.tobytes()
    header["PixelData"].VR = "OW" if header.BitsAllocated > 8 else "OB"
    pydicom.dcmwrite(path, header, enforce_file_format=True)
    return path


def item(**attributes: Any) -> list[Dataset]:
    """A sequence of one item."""
    made = Dataset()
    for name, value in attributes.items():
        setattr(made, name, value)
    return [made]
