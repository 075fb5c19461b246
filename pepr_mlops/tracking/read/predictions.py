"""Reads what runs logged as `predictions.npz`, in place where it is on this disk, else downloaded.

The predictions of a finished run do not change, so that a download is cached on disk, readable by
its user alone, and what was read once is not parsed again by this process.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import posixpath
import tempfile
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname
from weakref import WeakValueDictionary

from numpy.lib.npyio import NpzFile

from pepr_mlops.comparison.predictions import Array, Predictions, from_arrays
from pepr_mlops.errors import one_line
from pepr_mlops.files import cache_folder
from pepr_mlops.text import address
from pepr_mlops.tracking.read import cache
from pepr_mlops.tracking.server import enduring, translated_errors

FILE, _CACHED = "predictions.npz", ".predictions"
_MOST = 2000  # runs of which this process and the disk cache predictions; the newest stay
_AT_ONCE = 8  # downloads
_SLOW_S = 1.0  # reading that takes longer shows a bar
_log = logging.getLogger(__name__)

Answer = Predictions | str
Answers = Generator[tuple[str, Answer | None], None, None]  # None where there is no file
Places = Callable[[Sequence[str]], Mapping[str, str]]

_read: dict[tuple[str, str], Predictions] = {}  # by address of the server and run
_arrays: WeakValueDictionary[object, Array] = WeakValueDictionary()


def load(uri: str, run_ids: Sequence[str], places: Places) -> dict[str, Answer]:
    """By run the predictions, or as a clause why its file has none; nothing where there is no file.

    `places` returns where the artifacts of runs are. It is called for those that are not cached.
    Raises `WorkFailed` where the server at `uri` does not answer.
    """
    found: dict[str, Answer] = {i: _read[uri, i] for i in run_ids if (uri, i) in _read}
    unread = [run_id for run_id in run_ids if run_id not in found]
    if not unread:
        return found
    from tqdm import tqdm

    with closing(_answers(uri, unread, places)) as answers:
        for run_id, answer in tqdm(
            answers, "reading predictions", len(unread),
            unit="run", leave=False, disable=None, delay=_SLOW_S,
        ):  # fmt: skip
            if answer is not None:
                found[run_id] = answer
            if isinstance(answer, Predictions):  # what is missing or damaged may still come
                _read[uri, run_id] = answer
    while len(_read) > _MOST:
        _read.pop(next(iter(_read)), None)
    return found


def _answers(uri: str, run_ids: Sequence[str], places: Places) -> Answers:
    rest = []
    for run_id in run_ids:
        content = cache.recall(_cached(uri, run_id), run_id)
        if content is None:
            rest.append(run_id)
        else:
            yield run_id, _parsed(content)
    remote = {}
    for run_id, place in places(rest).items() if rest else ():
        folder = folder_of(place)
        if folder is None:
            remote[run_id] = place
        else:
            yield run_id, _of_file(folder / FILE)
    if remote:
        yield from _downloads(uri, remote)


def _of_file(path: Path) -> Answer | None:
    try:
        return _parsed(path.read_bytes())
    except OSError:  # there is none, or it is not for this user
        return None


def _cached(uri: str, run_id: str) -> Path:
    key = json.dumps([address(uri), run_id]).encode()
    return cache_folder() / f"{hashlib.blake2b(key, digest_size=16).hexdigest()}{_CACHED}"


def folder_of(place: str) -> Path | None:
    """The folder of artifacts that are on this disk."""
    scheme = urlsplit(place).scheme
    if scheme not in ("", "file"):
        return None
    return Path(url2pathname(urlsplit(place).path if scheme else place))


def _downloads(uri: str, places: Mapping[str, str]) -> Answers:
    """What is in the server's own store of artifacts and, as far as this machine can read them, in
    others: scores do not need predictions."""
    own = {i: p for i, p in places.items() if _is_own(uri, p)}
    with enduring(), translated_errors(uri):
        yield from _downloaded(uri, own)
        try:
            yield from _downloaded(uri, {i: p for i, p in places.items() if i not in own})
        except Exception as error:  # each driver has errors of its own
            _log.warning(
                "the predictions of some runs are not read: their store of artifacts does not "
                "answer, or its driver is not installed (%s)",
                one_line(error),
            )
    with suppress(OSError):
        cache.delete_oldest(cache_folder(), _CACHED, _MOST)


def _is_own(uri: str, place: str) -> bool:
    return uri.startswith("http") and place.startswith(("mlflow-artifacts:", "http"))


def _downloaded(uri: str, places: Mapping[str, str]) -> Answers:
    """Download several files at once, and cache those with predictions."""
    pool = ThreadPoolExecutor(_AT_ONCE)
    try:
        contents = pool.map(partial(_download, uri), places.values())
        for run_id, content in zip(places, contents, strict=True):
            answer = None if content is None else _parsed(content)
            if content is not None and isinstance(answer, Predictions):
                with suppress(OSError):  # what cannot be cached is downloaded again
                    cache.store(_cached(uri, run_id), content, run_id)
            yield run_id, answer
    finally:
        pool.shutdown(cancel_futures=True)


def _download(uri: str, place: str) -> bytes | None:
    from mlflow.artifacts import download_artifacts, list_artifacts

    listed = list_artifacts(artifact_uri=place, tracking_uri=uri)
    if FILE not in {posixpath.basename(file.path) for file in listed}:
        return None
    with tempfile.TemporaryDirectory() as folder:
        path = download_artifacts(
            artifact_uri=f"{place.rstrip('/')}/{FILE}", dst_path=folder, tracking_uri=uri
        )
        return Path(path).read_bytes()


def _parsed(content: bytes) -> Answer:
    try:
        with NpzFile(io.BytesIO(content), allow_pickle=False) as arrays:
            return from_arrays({name: _shared(name, arrays[name]) for name in arrays.files})
    except Exception as error:  # a damaged archive raises errors of many kinds
        return f"its predictions cannot be read ({one_line(error)})"


def _shared(name: str, array: Array) -> Array:
    """An equal array that is in memory already, if there is one: the labels, files and patients of
    a test set would take more of it than the probabilities of a run."""
    if name.endswith("probabilities"):
        return array
    key = (array.dtype.str, array.shape, hashlib.blake2b(array.tobytes()).digest())
    array.flags.writeable = False
    return _arrays.setdefault(key, array)
