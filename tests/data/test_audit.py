"""What an audit finds in data sets with planted faults."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from audits import audit_of, kinds, noise_arrays, noise_folder, only, saved
from PIL import Image


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return noise_folder(tmp_path / "images")


def test_a_sound_folder_has_counts_and_no_finding(images: Path) -> None:
    found = audit_of(images)
    assert found.source == str(images)
    assert found.images == {"train": 24, "val": 20, "test": 22}
    assert found.counts.to_dict("split")["data"] == [
        ["train", "a", 12, 0.5],
        ["train", "b", 12, 0.5],
        ["val", "a", 10, 0.5],
        ["val", "b", 10, 0.5],
        ["test", "a", 11, 0.5],
        ["test", "b", 11, 0.5],
    ]
    assert found.shapes.to_dict("split")["data"] == [[8, 8, "grey", 66]]
    assert found.findings == ()


def test_folders_of_classes_without_images_are_noted(images: Path) -> None:
    for split in ("train", "val", "test"):
        (images / split / "c").mkdir()
    finding = only(audit_of(images))
    assert (finding.severity, finding.kind) == ("note", "reading")
    text = "folders of classes without images: 3 (test/c, train/c, val/c)"
    assert finding.message == text


def test_a_class_that_train_lacks_is_an_error(images: Path) -> None:
    (images / "train" / "b").rename(images / "train" / "c")
    finding, few_val, alone, few_test, _ = audit_of(images).findings
    assert (finding.severity, finding.kind) == ("error", "untrained")
    assert (alone.severity, alone.kind, alone.examples) == ("warning", "alone", ("c (0)",))
    assert finding.message.startswith("1 of 3 classes have no image in train")
    assert finding.examples == ("b (train 0, val 10, test 11)",)
    assert few_val.examples == few_test.examples == ("c (0)",)


def test_a_single_class_is_an_error(images: Path) -> None:
    for split in ("train", "val", "test"):
        shutil.rmtree(images / split / "b")
    assert kinds(audit_of(images)) == ["classes"]


def test_an_absent_or_empty_split_is_drawn_which_is_a_warning(images: Path) -> None:
    shutil.rmtree(images / "val")
    finding = only(audit_of(images))
    assert (finding.severity, finding.kind) == ("warning", "drawn")
    text = "val is drawn from the images of train, by class, since no patient is known"
    assert finding.message == f"{text}, with the seed"
    (images / "val" / "a").mkdir(parents=True)
    drawn, empty = audit_of(images).findings
    assert drawn == finding
    assert empty.message == "folders of classes without images: 1 (val/a)"


def test_imbalance_begins_above_ten_times(images: Path) -> None:
    rng = np.random.default_rng(1)
    for i in range(12, 120):
        pixels = rng.integers(0, 256, (8, 8), dtype=np.uint8)
        Image.fromarray(pixels).save(images / "train" / "a" / f"{i}.png")
    assert kinds(audit_of(images)) == []  # 120 and 12
    (images / "train" / "b" / "11.png").unlink()
    finding = only(audit_of(images))
    assert (finding.severity, finding.kind) == ("warning", "imbalance")
    assert "120 images of a and 11 of b" in finding.message


def test_fewer_than_ten_images_of_a_class_are_a_warning(images: Path) -> None:
    (images / "val" / "b" / "00.png").unlink()
    finding = only(audit_of(images))
    assert (finding.severity, finding.kind) == ("warning", "few")
    assert finding.message == "1 of 2 classes have fewer than 10 images in val"
    assert finding.examples == ("b (9)",)


def test_mixed_sizes_and_colours_and_other_ignored_files_are_warnings(images: Path) -> None:
    rng = np.random.default_rng(2)
    for i, shape in enumerate([(9, 7, 3), (9, 7, 3), (20, 30, 3)]):
        pixels = rng.integers(0, 256, shape, dtype=np.uint8)
        Image.fromarray(pixels).save(images / "train" / "a" / f"rgb{i}.png")
    (images / "train" / "a" / "notes.txt").write_text("x")
    shutil.move(images / "train/a/11.png", images / "train/11.png")
    (images / "train" / ".DS_Store").write_text("x")
    found = audit_of(images)
    misplaced, sizes, colours, passed_over, suffixes, outside = found.findings
    assert misplaced.message.endswith(f"would not be read; move them to {images}/train/CLASS/")
    assert found.of("error") == (misplaced,)
    assert passed_over.message == "passed over: hidden or system files: 1, other files: 1"
    assert suffixes.message == "suffixes of other files: .txt 1"
    assert outside.message == "images outside of the folders of splits: 1 (train/11.png)"
    assert found.of("note") == (passed_over, suffixes, outside)
    assert sizes.message.startswith("images have 3 sizes, 8×8 to 20×30;")
    assert colours.message.startswith("65 of the 68 images are greyscale;")
    assert found.shapes.to_dict("split")["data"] == [
        [8, 8, "grey", 65],
        [9, 7, "RGB", 2],
        [20, 30, "RGB", 1],
    ]


def test_a_sound_file_has_counts_and_no_finding(tmp_path: Path) -> None:
    found = audit_of(saved(tmp_path / "mine.npz", noise_arrays()))
    assert found.images == {"train": 20, "val": 21, "test": 22}
    assert found.counts["class"].tolist() == ["0", "1"] * 3
    assert found.counts["images"].tolist() == [10, 10, 11, 10, 11, 11]
    assert found.counts["share"].tolist() == [0.5, 0.5, 11 / 21, 10 / 21, 0.5, 0.5]
    assert found.shapes.to_dict("split")["data"] == [[6, 6, "grey", 63]]
    assert found.findings == ()


_LABELS = noise_arrays()["val_labels"]


_IMAGES = noise_arrays()["val_images"]


@pytest.mark.parametrize(
    ("changed", "kind", "text"),
    [
        ({"val_labels": np.where(np.arange(21) == 4, 9, _LABELS[:, 0])[:, None]}, "labels", "1 of"),
        ({"val_labels": _LABELS.astype(np.int8) - 1}, "labels", "11 of the val_labels"),
        ({"val_labels": _LABELS.astype(float)}, "labels", "float64 where whole numbers"),
        ({"val_labels": _LABELS[:, 0]}, "labels", "(21,) where [n, 1]"),
        ({"val_labels": _LABELS.repeat(3, axis=1)}, "labels", "(21, 3) where [n, 1]"),
        ({"val_labels": _LABELS[:-1]}, "labels", "20 val_labels and 21 val_images"),
        ({"val_images": _IMAGES.astype(np.uint16)}, "images", "uint16 (21, 6, 6)"),
        ({"val_images": _IMAGES[:, :5]}, "images", "uint8 (21, 5, 6)"),
        ({"val_images": _IMAGES[..., None]}, "images", "uint8 (21, 6, 6, 1)"),
        ({"val_images": _IMAGES.reshape(21, 36)}, "images", "uint8 (21, 36)"),
        ({"val_images": np.array(3)}, "images", "int64 ()"),
        ({"val_images": _IMAGES.repeat(2, 1).repeat(2, 2)}, "images", "val 12×12 grey, test 6×6"),
        ({"val_images": np.stack([_IMAGES] * 3, -1)}, "images", "val 6×6 RGB, test 6×6 grey"),
        ({"val_images": _IMAGES[:0], "val_labels": _LABELS[:0]}, "empty", "val has no image"),
        ({"val_images": None}, "missing", "the file has no val_images"),
        ({"train_labels": None}, "missing", "the file has no train_labels"),
        ({"val_labels": np.array([{"a": 1}] * 21)}, "unreadable", "val_labels cannot be read"),
        ({"classes": np.arange(2)}, "classes", "classes are int64 (2,)"),
        ({"classes": np.array(["benign", "malignant", "other"])}, "untrained", "1 of 3 classes"),
    ],
)
def test_each_fault_of_an_array_is_an_error(
    changed: dict[str, Any], kind: str, text: str, tmp_path: Path
) -> None:
    arrays = {k: v for k, v in {**noise_arrays(), **changed}.items() if v is not None}
    found = audit_of(saved(tmp_path / "mine.npz", arrays))
    (error,) = found.of("error")
    assert error.kind == kind
    assert text in error.message


def test_labels_out_of_range_are_shown_with_their_place(tmp_path: Path) -> None:
    arrays = {**noise_arrays(), "classes": np.array(["benign", "malignant"])}
    arrays["test_labels"][[3, 8]] = 2
    found = audit_of(saved(tmp_path / "mine.npz", arrays))
    finding = only(found)
    assert finding.message.startswith("2 of the test_labels are outside 0 to 1")
    assert finding.examples == ("test/3 (2)", "test/8 (2)")
    assert found.images["test"] == 22
    assert found.counts["class"].tolist() == ["benign", "malignant"] * 2  # not of test


def test_labels_that_begin_with_1_are_an_error(tmp_path: Path) -> None:
    arrays = {k: v + 1 if k.endswith("labels") else v for k, v in noise_arrays().items()}
    found = audit_of(saved(tmp_path / "mine.npz", arrays))
    assert [finding.message.split(";")[0] for finding in found.findings] == [
        f"{n} of the {split}_labels are outside 0 to 1"
        for split, n in (("train", 10), ("val", 10), ("test", 11))
    ]


def test_several_labels_an_image_are_counted_each(tmp_path: Path) -> None:
    arrays = noise_arrays()
    for split in ("train", "val", "test"):
        n = len(arrays[f"{split}_images"])
        arrays[f"{split}_labels"] = np.tile(np.array([[1, 1, 0]], dtype=np.uint8), (n, 1))
    arrays["train_labels"][:5] = 0
    arrays["val_images"][0] = arrays["train_images"][0]
    found = audit_of(saved(tmp_path / "mine.npz", arrays))
    train = found.counts[found.counts["split"] == "train"]
    assert train["images"].tolist() == [15, 15, 0]
    assert train["share"].tolist() == [0.75, 0.75, 0.0]
    assert [f.kind for f in found.of("error")] == ["untrained", "leakage", "conflict"]
    assert found.of("error")[0].examples == ("2 (train 0, val 0, test 0)",)
    assert found.of("error")[2].examples == ("val/0 (0+1) = train/0 (no label)",)
    arrays["val_labels"][3, 1] = 2
    found = audit_of(saved(tmp_path / "mine.npz", arrays))
    (wrong,) = [f for f in found.findings if f.kind == "labels"]
    assert wrong.message.startswith("1 of the val_labels are outside 0 to 1")


def test_training_images_without_any_label_are_an_error(tmp_path: Path) -> None:
    arrays = noise_arrays()
    for split in ("train", "val", "test"):
        arrays[f"{split}_labels"] = np.ones((len(arrays[f"{split}_images"]), 2), dtype=np.uint8)
    arrays["train_labels"][:] = 0
    finding = only(audit_of(saved(tmp_path / "mine.npz", arrays)))
    assert (finding.severity, finding.kind) == ("error", "untrained")
    assert finding.examples == ("0 (train 0, val 21, test 22)", "1 (train 0, val 21, test 22)")


def test_a_split_that_cannot_be_counted_has_no_number_of_images(tmp_path: Path) -> None:
    """None and not 0, also for the table of patients, whose rows are not too many then."""
    arrays = {k: v for k, v in noise_arrays().items() if not k.startswith("val")}
    path = saved(tmp_path / "mine.npz", arrays)
    rows = [f"{split}{i},{split}\n" for split in ("train", "val") for i in range(20)]
    rows += [f"test{i},test\n" for i in range(22)]
    path.with_suffix(".csv").write_text(f"patient,split\n{''.join(rows)}")
    found = audit_of(path)
    assert found.images == {"train": 20, "val": None, "test": 22}
    assert only(found).message == "the file has no val_images, val_labels; add it"
    arrays["val_images"] = np.zeros((0, 6, 6), dtype=np.uint8)
    found = audit_of(saved(path, arrays))
    assert found.images["val"] == 0
    assert "the table of patients does not have one row for each image" in str(found.findings)


def test_patients_are_compared_if_a_table_is_next_to_the_file(tmp_path: Path) -> None:
    path = saved(tmp_path / "lidc.npz", noise_arrays(train=20, val=20, test=20))
    rows = [(f"{split}{i // 2}", split) for split in ("train", "val", "test") for i in range(20)]

    def write() -> None:
        text = "".join(f"{patient},{split}\n" for patient, split in rows)
        path.with_suffix(".csv").write_text(f"patient,split\n{text}")

    write()
    assert audit_of(path).findings == ()  # 30 patients, each in one split
    rows[0], rows[59] = ("", "train"), ("", "test")
    write()
    blank = only(audit_of(path))  # nobody is in two splits for having no name
    assert (blank.severity, blank.message) == (
        "warning",
        "2 of 60 rows of the table name no patient",
    )
    rows[0], rows[59] = ("train0", "train"), ("test9", "test")
    rows[20] = ("train0", "val")
    rows[40] = ("train3", "test")
    write()
    finding = only(audit_of(path))
    assert (finding.severity, finding.kind) == ("error", "patient")
    assert finding.message.startswith("2 of 30 patients are in more than one split")
    assert "train0" not in str(finding)  # nobody is named
    del rows[40], rows[20]
    rows.append(("train1", "trian"))
    write()
    shared, differing = audit_of(path).findings
    assert shared.message.startswith("1 of 30 patients are in more than one split")
    assert (differing.severity, differing.kind) == ("error", "manifest")
    assert differing.examples == (
        "val (19 rows, 20 images)",
        "test (19 rows, 20 images)",
        "trian (1 rows, 0 images)",
    )
