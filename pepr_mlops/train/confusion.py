"""The confusion matrix of a model, as a small picture and as CSV.

Pillow draws in milliseconds on any node; a Plotly page takes 5 MB, and a picture of it a browser.
"""

from __future__ import annotations

import io

import pandas as pd
from PIL import Image, ImageDraw, ImageFont

from pepr_mlops.comparison.metrics import Ints
from pepr_mlops.names import MULTI_LABEL, Task
from pepr_mlops.text import cell as safe_cell
from pepr_mlops.text import printable

_OUTCOMES = ("true negative", "false positive", "false negative", "true positive")
_WIDEST = 900  # pixels of all cells together; with many classes cells are small
_CELL = (8, 64)  # pixels, at least and at most
_ROOM_FOR_COUNT, _ROOM_FOR_NAME = 30, 12  # pixels of a cell
_LETTERS = 28  # of a name; the table has the full name
_DARK = (8, 48, 107)
_GAP, _LINE = 8, 20  # pixels


def table(counts: Ints, classes: tuple[str, ...], task: Task) -> str:
    """CSV of `metrics.confusion`: a row for each true class, a column for each predicted one;
    for a multi-label task a row for each label, a column for each outcome."""
    title, _, columns = _axes(classes, task)
    rows, heads = (list(map(safe_cell, names)) for names in (classes, columns))
    return str(pd.DataFrame(counts, rows, heads).to_csv(index_label=title, lineterminator="\n"))


def picture(counts: Ints, classes: tuple[str, ...], task: Task, title: str) -> bytes:
    """PNG of the same numbers, each cell coloured by its share of the row."""
    rows_title, columns_title, columns = _axes(classes, task)
    cell = min(_CELL[1], max(_CELL[0], _WIDEST // max(len(classes), len(columns))))
    font, title = ImageFont.load_default(13), printable(title)
    rows, heads = (
        [_short(name) if cell >= _ROOM_FOR_NAME else "" for name in names]
        for names in (classes, columns)
    )
    left = 2 * _GAP + max(_width(text, font) for text in (*rows, rows_title))
    top = 2 * _GAP + 2 * _LINE + max(_width(text, font) for text in heads)
    width = left + max(cell * len(columns), _width(columns_title, font)) + _GAP
    size = (max(width, _width(title, font) + 2 * _GAP), top + cell * len(rows) + _GAP)
    image = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(image)
    pen.text((_GAP, _GAP), title, "black", font)
    pen.text((left, _GAP + _LINE), columns_title, "black", font)
    pen.text((_GAP, top - _LINE), rows_title, "black", font)
    for j, name in enumerate(heads):
        upright = _upright(name, font)
        image.paste(upright, (left + j * cell + (cell - upright.width) // 2, top - upright.height))
    for i, name in enumerate(rows):
        y = top + i * cell
        pen.text((left - _GAP, y + cell // 2), name, "black", font, anchor="rm")
        total = max(1, int(counts[i].sum()))
        for j, count in enumerate(counts[i].tolist()):
            x, share = left + j * cell, count / total
            colour = tuple(round(255 + share * (dark - 255)) for dark in _DARK)
            pen.rectangle((x, y, x + cell - 2, y + cell - 2), fill=colour)
            if cell >= _ROOM_FOR_COUNT:
                ink = "white" if share > 0.5 else "black"
                pen.text((x + cell // 2, y + cell // 2), str(count), ink, font, anchor="mm")
    content = io.BytesIO()
    image.quantize(64).save(content, "PNG", optimize=True)
    return content.getvalue()


def _axes(classes: tuple[str, ...], task: Task) -> tuple[str, str, tuple[str, ...]]:
    """What rows and columns are, and the names of the columns."""
    if task == MULTI_LABEL:
        return "label", "outcome", _OUTCOMES
    return "true class", "predicted class", classes


def _short(name: str) -> str:
    name = printable(name)
    return name if len(name) <= _LETTERS else f"{name[: _LETTERS - 1]}…"


def _width(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> int:
    return round(font.getlength(text))


def _upright(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> Image.Image:
    """The text turned to read from bottom to top."""
    lying = Image.new("RGB", (_width(text, font) + _GAP, 18), "white")
    ImageDraw.Draw(lying).text((4, 1), text, "black", font)
    return lying.rotate(90, expand=True)
