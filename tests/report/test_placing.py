"""Names in figures: next to their points, inside the plot, never over each other."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
import pytest

from pepr_mlops.report.figures.placing import _WIDTH, Axis, Label, _box, add_labels, along, places

SIZE = (80.0, 15.6)
NOBODY = np.empty((0, 2))


def test_a_name_stands_above_its_point_where_there_is_room() -> None:
    (place,) = places(np.array([[125.0, 100.0]]), [SIZE], NOBODY, 300)
    assert place is not None
    assert (place.right, place.down, place.anchor) == (0, -16, "center")


def test_a_name_covers_no_other_points_where_it_can_help_it() -> None:
    at, above = np.array([[125.0, 100.0]]), np.array([[125.0, 84.0]])
    (place,) = places(at, [SIZE], above, 300)
    assert place is not None
    assert (place.right, place.down, place.anchor) == (0, 16, "center")


def test_names_of_a_crowd_never_overlap_and_stay_inside() -> None:
    rng = np.random.default_rng(0)
    at = rng.uniform([0, 0], [_WIDTH, 300], (12, 2))
    found = places(at, [SIZE] * 12, at, 300)
    boxes = [
        _box(x, y, place, SIZE)
        for (x, y), place in zip(at, found, strict=True)
        if place is not None
    ]
    assert len(boxes) >= 8
    for i, (left, top, right, bottom) in enumerate(boxes):
        assert 0 <= left < right <= _WIDTH
        assert 0 <= top < bottom <= 300
        for x, y in at:  # the points that have names stay visible
            assert not (left < x < right and top < y < bottom)
        for other in boxes[:i]:
            assert right <= other[0] or other[2] <= left or bottom <= other[1] or other[3] <= top


@pytest.mark.parametrize("stretch", [1, 2, 3])
@pytest.mark.parametrize("seed", range(5))
def test_no_line_to_a_point_crosses_another_name(seed: int, stretch: int) -> None:
    at = np.random.default_rng(seed).uniform([60, 100], [190, 200], (8, 2))
    found = places(at, [SIZE] * 8, NOBODY, 300)
    named = [(x * stretch, y, place) for (x, y), place in zip(at, found, strict=True) if place]
    assert len(named) >= 4
    for i, (x, y, place) in enumerate(named):
        steps = np.linspace(0, 1, 11)
        line = list(zip(x + steps * place.right, y + steps * place.down, strict=True))
        for other in named[:i] + named[i + 1 :]:
            left, top, right, bottom = _box(*other, SIZE)
            assert not any(left < px < right and top < py < bottom for px, py in line)


def test_a_name_covers_no_more_points_than_it_may() -> None:
    at = np.array([[125.0, 150.0]])
    everywhere = np.stack(np.meshgrid(np.arange(0, 251, 5), np.arange(0, 301, 5)), -1)
    assert places(at, [SIZE], everywhere.reshape(-1, 2), 300) != [None]
    assert places(at, [SIZE], everywhere.reshape(-1, 2), 300, most=2) == [None]


def test_a_line_has_points_between_its_points() -> None:
    x, y = along([([0, 6], [0, 12]), ([5], [7])])
    assert x.tolist() == [0, 1, 2, 3, 4, 5, 6, 5]
    assert y.tolist() == [0, 2, 4, 6, 8, 10, 12, 7]


def test_without_room_there_is_no_name() -> None:
    assert places(np.array([[125.0, 100.0]]), [(400.0, 16.0)], NOBODY, 300) == [None]
    same = np.full((20, 2), 100.0)
    found = places(same, [SIZE] * 20, NOBODY, 200)
    assert found[0] is not None  # the first name has the best place
    assert None in found


def test_an_axis_has_shares_also_where_it_is_logarithmic() -> None:
    assert Axis(1, 3).shares([1, 2, 3]).tolist() == [0, 0.5, 1]
    log = Axis(1, 100, log=True)
    assert log.shares([1, 10, 100]).tolist() == [0, 0.5, 1]
    assert log.range == [0, 2]


@pytest.mark.parametrize(("every", "written"), [(False, ["<b>a</b>"]), (True, [])])
def test_all_names_or_those_that_have_room(every: bool, written: list[str]) -> None:
    figure = go.Figure()
    labels = [Label(10, 1, "a", colour="#123456"), Label(10, 1, "b", "c" * 99)]
    x, y = Axis(1, 100, log=True), Axis(0, 2)
    assert not add_labels(figure, labels, x, y, crowd=([10], [1]), height=300, every=every)
    assert [note.text for note in figure.layout.annotations] == written
    for note in figure.layout.annotations:
        assert (note.x, note.y, note.font.color) == (1, 1, "#123456")  # plotly wants the logarithm
