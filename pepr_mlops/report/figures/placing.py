"""Names in a figure, next to the points they belong to and never over each other. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go

from pepr_mlops.comparison.pepr import Floats
from pepr_mlops.report import theme

# The plot of a phone in px: in a wider one points and with them their names move apart.
_WIDTH = 250
_STRETCHES = (1.0, 2.0, 3.0)  # times that are the plots of a phone, of paper and of a desk
_SIZE = 12  # of the letters, px
_LETTER, _LINE = 0.58 * _SIZE, 1.3 * _SIZE
_MARK = 7.0  # px from a point to the edge of its mark
_GAPS = (16, 24, 34, 48, 64, 82, 102, 124)  # px from a point to the middle of its name
_MOST = 2  # points that a name covers, where a legend can stand for all names
_BETWEEN = 6  # points on a line for each of its points
_COVERED = 15.0  # px of distance that are worth not covering a point
_STEPS = 30  # points of the line from a name to its point


@dataclass(frozen=True)
class Label:
    """A name in bold and a `note` at a point, as text, in a colour; None is that of the page."""

    x: float
    y: float
    name: str
    note: str = ""
    colour: str | None = None


@dataclass(frozen=True)
class Axis:
    """The ends of an axis, which may be logarithmic."""

    low: float
    high: float
    log: bool = False

    def shares(self, values: Any) -> Floats:
        """Where values lie, 0 at the low end and 1 at the high one."""
        low, high, at = self.low, self.high, np.asarray(values, float)
        if self.log:
            low, high, at = np.log10(low), np.log10(high), np.log10(at)
        return np.asarray((at - low) / (high - low))

    @property
    def range(self) -> list[float]:
        """The range as plotly has it."""
        return [float(v) for v in (np.log10([self.low, self.high]) if self.log else
                                   (self.low, self.high))]  # fmt: skip


@dataclass(frozen=True)
class Place:
    """Where a name stands: px to the right of its point and below it, and what is there of it."""

    right: float
    down: float
    anchor: str


_Box = tuple[float, float, float, float]  # left, top, right, bottom


def along(lines: Iterable[tuple[Any, Any]]) -> tuple[Floats, Floats]:
    """The x and the y of points on lines through points, close enough to see what covers a line."""
    xs, ys = [], []
    for x, y in lines:
        known = np.arange(len(x))
        at = np.linspace(0, len(x) - 1, _BETWEEN * (len(x) - 1) + 1)
        xs.append(np.interp(at, known, np.asarray(x, float)))
        ys.append(np.interp(at, known, np.asarray(y, float)))
    return np.concatenate(xs), np.concatenate(ys)


def places(
    at: Floats,
    sizes: Sequence[tuple[float, float]],
    crowd: Floats,
    height: float,
    most: float = math.inf,
) -> list[Place | None]:
    """A place for each name, the first ones first; None where there is no room, at any of
    _STRETCHES, or where the line to its point would cross another name.

    `at` [names, 2] are the points in px from the upper left of a plot of _WIDTH and `height`,
    `sizes` the width and height of each name and `crowd` [points, 2] other points, of which a name
    covers as few as it can and no more than `most`.
    """
    plots = [_Plot(at * (stretch, 1), crowd * (stretch, 1)) for stretch in _STRETCHES]
    phone, *_, desk = plots
    found: list[Place | None] = []
    for i, size in enumerate(sizes):
        best: tuple[float, Place] | None = None
        for distance, place in _candidates(size):
            left, top, right, bottom = phone.box(i, place, size)
            inside = left >= 0 and right <= _WIDTH and top >= 0 and bottom <= height
            if not inside or not all(plot.has_room(i, place, size) for plot in plots):
                continue
            covered = sum(_inside(p.crowd, p.box(i, place, size)) for p in (phone, desk))
            worth = distance + _COVERED * covered
            if covered <= most and (best is None or worth < best[0]):
                best = worth, place
        found.append(None if best is None else best[1])
        if best is not None:
            for plot in plots:
                plot.take(i, best[1], size)
    return found


class _Plot:
    """What is taken of a plot with names at the points `at` [names, 2] among a `crowd`, in px."""

    def __init__(self, at: Floats, crowd: Floats) -> None:
        self.crowd = crowd
        self._at = at
        self._marks: list[_Box] = [(x - _MARK, y - _MARK, x + _MARK, y + _MARK) for x, y in at]
        self._names: list[_Box] = []
        self._lines: list[Floats] = []

    def box(self, i: int, place: Place, size: tuple[float, float]) -> _Box:
        """What the i-th name covers."""
        x, y = self._at[i]
        return _box(x, y, place, size)

    def _line(self, i: int, place: Place) -> Floats:
        """Points on the line from the i-th name to its point, [_STEPS, 2]."""
        x, y = self._at[i]
        return np.linspace((x, y), (x + place.right, y + place.down), _STEPS)

    def has_room(self, i: int, place: Place, size: tuple[float, float]) -> bool:
        """Whether the i-th name and its line meet no other, nor a mark."""
        box, line = self.box(i, place, size), self._line(i, place)
        return not (
            any(_meet(box, other) for other in (*self._marks, *self._names))
            or any(_inside(line, other) for other in self._names)
            or any(_inside(other, box) for other in self._lines)
        )

    def take(self, i: int, place: Place, size: tuple[float, float]) -> None:
        """Put the i-th name there."""
        self._names.append(self.box(i, place, size))
        self._lines.append(self._line(i, place))


def _candidates(size: tuple[float, float]) -> Iterator[tuple[float, Place]]:
    for gap in _GAPS:
        away = gap + (size[1] - _LINE) / 2
        for down in (-away, away):
            for right, anchor in ((0.0, "center"), (-_MARK, "left"), (_MARK, "right")):
                yield gap, Place(right, down, anchor)
        yield gap, Place(gap, 0.0, "left")
        yield gap, Place(-gap, 0.0, "right")


def _box(x: float, y: float, place: Place, size: tuple[float, float]) -> _Box:
    width, height = size
    left = x + place.right - {"left": 0.0, "center": width / 2, "right": width}[place.anchor]
    return left, y + place.down - height / 2, left + width, y + place.down + height / 2


def _inside(points: Floats, box: _Box) -> int:
    """How many points are in a box."""
    x, y = points.T
    return int(((x > box[0]) & (x < box[2]) & (y > box[1]) & (y < box[3])).sum())


def _meet(a: _Box, b: _Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def add_labels(
    figure: go.Figure,
    labels: Sequence[Label],
    x: Axis,
    y: Axis,
    *,
    crowd: Any,
    height: float,
    every: bool = False,
) -> bool:
    """Write the labels that have room into the figure, the first ones in the best places; whether
    all have.

    `crowd` are the x and the y of all points, and `height` is that of the plot in px. With `every`
    none is written unless all have room that is free of points.
    """

    def px(xs: Any, ys: Any) -> Floats:
        return np.column_stack([x.shares(xs) * _WIDTH, (1 - y.shares(ys)) * height])

    texts = [[theme.shortened(one.name), *([one.note] if one.note else [])] for one in labels]
    sizes = [(_LETTER * max(map(len, lines)) + 6, _LINE * len(lines)) for lines in texts]
    at = px([one.x for one in labels], [one.y for one in labels])
    found = places(at, sizes, px(*crowd), height, _MOST if every else math.inf)
    all_have = None not in found
    for one, lines, place in zip(labels, texts, found, strict=True):
        if place is None or (every and not all_have):
            continue
        first, *rest = theme.texts(lines)
        figure.add_annotation(
            x=float(np.log10(one.x)) if x.log else one.x,
            y=float(np.log10(one.y)) if y.log else one.y,
            text="<br>".join([f"<b>{first}</b>", *rest]),
            ax=place.right,
            ay=place.down,
            xanchor=place.anchor,
            yanchor="middle",
            align=place.anchor,
            showarrow=True,
            arrowhead=0,
            arrowwidth=1,
            standoff=_MARK,
            arrowcolor=one.colour,
            font={"size": _SIZE, "color": one.colour},
        )
    return all_have
