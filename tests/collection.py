"""A synthetic copy of parts of LIDC-IDRI: DICOM files with planted intensities at real outlines."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

AIR_HU = -850
INTERCEPT, SLOPE = -1024, 0.5
SECRET = "Doe^Jane"  # stands in every field that could identify the patient


@dataclass(frozen=True)
class Outline:
    """One radiologist's outline in one slice: `points` are rows and columns [n, 2]."""

    annotation: int
    z_mm: float
    malignancy: int
    points: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Scan:
    """A scan as the database of annotations has it. `positions` are those of all its slices."""

    patient: str
    study: str
    series: str
    spacing_mm: float
    positions: tuple[float, ...]
    outlines: tuple[Outline, ...]

    def hounsfield(self, z_mm: float) -> npt.NDArray[np.int16]:
        """A slice [512, 512]: air, and inside each outline a value that identifies the slice by its
        place from below, 300 HU brighter where the radiologist suspects cancer."""
        image = Image.fromarray(np.full((512, 512), AIR_HU, np.int32))
        draw = ImageDraw.Draw(image)
        for one in self.outlines:
            if one.z_mm == z_mm:
                value = -700 + self.positions.index(z_mm) + 300 * (one.malignancy >= 4)
                draw.polygon([(int(c), int(r)) for r, c in one.points], value, value)
        return np.asarray(image, dtype=np.int16)


def scans(database: Path, patients: str = "%") -> Iterator[Scan]:
    """The scans of patients (an SQL pattern), read by SQL of its own."""
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as db:
        rows = db.execute(
            "SELECT id, patient_id, study_instance_uid, series_instance_uid, pixel_spacing "
            "FROM scans WHERE patient_id LIKE ? ORDER BY patient_id, id",
            [patients],
        )
        for scan, patient, study, series, spacing in rows.fetchall():
            positions = db.execute("SELECT val FROM zvals WHERE scan_id = ? ORDER BY val", [scan])
            outlines = db.execute(
                "SELECT a.id, c.image_z_position, a.malignancy, c.coords FROM contours c "
                "JOIN annotations a ON a.id = c.annotation_id "
                "WHERE a.scan_id = ? AND c.inclusion ORDER BY a.id, c.id",
                [scan],
            )
            yield Scan(
                patient,
                study,
                series,
                spacing,
                tuple(z for (z,) in positions),
                tuple(
                    Outline(a, z, m, np.array([p.split(",")[::-1] for p in text.split()], int))
                    for a, z, m, text in outlines
                ),
            )


def write(scan: Scan, root: Path, *, around: int | None = None) -> list[Path]:
    """Write a scan below `root` in the archive's layout: all slices, or with `around` only those
    with an outline and so many above and below. The files are in the order of the positions."""
    folder = root / scan.patient / scan.study[-6:] / scan.series[-6:]
    folder.mkdir(parents=True, exist_ok=True)
    outlined = {scan.positions.index(one.z_mm) for one in scan.outlines}
    paths = []
    for i, z_mm in enumerate(scan.positions):
        if around is None or any(abs(i - k) <= around for k in outlined):
            paths.append(folder / f"1-{i + 1:03d}.dcm")
            save(scan, z_mm, i + 1, paths[-1])
    return paths


def save(scan: Scan, z_mm: float, instance: int, path: Path) -> None:
    """Write one slice as a deflated DICOM file."""
    from pydicom import Dataset
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import CTImageStorage, DeflatedExplicitVRLittleEndian, generate_uid

    stored = ((scan.hounsfield(z_mm) - INTERCEPT) / SLOPE).astype("<i2")
    image = Dataset()
    image.SOPClassUID, image.SOPInstanceUID = CTImageStorage, generate_uid(None, [str(path)])
    image.Modality, image.PatientID = "CT", scan.patient
    image.StudyInstanceUID, image.SeriesInstanceUID = scan.study, scan.series
    image.InstanceNumber = instance
    image.ImagePositionPatient = [-180.0, -180.0, z_mm]
    image.PixelSpacing = [scan.spacing_mm] * 2
    image.PatientName = image.ReferringPhysicianName = image.InstitutionName = SECRET
    image.AccessionNumber, image.PatientBirthDate = SECRET, "19500101"
    image.Rows, image.Columns, image.SamplesPerPixel = 512, 512, 1
    image.PhotometricInterpretation = "MONOCHROME2"
    image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 16, 15, 1
    image.RescaleIntercept, image.RescaleSlope = INTERCEPT, SLOPE
    image.PixelData = stored.tobytes()
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    image.file_meta.MediaStorageSOPClassUID = CTImageStorage
    image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
    image.save_as(path, enforce_file_format=True)
