"""A whole sweep: from the jobs asked for to the tracking server that has them all."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd

from pepr_mlops.costs.memory import can_list_pages
from pepr_mlops.errors import PeprError, WorkFailed, WrongUse
from pepr_mlops.names import PERFORMANCE, RESOURCES
from pepr_mlops.spec import FILES, Job, RunSpec
from pepr_mlops.sweep import earlier, plan, replay, weights
from pepr_mlops.sweep.driver import Ended, Limits, Status, Strategy, drive
from pepr_mlops.sweep.earlier import Digests, Earlier
from pepr_mlops.sweep.engine import Engine, Report
from pepr_mlops.sweep.frugal import Objective
from pepr_mlops.sweep.search import HISTORY, Search, check
from pepr_mlops.sweep.selectors import models
from pepr_mlops.sweep.worker import Worker
from pepr_mlops.tracking.server import resolved

if TYPE_CHECKING:
    from pepr_mlops.tracking.read import Input

# What decides which images a job trains on, and how they are drawn and resized.
_DRAWN_BY = ("dataset", "size", "data_root", "image_size", "channels", "fraction", "seed")
_BYTES_PER_WEIGHT = 4
_DATABASES = {"sqlite", "postgresql", "mysql", "mssql"}  # as MLflow names them


@dataclass(frozen=True)
class Settings:
    """How a sweep is carried out.

    `checkpoints` is the folder of trainings under way, None for the user's cache. `retry_failed`
    tries again also what failed for good, `strict` refuses doubtful images. The other fields are
    those of `Worker` and `Limits`; `engine` is `local` or `ray`, the latter on the cluster at
    `address`.
    """

    tracking_uri: str | None = None
    checkpoints: Path | None = None
    engine: Literal["local", "ray"] = "local"
    address: str | None = None
    busy: Literal["wait", "refuse"] = "wait"
    cool_c: float | None = None
    order_seed: int = 0
    retry_failed: bool = False
    strict: bool = False
    limits: Limits = field(default_factory=Limits)


def jobs(grid: Mapping[str, Any]) -> list[Job]:
    """The jobs of a grid as `plan.expand`, each once. Models may be `selectors` of several.

    The grid may also have `weights_dir`, a folder with the file `weights` of each model, as
    `weights.choose`. Raises `WrongUse` also for models that do not exist, and as `data.identify`.
    """
    from pepr_mlops.data import check_name as check_data
    from pepr_mlops.data import identify_all
    from pepr_mlops.paper_models import paper_models
    from pepr_mlops.train.models import check_name

    asked = grid.get("model", RunSpec.model)
    names = models(map(str, asked if isinstance(asked, list) else [asked]))
    fields_of = {key: value for key, value in grid.items() if key != "weights_dir"}
    specs = plan.expand({**fields_of, "model": names})
    for dataset in dict.fromkeys(spec.dataset for spec in specs):
        check_data(dataset)
    known = {m.model for m in paper_models()}  # timm has them all, and takes seconds to import
    for name in names:
        if name not in known:
            check_name(name)
    if "weights_dir" in grid:
        specs = weights.in_folder(specs, grid["weights_dir"])
    specs = [_absolute(spec) for spec in specs]
    once: dict[str, Job] = {}
    for job in identify_all(specs):
        once.setdefault(job.fingerprint, job)
    return list(once.values())


def _absolute(spec: RunSpec) -> RunSpec:
    """The same job wherever its worker is: `./images` of two projects are two data sets."""
    from pepr_mlops.data import NAMES

    file = None if spec.weights is None else os.path.abspath(spec.weights)
    dataset = spec.dataset if spec.dataset in NAMES else os.path.abspath(spec.dataset)
    return replace(spec, dataset=dataset, weights=file)


def parameters(specs: Sequence[Job]) -> dict[str, int]:
    """Weights of the models of these jobs, of the paper's table or counted without making them."""
    from pepr_mlops.paper_models import paper_models
    from pepr_mlops.train.models import count_parameters

    known = {m.model: m.parameters for m in paper_models()}
    return {
        name: known[name] if name in known else count_parameters(name)
        for name in dict.fromkeys(spec.model for spec in specs)
    }


def downloads(specs: Sequence[Job]) -> str:
    """What these jobs have to fetch first, in words: weights by size, data sets by name."""
    from pepr_mlops.data import missing
    from pepr_mlops.train.models import cached_models

    sizes = parameters(specs)
    here = cached_models()
    wanted = {s.model for s in specs if s.pretrained and s.weights is None} - here
    parts = []
    if wanted:
        size_gb = sum(sizes[name] for name in wanted) * _BYTES_PER_WEIGHT / 1e9
        parts.append(f"weights of {len(wanted)} models, about {size_gb:.2g} GB")
    parts += dict.fromkeys(name for spec in specs if (name := missing(spec)) is not None)
    return "; ".join(parts) or "nothing"


def identify(
    experiments: Sequence[str],
    *,
    dataset: str | None = None,
    data_root: str | None = None,
    tracking_uri: str | None = None,
) -> tuple[Earlier, list[str]]:
    """Find out which data earlier runs used, and log it where they are those that are here.

    Returns also the data sets that are not here. `dataset` and `data_root` say where the data are
    now, None: where the runs found them. Raises `WrongUse` and `WorkFailed` as `query.load_runs`.
    """
    from pepr_mlops import data, tracking
    from pepr_mlops.tracking import read as query

    runs = query.load_runs(experiments, tracking_uri=tracking_uri)
    runs = runs[_unidentified(runs) & runs["spec"].notna()]
    inputs = query.load_inputs(list(runs["run_id"]), tracking_uri=tracking_uri)
    where = {"dataset": dataset, "data_root": data_root}
    moved: dict[str, Any] = {k: v for k, v in where.items() if v is not None}
    of_files: dict[tuple[Any, ...], dict[str, RunSpec]] = {}
    unknown: list[str] = []
    for _, run in runs.iterrows():
        run_id = str(run["run_id"])
        try:
            spec = replace(_as_it_ran(run, inputs[run_id]), **moved)
        except PeprError:
            unknown.append(run_id)
            continue
        files = tuple(getattr(spec, name) for name in FILES)
        of_files.setdefault(files, {})[run_id] = spec
    jobs: dict[str, Job] = {}
    absent: list[str] = []
    for specs in of_files.values():
        try:
            jobs |= zip(specs, data.identify_all(list(specs.values())), strict=True)
        except PeprError:
            unknown += specs
            spec = next(iter(specs.values()))
            if spec.weights is None:
                absent.append(
                    f"{spec.data_root}/{spec.dataset}" if spec.data_root else spec.dataset
                )
    found = _recognise(jobs, inputs)
    tracking.identify(found.fingerprints, tracking_uri)
    return replace(found, unknown=(*found.unknown, *unknown)), list(dict.fromkeys(absent))


def _as_it_ran(run: pd.Series[Any], inputs: Mapping[str, Input]) -> RunSpec:
    """The spec of a run, its data set where it lay: a relative folder was relative to another."""
    from pepr_mlops.data import NAMES

    params = {f.name: run.get(f"params.{f.name}") for f in fields(RunSpec)}
    spec = RunSpec.parse({k: v for k, v in params.items() if isinstance(v, str)})
    dataset = spec.dataset
    if dataset not in NAMES and "train" in inputs:
        dataset = inputs["train"].place or dataset
    return replace(spec, experiment=spec.experiment_name, dataset=dataset)


def _unidentified(runs: pd.DataFrame) -> pd.Series[bool]:
    return (runs["status"] == "FINISHED") & runs["data_digest"].isna() & runs["probe"].isna()


def _earlier(specs: Sequence[Job], runs: pd.DataFrame, tracking_uri: str | None) -> Earlier:
    """Which finished runs did one of these jobs before runs said what their data set held."""
    from pepr_mlops.tracking import read as query

    by_name = {spec.earlier_fingerprint: spec for spec in specs}
    found = runs[_unidentified(runs) & runs["spec"].isin(list(by_name))]
    inputs = query.load_inputs(list(found["run_id"]), tracking_uri=tracking_uri)
    return _recognise({run["run_id"]: by_name[run["spec"]] for _, run in found.iterrows()}, inputs)


def _recognise(jobs: Mapping[str, Job], inputs: Mapping[str, Mapping[str, Input]]) -> Earlier:
    from pepr_mlops import data

    @cache
    def drawn(job: Job) -> Digests:
        splits = data.load(job)
        return {name: getattr(splits, name).digest() for name in ("train", "val", "test")}

    logged = {
        run_id: {name: given.digest for name, given in inputs[run_id].items()} for run_id in jobs
    }
    alike: dict[str, Any] = {f.name: f.default for f in fields(RunSpec) if f.name not in _DRAWN_BY}
    return earlier.recognise(jobs, logged, lambda job: drawn(replace(job, **alike)))


def look(specs: Sequence[Job], settings: Settings) -> Status:
    """How far a sweep is, changing nothing."""
    runs = _read(specs, settings)
    found = _earlier(specs, runs, settings.tracking_uri)
    runs = found.told_in(runs)
    table = plan.states(specs, runs, again=_again(specs, settings))
    doubts = _doubts(specs, runs, settings.strict)
    notes = [*doubts, *found.texts(), *_other_runs(specs, runs, settings.tracking_uri)]
    return Status(table, runs, float(table["energy_wh"].sum()), notes)


def _doubts(specs: Sequence[Job], runs: pd.DataFrame, strict: bool) -> list[str]:
    """What to know about the images of the jobs that are left, each data set as the first of them
    draws it.

    Data that are still to be fetched, or that cannot be read, are left to their jobs. Raises
    `WrongUse` for a doubt if `strict`.
    """
    from pepr_mlops import data

    notes = []
    of_data: dict[str, Job] = {}
    done = set(runs.loc[runs["status"] == "FINISHED", "spec"])
    for spec in specs:
        if spec.fingerprint not in done:
            of_data.setdefault(spec.data_digest, spec)
    for spec in of_data.values():
        if data.missing(spec) is not None:
            continue
        try:
            splits = data.load(spec)
        except (PeprError, MemoryError):
            continue
        found = data.doubts(splits)
        if strict:
            data.refuse(splits.name, found)
        notes += [f"{splits.name}: {text}" for text in (*splits.notes, *data.in_words(found))]
    return notes


def _other_runs(specs: Sequence[Job], runs: pd.DataFrame, tracking_uri: str | None) -> list[str]:
    """What to know of finished runs that are not counted as done: of the same names on other
    images, and of other names on these images where those asked for have none."""
    from pepr_mlops.tracking import read as query

    done = runs[(runs["status"] == "FINISHED") & runs["data_digest"].notna()]
    other = done[~done["data_digest"].isin([spec.data_digest for spec in specs])]
    notes = []
    for name, of_name in other.groupby("experiment"):
        n = len(of_name)
        notes.append(f"{n} run{'s' * (n != 1)} of {name} used other images: not counted as done")
    if done.empty:
        for digest in dict.fromkeys(spec.data_digest for spec in specs):
            for name in query.experiments_on(digest, tracking_uri=tracking_uri):
                notes.append(
                    f"{name} has runs on the same images; --experiment {name} counts them as done"
                )
    return notes


def _again(specs: Sequence[Job], settings: Settings) -> frozenset[str]:
    return frozenset(s.fingerprint for s in specs) if settings.retry_failed else frozenset()


def run(
    specs: Sequence[Job],
    settings: Settings,
    show: Callable[[Status], None],
    told: Callable[[Report], None],
    strategy: Strategy = plan.exhaustive,
    note: Callable[[str], None] = lambda _: None,
) -> Ended:
    """Do the jobs that are not done yet, each once however many sweeps are at it.

    What is done is read from the tracking server alone; `note` is given what to know about the
    images and about runs of before. Raises `WrongUse` and `WorkFailed` before anything begins, and
    as `driver.drive`.
    """
    from pepr_mlops import tracking

    checkpoints = settings.checkpoints or default_checkpoints()
    before = _read(specs, settings)
    doubts = _doubts(specs, before, settings.strict)
    tracking.prepare(_experiments(specs), settings.tracking_uri)
    found = _earlier(specs, before, settings.tracking_uri)
    tracking.identify(found.fingerprints, settings.tracking_uri)
    before = found.told_in(before)
    for text in (*doubts, *found.texts(), *_other_runs(specs, before, settings.tracking_uri)):
        note(text)
    worker = Worker(
        resolved(settings.tracking_uri),
        checkpoints.absolute(),
        settings.limits.stale_s,
        settings.busy,
        settings.cool_c,
        settings.strict,
    )
    return drive(
        plan.shuffled(specs, settings.order_seed),
        strategy,
        _engine(worker, specs, settings, checkpoints),
        _Server(specs, settings),
        settings.limits,
        show,
        told,
        _again(specs, settings),
    )


def frugal(specs: Sequence[Job], settings: Settings, letter: str, objective: Objective) -> Search:
    """The strategy that looks for the best of these jobs instead of doing them all.

    `letter` is the cost as in `search.Search`; `objective.epochs` becomes that of the jobs.
    Raises `WrongUse` for jobs that differ in more than the model, or whose cost is not known.
    """
    from pepr_mlops.tracking import read as query

    check(specs, letter)
    uri = settings.tracking_uri
    return Search(
        replace(objective, epochs=specs[0].epochs),
        letter,
        "train_time_s" if specs[0].energy == "off" else "energy_wh",
        lambda run_ids: query.load_epochs(run_ids, HISTORY, tracking_uri=uri),
    )


@dataclass(frozen=True)
class Recorded:
    """The curves of one seed of a comparison set, and the column of runs that a search spends."""

    name: str
    spending: str
    energy_source: str
    curves: replay.Curves


def recorded(experiments: Sequence[str], letter: str, tracking_uri: str | None) -> list[Recorded]:
    """Finished runs to replay a search over, two models or more of each seed.

    What is spent is energy, or time where no run's energy is known. Raises `WrongUse` and
    `WorkFailed` as `comparison.prepare` and `replay.recorded`.
    """
    from pepr_mlops import comparison
    from pepr_mlops.tracking import read as query

    runs = query.load_runs(experiments, tracking_uri=tracking_uri)
    spending = "energy_wh" if runs["energy_wh"].notna().any() else "train_time_s"
    columns = dict.fromkeys((RESOURCES[letter].column, spending))
    asked = comparison.Question(resources=tuple(columns), mixed="stratify", draws=0)
    found = []
    for name, members in comparison.prepare(runs, asked).members.items():
        for seed, of in members.groupby("seed", dropna=False):
            if of["model"].nunique() < 2:
                continue
            epochs = query.load_epochs(list(of["run_id"]), [PERFORMANCE], tracking_uri=tracking_uri)
            title = name if pd.isna(seed) else f"{name}, seed {seed}"
            curves = replay.recorded(of, epochs, RESOURCES[letter].column, spending)
            sources = sorted(of["energy_source"].dropna().unique())
            source = " and ".join(sources) if spending == "energy_wh" else "none"
            found.append(Recorded(title, spending, source, curves))
    if not found:
        raise WorkFailed(f"replay: {', '.join(experiments)} has no two models of one seed")
    return found


def default_checkpoints() -> Path:
    """Where trainings under way are kept: PEPR_CHECKPOINTS, or a folder of the user's cache."""
    given = os.environ.get("PEPR_CHECKPOINTS")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return Path(given) if given else cache / "pepr_mlops" / "checkpoints"


def _engine(worker: Worker, specs: Sequence[Job], settings: Settings, checkpoints: Path) -> Engine:
    from pepr_mlops.costs import device

    kinds = {spec.device.partition(":")[0] for spec in specs}
    if any(":" in spec.device for spec in specs):
        raise WrongUse(
            "device: a sweep gives out the GPUs itself; use cuda, and CUDA_VISIBLE_DEVICES to "
            "leave some out"
        )
    if len(kinds) > 1:
        raise WrongUse(f"device: {', '.join(sorted(kinds))} in one sweep; sweep each by itself")
    if settings.engine == "ray":
        from pepr_mlops.sweep.ray_engine import RayEngine

        (kind,) = kinds
        return RayEngine(worker, settings.address, {"cpu": False, "cuda": True}.get(kind))
    from pepr_mlops.sweep.local_engine import LocalEngine

    slots = [] if kinds <= {"cpu", "mps"} else device.gpu_slots()
    if not slots and any(spec.launch == "graph" for spec in specs):
        raise WrongUse("launch: graph needs an NVIDIA GPU, and there is none here; use kernels")
    preload = preloaded(resolved(settings.tracking_uri))
    return LocalEngine(worker, slots or [{}], checkpoints / "logs", preload)


def preloaded(tracking_uri: str) -> list[str]:
    """What the processes of jobs are forked with; nothing where they cannot be forked alike.

    All jobs import it: what one of them does not would count towards its memory on a CPU.
    """
    if not can_list_pages():
        return []
    database = re.split(r"[+:]", tracking_uri.lower())[0] in _DATABASES
    store = "mlflow.store.tracking.sqlalchemy_store" if database else "mlflow"
    return [store, "pepr_mlops.sweep.fork_server"]


@dataclass(frozen=True)
class _Server:
    """The tracking server as `driver.Ledger`."""

    specs: Sequence[Job]
    settings: Settings

    def read(self) -> pd.DataFrame:
        from pepr_mlops import tracking

        # A job may have ended while the server was away: what it says of itself comes first.
        tracking.catch_up(self.settings.tracking_uri)
        return _read(self.specs, self.settings)

    def close(self, run_ids: Sequence[str]) -> None:
        from pepr_mlops import tracking

        tracking.close_lost(run_ids, self.settings.tracking_uri)


def _read(specs: Sequence[Job], settings: Settings) -> pd.DataFrame:
    from pepr_mlops.tracking import read as query

    return query.load_jobs(_experiments(specs), tracking_uri=settings.tracking_uri)


def _experiments(specs: Sequence[Job]) -> list[str]:
    return list(dict.fromkeys(spec.experiment_name for spec in specs))
