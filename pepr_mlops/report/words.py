"""What data sets are called in sentences. Pure."""

from __future__ import annotations

from pathlib import PurePath

from pepr_mlops.comparison.conditions import NOT_KNOWN
from pepr_mlops.data.medmnist import FLAG_OF

# As their authors spell them, without the end that all share.
_MEDMNIST = {"organa": "OrganA", "organc": "OrganC", "organs": "OrganS", "oct": "OCT"}


def data_words(name: str) -> str | None:
    """A data set as its authors spell it, or the last part of a path; None for none or several."""
    if name in (NOT_KNOWN, "several", "none"):
        return None
    flag = FLAG_OF.get(name)
    if flag is not None:
        own = flag.removesuffix("mnist")
        return f"{_MEDMNIST.get(own, own.capitalize())}MNIST"
    return PurePath(name).name
