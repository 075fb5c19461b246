"""One training job from its spec to a finished MLflow run."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from pepr_mlops import carbon
from pepr_mlops.costs import LOST, overall
from pepr_mlops.errors import WrongUse
from pepr_mlops.gauges import Gauges
from pepr_mlops.memory import Memory
from pepr_mlops.meter import Meter, idle_tags, open_meter
from pepr_mlops.progress import Silent
from pepr_mlops.schema import RunSpec, memory_metric

if TYPE_CHECKING:
    import torch

    from pepr_mlops.data import Splits
    from pepr_mlops.tracking import Run
    from pepr_mlops.train import Progress, Result


@dataclass(frozen=True)
class Outcome:
    """A finished job: where it is logged, what it came to and how its energy is known."""

    run: Run
    result: Result
    energy_source: str
    memory_metric: str


def run(
    spec: RunSpec,
    *,
    tracking_uri: str | None = None,
    progress: Callable[[RunSpec, str], Progress] = Silent,
) -> Outcome:
    """Train and evaluate as `spec` says and log everything to MLflow.

    The run is the one `mlflow run` has begun or a new one, see `tracking.start`. Raises `WrongUse`
    before a run exists for what can be told to be impossible, and `WorkFailed`, or `WrongUse` for
    what data and weights only show when they are read, after marking the run FAILED.
    """
    from pepr_mlops import data, hardware, tags, tracking, train

    started = time.perf_counter()
    device, meter, intensity = _check(spec)
    source = overall(meter.sources)
    shown = progress(spec, source)
    with tracking.start(
        spec.experiment, spec.experiment_name, f"{spec.model} {spec.seed}", tracking_uri
    ) as logged:
        logged.params(spec.as_params())
        logged.spec(asdict(spec))
        logged.tag(
            {
                **tags.opening(
                    spec.experiment_name, "test/accuracy", device, meter, intensity, spec.pue
                ),
                "mlflow.note.content": f"Energy: {source} ({meter.method})",
            }
        )
        train.prepare(spec, device)
        gauges = Gauges(meter, Memory(device), intensity, spec.pue)
        splits = data.load(spec)
        logged.data(splits)
        network = _network(spec, splits, logged)
        shown.note(
            f"{spec.model} on {device}; {splits.name}: {len(splits.train):,} / "
            f"{len(splits.val):,} / {len(splits.test):,} images to train / validate / test; "
            f"energy: {source}" + (f" ({meter.method})" if meter.sources else "")
        )
        logged.tag(idle_tags(meter, required=spec.energy == "measured"))
        others = hardware.other_gpu_processes(device)
        try:
            result = train.fit(spec, splits, network, device, gauges, logged.log, shown, started)
        except BaseException:
            with suppress(Exception):  # server or device may be gone; the first error is told
                logged.tag(gauges.costs.tags(meter.notes))
            raise
        logged.tag(tags.closing(gauges, device, others))
        if gauges.energy_source == LOST:
            logged.tag({"mlflow.note.content": "Energy: lost during the run"})
        if result.stopped is not None:
            logged.tag({"pepr.stopped": result.stopped})
        logged.predictions(result.labels, result.probabilities, splits.classes)
        _log_confusion(logged, spec, splits, result)
    return Outcome(logged, result, gauges.energy_source, memory_metric(device.type))


def _check(spec: RunSpec) -> tuple[torch.device, Meter, carbon.Intensity | None]:
    """The device, meter and grid intensity, or `WrongUse` for what cannot be carried out."""
    from pepr_mlops import data, hardware, models, train

    intensity = carbon.resolve(spec.country, spec.carbon_intensity)
    data.check_name(spec.dataset)
    models.check_name(spec.model)
    device = hardware.resolve_device(spec.device)
    train.check_arithmetic(spec, device)
    meter = open_meter(spec.energy, device.type, *hardware.gpu_of(device))
    if spec.budget_wh is not None and not meter.sources:
        why = "; ".join(f"{component}: {note}" for component, note in meter.notes.items())
        raise WrongUse(f"budget_wh: no energy is known here ({why}); use budget_s")
    return device, meter, intensity


def _network(spec: RunSpec, splits: Splits, logged: Run) -> torch.nn.Module:
    from pepr_mlops import models

    network = models.build(
        spec.model,
        classes=len(splits.classes),
        channels=splits.channels,
        image_size=spec.image_size,
        pretrained=spec.pretrained,
        weights=spec.weights,
    )
    logged.tag(
        {
            "pepr.parameters": str(sum(p.numel() for p in network.parameters())),
            "pepr.weights": models.weights_name(spec.model, spec.pretrained, spec.weights),
        }
    )
    return network


def _log_confusion(logged: Run, spec: RunSpec, splits: Splits, result: Result) -> None:
    from pepr_mlops.performance import confusion
    from pepr_mlops.report.confusion import figure

    counts = confusion(result.labels, result.probabilities, splits.task)
    title = f"{spec.model} on the {splits.name} test set"
    logged.figure(figure(counts, splits.classes, splits.task, title), "confusion_matrix.html")
