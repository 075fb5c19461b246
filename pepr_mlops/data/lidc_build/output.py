"""Writes the data set: labels, manifest and one `npz` in MedMNIST's format."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from pepr_mlops.data.lidc_build.nodules import RATERS, Outlined
from pepr_mlops.data.lidc_build.parts import Part
from pepr_mlops.data.lidc_build.patches import corner
from pepr_mlops.data.lidc_build.splits import Way, assign
from pepr_mlops.data.splits import SPLITS

Label = Literal["malignant", "marked"]
CLASSES: dict[Label, tuple[str, str]] = {
    "malignant": ("not malignant", "malignant"),
    "marked": ("marked by up to two", "marked by more than two"),
}
_SUSPICIOUS = 4  # ratings of malignancy from here on: moderately or highly suspicious
_MANY = 2  # more than so many of four radiologists have to vote yes, as in the PePR paper
_NO_VOTE = -1

Votes = npt.NDArray[np.int8]


def votes(outlined: Sequence[Outlined], label: Label) -> Votes:
    """The vote of each radiologist on each patch [n, 4]: 1 yes, 0 no, -1 none.

    `malignant`: whether they rated the nodule 4 or 5; those who did not mark it have no vote.
    `marked`: whether they outlined it in this slice; all four who read the scan vote.
    """
    found = np.full((len(outlined), RATERS), _NO_VOTE if label == "malignant" else 0, np.int8)
    for row, one in zip(found, outlined, strict=True):
        own = [r >= _SUSPICIOUS for r in one.ratings] if label == "malignant" else one.marked
        row[: len(own)] = own
    return found


def labels(votes: Votes) -> npt.NDArray[np.int64]:
    """1 for each patch with more than two of four yes votes, else 0."""
    return np.asarray((votes == 1).sum(axis=1) > _MANY, dtype=np.int64)


def manifest(parts: Sequence[Part], label: Label, patch: int, way: Way, seed: int) -> pd.DataFrame:
    """A row per patch, in the order of the parts: its source and its place in the data set.

    `split` and `image` (from 0) say which image of the data set it is; `row` and `column` are the
    first of the square of `patch` pixels in the slice at `z_mm`; `rating_1` to `rating_4` are the
    malignancy from 1 to 5 by each radiologist who marked the nodule, `marked_1` to `marked_4`
    whether they outlined it in this slice, `vote_1` to `vote_4` are `votes`. All are missing where
    a radiologist did not mark the nodule, except votes known to be no.
    """
    patches = [(part.scan, one) for part in parts for one in part.outlined]
    all_votes = votes([one for _, one in patches], label)
    rows = []
    for (scan, one), own in zip(patches, all_votes, strict=True):
        row, column = corner(one.row, one.column, patch)
        ratings = dict(enumerate(one.ratings, 1))
        marked = dict(enumerate(one.marked, 1))
        rows.append(
            {
                "patient": scan.patient,
                "series": scan.series,
                "z_mm": one.z_mm,
                "nodule": one.nodule,
                "row": row,
                "column": column,
                "patch": patch,
                **{f"rating_{k}": ratings.get(k) for k in range(1, RATERS + 1)},
                **{f"marked_{k}": marked.get(k) for k in range(1, RATERS + 1)},
                **{f"vote_{k}": None if v == _NO_VOTE else v for k, v in enumerate(own, 1)},
            }
        )
    table = pd.DataFrame(rows).convert_dtypes()
    table.insert(0, "label", labels(all_votes))
    table.insert(0, "split", assign(table["label"].to_numpy(), list(table["patient"]), way, seed))
    table.insert(1, "image", table.groupby("split").cumcount())
    return table


def write(
    path: Path, table: pd.DataFrame, parts: Sequence[Part], label: Label, about: Mapping[str, Any]
) -> None:
    """Write the patches of `parts` to `path`, and their `manifest` and `about` next to it.

    One scan is in memory at a time. Existing files are replaced at the end, so that images and
    manifest always belong together.
    """
    all_votes = votes([one for part in parts for one in part.outlined], label)
    unfinished = {end: path.with_suffix(f"{end}.unfinished") for end in (".json", ".csv", ".npz")}
    unfinished[".json"].write_text(json.dumps(about, indent=2) + "\n")
    table.to_csv(unfinished[".csv"], index=False)
    with zipfile.ZipFile(unfinished[".npz"], "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for split in SPLITS:
            here = (table["split"] == split).to_numpy()
            with archive.open(_member(f"{split}_images"), "w", force_zip64=True) as file:
                _write_images(file, parts, here)
            _write_array(archive, f"{split}_labels", table.loc[here, ["label"]].to_numpy(np.uint8))
            _write_array(archive, f"{split}_votes", all_votes[here])
        _write_array(archive, "classes", np.array(CLASSES[label]))
    path.unlink(missing_ok=True)
    for end, complete in unfinished.items():
        os.replace(complete, path.with_suffix(end))


def _write_images(file: IO[bytes], parts: Sequence[Part], here: npt.NDArray[np.bool_]) -> None:
    """The images of one split as an array in NumPy's format, one scan in memory at a time."""
    shape = (int(here.sum()), *parts[0].images().shape[1:])
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    start = 0
    for part in parts:
        chosen = here[start : start + len(part.outlined)]
        start += len(part.outlined)
        if chosen.any():
            file.write(part.images()[chosen].tobytes())


def _write_array(archive: zipfile.ZipFile, name: str, array: npt.NDArray[np.generic]) -> None:
    with archive.open(_member(name), "w") as file:
        np.lib.format.write_array(file, array, allow_pickle=False)


def _member(name: str) -> zipfile.ZipInfo:
    """A member with a fixed date, so that equal data sets are equal files."""
    member = zipfile.ZipInfo(f"{name}.npy")
    member.compress_type = zipfile.ZIP_DEFLATED
    return member
