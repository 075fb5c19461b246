"""Tables with a row for each image: how they are read, and which faults are named."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pepr_mlops.data.own import cells, table
from pepr_mlops.data.own.columns import Options, choose, identifies
from pepr_mlops.data.own.kinds import is_table
from pepr_mlops.data.own.listing import Listing
from pepr_mlops.data.own.pairs import paired
from pepr_mlops.errors import WrongUse

_FILES = [f"{i}.png" for i in range(6)]
_DX = ["nv", "mel", "nv", "mel", "nv", "mel"]


def _touch(root: Path, *files: str) -> None:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()


def _listed(root: Path, text: str | bytes, files: list[str] = _FILES, **options: str) -> Listing:
    """The listing of a table next to a folder `scans` of files."""
    (root / "scans").mkdir(exist_ok=True)
    _touch(root / "scans", *files)
    path = root / "labels.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return table.listing(path, Options(**{"images": str(root / "scans"), **options}))


def _text(header: str, *columns: list[str], delimiter: str = ",") -> str:
    rows = [header, *(delimiter.join(row) for row in zip(*columns, strict=True))]
    return "\n".join(rows) + "\n"


def _refused(root: Path, match: str, text: str | bytes, **options: object) -> WrongUse:
    with pytest.raises(WrongUse, match=match) as raised:
        _listed(root, text, **options)  # type: ignore[arg-type]
    return raised.value


def test_columns_are_guessed_by_their_names_and_the_guess_is_logged(tmp_path: Path) -> None:
    """The columns of HAM10000."""
    found = _listed(
        tmp_path,
        _text(
            "lesion_id,image_id,dx,dx_type,age,sex,localization",
            ["L0", "L0", "L1", "L1", "", "L2"],
            [str(i) for i in range(6)],
            _DX,
            ["histo"] * 6,
            ["80.0", "80.0", "", "45.0", "45.0", "45.0"],
            ["male", "male", "female", "", "male", "male"],
            ["back"] * 6,
        ),
    )
    assert found.name == "labels"
    assert found.files.tolist() == _FILES
    assert (found.classes, found.task) == (("mel", "nv"), "binary-class")
    assert found.labels.tolist() == [1, 0, 1, 0, 1, 0]
    assert found.patients is not None
    assert found.patients.tolist() == ["L0", "L0", "L1", "L1", "", "L2"]
    assert found.groups["sex"].tolist() == ["male"] * 2 + ["female", "not known"] + ["male"] * 2
    assert found.groups["age"].tolist()[2] == "not known"
    assert found.splits.tolist() == [""] * 6
    assert found.columns == {
        "image": "image_id",
        "labels": "dx",
        "patient": "lesion_id",
        "groups": "dx_type,age,sex,localization",
    }
    assert found.notes == (
        "columns: image=image_id; labels=dx; patient=lesion_id; "
        "groups=dx_type, age, sex, localization",
    )


def test_a_table_of_joined_findings_is_read(tmp_path: Path) -> None:
    """The columns of NIH's ChestX-ray14."""
    found = _listed(
        tmp_path,
        _text(
            "Image Index,Finding Labels,Patient ID,Patient Age,Patient Gender",
            _FILES,
            ["Mass|Edema", "No Finding", "Edema", "Mass", "No Finding", "Mass"],
            ["7"] * 6,
            ["058", "058", "058", "081", "081", "081"],
            list("MMMFFF"),
        ),
    )
    assert found.classes == ("Edema", "Mass", "No Finding")
    assert found.labels.tolist()[:3] == [[1, 1, 0], [0, 0, 1], [1, 0, 0]]
    assert set(found.groups) == {"Patient Age", "Patient Gender"}
    assert found.columns["patient"] == "Patient ID"


def test_all_columns_of_0_and_1_are_labels(tmp_path: Path) -> None:
    """The columns of CheXpert, whose files are in folders of patients."""
    files = [f"train/patient{i:05d}/study1/view1.jpg" for i in range(6)]
    text = _text(
        "Path,Sex,Age,Edema,Fracture",
        [f"train\\patient{i:05d}\\study1\\view1.jpg" for i in range(6)],
        ["Male"] * 6,
        ["68"] * 6,
        ["1.0", "0.0", "-1.0", "", "1.0", "0.0"],
        ["", "1.0", "1.0", "1.0", "0.0", "1.0"],
    )
    _refused(
        tmp_path, r"3 uncertain labels \(-1, blank or NA\) in Edema, Fracture", text, files=files
    )
    found = _listed(tmp_path, text, files, uncertain="ignore")
    assert found.files.tolist() == files
    assert found.labels.tolist() == [[1, -1], [0, 1], [-1, 1], [-1, 1], [1, 0], [0, 1]]
    assert (found.classes, set(found.groups)) == (("Edema", "Fracture"), {"Sex", "Age"})


@pytest.mark.parametrize(
    ("header", "refused"),
    [
        (
            "image,path,dx",
            "image_column: .* has several columns for it .image, path..* --image-col",
        ),
        (
            "image,dx,label",
            "label_columns: .* has several columns for it .dx, label..* --label-col",
        ),
        (
            "a,b,dx",
            "image_column: .* has no column that is called as files .* Its columns: a, b, dx",
        ),
        (
            "image,a,b",
            "label_columns: .* called as labels are, and none of 0 and 1; .* --label-col",
        ),
    ],
)
def test_a_guess_that_is_not_certain_is_refused_with_the_columns_and_the_option(
    header: str, refused: str, tmp_path: Path
) -> None:
    error = _refused(tmp_path, refused, _text(header, _FILES, _DX, _DX))
    assert "dx" not in error.logged  # the first line may be an image


def test_columns_that_are_named_come_before_guesses(tmp_path: Path) -> None:
    text = _text("image,path,dx,label,who,part,0", _FILES, *[_DX] * 3, list("aabbcc"), _DX, _DX)
    found = _listed(
        tmp_path,
        text.replace("nv\n", "train\n").replace("mel\n", "test\n"),
        image_column="image",
        label_columns="label",
        patient_column="who",
        split_column="0",
        group_columns="path, part",
    )
    assert found.patients is not None
    assert "".join(found.patients.tolist()) == "aabbcc"
    assert found.splits.tolist() == ["train", "test"] * 3
    assert list(found.groups) == ["path", "part"]
    assert "dx" not in found.columns["groups"]


@pytest.mark.parametrize(
    ("options", "refused"),
    [
        ({"image_column": "imge"}, r"image_column: .* no column 'imge'; did you mean 'image'\?"),
        ({"label_columns": "dx,sax"}, "label_columns: .* has no column 'sax'"),
        ({"patient_column": "dx,sex"}, "patient_column: 'dx,sex' is more than one column; give"),
        (
            {"image_column": "image", "label_columns": "image"},
            "label_columns: column 'image' is in use as image_column",
        ),
        (
            {"group_columns": "MRN"},
            "group_columns: no subgroups of columns that may identify people.* MRN",
        ),
        (
            {"group_columns": "code"},
            "group_columns: no subgroups .* over 20 different values.*: code; lea",
        ),
        ({"images": "gone"}, "images: there is no folder gone; name the folder"),
    ],
)
def test_an_option_that_does_not_fit_is_refused(
    options: dict[str, str], refused: str, tmp_path: Path
) -> None:
    files = [f"{i:02d}.png" for i in range(22)]
    text = _text("image,dx,sex,code,MRN", files, ["a", "b"] * 11, ["f"] * 22, files, files)
    if options != {"group_columns": "MRN"}:
        text = text.replace("MRN", "patient")
    else:
        options["patient_column"] = "sex"
    _refused(tmp_path, refused, text, files=files, **options)


@pytest.mark.parametrize(
    "name",
    [
        *("Name", "patient_name", "PatientID", "Patient's Name", "subject no", "MRN", "pid", "DOB"),
        *("birth date", "address", "Phone", "e-mail", "SSN", "AccessionNumber", "StudyInstanceUID"),
        *("study_id", "StudyID", "surname", "id", "SOPInstanceUID", "patient_weight_note"),
        *("medical_record_number", "nhs_number", "social_security_number", "insurance_no"),
        *("health_card", "cpr", "initials", "physician", "Referring Physician", "doctor", "zip"),
        *("postal_code", "date_of_exam", "StudyDate", "examdate", "comments", "Notes", "remarks"),
        *("free text", "PatientHash", "eid", "animal_id", "birth_year", "subject_code"),
    ],
)
def test_columns_that_identify_people_are_recognised(name: str) -> None:
    assert identifies(name)


@pytest.mark.parametrize(
    "name",
    [
        *("sex", "Patient Age", "PatientSex", "site", "arid", "valid", "age", "patient_weight"),
        *("pleural_fluid", "preterm_birth", "candidate", "update", "consolidated", "validated"),
        *("outpatient", "lesion", "case", "cardiomegaly", "context", "denoted"),
    ],
)
def test_columns_that_identify_nobody_are_recognised(name: str) -> None:
    assert not identifies(name)


def test_a_sex_of_0_and_1_is_a_subgroup_and_no_label(tmp_path: Path) -> None:
    text = _text("image,Sex,ill,grave", _FILES, list("010101"), list("001111"), list("000011"))
    found = _listed(tmp_path, text)
    assert found.classes == ("ill", "grave")
    assert found.groups["Sex"].tolist() == list("010101")


def test_columns_that_may_name_people_are_passed_over_by_name_alone(tmp_path: Path) -> None:
    files = [f"{i}.png" for i in range(22)]
    codes = [f"SECRET{i}" for i in range(22)]
    found = _listed(
        tmp_path, _text("image,dx,code,study_uid", files, ["a", "b"] * 11, codes, codes), files
    )
    assert found.groups == {}
    assert found.notes[1:] == (
        "no subgroups of columns that may identify people, whose values are not logged: study_uid",
        "no subgroups of columns that have over 20 different values, which may name people: code",
    )


@pytest.mark.parametrize("column", ["split", "Set", "fold", "partition", "subset"])
def test_a_column_of_splits_is_read_in_any_spelling(column: str, tmp_path: Path) -> None:
    splits = ["Train", "TRAINING", "val", "validation", "test", "Testing"]
    found = _listed(tmp_path, _text(f"image,dx,{column}", _FILES, _DX, splits))
    assert found.splits.tolist() == ["train", "train", "val", "val", "test", "test"]
    assert found.columns["split"] == column


def test_a_column_with_an_option_is_not_guessed_for_another_use(tmp_path: Path) -> None:
    text = _text("image,path,case,dx,label", _FILES, _DX, list("aabbcc"), _DX, _DX)
    options = {"label_columns": "path", "group_columns": "case,dx,label"}
    found = _listed(tmp_path, text, **options)
    assert found.columns == {"image": "image", "labels": "path", "groups": "case,dx,label"}
    assert found.patients is None


def test_blank_splits_are_drawn(tmp_path: Path) -> None:
    blank = _listed(tmp_path, _text("image,dx,split", _FILES, _DX, [""] * 6))
    assert blank.splits.tolist() == [""] * 6


@pytest.mark.parametrize(
    ("splits", "refused"),
    [
        (["train"] * 4 + ["", ""], "split is blank in 2 of 6 rows of .*; write one of train"),
        (["train"] * 5 + ["SECRET"], "values that are no splits .'SECRET'.; write one of train,"),
        (["test"] * 6, "split of .* has no row of train; mark"),
    ],
)
def test_splits_that_are_none_are_refused(splits: list[str], refused: str, tmp_path: Path) -> None:
    error = _refused(tmp_path, refused, _text("image,dx,split", _FILES, _DX, splits))
    assert "SECRET" not in error.logged


@pytest.mark.parametrize(
    ("values", "refused"),
    [
        (
            ["TRAIN", "Test", "holdout"] * 2,
            r"set of .* has values that are no splits \('holdout'\)",
        ),
        (["train"] * 5 + [""], "set is blank in 1 of 6 rows"),
    ],
)
def test_a_column_with_some_splits_is_not_taken_for_a_subgroup(
    values: list[str], refused: str, tmp_path: Path
) -> None:
    text = _text("image,dx,set", _FILES, _DX, values)
    error = _refused(tmp_path, refused, text)
    assert "name the right one" not in str(error)
    assert "name the right column with --split-column" in str(error)
    assert "holdout" not in error.logged
    found = _listed(tmp_path, text, group_columns="set")
    assert set(found.groups) == {"set"}


def test_a_column_with_nothing_but_splits_is_one_whatever_its_name(tmp_path: Path) -> None:
    text = _text("image,dx,purpose,stage", _FILES, _DX, ["train", "test"] * 3, ["test"] * 6)
    found = _listed(tmp_path, text)
    assert found.columns["split"] == "purpose"
    assert found.groups["stage"].tolist() == ["test"] * 6


# Patients --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        *("patient_name", "PatientName", "patient_code", "patient_key", "patient_uid", "case_no"),
        *("patient_hash", "pat_id", "PtID", "person_id", "animal_id", "subject_name", "eid"),
        *("Anonymized Patient ID", "lesion_id", "participant number"),
    ],
)
def test_a_column_that_is_called_like_an_id_of_patients_is_the_patient(
    name: str, tmp_path: Path
) -> None:
    found = _listed(tmp_path, _text(f"image,dx,{name}", _FILES, _DX, list("aabbcc")))
    assert found.columns["patient"] == name
    assert found.patients is not None
    assert found.patients.tolist() == list("aabbcc")
    assert found.groups == {}


@pytest.mark.parametrize("name", ["case", "lesion", "Patient Age", "patient_sex", "pattern"])
def test_a_column_of_another_property_is_not_the_patient(name: str, tmp_path: Path) -> None:
    found = _listed(tmp_path, _text(f"image,dx,{name}", _FILES, _DX, list("xxyyxy")))
    assert found.patients is None
    assert set(found.groups) == {name}


def test_patients_have_the_surest_column_and_of_two_like_it_none_is_guessed(
    tmp_path: Path,
) -> None:
    columns = (_FILES, _DX, list("ababab"), list("aabbcc"))
    found = _listed(tmp_path, _text("image,dx,patient_name,patient_id", *columns))
    assert found.columns["patient"] == "patient_id"
    refused = r"has several columns for it \(pat_code, person_id\); name .* --patient-column"
    _refused(tmp_path, refused, _text("image,dx,pat_code,person_id", *columns))


def test_ids_that_differ_in_case_blanks_or_unicode_form_are_of_one_patient(tmp_path: Path) -> None:
    ids = ["P 1", "p  1", "M\u00fcller", "Mu\u0308ller", "P2", "P2"]
    found = _listed(tmp_path, _text("image,dx,patient", _FILES, _DX, ids))
    assert found.patients is not None
    assert found.patients.tolist() == ["P 1", "P 1", "M\u00fcller", "M\u00fcller", "P2", "P2"]
    assert found.notes[-1] == (
        "patients whose ids differ in case, blanks or Unicode form, counted as one each: 2"
    )


def test_cells_that_say_nothing_are_unknown_patients_and_subgroups(tmp_path: Path) -> None:
    nothing = ["NA", "None", "-", "unknown", "NaN", "x"]
    text = _text("image,dx,patient,site", _FILES, _DX, nothing, nothing)
    found = _listed(tmp_path, text)
    assert found.patients is not None
    assert found.patients.tolist() == [""] * 5 + ["x"]
    assert found.groups["site"].tolist() == ["not known"] * 5 + ["x"]
    assert _listed(tmp_path, text.replace("x,x", "?,null")).patients is None


def test_a_column_with_values_of_one_patient_each_is_no_subgroup(tmp_path: Path) -> None:
    text = _text(
        "image,dx,patient,alias,side,site",
        *(_FILES, _DX, list("aabbcc"), list("xxyyzz"), list("lrlrlr"), list("ssssts")),
    )
    found = _listed(tmp_path, text)
    assert set(found.groups) == {"side", "site"}
    assert found.notes[1] == (
        "no subgroups of columns that have values of one patient each, which may name people: alias"
    )
    alone = text.replace("a,x", "d,x", 1)  # x is of two patients
    assert set(_listed(tmp_path, alone).groups) == {"alias", "side", "site"}


def test_0_and_1_of_findings_with_any_name_are_labels(tmp_path: Path) -> None:
    names = "effusion,pleural_fluid,preterm_birth,case"
    text = _text(f"image,{names}", _FILES, *[list("001111"), list("010101")] * 2)
    assert _listed(tmp_path, text).classes == tuple(names.split(","))


# Files -----------------------------------------------------------------------------------------


def test_cells_name_files_with_or_without_suffix_and_folder(tmp_path: Path) -> None:
    files = ["a/0.png", "a/b/1.2.840.5.dcm", "2.nii.gz", "x y/ä.jpg", "p1/s/4", "c/5.tif"]
    (tmp_path / "scans" / "p1" / "s").mkdir(parents=True)
    (tmp_path / "scans" / "p1" / "s" / "4").write_bytes(b"\0" * 128 + b"DICM")
    names = ["0", "1.2.840.5", "2", "x y\\a\u0308", "s/4", str(tmp_path / "scans" / "c" / "5")]
    found = _listed(tmp_path, _text("image,dx", names, _DX), [f for f in files if f != "p1/s/4"])
    labels = dict(zip(found.files.tolist(), found.labels.tolist(), strict=True))
    assert labels == dict(zip(files, [1, 0, 1, 0, 1, 0], strict=True))
    assert found.files.tolist() == sorted(files)


def test_files_are_in_the_folder_of_the_table_if_no_other_is_named(tmp_path: Path) -> None:
    _touch(tmp_path, *_FILES)
    path = tmp_path / "labels.tsv"
    path.write_text(_text("image\tdx", _FILES, _DX, delimiter="\t"))
    found = table.listing(path, Options())
    assert (found.root, len(found)) == (tmp_path, 6)
    assert len(found.notes) == 1  # the table itself is no other file


@pytest.mark.parametrize(
    "outside", ["../0.png", "a/../../0.png", "/etc/0.png", "C:\\data\\0.png", "\\\\server\\0.png"]
)
def test_a_cell_that_leads_outside_of_the_folder_is_refused(outside: str, tmp_path: Path) -> None:
    text = _text("image,dx", [outside, *_FILES[1:]], _DX)
    for missing in ("refuse", "skip"):
        error = _refused(
            tmp_path, r"1 files of .* are outside of .*0\.png.*;", text, missing=missing
        )
        assert "0.png" not in error.logged


def test_a_cell_that_fits_several_files_is_refused(tmp_path: Path) -> None:
    files = [*_FILES, "a/x.png", "b/x.png"]
    text = _text("image,dx", [*_FILES[:5], "x"], _DX)
    refused = r"1 cells of .* fit several files \(x: a/x.png, b/x.png\); write the path and"
    error = _refused(tmp_path, refused, text, files=files)
    assert "x.png" not in error.logged
    exact = _text("image,dx", [*_FILES, "a/x.png", "b\\x"], [*_DX, "nv", "nv"])
    assert len(_listed(tmp_path, exact, files)) == 8


_UNLIKE = "image,dx\n" + "".join(
    f"{file},{dx}\n"
    for file, dx in [
        *(("0.png", "nv"), ("1.png", "mel"), ("2.png", "nv"), ("3.png", "mel")),
        *(("1", "mel"), ("2.png", "mel"), ("gone.png", "nv"), (" ", "nv")),
    ]
)


def test_rows_and_files_that_do_not_match_are_counted_and_named_on_the_terminal(
    tmp_path: Path,
) -> None:
    error = _refused(tmp_path, "do not match", _UNLIKE)
    start = f"dataset: {tmp_path / 'labels.csv'} and the files in {tmp_path / 'scans'} do not match"
    remedy = "correct the table, or leave these out with --missing skip"
    assert str(error) == (
        f"{start}; rows without a file: 2 (row 8: gone.png, row 9: ), files without a row: 2 "
        f"(4.png, 5.png), repeated rows: 1 (row 6: 1.png), images with rows that differ: 1 (2.png)"
        f"; {remedy}"
    )
    assert error.logged == (
        f"{start}; rows without a file: 2, files without a row: 2, repeated rows: 1, images with "
        f"rows that differ: 1; {remedy}"
    )


def test_what_does_not_match_is_left_out_if_requested(tmp_path: Path) -> None:
    found = _listed(tmp_path, _UNLIKE, missing="skip")
    assert found.files.tolist() == ["0.png", "1.png", "3.png"]
    assert found.labels.tolist() == [1, 0, 0]
    assert found.notes[1] == (
        "left out: rows without a file: 2, files without a row: 2, repeated rows: 1, images with "
        "rows that differ: 1"
    )
    assert found.details[3] == "images with rows that differ: 1 (2.png)"


def test_rows_that_differ_in_the_patient_alone_differ_and_do_not_name_him(tmp_path: Path) -> None:
    text = _text("image,dx,patient", _FILES, _DX, ["SECRET"] * 6) + "0.png,nv,SECRET2\n"
    error = _refused(tmp_path, r"images with rows that differ: 1 \(0.png\)", text)
    assert "SECRET" not in str(error)


def test_a_table_without_any_of_the_images_is_refused(tmp_path: Path) -> None:
    text = _text("image,dx", [f"x{i}" for i in range(6)], _DX)
    _refused(tmp_path, "no row of .* is of an image below", text, missing="skip")
    (tmp_path / "empty").mkdir()
    refused = r"there is no image below \S+/empty; name the folder of the files of .* with --images"
    _refused(tmp_path, refused, text, images=str(tmp_path / "empty"))


# Formats ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_delimiters_marks_and_line_ends_are_recognised(
    delimiter: str, encoding: str, line_end: str, tmp_path: Path
) -> None:
    header = delimiter.join(["Bild", "Ödem", "size"])
    rows = [delimiter.join([f"ä{i}.png", "NA", f'"{i}{delimiter}5"']) for i in range(3)]
    path = tmp_path / "t.csv"
    path.write_bytes(line_end.join([header, rows[0], "", *rows[1:], ""]).encode(encoding))
    read = cells.read(path)
    assert list(read.columns) == ["Bild", "Ödem", "size"]
    assert read["Bild"].tolist() == ["ä0.png", "ä1.png", "ä2.png"]
    assert read["size"].tolist() == [f"{i}{delimiter}5" for i in range(3)]
    assert read["Ödem"].tolist() == ["NA"] * 3  # a text, not a missing value
    assert read.index.tolist() == [2, 4, 5]  # as a spreadsheet counts


def test_blanks_around_cells_do_not_count(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text('image , dx\n "0.png", " a, b "\n')
    assert cells.read(path).to_dict("list") == {"image": ["0.png"], "dx": ["a, b"]}


def test_decimal_commas_are_numbers(tmp_path: Path) -> None:
    text = _text("image;a;b", _FILES, ["0,0", "1,0"] * 3, ["1,0"] * 6, delimiter=";")
    assert _listed(tmp_path, text).labels.tolist() == [[0, 1], [1, 1]] * 3


def test_parquet_gives_what_csv_gives(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "image": _FILES,
            "a": [0, 1, 0, 1, 1, 1],
            "b": [0.0, 1.0, np.nan, 1.0, 0.0, 1.0],
            "c": [True, False, True, False, True, True],
            "site": pd.Categorical(["x", "y", "x", None, "x", "y"]),
        }
    )
    frame.set_index("image").to_parquet(tmp_path / "labels.parquet")
    text = io.StringIO()
    frame.assign(c=frame.c.astype(int)).to_csv(text, index=False)
    one = _listed(tmp_path, text.getvalue(), uncertain="negative")
    options = Options(images=str(tmp_path / "scans"), uncertain="negative")
    other = table.listing(tmp_path / "labels.parquet", options)
    assert other.labels.tolist() == one.labels.tolist()
    assert other.labels.tolist()[:3] == [[0, 0, 1], [1, 1, 0], [0, 0, 1]]
    assert (other.classes, one.classes) == (("a", "b", "c"),) * 2
    assert other.groups["site"].tolist() == one.groups["site"].tolist()
    assert other.groups["site"].tolist()[3] == "not known"


@pytest.mark.parametrize(
    ("content", "refused"),
    [
        (b"", "labels.csv is empty; name the columns in its first line"),
        (b"image,dx\n", "has no row below its first line"),
        (b"image\n0.png\n", "has a single column; name at least one for the files"),
        (b"image#dx\n0.png#nv\n", "has a single column; .* semicolons, tabs or"),
        (
            "image,dx\n0.png,Ödem".encode("latin-1"),
            "byte 15 is not UTF-8, but perhaps Latin-1 .* s",
        ),
        ("image,dx\n0.png,é".encode("latin-1"), "is not UTF-8, but perhaps"),
        (b"PAR1\0\0image,dx", "is not a readable table .it is binary or UTF-16.; save it as CSV"),
        (b"image,dx,dx\n0.png,nv,nv\n", "has two columns dx; rename or remove one"),
        (b"image,dx\n0.png,nv\n1.png,SECRET,x\n", "row 3 of .* has 3 cells for 2 columns; put a"),
        (
            b"image,dx,a\n0.png,nv,\n\n1.png,SECRET\n",
            "row 4 of .* has 2 cells for 3 columns; put a",
        ),
        (
            b'image,dx\n0.png,"nv\n1.png,SECRET\n',
            "not a readable table .unexpected end of data.; put",
        ),
    ],
)
def test_a_file_that_is_no_table_is_refused_without_its_cells(
    content: bytes, refused: str, tmp_path: Path
) -> None:
    error = _refused(tmp_path, refused, content)
    assert "SECRET" not in str(error)


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WrongUse, match=r"gone.csv is not a readable table .No such file"):
        table.listing(tmp_path / "gone.csv", Options())
    (tmp_path / "x.parquet").write_bytes(b"image,dx\n0.png,nv\n")
    with pytest.raises(WrongUse, match=r"x.parquet is not a readable table of texts and numbers"):
        table.listing(tmp_path / "x.parquet", Options())


@pytest.mark.parametrize("target", ["a.csv", "A.TSV", "x/y.txt", "z.parquet"])
def test_a_table_is_recognised_by_its_suffix(target: str) -> None:
    assert is_table(target)
    assert not is_table(f"{target}/images")


_CELLS = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Z"]), min_size=1)


_ROWS = st.lists(st.tuples(_CELLS, _CELLS, _CELLS), min_size=1, max_size=8)


@given(rows=_ROWS, delimiter=st.sampled_from(",;\t|"))
def test_what_pandas_writes_is_read_again(
    rows: list[tuple[str, str, str]], delimiter: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "written.csv"
    frame = pd.DataFrame(rows, columns=["image", "dx", "site"])
    frame.to_csv(path, index=False, sep=delimiter)
    assert list(cells.read(path).itertuples(index=False, name=None)) == rows


def test_100_000_rows_are_read_and_joined(tmp_path: Path) -> None:
    n = 100_000
    text = "image_id,dx,patient_id,sex\n" + "".join(
        f"ISIC_{i:07d},{'nv' if i % 3 else 'mel'},P{i // 4},{'mf'[i % 2]}\n" for i in range(n)
    )
    path = tmp_path / "labels.csv"
    path.write_text(text)
    read = cells.read(path)
    uses = choose(read, Options(), str(path))
    files = [f"{i % 10}/ISIC_{i:07d}.jpg" for i in range(n)]
    in_use = [*uses.labels, *uses.groups]
    found = paired(read[in_use], read[uses.image], files, tmp_path, "refuse", str(path))
    assert found.files == sorted(files)
    assert found.rows["dx"].iloc[0] == "mel"  # ISIC_0000000
    assert (found.rows["dx"] == "mel").sum() == 33_334


@pytest.mark.parametrize(
    ("cell", "remedy"),
    [
        ("CheXpert/train/x{i}.png", "files of the same names are in other folders"),
        ("x{i}.PNG", "files of the same names have capital letters elsewhere"),
        ("x{i}.jpg", "files of the same names have another suffix"),
        ("other{i}.png", "name the folder of the files of .* with --images"),
    ],
)
def test_a_table_of_which_no_row_has_a_file_says_what_to_correct(
    tmp_path: Path, cell: str, remedy: str
) -> None:
    for i in range(4):
        (tmp_path / f"x{i}.png").write_bytes(b"x")
    rows = [f"{cell.format(i=i)},{'ab'[i % 2]}" for i in range(4)]
    (tmp_path / "labels.csv").write_text("\n".join(["file,label", *rows]))
    with pytest.raises(WrongUse, match=f"rows without a file: 4 .*{remedy}"):
        table.listing(tmp_path / "labels.csv", Options())


def test_a_table_in_utf_16_is_read_as_spreadsheets_write_it(tmp_path: Path) -> None:
    for i in range(4):
        (tmp_path / f"x{i}.png").write_bytes(b"x")
    rows = [f"x{i}.png\tÅrhus {'ab'[i % 2]}" for i in range(4)]
    (tmp_path / "labels.tsv").write_text("\n".join(["file\tlabel", *rows]), encoding="utf-16")
    found = table.listing(tmp_path / "labels.tsv", Options())
    assert found.classes == ("Århus a", "Århus b")


def test_a_column_of_fold_numbers_is_passed_over_with_a_note(tmp_path: Path) -> None:
    for i in range(6):
        (tmp_path / f"x{i}.png").write_bytes(b"x")
    rows = [f"x{i}.png,{'ab'[i % 2]},{i % 3}" for i in range(6)]
    (tmp_path / "labels.csv").write_text("\n".join(["file,label,fold", *rows]))
    found = table.listing(tmp_path / "labels.csv", Options())
    assert set(found.splits) == {""}
    assert found.groups == {}
    assert any("number folds, which `--folds` draws itself: fold" in note for note in found.notes)
