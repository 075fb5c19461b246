"""What there is to predict, in any form, with labels where they are those of the model."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pepr_mlops.data.own.columns import Options
from pepr_mlops.data.own.listing import Known, Listing
from pepr_mlops.data.own.unlabelled import listing
from pepr_mlops.errors import WrongUse
from pepr_mlops.names import MULTI_LABEL

SHAPES = Known(("dark", "light"), "binary-class")
FINDINGS = Known(("edema", "nodule"), MULTI_LABEL)


def found(path: Path, known: Known = SHAPES, **options: str) -> tuple[Listing, str | None]:
    return listing(path, Options(**options), known)  # type: ignore[arg-type]


def images(root: Path, *names: str) -> Path:
    """Files with an image of 4 by 4 pixels."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4), 100).save(root / name)
    return root


def table(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_single_image_is_listed_by_its_name(tmp_path: Path) -> None:
    images(tmp_path, "a.png", "b.png")
    one, why = found(tmp_path / "a.png")
    assert (one.root, one.files.tolist(), one.labels.tolist()) == (tmp_path, ["a.png"], [-1])
    assert why == "it is a single image"


def test_a_flat_folder_has_all_images_in_any_depth_and_no_labels(tmp_path: Path) -> None:
    images(tmp_path, "b.png", "a/2.png", "a/10.png", ".hidden.png")
    (tmp_path / "notes.doc").write_text("none")
    flat, why = found(tmp_path)
    assert flat.files.tolist() == ["a/10.png", "a/2.png", "b.png"]
    assert flat.notes == ("passed over: hidden or system files: 1, other files: 1",)
    assert why == "no folder has the name of a class of the model"


def test_folders_of_the_classes_of_the_model_are_labels(tmp_path: Path) -> None:
    """The place of a class is that of the model, whichever are there."""
    own, why = found(images(tmp_path, "light/1.png", "light/0.png"))
    assert (own.files.tolist(), own.labels.tolist(), why) == (
        ["light/0.png", "light/1.png"],
        [1, 1],
        None,
    )


def test_images_outside_of_the_folders_of_splits_are_predicted_too(tmp_path: Path) -> None:
    own, why = found(images(tmp_path, "train/dark/0.png", "test/light/0.png", "more/0.png"))
    assert why is None
    assert dict(zip(own.files.tolist(), own.labels.tolist(), strict=True)) == {
        "train/dark/0.png": 0,
        "test/light/0.png": 1,
        "more/0.png": -1,
    }
    assert own.splits.tolist() == ["", "test", "train"]


def test_folders_of_other_classes_are_no_labels_and_the_reason_is_given(tmp_path: Path) -> None:
    own, why = found(images(tmp_path, "dark/0.png", "grey/0.png"))
    assert own.labels.tolist() == [-1, -1]
    assert why is not None
    assert "has the class 'grey', which the data set does not have" in why


def test_folders_are_no_labels_of_a_model_with_several_labels(tmp_path: Path) -> None:
    own, why = found(images(tmp_path, "edema/0.png", "nodule/0.png"), FINDINGS)
    assert own.labels.tolist() == [[-1, -1], [-1, -1]]
    assert why is not None
    assert "one class for each image and the data set several labels" in why


def test_patients_in_the_table_of_a_folder_belong_to_their_files(tmp_path: Path) -> None:
    images(tmp_path, "dark/0.png", "light/0.png")
    table(tmp_path / "images.csv", "file,patient", "light/0.png,B", "dark/0.png,A")
    own, _ = found(tmp_path)
    assert own.patients is not None
    assert (own.files.tolist(), own.patients.tolist()) == (
        ["dark/0.png", "light/0.png"],
        ["A", "B"],
    )


def test_a_table_may_be_a_list_of_files_alone(tmp_path: Path) -> None:
    images(tmp_path, "0.png", "1.png")
    own, why = found(table(tmp_path / "list.csv", "file", "1.png", "0.png"))
    assert (own.files.tolist(), own.labels.tolist()) == (["0.png", "1.png"], [-1, -1])
    assert why is not None
    assert "has no column that is called as labels are" in why


def test_labels_of_a_table_are_read_for_the_classes_of_the_model(tmp_path: Path) -> None:
    images(tmp_path, "0.png", "1.png", "2.png")
    path = table(
        tmp_path / "l.csv", "file,label,patient", "0.png,light,A", "1.png,dark,A", "2.png,,B"
    )
    own, why = found(path, uncertain="ignore")
    assert (own.labels.tolist(), why) == ([1, 0, -1], None)
    assert own.patients is not None
    assert own.patients.tolist() == ["A", "A", "B"]
    own, why = found(path)
    assert own.labels.tolist() == [-1, -1, -1]
    assert why is not None
    assert "1 rows without a class" in why
    with pytest.raises(WrongUse, match="1 rows without a class"):
        found(path, label_columns="label")


def test_several_labels_are_read_by_their_columns_in_any_order(tmp_path: Path) -> None:
    images(tmp_path, "0.png", "1.png")
    path = table(tmp_path / "l.csv", "nodule,file,edema", "1,0.png,0", "-1,1.png,1")
    own, why = found(path, FINDINGS, uncertain="ignore")
    assert (own.labels.tolist(), why) == ([[0, 1], [1, -1]], None)


def test_an_image_that_cannot_be_opened_is_listed(tmp_path: Path) -> None:
    images(tmp_path, "0.png")
    os.symlink(tmp_path / "gone.png", tmp_path / "1.png")
    own, _ = found(tmp_path)
    assert own.files.tolist() == ["0.png", "1.png"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no/such", "there is no file, folder or data set"),
        ("empty", "there is no image below .*empty"),
        ("notes.doc", "is no image by its name"),
    ],
)
def test_what_has_no_image_is_refused(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.doc").write_text("none")
    with pytest.raises(WrongUse, match=message):
        found(tmp_path / name)


def test_options_of_tables_are_refused_for_a_folder(tmp_path: Path) -> None:
    with pytest.raises(WrongUse, match="is no table"):
        found(images(tmp_path, "0.png"), image_column="file")


def test_what_is_not_known_has_the_form_of_the_labels_of_the_task() -> None:
    assert np.array_equal(SHAPES.unsure(2), [-1, -1])
    assert np.array_equal(FINDINGS.unsure(2), [[-1, -1], [-1, -1]])
