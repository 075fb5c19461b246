"""Frames as people and programs read them: table, CSV, JSON, LaTeX, Markdown."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pepr_mlops.cli.table import table
from pepr_mlops.errors import WorkFailed
from pepr_mlops.text import cell, printable

if TYPE_CHECKING:
    import pandas as pd


def text(frame: pd.DataFrame, form: str, columns: Mapping[str, str] | None = None) -> str:
    """The frame in a form; `columns` (name and heading) are shown where it is for people.

    CSV and JSON have all columns and all digits; a missing value is empty or null. In CSV a text
    that a spreadsheet would take for a formula begins with a quote. Control characters are escapes.
    """
    if form == "json":
        return json.dumps([_plain(row) for row in frame.to_dict("records")], indent=2)
    if form == "csv":
        flat = frame.map(lambda v: "; ".join(map(str, v)) if isinstance(v, list) else v)
        safe = flat.map(cell).rename(columns=cell)
        return str(safe.to_csv(index=False, lineterminator="\n")).rstrip("\n")
    shown = columns or {str(c): str(c) for c in frame.columns}
    rows = [[_cell(row[c]) for c in shown] for row in frame.to_dict("records")]
    if form == "table":
        return table(rows, list(shown.values())) if rows else "nothing"
    from tabulate import tabulate

    if form == "markdown":
        rows = [[_unmarked(cell) for cell in row] for row in rows]
    style = {"markdown": "github", "latex": "latex_booktabs"}[form]
    table_ = str(tabulate(rows, list(shown.values()), tablefmt=style, disable_numparse=True))
    # What begins a row of LaTeX so would be an argument of the line's end before it.
    return re.sub(r"(?m)^(\s*)(?=[\[*])", r"\1{}", table_) if form == "latex" else table_


def aside(words: str, form: str) -> str:
    """Words around a table of a form: a comment in LaTeX, text and never markup in Markdown."""
    words = printable(words, lines=True)
    if form == "latex":
        return "\n".join(f"% {line}" for line in words.splitlines())
    return _unmarked(words) if form == "markdown" else words


def _unmarked(words: str) -> str:
    """The words as Markdown that has no links, code, columns or HTML in it."""
    return re.sub(r"([\\`*\[\]|])", r"\\\1", escape(words, quote=False))


def as_json(value: Any) -> str:
    """A dictionary or list as JSON, with null for what is missing."""
    return json.dumps(_plain(value), indent=2)


def say(text: object, *, err: bool = False) -> None:
    """Print what nobody's names can make more of than text, on standard output or error."""
    click.echo(printable(str(text), lines=True), err=err)


def give(text: str, out: Path | None) -> None:
    """Print the result, or write it to a file and say so."""
    if out is None:
        say(text)
        return
    try:
        out.write_text(text + "\n")
    except OSError as error:
        raise WorkFailed(f"out: {out} cannot be written ({error.strerror})") from error
    say(f"written to {out}", err=True)


def tell(notes: Sequence[str]) -> None:
    """Notes go to standard error, so that a program can read the rest."""
    for note in notes:
        say(f"note: {note}", err=True)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if hasattr(value, "item"):
        value = value.item()
    if value is None or value != value or value in (math.inf, -math.inf):
        return None
    return value if isinstance(value, bool | int | float | str) else str(value)


def _cell(value: Any) -> str:
    """Four decimals, or four digits of the very small and large; nothing for what is missing."""
    value = _plain(value) if not isinstance(value, list) else ", ".join(map(str, value))
    if value is None:
        return ""
    if isinstance(value, float):
        readable = value == 0 or 1e-3 <= abs(value) < 1e4
        return f"{value:.4f}" if readable else f"{value:.4g}"
    return printable(str(value))
