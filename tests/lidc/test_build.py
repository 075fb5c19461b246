"""From DICOM files with planted intensities to a data set that trains."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import collection
import numpy as np
import pandas as pd
import pydicom
import pytest

from pepr_mlops import data
from pepr_mlops.errors import WorkFailed, WrongUse
from pepr_mlops.lidc import Settings, build, nodules
from pepr_mlops.lidc.parts import Cutter
from pepr_mlops.schema import RunSpec

PATIENTS = "LIDC-IDRI-025*"  # nine scans, 55 outlined slices
WINDOW = (-1000.0, 400.0)


def _silent(items: Iterable[Any], **_: Any) -> Iterable[Any]:
    return items


@pytest.fixture(scope="module")
def scans() -> list[collection.Scan]:
    return list(collection.scans(nodules.installed(), PATIENTS.replace("*", "%")))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, scans: list[collection.Scan]) -> Path:
    """The collection's folder, with what else lies in it."""
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


def test_what_could_tell_who_the_patient_is_reaches_no_output(root: Path, built: Path) -> None:
    assert collection.SECRET.encode() in _deflated(next(root.rglob("*.dcm")))
    arrays = np.load(built / "lidc.npz")
    everything = b"".join(arrays[name].tobytes() for name in arrays)
    for path in built.iterdir():
        everything += path.read_bytes()
    for secret in (collection.SECRET, "19500101"):
        assert secret.encode() not in everything


def _deflated(path: Path) -> bytes:
    return str(pydicom.dcmread(path)).encode()


def test_the_file_is_the_same_however_many_processes(
    root: Path, built: Path, tmp_path: Path
) -> None:
    build(Settings(root, tmp_path, patients=PATIENTS, size=128, processes=1), _silent)
    for name in ("lidc.npz", "lidc.csv", "lidc.json"):
        assert (tmp_path / name).read_bytes() == (built / name).read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("lidc-skipped.csv", "lidc.csv", "lidc.json", "lidc.npz")
    ]


def test_it_trains_like_any_other(built: Path, store: str) -> None:
    from mlflow import MlflowClient

    from pepr_mlops.job import run

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
    _changed(series, SeriesInstanceUID="1.2.3")
    _changed(patient, PatientID="LIDC-IDRI-9999")
    _changed(modality, Modality="MR")
    half.write_bytes(half.read_bytes()[: half.stat().st_size // 2])
    gone.unlink()
    again = doubled.with_name("9-999.dcm")  # another file of the same place, made later
    collection.save(scan, outlined[6], 999, again)
    _changed(again, ImagePositionPatient=[0.0, 0.0, outlined[5]])
    (copy / "notes.dcm").write_text("no image")
    (copy / "empty.dcm").touch()
    return copy, [str(p.relative_to(copy)) for p in (series, patient, modality, half)]


def test_what_cannot_be_used_is_listed_and_skipped(
    damaged: tuple[Path, list[str]], built: Path, tmp_path: Path
) -> None:
    root, (series, patient, modality, half) = damaged
    settings = Settings(root, tmp_path / "out", patients=PATIENTS, size=128, max_missing=0.2)
    found = build(settings, _silent)
    kinds = found.skipped.set_index("path")["kind"].to_dict()
    assert kinds[series] == "wrong_series"
    assert kinds[patient] == "wrong_patient"
    assert kinds[modality] == "not_ct"
    assert kinds[half] == "unreadable"
    assert kinds["notes.dcm"] == kinds["empty.dcm"] == "unreadable"
    assert (found.skipped["kind"] == "missing_slice").sum() == 5  # the half one hides its place
    assert (found.wanted, found.missing) == (55, 9)
    assert "LIDC-IDRI-9999" not in (tmp_path / "out" / "lidc-skipped.csv").read_text()
    whole = _by_place(built)
    for place, image in _by_place(tmp_path / "out").items():
        assert np.array_equal(image, whole[place])  # the doubled slice is the first one


def _by_place(folder: Path) -> dict[tuple[str, float, int], np.ndarray]:
    arrays = np.load(folder / "lidc.npz")
    images = {split: arrays[f"{split}_images"] for split in ("train", "val", "test")}
    manifest = pd.read_csv(folder / "lidc.csv")
    return {
        (row.series, row.z_mm, row.nodule): images[row.split][row.image]
        for row in manifest.itertuples()
    }


def test_too_much_missing_makes_no_data_set_and_keeps_what_was_cut(
    damaged: tuple[Path, list[str]], root: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with pytest.raises(WorkFailed, match=r"9 of 55 patches are missing, more than 1.0%") as failed:
        build(Settings(damaged[0], out, patients=PATIENTS, size=128), _silent)
    assert "missing_slice" in str(failed.value)
    assert not (out / "lidc.npz").exists()
    assert (out / "lidc-skipped.csv").exists()
    assert len(list(out.glob(".lidc-parts-*/*.npz"))) == 8


def test_a_scan_that_is_not_there_is_one_line(root: Path, tmp_path: Path) -> None:
    settings = Settings(root, tmp_path, patients="LIDC-IDRI-02[56]*", size=128)
    with pytest.raises(WorkFailed, match=r"missing_scan.*name the --patients you have"):
        build(settings, _silent)
    skipped = pd.read_csv(tmp_path / "lidc-skipped.csv")
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


def test_an_interrupted_build_goes_on_to_the_same_file(
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
    assert 3 <= len(list(tmp_path.glob(".lidc-parts-*/*.npz"))) < 9
    build(settings, _silent)
    assert (tmp_path / "lidc.npz").read_bytes() == (built / "lidc.npz").read_bytes()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"patch": 600}, "patch: 600 is not from 8 to 512 pixels"),
        ({"size": 4}, "size: 4 is not from 8 to 1024 pixels"),
        ({"window_hu": (400.0, -1000.0)}, "window: 400 is not below -1000"),
        ({"max_missing": 1.5}, "max_missing: 1.5 is no share"),
        ({"dicom": Path("nowhere")}, "dicom: there is no folder nowhere"),
    ],
)
def test_wrong_settings_are_named(changed: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(WrongUse, match=message):
        Settings(**{"dicom": tmp_path, "out": tmp_path, **changed})


def test_patients_that_do_not_exist_are_named(tmp_path: Path) -> None:
    with pytest.raises(WrongUse, match=r"'Doe\*' fits none .* LIDC-IDRI-0001 to LIDC-IDRI-1012"):
        build(Settings(tmp_path, tmp_path, patients="Doe*"), _silent)


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


def test_how_it_was_built_lies_beside_it(built: Path) -> None:
    about = json.loads((built / "lidc.json").read_text())
    assert (about["wanted"], about["missing"], about["unclear"]) == (55, 0, 8)
    assert sum(about["patches"].values()) == 55
    assert about["window_hu"] == [-1000, 400]


def test_it_is_listed_found_and_sound(built: Path) -> None:
    from pepr_mlops.data.catalogue import catalogue
    from pepr_mlops.data.examine import examine

    (entry,) = [entry for entry in catalogue(str(built)) if entry.name == "lidc"]
    assert sum(entry.images.values()) == 55
    assert (entry.on_disk, entry.classes[1]) == ((128,), "malignant")
    assert data.fetch("lidc", 28, str(built)) == (built / "lidc.npz", False)
    (audit,) = examine("lidc", 28, str(built))
    assert audit.of("error") == ()


def test_a_patient_in_two_splits_is_found_from_the_manifest(built: Path, tmp_path: Path) -> None:
    from pepr_mlops.data.examine import examine

    shutil.copy(built / "lidc.npz", tmp_path)
    manifest = pd.read_csv(built / "lidc.csv")
    of = dict(zip(manifest["split"], manifest["patient"], strict=True))
    manifest["patient"] = manifest["patient"].replace(of["test"], of["train"])
    manifest.to_csv(tmp_path / "lidc.csv", index=False)
    (audit,) = examine(str(tmp_path), 28, None)
    assert [finding.kind for finding in audit.of("error")] == ["patient"]
    assert audit.of("error")[0].examples == (f"{of['train']} (test, train)",)
