"""A data set is identified by the content of its files."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import time
from pathlib import Path
from typing import Any

import pytest

from pepr_mlops import data
from pepr_mlops.data import digest
from pepr_mlops.data.splits import SPLITS
from pepr_mlops.errors import WrongUse
from pepr_mlops.spec import RunSpec


def _of(root: Path, **fields: object) -> str:
    return data.identify(RunSpec(dataset=str(root), **fields)).data_digest  # type: ignore[arg-type]


def _alter(path: Path) -> None:
    """Another image in a file of the same name, size and time of change."""
    before = path.stat()
    content = bytearray(path.read_bytes())
    content[-20] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_the_digest_is_of_names_and_contents(tmp_path: Path) -> None:
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


def test_a_folder_with_links_has_one_digest_for_own_code_and_for_jobs(
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


def test_the_digest_does_not_depend_on_how_images_are_drawn_and_resized(shapes: Path) -> None:
    """So that seeds of a model belong together, and fractions are distinguished by name."""
    assert _of(shapes) == _of(shapes, image_size=64, seed=3, fraction=0.5, channels="rgb", size=28)


def test_files_are_read_once_and_again_after_a_change(
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
def test_another_file_of_the_same_times_and_size_is_read(
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


def test_an_unusable_cache_is_ignored(
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


def test_an_unreadable_file_is_named(shapes: Path) -> None:
    (shapes / "train" / "dark" / "00.png").unlink()
    (shapes / "train" / "dark" / "00.png").symlink_to("/nowhere")
    with pytest.raises(WrongUse, match=r"train/dark/00\.png cannot be read \(No such file"):
        _of(shapes)
