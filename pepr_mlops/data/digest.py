"""The digest that identifies a data set: of its files as they are stored, whatever it is called.

Every file is read once. Its digest is cached and reused as long as the file was not touched:
device, inode, size and the times of the last change of its contents and of its entry (mtime,
ctime) are the same. A copy has the same name, size and often mtime, but another inode or ctime.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from pepr_mlops.errors import WrongUse
from pepr_mlops.files import cache_folder, write_private

_SETTLED_NS = 2_000_000_000  # the coarsest clock of a file system: later writes have another time
_LITTER = {
    *(".DS_Store", ".git", ".ipynb_checkpoints", "__MACOSX", "@eaDir"),
    *("Thumbs.db", "desktop.ini"),
}
_DIGITS = 16  # hexadecimal: two data sets in 10^9 share one with a chance of 3%
_MD5_DIGITS = 32

_Stamp = tuple[int, ...]


def is_litter(name: str) -> bool:
    """Whether systems and editors leave files or folders of this name behind."""
    return name in _LITTER or name.startswith("._")


def of_file(path: Path, published_md5: str | None = None) -> str:
    """16 hexadecimal digits that change with the content of a file, whatever it is called.

    They are made from its MD5. With `published_md5`, which MedMNIST has for its files, the file is
    not read and need not exist. Raises `WrongUse` for a file that cannot be read.
    """
    md5 = published_md5 or md5_of(path.parent, [path.name])[path.name]
    return hashlib.blake2b(md5.encode(), digest_size=_DIGITS // 2).hexdigest()


def of_files(root: Path, names: Sequence[str]) -> str:
    """16 hexadecimal digits that change with the name and the content of each file.

    `names` are relative to `root`. Reading files for the first time shows progress on a terminal.
    Raises as `of_file`.
    """
    md5 = md5_of(root, names)
    state = hashlib.blake2b(digest_size=_DIGITS // 2)
    for name in sorted(names):
        state.update(f"{md5[name]} {name}\n".encode("utf-8", "surrogateescape"))
    return state.hexdigest()


def of_tree(path: Path) -> str:
    """`of_file` for a file; for a folder `of_files` with all files below it and in linked folders.

    Litter of systems and editors does not count. Raises as they do, and where there is no file.
    """
    if path.is_file():
        return of_file(path)
    names = list(_below(path, "", ()))
    if not names:
        raise WrongUse(f"data: there is no file in {path}; name the data set's file or folder")
    return of_files(path, names)


def _below(root: Path, folder: str, above: tuple[str, ...]) -> Iterator[str]:
    """The files below a folder of `root`. A link to a folder that contains it is not followed."""
    place = os.path.join(root, folder)
    real = os.path.realpath(place)
    if real in above or not (folder or os.path.isdir(place)):
        return
    try:
        found = [e.name for e in os.scandir(place)]
    except OSError as error:
        raise _unreadable(root, folder, error) from error
    for name in found:
        if is_litter(name):
            continue
        inner = os.path.join(folder, name)
        mode = _stat(root, inner).st_mode
        if stat.S_ISDIR(mode):
            yield from _below(root, inner, (*above, real))
        elif stat.S_ISREG(mode):
            yield inner
        else:
            raise WrongUse(f"data: {root / inner} is neither a file nor a folder; remove it")


def md5_of(root: Path, names: Sequence[str]) -> dict[str, str]:
    """The MD5 of files by name, read or cached.

    The cache is a file for each folder, of this user alone. It is optional: nothing fails where it
    cannot be read or written.
    """
    folder = hashlib.blake2b(os.fsencode(os.path.realpath(root)), digest_size=8).hexdigest()
    cache = cache_folder() / f"{folder}.digests"
    cached = _cached(cache)
    found: dict[str, str] = {}
    unread: list[str] = []
    for name in names:
        stamp = _stamp(root, name)
        match cached.get(name):
            case [str(md5), *then] if tuple(then) == stamp and len(md5) == _MD5_DIGITS:
                found[name] = md5
            case _:
                unread.append(name)
    if unread:
        from tqdm import tqdm

        begun_ns = time.time_ns()
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            reading = pool.map(lambda name: _read(root, name), unread)
            shown = tqdm(
                reading, "reading data", len(unread), unit="file", leave=False, disable=None
            )
            for name, (md5, stamp) in zip(unread, shown, strict=True):
                found[name] = md5
                if begun_ns - max(stamp[-2:]) > _SETTLED_NS:
                    cached[name] = [md5, *stamp]
        with suppress(OSError):
            write_private(cache, json.dumps(cached).encode())
    return found


def _cached(path: Path) -> dict[str, list[object]]:
    """MD5 and stamp by the name of the file."""
    with suppress(OSError, ValueError, RecursionError):
        content = json.loads(path.read_text())
        return content if isinstance(content, dict) else {}
    return {}


def _read(root: Path, name: str) -> tuple[str, _Stamp]:
    """The MD5 of a file, and its stamp from before it was read."""
    stamp = _stamp(root, name)
    try:
        with open(root / name, "rb") as file:
            md5 = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False))
    except OSError as error:
        raise _unreadable(root, name, error) from error
    return md5.hexdigest(), stamp


def _stat(root: Path, name: str) -> os.stat_result:
    try:
        return os.stat(os.path.join(root, name))
    except OSError as error:
        raise _unreadable(root, name, error) from error


def _stamp(root: Path, name: str) -> _Stamp:
    s = _stat(root, name)
    return s.st_dev, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns


def _unreadable(root: Path, name: str, error: OSError) -> WrongUse:
    why = f"cannot be read ({error.strerror}); make it readable or remove it"
    return WrongUse(
        f"dataset: {root / name} {why}", reason="missing_data", logged=f"dataset: a file {why}"
    )
