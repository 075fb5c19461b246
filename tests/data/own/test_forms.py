"""The same X-rays, written as people have them, give the same predictions to the last bit."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest
from mlflow import MlflowClient
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

from pepr_mlops import RunSpec, run

Pixels = npt.NDArray[np.uint8]
Row = tuple[str, str, str, Pixels]  # split, class, name, pixels

SCALE, SHIFT = 16, 1000  # value of 8 bits · SCALE - SHIFT is the value in files of over 8 bits
# The window whose black is -SHIFT and whose white is 255·SCALE - SHIFT.
WIDTH = 255 * SCALE
CENTER = -SHIFT + WIDTH / 2


@pytest.fixture
def xrays(pneumonia_root: Path) -> list[Row]:
    """Twelve images to train, six to validate and six to test of each class."""
    rows = []
    with np.load(pneumonia_root / "pneumoniamnist.npz") as arrays:
        for split, n in (("train", 12), ("val", 6), ("test", 6)):
            images, labels = arrays[f"{split}_images"], arrays[f"{split}_labels"][:, 0]
            for label, name in enumerate(("normal", "pneumonia")):
                chosen = np.flatnonzero(labels == label)[:n]
                rows += [(split, name, f"{i:04d}", images[i]) for i in chosen]
    return rows


def dicom(path: Path, pixels: npt.NDArray[np.uint16], **attributes: object) -> None:
    """Write 12 bits stored in 16, with a rescale intercept and inverted grey."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[str(path)])
    file = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    file.SOPClassUID, file.SOPInstanceUID = meta.MediaStorageSOPClassUID, generate_uid()
    file.Rows, file.Columns = pixels.shape
    file.SamplesPerPixel, file.PixelRepresentation = 1, 0
    file.BitsAllocated, file.BitsStored, file.HighBit = 16, 12, 11
    file.PhotometricInterpretation = "MONOCHROME2"
    file.RescaleSlope, file.RescaleIntercept = 1, -SHIFT
    for name, value in attributes.items():
        setattr(file, name, value)
    file.PixelData = pixels.astype("<u2").tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    file.save_as(path, enforce_file_format=True)


def _save(path: Path, pixels: npt.NDArray[np.generic]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def _folder(root: Path, rows: list[Row]) -> dict[str, str]:
    for split, label, name, pixels in rows:
        _save(root / split / label / f"{name}.png", pixels)
    return {"dataset": str(root)}


def _other_names(root: Path, rows: list[Row]) -> dict[str, str]:
    names = {"train": "Training", "val": "Validation", "test": "Testing"}
    for split, label, name, pixels in rows:
        _save(root / names[split] / label / "series" / f"{name}.png", pixels)
    (root / "Training" / "Thumbs.db").write_bytes(b"x")
    return {"dataset": str(root)}


def _table(root: Path, rows: list[Row]) -> dict[str, str]:
    """One flat folder, and the rows of the table in another order."""
    lines = []
    for split, label, name, pixels in rows:
        _save(root / "png" / f"{split}_{label}_{name}.png", pixels)
        lines.append((f"{split}_{label}_{name}", label, split))
    with (root / "labels.csv").open("w", newline="") as file:
        csv.writer(file, delimiter=";").writerows([("image_id", "dx", "split"), *lines[::-1]])
    return {"dataset": str(root / "labels.csv"), "images": str(root / "png")}


def _deep_png(root: Path, rows: list[Row]) -> dict[str, str]:
    for split, label, name, pixels in rows:
        _save(root / split / label / f"{name}.png", pixels.astype(np.uint16) * SCALE)
    return {"dataset": str(root), "window": f"{WIDTH / 2},{WIDTH}"}


def _floats(root: Path, rows: list[Row]) -> dict[str, str]:
    for split, label, name, pixels in rows:
        path = root / split / label / f"{name}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, pixels.astype(np.float32) * SCALE - SHIFT)
    return {"dataset": str(root), "window": f"{CENTER},{WIDTH}"}


def _dicom(root: Path, rows: list[Row]) -> dict[str, str]:
    """Files without a suffix, each class with a folder for every study."""
    for split, label, name, pixels in rows:
        values = pixels.astype(np.uint16) * SCALE
        dicom(root / split / label / f"study {name}" / "IM0001", values, PatientID=f"{split}{name}")
    return {"dataset": str(root), "window": f"{CENTER},{WIDTH}"}


def _own_window(root: Path, rows: list[Row]) -> dict[str, str]:
    """DICOM files that bring the window, inverted, with a table."""
    lines = ["file,label,split"]
    for split, label, name, pixels in rows:
        values = (255 - pixels).astype(np.uint16) * SCALE
        file = f"{split}_{label}_{name}.dcm"
        # DICOM's own window is narrower by one: PS3.3, C.11.2.1.2.1
        window = {"WindowCenter": CENTER + 0.5, "WindowWidth": WIDTH + 1}
        dicom(root / file, values, PhotometricInterpretation="MONOCHROME1", **window)
        lines.append(f"{file},{label},{split}")
    (root / "labels.csv").write_text("\n".join(lines))
    return {"dataset": str(root / "labels.csv")}


def _volumes(root: Path, rows: list[Row]) -> dict[str, str]:
    """A volume of each split and class, its slices along the first axis."""
    for split, label in dict.fromkeys((split, label) for split, label, *_ in rows):
        slices = [pixels for s, c, _, pixels in rows if (s, c) == (split, label)]
        lying = np.stack([np.flip(pixels).T for pixels in slices])  # seen from the left, head up
        values = lying.astype(np.float32) * SCALE - SHIFT
        path = root / split / label / "volume.nii.gz"
        path.parent.mkdir(parents=True)
        nib.save(nib.Nifti1Image(values, np.eye(4)), path)
    return {"dataset": str(root), "axis": "0", "window": f"{CENTER},{WIDTH}"}


def _predicted(options: dict[str, str]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    spec = RunSpec.parse(
        {
            **{"model": "test_resnet", "image_size": "32", "epochs": "2", "pretrained": "false"},
            **{"device": "cpu", "energy": "off", "deterministic": "true", "batch_size": "8"},
            **{"experiment": "forms", **options},
        }
    )
    run_id = run(spec).run.run_id
    path = MlflowClient().download_artifacts(run_id, "predictions.npz")
    with np.load(path) as arrays:
        return arrays["labels"], arrays["probabilities"]


FORMS: list[Callable[[Path, list[Row]], dict[str, str]]] = [
    *(_other_names, _table, _deep_png, _floats, _dicom, _own_window, _volumes),
]


@pytest.mark.parametrize("write", FORMS)
def test_every_form_gives_the_same_predictions(
    store: str,
    tmp_path: Path,
    xrays: list[Row],
    write: Callable[[Path, list[Row]], dict[str, str]],
) -> None:
    labels, expected = _predicted(_folder(tmp_path / "folder", xrays))
    assert labels.tolist() == [0] * 6 + [1] * 6
    assert expected.std() > 0
    here, probabilities = _predicted(write(tmp_path / "form", xrays))
    assert here.tolist() == labels.tolist()
    assert np.array_equal(probabilities, expected)
