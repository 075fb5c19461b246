"""Reads tables: CSV with any of the usual delimiters, TSV and Parquet, each cell as text."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pandas as pd

from pepr_mlops.errors import WrongUse

_DELIMITERS = ",;\t|"
_SAMPLE, _SAMPLE_ROWS = 1 << 16, 20  # characters and rows that decide on the delimiter


def read(path: Path, *, least: int = 2) -> pd.DataFrame:
    """The cells of a table as text without blanks at the ends, empty where they are missing.

    The index is the number of the row as spreadsheets count, where the names of the columns are row
    1. Rows without a cell and columns without a name are left out. Raises `WrongUse` for a file
    that is no such table or has less than the `least` columns, 1 or 2, without a cell of it.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise WrongUse(
            f"dataset: {path} is not a readable table ({error.strerror}); name a file that exists "
            "and can be read",
            reason="missing_data",
        ) from error
    if not content.strip():
        raise WrongUse(f"dataset: {path} is empty; name the columns in its first line")
    if path.suffix.lower() == ".parquet":
        table = _parquet(path, content)
    else:
        table = _csv(path, content, least)
    table = table.apply(lambda column: column.str.strip())
    table = table[(table != "").any(axis=1)]
    names = list(table.columns)
    if twice := sorted({name for name in names if name and names.count(name) > 1}):
        raise WrongUse(
            f"dataset: {path} has two columns {twice[0]}; rename or remove one",
            logged=f"dataset: {path} has two columns of one name; rename or remove one",
        )
    if table.empty:
        raise WrongUse(
            f"dataset: {path} has no row below its first line, which names the columns; add a row "
            "for each image"
        )
    return table.loc[:, [name for name in names if name]]


def _csv(path: Path, content: bytes, least: int) -> pd.DataFrame:
    text = _decoded(path, content)
    delimiter = _delimiter(text) or ("," if least == 1 else None)
    if delimiter is None:
        raise WrongUse(
            f"dataset: {path} has a single column; name at least one for the files and one for the "
            "labels in its first line, separated by commas, semicolons, tabs or |"
        )
    reader = _reader(text, delimiter, strict=True)
    try:
        rows = {number: row for number, row in enumerate(reader, start=1) if row}
    except csv.Error as error:
        raise WrongUse(
            f"dataset: {path} is not a readable table ({error}); put cells with quotes or "
            "delimiters in double quotes, and close these"
        ) from error
    names = rows.pop(next(iter(rows)))
    for number, row in rows.items():
        if len(row) != len(names):  # pandas would fill it or cut it off
            raise WrongUse(
                f"dataset: row {number} of {path} has {len(row)} cells for {len(names)} columns; "
                "put a cell that contains the delimiter in double quotes"
            )
    columns = [name.strip() for name in names]
    return pd.DataFrame(list(rows.values()), list(rows), columns, dtype=str)


def _decoded(path: Path, content: bytes) -> str:
    try:
        utf_16 = content.startswith((b"\xff\xfe", b"\xfe\xff"))  # as spreadsheets write it
        text = content.decode("utf-16" if utf_16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise WrongUse(
            f"dataset: {path} is not a readable table (byte {error.start:,} is not UTF-8, but "
            "perhaps Latin-1 or a spreadsheet's own format); save it as CSV in UTF-8 (in Excel: "
            "Save as, CSV UTF-8)"
        ) from error
    if "\0" in text:
        raise WrongUse(
            f"dataset: {path} is not a readable table (it is binary or UTF-16); save it as CSV in "
            "UTF-8"
        )
    return text


def _delimiter(text: str) -> str | None:
    """The delimiter that gives the first rows the most cells, if possible as many in each."""
    sample = text[:_SAMPLE]
    if len(text) > _SAMPLE:
        sample = sample[: sample.rfind("\n") + 1] or sample
    found = {}
    for delimiter in _DELIMITERS:
        rows = _reader(sample, delimiter, strict=False)
        cells = [len(row) for row in islice(filter(None, rows), _SAMPLE_ROWS)]
        found[delimiter] = (cells[0] > 1 and len(set(cells)) == 1, cells[0])
    best = max(found, key=found.__getitem__)
    return best if found[best][1] > 1 else None


def _reader(text: str, delimiter: str, *, strict: bool) -> Iterator[list[str]]:
    lines = io.StringIO(text, newline=None)  # whatever ends a line
    return csv.reader(lines, delimiter=delimiter, skipinitialspace=True, strict=strict)


def _parquet(path: Path, content: bytes) -> pd.DataFrame:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(pa.BufferReader(content))
        columns = []
        for column in table.columns:
            if pa.types.is_floating(column.type):
                column = pc.if_else(pc.is_nan(column), None, column)
            elif pa.types.is_boolean(column.type):
                column = column.cast(pa.int8())
            columns.append(column.cast(pa.string()).fill_null("").to_pandas().astype(str))
    except pa.ArrowException as error:
        raise WrongUse(
            f"dataset: {path} is not a readable table of texts and numbers; save it as CSV in UTF-8"
        ) from error
    if not columns:
        raise WrongUse(f"dataset: {path} has no column; add one for the files and one for labels")
    read = pd.concat(columns, axis=1, ignore_index=True)
    read.index += 2
    return read.set_axis([name.strip() for name in table.column_names], axis=1)
