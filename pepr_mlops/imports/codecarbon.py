"""CodeCarbon's `emissions.csv`: a finished run for each of its runs.

CodeCarbon multiplies power and energy by the PUE; here energy is that of the machine and the PUE
stands apart, as in our own runs. The file does not say what was measured: memory is always
modelled, a CPU unless its counters could be read, and only a GPU is always read from its driver.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pepr_mlops.errors import WrongUse
from pepr_mlops.imports.files import FinishedRun, Number, params_of, power_doubt, read_csv
from pepr_mlops.imports.units import convert
from pepr_mlops.names import LOST, METRICS

SOURCE = "CodeCarbon"
_WHERE = "CodeCarbon, which writes emissions.csv"
_REMEDY = "correct or delete the row"
_UNNAMED = "codecarbon"  # its project_name by default

# Its columns in the order of `EmissionsData` of CodeCarbon 3.3.2, and what they are here: a metric
# with their unit, a tag, a parameter or, where we have no name for them, a tag `codecarbon.NAME`.
AS_METRIC = {
    "duration": ("time/train_s", "s"),
    "emissions": ("carbon/train_gco2e", "kg"),
    "cpu_energy": ("energy/train_cpu_wh", "kWh"),
    "gpu_energy": ("energy/train_gpu_wh", "kWh"),
    "ram_energy": ("energy/train_dram_wh", "kWh"),
    "energy_consumed": ("energy/train_wh", "kWh"),
}
AS_TAG = {
    "os": "pepr.os",
    "python_version": "pepr.version.python",
    "cpu_count": "pepr.cpu_count",
    "cpu_model": "pepr.cpu",
    "gpu_count": "pepr.gpu_count",
    "gpu_model": "pepr.gpu",
    "pue": "pepr.pue",
}
COUNTRY, MEMORY, RUN_ID = "country_iso_code", "ram_total_size", "run_id"
_TASK = "task_name"  # of the files that have a row for each task of a run
COLUMNS = (
    *("timestamp", "project_name", RUN_ID, "experiment_id", "duration", "emissions"),
    *("emissions_rate", "cpu_power", "gpu_power", "ram_power", "cpu_energy", "gpu_energy"),
    *("ram_energy", "energy_consumed", "water_consumed", "country_name", COUNTRY, "region"),
    *("cloud_provider", "cloud_region", "os", "python_version", "codecarbon_version"),
    *("cpu_count", "cpu_model", "gpu_count", "gpu_model", "longitude", "latitude", MEMORY),
    *("tracking_mode", "cpu_utilization_percent", "gpu_utilization_percent"),
    *("ram_utilization_percent", "ram_used_gb", "on_cloud", "pue", "wue"),
)
WITH_PUE = ("cpu_energy", "gpu_energy", "ram_energy", "energy_consumed")
_OTHERS = tuple(
    c for c in COLUMNS if c not in (*AS_METRIC, *AS_TAG, COUNTRY, MEMORY, RUN_ID)
)  # as tags
_SOURCES = {"cpu": "estimated", "gpu": "imported", "dram": "estimated"}
_PARTS = {"cpu": "cpu_energy", "gpu": "gpu_energy", "dram": "ram_energy"}

TEXTS = (
    *("timestamp", "project_name", RUN_ID, "experiment_id", "country_name", COUNTRY, "region"),
    *("cloud_provider", "cloud_region", "os", "python_version", "codecarbon_version"),
    *("cpu_model", "gpu_model", "tracking_mode", "on_cloud"),
)
_NUMBERS = {
    # CodeCarbon writes 0 for what it did not read.
    **{column: Number(0, 1e12) for column in COLUMNS if column not in TEXTS},
    **{"longitude": Number(-180, 180), "latitude": Number(-90, 90), "pue": Number(1, 10)},
}
_REQUIRED = (RUN_ID, "duration", "emissions", "energy_consumed")
_SAME = 1e-3  # relative difference of sums of rounded numbers
_ROUND_W = 0.01  # no measured power is a multiple of it


def read(
    path: Path, experiment: str, given: Mapping[str, str]
) -> tuple[list[FinishedRun], list[str]]:
    """A run for each `run_id` of the file at `path`, and notes.

    `given` are parameters of all runs; without `model` it is the `project_name`. A run that was
    written several times, by `flush`, counts as it was last. Raises `WrongUse` for a file that is
    missing or of other content, a number that none can be, and a run without a name.
    """
    optional = [c for c in (*COLUMNS, _TASK) if c not in _REQUIRED]
    table = read_csv(path, (*TEXTS, _TASK), _NUMBERS, _WHERE, optional, _REMEDY)
    if table.empty:
        raise WrongUse(f"import: {path} has no rows")
    if (table[_TASK] != "").any():
        raise WrongUse(f"import: {path} has the tasks of one run; import emissions.csv instead")
    last = _last_of_each(table, path)
    params = params_of(given, "import")
    runs = [
        _run(row, f"row {place + 2} of {path}", experiment, params)
        for place, row in zip(last.index, last.to_dict("records"), strict=True)
    ]
    earlier = len(table) - len(last)
    note = f"left out: {earlier} earlier row{'s' * (earlier != 1)} of the same runs"
    return runs, [note] if earlier else []


def _last_of_each(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """The last row of each run; CodeCarbon's `flush` writes a row of what it counted so far."""
    grows = ["duration", "energy_consumed", "emissions"]
    shrinks = (table.groupby(RUN_ID)[grows].diff() < 0).any(axis=1)
    if shrinks.any():
        row = shrinks.idxmax()
        raise WrongUse(
            f"import: row {row + 2} of {path} has the run_id {table.loc[row, RUN_ID]!r} of an "
            f"earlier row and lower numbers; {_REMEDY}"
        )
    return table.drop_duplicates(RUN_ID, keep="last")


def _run(
    row: Mapping[Any, Any], where: str, experiment: str, params: Mapping[str, str]
) -> FinishedRun:
    model = params.get("model", row["project_name"])
    if "model" not in params and model in ("", _UNNAMED):
        raise WrongUse(
            f"import: {where} names no model: its project_name is {model!r}; name it with --model"
        )
    values = {name: _value(row, column) for column, (name, _) in AS_METRIC.items()}
    missing = _missing(row)
    source, parts = _sources(row, values, missing)
    if source == LOST:
        values["energy/train_wh"] = values["carbon/train_gco2e"] = None
    tags = {
        "pepr.experiment": experiment,
        "pepr.energy_source": source,
        "pepr.energy_components": ",".join(f"{part}={how}" for part, how in parts.items()),
        "pepr.energy_method": f"{SOURCE} {row['codecarbon_version']}".strip(),
        "pepr.energy_missing": "; ".join(f"{part}: {why}" for part, why in missing.items()),
        "pepr.hardware": row["gpu_model"] or row["cpu_model"],
        "pepr.import_doubt": "; ".join(_doubts(row, values)),
        **{tag: _text(row[column]) for column, tag in AS_TAG.items()},
        **{f"codecarbon.{column}": _text(row[column]) for column in _OTHERS},
        **_carbon(row),
    }
    if row[MEMORY] > 0:
        tags["pepr.ram_gb"] = repr(convert(row[MEMORY], "GiB", "GB"))
    country = {"country": row[COUNTRY]} if row[COUNTRY] else {}
    return FinishedRun(
        experiment=experiment,
        name=model,
        source=SOURCE,
        key=row[RUN_ID],
        params={**country, **params, "model": model},
        tags={tag: text for tag, text in tags.items() if text},
        points=tuple((name, v, 0) for name, v in values.items() if v is not None),
    )


def _value(row: Mapping[Any, Any], column: str) -> float | None:
    """A number in our unit, of energy without the PUE; None for what was not read."""
    name, unit = AS_METRIC[column]
    value = convert(row[column], unit, METRICS[name].unit)
    if column in WITH_PUE and not np.isnan(row["pue"]):
        value /= row["pue"]
    return value if value > 0 else None


def _missing(row: Mapping[Any, Any]) -> dict[str, str]:
    """Why parts that the machine has are without energy, and the sum if it is 0."""
    counts = {**_PARTS, "total": "energy_consumed"}
    if not row["gpu_count"] > 0:
        del counts["gpu"]
    return {part: f"{SOURCE} counted none" for part, column in counts.items() if row[column] == 0}


def _sources(
    row: Mapping[Any, Any], values: Mapping[str, float | None], missing: Mapping[str, str]
) -> tuple[str, Mapping[str, str]]:
    """How the energy is known, and that of each part.

    Without that of what trains, the GPU if there is one, the energy is known for a part only.
    """
    parts = {p: how for p, how in _SOURCES.items() if values[f"energy/train_{p}_wh"] is not None}
    if values["energy/train_wh"] is None:
        return "none", parts
    if ("gpu" if row["gpu_count"] > 0 else "cpu") in missing:
        return LOST, parts
    parts = parts or {"total": "estimated"}
    return "estimated" if "estimated" in parts.values() else "imported", parts


def _carbon(row: Mapping[Any, Any]) -> dict[str, str]:
    """The intensity of the grid that CodeCarbon used, from its emissions, and where it is."""
    if not (row["emissions"] > 0 and row["energy_consumed"] > 0):
        return {}
    grams = convert(row["emissions"], "kg", "g")
    place = ", ".join(filter(None, (row["country_name"] or row[COUNTRY], row["region"])))
    return {
        "pepr.carbon_intensity_g_per_kwh": f"{grams / row['energy_consumed']:.10g}",
        "pepr.carbon_source": f"{place or 'place not named'}, by {SOURCE}",
    }


def _doubts(row: Mapping[Any, Any], values: Mapping[str, float | None]) -> Iterator[str]:
    if row["tracking_mode"] == "process":
        yield f"{SOURCE} counted the process by its share of the load, not the machine"
    pue = 1.0 if np.isnan(row["pue"]) else row["pue"]
    watts = row["cpu_power"] / pue
    if watts > 0 and abs(watts / _ROUND_W - round(watts / _ROUND_W)) < 1e-6:
        yield f"its CPU power of {watts:g} W is a round number: a constant, whatever the load"
    known = [v for part in _PARTS if (v := values[f"energy/train_{part}_wh"]) is not None]
    total_wh = values["energy/train_wh"]
    if total_wh is not None and known and abs(sum(known) / total_wh - 1) > _SAME:
        yield f"its parts add up to {sum(known):.4g} Wh and its total is {total_wh:.4g} Wh"
    if (doubt := power_doubt(total_wh, values["time/train_s"])) is not None:
        yield doubt


def _text(value: object) -> str:
    """A cell as it was, a number as its shortest exact text, nothing for none."""
    if isinstance(value, float):
        return "" if np.isnan(value) else repr(value).removesuffix(".0")
    return str(value)
