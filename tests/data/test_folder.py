"""Folders of images: how their files are read, and which faults are named."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_data import png_of_16_bit_colour
from PIL import Image

from pepr_mlops import data
from pepr_mlops.data import audit_files, folder
from pepr_mlops.data.splits import Split
from pepr_mlops.errors import WrongUse
from pepr_mlops.spec import RunSpec


def _load(**fields: object) -> data.Splits:
    return data.load(RunSpec(**fields))  # type: ignore[arg-type]


def test_a_folder_is_read_by_class(shapes: Path) -> None:
    splits = _load(dataset=str(shapes), image_size=20)
    assert splits.name == "shapes"
    assert splits.classes == ("dark", "light")
    assert splits.task == "binary-class"
    assert splits.channels == 1
    assert [len(s) for s in (splits.train, splits.val, splits.test)] == [32, 12, 16]
    means = splits.train.images.mean(axis=(1, 2))
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
    digests = [row.tobytes() for part in parts for row in part.images]
    assert len(set(digests)) == 32  # every image is in one split only
    assert alone.val.digest() == _load(dataset=str(shapes), image_size=20).val.digest()
    assert alone.val.digest() != _load(dataset=str(shapes), image_size=20, seed=1).val.digest()


@pytest.mark.parametrize(
    ("moved", "to", "refused"),
    [
        ("val", "valid", "valid would not be read; rename it to val or,"),
        ("val", "Validation", "Validation would not be read; rename it to val or,"),
        ("train/dark/00.png", "train/00.png", r"train would not be read; move them to \S+/train/"),
        ("test/dark", "test/more/dark", r"test/more/dark would not be read; move them to"),
        ("train/dark/00.png", "train/dark/more/00.png", "train/dark/more would not be read"),
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


def _as_seen(image: Image.Image, path: Path, grey: bool = False, **how: Any) -> np.ndarray:
    """An image as training takes it from a file."""
    image.save(path, **how)
    with Image.open(path) as opened:
        return np.asarray(folder.as_seen(opened, grey))


@pytest.mark.parametrize(
    ("orientation", "shown"),
    [
        (1, [[10, 20, 30], [40, 50, 60]]),
        (2, [[30, 20, 10], [60, 50, 40]]),  # mirrored
        (3, [[60, 50, 40], [30, 20, 10]]),  # upside down
        (6, [[40, 10], [50, 20], [60, 30]]),  # a camera held upright
        (8, [[30, 60], [20, 50], [10, 40]]),
    ],
)
@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
def test_a_photograph_is_turned_by_its_exif_orientation(
    orientation: int, shown: list[list[int]], suffix: str, tmp_path: Path
) -> None:
    """As the EXIF standard has it (CIPA DC-008, orientation)."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(np.array([[10, 20, 30], [40, 50, 60]], np.uint8)).convert("RGB")
    how = {"lossless": True} if suffix == "webp" else {}
    seen = _as_seen(image, tmp_path / f"x.{suffix}", exif=exif, **how)
    assert seen[..., 0].tolist() == shown


def test_transparent_pixels_are_black(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    pixels = np.array([[[200, 100, 50, 255], [200, 100, 50, 51], [200, 100, 50, 0]]], np.uint8)
    seen = _as_seen(Image.fromarray(pixels, "RGBA"), path)
    assert seen.tolist() == [[[200, 100, 50], [40, 20, 10], [0, 0, 0]]]  # 51 of 255 is a fifth
    grey = np.array([[[200, 255], [200, 51], [200, 0]]], np.uint8)
    assert _as_seen(Image.fromarray(grey, "LA"), path, grey=True).tolist() == [[200, 40, 0]]
    few = Image.fromarray(pixels[..., :3]).quantize(4)
    few.putpixel((2, 0), 3)
    assert _as_seen(few, path, transparency=3)[0, 2].tolist() == [0, 0, 0]
    one_colour = Image.fromarray(np.array([[[9, 9, 9], [200, 100, 50]]], np.uint8))
    seen = _as_seen(one_colour, path, transparency=(200, 100, 50))
    assert seen.tolist() == [[[9, 9, 9], [0, 0, 0]]]


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
    assert splits.notes == ("2 of 60 images have more than one frame; training uses the first",)
    assert splits.train.images[:3].max() == 40
    (audit,) = audit_files.audit_target(RunSpec(dataset=str(shapes)))
    (found,) = [finding for finding in audit.findings if finding.kind == "frames"]
    assert (found.severity, found.message) == ("warning", splits.notes[0])
    assert found.examples == (f"train/dark/01.{suffix}", f"train/dark/02.{suffix}")


def test_a_damaged_second_frame_does_not_keep_the_first_from_being_used(shapes: Path) -> None:
    path = shapes / "train" / "dark" / "00.gif"
    frames = [Image.new("L", (20, 20), value) for value in (40, 200)]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    at = path.read_bytes().rindex(b"\x2c")  # the second image's descriptor
    path.write_bytes(path.read_bytes()[: at + 4])
    splits = _load(dataset=str(shapes), image_size=20, channels="grey")
    assert splits.notes == ("1 of 61 images have more than one frame; training uses the first",)


def test_an_unreadable_image_is_named(shapes: Path) -> None:
    (shapes / "val" / "dark" / "00.png").write_bytes(b"no image")
    with pytest.raises(WrongUse, match=r"val/dark/00\.png is not a readable image"):
        _load(dataset=str(shapes), image_size=20)


def test_a_truncated_image_is_named(shapes: Path) -> None:
    path = shapes / "train" / "dark" / "03.png"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(WrongUse, match=r"03\.png is not a readable image"):
        _load(dataset=str(shapes), image_size=20)


def test_more_than_8_bits_are_refused_and_not_clipped(shapes: Path) -> None:
    Image.fromarray(np.full((20, 20), 3000, dtype=np.uint16)).save(
        shapes / "train" / "dark" / "00.png"
    )
    with pytest.raises(WrongUse, match="over 8 bits"):
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
    with pytest.raises(WrongUse, match=refused):
        audit_files.audit_target(RunSpec(dataset=str(shapes)))


@pytest.fixture
def two_classes(tmp_path: Path) -> Path:
    """Ten images of each of two classes in `train` alone, each of a grey of its own."""
    for i in range(20):
        path = tmp_path / "set" / "train" / "ab"[i % 2] / f"{i:02d} ä.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), 10 * i).save(path)
    return tmp_path / "set"


def _assert_files_are_named(split: Split, root: Path) -> None:
    assert split.origins is not None
    for image, name in zip(split.images, split.origins, strict=True):
        with Image.open(root / name) as opened:
            assert np.array_equal(image, np.asarray(opened))


def test_drawn_images_keep_the_names_of_their_files(two_classes: Path) -> None:
    spec = RunSpec(dataset=str(two_classes), image_size=8, fraction=0.5, seed=3)
    splits = data.load(spec)
    assert [len(s) for s in (splits.train, splits.val, splits.test)] == [6, 4, 4]
    for split in (splits.train, splits.val, splits.test):
        _assert_files_are_named(split, two_classes)


def test_images_turned_grey_keep_the_names_of_their_files(two_classes: Path) -> None:
    Image.new("RGB", (8, 8), (90, 90, 90)).save(two_classes / "train" / "a" / "00 ä.png")
    splits = data.load(RunSpec(dataset=str(two_classes), image_size=8, channels="grey"))
    names = [name for s in (splits.train, splits.val, splits.test) for name in s.origins]  # type: ignore[union-attr]
    assert len(set(names)) == 20
