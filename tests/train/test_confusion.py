"""The picture and the table of which classes are taken for which."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest
from PIL import Image

from pepr_mlops.names import MULTI_LABEL, Task
from pepr_mlops.train import confusion

COUNTS = np.array([[3, 1], [0, 4]])


def test_the_table_names_true_and_predicted_classes() -> None:
    written = confusion.table(COUNTS, ("nevus, flat", "=melanoma"), "binary-class")
    assert list(csv.reader(io.StringIO(written))) == [
        ["true class", "nevus, flat", "'=melanoma"],
        ["nevus, flat", "3", "1"],
        ["'=melanoma", "0", "4"],
    ]


def test_of_several_labels_the_table_has_the_outcomes_of_each() -> None:
    counts = np.array([[5, 1, 2, 3], [7, 0, 0, 4]])
    rows = list(csv.reader(io.StringIO(confusion.table(counts, ("a", "b"), MULTI_LABEL))))
    assert rows[0][1:] == ["true negative", "false positive", "false negative", "true positive"]
    assert rows[1:] == [["a", "5", "1", "2", "3"], ["b", "7", "0", "0", "4"]]


def test_a_cell_is_as_dark_as_its_share_of_the_row() -> None:
    content = confusion.picture(COUNTS, ("a", "b"), "binary-class", "net on the test set")
    image = Image.open(io.BytesIO(content)).convert("RGB")
    y, x = np.nonzero((np.asarray(image) == (8, 48, 107)).all(axis=2))
    x0, x1, y0, y1 = int(x.min()), int(x.max()), int(y.min()), int(y.max())
    assert (x1 - x0, y1 - y0) == (62, 62)  # the cell of 4 of 4, 64 pixels with its gap
    assert image.getpixel((x0 + 2, y0 - 62)) == (193, 203, 218)  # 1 of 4: 255 - (255 - 8) / 4
    assert image.getpixel((x0 - 62, y0 + 2)) == (255, 255, 255)  # 0 of 4


@pytest.mark.parametrize(
    ("n", "task"), [(1, "multi-class"), (14, MULTI_LABEL), (300, "multi-class")]
)
def test_the_picture_is_small_whatever_the_classes(n: int, task: Task) -> None:
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 2000, (n, 4 if task == MULTI_LABEL else n))
    names = tuple(f"\u202eclass\n{i} with a name that does not end" for i in range(n))
    content = confusion.picture(counts, names, task, "net on the test set")
    assert content.startswith(b"\x89PNG")
    assert len(content) < (150_000 if n == 300 else 30_000)
