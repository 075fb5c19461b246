"""Files: settings in TOML and JSON, folders for caches and state, bytes read and written."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import threading
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pepr_mlops.errors import WrongUse

TABLES = (".csv", ".tsv", ".txt", ".parquet")  # the suffixes of tables of images
_LEAST, _MOST = -(2**63), 2**63 - 1  # what TOML calls an integer
# The folders that these variables stand for if they are unset.
_XDG = {"XDG_CACHE_HOME": "~/.cache", "XDG_STATE_HOME": "~/.local/state"}
BINARY = getattr(os, "O_BINARY", 0)  # for `os.open`: Windows changes the ends of lines otherwise
_seeking = threading.Lock()


def read_toml(path: Path, key: str) -> dict[str, Any]:
    """The content of a TOML file. Raises `OSError` where it cannot be read and `WrongUse`, which
    begins with `key`, where it is none."""
    content = _parsed(path, key, "TOML", tomllib.loads)
    if _beyond(content):
        raise WrongUse(f"{key}: {path} is not TOML (a whole number of more than 64 bits)")
    return content  # type: ignore[no-any-return]


def read_json(path: Path, key: str) -> Any:
    """The content of a JSON file. Raises as `read_toml`."""
    return _parsed(path, key, "JSON", json.loads)


def user_folder(variable: str, xdg: str, name: str) -> Path:
    """The folder that `variable` names, or else the package's folder `name` below `xdg`, which is
    XDG_CACHE_HOME or XDG_STATE_HOME. Raises `RuntimeError` for a user without a home."""
    given = os.environ.get(variable)
    if given:
        return Path(given)
    return Path(os.environ.get(xdg) or _XDG[xdg]).expanduser() / "pepr_mlops" / name


def dataset_name(path: str) -> str:
    """The name of a data set: of a folder or a table its own, wherever it is."""
    name = os.path.basename(os.path.abspath(path))
    stem, suffix = os.path.splitext(name)
    return stem if suffix.lower() in TABLES else name


def cache_folder() -> Path:
    """Where answers and digests are cached: PEPR_CACHE, or a folder of the user's cache."""
    try:
        return user_folder("PEPR_CACHE", "XDG_CACHE_HOME", "answers")
    except RuntimeError:
        return Path(os.devnull)  # a user without a home, for whom nothing can be cached


def images_folder() -> Path:
    """Where prepared images are: PEPR_IMAGES, or a folder of the user's cache. Raises `WrongUse`
    for a user without a home."""
    try:
        return user_folder("PEPR_IMAGES", "XDG_CACHE_HOME", "images")
    except RuntimeError as error:
        raise WrongUse(
            "dataset: there is no home to store prepared images in; set PEPR_IMAGES to a folder"
        ) from error


def models_folder() -> Path:
    """Where downloaded models are: PEPR_MODELS, or a folder of the user's cache. Raises `WrongUse`
    for a user without a home."""
    try:
        return user_folder("PEPR_MODELS", "XDG_CACHE_HOME", "models")
    except RuntimeError as error:
        raise WrongUse(
            "weights: there is no home to download models to; set PEPR_MODELS to a folder"
        ) from error


def digest_of(path: Path) -> str:
    """The digest of a file: BLAKE2b, 32 hexadecimal digits. Raises `OSError`."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def read_at(file: int, into: memoryview, offset: int) -> int:
    """Read bytes of an open file from `offset` on, and return how many; any thread may."""
    if hasattr(os, "preadv"):
        return os.preadv(file, [into], offset)
    with _seeking:  # Windows
        os.lseek(file, offset, os.SEEK_SET)
        read = os.read(file, len(into))
    into[: len(read)] = read
    return len(read)


def write_at(file: int, content: bytes, offset: int) -> None:
    """Write bytes of an open file from `offset` on; any thread may."""
    if hasattr(os, "pwrite"):
        os.pwrite(file, content, offset)
        return
    with _seeking:  # Windows
        os.lseek(file, offset, os.SEEK_SET)
        os.write(file, content)


def write_private(path: Path, content: bytes) -> None:
    """Write a file for its user alone, completely or not at all. Raises `OSError`."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, part = tempfile.mkstemp(f"{path.suffix}.part", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.replace(part, path)
    except BaseException:
        os.unlink(part)
        raise


def _parsed(path: Path, key: str, kind: str, parse: Callable[[str], Any]) -> Any:
    try:
        return parse(path.read_text(encoding="utf-8"))
    except RecursionError:
        raise WrongUse(f"{key}: {path} is not {kind} that can be read (nested too deep)") from None
    except ValueError as error:
        raise WrongUse(f"{key}: {path} is not {kind} ({error})") from error


def _beyond(value: Any) -> bool:
    """Whether it holds an integer that no tool but Python would take."""
    if isinstance(value, dict):
        return any(map(_beyond, value.values()))
    if isinstance(value, list):
        return any(map(_beyond, value))
    return isinstance(value, int) and not _LEAST <= value <= _MOST
