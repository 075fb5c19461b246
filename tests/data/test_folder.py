"""Folders of images: how their files are read, and which faults are named."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from made_data import png_of_16_bit_colour
from PIL import Image

from pepr_mlops import data
from pepr_mlops.data import audit_files
from pepr_mlops.data.describe import open_target
from pepr_mlops.data.splits import Split
from pepr_mlops.data.stored import Stored
from pepr_mlops.errors import WrongUse
from pepr_mlops.spec import RunSpec


def _load(**fields: object) -> data.Splits:
    return data.load(RunSpec(**fields))  # type: ignore[arg-type]


def _pixels(split: Split) -> np.ndarray:
    assert isinstance(split.images, Stored)
    return np.concatenate(list(split.images.parts()))


def test_a_folder_is_read_by_class(shapes: Path) -> None:
    splits = _load(dataset=str(shapes), image_size=20)
    assert splits.name == "shapes"
    assert splits.classes == ("dark", "light")
    assert splits.task == "binary-class"
    assert splits.channels == 1
    assert [len(s) for s in (splits.train, splits.val, splits.test)] == [32, 12, 16]
    means = _pixels(splits.train).mean(axis=(1, 2))
    assert means[splits.train.labels == 0].max() < 60 < 180 < means[splits.train.labels == 1].min()


def test_missing_splits_are_drawn_from_train_by_class(shapes: Path) -> None:
    shutil.rmtree(shapes / "val")
    with_test = _load(dataset=str(shapes), image_size=20)
    assert np.bincount(with_test.val.labels).tolist() == [3, 3]  # a fifth of 16, rounded
    assert np.bincount(with_test.train.labels).tolist() == [13, 13]
    assert len(with_test.test) == 16
    shutil.rmtree(shapes / "test")
    alone = _load(dataset=str(shapes), image_size=20)
    assert np.bincount(alone.train.labels).tolist() == [10, 10]  # 0.6 of 16
    parts = (alone.train, alone.val, alone.test)
    digests = [row.tobytes() for part in parts for row in _pixels(part)]
    assert len(set(digests)) == 32  # every image is in one split only
    assert alone.val.digest() == _load(dataset=str(shapes), image_size=20).val.digest()
    assert alone.val.digest() != _load(dataset=str(shapes), image_size=20, seed=1).val.digest()


@pytest.mark.parametrize(
    ("moved", "to", "refused"),
    [
        ("train/dark/00.png", "train/00.png", r"train would not be read; move them to \S+/train/"),
        ("train/dark/00.png", "00.png", r"shapes would not be read; move them to \S+/test/CLASS"),
    ],
)
def test_misplaced_images_are_refused_by_training_and_by_the_check(
    shapes: Path, moved: str, to: str, refused: str
) -> None:
    (shapes / to).parent.mkdir(exist_ok=True)
    (shapes / moved).rename(shapes / to)
    with pytest.raises(WrongUse, match=refused):
        _load(dataset=str(shapes))
    with pytest.raises(WrongUse, match=refused):  # before a sweep begins
        data.identify(RunSpec(dataset=str(shapes)))
    (audit,) = audit_files.audit_target(RunSpec(dataset=str(shapes)))
    messages = [finding.message for finding in audit.of("error")]
    assert any(re.search(refused, message) for message in messages)


def test_litter_of_programs_is_neither_class_nor_image(shapes: Path) -> None:
    before = _load(dataset=str(shapes)).train.digest()
    for name in (".ipynb_checkpoints", "@eaDir", "__MACOSX", ".cache"):
        shutil.copytree(shapes / "train" / "dark", shapes / "train" / name)
        shutil.copytree(shapes / "train" / "dark", shapes / "train" / "light" / name)
    (shapes / "train" / "dark" / "._00.png").write_bytes(b"of a Mac")
    splits = _load(dataset=str(shapes))
    assert splits.classes == ("dark", "light")
    assert splits.train.digest() == before


def test_a_jfif_file_is_an_image(shapes: Path) -> None:
    before = _load(dataset=str(shapes)).test
    for path in (shapes / "test" / "dark").iterdir():
        with Image.open(path) as image:
            image.convert("L").save(path.with_suffix(".jpg"), quality=95)
        path.unlink()
        path.with_suffix(".jpg").rename(path.with_suffix(".jfif"))
    assert _load(dataset=str(shapes)).test.labels.tolist() == before.labels.tolist()


@pytest.mark.parametrize("suffix", ["gif", "tif", "webp", "png"])
def test_images_of_several_frames_are_counted_and_the_first_is_used(
    suffix: str, shapes: Path
) -> None:
    """By training and by the check; a file of one frame in the same format is none of them."""
    first, second = (Image.new("L", (20, 20), value) for value in (40, 200))
    for i in range(3):
        (shapes / f"train/dark/{i:02d}.png").unlink()
        path = shapes / f"train/dark/{i:02d}.{suffix}"
        frames = {"save_all": True, "append_images": [second]} if i else {}
        first.save(path, lossless=True, **frames)  # type: ignore[arg-type]
    splits = _load(dataset=str(shapes), image_size=20, channels="grey")
    text = "2 of 60 files have further frames or slices, 2 in all, which are passed over"
    assert splits.notes[0] == text
    assert _pixels(splits.train)[:3].max() == 40
    (audit,) = audit_files.audit_target(RunSpec(dataset=str(shapes)))
    (found,) = [finding for finding in audit.findings if finding.kind == "frames"]
    assert (found.severity, found.message) == ("warning", text)
    assert found.examples == (f"train/dark/01.{suffix}", f"train/dark/02.{suffix}")


def test_a_damaged_second_frame_does_not_keep_the_first_from_being_used(shapes: Path) -> None:
    path = shapes / "train" / "dark" / "00.gif"
    frames = [Image.new("L", (20, 20), value) for value in (40, 200)]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    at = path.read_bytes().rindex(b"\x2c")  # the second image's descriptor
    path.write_bytes(path.read_bytes()[: at + 4])
    splits = _load(dataset=str(shapes), image_size=20, channels="grey")
    assert splits.notes[0].startswith("1 of 61 files has further frames or slices")


def test_an_unreadable_image_is_named(shapes: Path) -> None:
    (shapes / "val" / "dark" / "00.png").write_bytes(b"no image")
    with pytest.raises(WrongUse, match=r"val/dark/00\.png cannot be read"):
        _load(dataset=str(shapes), image_size=20)


def test_a_truncated_image_is_named(shapes: Path) -> None:
    path = shapes / "train" / "dark" / "03.png"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(WrongUse, match=r"03\.png is truncated"):
        _load(dataset=str(shapes), image_size=20)


def test_colour_of_more_than_8_bits_is_refused_and_not_cut_off(shapes: Path) -> None:
    (shapes / "train" / "dark" / "00.png").write_bytes(png_of_16_bit_colour())
    with pytest.raises(WrongUse, match="over 8 bits"):
        _load(dataset=str(shapes), image_size=20)


def test_a_class_without_training_images_is_named(shapes: Path) -> None:
    (shapes / "train" / "light").rename(shapes / "train" / "white")
    with pytest.raises(
        WrongUse, match=r"class 'light' .* no training image in \S+/train\. Name its"
    ):
        _load(dataset=str(shapes), image_size=20)


@pytest.mark.parametrize(
    ("trained", "tested"),
    [("Light", "light"), ("Pneumonia", "PNEUMONIA "), ("glioma", "glioma_tumor")],
)
def test_a_class_with_another_spelling_in_another_split_is_recognised(
    shapes: Path, trained: str, tested: str
) -> None:
    """By training, by a sweep before its first job, and by the check."""
    for split in ("train", "val"):
        (shapes / split / "light").rename(shapes / split / trained)
    (shapes / "test" / "light").rename(shapes / "test" / tested)
    refused = rf"class '{tested}' in \S+/test has .* did you mean '{trained}'\?"
    with pytest.raises(WrongUse, match=refused):
        _load(dataset=str(shapes))
    with pytest.raises(WrongUse, match=refused):
        data.identify(RunSpec(dataset=str(shapes)))
    (audit,) = audit_files.audit_target(RunSpec(dataset=str(shapes)))
    (untrained,) = [finding for finding in audit.of("error") if finding.kind == "untrained"]
    assert untrained.examples == (f"{tested} (train 0, val 0, test 8; did you mean '{trained}'?)",)


def test_a_folder_of_another_form_is_refused_with_the_expected_one(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    with pytest.raises(WrongUse, match="expected DIR/train/CLASS"):
        _load(dataset=str(tmp_path))


def test_a_class_name_that_is_not_text_is_refused_by_training_and_check(
    shapes: Path,
) -> None:
    os.rename(os.fsencode(shapes / "train" / "dark"), os.fsencode(shapes / "train") + b"/caf\xe9")
    refused = r"'caf\\udce9' in .*train has a name that is not UTF-8 text"
    with pytest.raises(WrongUse, match=refused):
        _load(dataset=str(shapes))
    (audit,) = audit_files.audit_target(RunSpec(dataset=str(shapes)))
    assert any(re.search(refused, finding.message) for finding in audit.of("error"))


@pytest.fixture
def two_classes(tmp_path: Path) -> Path:
    """Ten images of each of two classes in `train` alone, each of a grey of its own."""
    for i in range(20):
        path = tmp_path / "set" / "train" / "ab"[i % 2] / f"{i:02d} ä.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image = Image.new("L", (8, 8), 10 * i)
        image.putpixel((0, 0), 255)
        image.save(path)
    return tmp_path / "set"


def test_drawn_images_keep_the_names_of_their_files(two_classes: Path) -> None:
    """Runs log names without a meaning, and the description of the data set says whose they are."""
    spec = RunSpec(dataset=str(two_classes), image_size=8, fraction=0.5, seed=3)
    splits = data.load(spec)
    assert [len(s) for s in (splits.train, splits.val, splits.test)] == [6, 4, 4]
    files = open_target(spec).files().set_index("image")
    for name, split in splits.by_name().items():
        assert split.origins is not None
        for image, label, origin in zip(_pixels(split), split.labels, split.origins, strict=True):
            row = files.loc[origin]
            assert (row["split"], row["label"]) == (name, splits.classes[label])
            with Image.open(two_classes / row["file"]) as opened:
                assert np.array_equal(image, np.asarray(opened))


def test_images_turned_grey_keep_the_names_of_their_files(two_classes: Path) -> None:
    Image.new("RGB", (8, 8), (90, 90, 90)).save(two_classes / "train" / "a" / "00 ä.png")
    splits = data.load(RunSpec(dataset=str(two_classes), image_size=8, channels="grey"))
    names = [name for s in (splits.train, splits.val, splits.test) for name in s.origins]  # type: ignore[union-attr]
    assert len(set(names)) == 20


# The table of a folder -------------------------------------------------------------------------


def _described(folder: Path, without: str = "", unknown: tuple[str, ...] = ()) -> dict[str, str]:
    """Write images.csv, its rows in another order than the files: two images of a class are of one
    patient. Returns the sex of each image."""
    found, lines = {}, []
    for path in sorted(folder.rglob("*.png")):
        number, file = int(path.stem), path.relative_to(folder).as_posix()
        patient = f"{path.parent.parent.name}-{path.parent.name}-{number // 2}"
        found[file] = "mf"[number % 2]
        if not without or not file.startswith(without):
            lines.append(f"{found[file]},{file},{'' if file in unknown else patient}")
    order = np.random.default_rng(0).permutation(len(lines))
    table = ["sex,file,patient", *(lines[i] for i in order)]
    (folder / "images.csv").write_text("\n".join(table))
    return found


@pytest.mark.parametrize("without", ["", "val/"])
def test_groups_are_joined_by_file_in_given_and_drawn_splits(without: str, shapes: Path) -> None:
    sex = _described(shapes, without)
    if without:
        shutil.rmtree(shapes / without)
    spec = RunSpec(dataset=str(shapes), image_size=8)
    splits, files = data.load(spec), open_target(spec).files().set_index("image")["file"]
    assert set(splits.train.groups) == {"patient"}
    for split in (splits.val, splits.test):
        assert split.origins is not None
        assert split.groups["sex"].tolist() == [sex[files[name]] for name in split.origins]
        assert set(np.unique(split.groups["patient"], return_counts=True)[1]) == {2}


def test_an_unknown_patient_is_no_other(shapes: Path) -> None:
    _described(shapes, unknown=("test/dark/02.png", "test/dark/03.png"))
    patients = data.load(RunSpec(dataset=str(shapes), image_size=8)).test.groups["patient"]
    assert sorted(np.unique(patients, return_counts=True)[1]) == [1, 1] + [2] * 7
    (audit,) = audit_files.audit_target(RunSpec(dataset=str(shapes)))
    (found,) = [finding for finding in audit.findings if finding.kind == "patient"]
    assert (found.severity, found.message) == (
        "warning",
        "2 of 60 images have no patient; each counts as a patient of its own",
    )


def test_the_table_is_no_image_and_what_it_says_is_part_of_the_data_set(shapes: Path) -> None:
    spec = RunSpec(dataset=str(shapes), image_size=8)
    digest, before = data.identify(spec).data_digest, data.load(spec).test.digest()
    (audit,) = audit_files.audit_target(spec)
    _described(shapes)
    assert data.identify(spec).data_digest != digest
    assert data.load(spec).test.digest() == before
    (again,) = audit_files.audit_target(spec)
    assert again.findings == audit.findings


def test_a_folder_with_a_table_that_does_not_fit_is_checked_without_it(shapes: Path) -> None:
    (shapes / "images.csv").write_text("file,patient\ntest/dark/00.png,SECRET\n")
    (shapes / "test" / "dark" / "07.png").write_bytes(b"no image")
    (audit,) = audit_files.audit_target(RunSpec(dataset=str(shapes)))
    table, damaged = audit.of("error")
    assert "27 images that may be evaluated have no row in " in table.message
    assert "images.csv: val/dark/00.png, val/dark/01.png, " in table.message
    assert damaged.examples[0].startswith("test/dark/07.png cannot be read")
    assert "SECRET" not in str(audit)
