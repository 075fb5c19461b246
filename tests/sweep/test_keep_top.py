"""Which weights a sweep drops, with planted ties."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
from made import accuracies, frame, job, run

from pepr_mlops.comparison import Question
from pepr_mlops.comparison.runs import Evidence
from pepr_mlops.errors import WrongUse
from pepr_mlops.sweep import keep_top, plan
from pepr_mlops.sweep.driver import Result
from pepr_mlops.sweep.keep_top import KeepTop, losers, prune

# Of 4,000 images `first` has 3,600 right, `tied` 3,598, `near` 3,500 and `far` 2,000.
RIGHT = {"first": 3600, "tied": 3598, "near": 3500, "far": 2000}
ENERGY = {"first": 50.0, "tied": 10.0, "near": 40.0, "far": 1.0}
QUESTION = Question(draws=200, seed_sd=0.0001)


def _runs(right: dict[str, int] = RIGHT, images: int = 4000) -> tuple[pd.DataFrame, Evidence]:
    place = np.random.default_rng(0).permutation(images)
    named = {model: place < n for model, n in right.items()}
    tags = {"pepr.test_images": str(images)}
    runs = [
        run(m, performance=n / images, energy_wh=ENERGY[m], tags=tags) for m, n in right.items()
    ]
    return frame(runs), accuracies(named)


def _out(keep: KeepTop, *, final: bool = True) -> set[str]:
    runs, evidence = _runs()
    return {model for model, _ in losers(runs, keep, QUESTION, evidence, final=final)}


@pytest.mark.parametrize(("n", "out"), [(1, {"near", "far"}), (3, {"far"}), (4, set())])
def test_a_model_whose_interval_reaches_that_of_the_last_one_stays(n: int, out: set[str]) -> None:
    # The 95 % interval of 0.9 begins at 0.891; that of 0.875 ends at 0.885, of 0.8995 at 0.909.
    assert _out(KeepTop(n, "performance")) == out


def test_only_the_cheapest_of_the_models_that_are_surely_good_enough_stay() -> None:
    # 0.875 is 0.025 below the best, which is more than the margin of 0.01.
    assert _out(KeepTop(1, "cost")) == {"first", "near", "far"}
    assert _out(KeepTop(2, "cost")) == {"near", "far"}


def test_until_all_jobs_are_done_no_model_is_dropped_that_could_come_back() -> None:
    assert _out(KeepTop(1, "cost"), final=False) == {"near", "far"}
    assert _out(KeepTop(1, "score"), final=False) == set()
    assert _out(KeepTop(1, "performance"), final=False) == {"near", "far"}


def test_a_model_of_which_it_is_open_whether_it_is_good_enough_stays() -> None:
    runs, evidence = _runs({"first": 90, "far": 87}, 100)
    keep = KeepTop(1, "cost")
    assert losers(runs, keep, QUESTION, evidence, final=True) == []


def test_the_best_by_score_stay() -> None:
    # With costs from 1 to 50 Wh, R is 1, 0.18, 0.80 and 0: PePR 0.47, 0.76, 0.49 and 0.5.
    assert _out(KeepTop(1, "score")) == {"first", "near", "far"}


def test_runs_whose_p_has_no_interval_stay() -> None:
    runs, _ = _runs()
    for name in ("pepr.test_images",):
        runs = runs.assign(test_images=np.nan).drop(columns=f"tags.{name}", errors="ignore")
    for by in ("cost", "performance", "score"):
        assert losers(runs, KeepTop(1, by), QUESTION, Evidence(), final=True) == []  # type: ignore[arg-type]


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


def test_all_seeds_of_a_model_are_dropped_together_and_only_those_of_this_sweep(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(keep_top, "Question", lambda **given: QUESTION)
    place = np.arange(4000)
    made, right, specs = [], {}, []
    for model, n in (("first", 3600), ("far", 2000), ("other_sweep", 100)):
        for seed in (0, 1):
            spec = job(model=model, seed=seed)
            tags = {"pepr.spec": spec.fingerprint, "pepr.model": "last=1,model=2"}
            made.append(run(model, seed, performance=n / 4000, tags=tags))
            right[f"{model}{seed}"] = place < n
            specs += [spec] if model != "other_sweep" else []
    runs, evidence = frame(made), accuracies(right)

    def dropped(shown: pd.DataFrame) -> _Store:
        found = _Store(evidence)
        result = Result(plan.states(specs, shown), shown)
        prune(result, KeepTop(1, "performance"), found.read, found.drop)
        return found

    assert dropped(runs[runs["run_id"] != "run3"]).ids == []  # a seed is still to come
    found = dropped(runs)
    assert sorted(found.ids) == ["run2", "run3"]
    assert sorted(found.compared) == ["run0", "run1", "run2", "run3"]
    assert found.why == "dropped by --keep-top 1 --by performance"
    assert dropped(runs.drop(columns="tags.pepr.model")).ids == []  # none has weights


def test_one_sweep_keeps_one_kind_of_weights() -> None:
    with pytest.raises(WrongUse, match="keep: none, last would train the same jobs"):
        plan.expand({"keep": ["none", "last"]})
    with pytest.raises(WrongUse, match="--keep none keeps no weights"):
        KeepTop(1).check([job(keep="none")])
