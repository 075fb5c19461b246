"""Anyone's CSV table: a finished run for each row, by a mapping of our names to its columns."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from pepr_mlops.errors import WrongUse, nearest
from pepr_mlops.imports import units
from pepr_mlops.imports.files import (
    AMOUNT,
    PARAMS,
    FinishedRun,
    Number,
    number_cells,
    params_of,
    power_doubt,
    read_cells,
)
from pepr_mlops.names import COMPONENTS, METRICS, PERFORMANCE, PROFILED, RESOURCES

ID = "id"  # what tells the rows apart, if they are not told apart by what is mapped
_WHERE = "whoever made the table"
_REMEDY = "correct it, or leave the cell empty if it is not known"
_TAGS = {"hardware": "pepr.hardware", "parameters": "pepr.parameters"}
_COLUMNS = {r.column: r.metric for r in RESOURCES.values() if r.metric is not None}
# Without what only `pepr profile`, trials and forecasts log.
_METRICS = tuple(
    name
    for name in METRICS
    if name not in PROFILED and not name.endswith("_cv") and not re.search("trial|forecast", name)
)
_VALID = (ID, *PARAMS, *_TAGS, *_COLUMNS, *_METRICS)


@dataclass(frozen=True)
class Mapped:
    """One of our names, the column that has it, and the unit there, None of a text."""

    name: str
    column: str
    unit: str | None

    @property
    def metric(self) -> str:
        """The metric that the name means; of a parameter or tag the name itself."""
        return _COLUMNS.get(self.name, self.name)

    @property
    def number(self) -> Number:
        """The valid numbers in the file's unit."""
        if self.unit is None:
            return Number(1, 1e15, integer=True)  # of `parameters`
        ours = METRICS[self.metric].unit
        if ours == "1":
            return Number(0, 100 if self.unit == "%" else 1)
        return Number(0, AMOUNT.high) if ours == "nat" else AMOUNT


def read(
    path: Path, experiment: str, given: Mapping[str, str], mapping: Sequence[str]
) -> tuple[list[FinishedRun], list[str]]:
    """A run for each row of the table at `path`, and no notes.

    `mapping` are words such as `energy_wh=Energy:kWh`: our name, the column and its unit, which is
    ours if left out. `given` are parameters of all runs. P is `performance`, or else the first
    mapped metric of the test set that is better when higher. Raises `WrongUse` for a file that is
    missing, a name, column or unit that is none, shares mapped as per cent, a cell that is no such
    value, a row without a model or without any number, and two equal rows.
    """
    table = read_cells(path, _WHERE)
    if table.empty:
        raise WrongUse(f"import: {path} has no rows")
    mapped = [_mapped(word, list(table.columns), path) for word in mapping]
    names = [m.metric for m in mapped]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise WrongUse(f"map: {twice} is mapped twice; name one column of {path}")
    if "model" not in (*names, *given):
        raise WrongUse("map: no column is the model; add --map model=COLUMN or --model NAME")
    cells = pd.DataFrame({m.metric: table[m.column] for m in mapped})
    for m in mapped:
        if m.unit is not None or m.name == "parameters":
            column = number_cells(table[m.column], m.number, path, _hint(m))
            if m.unit == "%" and METRICS[m.metric].better == "higher" and column.max() <= 1:
                raise WrongUse(
                    f"map: no {m.column} of {path} is above 1%; if they are shares, --map "
                    f"{m.name}={m.column}:1"
                )
            cells[m.metric] = column.map(lambda v, m=m: _converted(v, m))
    params = params_of(given, "import")
    runs = [
        _run(row, f"row {number} of {path}", path.name, experiment, params)
        for number, row in enumerate(cells.to_dict("records"), start=2)
    ]
    rows: dict[str, int] = {}
    for number, run in enumerate(runs, start=2):
        if run.key in rows:
            raise WrongUse(
                f"import: row {number} of {path} is the same run as row {rows[run.key]}; map a "
                f"column that tells them apart, such as --map seed=COLUMN or --map {ID}=COLUMN"
            )
        rows[run.key] = number
    return runs, []


def _mapped(word: str, columns: Sequence[str], path: Path) -> Mapped:
    name, equals, rest = word.partition("=")
    name = name.strip()
    if not equals:
        raise WrongUse(f"map: {word!r} is not NAME=COLUMN or NAME=COLUMN:UNIT")
    if name not in _VALID:
        raise WrongUse(
            f"map: {name!r} is not a name of ours{nearest(name, _VALID) or '.'} "
            f"Valid: {', '.join(_VALID)}"
        )
    metric = METRICS.get(_COLUMNS.get(name, name))
    column, unit = rest, None
    if rest not in columns:
        column, _, unit = rest.rpartition(":")
        column, unit = (column, unit) if column else (rest, None)
    if column not in columns:
        raise WrongUse(
            f"map: {path} has no column {column!r}{nearest(column, columns) or '.'} "
            f"It has: {', '.join(columns)}"
        )
    if metric is None:
        if unit is not None:
            raise WrongUse(f"map: {name} has no unit; leave out {unit!r}")
        return Mapped(name, column, None)
    unit = unit or metric.unit
    units.convert(1.0, unit, metric.unit)  # refuses other units
    return Mapped(name, column, unit)


def _hint(mapped: Mapped) -> str:
    per_cent = f"; if it is in per cent, --map {mapped.name}={mapped.column}:%"
    return _REMEDY + per_cent * (mapped.unit == "1")


def _converted(value: float, mapped: Mapped) -> float | None:
    if value != value or mapped.unit is None:
        return value
    return units.convert(value, mapped.unit, METRICS[mapped.metric].unit)


def _run(
    row: Mapping[Any, Any], where: str, source: str, experiment: str, given: Mapping[str, str]
) -> FinishedRun:
    known = {name: value for name, value in row.items() if value == value and value != ""}
    texts = {name: str(known[name]) for name in PARAMS if name in known}
    params = {**given, **params_of(texts, f"import: {where}")}
    if "model" not in params:
        raise WrongUse(f"import: {where} has no model; name it, or delete the row")
    values = {name: float(known[name]) for name in METRICS if name in known}
    if not values:
        raise WrongUse(f"import: {where} has no number of what is mapped; delete the row")
    performance = PERFORMANCE if PERFORMANCE in values else _performance(row)
    if performance in values:
        values[PERFORMANCE] = values[performance]
    parts = [part for part in COMPONENTS if f"energy/train_{part}_wh" in values]
    has_energy = "energy/train_wh" in values
    tags = {
        "pepr.experiment": experiment,
        "pepr.performance": performance or "",
        "pepr.memory": next((name for name in values if name.startswith("memory/")), ""),
        "pepr.energy_source": "imported" if has_energy else "none",
        "pepr.energy_components": ",".join(f"{part}=imported" for part in parts)
        or ("total=imported" if has_energy else ""),
        "pepr.hardware": str(known.get("hardware", "")),
        "pepr.parameters": f"{known['parameters']:.0f}" if "parameters" in known else "",
        "pepr.import_doubt": power_doubt(values.get("energy/train_wh"), values.get("time/train_s"))
        or "",
    }
    content = json.dumps([known.get(ID), params, values, tags], sort_keys=True)
    return FinishedRun(
        experiment=experiment,
        name=params["model"],
        source=f"table {source}",
        key=str(known.get(ID) or hashlib.sha256(content.encode()).hexdigest()[:16]),
        params=params,
        tags={tag: text for tag, text in tags.items() if text},
        points=tuple((name, v, 0) for name, v in values.items()),
    )


def _performance(row: Mapping[Any, Any]) -> str | None:
    """The first mapped metric of the test set that is better when higher."""
    of_test = (name for name in row if name in METRICS and str(name).startswith("test/"))
    return next((str(name) for name in of_test if METRICS[name].better == "higher"), None)
