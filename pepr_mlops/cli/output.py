"""What commands print and write: tables, CSV, JSON, LaTeX, Markdown, and notes."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pepr_mlops.errors import WorkFailed
from pepr_mlops.text import cell, decimals, printable, unmarked

if TYPE_CHECKING:
    import pandas as pd


def say(text: object, *, err: bool = False) -> None:
    """Print text on standard output or error, with control characters as escapes."""
    click.echo(printable(str(text), lines=True), err=err)


def note(*texts: str) -> None:
    """Notes go to standard error, so that a program can read standard output."""
    for text in texts:
        say(f"note: {text}", err=True)


def say_or_write(text: str, out: Path | None) -> None:
    """Print the result, or write it to a file and report where."""
    if out is None:
        say(text)
        return
    write(out, text + "\n")
    say(f"written to {out}", err=True)


def write(path: Path, text: str, option: str = "out") -> None:
    """Write a file and make its folder. Raises `WorkFailed`, which begins with `option`."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise WorkFailed(f"{option}: {path} cannot be written ({error.strerror})") from error


def table(rows: Sequence[Sequence[str]], header: Sequence[str] | None = None) -> str:
    """Rows of text in aligned columns, under a header and a rule if one is given.

    Columns that hold numbers only are set flush right. Control characters are shown as escapes.
    """
    cells = [[printable(cell) for cell in row] for row in rows]
    every = [list(header), *cells] if header else cells
    columns = []
    for i, texts in enumerate(zip(*every, strict=True)):
        width = max(map(len, texts))
        right = header is not None and all(_is_number(row[i]) for row in cells)
        aligned = [text.rjust(width) if right else text.ljust(width) for text in texts]
        columns.append([aligned[0], "-" * width, *aligned[1:]] if header else aligned)
    return "\n".join("  ".join(line).rstrip() for line in zip(*columns, strict=True))


def _is_number(text: str) -> bool:
    return text.replace(",", "").replace(".", "", 1).lstrip("-").isdigit()


def render(
    rows: pd.DataFrame | Sequence[Mapping[str, Any]],
    form: str,
    columns: Mapping[str, str] | None = None,
) -> str:
    """Rows in a form; people see the `columns` (name and heading), programs all of them.

    CSV and JSON have all digits; a missing value is empty or null. In CSV a text that a
    spreadsheet would take for a formula begins with a quote. Control characters are escapes.
    """
    names = list(rows[0] if rows else columns or ()) if isinstance(rows, Sequence) else [*rows]
    records = rows if isinstance(rows, Sequence) else rows.to_dict("records")
    if form == "json":
        return as_json(records)
    if form == "csv":
        file = io.StringIO()
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([cell(name) for name in names])
        writer.writerows([_csv_cell(row[name]) for name in names] for row in records)
        return file.getvalue().rstrip("\n")
    columns = columns or {str(name): str(name) for name in names}
    headings, cells = list(columns.values()), [[_cell(row[c]) for c in columns] for row in records]
    if form == "table":
        return table(cells, headings) if cells else "nothing"
    from tabulate import tabulate

    if form == "markdown":
        cells = [[unmarked(cell) for cell in row] for row in cells]
        return str(tabulate(cells, headings, tablefmt="github", disable_numparse=True))
    latex = str(tabulate(cells, headings, tablefmt="latex_booktabs", disable_numparse=True))
    # At the start of a row, * or [ would be an argument of the line end before it.
    return re.sub(r"(?m)^(\s*)(?=[\[*])", r"\1{}", latex)


def caption(text: str, form: str) -> str:
    """Text around a table of a form: a comment in LaTeX, text and never markup in Markdown."""
    text = printable(text, lines=True)
    if form == "latex":
        return "\n".join(f"% {line}" for line in text.splitlines())
    return unmarked(text) if form == "markdown" else text


def as_json(value: Any) -> str:
    """A dictionary or list as JSON, with null for what is missing."""
    return json.dumps(_plain(value), indent=2)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if hasattr(value, "to_dict"):
        return _plain(value.to_dict("records"))
    if hasattr(value, "item"):
        value = value.item()
    if value is None or value != value or value in (math.inf, -math.inf):
        return None
    return value if isinstance(value, bool | int | float | str) else str(value)


def energies(jobs: pd.DataFrame) -> list[str]:
    """The energy of each job with its unit; empty where it is not known."""
    from pepr_mlops.comparison.words import amount

    texts = jobs["energy_wh"].map(lambda wh: amount(wh, "Wh", 4), na_action="ignore")
    return list(texts.fillna(""))


def _csv_cell(value: Any) -> Any:
    if isinstance(value, list):
        return cell("; ".join(map(str, value)))
    return "" if value is None or value != value else cell(value)


def _cell(value: Any) -> str:
    """A number as `text.decimals`; nothing for what is missing."""
    value = _plain(value) if not isinstance(value, list) else ", ".join(map(str, value))
    if value is None:
        return ""
    return decimals(value) if isinstance(value, float) else printable(str(value))
