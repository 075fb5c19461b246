"""The files of a trained model: which they are, that they are the right ones, and their download.

They are `model.json`, the description, and the weights that it names, with their digests.
"""

from __future__ import annotations

import errno
import json
import os
import posixpath
import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import Literal, get_args

from pepr_mlops.errors import WorkFailed, WrongUse
from pepr_mlops.files import digest_of

FILE = "model.json"
Which = Literal["last", "best"]
WHICH: tuple[Which, ...] = get_args(Which)  # weights that may be kept, in the order of preference
# What an error of this disk says; errors of connections have other numbers or none.
_OF_DISK = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS),
    *(errno.EEXIST, errno.ENOENT, errno.ENOTDIR, errno.EISDIR),
}


def chosen(which: str | None, there: Collection[str]) -> str:
    """The weights `which`, by default the first by preference that are there. Raises `WrongUse` for
    a name that no weights have."""
    if which is not None and which not in WHICH:
        raise WrongUse(f"which: {which!r} is not one of {', '.join(WHICH)}")
    return which or next((name for name in WHICH if name in there), WHICH[0])


def check(path: Path, digest: str | None, source: str, remedy: str) -> None:
    """Raise `WrongUse` where a file is missing or not the one with this digest. `source` says in
    the message where it should be from, and `remedy` what to do."""
    try:
        found = digest_of(path)
    except OSError as error:
        raise WrongUse(f"weights: {path} cannot be read ({error.strerror}); {remedy}") from error
    if found != digest:
        raise WrongUse(_changed(path, source, remedy))


def download(
    uri: str, place: str, folder: Path, digest: str, which: str | None, source: str, remedy: str
) -> None:
    """Download the description with this digest and the weights `which`, all if None, from the
    artifacts at `place` into a folder, where they are not there or damaged. A file appears in it
    complete or not at all.

    Raises `WrongUse` as `check`, and `WorkFailed` where the folder cannot be written.
    """
    from mlflow.artifacts import download_artifacts, list_artifacts

    def get(file: str, digest: str) -> Path:
        path = folder / file
        if path.is_file() and digest_of(path) == digest:
            return path
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as part:
            listed = list_artifacts(artifact_uri=place, tracking_uri=uri)
            if file not in {posixpath.basename(one.path) for one in listed}:
                raise WrongUse(f"weights: the server's store has no {file} {source}; {remedy}")
            found = Path(
                download_artifacts(artifact_uri=f"{place}/{file}", dst_path=part, tracking_uri=uri)
            )
            if digest_of(found) != digest:
                raise WrongUse(_changed(Path(file), source, remedy))
            os.replace(found, path)
        return path

    try:
        weights = json.loads(get(FILE, digest).read_text())["weights"]
        for name in weights if which is None else [which]:
            get(Path(weights[name]["file"]).name, weights[name]["digest"])
    except OSError as error:
        if error.errno not in _OF_DISK:
            raise
        raise WorkFailed(
            f"weights: {folder} cannot be written ({error.strerror}); free space there, or set "
            "PEPR_MODELS to another folder"
        ) from error


def _changed(path: Path, source: str, remedy: str) -> str:
    return f"weights: {path} is not the file {source}; it was changed or damaged: {remedy}"
