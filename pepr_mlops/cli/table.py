"""Tables for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from pepr_mlops.text import printable


def table(rows: Sequence[Sequence[str]], header: Sequence[str] | None = None) -> str:
    """Rows of text in aligned columns, under a header and a rule if one is given.

    Columns that hold numbers only are set flush right. Control characters are shown as escapes.
    """
    rows = [[printable(cell) for cell in row] for row in rows]
    every = [*([header] if header else []), *rows]
    widths = [max(len(row[i]) for row in every) for i in range(len(every[0]))]
    right = [
        header is not None and all(_is_number(row[i]) for row in rows) for i in range(len(widths))
    ]
    lines = [
        "  ".join(
            cell.rjust(width) if flush else cell.ljust(width)
            for cell, width, flush in zip(row, widths, right, strict=True)
        ).rstrip()
        for row in every
    ]
    if header:
        lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def _is_number(text: str) -> bool:
    return text.replace(",", "").replace(".", "", 1).lstrip("-").isdigit()
