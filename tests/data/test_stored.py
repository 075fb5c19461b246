"""Images on disk are the array that was written, of which any rows are read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pepr_mlops.data.splits import Split
from pepr_mlops.data.stored import Stored
from pepr_mlops.errors import WorkFailed

IMAGES = np.random.default_rng(0).integers(0, 256, (50, 4, 4, 3), dtype=np.uint8)


@pytest.fixture
def stored(tmp_path: Path) -> Stored:
    path = tmp_path / "images.u8"
    path.write_bytes(IMAGES.tobytes())
    return Stored(path, IMAGES.shape[1:], np.arange(len(IMAGES)))


@pytest.mark.parametrize("rows", [[0], [49, 0, 1, 2, 2], list(range(50)), [7, 8, 9, 3, 4]])
def test_any_rows_are_read_in_the_requested_order(stored: Stored, rows: list[int]) -> None:
    into = np.zeros((len(rows), 4, 4, 3), np.uint8)
    stored.read(np.array(rows), into)
    np.testing.assert_array_equal(into, IMAGES[rows])


def test_a_part_of_a_part_is_of_the_same_file(stored: Stored) -> None:
    part = stored.take(np.arange(10, 40)).take(np.array([5, 0, 29]))
    assert part.shape == (3, 4, 4, 3)
    assert part.nbytes == 3 * 48
    np.testing.assert_array_equal(np.concatenate(list(part.parts())), IMAGES[[15, 10, 39]])


def test_its_digest_is_that_of_the_array_in_memory(stored: Stored) -> None:
    labels = np.arange(50)
    rows = np.array([3, 1, 4, 1])
    on_disk = Split(stored, labels).take(rows)
    assert on_disk.digest() == Split(IMAGES[rows], labels[rows]).digest()
    assert on_disk.digest() != Split(IMAGES[rows[::-1]], labels[rows]).digest()


def test_a_file_that_was_cut_off_or_deleted_is_reported(stored: Stored, tmp_path: Path) -> None:
    into = np.zeros((1, 4, 4, 3), np.uint8)
    with stored.path.open("r+b") as file:
        file.truncate(49 * 48 + 10)
    stored.read(np.array([48]), into)
    with pytest.raises(WorkFailed, match="incomplete; start the job again"):
        stored.read(np.array([49]), into)
    gone = Stored(tmp_path / "gone", (4, 4, 3), np.arange(2))
    with pytest.raises(WorkFailed, match="cannot be read"):
        gone.read(np.array([0]), into)
