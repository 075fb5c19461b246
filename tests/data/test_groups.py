"""Patients and subgroups of a folder's images, from its table."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from pepr_mlops import data
from pepr_mlops.data import audit_files
from pepr_mlops.errors import WrongUse
from pepr_mlops.spec import RunSpec


def _load(folder: Path) -> data.Splits:
    return data.load(RunSpec(dataset=str(folder), image_size=8))


def _rows(folder: Path) -> dict[str, tuple[str, str]]:
    """Patient and sex of each image: two images of a class are of one patient."""
    found = {}
    for path in sorted(folder.rglob("*.png")):
        number = int(path.stem)
        patient = f"{path.parent.parent.name}-{path.parent.name}-{number // 2}"
        found[path.relative_to(folder).as_posix()] = (patient, "mf"[number % 2])
    return found


def _write(folder: Path, rows: Mapping[str, tuple[str, str]]) -> None:
    lines = [f"{sex},{file},{patient}" for file, (patient, sex) in rows.items()]
    (folder / "images.csv").write_text("\n".join(["sex,file,patient", *lines]) + "\n")


def test_groups_are_joined_by_file_whatever_the_order_of_the_rows(shapes: Path) -> None:
    rows = _rows(shapes)
    files = np.random.default_rng(0).permutation(list(rows)).tolist()
    assert files != list(rows)
    _write(shapes, {file: rows[file] for file in files})
    splits = _load(shapes)
    assert splits.train.groups == {}
    for split in (splits.val, splits.test):
        assert split.origins is not None
        own = [rows[str(file)] for file in split.origins]
        assert split.groups["sex"].tolist() == [sex for _, sex in own]
        numbers = split.groups["patient"].tolist()
        assert numbers == [str(i // 2) for i in range(len(split))]
        assert len(set(zip(numbers, [patient for patient, _ in own], strict=True))) == len(own) / 2


def test_groups_stay_with_the_images_that_are_taken(shapes: Path) -> None:
    _write(shapes, _rows(shapes))
    test = _load(shapes).test
    taken = test.take(np.array([5, 0]))
    assert taken.groups["sex"].tolist() == ["f", "m"]
    assert taken.groups["patient"].tolist() == ["2", "0"]


def test_splits_that_are_drawn_have_groups_too(shapes: Path) -> None:
    rows = _rows(shapes)
    shutil.rmtree(shapes / "val")
    _write(shapes, {file: own for file, own in rows.items() if not file.startswith("val/")})
    val = _load(shapes).val
    assert val.origins is not None
    assert val.groups["sex"].tolist() == [rows[str(file)][1] for file in val.origins]


def test_an_empty_cell_is_not_known_and_an_unknown_patient_no_other(shapes: Path) -> None:
    rows = _rows(shapes)
    for file in ("test/dark/02.png", "test/dark/03.png"):
        rows[file] = ("", "")
    _write(shapes, rows)
    test = _load(shapes).test
    assert test.groups["sex"].tolist()[:4] == ["m", "f", "not known", "not known"]
    assert test.groups["patient"].tolist()[:6] == ["0", "0", "1", "2", "3", "3"]


def test_the_table_is_no_image_and_no_part_of_the_data_set(shapes: Path) -> None:
    spec = RunSpec(dataset=str(shapes))
    digest, before = data.identify(spec).data_digest, _load(shapes).test.digest()
    (audit,) = audit_files.audit_target(RunSpec(dataset=str(shapes)))
    assert _load(shapes).test.groups == {}
    _write(shapes, _rows(shapes))
    assert data.identify(spec).data_digest == digest
    assert _load(shapes).test.digest() == before
    (again,) = audit_files.audit_target(RunSpec(dataset=str(shapes)))
    assert again.findings == audit.findings


def test_a_table_as_spreadsheets_save_it_is_read(shapes: Path) -> None:
    lines = [f'{i},{file},"Ulm, Süd",,' for i, file in enumerate(_rows(shapes))]
    text = "\r\n".join([",file,site,patient,", "", *lines])
    (shapes / "images.csv").write_bytes(text.encode("utf-8-sig"))
    groups = _load(shapes).test.groups
    assert set(groups) == {"site", "patient"}  # an index without a name is no group
    assert set(groups["site"]) == {"Ulm, Süd"}
    assert groups["patient"].tolist() == [str(i) for i in range(16)]


@pytest.mark.parametrize(
    ("replaced", "by", "refused"),
    [
        ("f,test/dark/01.png,", "f,test/01.png,", "no row for test/dark/01.png; add one, with exa"),
        ("test/dark/01.png", "test/dark/00.png", "two rows for test/dark/00.png; remove one"),
        ("sex,file,", "sex,image,", "has no column file; name the columns in its first line"),
        ("sex,file,patient\n", "", "has no column file; name the columns in its first line"),
        ("sex,file", "file,file", "has two columns file; rename or remove one"),
        ("patient\n", "Patient_ID\n", "Patient_ID, whose values would be logged; rename it to pat"),
        ("f,test/dark/01.png", "f,1,test/dark/01.png", "line 3 of .* has 4 cells for 3 columns;"),
    ],
)
def test_a_table_that_does_not_fit_is_refused_without_its_cells(
    shapes: Path, replaced: str, by: str, refused: str
) -> None:
    rows = {file: ("SECRET", sex) for file, (_, sex) in _rows(shapes).items()}
    own = {file: rows[file] for file in sorted(rows)}
    _write(shapes, own)
    table = shapes / "images.csv"
    text = table.read_text()
    assert text.count(replaced) == 1
    table.write_text(text.replace(replaced, by))
    with pytest.raises(WrongUse, match=refused) as raised:
        _load(shapes)
    assert "SECRET" not in str(raised.value)


@pytest.mark.parametrize("content", [b"", b"file,sex\ntest/dark/00.png,\xff\n"])
def test_a_file_that_is_no_table_is_refused(shapes: Path, content: bytes) -> None:
    (shapes / "images.csv").write_bytes(content)
    with pytest.raises(WrongUse, match=r"has no column file|is not a readable table .*save it as"):
        _load(shapes)
