"""Which classes a model takes for which, as a small picture and as numbers.

Pillow draws in milliseconds on any node; a page of Plotly's takes 5 MB, and a picture of it a
browser.
"""

from __future__ import annotations

import csv
import io

from PIL import Image, ImageDraw, ImageFont

from pepr_mlops.names import MULTI_LABEL, Task
from pepr_mlops.text import cell as safe_cell
from pepr_mlops.text import printable
from pepr_mlops.train.metrics import Ints

_OUTCOMES = ("true negative", "false positive", "false negative", "true positive")
_WIDEST = 900  # pixels of all cells together; with many classes cells are small
_CELL = (8, 64)  # pixels, at least and at most
_WRITTEN = 30  # pixels of a cell that has room for a count
_NAMED = 12  # pixels of a cell that has room for a name
_LETTERS = 28  # of a name; the table has all of it
_DARK = (8, 48, 107)
_GAP = 8  # pixels


def table(counts: Ints, classes: tuple[str, ...], task: Task) -> str:
    """CSV of `performance.confusion`: a row for each true class, a column for each predicted one;
    for a multi-label task a row for each label, a column for each outcome."""
    written = io.StringIO()
    lines = csv.writer(written, lineterminator="\n")
    lines.writerow([_titles(task)[0], *map(safe_cell, _columns(classes, task))])
    for name, row in zip(classes, counts.tolist(), strict=True):
        lines.writerow([safe_cell(name), *row])
    return written.getvalue()


def picture(counts: Ints, classes: tuple[str, ...], task: Task, title: str) -> bytes:
    """PNG of the same numbers, each cell coloured by its share of the row."""
    columns = _columns(classes, task)
    cell = min(_CELL[1], max(_CELL[0], _WIDEST // max(len(classes), len(columns))))
    font, title = ImageFont.load_default(13), printable(title)
    named = cell >= _NAMED
    rows = [_short(name) if named else "" for name in classes]
    heads = [_short(name) if named else "" for name in columns]
    of_rows, of_columns = _titles(task)
    line = 20
    left = 2 * _GAP + max(_width(text, font) for text in (*rows, of_rows))
    top = _GAP + 2 * line + max(_width(text, font) for text in heads) + _GAP
    width = left + max(cell * len(columns), _width(of_columns, font)) + _GAP
    size = (max(width, _width(title, font) + 2 * _GAP), top + cell * len(rows) + _GAP)
    image = Image.new("RGB", size, "white")
    drawn = ImageDraw.Draw(image)
    drawn.text((_GAP, _GAP), title, "black", font)
    drawn.text((left, _GAP + line), of_columns, "black", font)
    drawn.text((_GAP, top - line), of_rows, "black", font)
    for j, name in enumerate(heads):
        upright = _upright(name, font)
        image.paste(upright, (left + j * cell + (cell - upright.width) // 2, top - upright.height))
    for i, name in enumerate(rows):
        y = top + i * cell
        drawn.text((left - _GAP, y + cell // 2), name, "black", font, anchor="rm")
        total = max(1, int(counts[i].sum()))
        for j, count in enumerate(counts[i].tolist()):
            x, share = left + j * cell, count / total
            colour = tuple(round(255 + share * (dark - 255)) for dark in _DARK)
            drawn.rectangle((x, y, x + cell - 2, y + cell - 2), fill=colour)
            if cell >= _WRITTEN:
                ink = "white" if share > 0.5 else "black"
                drawn.text((x + cell // 2, y + cell // 2), str(count), ink, font, anchor="mm")
    content = io.BytesIO()
    image.quantize(64).save(content, "PNG", optimize=True)
    return content.getvalue()


def _columns(classes: tuple[str, ...], task: Task) -> tuple[str, ...]:
    return _OUTCOMES if task == MULTI_LABEL else classes


def _titles(task: Task) -> tuple[str, str]:
    """What rows and columns are."""
    return ("label", "outcome") if task == MULTI_LABEL else ("true class", "predicted class")


def _short(name: str) -> str:
    name = printable(name)
    return name if len(name) <= _LETTERS else f"{name[: _LETTERS - 1]}…"


def _width(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> int:
    return round(font.getlength(text))


def _upright(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> Image.Image:
    """The text read from below, its beginning at the bottom."""
    lying = Image.new("RGB", (_width(text, font) + _GAP, 18), "white")
    ImageDraw.Draw(lying).text((4, 1), text, "black", font)
    return lying.rotate(90, expand=True)
