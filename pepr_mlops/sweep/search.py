"""The frugal search as the strategy of a sweep: from runs to observations, from requests to tasks.

A candidate is a job, named after its model. Its cost is forecast first from a few steps, and later
from the epochs it was trained for.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pepr_mlops.comparison.conditions import conditions
from pepr_mlops.costs.carbon import Intensity, gco2e
from pepr_mlops.errors import WorkFailed, WrongUse
from pepr_mlops.files import read_json
from pepr_mlops.names import MEASURED_BY, PERFORMANCE, RESOURCES, ScoredOn, performance_on
from pepr_mlops.spec import AUTO, TRIED, Job
from pepr_mlops.sweep import plan
from pepr_mlops.sweep.earlier_runs import METRICS, earlier_of, telling
from pepr_mlops.sweep.engine import Task
from pepr_mlops.sweep.frugal import requests, verdict
from pepr_mlops.sweep.observed import Objective, Observed, Verdict
from pepr_mlops.sweep.prior import Earlier, Prior, from_json, prior_of

_WH, _S = "energy/train_wh", "time/train_s"
HISTORY = (PERFORMANCE, performance_on("val"), _WH, _S)
_FORECAST_WH, _FORECAST_S = "metrics.forecast/train_wh", "metrics.forecast/train_s"

History = Callable[[Sequence[str]], pd.DataFrame]


@dataclass(frozen=True)
class Search:
    """A `driver.Strategy` that searches for the best jobs by `objective`, with the cost `letter`
    (E, C, M or T; D is the same for all).

    The search saves `spending`, and counts it as spent: training energy (`energy_wh`), or training
    time (`train_time_s`) with `energy=off`. `history` returns the epochs of runs as
    `read.load_epochs`, with the metrics `HISTORY`. P of the `decide_on` split decides which models
    train for longer and which are the best; with `test` the winner's P is optimistic. `prior` is
    what other data sets tell, None for nothing.
    """

    objective: Objective
    letter: str
    spending: str
    history: History
    decide_on: ScoredOn = "val"
    prior: Prior | None = None

    def __call__(self, jobs: pd.DataFrame, runs: pd.DataFrame) -> list[Task]:
        """The next tasks, best first. Raises `WorkFailed` as `observed`."""
        specs = {spec.model: spec for spec in jobs["spec"]}
        observed, epochs = self.observed(jobs, runs), self.objective.epochs
        found = requests(
            _candidates(jobs),
            observed,
            self._planned(jobs, runs),
            at_once=len(jobs),
            prior=self.prior,
            busy={spec.model for spec in jobs.loc[jobs["state"] == "running", "spec"]},
        )
        return [Task(specs[r.candidate], None if r.epoch == epochs else r.epoch) for r in found]

    def verdict(self, jobs: pd.DataFrame, runs: pd.DataFrame) -> Verdict:
        """The results of the search so far. Arguments and errors as the search itself.

        The table also has `test_P`, P on test of the finished candidates, whatever decided.
        """
        seen = self.observed(jobs, runs)
        target = self._planned(jobs, runs)
        found = verdict(_candidates(jobs), seen, target, prior=self.prior)
        models = [spec.model for spec in jobs["spec"]]
        run_ids = pd.Series(jobs["run_id"].to_numpy(), models).reindex(found.table.index)
        tested = run_ids.map(runs.set_index("run_id")[PERFORMANCE])
        finished = found.table["state"] == "finished"
        return replace(found, table=found.table.assign(test_P=tested.where(finished)))

    def _planned(self, jobs: pd.DataFrame, runs: pd.DataFrame) -> Objective:
        """The objective with the part of its budget in Wh that is left for training, if evaluation
        and the other phases go on to take the share of the energy that they took so far."""
        total = float(jobs["energy_wh"].sum())
        if self.objective.budget is None or total == 0:
            return self.objective
        trained = float(runs.loc[runs["spec"].isin(list(jobs.index)), "energy_wh"].sum())
        return replace(self.objective, budget=self.objective.budget * trained / total)

    @property
    def name(self) -> str:
        """What the search looks for, as a name."""
        target = self.objective
        if target.within is not None:
            return f"within-{target.within:g}-{self.letter.lower()}-{self.decide_on}"
        score = f"pepr-{self.letter.lower()}"
        alpha = f"{target.alpha:g}".replace("+", "")  # MLflow takes no + in the name of a tag
        how = f"{target.normalisation}-alpha-{alpha}-{self.decide_on}"
        return f"{score}-top-{target.top}-{how}"

    def record(self, found: Verdict) -> dict[str, Any]:
        """What the search believed before, and what it has found and spent: plain values."""
        prior = self.prior
        known = not np.isnan(found.exhaustive)
        return {
            "objective": asdict(self.objective),
            "cost": RESOURCES[self.letter].column,
            "decide_on": self.decide_on,
            "prior": None if prior is None else {k: round(v, 4) for k, v in prior.families.items()},
            "prior_gain": None if prior is None else _rounded(prior.gain),
            "answer": found.top,
            "holds": found.holds,
            "continues": bool((found.table["state"] == "waiting").any()),
            "candidates": len(found.table),
            "finished": int((found.table["state"] == "finished").sum()),
            "spending": self.spending,
            "spent": found.spent,
            "exhaustive": found.exhaustive if known else None,
            "exhaustive_range": list(found.exhaustive_range) if known else None,
        }

    def observed(self, jobs: pd.DataFrame, runs: pd.DataFrame) -> list[Observed]:
        """The observations of `jobs` (`plan.states`) in their `runs`.

        All attempts count as spent, except those of unknown energy, and those of a candidate that
        has no other observation yet. Raises `WorkFailed` if the cost of a candidate is not known,
        costs were measured under different conditions, or an epoch has no P of the split that
        decides.
        """
        runs = runs[runs["spec"].isin(list(jobs.index))]
        timed = runs["run_id"].isin(list(jobs["run_id"].dropna())) & runs["train_time_s"].notna()
        trained = runs[timed & runs["probe"].isna()].set_index("spec")
        probes = _last_probes(runs)
        _check_alike(pd.concat([trained, probes]))
        steps = self.history(list(trained["run_id"]))
        found: list[Observed] = []
        for key, job in jobs.iterrows():
            own: list[Observed] = []
            if key in probes.index:
                run = probes.loc[key]
                costs = self._costs(run, run.get(_FORECAST_WH), run[_FORECAST_S])
                own.append(Observed(job["spec"].model, 0, None, *costs, spent=0.0))  # added below
            if key in trained.index:
                run = trained.loc[key]
                own += self._of_training(job["spec"], run, steps[steps["run_id"] == run["run_id"]])
            if not own and job["state"] == "failed":  # its attempts are spent
                own = [Observed(job["spec"].model, 0, None, 0.0, 0.0, 0.0)]
            if own:
                paid = float(runs.loc[runs["spec"] == key, self.spending].sum())
                later = sum(one.spent for one in own[1:])
                own[0] = replace(own[0], spent=max(0.0, paid - later))
            found += own
        return found

    def _of_training(self, spec: Job, run: pd.Series[Any], steps: pd.DataFrame) -> list[Observed]:
        """The epochs up to those of the run's row; a run in progress may have logged more."""
        found, before, decider = [], 0.0, performance_on(self.decide_on)
        steps = steps[steps[_S] <= run["train_time_s"]].sort_values("step")
        for epoch, (_, step) in enumerate(steps.iterrows(), 1):
            if step["step"] != epoch or np.isnan(step[decider]):
                break  # it is being logged
            scale = spec.epochs / epoch
            wh = step[_WH] * scale if pd.notna(run["energy_wh"]) else None
            cost, expense = self._costs(run, wh, step[_S] * scale)
            p = float(step[decider])
            found.append(Observed(spec.model, epoch, p, cost, expense, expense / scale - before))
            before = expense / scale
        number = len(found) + 1
        tested = steps.loc[steps["step"] == number, PERFORMANCE].notna().any()
        if tested and run["status"] != "RUNNING":  # it may be logging this epoch
            raise WorkFailed(
                f"decide_on: run {run['run_id']} ({spec.model}) has no {decider} of epoch "
                f"{number}, only P on test; search with --decide-on test, or delete that run so "
                "that it is trained again"
            )
        if run["status"] == "FINISHED" and len(found) < spec.epochs:
            raise WorkFailed(
                f"history: run {run['run_id']} ({spec.model}) is finished but has no {decider} of "
                f"epoch {number}; delete that run so that it is trained again"
            )
        return found

    def _costs(self, run: pd.Series[Any], wh: float | None, s: float) -> tuple[float, float]:
        """Cost and expense of a full training that takes this energy and time."""
        known = {"energy_wh": wh, "train_time_s": s, "memory_gb": run["memory_gb"]}
        if wh is not None and pd.notna(run["carbon_intensity_g_per_kwh"]):
            intensity = Intensity(run["carbon_intensity_g_per_kwh"], "")
            known["carbon_gco2e"] = gco2e(wh, intensity, run["pue"])
        costs = []
        for name in (RESOURCES[self.letter].column, self.spending):
            value = known.get(name)
            if value is None or np.isnan(value):
                raise WorkFailed(
                    f"{name}: run {run['run_id']} ({run['model']}) does not have it, which the "
                    "search needs; delete that run so that it is measured again, or search by time "
                    "without energy (--objective pepr-t --energy off)"
                )
            costs.append(float(value))
        return costs[0], costs[1]


def read_prior(
    source: str,
    data: Collection[str],
    letter: str,
    spending: str,
    recipe: Mapping[str, str] | None = None,
    tracking_uri: str | None = None,
) -> Prior | None:
    """What data sets other than `data`, by its names and digest, tell about a search with the cost
    `letter`.

    `source` is `shipped` for those of this package (from the PePR paper's runs), `server` for the
    newest finished runs of the tracking server, `both`, `none`, or the path of a file. Those with
    other settings than the `recipe` count less. Raises `WrongUse` for another file, and
    `WorkFailed` when the server cannot be read.
    """
    earlier: list[Earlier] = []
    if source in ("shipped", "both"):
        text = resources.files("pepr_mlops.sweep").joinpath("prior.json").read_text()
        earlier += from_json(json.loads(text), source)
    if source in ("server", "both"):
        from pepr_mlops.tracking import read

        runs = telling(read.load_newest("test/accuracy", tracking_uri=tracking_uri))
        runs = runs[~(runs["dataset"].isin(data) | runs["data_digest"].isin(data))]
        if len(runs):  # there may be no store yet
            epochs = read.load_epochs(list(runs["run_id"]), METRICS, tracking_uri=tracking_uri)
            earlier += earlier_of(runs, epochs)
    if source not in ("shipped", "server", "both", "none"):
        try:
            earlier = from_json(read_json(Path(source), "prior"), source)
        except OSError as error:
            raise WrongUse(
                f"prior: {source} cannot be read ({error.strerror}); give shipped, server, both, "
                "none or a file"
            ) from error
    cost = RESOURCES["E" if letter == "C" else letter].column  # CO2e is in proportion to energy
    return prior_of(earlier, data, cost, spending, recipe)


def check_budget(objective: Objective, spending: str) -> None:
    """Raise `WrongUse` for a budget of energy where the search spends time."""
    if objective.budget is not None and spending != "energy_wh":
        raise WrongUse(
            "budget_wh: the energy of these trainings is not known, so the search saves time; give "
            "--budget-percent instead"
        )


def check(specs: Sequence[Job], letter: str) -> None:
    """Raise `WrongUse` for jobs that one search cannot compare: they differ in more than the model,
    their cost will not be known, or they are folds."""
    if specs[0].folds is not None:
        raise WrongUse(
            "strategy: a frugal search compares models by the epochs of one training each, and "
            "--folds trains several; drop --folds, or train all jobs with --strategy exhaustive"
        )
    params = plan.settings(specs).drop(columns="model")
    differ = [str(c) for c in params if params[c].nunique() > 1]
    if differ:
        values = ", ".join(f"{c} ({', '.join(params[c].unique())})" for c in differ)
        raise WrongUse(
            f"strategy: a frugal search compares models, and these jobs differ in {values}; "
            "run one search for each"
        )
    spec = specs[0]
    if spec.patience is not None:
        raise WrongUse(
            "patience: a frugal search compares models after all epochs, and ends the training of "
            "those that are not worth it; leave out patience"
        )
    for name in TRIED:
        if getattr(spec, name) == AUTO:
            raise WrongUse(
                f"{name}: auto may choose differently for each model, and a frugal search compares "
                "them; name one"
            )
    if letter in ("E", "C") and spec.energy == "off":
        raise WrongUse(f"objective: energy=off leaves {letter} unknown; choose pepr-t or pepr-m")
    if letter == "C" and spec.country is None and spec.carbon_intensity is None:
        raise WrongUse("objective: pepr-c needs the grid; give --country or --carbon-intensity")


def _rounded(gain: pd.DataFrame) -> list[list[float]]:
    """Share of the epochs, centre and scatter of the gain after it."""
    rows = gain.reset_index()[["share", "centre", "scatter"]].to_numpy(float)
    return [[round(float(value), 4) for value in row] for row in rows]


def _candidates(jobs: pd.DataFrame) -> list[str]:
    return [spec.model for spec in jobs.loc[jobs["state"] != "failed", "spec"]]


def _last_probes(runs: pd.DataFrame) -> pd.DataFrame:
    if _FORECAST_S not in runs:
        return runs.iloc[:0].set_index("spec")
    probes = runs[runs["probe"].notna() & runs[_FORECAST_S].notna()].sort_values("start_time")
    return probes.drop_duplicates("spec", keep="last").set_index("spec")


def _check_alike(used: pd.DataFrame) -> None:
    for name in MEASURED_BY:
        if used[name].nunique(dropna=False) > 1:
            values = " and ".join(conditions(used, [name])[name].astype("str").unique())
            raise WorkFailed(
                f"{name}: the costs of these jobs were measured on {values}, which do not compare; "
                "search on one kind of machine, under another --experiment to start again"
            )
