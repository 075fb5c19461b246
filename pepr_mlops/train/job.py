"""One training job from its spec to a finished MLflow run."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pepr_mlops.costs import carbon
from pepr_mlops.costs.gauges import Gauges
from pepr_mlops.costs.memory import Memory
from pepr_mlops.costs.meters import Meter, idle_tags, open_meter
from pepr_mlops.costs.meters import ahead as meter_ahead
from pepr_mlops.costs.other_load import OtherLoad
from pepr_mlops.costs.totals import LOST, cautions, overall
from pepr_mlops.errors import Paused, WorkFailed, WrongUse, one_line
from pepr_mlops.names import PERFORMANCE, memory_metric
from pepr_mlops.process import importing
from pepr_mlops.spec import TRIED, Job, RunSpec
from pepr_mlops.tracking.ownership import HEARTBEAT_S, STALE_S
from pepr_mlops.tracking.server import impatient
from pepr_mlops.train.progress import Silent, where_watched

if TYPE_CHECKING:
    import torch

    from pepr_mlops.data import Splits
    from pepr_mlops.tracking import Run
    from pepr_mlops.train.checkpoint import Checkpoint, Saved
    from pepr_mlops.train.loop import Pause, Progress, Result


@dataclass(frozen=True)
class Outcome:
    """A finished job: where it is logged, what it came to, how its energy is known, and what makes
    its numbers other than they look."""

    run: Run
    result: Result
    energy_source: str
    memory_metric: str
    cautions: tuple[str, ...] = ()
    constant_w: float | None = None  # of an estimate, counted whatever the load


def run(
    spec: RunSpec,
    *,
    tracking_uri: str | None = None,
    progress: Callable[[RunSpec, str], Progress] = where_watched,
    checkpoints: Path | None = None,
    exclusive: bool = False,
    host_is_shared: bool = False,
    stale_s: float = STALE_S,
    until: int | None = None,
    left_wh: float | None = None,
    offline: bool = False,
    strict: bool = False,
) -> Outcome:
    """Train and evaluate as `spec` says and log everything to MLflow.

    On a terminal and in a notebook it shows how far it is, elsewhere nothing; `progress.Printed`
    as `progress` shows it everywhere, `progress.Silent` nowhere.

    With `checkpoints`, a folder, the training is kept there after every epoch; one of the same
    spec that was interrupted on the same kind of hardware is continued, in its own run, and its
    costs are those of all attempts. It rests, raising `Paused`, after the epoch `until`, and after
    the one in which this attempt has taken `left_wh` in all phases. `exclusive` and `stale_s` are
    those of `tracking.Attempt`. With `host_is_shared` the energy of a GPU's job is that of the GPU:
    the CPU's and the memory's are of other jobs too. With `offline` no tracking server is asked,
    and the run is left to `pepr sync`. With `strict` what is doubtful about the images is refused
    (`data.doubts`).

    The run is the one `mlflow run` has begun or a new one, see `tracking.start`. Raises `WrongUse`
    before a run exists for what can be told to be impossible, and `WorkFailed`, or `WrongUse` for
    what data and weights only show when they are read, after marking the run FAILED.

    >>> from pepr_mlops import RunSpec, run
    >>> tiny = {"image_size": 32, "epochs": 1, "fraction": 0.1, "pretrained": False}
    >>> for model in ("test_resnet", "test_efficientnet"):
    ...     spec = RunSpec(model=model, dataset="digits", energy="estimated", device="cpu", **tiny)
    ...     outcome = run(spec)
    >>> outcome.energy_source, 0 < outcome.result.metrics["energy/train_wh"] < 1
    ('estimated', True)
    """
    from pepr_mlops import data, tracking
    from pepr_mlops.costs import device as hardware

    started = time.perf_counter()
    data.check_name(spec.dataset)  # a slip of the hand is told before anything is waited for
    beside: list[Callable[[], object]] = [hardware.load_torch]
    if hardware.gpu_count() == 0:
        beside += meter_ahead(spec.energy)
    with importing(*beside):
        if not offline:  # before PyTorch is imported, which takes seconds
            tracking.reach(tracking_uri)
        from pepr_mlops.costs import tags
        from pepr_mlops.train import loop
        from pepr_mlops.train.checkpoint import Checkpoint, discard

        device, meter, intensity = _check(spec, host_is_shared)
    job = spec if isinstance(spec, Job) else data.identify(spec)
    source = overall(meter.sources)
    shown = progress(spec, source)
    opening = tags.opening(
        spec.experiment_name, "test/accuracy", device, meter, intensity, spec.pue
    )
    if device.type == "cpu" and (caution := hardware.crowded(opening)):
        shown.note(caution)
    memory = Memory(device)
    gauges = Gauges(meter, memory, intensity, spec.pue)
    folder = None if checkpoints is None else _writable(checkpoints) / job.fingerprint
    saved = (
        None if folder is None else _saved(folder, job, opening, gauges, tracking_uri, shown.note)
    )
    pause = _pause(until, left_wh, gauges)
    wanted = tracking.Attempt(
        job.fingerprint, exclusive, stale_s, None if saved is None else saved.run_id
    )
    with tracking.start(
        spec.experiment,
        spec.experiment_name,
        _name(spec),
        tracking_uri,
        wanted,
        offline=offline,
        note=shown.note,
    ) as logged:
        _describe(logged, job, opening, meter)
        splits = data.load(job)
        logged.data(splits)
        doubts = _doubts(splits, logged, shown.note, strict)
        loop.open_device(spec, device)
        logged.tag(idle_tags(meter, required=spec.energy == "measured"))
        if saved is None and spec.untried:
            from pepr_mlops.train import autotune

            spec = autotune.settle(spec, splits, device, gauges, logged, opening, shown.note)
            memory.restart()
        elif saved is not None:  # what it was begun with, whatever would be faster now
            begun = {name: saved.state[name] for name in TRIED if name in saved.state}
            spec = replace(spec, **begun)
        loop.prepare(spec, device)
        network = _network(spec, splits, logged, job)
        shown.note(
            f"{spec.model} on {device}; {splits.name}: {len(splits.train):,} / "
            f"{len(splits.val):,} / {len(splits.test):,} images to train / validate / test; "
            f"energy: {source}" + (f" ({meter.method})" if meter.sources else "")
        )
        others = hardware.other_gpu_processes(device)
        load = OtherLoad(logged.earlier)
        checkpoint = None
        if folder is not None:
            checkpoint = Checkpoint(
                folder, logged.run_id, _machine(opening), job.earlier_fingerprint
            )
        if saved is not None and checkpoint is not None:
            shown.note(f"{spec.model}: goes on after epoch {saved.epoch} of {spec.epochs}")
            _take_up(saved, checkpoint, gauges, logged)
        try:
            result = loop.fit(
                spec,
                splits,
                network,
                device,
                gauges,
                logged.log,
                shown,
                started,
                checkpoint=checkpoint,
                saved=saved,
                pause=pause,
            )
        except BaseException:
            with suppress(Exception):  # server or device may be gone; the first error is told
                logged.tag({**gauges.costs.tags(meter.notes), **load.tags()})
            raise
        closing = tags.closing(gauges, device, others, load)
        logged.tag(closing)
        if gauges.energy_source == LOST:
            logged.tag({"mlflow.note.content": "Energy: lost during the run"})
        _log_result(logged, spec, splits, result)
    if folder is not None:
        discard(folder)
    return Outcome(
        logged,
        result,
        gauges.energy_source,
        memory_metric(device.type),
        (*doubts, *cautions({**opening, **closing})),
        float(opening["pepr.energy_constant_w"]) if "pepr.energy_constant_w" in opening else None,
    )


def probe(
    spec: RunSpec,
    *,
    tracking_uri: str | None = None,
    progress: Callable[[RunSpec, str], Progress] = Silent,
    host_is_shared: bool = False,
) -> None:
    """Train a few steps and log what they cost and what all of `spec` would, as `loop.probe`.

    The run is KILLED with the reason `probed`, since it is no training. Arguments and errors are
    those of `run`; nothing of `spec` may be left to a trial.
    """
    with importing():
        from pepr_mlops import data, tracking
        from pepr_mlops.costs import tags
        from pepr_mlops.train import loop

        device, meter, intensity = _check(spec, host_is_shared)
    job = spec if isinstance(spec, Job) else data.identify(spec)
    opening = tags.opening(
        spec.experiment_name, "test/accuracy", device, meter, intensity, spec.pue
    )
    with (
        suppress(Paused),
        tracking.start(
            spec.experiment,
            spec.experiment_name,
            f"{_name(spec)} probe",
            tracking_uri,
            tracking.Attempt(job.fingerprint, probe=True),
        ) as logged,
    ):
        _describe(logged, job, opening, meter)
        splits = data.load(job)
        loop.open_device(spec, device)
        loop.prepare(spec, device)
        gauges = Gauges(meter, Memory(device), intensity, spec.pue)
        network = _network(spec, splits, logged, job)
        metrics, steps = loop.probe(
            spec, splits, network, device, gauges, progress(spec, overall(meter.sources))
        )
        logged.log(metrics, 0)
        logged.tag({"pepr.probe": steps, **gauges.costs.tags(meter.notes)})
        raise Paused(f"{spec.model}: probed with {steps}", reason="probed")


def _name(spec: RunSpec) -> str:
    return f"{spec.model} {spec.seed}" + ("" if spec.pretrained else " from scratch")


def _describe(logged: Run, job: Job, opening: Mapping[str, str], meter: Meter) -> None:
    """What is known before anything is loaded."""
    logged.params(job.as_params())
    logged.spec(job.values())
    source = overall(meter.sources)
    energy = {"mlflow.note.content": f"Energy: {source} ({meter.method})"}
    logged.tag({**opening, **energy, "pepr.data_digest": job.data_digest})


def _doubts(splits: Splits, logged: Run, note: Callable[[str], None], strict: bool) -> list[str]:
    """What is doubtful about the images, in words, which are said before the training."""
    from pepr_mlops import data

    for text in splits.notes:
        note(text)
    found = data.doubts(splits)
    logged.tag(found)
    if strict:
        data.refuse(splits.name, found)
    said = data.in_words(found)
    for text in said:
        note(f"caution: {text}")
    return said


def _writable(folder: Path) -> Path:
    """The folder, made where it is not there yet."""
    why = "no right to write"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
    except OSError as error:
        why = str(error.strerror)
    raise WrongUse(f"checkpoints: {folder} cannot be written ({why}); name another folder")


def _saved(
    folder: Path,
    job: Job,
    opening: Mapping[str, str],
    gauges: Gauges,
    tracking_uri: str | None,
    note: Callable[[str], None],
) -> Saved | None:
    """The training to go on with, its costs taken over by `gauges`; None where there is none.

    One that was begun on other hardware, with other sensors or on another server begins anew:
    costs of two machines do not add up to one of either.
    """
    from pepr_mlops import tracking
    from pepr_mlops.train.checkpoint import load, of_other_files

    try:
        saved = load(folder)
        if saved is None:
            for other in of_other_files(folder, job.earlier_fingerprint):
                note(f"starts from the beginning: images or weights changed since {other} was kept")
            return None
        if saved.hardware != _machine(opening):
            raise ValueError(f"it was begun on {saved.hardware}")
        with impatient():
            if not tracking.knows(saved.run_id, tracking_uri):
                raise ValueError(f"the tracking server has no run {saved.run_id}")
        gauges.resume(saved.gauges)
    except ValueError as error:
        note(f"begins anew, since the checkpoint cannot be continued: {one_line(error)}")
        return None
    return saved


def _machine(opening: Mapping[str, str]) -> str:
    """What the costs of two attempts must share to add up."""
    from pepr_mlops.costs import device as hardware

    counted = ["pepr.energy_model"]
    if "cpu=" in opening.get("pepr.energy_components", ""):
        counted.append("pepr.cpu")
    of = [opening[name] for name in counted if name in opening]
    return hardware.conditions(opening) + (f", energy of {', '.join(of)}" if of else "")


def _take_up(saved: Saved, checkpoint: Checkpoint, gauges: Gauges, logged: Run) -> None:
    """Log what interrupted attempts left, and keep that another one has begun."""
    logged.tag(_unmeasured(saved, logged.earlier))
    if not logged.has(PERFORMANCE, saved.epoch):  # it ended between keeping and logging
        logged.log(saved.metrics, saved.epoch)
    try:
        checkpoint.costs(gauges.state(), clean=False)
    except OSError as error:  # what this attempt loses could not be told from the last
        raise WorkFailed(
            f"checkpoints: {checkpoint.folder} cannot be written ({error.strerror}); make room "
            "there"
        ) from error


def _pause(until: int | None, left_wh: float | None, gauges: Gauges) -> Pause:
    """Whether to rest after an epoch; the costs so far are those of earlier attempts."""
    before_wh = _spent_wh(gauges)

    def rest(epoch: int, metrics: Mapping[str, float]) -> bool:
        if until is not None and epoch >= until:
            return True
        if left_wh is None:
            return False
        now_wh = _spent_wh(gauges)
        if now_wh is None or before_wh is None:
            raise WorkFailed(
                f"budget_wh: the energy can no longer be read in epoch {epoch}, so the budget "
                "cannot be kept; run without it or mend the sensor",
                reason="sensor_lost",
            )
        return now_wh - before_wh >= left_wh

    return rest


def _spent_wh(gauges: Gauges) -> float | None:
    """Energy of all phases so far, None where it is not known."""
    parts = [gauges.costs.energy_wh(phase) for phase in gauges.costs.time_s]
    return None if None in parts else sum(part for part in parts if part is not None)


def _unmeasured(saved: Saved, earlier: Mapping[str, str]) -> dict[str, str]:
    """The tag that says how long interrupted attempts worked unseen, at most."""
    before = float(earlier.get("pepr.unmeasured_s", 0))
    if saved.clean:
        return {}
    silent = int(earlier.get("pepr.heartbeat", 0)) / 1000 - saved.at_s
    return {"pepr.unmeasured_s": f"{before + max(0.0, silent) + HEARTBEAT_S:.1f}"}


def _check(
    spec: RunSpec, host_is_shared: bool
) -> tuple[torch.device, Meter, carbon.Intensity | None]:
    """The device, meter and grid intensity, or `WrongUse` for what cannot be carried out."""
    from pepr_mlops import data
    from pepr_mlops.costs import device as hardware
    from pepr_mlops.train import loop, models

    intensity = carbon.resolve(spec.country, spec.carbon_intensity)
    data.check_name(spec.dataset)
    models.check_name(spec.model)
    device = hardware.resolve_device(spec.device)
    hardware.use_threads(spec.threads)
    loop.check_device(spec, device)
    host = not (host_is_shared and device.type == "cuda")
    meter = open_meter(spec.energy, device.type, *hardware.gpu_of(device), host=host)
    if spec.budget_wh is not None and not meter.sources:
        why = "; ".join(f"{component}: {note}" for component, note in meter.notes.items())
        raise WrongUse(f"budget_wh: no energy is known here ({why}); use budget_s")
    return device, meter, intensity


def _network(spec: RunSpec, splits: Splits, logged: Run, job: Job) -> torch.nn.Module:
    from pepr_mlops import data
    from pepr_mlops.train import models

    network = models.build(
        spec.model,
        classes=len(splits.classes),
        channels=splits.channels,
        image_size=spec.image_size,
        pretrained=spec.pretrained,
        weights=spec.weights,
    )
    data.check_weights(job)
    weights = models.weights_name(spec.model, spec.pretrained, spec.weights)
    logged.tag(
        {
            "pepr.parameters": str(sum(p.numel() for p in network.parameters())),
            "pepr.weights": f"file {job.weights_digest}" if job.weights_digest else weights,
        }
    )
    return network


def _log_result(logged: Run, spec: RunSpec, splits: Splits, result: Result) -> None:
    """What no metric holds: why it stopped early, and the predictions on the test set."""
    from pepr_mlops.train.confusion import picture, table
    from pepr_mlops.train.metrics import confusion

    if result.stopped is not None:
        logged.tag({"pepr.stopped": result.stopped})
    logged.predictions(result.labels, result.probabilities, splits.classes, splits.test.origins)
    counts = confusion(result.labels, result.probabilities, splits.task)
    title = f"{spec.model} on the {splits.name} test set"
    logged.file("confusion_matrix.png", picture(counts, splits.classes, splits.task, title))
    logged.file("confusion_matrix.csv", table(counts, splits.classes, splits.task).encode())
