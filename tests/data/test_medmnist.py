"""MedMNIST's files: how they are read and downloaded, and which faults are named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from made_data import fake_medmnist, offer

from pepr_mlops import data
from pepr_mlops.data import medmnist as med
from pepr_mlops.errors import WorkFailed, WrongUse
from pepr_mlops.spec import RunSpec


def _load(**fields: object) -> data.Splits:
    return data.load(RunSpec(**fields))  # type: ignore[arg-type]


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


def test_the_names_are_those_of_the_twelve_2d_sets() -> None:
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


def test_a_missing_file_is_downloaded_once(
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
def test_a_failed_download_names_the_remedy_and_leaves_no_file(
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
