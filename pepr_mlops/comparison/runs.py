"""The tidy frame of runs: one row per run, whoever measured it. Pure.

Columns without a dot are ours and have one meaning and unit each; `metrics.NAME`, `params.NAME`
and `tags.NAME` are what MLflow has, under the names of `mlflow.search_runs`. Jobs of earlier
versions have the parameters that came later, too: as `spec.LATER`, which is what they did. Runs of
one's own code may have had parameters of these names before: they are no fields of `RunSpec`, but
`own.NAME`.

| columns | |
| --- | --- |
| `run_id`, `run_name`, `status`, `start_time`, `end_time` | as MLflow has them, times in UTC |
| `experiment`, `mlflow_experiment` | the name it is compared under, and where it is logged |
| `logged_by_pepr` | whether pepr logged it: others may lack all of the below |
| the fields of `RunSpec` | typed; missing where a run has no value or one of another type |
| `performance`, `performance_metric` | P and the metric it is |
| `energy_wh`, `carbon_gco2e`, `memory_gb`, `train_time_s` | costs; `memory_metric` names M |
| `parameters` | weights of the model |
| `energy_source`, `hardware`, … | the tags `pepr.*` that decide what may be compared |

A missing number is NaN; one that MLflow has as NaN or infinite is infinite.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import pandas as pd

from pepr_mlops.comparison import profiles
from pepr_mlops.comparison.predictions import Predictions
from pepr_mlops.comparison.spread import ASSUMED, Spread
from pepr_mlops.errors import WrongUse, nearest
from pepr_mlops.files import dataset_name
from pepr_mlops.names import (
    DOUBTS,
    FORMS,
    LOST,
    OF_PROFILE,
    PERFORMANCE,
    PHASES,
    PROFILED,
    RESOURCES,
    SLURM,
)
from pepr_mlops.spec import LATER, TRIED, RunSpec, convert, value_type

# Columns and the tags that they are read from.
_TEXT = {
    "performance_metric": "pepr.performance",
    "memory_metric": "pepr.memory",
    "initial_weights": "pepr.weights",
    **{
        name: f"pepr.{name}"
        for name in (
            *("energy_source", "energy_components", "energy_model", "energy_missing"),
            *("energy_caution", "time_source", "carbon_source", "imported_from", "import_doubt"),
            "data_digest",
            *("hardware", "gpu_mig", "gpu_clocks_mhz", "gpu_other_processes", "node_share"),
            "left_running",
            *SLURM,
            *(
                "stopped",
                "early_stop",
                "reason",
                "error",
                "not_stored",
                "spec",
                "claim",
                "process",
                "probe",
            ),
        )
    },
    **{doubt.code: doubt.tag for doubt in DOUBTS},
    **{f"{form}_{name}": f"pepr.{form}_{name}" for form in FORMS for name in OF_PROFILE},
}
_NUMBERS = {
    "heartbeat_ms": "pepr.heartbeat",
    **{
        name: f"pepr.{name}"
        for name in (
            *("parameters", "gpu_power_limit_w", "machine_power_limit_w", "idle_power_w"),
            *("energy_constant_w", "carbon_intensity_g_per_kwh", "pue", "attempts"),
            *(
                "gpu_count",
                "cpu_count",
                "cpus",
                "cpu_others",
                "cpu_others_of",
                "machine_cpu_others",
            ),
            "threads",  # what was used, whatever `params.threads` requested
            *("unmeasured_s", "paused_s", "val_images", "test_images"),
        )
    },
}
INFINITE = float(np.finfo(np.float64).max)  # what MLflow stores for infinity
_LONGEST = 2**63 - 1  # an integer of a column
# Later options that are settings of jobs alone. Any code runs with a launch and threads.
_OF_JOBS = tuple(name for name in LATER if name not in ("launch", "threads"))
_NO_TEXT = pd.array([None], dtype="str")
_DTYPES: dict[type, str] = {int: "Int64", float: "float64", bool: "boolean", str: "str"}


@dataclass(frozen=True)
class Evidence:
    """What else the server has, to check runs against.

    `energies` are all runs of the server with an energy: `run_id`, `model`, `experiment`,
    `energy_wh`. `epochs` has `run_id`, `step` and `energy_wh`, the energy so far. `twins` are the
    runs, also of other experiments, that share an energy, in the columns of the tidy frame.
    `predictions` are those of the runs that logged some, by run id, or as a clause why the logged
    file has none. `spread` is that of P between runs of other experiments.
    """

    energies: pd.DataFrame | None = None
    epochs: pd.DataFrame | None = None
    twins: pd.DataFrame | None = None
    predictions: Mapping[str, Predictions | str] = field(default_factory=dict)
    spread: Spread = ASSUMED


def tidy(raw: pd.DataFrame) -> pd.DataFrame:
    """The frame that this module describes, from one as `mlflow.search_runs` makes it.

    `raw` has `run_id`, `status`, `start_time`, `end_time`, `mlflow_experiment`, the columns
    `metrics.*`, `params.*`, `tags.*` and `non_finite`, the names of the metrics that are NaN in
    MLflow, one a line. Energy of a part of a run becomes missing, in the raw columns too.
    """
    raw = _of_latest_profile(_with_later_options(_without_partial_energy(_marked(raw))))
    jobs = _jobs(raw)
    only_jobs = bool(jobs.all())
    of_own_code = {
        f"own.{name}": _get(raw, f"params.{name}").mask(jobs) for name in _OF_JOBS if not only_jobs
    }
    own: dict[str, Any] = {
        "run_id": raw["run_id"],
        "run_name": _get(raw, "tags.mlflow.runName"),
        "status": raw["status"],
        "start_time": raw["start_time"],
        "end_time": raw["end_time"],
        "mlflow_experiment": raw["mlflow_experiment"],
        "experiment": _get(raw, "tags.pepr.experiment").fillna(raw["mlflow_experiment"]),
    }
    own["logged_by_pepr"] = _get(raw, "tags.pepr.experiment").notna()
    for f in fields(RunSpec):
        if f.name not in own:
            texts = _get(raw, f"params.{f.name}")
            texts = texts.where(jobs) if f.name in _OF_JOBS and not only_jobs else texts
            own[f.name] = _typed(texts, f.name, value_type(f))
    for name in TRIED:  # the result of `auto`
        own[name] = _get(raw, f"tags.pepr.{name}").fillna(own[name])
    own["dataset"] = own["dataset"].map(dataset_name, "ignore")
    own |= {column: _get(raw, f"tags.{tag}") for column, tag in _TEXT.items()}
    own |= {column: _number(raw, f"tags.{tag}") for column, tag in _NUMBERS.items()}
    # the tag is there only with an intensity
    own["pue"] = own["pue"].fillna(_number(raw, "params.pue"))
    own[PERFORMANCE] = _number(raw, f"metrics.{PERFORMANCE}")
    for resource in RESOURCES.values():
        if resource.metric is not None:
            own[resource.column] = _number(raw, f"metrics.{resource.metric}")
    of_cpu = own["energy_components"].fillna("").str.contains("cpu=")
    cpu = _get(raw, "tags.pepr.cpu")  # whose energy counts too where a GPU does the work
    own["energy_cpu"] = cpu.where(of_cpu & (cpu != own["hardware"]))
    own["memory_gb"] = pd.Series(np.nan, raw.index, dtype="float64")
    for name in own["memory_metric"].dropna().unique():
        rows = own["memory_metric"] == name
        own["memory_gb"][rows] = _number(raw, f"metrics.{name}")[rows]
    own |= {name: texts for name, texts in of_own_code.items() if texts.notna().any()}
    rest = [c for c in raw.columns if c.startswith(("metrics.", "params.", "tags."))]
    return pd.concat([pd.DataFrame(own, index=raw.index), raw[rest]], axis=1)


def column(runs: pd.DataFrame, name: str) -> str:
    """The column of the frame a person means by `name`.

    A resource's letter (E, C, M, T, D), a column, or a metric by its MLflow name. The metrics of
    our own costs mean the columns in which incomplete ones are missing. Raises `WrongUse` with the
    nearest names for anything else.
    """
    for letter, resource in RESOURCES.items():
        if name in (letter, resource.metric, resource.column):
            return resource.column
    if f"metrics.{name}" in runs and name != PERFORMANCE:
        return f"metrics.{name}"
    if "." not in name and name in runs and pd.api.types.is_numeric_dtype(runs[name].dtype):
        return name
    if name in PROFILED:
        raise WrongUse(f"{name}: no run was profiled; {profiles.remedy(name)} measures it")
    numbers = runs.select_dtypes("number").columns.difference([PERFORMANCE, "seed"], sort=False)
    known = [*RESOURCES, *(c for c in numbers if "." not in c), *metrics(runs)]
    raise WrongUse(
        f"{name}: no run has such a number{nearest(name, known) or '.'} "
        f"Valid: {', '.join(dict.fromkeys(known))}"
    )


def metrics(runs: pd.DataFrame) -> list[str]:
    """Names of the metrics that any of the runs has."""
    return [c.removeprefix("metrics.") for c in runs.columns if c.startswith("metrics.")]


def label(name: str) -> str:
    """A column as people read it: a metric by its own name."""
    return name.removeprefix("metrics.")


def _get(raw: pd.DataFrame, name: str) -> pd.Series[Any]:
    return raw[name] if name in raw else pd.Series(_NO_TEXT.repeat(len(raw)), raw.index)


def _jobs(raw: pd.DataFrame) -> pd.Series[bool]:
    """Which runs log all options that there are: not those of one's own code, nor timm's
    benchmarks, which may be compiled."""
    return _get(raw, "params.compile").notna() & _get(raw, "params.deterministic").notna()


def _number(raw: pd.DataFrame, name: str) -> pd.Series[float]:
    if name not in raw:
        return pd.Series(np.nan, raw.index)
    return pd.to_numeric(raw[name], errors="coerce").astype("float64")


def _typed(texts: pd.Series[str], name: str, kind: type) -> pd.Series[Any]:
    """Parameters as `RunSpec` types them; what it cannot read is missing."""
    codes, different = pd.factorize(texts)
    values = pd.array([*(_value(name, text) for text in different), None], dtype=_DTYPES[kind])
    return pd.Series(values.take(codes), texts.index, name=name)  # the last is that of code -1


def _value(name: str, text: str) -> Any:
    try:
        value = convert(name, text)
    except WrongUse:
        return None
    return None if isinstance(value, int) and abs(value) > _LONGEST else value


def _marked(raw: pd.DataFrame) -> pd.DataFrame:
    """NaN that was logged becomes infinite, since NaN means missing here."""
    columns = [c for c in raw.columns if c.startswith("metrics.")]
    huge = raw[columns].abs() >= INFINITE
    if not (huge.any(axis=None) or raw["non_finite"].any()):
        return raw
    raw = raw.copy()
    raw[columns] = raw[columns].mask(huge, np.inf)
    for row, names in raw.loc[raw["non_finite"] != "", "non_finite"].items():
        raw.loc[row, [f"metrics.{name}" for name in names.split("\n")]] = np.inf
    return raw


def _with_later_options(raw: pd.DataFrame) -> pd.DataFrame:
    """A job logs all options there are; with those that came later it did as before.

    It used a number of threads, too, but its parameter is what was requested.
    """
    jobs = _jobs(raw)
    if not jobs.any():
        return raw
    changed = {}
    for name in LATER:
        if name != "threads":
            texts = _get(raw, f"params.{name}")
            absent = texts.isna() & jobs
            if absent.any():
                changed[f"params.{name}"] = texts.mask(absent, LATER[name])
    return raw.assign(**changed)


def _of_latest_profile(raw: pd.DataFrame) -> pd.DataFrame:
    """Without what MLflow still has of an earlier profile of the same form."""
    raw = raw.copy(deep=False)
    for name in PROFILED:
        form, _, value = name.partition("/")
        if f"metrics.{name}" in raw:
            values = _get(raw, f"tags.pepr.{form}_values").fillna("").str.split(",")
            latest = values.map(lambda names, value=value: value in names).astype(bool)
            raw[f"metrics.{name}"] = raw[f"metrics.{name}"].where(latest)
    return raw


def _without_partial_energy(raw: pd.DataFrame) -> pd.DataFrame:
    """An energy that was lost during the run is missing, of which MLflow has the last sum."""
    missing = _get(raw, "tags.pepr.energy_missing").fillna("")
    lost = {
        f"metrics.energy/{phase}_": missing.str.contains(f"({phase})", regex=False)
        for phase in PHASES
    }
    training = _get(raw, "tags.pepr.energy_source") == LOST
    lost |= {"metrics.energy/train_": training, "metrics.carbon/": training}
    if not any(rows.any() for rows in lost.values()):
        return raw
    raw = raw.copy()
    for prefix, rows in lost.items():
        raw.loc[rows, raw.columns.str.startswith(prefix)] = np.nan
    return raw
