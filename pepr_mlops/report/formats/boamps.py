"""Runs as energy reports in the format BoAmps of Boavizta. Pure.

The format: https://github.com/Boavizta/BoAmps, its folder `model`. A report is about one training:
what a run does not hold is left out, and what BoAmps requires and a run cannot know is `given`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from pepr_mlops.errors import WrongUse, nearest
from pepr_mlops.imports.units import convert
from pepr_mlops.report.formats import held
from pepr_mlops.report.label import trained_epochs

_FORMAT = "https://github.com/Boavizta/BoAmps/tree/main/model"
# What a run may not know, its valid values if they are limited, and an example.
GIVEN: dict[str, tuple[Sequence[str], str]] = {
    "infraType": (("publicCloud", "privateCloud", "onPremise", "other"), "onPremise"),
    "taskFamily": ((), "'image classification'"),
    "dataType": (
        (
            "tabular",
            "audio",
            "boolean",
            "image",
            "video",
            "object",
            "text",
            "token",
            "word",
            "other",
        ),
        "image",
    ),
}
# Relative errors that BoAmps names: 10% is high, 50% low. Estimates were off by up to 40% in a
# published comparison (arXiv:2509.22092).
_QUALITY = {"measured": "high", "estimated": "low"}
_MODE = {"cpu": "cpuTrackingMode", "gpu": "gpuTrackingMode"}


def check(given: Mapping[str, str]) -> None:
    """Raise `WrongUse` for a name or value that is not in `GIVEN`."""
    for name, value in given.items():
        if name not in GIVEN:
            close = nearest(name, GIVEN) or "."
            raise WrongUse(f"boamps: {name!r} is not one{close} Valid: {', '.join(GIVEN)}")
        choices, _ = GIVEN[name]
        if not value or (choices and value not in choices):
            close = nearest(value, choices) or "."
            valid = f" Valid: {', '.join(choices)}" if choices else ""
            raise WrongUse(f"boamps: {name} cannot be {value!r}{close}{valid}")


def reports(
    runs: pd.DataFrame, given: Mapping[str, str], made: str
) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """A report for each of `runs` by run id, and notes.

    `made` is the time now as BoAmps writes it. Runs without an energy or hardware have no report,
    which a note says. Raises `WrongUse` where one needs more to be `given`.
    """
    check(given)
    needed = runs["energy_wh"].notna() & runs["hardware"].notna()
    found = {run["run_id"]: _report(run, given, made) for run in held(runs[needed])}
    lacking = int((~needed).sum())
    note = f"{lacking} of {len(runs)} runs have no report: it requires an energy and the hardware"
    return found, [note] if lacking else []


def _report(run: Mapping[str, Any], given: Mapping[str, str], made: str) -> dict[str, Any]:
    is_job = "compile" in run  # of `pepr train`, which trains classifiers of images
    known = {"taskFamily": "image classification", "dataType": "image"} if is_job else {}
    known |= given
    for name in GIVEN:
        if name not in known:
            raise WrongUse(
                f"boamps: run {run['run_id']} does not say its {name}, which BoAmps requires; add "
                f"--boamps {name}={GIVEN[name][1]}"
            )
    report = {
        "header": {
            "formatVersionSpecificationUri": _FORMAT,
            "reportId": run["run_id"],
            "reportDatetime": made,
        },
        "task": {
            "taskStage": "finetuning" if run.get("pretrained") else "training",
            "taskFamily": known["taskFamily"],
            "algorithms": [_algorithm(run, is_job)],
            "dataset": [{"dataUsage": "input", "dataType": known["dataType"]}],
            "measuredAccuracy": _accuracy(run),
            "taskDescription": _description(run),
        },
        "measures": [_measure(run)],
        "system": _named("os", os=run.get("tags.pepr.os")),
        "software": _named(
            "version", language="python", version=run.get("tags.pepr.version.python")
        ),
        "infrastructure": {
            "infraType": known["infraType"],
            "cloudProvider": run.get("tags.codecarbon.cloud_provider"),
            "components": list(_components(run)),
        },
        "environment": _named(
            "country",
            country=run.get("country"),
            powerSourceCarbonIntensity=run.get("carbon_intensity_g_per_kwh"),
        ),
        "quality": _QUALITY.get(str(run.get("energy_source"))),
    }
    return dict(_pruned(report))


def _algorithm(run: Mapping[str, Any], is_job: bool) -> dict[str, Any]:
    parameters = run.get("parameters")
    return {
        "trainingType": "supervisedLearning" if is_job else None,
        "algorithmType": "neural network" if is_job else None,
        "algorithmName": run.get("model"),
        "parametersNumber": None if parameters is None else parameters / 1e9,  # in billions
        "framework": "pytorch" if is_job else None,
        "frameworkVersion": run.get("tags.pepr.version.torch") if is_job else None,
        "epochsNumber": trained_epochs(run),
        "optimizer": run.get("optimizer"),
        "quantization": run.get("precision"),
    }


def _accuracy(run: Mapping[str, Any]) -> float | None:
    """The accuracy on the test set, from 0 to 1."""
    found = run.get("metrics.test/accuracy")
    return found if found is not None and 0 <= found <= 1 else None


def _description(run: Mapping[str, Any]) -> str:
    """What BoAmps has no fields for."""
    data = f" on {run['dataset']}" if "dataset" in run else ""
    pue = f" of {run['pue']:g}" if "pue" in run else ""
    return (
        f"Training of {run.get('model', 'a model')}{data}. The energy is that of the machine in "
        f"training, without evaluation and without the PUE{pue}; it is "
        f"{run.get('energy_source', 'of unknown origin')}."
    )


def _measure(run: Mapping[str, Any]) -> dict[str, Any]:
    """The energy of training in kWh; how each component is known stands in its tracking mode."""
    parts = [part.partition("=") for part in run.get("energy_components", "").split(",")]
    source = run.get("energy_source", "of unknown origin")
    started = run.get("start_time") if "imported_from" not in run else None
    return {
        "measurementMethod": f"{run.get('tags.pepr.energy_method', 'not known')} ({source})",
        **{_MODE[part]: how for part, _, how in parts if part in _MODE},
        "powerConsumption": convert(run["energy_wh"], "Wh", "kWh"),
        "measurementDuration": run.get("train_time_s"),
        "measurementDateTime": None if started is None else f"{started:%Y-%m-%d %H:%M:%S}",
    }


def _components(run: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The GPUs, the CPUs, each logical one counted as in the example of BoAmps, and the memory."""
    gpu, cpu = run.get("tags.pepr.gpu"), run.get("tags.pepr.cpu")
    if gpu is not None:
        count = run.get("gpu_count", 1)  # a run of ours uses one
        yield {"componentName": gpu, "componentType": "gpu", "nbComponent": int(count)}
    if cpu is not None:
        count = run.get("cpu_count", 1)
        yield {"componentName": cpu, "componentType": "cpu", "nbComponent": int(count)}
    if gpu is None and cpu is None:
        yield {"componentName": run["hardware"], "componentType": "not known", "nbComponent": 1}
    if (memory := run.get("tags.pepr.ram_gb")) is not None:
        yield {"componentType": "ram", "nbComponent": 1, "memorySize": float(memory)}


def _named(required: str, **values: Any) -> dict[str, Any] | None:
    """The values, or None without the one that the others depend on."""
    return None if values[required] is None else values


def _pruned(value: Any) -> Any:
    """Without keys that have no value."""
    if isinstance(value, dict):
        return {k: _pruned(v) for k, v in value.items() if v is not None}
    return [_pruned(v) for v in value] if isinstance(value, list) else value
