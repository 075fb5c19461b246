"""The image files below a folder, and what else lies there."""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from pepr_mlops.data.digest import is_litter
from pepr_mlops.data.own.kinds import kind_of
from pepr_mlops.errors import WrongUse
from pepr_mlops.text import few

_SYSTEM = {"thumbs.db", "desktop.ini", "dicomdir"}  # in any case; a DICOMDIR has no image

_Places = tuple[tuple[int, int], ...]  # device and number of folders, which links do not change


@dataclass
class Found:
    """The names of `images` and `folders` are relative to the root, with slashes and sorted by
    folder. `hidden` counts hidden files and folders and those of systems, `others` the files that
    are no images by their suffix."""

    images: list[str] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    hidden: int = 0
    others: Counter[str] = field(default_factory=Counter)

    @property
    def notes(self) -> tuple[str, ...]:
        """A sentence on what was passed over, if anything was."""
        counts = {"hidden or system files": self.hidden, "other files": self.others.total()}
        found = ", ".join(f"{what}: {n:,}" for what, n in counts.items() if n)
        return (f"passed over: {found}",) if found else ()

    @property
    def details(self) -> tuple[str, ...]:
        """A line on the kinds of other files: even what looks like a suffix may name a person."""
        kinds = [f"{suffix or 'none'} {n:,}" for suffix, n in self.others.most_common()]
        return (f"suffixes of other files: {few(kinds)}",) if kinds else ()


def find(root: Path, without: Collection[str] = (), *, strict: bool = True) -> Found:
    """The images below `root` and in linked folders, in any depth; the files `without` by name
    count as nothing.

    A link to a folder that contains it is not followed. Raises `WrongUse` for a folder that cannot
    be listed and for an image that cannot be read; unless `strict`, that is among the images.
    """
    found = Found()
    rest: list[tuple[str, _Places]] = [("", ())]
    while rest:  # folders may be nested deeper than Python may call
        folder, above = rest.pop()
        rest += _add(found, root, folder, above, without, strict)
    found.images.sort(key=lambda name: name.split("/"))
    found.folders.sort(key=lambda name: name.split("/"))
    return found


def passed_over(name: str) -> bool:
    """Whether files and folders of this name are neither images nor classes."""
    return name.startswith(".") or is_litter(name) or name.lower() in _SYSTEM


def _add(
    found: Found, root: Path, folder: str, above: _Places, without: Collection[str], strict: bool
) -> list[tuple[str, _Places]]:
    """Add what lies in a folder, and return the folders in it, with the places above them."""
    place = os.path.join(root, folder)
    try:
        at = os.stat(place)
        if (at.st_dev, at.st_ino) in above:
            return []
        with os.scandir(place) as listed:
            entries = list(listed)
    except OSError as error:
        raise _unreadable(root, folder, error.strerror) from error
    if folder:
        found.folders.append(folder)
    inner_folders = []
    for entry in entries:
        inner = f"{folder}/{entry.name}" if folder else entry.name
        if inner in without:
            continue
        if passed_over(entry.name):
            found.hidden += 1
            continue
        try:
            is_folder, is_image = entry.is_dir(), _is_image(entry)
        except OSError as error:
            if strict:
                raise _unreadable(root, inner, error.strerror) from error
            is_folder, is_image = False, True
        if is_folder:
            inner_folders.append((inner, (*above, (at.st_dev, at.st_ino))))
        elif is_image:
            found.images.append(inner)
        else:
            found.others[os.path.splitext(entry.name)[1].lower()] += 1
    return inner_folders


def _is_image(entry: os.DirEntry[str]) -> bool:
    """Raises `OSError` for an image that cannot be read, and for a link that leads nowhere."""
    if not entry.is_file():  # a pipe would block its reader
        entry.stat()
        return False
    image = kind_of(Path(entry.path)) is not None
    if image and not os.access(entry.path, os.R_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    return image


def _unreadable(root: Path, name: str, why: str | None) -> WrongUse:
    remedy = "make it readable or remove it"
    return WrongUse(
        f"dataset: {root / name} cannot be read ({why}); {remedy}",
        logged=f"dataset: a file or folder of {root} cannot be read ({why}); {remedy}",
        reason="missing_data",
    )
