"""What a run's parameters, tags and metrics say, in words for its card. Pure.

No path and no cell of a table is among them: a card leaves the machine.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pandas as pd

from pepr_mlops.comparison.metrics import METRICS as OF_SPLIT
from pepr_mlops.comparison.predictions import Predictions
from pepr_mlops.comparison.words import amount
from pepr_mlops.names import DOUBTS, METRICS, MULTI_LABEL, PATIENT
from pepr_mlops.report.card.performance import NOT_LOGGED, Measure, counts, patients
from pepr_mlops.report.label import PRINT, not_measured
from pepr_mlops.text import number
from pepr_mlops.tracking.read.inputs import Input

Facts = tuple[tuple[str, str], ...]

_TASKS = {"binary-class": "one of two classes", MULTI_LABEL: "any number of labels for an image"}
_UNKNOWN = "not logged"
# Columns of the frame of runs, in the order of the card.
_DATA = {
    "data_digest": "digest of the data",
    "tags.pepr.data_notes": "how the data was read",
    "fraction": "share of the training set",
    "image_size": "pixels per side as the network sees them",
    "fit": "how images become square",
    "intensities": "intensities",
    "channels": "channels",
    "window": "window of grey values",
    "tags.pepr.window": "grey values that become black and white",
    "frames": "frames",
    "uncertain": "uncertain labels",
    "folds": "folds of the cross-validation",
    "fold": "fold of this run",
}
_CONDITIONS = {
    "hardware": "hardware",
    "cpus": "CPUs",
    "threads": "threads",
    "tags.pepr.gpu": "GPU",
    "gpu_power_limit_w": "power limit of the GPU in W",
    "precision": "precision",
    "layout": "layout",
    "launch": "launch",
    "compile": "compiled",
    "deterministic": "deterministic",
    "initial_weights": "initial weights",
    "parameters": "parameters",
    "tune": "weights that are trained",
    "epochs": "epochs",
    "batch_size": "batch size",
    "lr": "learning rate",
    "optimizer": "optimizer",
    "weight_decay": "weight decay",
    "schedule": "schedule",
    "warmup": "warm-up epochs",
    "class_weights": "class weights",
    "augment": "augmentation",
    "early_stop": "early end",
    "seed": "seed",
    "tags.pepr.git_commit": "commit of pepr_mlops",
}
_VERSION, _INFERENCE = "tags.pepr.version.", "tags.pepr.inference_"
_OF_ONNX = f"{_INFERENCE}onnx_"
_INTERNAL = (f"{_INFERENCE}values", f"{_INFERENCE}energy_missing")


@dataclass(frozen=True)
class Standing:
    """The place of a run among the others of its experiment.

    `sentences` say it, or why there is none. `interval` is the 95% interval of its model's P where
    the run is its only one. `runs` are the runs of the model that were compared, `margin` what is
    good enough. `flags` are sentences about this run.
    """

    sentences: tuple[str, ...]
    flags: tuple[str, ...] = ()
    interval: tuple[float, float] | None = None
    runs: int | None = None
    margin: float | None = None


def task(known: Predictions | None) -> str:
    """What the network decides for an image."""
    if known is None:
        return f"classes: {_UNKNOWN}"
    return _TASKS.get(known.task, f"one of {len(known.classes)} classes")


def energy(run: pd.Series) -> str:
    """The energy of training, with how it came about in print."""
    if run["energy_wh"] != run["energy_wh"]:
        return not_measured(run)
    origin = PRINT.get(str(run["energy_source"]), "SOURCE NOT KNOWN")
    return f"{amount(run['energy_wh'], 'Wh')} ({origin})"


def _listed(run: pd.Series, columns: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for column, name in columns.items():
        value = run.get(column)
        if value is not None and not pd.isna(value):
            yield name, number(value, 12) if isinstance(value, float) else str(value)


def data(run: pd.Series) -> Facts:
    """The data set, how images were read, and doubts about them."""
    doubts = (
        (doubt.help, doubt.text(run[doubt.code])) for doubt in DOUBTS if _has(run, doubt.code)
    )
    return (("data set", str(run["dataset"])), *_listed(run, _DATA), *doubts)


def _has(run: pd.Series, column: str) -> bool:
    return isinstance(run.get(column), str)


def splits(
    run: pd.Series, known: Predictions | None, inputs: Mapping[str, Input]
) -> tuple[tuple[str, str, str, str], ...]:
    """For each split its name, images, patients and the digest of its images as inputs."""
    rows = []
    for name in dict.fromkeys([*("train", "val", "test"), *inputs]):
        logged = inputs.get(name)
        n = None if logged is None else logged.images
        counted = run.get(f"{name}_images")
        if n is None and counted is not None and counted == counted:
            n = int(counted)
        people = None if known is None else patients(known, name)
        rows.append(
            (
                name,
                _UNKNOWN if n is None else f"{n:,}",
                "not known" if people is None else f"{people:,}",
                _UNKNOWN if logged is None else logged.digest,
            )
        )
    return tuple(rows)


def external(run: pd.Series) -> dict[str, tuple[Measure, ...]]:
    """The metrics on each external set, as logged."""
    found: dict[str, list[Measure]] = {}
    for column in run.index[run.notna()]:
        match str(column).split("/"):
            case ["metrics.external", name, metric] if metric in OF_SPLIT:
                one = Measure(metric, float(run[column]), missing="no interval")
                found.setdefault(name, []).append(one)
    return {name: tuple(own) for name, own in found.items()}


def training(run: pd.Series, emissions: str) -> Facts:
    """What the training took."""
    found = [("energy of training", energy(run))]
    components, method = run["energy_components"], run.get("tags.pepr.energy_method")
    found += [("parts of the energy", components)] if isinstance(components, str) else []
    found += [("read or estimated by", method)] if isinstance(method, str) else []
    found += [("CO2e of training", emissions)]
    for column, name, unit in (
        ("metrics.energy/eval_wh", "energy of evaluation", "Wh"),
        ("train_time_s", "time of training", "s"),
        ("memory_gb", "peak memory", "GB"),
    ):
        value = run.get(column)
        known = value is not None and value == value
        origin = f" ({PRINT.get(str(run['energy_source']), 'SOURCE NOT KNOWN')})" * (unit == "Wh")
        found.append((name, f"{amount(value, unit)}{origin}" if known else "not measured"))
    if run["time_source"] == "estimated":
        found.append(("source of the time", "ESTIMATED"))
    return tuple(found)


def use(run: pd.Series) -> Facts:
    """What using the model takes, by the metrics and tags of its profile in PyTorch; empty without
    one."""
    found = []
    for column in run.index[run.notna()]:
        name = str(column)
        if name.startswith(_OF_ONNX) or name.endswith("_cv") or name in _INTERNAL:
            continue
        if name.startswith("metrics.inference/"):
            metric = METRICS.get(name.removeprefix("metrics."))
            title = metric.help if metric else name.removeprefix("metrics.inference/")
            unit = f" {metric.unit}" if metric and metric.unit != "1" else ""
            found.append((title, f"{number(run[column])}{unit}"))
        elif name.startswith(_INFERENCE):
            found.append((name.removeprefix(_INFERENCE).replace("_", " "), str(run[column])))
    return tuple(found)


def searched(runs: pd.DataFrame) -> str:
    """How many runs the search has, by how they ended."""
    ended = runs.drop_duplicates("run_id")["status"].value_counts()
    kinds = ", ".join(f"{n} {status.lower()}" for status, n in ended.items())
    total = int(ended.sum())
    return f"{total:,} run{'s' * (total != 1)}: {kinds}"


def conditions(run: pd.Series) -> Facts:
    """How and on what it was trained, with versions."""
    versions = {
        str(column): f"version of {str(column).removeprefix(_VERSION)}"
        for column in run.index
        if str(column).startswith(_VERSION)
    }
    return tuple(_listed(run, {**_CONDITIONS, **versions}))


def limits(
    run: pd.Series, known: Predictions | None, p: Measure, standing: Standing
) -> tuple[str, ...]:
    """What a reader must know before trusting the numbers: flags, and what was not examined."""
    return (*standing.flags, *_of_results(run, known, p, standing))


def _of_results(
    run: pd.Series, known: Predictions | None, p: Measure, standing: Standing
) -> Iterator[str]:
    for doubt in DOUBTS:
        if not doubt.flagged and _has(run, doubt.code):
            yield doubt.text(run[doubt.code])
    if standing.runs in (None, 1):
        yield "one run of the model was compared: how its numbers vary between seeds is not known"
    if p.low is None or p.high is None:
        yield f"how far the test images determine P is not known: {p.missing or NOT_LOGGED}"
    elif standing.margin is not None and p.high - p.low > 2 * standing.margin:
        yield (
            f"the 95% interval of P is {p.high - p.low:.3f} wide, more than twice the "
            f"margin of {standing.margin:g} that is good enough"
        )
    if not any(str(c).startswith("metrics.external/") for c in run.index[run.notna()]):
        yield "it was tested on no images from elsewhere (external set)"
    if known is None:
        return
    if PATIENT not in known.test.groups:
        yield "which images are of one patient is not known: the intervals take all as independent"
    if not set(known.test.groups) - {PATIENT}:
        yield "no subgroups, such as sex or age, were examined"
    few = [n for n in counts(known, "test") or () if n == 0]
    if few:
        yield f"the test set has no image of {len(few)} of {len(known.classes)} classes"
    if known.val is None:
        yield "validation predictions were not logged, so there is no threshold for an alarm"
