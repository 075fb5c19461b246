"""From label cells to classes and labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pepr_mlops.data.own.labels import Labelled, labelled
from pepr_mlops.data.own.listing import Known
from pepr_mlops.errors import WrongUse


def _of(uncertain: str = "refuse", **columns: Sequence[str]) -> Labelled:
    return labelled(pd.DataFrame(columns, dtype=str), uncertain, "t.csv")


def test_names_are_classes_in_the_order_of_their_letters() -> None:
    found = _of(dx=["nv", "mel", "bcc", "nv"])
    assert (found.classes, found.task) == (("bcc", "mel", "nv"), "multi-class")
    assert found.labels.tolist() == [2, 1, 0, 2]
    assert _of(dx=["b", "a", "a"]).task == "binary-class"


def test_numbers_are_classes_in_the_order_of_their_values() -> None:
    assert _of(x=["none", "inf", "2", "b", "b"]).classes == ("2", "b", "inf", "none")
    found = _of(grade=["10", "2", "0.5", "2.0", "10,0"])
    assert found.classes == ("0.5", "2", "10")  # a column with blank cells is saved as 2.0
    assert found.labels.tolist() == [2, 1, 0, 1, 2]


def test_names_between_bars_are_labels_and_a_blank_cell_is_none() -> None:
    found = _of(finding=["Edema|Mass", "Mass", "", " Mass | Edema "])
    assert (found.classes, found.task) == (("Edema", "Mass"), "multi-label, binary-class")
    assert found.labels.tolist() == [[1, 1], [0, 1], [0, 0], [1, 1]]
    assert found.notes == ("1 images have no label",)


def test_columns_of_0_and_1_are_labels_in_the_order_of_the_columns() -> None:
    found = _of(z=["1", "0,0", "1.0"], a=["0", "1", "1"])
    assert (found.classes, found.task) == (("z", "a"), "multi-label, binary-class")
    assert found.labels.tolist() == [[1, 0], [0, 1], [1, 1]]


def test_columns_with_one_1_in_each_row_are_classes() -> None:
    found = _of(nv=["1.0", "0", "0", "0"], mel=["0", "0", "1", "0"], bcc=["0", "1", "0", "1"])
    assert (found.classes, found.task) == (("nv", "mel", "bcc"), "multi-class")
    assert found.labels.tolist() == [0, 2, 1, 2]
    assert found.notes == ("each row has one 1 in the 3 label columns, so they are classes",)
    two = _of(well=["1", "0", "0"], ill=["0", "1", "1"])
    assert (two.classes, two.task) == (("well", "ill"), "binary-class")
    assert two.labels.tolist() == [0, 1, 1]
    assert two.notes == ("each row has one 1 in the 2 label columns, so they are classes",)
    both = _of(ill=["1", "0", "1"], smoker=["0", "1", "1"])
    assert both.task == "multi-label, binary-class"


_UNCERTAIN = {"a": ["1", "-1", "", "0"], "b": ["0", "0", "-1.0", "1"]}


@pytest.mark.parametrize(
    ("uncertain", "labels", "note"),
    [
        ("ignore", [[1, 0], [-1, 0], [-1, -1], [0, 1]], "count neither as 0 nor as 1"),
        ("negative", [[1, 0], [0, 0], [0, 0], [0, 1]], "count as negative"),
        ("positive", [[1, 0], [1, 0], [1, 1], [0, 1]], "count as positive"),
    ],
)
def test_uncertain_labels_count_as_the_option_has_it(
    uncertain: str, labels: list[list[int]], note: str
) -> None:
    found = _of(uncertain, **_UNCERTAIN)
    assert found.labels.tolist() == labels
    assert found.usable.all()
    assert found.notes == (f"3 uncertain labels {note}",)


def test_uncertain_labels_are_refused_without_the_option() -> None:
    refused = (
        r"3 uncertain labels \(-1, blank or NA\) in a, b; say what they count as with --uncertain"
    )
    with pytest.raises(WrongUse, match=refused):
        _of(**_UNCERTAIN)
    with pytest.raises(WrongUse, match=r"2 uncertain labels \(-1, blank or NA\) in target; say"):
        _of(target=["1", "0", "-1", ""])


@pytest.mark.parametrize(
    ("uncertain", "labels"), [("negative", [1, 0, 0, 0]), ("positive", [1, 0, 1, 1])]
)
def test_an_uncertain_class_of_0_and_1_counts_as_the_option_has_it(
    uncertain: str, labels: list[int]
) -> None:
    found = _of(uncertain, target=["1", "0", "-1", ""])
    assert (found.classes, found.task) == (("0", "1"), "binary-class")
    assert found.labels.tolist() == labels


def test_an_uncertain_class_is_left_out_if_it_is_ignored() -> None:
    for cells in (["1", "0", "", "-1", "1"], ["b", "a", "", "", "b"]):
        found = _of("ignore", target=cells)
        assert found.usable.tolist() == [True, True, False, False, True]
        assert found.labels[found.usable].tolist() == [1, 0, 1]
        assert found.notes == ("2 images without a certain class were left out",)


@pytest.mark.parametrize("cell", ["NA", "N/A", "nan", "NaN", "null", "?"])
def test_cells_for_missing_values_count_as_blank(cell: str) -> None:
    assert _of("ignore", a=["1", cell], b=["0", "1"]).labels.tolist() == [[1, 0], [-1, 1]]
    assert _of("ignore", dx=["a", "b", cell, "a"]).usable.tolist() == [True, True, False, True]
    assert _of(dx=["a|b", f"{cell}|a", cell]).labels.tolist() == [[1, 1], [1, 0], [0, 0]]
    with pytest.raises(WrongUse, match=r"1 uncertain labels \(-1, blank or NA\) in y; say what"):
        _of(y=["0", "1", cell])


def test_none_and_unknown_may_be_classes() -> None:
    found = _of(dx=["none", "unknown", "-", "none", "-", "mel"])
    assert found.classes == ("-", "mel", "none", "unknown")


_SEVERAL = Known(("Edema", "Mass", "None"), "multi-label, binary-class")
_ONE = Known(("bcc", "mel", "nv"), "multi-class")


@pytest.mark.parametrize(
    ("columns", "known", "labels"),
    [
        ({"dx": ["Mass", "Edema", ""]}, _SEVERAL, [[0, 1, 0], [1, 0, 0], [0, 0, 0]]),
        ({"None": "00", "Mass": "10", "Edema": "01"}, _SEVERAL, [[0, 1, 0], [1, 0, 0]]),
        ({"dx": ["nv", "nv"]}, _ONE, [2, 2]),
        ({"nv": "10", "mel": "01"}, _ONE, [2, 1]),
        ({"y": ["1", "1.0"]}, Known(("0", "1"), "binary-class"), [1, 1]),
    ],
)
def test_labels_of_an_external_set_are_read_for_the_classes_of_a_training(
    columns: dict[str, Sequence[str]], known: Known, labels: list[object]
) -> None:
    cells = pd.DataFrame({name: list(column) for name, column in columns.items()}, dtype=str)
    found = labelled(cells, "refuse", "t.csv", known)
    assert found.labels.tolist() == labels
    assert (found.classes, found.task) == (known.classes, known.task)


@pytest.mark.parametrize(
    ("columns", "known", "refused"),
    [
        ({"dx": ["SECRET", "nv"]}, _ONE, "has the class 'SECRET', which the data set does not"),
        ({"dx": ["Mass|SECRET"]}, _SEVERAL, "has the class 'SECRET', .*: Edema, Mass, None"),
        ({"Mass": "10", "Edema": "01"}, _SEVERAL, "2 of the 3 labels .*; add a column .* None"),
        ({"nv": "11", "mel": "01"}, _ONE, "has labels for each image and the data set one class"),
        ({"dx": ["", "NA"]}, _ONE, "has no image with a class"),
    ],
)
def test_labels_of_an_external_set_that_a_training_lacks_are_refused(
    columns: dict[str, Sequence[str]], known: Known, refused: str
) -> None:
    cells = pd.DataFrame({name: list(column) for name, column in columns.items()}, dtype=str)
    with pytest.raises(WrongUse, match=refused) as raised:
        labelled(cells, "ignore", "t.csv", known)
    assert "SECRET" not in raised.value.logged


@pytest.mark.parametrize("uncertain", ["refuse", "negative", "positive"])
def test_a_blank_class_is_neither_negative_nor_positive(uncertain: str) -> None:
    with pytest.raises(WrongUse, match=r"1 rows without a class; .* with --uncertain ignore"):
        _of(uncertain, dx=["a", "", "b"])


@pytest.mark.parametrize(
    ("columns", "refused"),
    [
        ({"dx": ["a", "a"]}, "at least two classes with images, found a; add"),
        ({"y": ["1", "1"]}, "at least two classes with images, found 1; add"),
        ({"dx": ["a|b", "B"]}, "has the classes 'B' and 'b', which differ in case"),
        ({"dx": ["a b", "a  b", "c", "c"]}, "which differ in case or blanks alone"),
        ({"id": [f"{i}" for i in range(5)]}, "5 different labels for 5 images, which look like id"),
        ({"id": [f"c{i // 2}" for i in range(2002)]}, "1,001 different labels for 2,002 images"),
        ({"dx": ["a|a", "a"]}, "at least two classes with images, found a"),
        ({"a": ["0", "1"], "b": ["1", "SECRET"]}, "column 'b' of t.csv has cells other than 0, 1"),
    ],
)
def test_cells_that_are_no_labels_are_refused(columns: dict[str, list[str]], refused: str) -> None:
    with pytest.raises(WrongUse, match=refused) as raised:
        _of(**columns)
    assert "SECRET" not in str(raised.value)


@given(st.lists(st.sets(st.sampled_from("abcd")), min_size=3, max_size=30))
def test_joined_names_and_columns_of_0_and_1_give_the_same_labels(sets: list[set[str]]) -> None:
    names = sorted(set().union(*sets))
    if len(names) < 2 or all(len(own) <= 1 for own in sets):
        return  # without a bar these are classes
    joined = _of(dx=["|".join(own) for own in sets])
    columns = _of(**{name: [str(int(name in own)) for own in sets] for name in names})
    assert joined.classes == columns.classes == tuple(names)
    assert np.array_equal(joined.labels, columns.labels)
