"""The data that a run logged as MLflow's inputs. Pure."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass


@dataclass(frozen=True)
class Input:
    """A data set that a run has logged as MLflow's input: its digest, where it was, and the number
    of its images, None where that was not logged."""

    digest: str
    place: str | None
    images: int | None = None

    @classmethod
    def of(cls, digest: str, source: str, profile: str | None) -> Input:
        """From the texts of MLflow's table of data sets."""
        return cls(digest, _place(source), _images(profile))


def _place(source: str) -> str | None:
    with suppress(ValueError):
        match json.loads(source):
            case {"uri": str(place)}:
                return place
    return None


def _images(profile: str | None) -> int | None:
    with suppress(ValueError):
        match json.loads(profile or ""):
            case {"images": int(images)}:
                return images
    return None
