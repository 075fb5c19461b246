"""Identical images, in data sets with planted copies and in real X-rays."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from audits import audit_of, noise_arrays, noise_folder, only, saved
from PIL import Image


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return noise_folder(tmp_path / "images")


def test_images_in_two_splits_are_found_whatever_their_file(images: Path) -> None:
    with Image.open(images / "train" / "a" / "00.png") as image:
        image.save(images / "val" / "a" / "same.bmp")
        image.save(images / "test" / "a" / "same.gif")  # grey in a palette
        image.resize((16, 16)).save(images / "test" / "a" / "larger.png")
    for i in range(6):
        shutil.copy(images / f"val/b/{i:02d}.png", images / f"test/b/copy{i}.png")
    found = audit_of(images)
    leaked = [finding for finding in found.findings if finding.kind == "leakage"]
    assert [finding.message.split(";")[0] for finding in leaked] == [
        "1 of 21 images of val are also in train",
        "1 of 30 images of test are also in train",
        "7 of 30 images of test are also in val",
    ]
    assert leaked[0].examples == ("val/a/same.bmp = train/a/00.png",)
    assert leaked[1].examples == ("test/a/same.gif = train/a/00.png",)
    assert leaked[2].examples[1:] == tuple(
        f"test/b/copy{i}.png = val/b/{i:02d}.png" for i in range(4)
    )
    assert {finding.severity for finding in leaked} == {"error"}


def test_identical_images_of_two_classes_are_an_error(images: Path) -> None:
    shutil.copy(images / "train/a/00.png", images / "train/b/copy.png")
    conflict, repeated = audit_of(images).findings
    assert (conflict.severity, conflict.kind) == ("error", "conflict")
    assert conflict.message.startswith(
        "1 image contradicts the label of an earlier identical image;"
    )
    assert conflict.examples == ("train/b/copy.png (b) = train/a/00.png (a)",)
    assert (repeated.severity, repeated.kind) == ("warning", "duplicates")


def test_repeated_images_of_a_split_are_a_warning(images: Path) -> None:
    for name in ("x", "y"):
        shutil.copy(images / "val/a/00.png", images / f"val/a/{name}.png")
    finding = only(audit_of(images))
    assert (finding.severity, finding.kind) == ("warning", "duplicates")
    assert finding.message == "2 of 22 images of val repeat another of its images"
    assert finding.examples == ("val/a/x.png = val/a/00.png", "val/a/y.png = val/a/00.png")


def test_repeated_images_are_an_error_where_they_may_be_drawn_apart(images: Path) -> None:
    shutil.rmtree(images / "val")
    shutil.copy(images / "train/a/00.png", images / "train/a/copy.png")
    repeated, drawn = audit_of(images).findings
    assert (repeated.severity, repeated.kind) == ("error", "duplicates")
    assert "may be drawn into other splits" in repeated.message
    assert (drawn.severity, drawn.kind) == ("warning", "drawn")


def test_a_turned_copy_is_the_same_image(images: Path) -> None:
    """A photograph in train, and in test as another program has turned and saved it."""
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = np.arange(400, dtype=np.uint16).reshape(20, 20).astype(np.uint8)
    Image.fromarray(pixels).save(images / "train" / "a" / "photo.png", exif=exif)
    Image.fromarray(np.rot90(pixels, -1)).save(images / "test" / "a" / "turned.png")
    (found,) = audit_of(images).of("error")
    assert "train/a/photo.png" in str(found.examples)
    assert "test/a/turned.png" in str(found.examples)


def test_all_images_are_compared(tmp_path: Path) -> None:
    arrays = noise_arrays()
    arrays["val_images"][[2, 4]] = arrays["train_images"][6]  # all of class 0
    arrays["test_images"][1] = arrays["train_images"][6]  # of class 1
    found = audit_of(saved(tmp_path / "mine.npz", arrays))
    assert [(f.severity, f.kind, f.message.split(";")[0]) for f in found.findings] == [
        ("error", "leakage", "2 of 21 images of val are also in train"),
        ("error", "leakage", "1 of 22 images of test are also in train"),
        ("error", "leakage", "1 of 22 images of test are also in val"),
        ("error", "conflict", "1 image contradicts the label of an earlier identical image"),
        ("warning", "duplicates", "1 of 21 images of val repeat another of its images"),
    ]
    assert found.findings[0].examples == ("val/2 = train/6", "val/4 = train/6")
    assert found.findings[3].examples == ("test/1 (1) = train/6 (0)",)


def test_pneumonia_has_repeated_x_rays(pneumonia_root: Path) -> None:
    """8 X-rays of val are in train, 18 repeat another of train and 3 another of test."""
    found = audit_of("pneumonia", data_root=pneumonia_root)
    assert found.counts["images"].tolist() == [1214, 3494, 135, 389, 234, 390]
    assert [(f.severity, f.message.split(";")[0]) for f in found.findings] == [
        ("error", "8 of 524 images of val are also in train"),
        ("warning", "18 of 4,708 images of train repeat another of its images"),
        ("warning", "3 of 624 images of test repeat another of its images"),
    ]
    with np.load(pneumonia_root / "pneumoniamnist.npz") as arrays:
        train, val, test = (
            arrays[f"{split}_images"].reshape(-1, 784).view("V784")[:, 0]
            for split in ("train", "val", "test")
        )
    assert np.isin(val, train).sum() == 8
    assert np.isin(test, train).sum() == np.isin(test, val).sum() == 0
    assert [len(s) - len(np.unique(s)) for s in (train, val, test)] == [18, 0, 3]
