"""One training job from its spec to a finished MLflow run."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pepr_mlops.costs.device import (
    Device,
    hardware_text,
    load_torch,
    thread_caution,
    use_threads,
)
from pepr_mlops.costs.gpus import driver
from pepr_mlops.costs.meters import idle_tags
from pepr_mlops.costs.meters.codecarbon import prefetch
from pepr_mlops.costs.recorder import Recorder
from pepr_mlops.costs.totals import cautions
from pepr_mlops.errors import Paused, WrongUse
from pepr_mlops.names import LOST, memory_metric
from pepr_mlops.process import importing
from pepr_mlops.spec import NONE, TRIED, Job, RunSpec
from pepr_mlops.tracking.ownership import STALE_S
from pepr_mlops.train.progress import Silent, where_watched

if TYPE_CHECKING:
    import torch

    from pepr_mlops.comparison.predictions import OfSplit, Predictions
    from pepr_mlops.data import Split, Splits
    from pepr_mlops.tracking import Run
    from pepr_mlops.train.budget import Pause
    from pepr_mlops.train.checkpoint import Checkpoint
    from pepr_mlops.train.loop import Result
    from pepr_mlops.train.resume import Resumption
    from pepr_mlops.train.trainer import Evaluation
    from pepr_mlops.train.use.best import Best


_PERFORMANCE = "test/accuracy"


@dataclass(frozen=True)
class Outcome:
    """A finished job: its run, its result, the source of its energy, cautions about its numbers."""

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
    progress: Callable[[RunSpec, str], Silent] = where_watched,
    checkpoints: Path | None = None,
    exclusive: bool = False,
    host_is_shared: bool = False,
    stale_s: float = STALE_S,
    until: int | None = None,
    left_wh: float | None = None,
    offline: bool = False,
    strict: bool = False,
    keep_top: str | None = None,
) -> Outcome:
    """Train and evaluate as `spec` says and log everything to MLflow.

    Progress is shown on a terminal and in a notebook; with `progress.Printed` as `progress` always,
    with `progress.Silent` never.

    With a folder `checkpoints` the training is saved there after every epoch; an interrupted one of
    the same spec on the same kind of hardware resumes in its own run, with the costs of all
    attempts. `until` and `left_wh` pause it as `budget.pause_after`, by raising `Paused`.
    `exclusive` and `stale_s` are those of `tracking.Attempt`, `host_is_shared` of `Recorder.open`.
    With `offline` no tracking server is contacted, and `pepr sync` sends the run later. With
    `strict` doubtful images are refused (`data.doubts`). `keep_top` is the option of a sweep that
    may drop the weights of the run, as text for its tag.

    The run is the one that `mlflow run` has begun or a new one, see `tracking.start`. Raises
    `WrongUse` before a run exists for what is known to be impossible. After marking the run FAILED
    it raises `WorkFailed`, or `WrongUse` for faults of data and weights that show when read.

    >>> from pepr_mlops import RunSpec, run
    >>> tiny = {"image_size": 32, "epochs": 1, "fraction": 0.1, "pretrained": False}
    >>> for model in ("test_resnet", "test_efficientnet"):
    ...     spec = RunSpec(model=model, dataset="digits", energy="estimated", device="cpu", **tiny)
    ...     outcome = run(spec)
    >>> outcome.energy_source, 0 < outcome.result.metrics["energy/train_wh"] < 1
    ('estimated', True)
    """
    from pepr_mlops import data, tracking

    started = time.perf_counter()
    data.check_name(spec.dataset)  # a typo is reported before any wait
    preparations: list[Callable[[], object]] = [load_torch]
    if driver().count() == 0:
        preparations += prefetch(spec.energy)
    with importing(*preparations):
        if not offline:  # before the seconds of importing PyTorch
            tracking.reach(tracking_uri)
        from pepr_mlops.train.budget import pause_after
        from pepr_mlops.train.resume import Resumption

        recorder = _open(spec, host_is_shared)
    job = spec if isinstance(spec, Job) else data.identify(spec)
    shown = progress(spec, recorder.source)
    opening = recorder.opening_tags(spec.experiment_name, _PERFORMANCE)
    if recorder.device.kind == "cpu" and (caution := thread_caution(opening)):
        shown.note(caution)
    if recorder.unknown_energy is not None:
        shown.note(recorder.unknown_energy)
    recorder.memory.restart()
    resumption = Resumption.find(
        *(job, checkpoints, opening, recorder, tracking_uri, shown.note), offline=offline
    )
    earlier_run = None if resumption.saved is None else resumption.saved.run_id
    saved = checkpoints is not None
    attempt = tracking.Attempt(job.fingerprint, exclusive, stale_s, earlier_run, saved)
    pause = pause_after(until, left_wh, recorder)
    with tracking.start(
        *(spec.experiment, spec.experiment_name, _name(spec), tracking_uri, attempt),
        offline=offline,
        note=shown.note,
    ) as logged:
        if keep_top is not None:
            logged.tag({"pepr.keep_top": keep_top})
        training = _Training(spec, job, recorder, logged, shown, opening, resumption)
        outcome = training.run(pause, started, strict)
    resumption.discard()
    return outcome


def probe(
    spec: RunSpec,
    *,
    tracking_uri: str | None = None,
    progress: Callable[[RunSpec, str], Silent] = where_watched,
    host_is_shared: bool = False,
    offline: bool = False,
) -> None:
    """Train a few steps and log their cost and a forecast for all of `spec`, as `loop.probe`.

    The run ends as KILLED with the reason `probed`. Arguments and errors are those of `run`; `spec`
    must leave no setting to a trial.
    """
    with importing():
        recorder = _open(spec, host_is_shared)
    from pepr_mlops import data, tracking
    from pepr_mlops.train import loop, trainer

    job = spec if isinstance(spec, Job) else data.identify(spec)
    opening = recorder.opening_tags(spec.experiment_name, _PERFORMANCE)
    attempt = tracking.Attempt(job.fingerprint, probe=True)
    with (
        suppress(Paused),
        tracking.start(
            *(spec.experiment, spec.experiment_name, f"{_name(spec)} probe", tracking_uri, attempt),
            offline=offline,
        ) as logged,
    ):
        _describe(logged, job, opening, recorder)
        splits = data.load(job)
        trainer.open_device(spec, recorder.device.torch_device)
        trainer.prepare(spec, recorder.device.torch_device)
        recorder.memory.restart()
        recorder.watch_others({})
        network = _network(spec, splits, logged, job)
        shown = progress(spec, recorder.source)
        metrics, steps = loop.probe(spec, splits, network, recorder, shown)
        logged.log(metrics, 0)
        logged.tag({"pepr.probe": steps, **recorder.closing_tags(failed=True)})
        raise Paused(f"{spec.model}: probed with {steps}", reason="probed")


@dataclass
class _Training:
    """One attempt at a job, in its run."""

    spec: RunSpec
    job: Job
    recorder: Recorder
    logged: Run
    shown: Silent
    opening: Mapping[str, str]
    resumption: Resumption

    def run(self, pause: Pause, started: float, strict: bool) -> Outcome:
        from pepr_mlops import data
        from pepr_mlops.data.stored import Stored
        from pepr_mlops.train import loop

        recorder, logged = self.recorder, self.logged
        _describe(logged, self.job, self.opening, recorder)
        splits = data.load(self.job, self.shown.note)
        logged.data(splits)
        logged.tag(_data_tags(splits))
        if isinstance(splits.train.images, Stored):
            recorder.memory.restart()  # preparing images is no cost of a model
        doubts = [*self._doubts(splits, strict), *self._recipe()]
        network = self._set_up(splits)
        recorder.watch_others(logged.earlier)
        checkpoint = self.resumption.checkpoint(logged, recorder)
        saved = self.resumption.saved
        if saved is not None:
            done = f"epoch {saved.epoch} of {self.spec.epochs}"
            self.shown.note(f"{self.spec.model}: resumes after {done}")
        with self._best(splits, checkpoint) as best:
            try:
                result = loop.fit(
                    *(self.spec, splits, network, recorder, logged.log, self.shown, started),
                    checkpoint=checkpoint,
                    saved=saved,
                    pause=pause,
                    best=best,
                )
            except BaseException:
                with suppress(Exception):  # server or device may be gone: show the first error
                    logged.tag(recorder.closing_tags(failed=True))
                raise
            closing = recorder.closing_tags()
            logged.tag(closing)
            energy_source = closing.get("pepr.energy_source", recorder.source)
            if energy_source == LOST:
                logged.tag({"mlflow.note.content": "Energy: lost during the run"})
            result, learnt_nothing, predictions = _log_result(logged, self.job, splits, result)
            self._keep(splits, network, result.epoch, predictions, best)
        constant_w = self.opening.get("pepr.energy_constant_w")
        return Outcome(
            logged,
            result,
            energy_source,
            memory_metric(recorder.device.kind),
            (*learnt_nothing, *doubts, *cautions({**self.opening, **closing})),
            None if constant_w is None else float(constant_w),
        )

    def _best(
        self, splits: Splits, checkpoint: Checkpoint | None
    ) -> AbstractContextManager[Best | None]:
        """Where the weights of the best epoch are until the end, if the run keeps them."""
        from pepr_mlops.train.use.best import Best

        if self.spec.keep not in ("best", "both"):
            return nullcontext()
        folder = None if checkpoint is None else checkpoint.folder
        return Best.open(folder, splits.task, self.shown.note)

    def _keep(
        self,
        splits: Splits,
        network: torch.nn.Module,
        epochs: int,
        predictions: Predictions,
        best: Best | None,
    ) -> None:
        """Log the weights that the run keeps."""
        from pepr_mlops.train.use import keep

        if self.spec.keep == NONE:
            return
        settled = replace(self.job, precision=self.spec.precision)
        described = keep.describe(settled, splits, network, _initial_weights(self.job), epochs)
        why = keep.log(self.logged, network, described, predictions, self.spec.keep, best)
        if why is not None:
            self.shown.note(why)

    def _doubts(self, splits: Splits, strict: bool) -> list[str]:
        """Show what is doubtful about the images before the training; the same as a list."""
        from pepr_mlops import data

        for text in splits.notes:
            self.shown.note(text)
        found = data.doubts(splits)
        self.logged.tag(found)
        if strict:
            data.refuse_doubts(splits.name, found)
        cautions = data.doubt_texts(found)
        for text in cautions:
            self.shown.note(f"caution: {text}")
        return cautions

    def _recipe(self) -> list[str]:
        """Show what differs from the protocol of the paper; cautions about it."""
        from pepr_mlops.train import recipe

        for text in recipe.notes(self.spec):
            self.shown.note(text)
        cautions = recipe.cautions(self.spec)
        for text in cautions:
            self.shown.note(f"caution: {text}")
        return cautions

    def _set_up(self, splits: Splits) -> torch.nn.Module:
        """Open the device, choose the setting and build the network."""
        from pepr_mlops.train import autotune, trainer

        recorder, device = self.recorder, self.recorder.device.torch_device
        trainer.open_device(self.spec, device)
        self.logged.tag(idle_tags(recorder.meter, required=self.spec.energy == "measured"))
        saved = self.resumption.saved
        if saved is not None:  # the setting it was begun with, even if another would be faster
            begun = {name: saved.state[name] for name in TRIED if name in saved.state}
            self.spec = replace(self.spec, **begun)
        elif self.spec.untried:
            self.spec = autotune.settle(
                *(self.spec, splits, recorder, self.logged),
                *(hardware_text(self.opening), self.shown.note),
            )
            recorder.memory.restart()
        trainer.prepare(self.spec, device)
        network = _network(self.spec, splits, self.logged, self.job)
        images = " / ".join(f"{len(part):,}" for part in (splits.train, splits.val, splits.test))
        method = f" ({recorder.meter.method})" if recorder.meter.sources else ""
        self.shown.note(
            f"{self.spec.model} on {device}; {splits.name}: {images} images to train / validate / "
            f"test; energy: {recorder.source}{method}"
        )
        return network


def _open(spec: RunSpec, host_is_shared: bool) -> Recorder:
    """The recorder of the device. Raises `WrongUse` for a spec that cannot be carried out."""
    from pepr_mlops import data
    from pepr_mlops.train import models, trainer

    data.check_name(spec.dataset)
    models.check_name(spec.model)
    device = Device.resolve(spec.device)
    use_threads(spec.threads)
    trainer.check_device(spec, device.torch_device)
    recorder = Recorder.open(spec, device, host_is_shared=host_is_shared)
    if spec.budget_wh is not None and not recorder.meter.sources:
        why = "; ".join(f"{part}: {note}" for part, note in recorder.meter.notes.items())
        raise WrongUse(f"budget_wh: this machine's energy is not known ({why}); use budget_s")
    return recorder


def _name(spec: RunSpec) -> str:
    fold = "" if spec.fold is None else f" fold {spec.fold}"
    return f"{spec.model} {spec.seed}{fold}" + ("" if spec.pretrained else " from scratch")


def _describe(logged: Run, job: Job, opening: Mapping[str, str], recorder: Recorder) -> None:
    """Log what is known before any data is loaded."""
    logged.params(job.as_params())
    logged.spec(job.values())
    energy = {"mlflow.note.content": f"Energy: {recorder.source} ({recorder.meter.method})"}
    logged.tag({**opening, **energy, "pepr.data_digest": job.data_digest})


def _data_tags(splits: Splits) -> dict[str, str]:
    from pepr_mlops.data import resize

    tags = {"pepr.val_images": str(len(splits.val)), "pepr.test_images": str(len(splits.test))}
    tags["pepr.resize"] = resize.NAME
    if splits.notes:
        tags["pepr.data_notes"] = "; ".join(splits.notes)
    if splits.window is not None:
        tags["pepr.window"] = ",".join(f"{bound!r}" for bound in splits.window)
    return tags


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
    logged.tag(
        {
            "pepr.parameters": str(sum(p.numel() for p in network.parameters())),
            "pepr.weights": _initial_weights(job),
        }
    )
    return network


def _initial_weights(job: Job) -> str:
    from pepr_mlops.train import models

    if job.weights_digest:
        return f"file {job.weights_digest}"
    return models.weights_name(job.model, job.pretrained, job.weights)


def _log_result(
    logged: Run, job: Job, splits: Splits, result: Result
) -> tuple[Result, tuple[str, ...], Predictions]:
    """Log why it stopped early, the predictions, and their clinical metrics with the last epoch;
    the result with these, a caution if the network names a single class, and the predictions."""
    from pepr_mlops.comparison.metrics import clinical, confusion
    from pepr_mlops.comparison.prediction_checks import only_class
    from pepr_mlops.comparison.predictions import Predictions
    from pepr_mlops.train.confusion import picture, table

    if result.stopped is not None:
        logged.tag({"pepr.stopped": result.stopped})
    if result.patience is not None:
        logged.tag({"pepr.early_stop": result.patience})
    test, val = _predicted(splits.test, result.test), _predicted(splits.val, result.val)
    predictions = Predictions(splits.task, splits.classes, test, val, job.data_digest)
    logged.predictions(predictions)
    metrics = {
        f"{split}/{name}": value
        for split in ("val", "test")
        for name, value in clinical(predictions.of(split)).items()
    }
    for name, evaluation in result.external.items():  # at the thresholds of val
        found = replace(predictions, test=_predicted(splits.external[name], evaluation))
        scores = {**evaluation.scores, **clinical(found.of("test"))}
        metrics |= {f"external/{name}/{metric}": value for metric, value in scores.items()}
    logged.log(metrics, result.epoch)
    counts = confusion(test.labels, test.probabilities, splits.task)
    title = f"{job.model} on the {splits.name} test set"
    logged.file("confusion_matrix.png", picture(counts, splits.classes, splits.task, title))
    logged.file("confusion_matrix.csv", table(counts, splits.classes, splits.task).encode())
    only = only_class(predictions)
    caution = () if only is None else (f"the network has learnt nothing: {only}",)
    return replace(result, metrics={**result.metrics, **metrics}), caution, predictions


def _predicted(split: Split, evaluation: Evaluation) -> OfSplit:
    from pepr_mlops.comparison.predictions import OfSplit

    return OfSplit(evaluation.labels, evaluation.probabilities, split.origins, split.groups)
