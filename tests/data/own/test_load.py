"""From a folder or a table to splits: who is in which, what is read, and what is kept on disk."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from test_forms import dicom

from pepr_mlops import RunSpec, data
from pepr_mlops.data.own import pixels, prepared
from pepr_mlops.data.resize import square
from pepr_mlops.data.stored import Stored
from pepr_mlops.errors import WorkFailed, WrongUse

SPLITS = ("train", "val", "test")


def _spec(dataset: Path | str, **options: Any) -> RunSpec:
    return RunSpec(dataset=str(dataset), image_size=16, **options)


def _images(split: data.Split) -> np.ndarray:
    assert isinstance(split.images, Stored)
    return np.concatenate(list(split.images.parts()))


def _marked(values: np.ndarray) -> np.ndarray:
    """With a last pixel of another value, as constant images are refused."""
    values[..., -1, -1] = 255 if values.dtype == np.uint8 else 4095
    return values


def _table(root: Path, columns: str, n: int = 40) -> Path:
    """Images of 16 pixels, of patients with two images each; image i is grey of the value i."""
    root.mkdir(exist_ok=True)
    lines = [columns]
    for i in range(n):
        Image.fromarray(_marked(np.full((16, 16), i, np.uint8))).save(root / f"{i:03}.png")
        cells = {
            "file": f"{i:03}.png",
            "label": "ab"[i // 2 % 2],
            "patient": f"P{i // 2:03}",
            "split": SPLITS[min(i * 5 // n // 3 + (i * 5 // n > 3), 2)],
            "sex": "fm"[i // 2 % 3 == 0],
        }
        lines.append(",".join(cells[name] for name in columns.split(",")))
    path = root / "labels.csv"
    path.write_text("\n".join(lines))
    return path


def test_no_patient_is_in_two_drawn_splits(tmp_path: Path) -> None:
    splits = data.load(_spec(_table(tmp_path, "file,label,patient,sex")))
    grey = {name: set(_images(part)[:, 0, 0].tolist()) for name, part in splits.by_name().items()}
    patients = {name: {value // 2 for value in own} for name, own in grey.items()}
    assert sorted(len(own) for own in patients.values()) == [4, 4, 12]
    assert not patients["train"] & patients["test"]
    assert not patients["train"] & patients["val"]
    assert not patients["val"] & patients["test"]
    assert (
        "val and test are drawn from the images of train, by patient and class, with the seed"
        in (splits.notes)
    )
    assert data.doubts(splits) == {}
    assert set(splits.test.groups) == {"patient", "sex"}
    assert set(splits.train.groups) == {"patient"}


def test_given_splits_with_a_patient_in_two_are_refused_and_flagged_if_allowed(
    tmp_path: Path,
) -> None:
    table = _table(tmp_path, "file,label,patient,split")
    rows = table.read_text().splitlines()
    rows[1] = rows[1].replace("train", "test")  # one image of the first patient
    table.write_text("\n".join(rows))
    with pytest.raises(WrongUse, match=r"1 of 20 patients is in more than one split \(train, test"):
        data.load(_spec(table))
    splits = data.load(_spec(table, allow_leak=True))
    found = data.doubts(splits)
    assert found == {
        "pepr.data_patients": "1 of 20 patients is in more than one split (train, test)"
    }


def test_patients_of_dicom_files_group_the_splits_and_a_table_comes_first(tmp_path: Path) -> None:
    for i in range(40):
        values = _marked(np.full((16, 16), i * 16, np.uint16))
        dicom(tmp_path / "ab"[i // 2 % 2] / f"IM{i:03}", values, PatientID=f"P{i // 2}")
    splits = data.load(_spec(tmp_path, window="1000,3000"))
    names = [set(splits.test.groups["patient"]), set(splits.val.groups["patient"])]
    assert [len(own) for own in names] == [4, 4]
    assert len(splits.test) == len(splits.val) == 8


def test_the_window_is_of_training_images_alone(tmp_path: Path) -> None:
    """The test images are ten times brighter, and white."""
    rng = np.random.default_rng(0)
    trained = []
    for split, top, n in (("train", 1000, 8), ("val", 10_000, 4), ("test", 10_000, 4)):
        for i in range(n):
            values = rng.integers(top // 2, top, (16, 16)).astype(np.uint16)
            path = tmp_path / split / "ab"[i % 2] / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(values).save(path)
            trained += [values] if split == "train" else []
    splits = data.load(_spec(tmp_path))
    low, high = np.percentile(np.stack(trained), [0.5, 99.5])
    assert splits.window == (low, high)
    expected = np.rint((trained[0].astype(float) - low) / (high - low) * 255).clip(0, 255)
    np.testing.assert_array_equal(_images(splits.train)[0], expected)
    assert (_images(splits.test) == 255).all()
    assert any(note.startswith(f"window: {low:g} to {high:g}, ") for note in splits.notes)


def test_the_order_of_rows_changes_neither_digest_nor_images(tmp_path: Path) -> None:
    table = _table(tmp_path, "file,label,patient")
    before = data.load(data.identify(_spec(table)))
    head, *rows = table.read_text().splitlines()
    table.write_text("\n".join([head, *rows[::-1]]))
    after = data.load(data.identify(_spec(table)))
    for name in SPLITS:
        assert before.by_name()[name].digest() == after.by_name()[name].digest()
        assert before.by_name()[name].origins.tolist() == after.by_name()[name].origins.tolist()
    assert data.identify(_spec(table)).data_digest == data.identify(_spec(table)).data_digest


def test_the_digest_changes_with_labels_splits_patients_and_reading(tmp_path: Path) -> None:
    table = _table(tmp_path, "file,label,patient,split")
    text = table.read_text()

    def digest(**options: Any) -> str:
        return data.identify(_spec(table, **options)).data_digest

    found = [digest(), digest(fit="pad"), digest(window="percentile"), digest(every=2)]
    for old, new in (("000.png,a", "000.png,b"), ("P019", "P018"), (",test", ",val")):
        table.write_text(text.replace(old, new, 1))
        found.append(digest())
    table.write_text(text)
    Image.fromarray(np.full((16, 16), 99, np.uint8)).save(tmp_path / "000.png")
    found.append(digest())
    assert len(set(found)) == len(found)


def test_a_plain_folder_has_the_digest_of_its_files(shapes: Path) -> None:
    from pepr_mlops.data import digest

    names = [str(path.relative_to(shapes)) for path in shapes.rglob("*.png")]
    assert data.identify(_spec(shapes)).data_digest == digest.of_files(shapes, names)


def test_identical_images_in_two_splits_are_found_whatever_their_format(shapes: Path) -> None:
    for i in range(3):
        with Image.open(shapes / "train" / "dark" / f"{i:02}.png") as image:
            image.save(shapes / "test" / "dark" / f"copy {i}.bmp")
    found = data.doubts(data.load(_spec(shapes)))
    assert found == {"pepr.data_leak": "3 of 19 images of test are also in train"}


def test_different_images_that_are_alike_once_resized_are_no_leak(tmp_path: Path) -> None:
    """A chequerboard and its negative are both grey at half their size."""
    board = (np.indices((32, 32)).sum(axis=0) % 2 * 255).astype(np.uint8)
    for split in SPLITS:
        for label in "ab":
            folder = tmp_path / split / label
            folder.mkdir(parents=True)
            for i in range(2):
                image = board if split == "train" else 255 - board
                marked = image.copy()
                marked[0, 0] = 100 * i + 50 * (label == "b")
                Image.fromarray(marked).save(folder / f"{i}.png")
    assert "pepr.data_leak" not in data.doubts(data.load(_spec(tmp_path)))


def test_folds_are_parts_of_all_images_that_share_no_patient(tmp_path: Path) -> None:
    table = _table(tmp_path, "file,label,patient")
    tests = []
    for fold in range(1, 5):
        splits = data.load(_spec(table, folds=4, fold=fold, seed=fold))
        tests.append(set(_images(splits.test)[:, 0, 0].tolist()))
        assert len(splits.test) == len(splits.val) == 10
        assert f"test is fold {fold} of 4, drawn by patient and class; val is the next fold" in (
            splits.notes
        )
    assert sorted(value for own in tests for value in own) == list(range(40))
    assert not {v // 2 for v in tests[0]} & {v // 2 for v in tests[1]}


def test_digits_have_folds_and_published_splits_have_none() -> None:
    one, two = (data.load(RunSpec(dataset="digits", folds=3, fold=k)) for k in (1, 2))
    assert len(one.test) == len(two.test) == 599
    assert not set(one.test.origins) & set(two.test.origins)
    assert set(one.val.origins) == set(two.test.origins)
    with pytest.raises(WrongUse, match="pneumonia has published splits"):
        data.identify(RunSpec(dataset="pneumonia", folds=3, fold=1))


@pytest.mark.parametrize(
    "options", [{"window": "40,400"}, {"patient_column": "x"}, {"allow_leak": True}]
)
def test_options_of_own_images_are_refused_for_named_sets(options: dict[str, Any]) -> None:
    (name,) = options
    with pytest.raises(WrongUse, match=f"{name}: it is of folders and tables"):
        data.identify(RunSpec(dataset="digits", **options))


def test_external_sets_take_classes_and_window_of_the_training(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for root, n in (("home", 20), ("away", 6)):
        for label in ("well", "ill") if root == "home" else ("ill", "well"):
            folder = tmp_path / root / label
            folder.mkdir(parents=True)
            for i in range(n):
                values = rng.integers(0, 1000, (16, 16)).astype(np.uint16)
                Image.fromarray(values).save(folder / f"{i}.png")
    (tmp_path / "away" / "well" / "5.png").unlink()
    spec = _spec(tmp_path / "home", external=f"b={tmp_path / 'away'}")
    job = data.identify(spec)
    splits = data.load(job)
    away = splits.external["b"]
    assert np.bincount(away.labels).tolist() == [6, 5]
    assert splits.classes == ("ill", "well")
    low, high = splits.window
    with Image.open(tmp_path / "away" / "ill" / "0.png") as image:
        values = np.asarray(image).astype(float)
    expected = np.rint((values - low) / (high - low) * 255).clip(0, 255)
    np.testing.assert_array_equal(_images(away)[0], expected)
    assert job.external_digest is not None
    assert job.fingerprint != replace(job, external_digest="b=other").fingerprint
    with pytest.raises(WrongUse, match="two sets are called b"):
        data.identify(_spec(tmp_path / "home", external=f"b={tmp_path},b={tmp_path}"))
    with pytest.raises(WrongUse, match="neither a folder nor a table"):
        data.identify(_spec(tmp_path / "home", external="b=/nowhere"))
    (tmp_path / "away" / "well").rename(tmp_path / "away" / "sound")
    with pytest.raises(WrongUse, match="has the class 'sound', which the data set does not"):
        data.load(spec)


def test_an_external_table_needs_no_more_than_files_and_classes(tmp_path: Path) -> None:
    """Its files are in its own folder, and it may lack a class and the columns of patients and
    splits of the training."""
    home = _table(tmp_path / "home", "file,label,patient,split")
    away = _table(tmp_path / "away", "file,label", n=8)
    away.write_text("file,label\n" + "".join(f"{i:03}.png,b\n" for i in range(8)))
    spec = _spec(
        home,
        images=str(tmp_path / "home"),
        patient_column="patient",
        split_column="split",
        external=f"away={away}",
    )
    splits = data.load(data.identify(spec))
    found = splits.external["away"]
    assert found.labels.tolist() == [1] * 8
    assert sorted(_images(found)[:, 0, 0].tolist()) == list(range(8))
    assert "external away: columns: image=file; labels=label" in splits.notes


def test_an_external_table_may_belong_to_a_named_set(tmp_path: Path) -> None:
    away = _table(tmp_path, "file,label", n=8)
    away.write_text("file,label\n" + "".join(f"{i:03}.png,{i % 2 + 3}\n" for i in range(8)))
    job = data.identify(RunSpec(dataset="digits", external=f"away={away}"))
    assert data.load(job).external["away"].labels.tolist() == [3, 4] * 4


def test_prepared_images_are_not_decoded_again(
    shapes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = data.load(_spec(shapes))

    def decoded(*given: object) -> object:
        raise AssertionError("decoded again")

    monkeypatch.setattr(pixels, "images", decoded)
    again = data.load(_spec(shapes, seed=1, fraction=0.5))
    np.testing.assert_array_equal(_images(first.test), _images(again.test))
    with pytest.raises(AssertionError, match="decoded again"):
        data.load(_spec(shapes, fit="pad"))


def test_preparing_that_was_interrupted_begins_again(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that is killed leaves a part, which is not taken for the images."""
    script = (
        "import os, sys\n"
        "from pepr_mlops import RunSpec, data\n"
        "from pepr_mlops.data.own import prepared\n"
        "count = [0]\n"
        "key = prepared.image_key\n"
        "def dying(image):\n"
        "    count[0] += 1\n"
        "    if count[0] > 20:\n"
        "        os.kill(os.getpid(), 9)\n"
        "    return key(image)\n"
        "prepared.image_key = dying\n"
        "data.load(RunSpec(dataset=sys.argv[1], image_size=16))\n"
    )
    died = subprocess.run([sys.executable, "-c", script, str(shapes)])
    assert died.returncode == -9
    home = Path(os.environ["PEPR_IMAGES"])
    assert [path.suffix for path in home.iterdir() if path.is_dir()] == [".part"]
    splits = data.load(_spec(shapes))
    assert [path.suffix for path in home.iterdir() if path.is_dir()] == [""]
    with Image.open(shapes / "test" / "dark" / "00.png") as image:
        expected = square(np.asarray(image), 16, "stretch", grey=True)
    np.testing.assert_array_equal(_images(splits.test)[0], expected)


def _loaded(path: str, queue: Any) -> None:
    writes = []
    write = prepared._write
    prepared._write = lambda *given: (writes.append(1), write(*given))  # type: ignore[assignment]
    splits = data.load(RunSpec(dataset=path, image_size=16))
    queue.put((len(writes), splits.test.digest()))


def test_two_jobs_at_once_prepare_the_images_once(shapes: Path) -> None:
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    jobs = [context.Process(target=_loaded, args=(str(shapes), queue)) for _ in range(3)]
    for job in jobs:
        job.start()
    found = [queue.get(timeout=60) for _ in jobs]
    for job in jobs:
        job.join()
    assert sorted(writes for writes, _ in found) == [0, 0, 1]
    assert len({digest for _, digest in found}) == 1


def test_images_that_no_job_used_for_a_month_make_room(shapes: Path) -> None:
    data.load(_spec(shapes))
    (old,) = Path(os.environ["PEPR_IMAGES"]).glob("*/index.npz")
    data.load(_spec(shapes, fit="pad"))
    assert old.exists()
    os.utime(old, (time.time() - 31 * 86400,) * 2)
    data.load(_spec(shapes, fit="crop"))
    assert not old.parent.exists()


def test_too_small_a_disk_is_reported_before_anything_is_written(
    shapes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = prepared.shutil.disk_usage("/")._replace(free=1000)
    monkeypatch.setattr(prepared.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(WorkFailed, match=r"take 0\.0 GB and 0\.0 GB are free in .*PEPR_IMAGES"):
        data.load(_spec(shapes))


def test_files_that_give_no_image_are_named_on_the_terminal_and_not_in_the_log(
    shapes: Path,
) -> None:
    for i in range(4):
        (shapes / "train" / "dark" / f"{i:02}.png").write_bytes(b"broken")
    with pytest.raises(WrongUse) as caught:
        data.load(_spec(shapes))
    text = str(caught.value)
    assert text.startswith("dataset: 4 of 60 files cannot be used: train/dark/00.png ")
    assert "train/dark/02.png" in text
    assert "train/dark/03.png" not in text
    assert ".png" not in caught.value.logged
    assert "4 of 60 files" in caught.value.logged


def test_the_frames_of_a_file_are_of_one_patient_though_none_is_named(tmp_path: Path) -> None:
    """Each file has eight frames that are nearly alike."""
    for i in range(20):
        values = np.full((8, 8, 8), i, np.uint16) + np.arange(8, dtype=np.uint16)[:, None, None]
        values = _marked(values)
        folder = tmp_path / "ab"[i % 2]
        folder.mkdir(exist_ok=True)
        nib.save(nib.Nifti1Image(values, np.eye(4)), folder / f"{i}.nii")
    table = tmp_path / "labels.csv"
    rows = [f"{'ab'[i % 2]}/{i}.nii,{'ab'[i % 2]},{'P1' if i < 3 else ''}" for i in range(20)]
    table.write_text("\n".join(["file,label,patient", *rows]))
    for dataset in (tmp_path, table):
        splits = data.load(_spec(dataset, axis=0, window="16,32"))
        own = [set(part.groups["patient"]) for part in splits.by_name().values()]
        assert sum(map(len, own)) == len(set.union(*own)) == (18 if dataset == table else 20)
        assert data.doubts(splits).get("pepr.data_patients") is None


def test_a_table_that_names_some_patients_leaves_the_others_to_the_files(tmp_path: Path) -> None:
    for i in range(40):
        values = _marked(np.full((16, 16), i * 16, np.uint16))
        dicom(tmp_path / f"IM{i:03}.dcm", values, PatientID=f"P{i // 4}")
    rows = [f"IM{i:03}.dcm,{'ab'[i // 4 % 2]},{'P0' if i < 2 else ''}" for i in range(40)]
    (tmp_path / "labels.csv").write_text("\n".join(["file,label,patient", *rows]))
    splits = data.load(_spec(tmp_path / "labels.csv", window="1000,3000"))
    own = [set(part.groups["patient"]) for part in splits.by_name().values()]
    assert sum(map(len, own)) == len(set.union(*own)) == 10


def test_a_file_that_changes_while_it_is_prepared_leaves_nothing_behind(
    shapes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = data.identify(_spec(shapes))
    path = shapes / "train" / "dark" / "00.png"
    before = path.read_bytes()
    key, lock = prepared.image_key, threading.Lock()

    def changing(image: np.ndarray) -> object:
        with lock:
            shutil.copy(shapes / "test" / "light" / "00.png", shapes / "new")
            (shapes / "new").replace(path)
        return key(image)

    monkeypatch.setattr(prepared, "image_key", changing)
    with pytest.raises(WorkFailed, match="a file has changed while its image was prepared"):
        data.load(job)
    monkeypatch.setattr(prepared, "image_key", key)
    path.write_bytes(before)
    with Image.open(path) as image:
        expected = square(np.asarray(image), 16, "stretch", grey=True)
    np.testing.assert_array_equal(_images(data.load(job).train)[0], expected)


@pytest.mark.parametrize("damage", [b"", b"garbage", None])
def test_damaged_prepared_images_are_made_again(shapes: Path, damage: bytes | None) -> None:
    expected = data.load(_spec(shapes)).test.digest()
    (index,) = Path(os.environ["PEPR_IMAGES"]).glob("*/index.npz")
    if damage is None:
        os.truncate(index.parent / "images.u8", 100)
    else:
        index.write_bytes(damage)
    assert data.load(_spec(shapes)).test.digest() == expected


def test_labels_and_splits_are_corrected_without_preparing_again(tmp_path: Path) -> None:
    table = _table(tmp_path, "file,label,patient")
    data.load(_spec(table))
    table.write_text(table.read_text().replace("001.png,a", "001.png,b"))
    data.load(_spec(table, seed=3))
    assert len(list(Path(os.environ["PEPR_IMAGES"]).glob("*/index.npz"))) == 1


def test_an_external_set_that_was_trained_on_is_reported(tmp_path: Path) -> None:
    table = _table(tmp_path / "home", "file,label,patient")
    splits = data.load(_spec(table, external=f"b={table}"))
    n = len(splits.train), len(splits.val)
    assert data.doubts(splits)["pepr.data_external"] == (
        f"{n[0]} of 40 images of external b are also in train; "
        f"{n[1]} of 40 images of external b are also in val; "
        "12 of 20 patients of external b are also in train; "
        "4 of 20 patients of external b are also in val"
    )


def test_a_grey_image_saved_as_rgb_is_the_same_image(shapes: Path) -> None:
    with Image.open(shapes / "train" / "dark" / "00.png") as image:
        image.convert("RGB").save(shapes / "test" / "dark" / "rgb.png")
    found = data.doubts(data.load(_spec(shapes)))
    assert found == {"pepr.data_leak": "1 of 17 images of test are also in train"}


def test_images_that_a_window_makes_blank_are_refused(shapes: Path) -> None:
    with pytest.raises(WrongUse, match=r"60 of 60 images are of one grey value with --window 2000"):
        data.load(_spec(shapes, window="2000,300"))


def test_folders_of_patients_are_no_classes_and_their_names_are_not_logged(tmp_path: Path) -> None:
    for i in range(4):
        for k in range(6):
            values = np.full((16, 16), 16 * i + k, np.uint16)
            dicom(tmp_path / f"JENSEN_{i}" / f"{k}.dcm", values, PatientID=f"P{i}")
    with pytest.raises(WrongUse, match="each of the 4 classes is of one patient") as caught:
        data.load(_spec(tmp_path))
    assert "JENSEN" not in caught.value.logged


def test_options_of_tables_are_refused_for_a_folder(shapes: Path) -> None:
    with pytest.raises(WrongUse, match=r"patient_column: it is of tables, and .* is a folder"):
        data.identify(_spec(shapes, patient_column="x"))


def test_a_file_that_is_no_data_set_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "labels.xlsx").write_bytes(b"x")
    with pytest.raises(WrongUse, match=r"neither a folder nor a table .*save a spreadsheet as CSV"):
        data.identify(_spec(tmp_path / "labels.xlsx"))


def test_making_room_deletes_nothing_of_the_user(shapes: Path) -> None:
    home = Path(os.environ["PEPR_IMAGES"])
    theirs = [home / "thesis" / "chapter.tex", home / "notes.txt", home / "0123456789abcdef.npz"]
    for path in theirs:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
        for old in (path, path.parent):
            os.utime(old, (time.time() - 400 * 86400,) * 2)
    data.load(_spec(shapes))
    assert all(path.exists() for path in theirs)


def _patient_notes(root: Path, patient_of: Callable[[int], str]) -> list[str]:
    for i in range(40):
        values = _marked(np.full((16, 16), i * 16, np.uint16))
        dicom(root / "ab"[i % 2] / f"IM{i:03}", values, PatientID=patient_of(i))
    return [n for n in data.load(_spec(root, window="1000,3000")).notes if "patient" in n]


def test_the_source_of_patients_is_noted(tmp_path: Path) -> None:
    named, _ = _patient_notes(tmp_path / "one image each", lambda i: f"P{i}")
    assert named == "patients are those that the DICOM files name (PatientID)"
    for i in range(12):
        (tmp_path / "volumes" / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        values = np.random.default_rng(i).integers(0, 900, (4, 8, 8)).astype(np.int16)
        path = tmp_path / "volumes" / "ab"[i % 2] / f"{i}.nii"
        nib.save(nib.Nifti1Image(values, np.eye(4)), path)
    notes = data.load(_spec(tmp_path / "volumes", axis=0)).notes
    assert "12 files of several images count as a patient each, since none is named" in notes


def test_a_word_that_replaced_the_patients_is_no_patient(tmp_path: Path) -> None:
    (note,) = _patient_notes(tmp_path, lambda i: ("ANONYMOUS", "anon")[i % 2])
    assert "by class, since no patient is known" in note
