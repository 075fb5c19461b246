"""The 131 models of the paper and their categories."""

from __future__ import annotations

import csv
import fnmatch
from dataclasses import dataclass
from importlib import resources
from statistics import median
from typing import Literal


@dataclass(frozen=True)
class PaperModel:
    """One row of the paper's Table A.1: `parameters` with the 1,000-class head of ImageNet."""

    model: str
    parameters: int
    kind: Literal["CNN", "Other"]
    efficient: bool
    size: Literal["small", "large"]
    link: str


def paper_models() -> list[PaperModel]:
    """The 131 models of Selvan et al., Table A.1, from the smallest to the largest.

    A model is small up to and with the median number of parameters, 24,671,464.
    """
    with resources.files("pepr_mlops").joinpath("models.csv").open() as file:
        rows = list(csv.DictReader(file))
    middle = median(int(row["parameters"]) for row in rows)
    return [
        PaperModel(
            model=row["model"],
            parameters=int(row["parameters"]),
            kind="CNN" if row["kind"] == "CNN" else "Other",
            efficient=row["efficient"] == "1",
            size="small" if int(row["parameters"]) <= middle else "large",
            link=row["link"],
        )
        for row in rows
    ]


def select(
    *,
    name: str = "*",
    kind: str | None = None,
    efficient: bool | None = None,
    size: str | None = None,
) -> list[PaperModel]:
    """The paper's models whose name matches the glob `name` and that fit every given category."""
    return [
        m
        for m in paper_models()
        if fnmatch.fnmatchcase(m.model, name)
        and kind in (None, m.kind)
        and efficient in (None, m.efficient)
        and size in (None, m.size)
    ]
