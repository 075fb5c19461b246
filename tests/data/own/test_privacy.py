"""Nothing that identifies a patient is in anything that a run, a sweep or a report writes."""

from __future__ import annotations

import io
import re
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from mlflow import MlflowClient
from test_forms import dicom

from pepr_mlops import cli

PLANTED = {
    "PatientName": "Mustermann^Erika",
    "PatientID": "MRN-4711",
    "PatientBirthDate": "19640812",
    "AccessionNumber": "ACC778899",
    "ReferringPhysicianName": "Quacksalber^Otto",
    "InstitutionName": "Klinikum Hintertupfingen",
}
IN_NAMES = "Mustermann_Erika"  # of files and folders
TRAIN = [
    *("train", "--model", "test_resnet", "--image-size", "32", "--epochs", "1", "--no-pretrained"),
    *("--device", "cpu", "--energy", "estimated", "--batch-size", "8"),
]


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Twenty patients of two images each, with what identifies them in every place."""
    rng = np.random.default_rng(0)
    root = tmp_path / "archive"
    rows = ["file;label;subject_id;patient_name;sex"]
    for i in range(20):
        label = ("ill", "well")[i % 2]
        for k in range(2):
            file = f"{IN_NAMES}_{i}/IM{k}.dcm"
            values = rng.integers(0, 1000 * (1 + i % 2), (24, 24)).astype(np.uint16)
            own = {name: f"{value}{i}" for name, value in PLANTED.items() if "Date" not in name}
            dicom(root / file, values, **own, PatientBirthDate=PLANTED["PatientBirthDate"])
            rows.append(f"{file};{label};SUBJ-{i}-X;Erika Mustermann {i};{'fm'[i % 2]}")
    (root / "labels.csv").write_text("\n".join(rows))
    return root


def _planted() -> list[bytes]:
    texts = [*PLANTED.values(), "SUBJ-", "Erika", "Mustermann"]
    return [text.encode() for text in texts]


def _contents(path: Path) -> bytes:
    """A file as bytes; of an archive, what is in it."""
    content = path.read_bytes()
    if not zipfile.is_zipfile(io.BytesIO(content)):
        return content
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return b"".join(archive.read(name) for name in archive.namelist())


def _searched(root: Path, without: Path) -> int:
    """Search every file below `root`; how many there are."""
    files = [
        path
        for path in root.rglob("*")
        if path.is_file() and not path.is_relative_to(without) and path.suffix != ".digests"
    ]
    for path in files:
        content = _contents(path).replace(b"\0", b"")  # numpy's texts are of four bytes each
        found = [text for text in _planted() if text in content]
        assert not found, f"{found} in {path}"
    return len(files)


def _invoke(*arguments: str, status: int = 0) -> str:
    result = CliRunner().invoke(cli.pepr, [*arguments])
    shown = f"{result.output}{result.exception or ''}"
    assert bool(result.exit_code) == bool(status), shown
    return shown


def test_nothing_written_names_a_patient(store: str, tmp_path: Path, archive: Path) -> None:
    table = str(archive / "labels.csv")
    for seed in ("0", "1"):
        shown = _invoke(*TRAIN, "--dataset", table, "--seed", seed)
        assert "patient_name" in shown  # the column is passed over, and this is reported
        assert not [text for text in _planted() if text.decode() in shown]
    _invoke("report", "--experiment", "labels", "--out", str(tmp_path / "report.html"))
    _invoke("runs", "--experiment", "labels", "--out", str(tmp_path / "runs.csv"))
    assert _searched(tmp_path, archive) > 10
    client = MlflowClient()
    (experiment,) = [e for e in client.search_experiments() if e.name == "labels"]
    (found, _) = client.search_runs([experiment.experiment_id])
    with np.load(client.download_artifacts(found.info.run_id, "predictions.npz")) as arrays:
        patients = arrays["group_patient"].tolist()
        assert all(re.fullmatch("[0-9a-f]{16}", name) for name in patients)
        assert sorted(np.unique(patients, return_counts=True)[1].tolist()) == [2] * 4
        assert set(arrays["group_sex"]) == {"f", "m"}


def test_an_error_names_the_file_on_the_terminal_alone(
    store: str, tmp_path: Path, archive: Path
) -> None:
    broken = archive / f"{IN_NAMES}_3" / "IM1.dcm"
    broken.write_bytes(broken.read_bytes()[:700])
    shown = _invoke(*TRAIN, "--dataset", str(archive / "labels.csv"), status=2)
    assert f"{IN_NAMES}_3/IM1.dcm" in shown
    assert not [text for text in PLANTED.values() if text in shown]
    broken.unlink()
    _searched(tmp_path, archive)


def test_dicom_patients_are_grouped_without_a_table(
    store: str, tmp_path: Path, archive: Path
) -> None:
    folder = tmp_path / "classes"
    for i in range(20):
        target = folder / ("ill", "well")[i % 2]
        target.mkdir(parents=True, exist_ok=True)
        for k in range(2):
            source = archive / f"{IN_NAMES}_{i}" / f"IM{k}.dcm"
            (target / f"{IN_NAMES}_{i}_{k}").write_bytes(source.read_bytes())
    _invoke(*TRAIN, "--dataset", str(folder))
    client = MlflowClient()
    (experiment,) = [e for e in client.search_experiments() if e.name == "classes"]
    (found,) = client.search_runs([experiment.experiment_id])
    with np.load(client.download_artifacts(found.info.run_id, "predictions.npz")) as arrays:
        test, val = set(arrays["group_patient"]), set(arrays["val_group_patient"])
    assert len(test) == len(val) == 4
    assert not test & val
    shutil.rmtree(folder)
    _searched(tmp_path, archive)


def test_a_sweep_names_files_on_the_terminal_and_in_no_log(
    store: str, tmp_path: Path, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An image that is cut off passes as one until its job reads it."""
    monkeypatch.setenv("PEPR_CHECKPOINTS", str(tmp_path / "checkpoints"))
    broken = archive / f"{IN_NAMES}_3" / "IM1.dcm"
    broken.write_bytes(broken.read_bytes()[:-100])
    shown = _invoke("sweep", *TRAIN[1:], "--dataset", str(archive / "labels.csv"))
    assert f"{IN_NAMES}_3/IM1.dcm" in shown
    logs = list((tmp_path / "checkpoints").rglob("*.log"))
    assert logs
    assert "a file is truncated; copy it again" in logs[0].read_text()
    assert _searched(tmp_path, archive) >= 3
