"""Digits, folders of images and MedMNIST files: what is read, and which faults are named."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_data import fake_medmnist, offer, png_of_16_bit_colour
from PIL import Image

from pepr_mlops import data
from pepr_mlops.data import audit_files, folder
from pepr_mlops.data import medmnist as med
from pepr_mlops.data.splits import draw
from pepr_mlops.errors import WorkFailed, WrongUse
from pepr_mlops.spec import RunSpec


def _load(**fields: object) -> data.Splits:
    return data.load(RunSpec(**fields))  # type: ignore[arg-type]


# Digits ----------------------------------------------------------------------------------------


def test_digits_are_all_there_once_in_60_20_20() -> None:
    from sklearn.datasets import load_digits

    splits = _load(dataset="digits")
    parts = (splits.train, splits.val, splits.test)
    assert [len(p) for p in parts] == [1079, 359, 359]
    assert len(splits.classes) == 10
    assert splits.channels == 1
    bunch = load_digits()
    pixels = np.rint(bunch.images * 255 / 16).astype(np.uint8)
    ours = [(int(y), x.tobytes()) for p in parts for x, y in zip(p.images, p.labels, strict=True)]
    theirs = [(int(y), x.tobytes()) for x, y in zip(pixels, bunch.target, strict=True)]
    assert sorted(ours) == sorted(theirs)
    assert splits.classes == tuple(str(name) for name in bunch.target_names)
    assert max(p.images.max() for p in parts) == 255


def test_the_split_does_not_move_with_the_seed() -> None:
    assert _load(dataset="digits").test.digest() == _load(dataset="digits", seed=9).test.digest()


def test_a_digest_changes_with_any_pixel_label_or_order() -> None:
    split = _load(dataset="digits").test
    pixels = split.images.copy()
    pixels[0, 0, 0] ^= 1
    labels = split.labels.copy()
    labels[0] = (labels[0] + 1) % 10
    order = np.arange(len(split))[::-1].copy()
    others = [
        data.Split(pixels, split.labels),
        data.Split(split.images, labels),
        split.take(order),
    ]
    assert len({split.digest(), *(o.digest() for o in others)}) == 4
    assert data.Split(split.images.copy(), split.labels.copy()).digest() == split.digest()


# Fractions and channels ------------------------------------------------------------------------


def test_a_fraction_keeps_the_shares_of_the_classes() -> None:
    labels = np.repeat([0, 1, 2], [100, 50, 10])
    drawn, rest = draw(labels, 0.1, seed=1)
    assert np.bincount(labels[drawn]).tolist() == [10, 5, 1]
    assert np.array_equal(np.sort(np.concatenate([drawn, rest])), np.arange(160))
    assert np.array_equal(drawn, draw(labels, 0.1, seed=1)[0])
    assert not np.array_equal(drawn, draw(labels, 0.1, seed=2)[0])


def test_a_fraction_leaves_the_other_splits_alone() -> None:
    whole, tenth = _load(dataset="digits"), _load(dataset="digits", fraction=0.1)
    sizes = np.bincount(whole.train.labels)
    assert sizes.min() == 104  # of the class with the fewest images, 174
    assert np.bincount(tenth.train.labels).tolist() == [round(n / 10) for n in sizes]
    assert tenth.val.digest() == whole.val.digest()
    assert tenth.test.digest() == whole.test.digest()


def test_a_fraction_without_an_image_of_a_class_is_refused() -> None:
    with pytest.raises(WrongUse, match="no training image of class"):
        _load(dataset="digits", fraction=0.001)


@pytest.mark.parametrize(
    ("moved", "to", "said"),
    [
        ("val", "valid", "valid would not be read; rename it to val or,"),
        ("val", "Validation", "Validation would not be read; rename it to val or,"),
        ("train/dark/00.png", "train/00.png", r"train would not be read; move them to \S+/train/"),
        ("test/dark", "test/more/dark", r"test/more/dark would not be read; move them to"),
        ("train/dark/00.png", "train/dark/more/00.png", "train/dark/more would not be read"),
    ],
)
def test_images_where_none_are_read_are_refused_by_training_and_by_the_check(
    shapes: Path, moved: str, to: str, said: str
) -> None:
    (shapes / to).parent.mkdir(exist_ok=True)
    (shapes / moved).rename(shapes / to)
    with pytest.raises(WrongUse, match=said):
        _load(dataset=str(shapes))
    with pytest.raises(WrongUse, match=said):  # before a sweep begins
        data.identify(RunSpec(dataset=str(shapes)))
    (audit,) = audit_files.audit_target(str(shapes), 28, None)
    messages = [finding.message for finding in audit.of("error")]
    assert any(re.search(said, message) for message in messages)


def test_what_programs_leave_behind_is_neither_class_nor_image(shapes: Path) -> None:
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


def _seen(image: Image.Image, path: Path, grey: bool = False, **how: Any) -> np.ndarray:
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
def test_a_photograph_is_turned_as_its_camera_says(
    orientation: int, shown: list[list[int]], suffix: str, tmp_path: Path
) -> None:
    """As the EXIF standard has it (CIPA DC-008, orientation)."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(np.array([[10, 20, 30], [40, 50, 60]], np.uint8)).convert("RGB")
    how = {"lossless": True} if suffix == "webp" else {}
    seen = _seen(image, tmp_path / f"x.{suffix}", exif=exif, **how)
    assert seen[..., 0].tolist() == shown


def test_what_is_transparent_is_seen_on_black(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    pixels = np.array([[[200, 100, 50, 255], [200, 100, 50, 51], [200, 100, 50, 0]]], np.uint8)
    seen = _seen(Image.fromarray(pixels, "RGBA"), path)
    assert seen.tolist() == [[[200, 100, 50], [40, 20, 10], [0, 0, 0]]]  # 51 of 255 is a fifth
    grey = np.array([[[200, 255], [200, 51], [200, 0]]], np.uint8)
    assert _seen(Image.fromarray(grey, "LA"), path, grey=True).tolist() == [[200, 40, 0]]
    few = Image.fromarray(pixels[..., :3]).quantize(4)
    few.putpixel((2, 0), 3)
    assert _seen(few, path, transparency=3)[0, 2].tolist() == [0, 0, 0]
    one_colour = Image.fromarray(np.array([[[9, 9, 9], [200, 100, 50]]], np.uint8))
    seen = _seen(one_colour, path, transparency=(200, 100, 50))
    assert seen.tolist() == [[[9, 9, 9], [0, 0, 0]]]


def test_grey_is_pillows_grey(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for split in ("train", "val", "test"):
        for label in ("a", "b"):
            (tmp_path / split / label).mkdir(parents=True)
            pixels = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / split / label / "0.png")
    splits = _load(dataset=str(tmp_path), image_size=16, channels="grey")
    with Image.open(tmp_path / "test" / "a" / "0.png") as image:
        expected = np.asarray(image.convert("L"))
    assert np.array_equal(splits.test.images[0], expected)
    assert splits.channels == 1
    assert _load(dataset=str(tmp_path), image_size=16).channels == 3
    assert _load(dataset="digits", channels="rgb").channels == 3


# Folders ---------------------------------------------------------------------------------------


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
    (audit,) = audit_files.audit_target(str(shapes), 28, None)
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


def test_interrupting_a_download_is_no_failed_download(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import medmnist

    def interrupted(*args: object, **kwargs: object) -> None:
        try:
            raise KeyboardInterrupt
        except BaseException:  # as medmnist does
            raise RuntimeError("Something went wrong when downloading!")  # noqa: B904

    monkeypatch.setattr(medmnist, "DermaMNIST", interrupted)
    with pytest.raises(KeyboardInterrupt):
        _load(dataset="derma", size=28, data_root=str(tmp_path))
    assert list(tmp_path.iterdir()) == []


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
def test_a_class_that_is_spelled_otherwise_in_another_split_is_recognised(
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
    (audit,) = audit_files.audit_target(str(shapes), 28, None)
    (untrained,) = [finding for finding in audit.of("error") if finding.kind == "untrained"]
    assert untrained.examples == (f"{tested} (train 0, val 0, test 8; did you mean '{trained}'?)",)


def test_a_folder_of_another_form_is_refused_with_the_expected_one(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    with pytest.raises(WrongUse, match="expected DIR/train/CLASS"):
        _load(dataset=str(tmp_path))


def test_a_class_whose_name_is_no_text_is_refused_by_training_and_check(shapes: Path) -> None:
    os.rename(os.fsencode(shapes / "train" / "dark"), os.fsencode(shapes / "train") + b"/caf\xe9")
    refused = r"'caf\\udce9' in .*train has a name that is not UTF-8 text"
    with pytest.raises(WrongUse, match=refused):
        _load(dataset=str(shapes))
    with pytest.raises(WrongUse, match=refused):
        audit_files.audit_target(str(shapes), 28, None)


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(WrongUse, match="did you mean 'derma'"):
        _load(dataset="dermaa")


# MedMNIST --------------------------------------------------------------------------------------


def test_pneumonia_is_the_papers(pneumonia_root: Path) -> None:
    splits = _load(dataset="pneumonia", size=28, data_root=str(pneumonia_root))
    counts = [np.bincount(s.labels).tolist() for s in (splits.train, splits.val, splits.test)]
    assert counts == [[1214, 3494], [135, 389], [234, 390]]
    assert splits.task == "binary-class"
    assert splits.classes == ("normal", "pneumonia")
    import medmnist

    theirs = medmnist.PneumoniaMNIST("val", root=str(pneumonia_root))
    assert np.array_equal(splits.val.images, theirs.imgs)
    assert np.array_equal(splits.val.labels, theirs.labels[:, 0])


def test_all_twelve_sets_have_what_is_asked_of_them() -> None:
    import medmnist

    two_d = {f for f, info in medmnist.INFO.items() if not f.endswith("3d")}
    assert set(med.FLAGS) == two_d
    assert len(med.FLAGS) == 12
    assert {medmnist.INFO[f]["task"] for f in med.FLAGS} == {
        "multi-class",
        "binary-class",
        "ordinal-regression",
        "multi-label, binary-class",
    }


@pytest.mark.parametrize("size", [28, 64, 128, 224])
def test_sizes_come_from_their_own_files(
    size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_medmnist(tmp_path, "dermamnist", size, monkeypatch)
    splits = _load(dataset="derma", size=size, data_root=str(tmp_path))
    assert splits.train.images.shape == (12, size, size, 3)
    assert splits.channels == 3
    assert len(splits.classes) == 7


def test_chest_has_fourteen_labels_per_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_medmnist(tmp_path, "chestmnist", 28, monkeypatch)
    splits = _load(dataset="chestmnist", size=28, data_root=str(tmp_path))
    assert splits.train.labels.shape == (12, 14)
    assert splits.task == "multi-label, binary-class"


def test_a_damaged_file_is_named_with_its_link(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = fake_medmnist(tmp_path, "dermamnist", 28, monkeypatch)
    file.write_bytes(file.read_bytes()[:-200])
    with pytest.raises(WrongUse, match=r"dermamnist\.npz is damaged .*https://zenodo"):
        _load(dataset="derma", size=28, data_root=str(tmp_path))


def test_a_single_array_is_no_medmnist_file(tmp_path: Path) -> None:
    with (tmp_path / "dermamnist.npz").open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(WrongUse, match=r"no MedMNIST file \(BadZipFile: File is not a zip"):
        _load(dataset="derma", size=28, data_root=str(tmp_path))


def test_a_file_that_looks_encrypted_is_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = fake_medmnist(tmp_path, "dermamnist", 28, monkeypatch)
    content = bytearray(file.read_bytes())
    for header, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(header) + flags] |= 1
    file.write_bytes(content)
    with pytest.raises(WrongUse, match=r"dermamnist\.npz is damaged"):
        _load(dataset="derma", size=28, data_root=str(tmp_path))


def test_a_wrong_split_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import medmnist

    fake_medmnist(tmp_path, "dermamnist", 28, monkeypatch)
    monkeypatch.setitem(
        medmnist.INFO["dermamnist"], "n_samples", {"train": 12, "val": 11, "test": 12}
    )
    with pytest.raises(WrongUse, match=r"the val images are uint8 \(12, 28, 28, 3\) where"):
        _load(dataset="derma", size=28, data_root=str(tmp_path))


def test_labels_out_of_range_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = fake_medmnist(tmp_path, "dermamnist", 28, monkeypatch)
    with np.load(file) as arrays:
        changed = dict(arrays)
    changed["test_labels"][3] = 7
    np.savez(file, **changed)
    with pytest.raises(WrongUse, match="the test labels are"):
        _load(dataset="derma", size=28, data_root=str(tmp_path))


def test_pickled_objects_are_not_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = fake_medmnist(tmp_path, "dermamnist", 28, monkeypatch)
    with np.load(file) as arrays:
        changed = dict(arrays)
    changed["test_labels"] = np.array([{"a": 1}] * 12, dtype=object)
    np.savez(file, **changed)
    with pytest.raises(WrongUse, match="damaged or no MedMNIST file"):
        _load(dataset="derma", size=28, data_root=str(tmp_path))


def test_an_absent_data_root_is_named(tmp_path: Path) -> None:
    with pytest.raises(WrongUse, match="data_root: there is no folder"):
        _load(dataset="derma", data_root=str(tmp_path / "absent"))


# Downloads, from a server on this machine ------------------------------------------------------


def test_a_missing_file_is_downloaded_and_kept(
    downloads: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, address = downloads
    offer(folder, address, monkeypatch)
    root = tmp_path / "root"
    root.mkdir()
    splits = _load(dataset="derma", size=28, data_root=str(root))
    assert len(splits.train) == 12
    assert [p.name for p in root.iterdir()] == ["dermamnist.npz"]
    (folder / "dermamnist.npz").unlink()  # the second time nothing is fetched
    assert _load(dataset="derma", size=28, data_root=str(root)).train.digest() == (
        splits.train.digest()
    )


@pytest.mark.parametrize("fault", ["damaged", "absent", "offline"])
def test_a_failed_download_says_what_to_do_and_leaves_nothing(
    fault: str, downloads: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, address = downloads
    if fault == "offline":
        address = "http://127.0.0.1:9"
    offer(folder, address, monkeypatch, damage=fault == "damaged")
    if fault == "absent":
        (folder / "dermamnist.npz").unlink()
    root = tmp_path / "root"
    root.mkdir()
    with pytest.raises(WorkFailed, match=r"dermamnist\.npz could not be downloaded") as failed:
        _load(dataset="derma", size=28, data_root=str(root))
    assert f"{address}/dermamnist.npz" in str(failed.value)
    assert f"put it at {root}/dermamnist.npz" in str(failed.value)
    assert failed.value.reason == "missing_data"
    assert list(root.iterdir()) == []
