"""What identifies a data set of one's own, and names that say nothing of its patients."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from pepr_mlops.data import digest
from pepr_mlops.data.own.listing import Listing, Texts

_DIGITS = 16  # hexadecimal, of a name


@dataclass(frozen=True)
class Names:
    """Names for files and patients that are the same on every machine, and that nobody can turn
    back who does not have the images: their salt is a digest of the content of all files, which is
    not logged."""

    salt: bytes

    @classmethod
    def of_files(cls, listing: Listing) -> Names:
        """The names for what is in the files of a listing."""
        md5 = digest.md5_of(listing.root, listing.files.tolist())
        state = hashlib.blake2b(person=b"pepr names")
        for name in sorted(md5):
            state.update(f"{md5[name]} {name}\n".encode("utf-8", "surrogateescape"))
        return cls(state.digest())

    def of(self, texts: Iterable[str]) -> Texts:
        """A name of 16 hexadecimal digits for each text, and none for an empty one."""
        return np.array([self._name(text) if text else "" for text in texts], dtype=np.str_)

    def _name(self, text: str) -> str:
        found = hashlib.blake2b(
            text.encode("utf-8", "surrogateescape"), key=self.salt, digest_size=_DIGITS // 2
        )
        return found.hexdigest()


def identify(listing: Listing, reading: str) -> str:
    """16 hexadecimal digits that change with the files, labels, splits and patients of a data set
    and with `reading`, the settings by which files become images, empty for the usual ones.

    Files are read once and their digests cached. A folder of which no more is known than its paths
    has the digest of its files alone.
    """
    files = digest.of_files(listing.root, listing.files.tolist())
    known = [*([] if listing.patients is None else [listing.patients]), *listing.groups.values()]
    if not (listing.by_table or reading or known):
        return files
    state = hashlib.blake2b(digest_size=_DIGITS // 2)
    state.update(f"{files} {reading} {listing.classes} {list(listing.groups)}".encode())
    order = np.argsort(listing.files)
    for column in (listing.files, listing.splits, *known):
        state.update("\n".join(column[order].tolist()).encode("utf-8", "surrogateescape"))
        state.update(b"\0")
    state.update(np.ascontiguousarray(listing.labels[order]).data)
    return state.hexdigest()
