"""One training job from its spec to a finished MLflow run."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from pepr_mlops import carbon
from pepr_mlops.errors import WrongUse
from pepr_mlops.meter import Memory, Meter, idle_power_w, open_meter, overall
from pepr_mlops.progress import Silent
from pepr_mlops.schema import RunSpec, memory_metric

if TYPE_CHECKING:
    import torch

    from pepr_mlops.data import Splits
    from pepr_mlops.tracking import Run
    from pepr_mlops.train import Progress, Result

IDLE_S = 3.0
# NVML's counter moves every 20 to 100 ms: in shorter epochs a tick is over 5 % of the energy.
_EXACT_S = 2.0


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
    from pepr_mlops import data, hardware, models, tracking, train

    started = time.perf_counter()
    intensity = carbon.resolve(spec.country, spec.carbon_intensity)
    data.check_name(spec.dataset)
    models.check_name(spec.model)
    device = hardware.resolve_device(spec.device)
    train.check_arithmetic(spec, device)
    meter = open_meter(spec.energy, device.type, *hardware.gpu_of(device))
    if spec.budget_wh is not None and not meter.sources:
        why = "; ".join(f"{component}: {note}" for component, note in meter.notes.items())
        raise WrongUse(f"budget_wh: no energy is known here ({why}); use budget_s")
    source = overall(meter.sources)
    shown = progress(spec, source)

    with tracking.start(spec.experiment_name, f"{spec.model} {spec.seed}", tracking_uri) as logged:
        logged.params(spec.as_params())
        logged.spec(asdict(spec))
        logged.tag(_tags(spec, device, meter, intensity) | hardware.describe(device))
        train.set_arithmetic(spec)
        memory = Memory(device)
        splits = data.load(spec)
        logged.data(splits)
        network = models.build(
            spec.model,
            classes=len(splits.classes),
            channels=splits.channels,
            image_size=spec.image_size,
            pretrained=spec.pretrained,
            weights=spec.weights,
        )
        parameters = sum(p.numel() for p in network.parameters())
        shown.note(
            f"{spec.model}, {parameters / 1e6:.2f} M parameters, on {device}; {splits.name}: "
            f"{len(splits.train):,} / {len(splits.val):,} / {len(splits.test):,} images to train "
            f"/ validate / test; energy: {source}" + (f" ({meter.method})" if meter.sources else "")
        )
        before = {"pepr.parameters": str(parameters)}
        if meter.sources:
            before |= _idle(spec, meter)
        others = _other_processes(device)
        logged.tag(before)
        setup = {"time/setup_s": time.perf_counter() - started}
        result = train.fit(
            spec,
            splits,
            network,
            device,
            meter,
            memory,
            intensity,
            lambda metrics, epoch: logged.log({**metrics, **(setup if epoch == 1 else {})}, epoch),
            shown,
        )
        logged.tag(_closing_tags(result, meter, device, others))
        logged.predictions(result.labels, result.probabilities, splits.classes)
        _log_confusion(logged, spec, splits, result)
    return Outcome(logged, result, source, memory_metric(device.type))


def _tags(
    spec: RunSpec, device: torch.device, meter: Meter, intensity: carbon.Intensity | None
) -> dict[str, str]:
    tags = {
        "pepr.experiment": spec.experiment_name,
        "pepr.performance": "test/accuracy",
        "pepr.memory": memory_metric(device.type),
        "pepr.device": str(device),
        **energy_tags(meter),
        **carbon_tags(intensity, spec.pue),
    }
    return tags


def energy_tags(meter: Meter) -> dict[str, str]:
    """How the energy is known and why parts of it are not."""
    tags = {"pepr.energy_source": overall(meter.sources), "pepr.energy_method": meter.method}
    if meter.sources:
        tags["pepr.energy_components"] = ",".join(f"{c}={s}" for c, s in meter.sources.items())
    if meter.notes:
        tags["pepr.energy_missing"] = "; ".join(f"{c}: {why}" for c, why in meter.notes.items())
    return tags


def carbon_tags(intensity: carbon.Intensity | None, pue: float) -> dict[str, str]:
    """The grid intensity, where it is from, and the building's overhead."""
    if intensity is None:
        return {}
    return {
        "pepr.carbon_intensity_g_per_kwh": f"{intensity.g_per_kwh:g}",
        "pepr.carbon_source": intensity.source,
        "pepr.pue": f"{pue:g}",
    }


def _idle(spec: RunSpec, meter: Meter) -> dict[str, str]:
    watts, missing = idle_power_w(meter, IDLE_S)
    if missing and spec.energy == "measured":
        why = "; ".join(f"{component}: {reason}" for component, reason in missing.items())
        raise WrongUse(
            f"energy: measured is not possible here, a sensor gives nothing ({why}); use auto, "
            "estimated or off",
            reason="no_sensor",
        )
    return {} if watts is None else {"pepr.idle_power_w": f"{watts:.4g}"}


def _other_processes(device: torch.device) -> set[str] | None:
    """Other processes on the GPU now; None where there is no GPU or the driver does not tell."""
    if device.type != "cuda":
        return None
    import torch

    from pepr_mlops import hardware

    torch.zeros(1, device=device)  # so that this process is there to be told from the others
    found = hardware.other_gpu_processes(device)
    return None if found is None else set(found)


def _closing_tags(
    result: Result, meter: Meter, device: torch.device, others: set[str] | None
) -> dict[str, str]:
    tags = {}
    lost = [f"{part} ({phase}) {why}" for (phase, part), why in result.costs.missing.items()]
    notes = [f"{component}: {why}" for component, why in meter.notes.items()]
    if lost or notes:
        tags["pepr.energy_missing"] = "; ".join(notes + lost)
    shortest = result.costs.shortest_s.get("train", 0.0)
    if overall(meter.sources) == "measured" and shortest < _EXACT_S:
        tags["pepr.energy_caution"] = (
            f"training windows as short as {shortest:.2g} s: a counter that moves every 0.1 s is "
            f"off by up to {0.1 / shortest:.0%} of one"
        )
    if result.stopped is not None:
        tags["pepr.stopped"] = result.stopped
    now = _other_processes(device)
    if now is not None or others is not None:
        seen = (now or set()) | (others or set())
        tags["pepr.gpu_other_processes"] = ", ".join(sorted(seen)) or "none"
    return tags


def _log_confusion(logged: Run, spec: RunSpec, splits: Splits, result: Result) -> None:
    from pepr_mlops.performance import confusion
    from pepr_mlops.report.confusion import figure

    counts = confusion(result.labels, result.probabilities, splits.task)
    title = f"{spec.model} on the {splits.name} test set"
    logged.figure(figure(counts, splits.classes, splits.task, title), "confusion_matrix.html")
