"""Which weights a sweep drops, with planted ties."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from made import accuracies, frame, job, run

from pepr_mlops.comparison import Question
from pepr_mlops.comparison.runs import Evidence
from pepr_mlops.comparison.selected import By
from pepr_mlops.errors import WrongUse
from pepr_mlops.spec import Job
from pepr_mlops.sweep import keep_top, plan
from pepr_mlops.sweep.driver import Result
from pepr_mlops.sweep.keep_top import KeepTop, losers, prune, without_weights

# Of 4,000 images `first` has 3,600 right, `tied` 3,598, `near` 3,500 and `far` 2,000.
RIGHT = {"first": 3600, "tied": 3598, "near": 3500, "far": 2000}
ENERGY = {"first": 50.0, "tied": 10.0, "near": 40.0, "far": 1.0}
QUESTION = Question(draws=200, seed_sd=0.0001)
# Of a run that a sweep with --keep-top trained.
OWN = {"pepr.model": "last=1,model=2", "pepr.keep_top": "--keep-top 1 --by performance"}


def _runs(right: dict[str, int] = RIGHT, images: int = 4000) -> tuple[pd.DataFrame, Evidence]:
    place = np.random.default_rng(0).permutation(images)
    named = {model: place < n for model, n in right.items()}
    tags = {"pepr.test_images": str(images)}
    runs = [
        run(m, performance=n / images, energy_wh=ENERGY[m], tags=tags) for m, n in right.items()
    ]
    return frame(runs), accuracies(named)


def _out(keep: KeepTop) -> set[str]:
    runs, evidence = _runs()
    return {model for model, _ in losers(runs, keep, QUESTION, evidence)}


@pytest.mark.parametrize(("n", "out"), [(1, {"near", "far"}), (3, {"far"}), (4, set())])
def test_a_model_whose_interval_reaches_that_of_the_last_one_stays(n: int, out: set[str]) -> None:
    # The 95% interval of 0.9 begins at 0.891; that of 0.875 ends at 0.885, of 0.8995 at 0.909.
    assert _out(KeepTop(n, "performance")) == out


def test_only_the_cheapest_of_the_models_that_are_surely_good_enough_stay() -> None:
    # 0.875 is 0.025 below the best, which is more than the margin of 0.01.
    assert _out(KeepTop(1, "cost")) == {"first", "near", "far"}
    assert _out(KeepTop(2, "cost")) == {"near", "far"}


def test_a_model_of_which_it_is_open_whether_it_is_good_enough_stays() -> None:
    runs, evidence = _runs({"first": 90, "far": 87}, 100)
    keep = KeepTop(1, "cost")
    assert losers(runs, keep, QUESTION, evidence) == []


def test_the_best_by_score_stay() -> None:
    # With costs from 1 to 50 Wh, R is 1, 0.18, 0.80 and 0: PePR 0.47, 0.76, 0.49 and 0.5.
    assert _out(KeepTop(1, "score")) == {"first", "near", "far"}


def test_runs_whose_p_has_no_interval_stay() -> None:
    runs, _ = _runs()
    for name in ("pepr.test_images",):
        runs = runs.assign(test_images=np.nan).drop(columns=f"tags.{name}", errors="ignore")
    for by in ("cost", "performance", "score"):
        assert losers(runs, KeepTop(1, by), QUESTION, Evidence()) == []  # type: ignore[arg-type]


class _Store:
    """What is dropped, and the runs that were compared."""

    def __init__(self, evidence: Evidence) -> None:
        self.evidence, self.ids = evidence, list[str]()
        self.compared = list[str]()

    def read(self, runs: pd.DataFrame) -> Evidence:
        self.compared = list(runs["run_id"])
        return self.evidence

    def drop(self, ids: Sequence[str], why: str) -> int:
        self.ids, self.why = list(ids), why
        return len(ids)


@pytest.fixture
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keep_top, "Question", lambda **given: QUESTION)


def _sweep(tags: Mapping[str, Mapping[str, str]]) -> tuple[list[Job], pd.DataFrame, Evidence]:
    """Two seeds of each model, with its tags; `other_sweep` is of no job."""
    place = np.arange(4000)
    made, right, specs = [], {}, []
    for model, n in (("first", 3600), ("far", 2000), ("other_sweep", 100)):
        for seed in (0, 1):
            spec = job(model=model, seed=seed)
            own = {"pepr.spec": spec.fingerprint, **tags.get(model, OWN)}
            made.append(run(model, seed, performance=n / 4000, tags=own))
            right[f"{model}{seed}"] = place < n
            specs += [spec] if model != "other_sweep" else []
    return specs, frame(made), accuracies(right)


def _dropped(
    specs: list[Job], runs: pd.DataFrame, evidence: Evidence, by: By = "performance"
) -> _Store:
    found = _Store(evidence)
    prune(Result(plan.states(specs, runs), runs), KeepTop(1, by), found.read, found.drop)
    return found


@pytest.mark.usefixtures("_quick")
def test_all_seeds_of_a_model_are_dropped_together_and_only_those_of_this_sweep() -> None:
    specs, runs, evidence = _sweep({})
    waiting = runs[runs["run_id"] != "run3"]
    assert _dropped(specs, waiting, evidence).ids == []  # a seed is still to come
    found = _dropped(specs, runs, evidence)
    assert sorted(found.ids) == ["run2", "run3"]
    assert sorted(found.compared) == ["run0", "run1", "run2", "run3"]
    assert found.why == "dropped by --keep-top 1 --by performance"
    # None has weights.
    assert _dropped(specs, runs.drop(columns="tags.pepr.model"), evidence).ids == []


@pytest.mark.usefixtures("_quick")
def test_runs_that_were_not_trained_with_keep_top_keep_their_weights() -> None:
    weights = {"pepr.model": OWN["pepr.model"]}
    specs, runs, evidence = _sweep({"far": weights})
    found = _dropped(specs, runs, evidence)
    assert found.ids == []
    assert "run2" in found.compared  # it is one of the models of which the best stay
    assert _dropped(*_sweep({"far": weights, "first": weights})).compared == []


@pytest.mark.usefixtures("_quick")
@pytest.mark.parametrize("by", ["cost", "score"])
def test_a_choice_by_costs_waits_for_all_jobs(by: By) -> None:
    specs, runs, evidence = _sweep({})
    # 0.5 is not good enough; by PePR it may be the best, as both cost the same but for errors.
    out = {"cost": ["run2", "run3"], "score": []}
    assert sorted(_dropped(specs, runs, evidence, by).ids) == out[by]
    still = _dropped([*specs, job(model="to_come")], runs, evidence, by)
    assert (still.ids, still.compared) == ([], [])
    by_p = _dropped([*specs, job(model="to_come")], runs, evidence)
    assert sorted(by_p.ids) == ["run2", "run3"]


@pytest.mark.parametrize(
    ("keep", "tags", "text"),
    [
        ("last", {}, "last weights .*`pepr train --model first --dataset derma --seed 0` trains"),
        ("both", {"pepr.model": "last=1,model=2"}, "best weights .*--keep both` trains one again"),
        ("both", {}, "last or best weights"),
        ("both", {"pepr.model": "last=1,best=1,model=2"}, None),
        ("none", {}, None),
    ],
)
def test_done_jobs_without_the_weights_of_the_request_are_counted(
    keep: str, tags: dict[str, str], text: str | None
) -> None:
    specs, runs, _ = _sweep(dict.fromkeys(("first", "far"), tags))
    specs = [replace(spec, keep=keep) for spec in specs]  # which changes no fingerprint
    jobs = plan.states([*specs, job(model="to_come")], runs)
    notes = without_weights(jobs, runs, None)
    assert len(notes) == (text is not None)
    if text is not None:
        assert re.match(f"4 jobs are done and without {text}", notes[0])


def test_weights_that_keep_top_dropped_are_not_missing() -> None:
    tags = {"pepr.model_missing": "dropped by --keep-top 1 --by cost"}
    specs, runs, _ = _sweep({"far": tags})
    jobs = plan.states(specs, runs)
    assert without_weights(jobs, runs, KeepTop(1)) == []
    (note,) = without_weights(jobs, runs, None)
    assert note.startswith("2 jobs are done and without last weights")


def test_one_sweep_keeps_one_kind_of_weights() -> None:
    with pytest.raises(WrongUse, match="keep: none, last would train the same jobs"):
        plan.expand({"keep": ["none", "last"]})
    with pytest.raises(WrongUse, match="--keep none keeps no weights"):
        KeepTop(1).check([job(keep="none")])
    with pytest.raises(WrongUse, match="keep_top: 0 is not 1 or more"):
        KeepTop(0)
