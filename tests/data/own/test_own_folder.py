"""Folders of images as they come: their splits, classes, patients and what is passed over."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from pepr_mlops.data.own import folder
from pepr_mlops.data.own.listing import Known, Listing
from pepr_mlops.data.own.walk import find
from pepr_mlops.errors import WrongUse


def _make(root: Path, *files: str) -> Path:
    """Empty files: nothing is decoded."""
    for file in files:
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def _rows(found: Listing) -> list[tuple[str, str, str]]:
    """Split, class and file of each image."""
    labels = [found.classes[i] for i in found.labels]
    return list(zip(found.splits.tolist(), labels, found.files.tolist(), strict=True))


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [
        ("train", "val", "test"),
        ("Training", "Validation", "Testing"),
        ("TRAIN", "valid", "TEST"),
        ("training", "dev", "Test"),
    ],
)
def test_splits_may_be_spelled_as_people_spell_them(
    train: str, val: str, test: str, tmp_path: Path
) -> None:
    files = [f"{train}/b/2.png", f"{train}/a/1.png", f"{val}/a/3.JPG", f"{test}/b/4.dcm"]
    assert _rows(folder.listing(_make(tmp_path, *files))) == [
        ("train", "a", f"{train}/a/1.png"),
        ("train", "b", f"{train}/b/2.png"),
        ("val", "a", f"{val}/a/3.JPG"),
        ("test", "b", f"{test}/b/4.dcm"),
    ]


def test_splits_may_be_in_the_only_folder(tmp_path: Path) -> None:
    root = _make(
        tmp_path, *(f"archive/{s}/{c}/1.png" for s in ("Training", "Testing") for c in "ab")
    )
    assert _rows(folder.listing(root)) == [
        ("train", "a", "archive/Training/a/1.png"),
        ("train", "b", "archive/Training/b/1.png"),
        ("test", "a", "archive/Testing/a/1.png"),
        ("test", "b", "archive/Testing/b/1.png"),
    ]


@pytest.mark.parametrize(
    ("files", "named"),
    [
        (["ill/train/1.png", "ill/test/2.png", "well/train/3.png"], "ill/test, ill/train, well/tr"),
        (["fold1/train/a/1.png", "fold1/Test/b/1.png", "fold2/train/a/2.png"], "fold1/Test, fold1"),
        (["x/y/training/a/1.png", "x/y/testing/b/1.png"], "x/y/testing, x/y/training; move them"),
    ],
)
def test_folders_called_like_splits_where_none_are_read_are_refused(
    files: list[str], named: str, tmp_path: Path
) -> None:
    with pytest.raises(WrongUse, match=f"would not be read as splits in .*: {named}") as raised:
        folder.listing(_make(tmp_path, *files))
    assert "ill/" not in raised.value.logged


def test_a_class_may_be_called_like_a_split_in_the_folder_of_one(tmp_path: Path) -> None:
    root = _make(tmp_path, "train/test/1.png", "train/a/train/2.png", "val/test/3.png")
    assert _rows(folder.listing(root)) == [
        ("train", "a", "train/a/train/2.png"),
        ("train", "test", "train/test/1.png"),
        ("val", "test", "val/test/3.png"),
    ]
    (tmp_path / "notes" / "test").mkdir(parents=True)  # without an image
    assert len(folder.listing(root)) == 3


def test_the_folder_of_an_external_set_needs_neither_train_nor_all_classes(tmp_path: Path) -> None:
    known = Known(("a", "b", "c"), "multi-class")
    found = folder.listing(_make(tmp_path / "one", "b/1.png"), known)
    assert (found.labels.tolist(), found.classes, found.task) == ([1], known.classes, known.task)
    split = _make(tmp_path / "split", "test/c/1.png", "train/a/2.png")
    assert folder.listing(split, known).labels.tolist() == [0, 2]
    with pytest.raises(WrongUse, match=r"has the class 'B', .*; did you mean 'b'\? name the cl"):
        folder.listing(_make(tmp_path / "other", "B/1.png"), known)
    with pytest.raises(WrongUse, match="has no image in the folder of a class; add"):
        folder.listing(_make(tmp_path / "none", "a/notes.txt"), known)
    several = Known(("a", "b"), "multi-label, binary-class")
    with pytest.raises(WrongUse, match="has one class for each image and the data set several"):
        folder.listing(tmp_path / "one", several)


def test_folders_may_be_nested_deeper_than_python_may_call(tmp_path: Path) -> None:
    made = [tmp_path / "d"]
    for _ in range(1200):
        made[-1].mkdir()
        made.append(Path(f"{made[-1]}/d"))
    made.pop()
    image = _make(made[-1], "1.png") / "1.png"
    try:
        assert find(tmp_path).images == [str(image.relative_to(tmp_path))]
    finally:  # pytest itself cannot remove them
        image.unlink()
        for place in reversed(made):
            place.rmdir()


def test_without_splits_all_are_to_be_drawn_and_classes_may_hold_folders(tmp_path: Path) -> None:
    root = _make(tmp_path, "ill/p1/s1/1.dcm", "ill/p2/1.dcm", "well/1.png", "über 日本/2.nii.gz")
    found = folder.listing(root)
    assert _rows(found) == [
        ("", "ill", "ill/p1/s1/1.dcm"),
        ("", "ill", "ill/p2/1.dcm"),
        ("", "well", "well/1.png"),
        ("", "über 日本", "über 日本/2.nii.gz"),
    ]
    assert (found.task, found.name, found.notes) == ("multi-class", tmp_path.name, ())
    assert found.patients is None


def test_two_folders_of_one_split_are_refused(tmp_path: Path) -> None:
    root = _make(tmp_path, "train/a/1.png", "train/b/1.png", "val/a/1.png", "Validation/a/2.png")
    with pytest.raises(WrongUse, match=r"/Validation and \S+/val are both val; merge them or"):
        folder.listing(root)


@pytest.mark.parametrize(
    ("file", "place", "to"),
    [
        ("train/9.png", "train", "train"),
        ("val/9.png", "val", "val"),
        ("9.png", "", "train"),
    ],
)
def test_images_outside_of_a_class_are_refused_with_the_remedy(
    file: str, place: str, to: str, tmp_path: Path
) -> None:
    root = _make(tmp_path, "train/a/1.png", "train/b/1.png", "val/a/1.png", file)
    with pytest.raises(WrongUse) as raised:
        folder.listing(root)
    assert str(raised.value) == (
        f"dataset: the images in {root / place} would not be read; move them to {root / to}/CLASS/"
    )


def test_images_next_to_folders_of_classes_are_refused(tmp_path: Path) -> None:
    root = _make(tmp_path, "a/1.png", "b/1.png", "0.png")
    with pytest.raises(WrongUse, match=rf"images in {root} would .* move them to {root}/CLASS/"):
        folder.listing(root)


def test_what_is_passed_over_is_counted_and_named_on_the_terminal_alone(tmp_path: Path) -> None:
    root = _make(
        tmp_path,
        *("train/a/1.png", "train/b/1.png", "val/b/1.png", "train/empty/notes.txt"),
        *("raw/2.png", "README.TXT"),
        *("train/a/.hidden.png", "train/@eaDir/1.png", "Thumbs.db", "__MACOSX/train/a/1.png"),
        *("train/b/desktop.ini", "train/b/DICOMDIR", "train/a/._1.png", ".DS_Store"),
    )
    found = folder.listing(root)
    assert [file for _, _, file in _rows(found)] == [
        *("train/a/1.png", "train/b/1.png", "val/b/1.png"),
    ]
    assert found.notes == (
        "passed over: hidden or system files: 8, other files: 2",
        "folders of classes without images: 1",
        "images outside of the folders of splits: 1",
    )
    assert found.details == (
        "suffixes of other files: .txt 2",
        "folders of classes without images: 1 (train/empty)",
        "images outside of the folders of splits: 1 (raw/2.png)",
    )


def test_a_class_in_composed_and_decomposed_letters_is_one(tmp_path: Path) -> None:
    composed, decomposed = (unicodedata.normalize(form, "Ödem") for form in ("NFC", "NFD"))
    root = _make(tmp_path, f"train/{composed}/1.png", "train/x/1.png", f"test/{decomposed}/1.png")
    found = folder.listing(root)
    assert found.classes == ("x", composed)
    assert found.labels.tolist() == [0, 1, 1]
    assert found.files[2] == f"test/{decomposed}/1.png"  # as it is on the disk


def test_a_class_without_a_training_image_is_refused_with_the_nearest(tmp_path: Path) -> None:
    root = _make(tmp_path, "Training/Normal/1.png", "Training/x/1.png", "Testing/normal/1.png")
    refused = (
        rf"class 'normal' in {root}/Testing has no training image in {root}/Training; did you mean "
        r"'Normal'\? Name its folders alike"
    )
    with pytest.raises(WrongUse, match=refused):
        folder.listing(root)


@pytest.mark.parametrize(
    ("files", "refused"),
    [
        (["a/1.png"], r"at least two classes with images, found a; expected DIR/train/CLASS/\*"),
        ([], "at least two classes with images, found none; expected"),
        (["test/a/1.png", "test/b/1.png"], "has no train folder with images; add DIR/train/CLASS"),
        (["Normal/1.png", "Normal/2.png", "normal/1.png"], "differ in case or blanks alone; spell"),
        (["p1/1.png", "p2/1.png", "p3/1.png"], "has 3 different labels for 3 images, which look"),
    ],
)
def test_a_folder_that_cannot_be_trained_on_is_refused(
    files: list[str], refused: str, tmp_path: Path
) -> None:
    with pytest.raises(WrongUse, match=refused):
        folder.listing(_make(tmp_path, *files))


def test_a_class_that_is_no_text_is_refused(tmp_path: Path) -> None:
    root = _make(tmp_path, "a/1.png", "b/1.png")
    os.rename(os.fsencode(root / "b"), os.fsencode(root) + b"/caf\xe9")
    with pytest.raises(WrongUse, match=r"'caf\\udce9' in .* has a name that is not UTF-8 text"):
        folder.listing(root)


def test_linked_folders_are_followed_and_loops_are_not(tmp_path: Path) -> None:
    root = _make(tmp_path / "set", "a/1.png", "a/2.png")
    _make(tmp_path / "elsewhere", "1.png")
    (root / "b").symlink_to(tmp_path / "elsewhere")
    (root / "a" / "up").symlink_to(root)
    (tmp_path / "elsewhere" / "loop").symlink_to(tmp_path / "elsewhere")
    assert folder.listing(root).files.tolist() == ["a/1.png", "a/2.png", "b/1.png"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("name", ["a/1.png", "a"])
def test_what_cannot_be_read_is_named(name: str, tmp_path: Path) -> None:
    root = _make(tmp_path, "a/1.png", "b/1.png")
    (root / name).chmod(0)
    try:
        with pytest.raises(WrongUse, match=rf"{root / name} cannot be read .*; make it") as raised:
            folder.listing(root)
    finally:
        (root / name).chmod(0o755)
    assert "1.png" not in raised.value.logged


def test_a_link_to_nothing_and_a_folder_that_does_not_exist_are_refused(tmp_path: Path) -> None:
    root = _make(tmp_path, "a/1.png", "b/1.png")
    (root / "a" / "2.png").symlink_to(root / "gone")
    with pytest.raises(WrongUse, match=r"a/2.png cannot be read \(No such file or directory\)"):
        folder.listing(root)
    (root / "a" / "2.png").unlink()
    (root / "a" / "2.png").symlink_to(root / "a" / "2.png")
    with pytest.raises(WrongUse, match=r"a/2.png cannot be read \(Too many levels of symbolic"):
        folder.listing(root)
    with pytest.raises(WrongUse, match=r"none cannot be read \(No such file or directory\)"):
        folder.listing(tmp_path / "none")


def test_a_pipe_is_no_image_and_blocks_nothing(tmp_path: Path) -> None:
    os.mkfifo(_make(tmp_path, "1.png") / "pipe")
    assert find(tmp_path).images == ["1.png"]


# The table of a folder ------------------------------------------------------------------------

_SPLIT_FILES = [f"{s}/{c}/{i}.png" for s in ("train", "val", "test") for c in "ab" for i in "12"]


def _described(root: Path, header: str, rows: dict[str, str]) -> Listing:
    _make(root, *_SPLIT_FILES)
    lines = [header, *(f"{file},{rest}" for file, rest in rows.items())]
    (root / "images.csv").write_text("\n".join(lines), encoding="utf-8-sig")
    return folder.listing(root)


def test_patients_and_groups_are_joined_by_file(tmp_path: Path) -> None:
    cells = {file: f"P{i},{'mf'[i % 2]},s{i}" for i, file in enumerate(_SPLIT_FILES)}
    rows = {file: cells[file] for file in reversed(_SPLIT_FILES)}
    found = _described(tmp_path, "file,patient,sex,Name", rows)
    assert found.patients is not None
    for file, patient, sex in zip(found.files, found.patients, found.groups["sex"], strict=True):
        assert cells[str(file)].split(",")[:2] == [patient, sex]
    assert set(found.groups) == {"sex"}
    assert found.columns == {"image": "file", "patient": "patient", "groups": "sex"}
    assert found.notes == (
        "no subgroups of columns that may identify people, whose values are not logged: Name",
    )


def test_ids_of_patients_are_read_as_in_a_table(tmp_path: Path) -> None:
    ids = ["P 1", "p  1", "NA", "-"] + ["P2"] * 8
    rows = {file: f"{patient},?" for file, patient in zip(_SPLIT_FILES, ids, strict=True)}
    found = _described(tmp_path, "file,patient_code,site", rows)
    assert found.patients is not None
    assert found.patients.tolist() == ["P 1", "P 1", "", ""] + ["P2"] * 8
    assert set(found.groups["site"]) == {"not known"}
    assert found.notes == (
        "patients whose ids differ in case, blanks or Unicode form, counted as one each: 1",
    )


def test_two_columns_of_patients_in_the_table_of_a_folder_are_refused(tmp_path: Path) -> None:
    rows = dict.fromkeys(_SPLIT_FILES, "1,2")
    with pytest.raises(WrongUse, match=r"\(pat_code, person_id\); rename or remove all but one"):
        _described(tmp_path, "file,pat_code,person_id", rows)


def test_splits_in_the_table_of_a_folder_without_are_refused(tmp_path: Path) -> None:
    splits = dict(zip(_SPLIT_FILES, ["train", "val", "test"] * 4, strict=True))
    assert "split" not in _described(tmp_path, "file,Split", splits).columns
    root = _make(tmp_path / "flat", "a/1.png", "a/2.png", "b/1.png")
    (root / "images.csv").write_text("file,set\na/1.png,train\na/2.png,test\nb/1.png,train\n")
    with pytest.raises(WrongUse, match=r"images.csv has the column of splits set, and"):
        folder.listing(root)
    known = Known(("a", "b"), "binary-class")  # of an external set all images are evaluated
    assert folder.listing(root, known).labels.tolist() == [0, 0, 1]


def test_training_images_may_lack_a_row_where_val_and_test_exist(tmp_path: Path) -> None:
    rows = {file: "P1,f" for file in _SPLIT_FILES if not file.startswith("train/a/")}
    found = _described(tmp_path, "file,Patient ID,sex", rows)
    assert found.patients is not None
    assert found.patients.tolist() == ["", ""] + ["P1"] * 10
    assert found.groups["sex"].tolist() == ["not known"] * 2 + ["f"] * 10
    assert found.notes == ("images.csv has no row for 2 training images",)
    for file in _SPLIT_FILES:
        if file.startswith("val"):
            (tmp_path / file).unlink()
    with pytest.raises(WrongUse, match=r"2 images .* no row .*: train/a/1.png, train/a/2.png; add"):
        folder.listing(tmp_path)


def test_a_column_of_many_values_is_no_group(tmp_path: Path) -> None:
    files = [f"{c}/{i}.png" for c in "ab" for i in range(11)]
    _make(tmp_path, *files)
    lines = [f"{file},{min(i, 19)},{min(i, 20)}" for i, file in enumerate(files)]
    (tmp_path / "images.csv").write_text("\n".join(["file,twenty,more", *lines]))
    found = folder.listing(tmp_path)
    assert set(found.groups) == {"twenty"}
    assert len(np.unique(found.groups["twenty"])) == 20
    assert found.notes == (
        "no subgroups of columns that have over 20 different values, which may name people: more",
    )


@pytest.mark.parametrize(
    ("header", "replaced", "by", "refused"),
    [
        (
            "file,patient",
            "test/a/1.png",
            "test/1.png",
            "1 image .* has no row in .*: test/a/1.png; add one",
        ),
        ("file,patient", "test/a/1.png", "test/a/2.png", "two rows for test/a/2.png; remove one"),
        ("image,patient", "", "", "has no column file; name the columns in its first line"),
        ("file,file", "", "", "has two columns file; rename or remove one"),
        ("file,patient", "test/a/1.png", "test/a/1.png,x", "row 10 .* has 3 cells for 2 columns"),
    ],
)
def test_a_table_that_does_not_fit_is_refused_without_its_cells(
    header: str, replaced: str, by: str, refused: str, tmp_path: Path
) -> None:
    rows = {(by if file == replaced else file): "SECRET" for file in _SPLIT_FILES}
    if by == "test/a/2.png":
        rows = dict.fromkeys(_SPLIT_FILES, "SECRET") | {"./test": "SECRET\ntest/a/2.png,SECRET"}
    with pytest.raises(WrongUse, match=refused) as raised:
        _described(tmp_path, header, rows)
    for text in (str(raised.value), raised.value.logged):
        assert "SECRET" not in text
    assert "test/a" not in raised.value.logged
