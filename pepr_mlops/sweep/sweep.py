"""A sweep: reads from the tracking server which jobs are done, and trains the others."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal

import pandas as pd

from pepr_mlops.costs.memory import can_list_pages
from pepr_mlops.errors import PeprError, WrongUse
from pepr_mlops.files import user_folder
from pepr_mlops.names import ScoredOn
from pepr_mlops.spec import Job
from pepr_mlops.sweep import plan
from pepr_mlops.sweep.driver import Driver, Limits, Result, Status, Strategy
from pepr_mlops.sweep.earlier import Matches, match_jobs
from pepr_mlops.sweep.engine import Engine, Report
from pepr_mlops.sweep.keep_top import KeepTop, prune, without_weights
from pepr_mlops.sweep.observed import Objective
from pepr_mlops.sweep.search import HISTORY, Search, check, check_budget, read_prior
from pepr_mlops.sweep.slurm import options, scheduler
from pepr_mlops.sweep.slurm.options import Options
from pepr_mlops.sweep.worker import Worker
from pepr_mlops.tracking.drop_weights import drop_weights
from pepr_mlops.tracking.searches import log_search
from pepr_mlops.tracking.server import resolved, sqlite_path

_DATABASES = {"sqlite", "postgresql", "mysql", "mssql"}  # as MLflow names them


@dataclass(frozen=True)
class Settings:
    """How a sweep is carried out.

    `checkpoints` is the folder of unfinished trainings, None for the user's cache. `retry_failed`
    retries also the jobs that failed for good, `strict` refuses doubtful images. `engine` is
    `local`, `ray` on the cluster at `address`, or `slurm` with jobs as `slurm` describes. With
    `keep_top` the weights of the other models are deleted. The other fields are those of `Worker`
    and `Limits`.
    """

    tracking_uri: str | None = None
    checkpoints: Path | None = None
    engine: Literal["local", "ray", "slurm"] = "local"
    address: str | None = None
    slurm: Options = field(default_factory=Options)
    busy: Literal["wait", "refuse"] = "wait"
    cool_c: float | None = None
    order_seed: int = 0
    retry_failed: bool = False
    strict: bool = False
    keep_top: KeepTop | None = None
    limits: Limits = field(default_factory=Limits)


def status(specs: Sequence[Job], settings: Settings) -> Status:
    """Read the state of a sweep, without changing anything."""
    return _found(specs, settings)[0]


def run(
    specs: Sequence[Job],
    settings: Settings,
    show: Callable[[Status], None],
    report: Callable[[Report], None],
    strategy: Strategy = plan.exhaustive,
    note: Callable[[str], None] = lambda _: None,
) -> Result:
    """Train the jobs that are not done yet, each once however many sweeps share them.

    Only the tracking server decides which jobs are done; `note` receives notes about the images and
    about earlier runs. Raises `WrongUse` and `WorkFailed` before a job begins, and as `Driver`.
    """
    return _driver(specs, settings, show, report, strategy, note)[0].run()


def detach(
    specs: Sequence[Job],
    settings: Settings,
    report: Callable[[Report], None],
    note: Callable[[str], None],
) -> tuple[Result, int]:
    """Submit the jobs that are not done yet to Slurm, and return without waiting for them.

    Returns the state before that, and how many jobs are not submitted yet, since `max_jobs` or
    Slurm allows no more. Arguments and errors are those of `run`.
    """
    from pepr_mlops.sweep.slurm.engine import SlurmEngine

    driver, engine = _driver(specs, settings, lambda now: None, report, plan.exhaustive, note)
    assert isinstance(engine, SlurmEngine)
    result = driver.begin()
    left = engine.flush()
    for message in engine.poll(0):
        report(message)
    return result, left


def _driver(
    specs: Sequence[Job],
    settings: Settings,
    show: Callable[[Status], None],
    report: Callable[[Report], None],
    strategy: Strategy,
    note: Callable[[str], None],
) -> tuple[Driver, Engine]:
    """The loop of a sweep and its engine, after everything is ready for the first job."""
    from pepr_mlops import tracking

    kind = _kind(specs, settings)
    checkpoints = (settings.checkpoints or default_checkpoints()).absolute()
    delivered = tracking.delivered()  # before the server is read, which must have them
    found, matches = _found(specs, settings)
    pending = found.jobs.index[found.jobs["state"] == "pending"]
    tracking.forget(delivered.intersection(pending))
    tracking.prepare(_experiments(specs), settings.tracking_uri)
    tracking.identify(matches.fingerprints, settings.tracking_uri)
    for text in found.notes:
        note(text)
    if settings.engine == "slurm":
        for text in _not_shared(checkpoints, settings):
            note(text)
    worker = Worker(
        resolved(settings.tracking_uri),
        checkpoints,
        settings.limits.stale_s,
        settings.busy,
        settings.cool_c,
        settings.strict,
        None if settings.keep_top is None else str(settings.keep_top),
        settings.slurm.offline,
    )
    engine = _engine(worker, specs, kind, settings, strategy)
    driver = Driver(
        plan.shuffled(specs, settings.order_seed),
        strategy,
        engine,
        _TrackingServer(specs, settings),
        settings.limits,
        show,
        report,
        settings.retry_failed,
        partial(_log_search, strategy, specs, settings, note, set())
        if isinstance(strategy, Search)
        else partial(_tidy, settings, note, set()),
    )
    return driver, engine


def _log_search(
    search: Search,
    specs: Sequence[Job],
    settings: Settings,
    note: Callable[[str], None],
    failures: set[str],
    result: Result,
) -> None:
    """Log what the search believes and has found; a failure costs it nothing else, and is noted
    once."""
    try:
        record = search.record(search.verdict(result.judged, result.runs))
    except PeprError:
        return  # the search itself meets it next
    record |= {"seed": specs[0].seed}
    try:
        for experiment in _experiments(specs):
            log_search(experiment, _record_name(search, specs[0]), record, settings.tracking_uri)
    except PeprError as error:
        if str(error) not in failures:
            failures.add(str(error))
            note(f"the record of the search is not logged now ({error})")


def _record_name(search: Search, spec: Job) -> str:
    """What the search looks for, and a digest of the data and settings that all its jobs share."""
    shared = replace(spec, model="any", weights=None, weights_digest=None)
    return f"{search.name}.{shared.fingerprint[:8]}"


def _tidy(
    settings: Settings, note: Callable[[str], None], failures: set[str], result: Result
) -> None:
    """Delete the weights that are not to be kept; a failure costs the sweep nothing else, and is
    noted once."""
    from pepr_mlops.tracking import read

    uri = settings.tracking_uri
    if settings.keep_top is None:
        return
    try:
        n = prune(
            result,
            settings.keep_top,
            lambda runs: read.load_evidence(runs, tracking_uri=uri),
            lambda ids, why: drop_weights(ids, why, uri),
        )
    except PeprError as error:
        if str(error) not in failures:
            failures.add(str(error))
            note(f"{settings.keep_top}: no weights are dropped now ({error})")
    else:
        if n:
            note(f"{settings.keep_top}: dropped the weights of {n} run{'s' * (n != 1)}")


def frugal(
    specs: Sequence[Job],
    settings: Settings,
    letter: str,
    objective: Objective,
    decide_on: ScoredOn | None = None,
    prior: str = "both",
) -> Search:
    """The strategy that searches for the best of these jobs instead of training them all.

    `letter` and `decide_on` are those of `search.Search`, None for validation, and `prior` is the
    source of `search.read_prior`; `objective.epochs` is replaced by the epochs of the jobs. Raises
    `WrongUse` for jobs that differ in more than the model, or whose cost is not known, and for a
    budget of energy without energy.
    """
    from pepr_mlops.data.medmnist import same_data
    from pepr_mlops.tracking import read

    check(specs, letter)
    first, uri = specs[0], settings.tracking_uri
    spending = "train_time_s" if first.energy == "off" else "energy_wh"
    check_budget(objective, spending)
    data = {first.data_digest, *same_data(first.dataset_name)}
    return Search(
        replace(objective, epochs=first.epochs),
        letter,
        spending,
        lambda ids: read.load_epochs(ids, HISTORY, tracking_uri=uri),
        decide_on or "val",
        read_prior(prior, data, letter, spending, first.as_params(), uri),
    )


def default_checkpoints() -> Path:
    """Folder of unfinished trainings: PEPR_CHECKPOINTS, or one in the user's cache."""
    return user_folder("PEPR_CHECKPOINTS", "XDG_CACHE_HOME", "checkpoints")


def _found(specs: Sequence[Job], settings: Settings) -> tuple[Status, Matches]:
    """The state of a sweep, and the jobs of earlier runs."""
    if settings.keep_top is not None:
        settings.keep_top.check(specs)
    runs = _read(specs, settings)
    matches = match_jobs(specs, runs, settings.tracking_uri)
    runs = matches.added_to(runs)
    doubts = _doubts(specs, runs, settings.strict)
    jobs = plan.states(specs, runs, retry_failed=settings.retry_failed)
    notes = [*doubts, *matches.texts(), *_other_runs(specs, runs, settings.tracking_uri)]
    notes += without_weights(jobs, runs, settings.keep_top)
    return Status(jobs, runs, float(jobs["energy_wh"].sum()), notes), matches


def _doubts(specs: Sequence[Job], runs: pd.DataFrame, strict: bool) -> list[str]:
    """Notes about the images of the remaining jobs, for each data set and fold as its first job
    draws it.

    Data that must be downloaded first or cannot be read are left to their jobs. Raises `WrongUse`
    for a doubt if `strict`.
    """
    from pepr_mlops import data

    done = set(runs.loc[runs["status"] == "FINISHED", "spec"])
    by_data: dict[tuple[str, int | None], Job] = {}
    for spec in specs:
        if spec.fingerprint not in done:
            by_data.setdefault((spec.data_digest, spec.fold), spec)
    notes = []
    for spec in by_data.values():
        if data.missing(spec) is not None:
            continue
        try:
            splits = data.load(spec)
        except (PeprError, MemoryError):
            continue
        found = data.doubts(splits)
        if strict:
            data.refuse_doubts(splits.name, found)
        where = "" if spec.fold is None else f"fold {spec.fold}: "
        cautions = [f"{where}{text}" for text in data.doubt_texts(found)]
        notes += [f"{splits.name}: {text}" for text in (*splits.notes, *cautions)]
    return list(dict.fromkeys(notes))


def _other_runs(specs: Sequence[Job], runs: pd.DataFrame, tracking_uri: str | None) -> list[str]:
    """Notes about finished runs that do not count as done: of the same experiments on other
    images, and of these jobs in other experiments where the requested ones have none."""
    from pepr_mlops.tracking import read

    done = runs[(runs["status"] == "FINISHED") & runs["data_digest"].notna()]
    other = done[~done["data_digest"].isin([spec.data_digest for spec in specs])]
    notes = [
        f"{n} run{'s' * (n != 1)} of {name} used other images: not counted as done"
        for name, n in other.groupby("experiment").size().items()
    ]
    if done.empty:
        elsewhere = read.count_done(specs, tracking_uri=tracking_uri)
        notes += [
            f"{name} has {n} of these jobs done: --experiment {name} does not train "
            f"{'it' if n == 1 else 'them'} again"
            for name, n in sorted(elsewhere.items())
        ]
    return notes


def _not_shared(checkpoints: Path, settings: Settings) -> list[str]:
    """Notes about what the nodes of a cluster need and may not see."""
    database = sqlite_path(resolved(settings.tracking_uri))
    needed = {"checkpoints": (checkpoints, "--checkpoints DIR")}
    if database is not None and not settings.slurm.offline:
        needed["tracking_uri"] = Path(database), "--tracking-uri URI"
    return [
        f"{name}: {path} is in this machine's folder of temporary files; if the nodes do not share "
        f"it, name another ({option})"
        for name, (path, option) in needed.items()
        if path.absolute().is_relative_to(tempfile.gettempdir())
    ]


def _kind(specs: Sequence[Job], settings: Settings) -> str:
    """The kind of device that all jobs ask for. Raises `WrongUse` for what no engine can give."""
    kinds = {spec.device.partition(":")[0] for spec in specs}
    if any(":" in spec.device for spec in specs):
        raise WrongUse(
            "device: a sweep assigns the GPUs itself; use cuda, and CUDA_VISIBLE_DEVICES to "
            "leave some out"
        )
    if len(kinds) > 1:
        raise WrongUse(f"device: {', '.join(sorted(kinds))} in one sweep; run one sweep for each")
    (kind,) = kinds
    if settings.engine == "slurm":
        options.arguments(settings.slurm, kind)
        scheduler.program("sbatch")
    return kind


def _engine(
    worker: Worker, specs: Sequence[Job], kind: str, settings: Settings, strategy: Strategy
) -> Engine:
    from pepr_mlops.costs import gpus

    if settings.engine == "slurm":
        from pepr_mlops.sweep.slurm.engine import SlurmEngine

        name = specs[0].experiment or specs[0].experiment_name
        search = strategy is not plan.exhaustive
        worker = replace(worker, owner="")  # a job outlives the process that submitted it
        return SlurmEngine(worker, settings.slurm, kind, name, worker.checkpoints, stay=search)
    if settings.engine == "ray":
        from pepr_mlops.sweep.ray_engine import RayEngine

        return RayEngine(worker, settings.address, {"cpu": False, "cuda": True}.get(kind))
    from pepr_mlops.sweep.local_engine import LocalEngine

    slots = [] if kind in ("cpu", "mps") else gpus.driver().slots()
    if not slots and any(spec.launch == "graph" for spec in specs):
        raise WrongUse("launch: graph needs an NVIDIA GPU, and this machine has none; use kernels")
    preload = preloaded(resolved(settings.tracking_uri))
    return LocalEngine(worker, slots or [{}], worker.checkpoints / "logs", preload)


def preloaded(tracking_uri: str) -> list[str]:
    """Modules that the jobs' processes are forked with; none where that would distort memory.

    All jobs import them: a module that a job does not use would count as its memory on a CPU.
    """
    if not can_list_pages():
        return []
    database = re.split(r"[+:]", tracking_uri.lower())[0] in _DATABASES
    store = "mlflow.store.tracking.sqlalchemy_store" if database else "mlflow"
    return [store, "pepr_mlops.sweep.fork_server"]


@dataclass(frozen=True)
class _TrackingServer:
    """The tracking server as `driver.Server`."""

    specs: Sequence[Job]
    settings: Settings

    def read(self) -> pd.DataFrame:
        from pepr_mlops import tracking

        # A job may have ended while the server was down: send its entries first.
        tracking.catch_up(self.settings.tracking_uri)
        return _read(self.specs, self.settings)

    def close(self, run_ids: Sequence[str]) -> None:
        from pepr_mlops import tracking

        tracking.close_lost(run_ids, self.settings.tracking_uri)


def _read(specs: Sequence[Job], settings: Settings) -> pd.DataFrame:
    from pepr_mlops.tracking import read

    return read.load_jobs(_experiments(specs), tracking_uri=settings.tracking_uri)


def _experiments(specs: Sequence[Job]) -> list[str]:
    return list(dict.fromkeys(spec.experiment_name for spec in specs))
