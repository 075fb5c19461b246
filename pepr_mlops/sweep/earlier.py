"""The data of finished runs that were logged before `pepr.data_digest` existed.

Such a run logged a digest of each split as it was drawn and resized. If the data set on this
machine, drawn and resized in the same way, has the same digests, the run used it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache
from typing import TYPE_CHECKING, Any

import pandas as pd

from pepr_mlops.errors import PeprError
from pepr_mlops.spec import FILES, Job, RunSpec

if TYPE_CHECKING:
    from pepr_mlops.tracking.read.inputs import Input

Digests = Mapping[str, str]  # of each split by its name
# Fields that decide which images a job trains on, and how they are drawn and resized.
_DRAWN_BY = ("dataset", "size", "data_root", "image_size", "channels", "fraction", "seed")


@dataclass(frozen=True)
class Matches:
    """Run ids: `same` with the job of each run, `other` of runs that used other data, and `unknown`
    of runs that cannot be checked."""

    same: Mapping[str, Job]
    other: tuple[str, ...]
    unknown: tuple[str, ...]

    @property
    def fingerprints(self) -> dict[str, tuple[str, str]]:
        """Fingerprint of the job and digest of its data, by run id."""
        return {run_id: (job.fingerprint, job.data_digest) for run_id, job in self.same.items()}

    def added_to(self, runs: pd.DataFrame) -> pd.DataFrame:
        """The frame of runs with the fingerprints and digests filled in."""
        runs = runs.copy()
        for run_id, (fingerprint, data_digest) in self.fingerprints.items():
            runs.loc[runs["run_id"] == run_id, ["spec", "data_digest"]] = fingerprint, data_digest
        return runs

    def texts(self) -> list[str]:
        """A line for each kind of run."""
        texts = (
            "used the same images, as the digests they logged show: counted as done, but they "
            "compare with new runs only by --allow-mixed, since they name no CPUs and threads",
            "used other images: not counted as done",
            "may have used other images or weights, which cannot be checked: not counted as done",
        )
        kinds = zip((self.same, self.other, self.unknown), texts, strict=True)
        return [f"{len(r)} earlier run{'s' * (len(r) != 1)} {text}" for r, text in kinds if r]


def match(
    jobs: Mapping[str, Job], logged: Mapping[str, Digests], drawn: Callable[[Job], Digests]
) -> Matches:
    """Compare the digests that runs logged with those of the data on this machine.

    `jobs` has the job that each run may have trained, by run id; `logged` has the digests that runs
    logged; `drawn` returns those of the splits that a job trains on here, and may raise
    `PeprError`. Runs with a file of weights logged only its name, so they stay unknown.
    """
    same: dict[str, Job] = {}
    other: list[str] = []
    unknown: list[str] = []
    for run_id, job in jobs.items():
        try:
            here = drawn(job) if logged.get(run_id) and job.weights is None else None
        except PeprError:
            here = None
        if here is None:
            unknown.append(run_id)
        elif here == logged[run_id]:
            same[run_id] = job
        else:
            other.append(run_id)
    return Matches(same, tuple(other), tuple(unknown))


def match_jobs(specs: Sequence[Job], runs: pd.DataFrame, tracking_uri: str | None) -> Matches:
    """Which finished runs without a digest trained one of these jobs."""
    from pepr_mlops.tracking import read

    by_name = {spec.earlier_fingerprint: spec for spec in specs}
    runs = runs[_unidentified(runs) & runs["spec"].isin(list(by_name))]
    inputs = read.load_inputs(list(runs["run_id"]), tracking_uri=tracking_uri)
    return _match({run["run_id"]: by_name[run["spec"]] for _, run in runs.iterrows()}, inputs)


def identify_runs(
    experiments: Sequence[str],
    *,
    dataset: str | None = None,
    data_root: str | None = None,
    tracking_uri: str | None = None,
) -> tuple[Matches, list[str]]:
    """Find the data that earlier runs used, and log the digest of those on this machine.

    Returns also the data sets that are missing. `dataset` and `data_root` are the place of the data
    now; with None it is that of the runs. Raises `WrongUse` and `WorkFailed` as `read.load_runs`.
    """
    from pepr_mlops import data, tracking
    from pepr_mlops.tracking import read

    runs = read.load_runs(experiments, tracking_uri=tracking_uri)
    runs = runs[_unidentified(runs) & runs["spec"].notna()]
    inputs = read.load_inputs(list(runs["run_id"]), tracking_uri=tracking_uri)
    moved: dict[str, Any] = {"dataset": dataset, "data_root": data_root}
    moved = {name: value for name, value in moved.items() if value is not None}
    by_files: dict[tuple[Any, ...], dict[str, RunSpec]] = {}
    unknown: list[str] = []
    for _, run in runs.iterrows():
        run_id = str(run["run_id"])
        try:
            spec = replace(_original_spec(run, inputs[run_id]), **moved)
        except PeprError:
            unknown.append(run_id)
            continue
        files = tuple(getattr(spec, name) for name in FILES)
        by_files.setdefault(files, {})[run_id] = spec
    jobs: dict[str, Job] = {}
    absent: list[str] = []
    for specs in by_files.values():
        try:
            jobs |= zip(specs, data.identify_all(specs.values()), strict=True)
        except PeprError:
            unknown += specs
            spec = next(iter(specs.values()))
            if spec.weights is None:
                absent.append("/".join(filter(None, (spec.data_root, spec.dataset))))
    matches = _match(jobs, inputs)
    tracking.identify(matches.fingerprints, tracking_uri)
    return replace(matches, unknown=(*matches.unknown, *unknown)), list(dict.fromkeys(absent))


def _original_spec(run: pd.Series[Any], inputs: Mapping[str, Input]) -> RunSpec:
    """The spec of a run with the absolute path of its data set: it ran in another folder."""
    from pepr_mlops.data import NAMES

    params = {f.name: run.get(f"params.{f.name}") for f in fields(RunSpec)}
    spec = RunSpec.parse({k: v for k, v in params.items() if isinstance(v, str)})
    dataset = spec.dataset
    if dataset not in NAMES and "train" in inputs:
        dataset = inputs["train"].place or dataset
    return replace(spec, experiment=spec.experiment_name, dataset=dataset)


def _unidentified(runs: pd.DataFrame) -> pd.Series[bool]:
    return (runs["status"] == "FINISHED") & runs["data_digest"].isna() & runs["probe"].isna()


def _match(jobs: Mapping[str, Job], inputs: Mapping[str, Mapping[str, Input]]) -> Matches:
    from pepr_mlops import data

    @cache
    def drawn(job: Job) -> Digests:
        return {name: split.digest() for name, split in data.load(job).by_name().items()}

    logged = {
        run_id: {name: given.digest for name, given in inputs[run_id].items()} for run_id in jobs
    }
    # Jobs that draw the same images have the same key.
    others: dict[str, Any] = {f.name: f.default for f in fields(RunSpec) if f.name not in _DRAWN_BY}
    return match(jobs, logged, lambda job: drawn(replace(job, **others)))
