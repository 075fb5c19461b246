"""A data set is known by what its files hold."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_data import fake_medmnist, offer
from PIL import Image

from pepr_mlops import data
from pepr_mlops.data import digest
from pepr_mlops.data.splits import SPLITS
from pepr_mlops.errors import WorkFailed, WrongUse
from pepr_mlops.spec import Job, RunSpec


def _of(root: Path, **fields: object) -> str:
    return data.identify(RunSpec(dataset=str(root), **fields)).data_digest  # type: ignore[arg-type]


def _alter(path: Path) -> None:
    """Another image in a file of the same name, size and time of change."""
    before = path.stat()
    content = bytearray(path.read_bytes())
    content[-20] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_it_is_a_digest_of_names_and_contents(tmp_path: Path) -> None:
    """By hand, as the docstring says."""
    root = tmp_path / "root"
    root.mkdir()
    (root / "b").write_bytes(b"2")
    (root / "a").write_bytes(b"1")
    md5 = {name: hashlib.md5(text).hexdigest() for name, text in (("a", b"1"), ("b", b"2"))}
    expected = hashlib.blake2b(f"{md5['a']} a\n{md5['b']} b\n".encode(), digest_size=8)
    assert digest.of_files(root, ["b", "a"]) == expected.hexdigest()
    assert digest.of_tree(root) == expected.hexdigest()
    (root / ".DS_Store").write_bytes(b"of a Mac")
    (root / "Thumbs.db").write_bytes(b"of Windows")
    assert digest.of_tree(root) == expected.hexdigest()
    (root / ".zarray").write_bytes(b"how numbers are stored")
    assert digest.of_tree(root) != expected.hexdigest()
    (root / ".zarray").unlink()
    of_a = hashlib.blake2b(md5["a"].encode(), digest_size=8).hexdigest()
    assert digest.of_file(root / "a") == digest.of_tree(root / "a") == of_a
    assert digest.of_file(root / "not here", md5["a"]) == of_a
    with pytest.raises(WrongUse, match="there is no file"):
        digest.of_tree(root / "c")


def test_equal_folders_are_one_data_set_and_anything_that_differs_makes_two(
    shapes: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "archive" / "shapes"
    shutil.copytree(shapes, copy)
    first = _of(shapes)
    assert len(first) == 16
    assert _of(copy) == first
    (copy / "notes.txt").write_text("no image")
    assert _of(copy) == first
    train = copy / "train"
    for change in (
        lambda: _alter(train / "dark" / "00.png"),
        lambda: (train / "dark" / "01.png").rename(train / "light" / "99.png"),  # its label
        lambda: (train / "dark" / "02.png").rename(copy / "val" / "dark" / "99.png"),  # its split
        lambda: (train / "dark" / "03.png").rename(train / "dark" / "98.png"),  # what is drawn
        lambda: [(copy / split / "dark").rename(copy / split / "black") for split in SPLITS],
        lambda: (train / "light" / "00.png").unlink(),
    ):
        before = _of(copy)
        change()
        assert _of(copy) != before


def test_one_s_own_code_knows_a_folder_as_a_job_does_also_by_links(
    shapes: Path, tmp_path: Path
) -> None:
    assert digest.of_tree(shapes) == _of(shapes)
    elsewhere = tmp_path / "light"
    (shapes / "train" / "light").rename(elsewhere)
    (shapes / "train" / "light").symlink_to(elsewhere)
    before = digest.of_tree(shapes)
    assert before == _of(shapes)
    _alter(elsewhere / "00.png")
    assert digest.of_tree(shapes) == _of(shapes) != before
    (elsewhere / "round").symlink_to(shapes)  # a folder that it lies in
    assert digest.of_tree(shapes) == _of(shapes)
    itself = shapes / "itself"
    itself.symlink_to(itself)
    with pytest.raises(WrongUse, match="itself cannot be read"):
        digest.of_tree(shapes)
    itself.unlink()
    os.mkfifo(itself)
    with pytest.raises(WrongUse, match="itself is neither a file nor a folder"):
        digest.of_tree(shapes)


def test_a_folder_that_cannot_be_listed_is_an_error(
    shapes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def scandir(path: str) -> Any:
        if path.endswith("dark"):
            raise PermissionError(13, "Permission denied", path)
        return real(path)

    real = os.scandir
    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(WrongUse, match=r"dark cannot be read \(Permission denied\)"):
        digest.of_tree(shapes)


def test_it_does_not_depend_on_what_is_made_of_the_images(shapes: Path) -> None:
    """So that seeds of a model belong together, and fractions are told apart by name."""
    assert _of(shapes) == _of(shapes, image_size=64, seed=3, fraction=0.5, channels="rgb", size=28)


def test_files_are_read_once_and_again_when_they_were_touched(
    shapes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    real = digest._read

    def counted(root: Path, name: str) -> tuple[str, tuple[int, ...]]:
        read.append(name)
        return real(root, name)

    monkeypatch.setattr(digest, "_read", counted)
    first = _of(shapes)
    assert len(read) == 60
    read.clear()
    assert _of(shapes) == first
    assert len(read) == 60  # just written: a later change could have the same times
    monkeypatch.setattr(digest, "_SETTLED_NS", -(10**12))
    _of(shapes)
    read.clear()
    assert _of(shapes) == first
    assert read == []
    time.sleep(0.02)  # a tick of the file system's clock
    _alter(shapes / "val" / "light" / "03.png")
    assert _of(shapes) != first
    assert read == ["val/light/03.png"]


@pytest.mark.parametrize("place", [stat.ST_INO, stat.ST_DEV])
def test_another_file_with_the_times_and_the_size_of_one_that_was_read_is_read(
    shapes: Path, place: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a restored backup or another disk."""
    read: list[str] = []
    real_stat, real_read = os.stat, digest._read

    def other_stat(path: str, **how: bool) -> os.stat_result:
        found = real_stat(path, **how)
        if not str(path).endswith("03.png"):
            return found
        values = [value + (i == place) for i, value in enumerate(found[:10])]
        times = {"st_mtime_ns": found.st_mtime_ns, "st_ctime_ns": found.st_ctime_ns}
        return os.stat_result(values, times)

    def counted(root: Path, name: str) -> tuple[str, tuple[int, ...]]:
        read.append(Path(name).name)
        return real_read(root, name)

    monkeypatch.setattr(digest, "_SETTLED_NS", -(10**12))
    first = _of(shapes)
    monkeypatch.setattr(digest, "_read", counted)
    monkeypatch.setattr(os, "stat", other_stat)
    assert _of(shapes) == first
    assert set(read) == {"03.png"}


def test_a_cache_that_cannot_be_read_or_written_is_done_without(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digest, "_SETTLED_NS", -(10**12))
    first = _of(shapes)
    (cached,) = (tmp_path / "kept").glob("*.digests")
    known = json.loads(cached.read_text())
    cut_off = {name: [md5[:9], *stamp] for name, (md5, *stamp) in known.items()}
    one = '{"val/light/03.png": %s}'
    nonsense = ("", "[]", one % "[1]", one % '"x"', "[" * 100_000, json.dumps(cut_off))
    for text in nonsense:
        cached.write_text(text)
        assert _of(shapes) == first
    monkeypatch.setenv("PEPR_CACHE", str(cached / "no folder"))
    assert _of(shapes) == first


def test_a_file_that_is_gone_or_may_not_be_read_is_named(shapes: Path) -> None:
    (shapes / "train" / "dark" / "00.png").unlink()
    (shapes / "train" / "dark" / "00.png").symlink_to("/nowhere")
    with pytest.raises(WrongUse, match=r"train/dark/00\.png cannot be read \(No such file"):
        _of(shapes)


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


def test_a_published_file_is_known_before_it_is_here(
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


def test_jobs_of_a_sweep_look_at_the_same_files_once(
    shapes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[RunSpec] = []
    real = data.identify

    def counted(spec: RunSpec) -> Job:
        looked.append(spec)
        return real(spec)

    monkeypatch.setattr(data, "identify", counted)
    specs = [RunSpec(model=m, dataset=str(shapes), seed=s) for m in ("a", "b") for s in range(3)]
    jobs = data.identify_all(specs)
    assert [job.values() for job in jobs] == [spec.values() for spec in specs]
    assert len(looked) == 1
