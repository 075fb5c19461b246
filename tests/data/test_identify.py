"""Data sets by name, and jobs by the content of their files."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from made_data import fake_medmnist, offer
from PIL import Image

from pepr_mlops import data
from pepr_mlops.errors import WorkFailed, WrongUse
from pepr_mlops.spec import Job, RunSpec


def _load(**fields: object) -> data.Splits:
    return data.load(RunSpec(**fields))  # type: ignore[arg-type]


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(WrongUse, match="did you mean 'derma'"):
        _load(dataset="dermaa")


def test_two_files_of_one_medmnist_name_are_two_data_sets(
    pneumonia_root: Path, tmp_path: Path
) -> None:
    """The real X-rays, and the same with one label corrected."""
    name = "pneumoniamnist.npz"
    with np.load(pneumonia_root / name) as arrays:
        content = dict(arrays)
    content["train_labels"][0] ^= 1
    np.savez_compressed(tmp_path / name, **content)

    def of(root: Path) -> str:
        spec = RunSpec(dataset="pneumonia", size=28, data_root=str(root))
        return data.identify(spec).data_digest

    assert of(tmp_path) != of(pneumonia_root)
    (tmp_path / "copy").mkdir()
    shutil.copy(pneumonia_root / name, tmp_path / "copy" / name)
    assert of(tmp_path / "copy") == of(pneumonia_root)


def test_a_published_file_is_identified_before_its_download(
    downloads: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(*downloads, monkeypatch)
    spec = RunSpec(dataset="derma", size=28, data_root=str(tmp_path))
    job = data.identify(spec)
    assert not (tmp_path / "dermamnist.npz").exists()
    data.load(job)  # which downloads it
    assert data.identify(spec) == job
    fake_medmnist(tmp_path, "dermamnist", 28, monkeypatch, n=14)
    with pytest.raises(WorkFailed, match=r"dataset: .* has changed since this job was started"):
        data.load(job)


def test_weights_are_known_by_their_content_too(shapes: Path, tmp_path: Path) -> None:
    def job(weights: Path) -> Job:
        return data.identify(RunSpec(dataset=str(shapes), weights=str(weights)))

    (tmp_path / "w.safetensors").write_bytes(b"one")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "w.safetensors").write_bytes(b"two")
    first, other = job(tmp_path / "w.safetensors"), job(tmp_path / "other" / "w.safetensors")
    assert first.data_digest == other.data_digest
    assert first.fingerprint != other.fingerprint
    (tmp_path / "w.safetensors").write_bytes(b"two")
    assert job(tmp_path / "w.safetensors").fingerprint == other.fingerprint
    with pytest.raises(WorkFailed, match=r"weights: .* has changed since this job was started"):
        data.check_weights(first)
    (tmp_path / "w.safetensors").rename(tmp_path / "renamed.safetensors")
    assert job(tmp_path / "renamed.safetensors").fingerprint == other.fingerprint
    with pytest.raises(WrongUse, match="weights: there is no file"):
        job(tmp_path / "none")


def test_a_job_whose_images_change_while_they_are_read_fails(shapes: Path) -> None:
    job = data.identify(RunSpec(dataset=str(shapes), image_size=32))
    data.load(job)
    Image.new("L", (20, 20)).save(shapes / "test" / "dark" / "00.png")
    with pytest.raises(WorkFailed) as failed:
        data.load(job)
    assert failed.value.reason == "data_changed"


def test_jobs_of_a_sweep_identify_the_same_files_once(
    shapes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    identified: list[RunSpec] = []
    real = data.identify

    def counted(spec: RunSpec) -> Job:
        identified.append(spec)
        return real(spec)

    monkeypatch.setattr(data, "identify", counted)
    specs = [RunSpec(model=m, dataset=str(shapes), seed=s) for m in ("a", "b") for s in range(3)]
    jobs = data.identify_all(specs)
    assert [job.values() for job in jobs] == [spec.values() for spec in specs]
    assert len(identified) == 1
