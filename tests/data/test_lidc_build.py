"""From DICOM files with planted intensities to a data set that trains."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import collection
import numpy as np
import pandas as pd
import pydicom
import pytest
from filelock import FileLock

from pepr_mlops import data
from pepr_mlops.data.lidc_build import Settings, build, nodules, output
from pepr_mlops.data.lidc_build.parts import Cutter
from pepr_mlops.data.splits import SPLITS
from pepr_mlops.errors import WorkFailed, WrongUse
from pepr_mlops.spec import RunSpec

PATIENTS = "LIDC-IDRI-025*"  # nine scans, 55 outlined slices
WINDOW = (-1000.0, 400.0)


def _silent(items: Iterable[Any], **_: Any) -> Iterable[Any]:
    return items


@pytest.fixture(autouse=True)
def _forked(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Builds but that of `built` fork their processes, which would import for seconds each."""
    forks = SimpleNamespace(get_context=lambda _: multiprocessing.get_context("fork"))
    module = import_module("pepr_mlops.data.lidc_build.build")  # a function has its name, too
    monkeypatch.setattr(module, "multiprocessing", forks)


@pytest.fixture(scope="module")
def scans() -> list[collection.Scan]:
    return list(collection.scans(nodules.installed(), PATIENTS.replace("*", "%")))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, scans: list[collection.Scan]) -> Path:
    """The folder of the collection, with its other files."""
    folder = tmp_path_factory.mktemp("LIDC-IDRI")
    for scan in scans:
        collection.write(scan, folder, around=1)
    (folder / "LICENSE").write_text("CC BY 3.0")
    (folder / "tcia-lidc-xml").mkdir()
    (folder / "tcia-lidc-xml" / "069.xml").write_text("<LidcReadMessage/>")
    return folder


@pytest.fixture(scope="module")
def built(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("built")
    build(Settings(root, out, patients=PATIENTS, patch=128, size=128, processes=2), _silent)
    return out


def _expected(scan: collection.Scan, row: Any) -> np.ndarray:
    """The square that the manifest names, of the planted slice, windowed by hand."""
    hu = scan.hounsfield(row.z_mm)[row.row : row.row + 128, row.column : row.column + 128]
    return np.rint((hu.astype(float) + 1000) / 1400 * 255).astype(np.uint8)


def test_each_patch_is_the_planted_square_around_its_nodule(
    built: Path, scans: list[collection.Scan]
) -> None:
    by_series = {scan.series: scan for scan in scans}
    manifest = pd.read_csv(built / "lidc.csv")
    arrays = np.load(built / "lidc.npz")
    assert len(manifest) == 55
    for row in manifest.itertuples():
        scan = by_series[row.series]
        image = arrays[f"{row.split}_images"][row.image]
        assert np.array_equal(image, _expected(scan, row))
        here = [one for one in scan.outlines if one.z_mm == row.z_mm]
        inside = [
            one
            for one in here
            if (np.abs(one.points.mean(axis=0) - [row.row + 64, row.column + 64]) < 20).all()
        ]
        assert inside  # an outline in this very slice is near the middle
        assert image.max() > 40  # air is 27


def test_labels_are_those_of_the_ratings_in_the_manifest(built: Path) -> None:
    manifest = pd.read_csv(built / "lidc.csv")
    ratings = manifest[[f"rating_{k}" for k in range(1, 5)]]
    assert manifest["label"].tolist() == ((ratings >= 4).sum(axis=1) > 2).astype(int).tolist()
    assert manifest["label"].sum() == 11
    arrays = np.load(built / "lidc.npz")
    for split, rows in manifest.groupby("split"):
        assert arrays[f"{split}_labels"][:, 0].tolist() == rows["label"].tolist()
        silent = ratings.loc[rows.index].isna().to_numpy()
        assert np.array_equal(arrays[f"{split}_votes"] == -1, silent)


def test_no_patient_is_in_two_splits(built: Path) -> None:
    manifest = pd.read_csv(built / "lidc.csv")
    assert (manifest.groupby("patient")["split"].nunique() == 1).all()
    assert set(manifest["split"]) == {"train", "val", "test"}


def test_nothing_that_identifies_the_patient_is_in_the_output(root: Path, built: Path) -> None:
    assert collection.SECRET.encode() in _deflated(next(root.rglob("*.dcm")))
    arrays = np.load(built / "lidc.npz")
    everything = b"".join(arrays[name].tobytes() for name in arrays)
    for path in built.iterdir():
        everything += path.read_bytes()
    for secret in (collection.SECRET, "19500101"):
        assert secret.encode() not in everything


def _deflated(path: Path) -> bytes:
    return str(pydicom.dcmread(path)).encode()


def test_marks_in_the_slice_decide_and_the_order_splits(
    root: Path, built: Path, tmp_path: Path
) -> None:
    settings = Settings(
        root, tmp_path, patients=PATIENTS, size=128, label="marked", split="paper", processes=1
    )
    build(settings, _silent)
    manifest = pd.read_csv(tmp_path / "lidc.csv")
    marked = manifest[[f"marked_{k}" for k in range(1, 5)]].fillna(value=False).astype(bool)
    assert manifest["label"].tolist() == (marked.sum(axis=1) > 2).astype(int).tolist()
    assert manifest["split"].tolist() == ["train"] * 33 + ["val"] * 11 + ["test"] * 11
    assert manifest.groupby("series")["split"].nunique().max() == 2  # one part is cut in two
    arrays = np.load(tmp_path / "lidc.npz")
    assert arrays["classes"].tolist() == ["marked by up to two", "marked by more than two"]
    votes = manifest[[f"vote_{k}" for k in range(1, 5)]].to_numpy()
    assert np.array_equal(votes, np.vstack([arrays[f"{n}_votes"] for n in SPLITS]))
    labels = np.vstack([arrays[f"{n}_labels"] for n in SPLITS])[:, 0]
    assert labels.tolist() == manifest["label"].tolist()
    first, second = _by_place(built), _by_place(tmp_path)
    assert len(first) == 55
    assert all(np.array_equal(first[place], second[place]) for place in first)


def test_the_file_is_the_same_however_many_processes(
    root: Path, built: Path, tmp_path: Path
) -> None:
    build(Settings(root, tmp_path, patients=PATIENTS, size=128, processes=1), _silent)
    for name in ("lidc.npz", "lidc.csv", "lidc.json"):
        assert (tmp_path / name).read_bytes() == (built / name).read_bytes()
    visible = sorted(path.name for path in tmp_path.glob("[!.]*"))
    assert visible == ["lidc-skipped.csv", "lidc.csv", "lidc.json", "lidc.npz"]
    assert list(tmp_path.glob(".lidc-parts-*")) == []


def test_the_data_set_trains_like_any_other(built: Path, store: str) -> None:
    from mlflow import MlflowClient

    from pepr_mlops.train.job import run

    spec = RunSpec(
        **{"model": "mobilenetv3_small_050", "dataset": "lidc", "data_root": str(built)},
        **{"image_size": 32, "epochs": 2, "pretrained": False, "device": "cpu"},
    )
    logged = MlflowClient().get_run(run(spec).run.run_id).data
    assert logged.tags["pepr.experiment"] == "lidc"
    assert 0 <= logged.metrics["test/accuracy"] <= 1
    splits = data.load(spec)
    assert (splits.classes, splits.channels) == (("not malignant", "malignant"), 1)
    assert len(splits.train) + len(splits.val) + len(splits.test) == 55


# Faults ------------------------------------------------------------------------------------------


def _changed(path: Path, **fields: Any) -> None:
    image = pydicom.dcmread(path)
    for name, value in fields.items():
        setattr(image, name, value)
    image.save_as(path)


def _bomb(path: Path) -> None:
    """A small deflated file of 20 MB."""
    image = pydicom.Dataset()
    image.Modality, image.BitsAllocated = "CT", 16
    image.PixelData = b"\0" * 20_000_000
    image.file_meta = pydicom.dataset.FileMetaDataset()
    image.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    image.file_meta.MediaStorageSOPClassUID = pydicom.uid.CTImageStorage
    image.file_meta.MediaStorageSOPInstanceUID = "1.2"
    image.save_as(path, enforce_file_format=True)
    assert path.stat().st_size < 100_000


@pytest.fixture
def damaged(root: Path, scans: list[collection.Scan], tmp_path: Path) -> tuple[Path, list[str]]:
    """A copy of the collection without the slices of nine patches, and files at fault."""
    copy = shutil.copytree(root, tmp_path / "damaged")
    scan = max(scans, key=lambda s: len({o.z_mm for o in s.outlines}))
    outlined = sorted({o.z_mm for o in scan.outlines})  # the first five have nine nodules
    files = {
        float(pydicom.dcmread(p).ImagePositionPatient[2]): p
        for p in copy.rglob("*.dcm")
        if pydicom.dcmread(p).SeriesInstanceUID == scan.series
    }
    series, patient, modality, half, gone, doubled = (files[z] for z in outlined[:6])
    _changed(series, SeriesInstanceUID=collection.SECRET)
    _changed(patient, PatientID=collection.SECRET)
    _changed(modality, Modality="MR")
    half.write_bytes(half.read_bytes()[: half.stat().st_size // 2])
    gone.unlink()
    again = doubled.with_name("9-999.dcm")  # another file of the same place, made later
    collection.save(scan, outlined[6], 999, again)
    _changed(again, ImagePositionPatient=[0.0, 0.0, outlined[5]])
    (copy / "notes.dcm").write_text("no image")
    (copy / "empty.dcm").touch()
    os.rename(copy / "notes.dcm", os.fsencode(copy) + b"/=1+bad\xff.dcm")
    _bomb(half.with_name("bomb.dcm"))
    return copy, [str(p.relative_to(copy)) for p in (series, patient, modality, half)]


def test_unusable_files_are_listed_and_skipped(
    damaged: tuple[Path, list[str]],
    built: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    root, (series, patient, modality, half) = damaged
    monkeypatch.chdir(root)
    settings = Settings(
        Path(), tmp_path / "out", patients=PATIENTS, size=128, max_missing=0.2, processes=1
    )
    found = build(settings, _silent)
    kinds = found.skipped.set_index("path")["kind"].to_dict()
    assert kinds[f"./{series}"] == "wrong_series"
    assert kinds[f"./{patient}"] == "wrong_patient"
    assert kinds[f"./{modality}"] == "not_ct"
    assert kinds[f"./{half}"] == "unreadable"
    assert kinds["./=1+bad\\xff.dcm"] == kinds["./empty.dcm"] == "unreadable"
    assert found.skipped["kind"].tolist().count("too_large") == 1
    assert (found.skipped["kind"] == "missing_slice").sum() == 5  # the half one hides its place
    assert (found.expected, found.missing) == (55, 9)
    output_text = (tmp_path / "out" / "lidc-skipped.csv").read_text() + "".join(capfd.readouterr())
    assert collection.SECRET not in output_text
    undamaged = _by_place(built)
    for place, image in _by_place(tmp_path / "out").items():
        assert np.array_equal(image, undamaged[place])  # the doubled slice is the first one


def _by_place(folder: Path) -> dict[tuple[str, float, int], np.ndarray]:
    arrays = np.load(folder / "lidc.npz")
    images = {split: arrays[f"{split}_images"] for split in ("train", "val", "test")}
    manifest = pd.read_csv(folder / "lidc.csv")
    return {
        (row.series, row.z_mm, row.nodule): images[row.split][row.image]
        for row in manifest.itertuples()
    }


def test_with_too_many_missing_patches_no_data_set_is_written_and_the_cut_ones_stay(
    damaged: tuple[Path, list[str]], root: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with pytest.raises(WorkFailed, match=r"9 of 55 patches are missing, more than 1.0%") as failed:
        build(Settings(damaged[0], out, patients=PATIENTS, size=128, processes=1), _silent)
    assert "missing_slice" in str(failed.value)
    assert not (out / "lidc.npz").exists()
    assert len(pd.read_csv(out / "lidc-missing.csv")) > 5
    assert not (out / "lidc-skipped.csv").exists()
    assert len(list(out.glob(".lidc-parts-*/*.npz"))) == 8


def test_a_scan_that_is_not_there_is_one_line(root: Path, tmp_path: Path) -> None:
    settings = Settings(root, tmp_path, patients="LIDC-IDRI-02[56]*", size=128, processes=1)
    with pytest.raises(WorkFailed, match=r"missing_scan.*8 patients, LIDC-IDRI-0250 to LIDC-"):
        build(settings, _silent)
    skipped = pd.read_csv(tmp_path / "lidc-missing.csv")
    assert set(skipped["kind"]) == {"missing_scan"}
    assert skipped["detail"].str.startswith("LIDC-IDRI-026").all()


def test_a_scan_is_not_cut_again_from_the_same_files(
    root: Path, scans: list[collection.Scan], tmp_path: Path
) -> None:
    (scan,) = nodules.read(nodules.installed(), "LIDC-IDRI-0250")
    (made,) = [one for one in scans if one.patient == "LIDC-IDRI-0250"]
    places = collection.write(made, tmp_path / "dicom")
    files = {one.z_mm: places[made.positions.index(one.z_mm)] for one in scan.outlined}
    cutter = Cutter(tmp_path, 128, 128, WINDOW)
    first = cutter((scan, files)).images()
    victim = next(iter(files.values()))
    state = victim.stat()
    victim.write_bytes(b"\0" * state.st_size)
    os.utime(victim, ns=(state.st_atime_ns, state.st_mtime_ns))
    again = cutter((scan, files))  # would fail if it read the file
    assert np.array_equal(again.images(), first)
    assert again.skipped == ()
    os.utime(victim)
    assert [one.kind for one in cutter((scan, files)).skipped] == ["unreadable"]
    assert len(cutter((scan, files)).skipped) == 1  # and is tried each time


def test_an_interrupted_build_resumes_and_makes_the_same_file(
    root: Path, built: Path, tmp_path: Path
) -> None:
    class Interrupted(Exception):
        pass

    def stops(items: Iterable[Any], *, desc: str, **_: Any) -> Iterable[Any]:
        for i, item in enumerate(items):
            if desc == "cut patches" and i == 3:
                raise Interrupted
            yield item

    settings = Settings(root, tmp_path, patients=PATIENTS, size=128, processes=1)
    with pytest.raises(Interrupted):
        build(settings, stops)
    parts = {path: path.stat().st_mtime_ns for path in tmp_path.glob(".lidc-parts-*/*.npz")}
    assert 3 <= len(parts) < 9
    with pytest.raises(Interrupted):  # other options do not use those
        build(replace(settings, patch=64), stops)
    assert len(list(tmp_path.glob(".lidc-parts-*"))) == 2
    after: list[int] = []
    build(settings, lambda items, **_: after.extend(p.stat().st_mtime_ns for p in parts) or items)
    assert set(after) == set(parts.values())
    assert (tmp_path / "lidc.npz").read_bytes() == (built / "lidc.npz").read_bytes()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"patch": 600}, "patch: 600 is not from 8 to 512 pixels"),
        ({"size": 4}, "size: 4 is not from 8 to 1024 pixels"),
        ({"window_hu": (400.0, -1000.0)}, "window: 400 to -1000 is not a lower and a higher"),
        ({"window_hu": (-np.inf, 400.0)}, "window: -inf to 400 is not a lower"),
        ({"seed": -1}, "seed: -1 is not from 0 to 4294967295"),
        ({"max_missing": 1.5}, "max_missing: 1.5 is not a share"),
        ({"dicom": Path("nowhere")}, "dicom: there is no folder nowhere"),
    ],
)
def test_wrong_settings_are_named(changed: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(WrongUse, match=message):
        Settings(**{"dicom": tmp_path, "out": tmp_path, **changed})


def test_patients_that_do_not_exist_are_named(tmp_path: Path) -> None:
    with pytest.raises(WrongUse, match=r"matches no patient .* LIDC-IDRI-0001 to LIDC-IDRI-1012"):
        build(Settings(tmp_path, tmp_path, patients="Doe*"), _silent)


def test_a_folder_without_any_of_the_scans_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WrongUse, match=r"dicom: .* has no slice of the 8 annotated scans"):
        build(Settings(tmp_path, tmp_path / "out", patients=PATIENTS, processes=1), _silent)


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(WrongUse, match=r"out: .*file cannot be a folder .*; choose another --out"):
        build(Settings(tmp_path, tmp_path / "file", patients=PATIENTS), _silent)


def test_too_few_patients_are_refused_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(WrongUse, match=r"1 patients with a nodule are too few .* --split paper"):
        build(Settings(tmp_path, tmp_path / "out", patients="LIDC-IDRI-0078"), _silent)
    assert not (tmp_path / "out").exists()


def test_a_second_build_into_the_same_folder_is_refused(root: Path, tmp_path: Path) -> None:
    with (
        FileLock(tmp_path / ".lidc.lock"),
        pytest.raises(WrongUse, match="another build is writing to"),
    ):
        build(Settings(root, tmp_path, patients=PATIENTS), _silent)


def test_where_a_disk_is_full_the_earlier_data_set_stays(
    root: Path, built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(built, tmp_path / "out")
    before = {path: path.read_bytes() for path in (tmp_path / "out").glob("lidc.*")}

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(output, "_write_array", full)
    settings = Settings(
        root, tmp_path / "out", patients=PATIENTS, size=128, label="marked", processes=1
    )
    with pytest.raises(WorkFailed, match=r"lidc: No space left on device; fix that and start"):
        build(settings, _silent)
    assert {path: path.read_bytes() for path in before} == before


def test_linked_folders_are_searched_once(root: Path, built: Path, tmp_path: Path) -> None:
    linked = tmp_path / "linked"
    linked.mkdir()
    for folder in root.iterdir():
        (linked / folder.name).symlink_to(folder)
    (linked / "again").symlink_to(linked)
    build(Settings(linked, tmp_path / "out", patients=PATIENTS, size=128, processes=1), _silent)
    assert (tmp_path / "out" / "lidc.npz").read_bytes() == (built / "lidc.npz").read_bytes()


# Loading -----------------------------------------------------------------------------------------


def test_without_the_file_the_command_that_makes_it_is_named(tmp_path: Path) -> None:
    with pytest.raises(WrongUse, match=r"build it with `pepr data lidc --dicom ROOT"):
        data.load(RunSpec(dataset="lidc", data_root=str(tmp_path)))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda a: a.pop("classes"),
        lambda a: a.update(train_images=a["train_images"].astype(np.float32)),
        lambda a: a.update(val_labels=a["val_labels"][:-1]),
        lambda a: a.update(test_labels=a["test_labels"] + 2),
    ],
)
def test_another_file_of_that_name_is_refused(
    spoil: Callable[[dict[str, Any]], Any], built: Path, tmp_path: Path
) -> None:
    arrays = dict(np.load(built / "lidc.npz"))
    spoil(arrays)
    np.savez(tmp_path / "lidc.npz", **arrays)
    with pytest.raises(WrongUse, match="is damaged or was not built by"):
        data.load(RunSpec(dataset="lidc", data_root=str(tmp_path)))


def test_a_file_next_to_the_data_set_has_its_settings(built: Path) -> None:
    about = json.loads((built / "lidc.json").read_text())
    assert (about["wanted"], about["missing"], about["unclear"]) == (55, 0, 8)
    assert sum(about["patches"].values()) == 55
    assert about["window_hu"] == [-1000, 400]


def test_the_data_set_is_listed_found_and_sound(built: Path) -> None:
    from pepr_mlops.data.audit_files import audit_target
    from pepr_mlops.data.catalogue import catalogue

    (entry,) = [entry for entry in catalogue(str(built)) if entry.name == "lidc"]
    assert sum(entry.images.values()) == 55
    assert (entry.on_disk, entry.classes[1]) == ((128,), "malignant")
    assert data.fetch("lidc", 28, str(built)) == (built / "lidc.npz", False)
    (audit,) = audit_target(RunSpec(dataset="lidc", data_root=str(built)))
    assert audit.of("error") == ()


def test_a_patient_in_two_splits_is_found_from_the_manifest(built: Path, tmp_path: Path) -> None:
    from pepr_mlops.data.audit_files import audit_target

    shutil.copy(built / "lidc.npz", tmp_path)
    manifest = pd.read_csv(built / "lidc.csv")
    of = dict(zip(manifest["split"], manifest["patient"], strict=True))
    manifest["patient"] = manifest["patient"].replace(of["test"], of["train"])
    manifest.to_csv(tmp_path / "lidc.csv", index=False)
    (audit,) = audit_target(RunSpec(dataset=str(tmp_path)))
    assert [finding.kind for finding in audit.of("error")] == ["patient"]
    assert of["train"] not in str(audit.findings)
