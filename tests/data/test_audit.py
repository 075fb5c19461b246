"""What an audit finds in data sets with planted faults, and in real X-rays."""

from __future__ import annotations

import random
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_data import fake_medmnist, png_of_16_bit_colour
from PIL import Image

from pepr_mlops.data.audit import Audit, Finding
from pepr_mlops.data.audit_files import audit_target
from pepr_mlops.data.catalogue import catalogue
from pepr_mlops.errors import WrongUse


def _audit(target: Path | str, size: int = 28, data_root: Path | None = None) -> Audit:
    (found,) = audit_target(str(target), size, None if data_root is None else str(data_root))
    return found


def _kinds(found: Audit) -> list[str]:
    return [finding.kind for finding in found.findings]


def _only(found: Audit) -> Finding:
    (finding,) = found.findings
    return finding


# Folders of images -----------------------------------------------------------------------------


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Classes `a` and `b` of 12 grey images in train, 10 in val and 11 in test, all different."""
    rng = np.random.default_rng(0)
    root = tmp_path / "images"
    for split, n in (("train", 12), ("val", 10), ("test", 11)):
        for label in ("a", "b"):
            (root / split / label).mkdir(parents=True)
            for i in range(n):
                pixels = rng.integers(0, 256, (8, 8), dtype=np.uint8)
                Image.fromarray(pixels).save(root / split / label / f"{i:02d}.png")
    return root


def test_a_sound_folder_has_counts_and_no_finding(images: Path) -> None:
    found = _audit(images)
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


def test_every_damaged_image_is_listed(images: Path) -> None:
    for i in range(7):
        (images / "train" / "a" / f"{i:02d}.png").write_bytes(b"no image")
    cut = images / "test" / "b" / "03.png"
    cut.write_bytes(cut.read_bytes()[:60])
    found = _audit(images)
    finding = _only(found)
    assert (finding.severity, finding.kind) == ("error", "unreadable")
    assert finding.message.startswith("8 of 66 files cannot be read as images")
    names = [example.split(" (")[0] for example in finding.examples]
    assert names == [f"train/a/{i:02d}.png" for i in range(7)] + ["test/b/03.png"]
    assert found.images["train"] == 24  # as many files as there are
    assert found.shapes["images"].sum() == 58


def test_more_than_8_bits_are_an_error_in_grey_and_in_colour(images: Path) -> None:
    Image.fromarray(np.full((8, 8), 3000, dtype=np.uint16)).save(images / "train/a/00.png")
    (images / "val" / "b" / "00.png").write_bytes(png_of_16_bit_colour())
    finding = _only(_audit(images))
    assert (finding.severity, finding.kind) == ("error", "depth")
    assert finding.examples == ("train/a/00.png", "val/b/00.png")


def test_images_in_two_splits_are_found_whatever_their_file(images: Path) -> None:
    with Image.open(images / "train" / "a" / "00.png") as image:
        image.save(images / "val" / "a" / "same.bmp")
        image.save(images / "test" / "a" / "same.gif")  # grey in a palette: RGB to training
        image.resize((16, 16)).save(images / "test" / "a" / "larger.png")
    for i in range(6):
        shutil.copy(images / f"val/b/{i:02d}.png", images / f"test/b/copy{i}.png")
    found = _audit(images)
    leaked = [finding for finding in found.findings if finding.kind == "leakage"]
    assert [finding.message.split(";")[0] for finding in leaked] == [
        "1 of 21 images of val are also in train",
        "6 of 30 images of test are also in val",
    ]
    assert leaked[0].examples == ("val/a/same.bmp = train/a/00.png",)
    assert leaked[1].examples == tuple(f"test/b/copy{i}.png = val/b/{i:02d}.png" for i in range(5))
    assert {finding.severity for finding in leaked} == {"error"}


def test_identical_images_of_two_classes_are_an_error(images: Path) -> None:
    shutil.copy(images / "train/a/00.png", images / "train/b/copy.png")
    conflict, repeated = _audit(images).findings
    assert (conflict.severity, conflict.kind) == ("error", "conflict")
    assert conflict.message.startswith(
        "1 image contradicts the label of an earlier identical image;"
    )
    assert conflict.examples == ("train/b/copy.png (b) = train/a/00.png (a)",)
    assert (repeated.severity, repeated.kind) == ("warning", "duplicates")


def test_repeated_images_of_a_split_are_a_warning(images: Path) -> None:
    for name in ("x", "y"):
        shutil.copy(images / "val/a/00.png", images / f"val/a/{name}.png")
    finding = _only(_audit(images))
    assert (finding.severity, finding.kind) == ("warning", "duplicates")
    assert finding.message == "2 of 22 images of val repeat another of its images"
    assert finding.examples == ("val/a/x.png = val/a/00.png", "val/a/y.png = val/a/00.png")


def test_a_class_folder_without_images_is_an_error(images: Path) -> None:
    for split in ("train", "val", "test"):
        (images / split / "c").mkdir()
    finding, few_val, few_test = _audit(images).findings
    assert (finding.severity, finding.kind) == ("error", "untrained")
    assert finding.examples == ("c (train 0, val 0, test 0)",)
    assert {few_val.kind, few_test.kind} == {"few"}


def test_a_name_that_is_nearly_right_is_offered(images: Path) -> None:
    with pytest.raises(WrongUse, match=rf"did you mean '{images}'\?"):
        audit_target(f"{str(images)[:-1]}z", 28, None)


def test_repeated_images_are_an_error_where_they_may_be_drawn_apart(images: Path) -> None:
    shutil.rmtree(images / "val")
    shutil.copy(images / "train/a/00.png", images / "train/a/copy.png")
    repeated, drawn = _audit(images).findings
    assert (repeated.severity, repeated.kind) == ("error", "duplicates")
    assert "may be drawn into other splits" in repeated.message
    assert (drawn.severity, drawn.kind) == ("warning", "drawn")


def test_a_class_that_train_lacks_is_an_error(images: Path) -> None:
    (images / "train" / "b").rename(images / "train" / "c")
    finding, few_val, alone, few_test, _ = _audit(images).findings
    assert (finding.severity, finding.kind) == ("error", "untrained")
    assert (alone.severity, alone.kind, alone.examples) == ("warning", "alone", ("c (0)",))
    assert finding.message.startswith("1 of 3 classes have no image in train")
    assert finding.examples == ("b (train 0, val 10, test 11)",)
    assert few_val.examples == few_test.examples == ("c (0)",)


def test_a_single_class_is_an_error(images: Path) -> None:
    for split in ("train", "val", "test"):
        shutil.rmtree(images / split / "b")
    assert _kinds(_audit(images)) == ["classes"]


def test_without_train_nothing_can_be_trained(images: Path) -> None:
    shutil.rmtree(images / "train")
    finding = _only(_audit(images))
    assert (finding.severity, finding.kind) == ("error", "missing")


def test_an_absent_split_is_a_warning_and_an_empty_one_an_error(images: Path) -> None:
    shutil.rmtree(images / "val")
    finding = _only(_audit(images))
    assert (finding.severity, finding.kind) == ("warning", "drawn")
    assert "no val folder" in finding.message
    (images / "val" / "a").mkdir(parents=True)
    finding = _only(_audit(images))
    assert (finding.severity, finding.kind) == ("error", "empty")
    assert finding.message.startswith("val has no image")


def test_imbalance_begins_above_ten_times(images: Path) -> None:
    rng = np.random.default_rng(1)
    for i in range(12, 120):
        pixels = rng.integers(0, 256, (8, 8), dtype=np.uint8)
        Image.fromarray(pixels).save(images / "train" / "a" / f"{i}.png")
    assert _kinds(_audit(images)) == []  # 120 and 12
    (images / "train" / "b" / "11.png").unlink()
    finding = _only(_audit(images))
    assert (finding.severity, finding.kind) == ("warning", "imbalance")
    assert "120 images of a and 11 of b" in finding.message


def test_fewer_than_ten_images_of_a_class_are_a_warning(images: Path) -> None:
    (images / "val" / "b" / "00.png").unlink()
    finding = _only(_audit(images))
    assert (finding.severity, finding.kind) == ("warning", "few")
    assert finding.message == "1 of 2 classes have fewer than 10 images in val"
    assert finding.examples == ("b (9)",)


def test_mixed_sizes_and_colours_and_other_ignored_files_are_warnings(images: Path) -> None:
    rng = np.random.default_rng(2)
    for i, shape in enumerate([(9, 7, 3), (9, 7, 3), (20, 30, 3)]):
        pixels = rng.integers(0, 256, shape, dtype=np.uint8)
        Image.fromarray(pixels).save(images / "train" / "a" / f"rgb{i}.png")
    (images / "train" / "a" / "notes.txt").write_text("x")
    (images / "train" / "a" / "deeper").mkdir()
    shutil.move(images / "train/a/11.png", images / "train/a/deeper/11.png")
    (images / "train" / ".DS_Store").write_text("x")
    found = _audit(images)
    misplaced, ignored, sizes, colours = found.findings
    assert misplaced.message.endswith(f"would not be read; move them to {images}/train/CLASS/")
    assert found.of("error") == (misplaced,)
    assert ignored.message.startswith("2 files are ignored;")
    assert ignored.examples == ("train/a/deeper/11.png", "train/a/notes.txt")
    assert sizes.message.startswith("images have 3 sizes, 8×8 to 20×30;")
    assert colours.message.startswith("65 of the 68 images are greyscale;")
    assert found.shapes.to_dict("split")["data"] == [
        [8, 8, "grey", 65],
        [9, 7, "RGB", 2],
        [20, 30, "RGB", 1],
    ]


def test_a_turned_copy_is_the_same_image(images: Path) -> None:
    """A photograph in train, and in test as another program has turned and saved it."""
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = np.arange(400, dtype=np.uint16).reshape(20, 20).astype(np.uint8)
    Image.fromarray(pixels).save(images / "train" / "a" / "photo.png", exif=exif)
    Image.fromarray(np.rot90(pixels, -1)).save(images / "test" / "a" / "turned.png")
    (found,) = _audit(images).of("error")
    assert "train/a/photo.png" in str(found.examples)
    assert "test/a/turned.png" in str(found.examples)


# Files in MedMNIST's format --------------------------------------------------------------------


def _arrays(classes: int = 2, **n: int) -> dict[str, np.ndarray]:
    """20, 21 and 22 different images of 6×6, or as many as asked, of classes that take turns."""
    rng = np.random.default_rng(3)
    arrays = {}
    for split, images in {"train": 20, "val": 21, "test": 22, **n}.items():
        arrays[f"{split}_images"] = rng.integers(0, 256, (images, 6, 6), dtype=np.uint8)
        arrays[f"{split}_labels"] = (np.arange(images, dtype=np.uint8) % classes)[:, None]
    return arrays


def _saved(path: Path, arrays: Mapping[str, Any]) -> Path:
    np.savez(path, **arrays)
    return path


def test_a_sound_file_has_counts_and_no_finding(tmp_path: Path) -> None:
    found = _audit(_saved(tmp_path / "mine.npz", _arrays()))
    assert found.images == {"train": 20, "val": 21, "test": 22}
    assert found.counts["class"].tolist() == ["0", "1"] * 3
    assert found.counts["images"].tolist() == [10, 10, 11, 10, 11, 11]
    assert found.counts["share"].tolist() == [0.5, 0.5, 11 / 21, 10 / 21, 0.5, 0.5]
    assert found.shapes.to_dict("split")["data"] == [[6, 6, "grey", 63]]
    assert found.findings == ()


_LABELS = _arrays()["val_labels"]
_IMAGES = _arrays()["val_images"]


@pytest.mark.parametrize(
    ("changed", "kind", "said"),
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
    changed: dict[str, Any], kind: str, said: str, tmp_path: Path
) -> None:
    arrays = {k: v for k, v in {**_arrays(), **changed}.items() if v is not None}
    found = _audit(_saved(tmp_path / "mine.npz", arrays))
    (error,) = found.of("error")
    assert error.kind == kind
    assert said in error.message


def test_labels_out_of_range_are_shown_with_their_place(tmp_path: Path) -> None:
    arrays = {**_arrays(), "classes": np.array(["benign", "malignant"])}
    arrays["test_labels"][[3, 8]] = 2
    found = _audit(_saved(tmp_path / "mine.npz", arrays))
    finding = _only(found)
    assert finding.message.startswith("2 of the test_labels are outside 0 to 1")
    assert finding.examples == ("test/3 (2)", "test/8 (2)")
    assert found.images["test"] == 22
    assert found.counts["class"].tolist() == ["benign", "malignant"] * 2  # not of test


def test_labels_that_begin_with_1_are_an_error(tmp_path: Path) -> None:
    arrays = {k: v + 1 if k.endswith("labels") else v for k, v in _arrays().items()}
    found = _audit(_saved(tmp_path / "mine.npz", arrays))
    assert [finding.message.split(";")[0] for finding in found.findings] == [
        f"{n} of the {split}_labels are outside 0 to 1"
        for split, n in (("train", 10), ("val", 10), ("test", 11))
    ]


def test_all_images_are_compared(tmp_path: Path) -> None:
    arrays = _arrays()
    arrays["val_images"][[2, 4]] = arrays["train_images"][6]  # all of class 0
    arrays["test_images"][1] = arrays["train_images"][6]  # of class 1
    found = _audit(_saved(tmp_path / "mine.npz", arrays))
    assert [(f.severity, f.kind, f.message.split(";")[0]) for f in found.findings] == [
        ("error", "leakage", "2 of 21 images of val are also in train"),
        ("error", "leakage", "1 of 22 images of test are also in train"),
        ("error", "leakage", "1 of 22 images of test are also in val"),
        ("error", "conflict", "1 image contradicts the label of an earlier identical image"),
        ("warning", "duplicates", "1 of 21 images of val repeat another of its images"),
    ]
    assert found.findings[0].examples == ("val/2 = train/6", "val/4 = train/6")
    assert found.findings[3].examples == ("test/1 (1) = train/6 (0)",)


def test_several_labels_an_image_are_counted_each(tmp_path: Path) -> None:
    arrays = _arrays()
    for split in ("train", "val", "test"):
        n = len(arrays[f"{split}_images"])
        arrays[f"{split}_labels"] = np.tile(np.array([[1, 1, 0]], dtype=np.uint8), (n, 1))
    arrays["train_labels"][:5] = 0
    arrays["val_images"][0] = arrays["train_images"][0]
    found = _audit(_saved(tmp_path / "mine.npz", arrays))
    train = found.counts[found.counts["split"] == "train"]
    assert train["images"].tolist() == [15, 15, 0]
    assert train["share"].tolist() == [0.75, 0.75, 0.0]
    assert [f.kind for f in found.of("error")] == ["untrained", "leakage", "conflict"]
    assert found.of("error")[0].examples == ("2 (train 0, val 0, test 0)",)
    assert found.of("error")[2].examples == ("val/0 (0+1) = train/0 (no label)",)
    arrays["val_labels"][3, 1] = 2
    found = _audit(_saved(tmp_path / "mine.npz", arrays))
    (wrong,) = [f for f in found.findings if f.kind == "labels"]
    assert wrong.message.startswith("1 of the val_labels are outside 0 to 1")


def test_training_images_without_any_label_are_an_error(tmp_path: Path) -> None:
    arrays = _arrays()
    for split in ("train", "val", "test"):
        arrays[f"{split}_labels"] = np.ones((len(arrays[f"{split}_images"]), 2), dtype=np.uint8)
    arrays["train_labels"][:] = 0
    finding = _only(_audit(_saved(tmp_path / "mine.npz", arrays)))
    assert (finding.severity, finding.kind) == ("error", "untrained")
    assert finding.examples == ("0 (train 0, val 21, test 22)", "1 (train 0, val 21, test 22)")


def test_a_damaged_array_leaves_the_others_to_be_counted(tmp_path: Path) -> None:
    path = _saved(tmp_path / "mine.npz", _arrays())
    content = bytearray(path.read_bytes())
    at = content.index(_arrays()["val_images"].tobytes()[:50])
    content[at] ^= 1
    path.write_bytes(content)
    found = _audit(path)
    finding = _only(found)
    assert finding.kind == "unreadable"
    assert finding.message.startswith("val_images cannot be read (BadZipFile: Bad CRC-32")
    assert found.images == {"train": 20, "val": 21, "test": 22}
    assert found.shapes["images"].sum() == 42


def test_a_split_that_cannot_be_counted_has_no_number_of_images(tmp_path: Path) -> None:
    """None and not 0, also for the table of patients, whose rows are not too many then."""
    arrays = {k: v for k, v in _arrays().items() if not k.startswith("val")}
    path = _saved(tmp_path / "mine.npz", arrays)
    rows = [f"{split}{i},{split}\n" for split in ("train", "val") for i in range(20)]
    rows += [f"test{i},test\n" for i in range(22)]
    path.with_suffix(".csv").write_text(f"patient,split\n{''.join(rows)}")
    found = _audit(path)
    assert found.images == {"train": 20, "val": None, "test": 22}
    assert _only(found).message == "the file has no val_images, val_labels; add it"


@pytest.mark.parametrize("content", ["empty", "text", "cut", "a single array"])
def test_what_is_no_npz_file_is_an_error(content: str, tmp_path: Path) -> None:
    path = _saved(tmp_path / "mine.npz", _arrays())
    if content == "a single array":
        with path.open("wb") as file:
            np.save(file, np.zeros(3))
    else:
        path.write_bytes({"empty": b"", "text": b"x", "cut": path.read_bytes()[:-99]}[content])
    finding = _only(_audit(path))
    assert (finding.severity, finding.kind) == ("error", "unreadable")
    assert "File is not a zip file" in finding.message  # and no word of trusting a pickle


def test_no_damage_ends_in_a_traceback(tmp_path: Path) -> None:
    content = _saved(tmp_path / "mine.npz", _arrays(train=2, val=2, test=2)).read_bytes()
    chance = random.Random(0)
    for _ in range(300):
        damaged = bytearray(content)
        for _ in range(chance.choice([1, 2, 8])):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        (tmp_path / "mine.npz").write_bytes(damaged)
        _audit(tmp_path / "mine.npz")


def test_patients_are_compared_where_a_table_lies_beside_the_file(tmp_path: Path) -> None:
    path = _saved(tmp_path / "lidc.npz", _arrays(train=20, val=20, test=20))
    rows = [(f"{split}{i // 2}", split) for split in ("train", "val", "test") for i in range(20)]

    def write() -> None:
        text = "".join(f"{patient},{split}\n" for patient, split in rows)
        path.with_suffix(".csv").write_text(f"patient,split\n{text}")

    write()
    assert _audit(path).findings == ()  # 30 patients, each in one split
    rows[0], rows[59] = ("", "train"), ("", "test")
    write()
    blank = _only(_audit(path))  # nobody is in two splits for having no name
    assert (blank.severity, blank.message) == (
        "warning",
        "2 of 60 rows of the table name no patient",
    )
    rows[0], rows[59] = ("train0", "train"), ("test9", "test")
    rows[20] = ("train0", "val")
    rows[40] = ("train3", "test")
    write()
    finding = _only(_audit(path))
    assert (finding.severity, finding.kind) == ("error", "patient")
    assert finding.message.startswith("2 of 30 patients are in more than one split")
    assert finding.examples == ("train0 (train, val)", "train3 (train, test)")
    del rows[40], rows[20]
    rows.append(("train1", "trian"))
    write()
    shared, differing = _audit(path).findings
    assert shared.examples == ("train1 (train, trian)",)
    assert (differing.severity, differing.kind) == ("error", "manifest")
    assert differing.examples == (
        "val (19 rows, 20 images)",
        "test (19 rows, 20 images)",
        "trian (1 rows, 0 images)",
    )


@pytest.mark.parametrize(
    ("content", "severity"),
    [(b"\xff\xfe\x00", "error"), (b"", "error"), (b"id,split\n", "warning")],
)
def test_another_table_beside_the_file_is_said(
    content: bytes, severity: str, tmp_path: Path
) -> None:
    path = _saved(tmp_path / "mine.npz", _arrays())
    path.with_suffix(".csv").write_bytes(content)
    finding = _only(_audit(path))
    assert (finding.severity, finding.kind) == (severity, "manifest")


def test_each_file_of_a_folder_is_checked(tmp_path: Path) -> None:
    _saved(tmp_path / "b.npz", _arrays())
    (tmp_path / "a.npz").write_bytes(b"x")
    first, second = audit_target(str(tmp_path), 28, None)
    assert (first.source, _kinds(first)) == (f"{tmp_path}/a.npz", ["unreadable"])
    assert (second.source, _kinds(second)) == (f"{tmp_path}/b.npz", [])


def test_what_training_refuses_of_a_medmnist_file_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import medmnist

    fake_medmnist(tmp_path, "pneumoniamnist", 28, monkeypatch, n=20)
    found = _audit("pneumonia", data_root=tmp_path)
    assert found.counts["class"].tolist() == ["normal", "pneumonia"] * 3
    assert found.findings == ()
    counts = {"train": 20, "val": 19, "test": 20}
    monkeypatch.setitem(medmnist.INFO["pneumoniamnist"], "n_samples", counts)
    finding = _only(_audit("pneumonia", data_root=tmp_path))
    assert (finding.severity, finding.kind) == ("error", "medmnist")
    assert "MedMNIST has uint8 (19, 28, 28)" in finding.message
    with pytest.raises(WrongUse, match="pepr data get pneumonia --size 64"):
        _audit("pneumonia", size=64, data_root=tmp_path)


# Real data -------------------------------------------------------------------------------------


def test_pneumonia_has_repeated_x_rays(pneumonia_root: Path) -> None:
    """8 X-rays of val are in train, 18 repeat another of train and 3 another of test."""
    found = _audit("pneumonia", data_root=pneumonia_root)
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


def test_digits_are_sound() -> None:
    found = _audit("digits")
    assert found.images == {"train": 1079, "val": 359, "test": 359}
    assert found.findings == ()


def test_what_is_no_data_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WrongUse, match="did you mean 'derma'"):
        _audit("dermaa")
    with pytest.raises(WrongUse, match=r"neither train/CLASS/\*\.png nor an \.npz file"):
        _audit(tmp_path)


# What there is ---------------------------------------------------------------------------------


def test_the_catalogue_has_every_name_and_what_is_on_disk(tmp_path: Path) -> None:
    from pepr_mlops.data import NAMES

    for name in ("dermamnist.npz", "dermamnist_224.npz"):
        (tmp_path / name).touch()
    entries = {entry.name: entry for entry in catalogue(str(tmp_path))}
    assert {*entries, *(e.alias for e in entries.values() if e.alias)} == set(NAMES)
    derma, digits, chest = entries["dermamnist"], entries["digits"], entries["chestmnist"]
    assert (derma.alias, derma.channels, derma.licence) == ("derma", 3, "CC BY-NC 4.0")
    assert derma.images == {"train": 7007, "val": 1003, "test": 2005}
    assert derma.on_disk == (28, 224)
    assert (digits.images["train"], digits.sizes, digits.on_disk) == (1079, (8,), (8,))
    assert (len(chest.classes), chest.task) == (14, "multi-label, binary-class")
    assert chest.on_disk == ()
    with pytest.raises(WrongUse, match="data_root: there is no folder"):
        catalogue(str(tmp_path / "absent"))
