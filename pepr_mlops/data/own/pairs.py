"""Which row of a table is of which file."""

from __future__ import annotations

import os
import posixpath
import re
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from pepr_mlops.errors import WrongUse
from pepr_mlops.text import few

_EXAMPLES = 3  # that a message names
_REMEDY = "correct the table, or leave these out with --missing skip"
_DRIVE = re.compile("[A-Za-z]:")
_SUFFIX = re.compile(r"(\.nii)?\.(?!\d+$)[^./]+$", re.IGNORECASE)  # as `kinds` has it


@dataclass(frozen=True)
class Paired:
    """The rows with an image, each once, in the order of their `files`. `left_out` names the rows
    and files that do not match, by what is wrong with them."""

    rows: pd.DataFrame
    files: list[str]
    left_out: dict[str, list[str]]
    notes: tuple[str, ...]
    details: tuple[str, ...]


def paired(
    rows: pd.DataFrame,
    cells: pd.Series,
    files: Sequence[str],
    root: Path,
    missing: str,
    source: str,
) -> Paired:
    """The rows of a table with the `files` below `root` that the `cells` of the same rows name.

    `rows` are the columns that are in use. With `missing` "skip", rows without a file, files
    without a row and images whose rows contradict each other are left out, and equal rows of one
    image count once. Raises `WrongUse` for them otherwise, and always for a cell that leads outside
    of `root` or fits several files.
    """
    if not files:
        raise WrongUse(
            f"dataset: there is no image below {root}; name the folder of the files of {source} "
            "with --images",
            reason="missing_data",
        )
    named = _files_of(cells, files, root, source)
    absent = named == ""
    # By position, since any name may be that of a column.
    content = pd.concat([named, rows], axis=1, ignore_index=True)[~absent]
    repeated = content.duplicated()
    once = content[~repeated]
    contrary = once[0].duplicated(keep=False)
    faults = {
        "rows without a file": [f"row {row}: {cells[row]}" for row in named.index[absent]],
        "files without a row": sorted(set(files) - set(named)),
        "repeated rows": [f"row {row}: {named[row]}" for row in content.index[repeated]],
        "images with rows that differ": list(once[0][contrary].unique()),
    }
    found = {what: examples for what, examples in faults.items() if examples}
    counts = ", ".join(f"{what}: {len(examples):,}" for what, examples in found.items())
    details = tuple(
        f"{what}: {len(examples):,} ({few(examples, _EXAMPLES)})"
        for what, examples in found.items()
    )
    if found and missing != "skip":
        start = f"dataset: {source} and the files in {root} do not match; "
        remedy = _REMEDY
        if absent.all():
            remedy = (
                _near(cells, files) or f"name the folder of the files of {source} with --images"
            )
        raise WrongUse(
            f"{start}{', '.join(details)}; {remedy}", logged=f"{start}{counts}; {remedy}"
        )
    usable = once[0][~contrary].sort_values()
    if usable.empty:
        raise WrongUse(
            f"dataset: no row of {source} is of an image below {root}; name the folder of the "
            "files with --images"
        )
    notes = (f"left out: {counts}",) if found else ()
    return Paired(rows.loc[usable.index], usable.tolist(), found, notes, details)


def _near(cells: pd.Series, files: Sequence[str]) -> str | None:
    """What to correct where no cell names a file, but their names are like those of files."""
    names, own = ({posixpath.basename(plain_path(one)) for one in some} for some in (files, cells))
    if own & names:
        return (
            "files of the same names are in other folders: correct the folders in the table, or "
            "leave them out"
        )
    plain, own = ({name.casefold() for name in some} for some in (names, own))
    if own & plain:
        return "files of the same names have capital letters elsewhere: write both alike"
    if {_SUFFIX.sub("", name) for name in own} & {_SUFFIX.sub("", name) for name in plain}:
        return "files of the same names have another suffix: write both alike, or leave it out"
    return None


def _files_of(cells: pd.Series, files: Sequence[str], root: Path, source: str) -> pd.Series:
    """The file that each cell names, or an empty text."""
    codes, texts = pd.factorize(cells)
    above = plain_path(os.path.abspath(root))
    paths = [_below(plain_path(text), above) for text in texts]
    outside = [text for text, path in zip(texts, paths, strict=True) if path is None]
    if outside:
        remedy = "write the paths of files as they are below it, or name another with --images"
        raise WrongUse(
            f"dataset: {len(outside):,} files of {source} are outside of {root} "
            f"({few(outside, _EXAMPLES)}); {remedy}",
            logged=f"dataset: {len(outside):,} files of {source} are outside of {root}; {remedy}",
        )
    index = _Index(files)
    hits = [index.hits(path) if path else [] for path in paths]
    several = [
        f"{text}: {few(found, _EXAMPLES)}"
        for text, found in zip(texts, hits, strict=True)
        if len(found) > 1
    ]
    if several:
        remedy = "write the path and the suffix of the file"
        raise WrongUse(
            f"dataset: {len(several):,} cells of {source} fit several files "
            f"({'; '.join(several[:_EXAMPLES])}); {remedy}",
            logged=f"dataset: {len(several):,} cells of {source} fit several files; {remedy}",
        )
    names = pd.Series([found[0] if found else "" for found in hits], dtype=object)
    return pd.Series(names.to_numpy()[codes], index=cells.index, dtype=object)


def plain_path(path: str) -> str:
    """A path with slashes and composed characters, as macOS does not store them."""
    return unicodedata.normalize("NFC", path.replace("\\", "/"))


def _below(path: str, above: str) -> str | None:
    """A path relative to the folder `above`, empty for that itself, None outside of it."""
    if not path:
        return ""
    if _DRIVE.match(path):
        return None
    inner = posixpath.relpath(posixpath.join(above, path), above)
    if inner == ".." or inner.startswith("../"):
        return None
    return "" if inner == "." else inner


class _Index:
    """Files by the ends of their paths, with and without their suffix."""

    def __init__(self, files: Sequence[str]) -> None:
        self._files = files
        self._by_end: dict[int, tuple[dict[str, list[str]], dict[str, list[str]]]] = {}

    def hits(self, path: str) -> list[str]:
        """The file of this path or, without one, all whose path ends so.

        A name with its suffix comes before one without.
        """
        slashes = path.count("/")
        if slashes not in self._by_end:
            self._by_end[slashes] = self._ends(slashes)
        for files in self._by_end[slashes]:
            if found := files.get(path):
                return [file for file in found if file.count("/") == slashes] or found
        return []

    def _ends(self, slashes: int) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
        named, bare = defaultdict(list), defaultdict(list)
        for file in self._files:
            end = "/".join(plain_path(file).split("/")[-slashes - 1 :])
            named[end].append(file)
            bare[_SUFFIX.sub("", end)].append(file)
        return named, bare
