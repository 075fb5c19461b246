"""Runs as rows of CodeCarbon's `emissions.csv`. Pure.

The energy is that of training, times the PUE as CodeCarbon has it. What a run does not hold is
empty. Rows of runs that were imported from CodeCarbon are as they were.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from pepr_mlops.imports.codecarbon import (
    AS_METRIC,
    AS_TAG,
    COLUMNS,
    COUNTRY,
    MEMORY,
    RUN_ID,
    SOURCE,
    TEXTS,
    WITH_PUE,
)
from pepr_mlops.imports.units import convert
from pepr_mlops.names import METRICS
from pepr_mlops.report.formats import held


def rows(runs: pd.DataFrame) -> list[dict[str, Any]]:
    """A row for each of `runs` in CodeCarbon's columns, None for what it does not hold."""
    return [_row(run) for run in held(runs)]


def _row(run: Mapping[str, Any]) -> dict[str, Any]:
    row = {column: run.get(f"tags.codecarbon.{column}") for column in COLUMNS}
    row |= {column: run.get(f"tags.{tag}") for column, tag in AS_TAG.items()}
    row |= {"pue": run.get("pue"), COUNTRY: run.get("country")}  # which may be parameters
    if (memory := run.get("tags.pepr.ram_gb")) is not None:
        row[MEMORY] = convert(float(memory), "GB", "GiB")
    for column, (name, unit) in AS_METRIC.items():
        if (value := run.get(f"metrics.{name}")) is not None:
            overhead = run.get("pue", 1.0) if column in WITH_PUE else 1.0
            row[column] = convert(value * overhead, METRICS[name].unit, unit)
    if run.get("imported_from") == SOURCE:
        row[RUN_ID] = run["tags.pepr.import_key"]
    else:
        row |= _of_ours(run, row)
    return {c: v if v is None or c in TEXTS else float(v) for c, v in row.items()}


def _of_ours(run: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, Any]:
    """What runs that are not from CodeCarbon have instead; when imported ones ended is not known.

    CodeCarbon's version is there only where its model made the numbers.
    """
    found = {RUN_ID: run["run_id"], "project_name": run.get("model")}
    if "imported_from" not in run and "end_time" in run:
        found["timestamp"] = run["end_time"].strftime("%Y-%m-%dT%H:%M:%S")
    if row["emissions"] is not None and row["duration"]:
        found["emissions_rate"] = row["emissions"] / row["duration"]
    program, _, version = str(run.get("tags.pepr.energy_method", "")).partition(" ")
    if program == SOURCE:
        found["codecarbon_version"] = version.partition(" ")[0]
    return found
