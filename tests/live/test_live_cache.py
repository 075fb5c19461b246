"""Reading, sorting and scoring once for all pages, and outliving the server's troubles."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from made import logged, run

from pepr_mlops.comparison.intervals import NOT_DRAWN
from pepr_mlops.errors import PeprError
from pepr_mlops.live.cache import Cache, Recent
from pepr_mlops.live.view_state import View
from pepr_mlops.report import sources
from pepr_mlops.tracking import read

DERMA = ("derma",)


@pytest.fixture
def filled(store: str) -> str:
    for i, model in enumerate(("resnet18d", "ghostnet_100")):
        logged(store, run(model, energy_wh=10.0 + i, performance=0.7 + i / 10, start=1000 + i))
    return store


def test_a_stamp_changes_with_a_run_that_begins_and_one_that_ends(filled: str) -> None:
    first = read.stamp(tracking_uri=filled)
    assert read.stamp(tracking_uri=filled) == first
    made = run("begun", start=2000, status="RUNNING")
    run_id = logged(filled, made)
    second = read.stamp(tracking_uri=filled)
    from mlflow import MlflowClient

    MlflowClient(filled).set_terminated(run_id, end_time=3000)
    third = read.stamp(tracking_uri=filled)
    MlflowClient(filled).create_experiment("new")
    assert len({first, second, third, read.stamp(tracking_uri=filled)}) == 4


def test_names_are_those_that_can_be_read(filled: str) -> None:
    logged(filled, run(tags={"pepr.experiment": "tagged so"}))
    names = read.names(tracking_uri=filled)
    assert names == ["Default", "derma", "tagged so"]
    for name in names:
        read.load_runs(name, tracking_uri=filled)


def test_a_control_repeats_only_the_steps_that_it_changes(
    filled: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    for name in ("read", "sort", "material"):
        real = getattr(sources, name)

        def counted(
            *given: object, name: str = name, real: object = real, **named: object
        ) -> object:
            done.append(name)
            return real(*given, **named)  # type: ignore[operator]

        monkeypatch.setattr(sources, name, counted)
    known = Cache(filled)
    state = View(experiments=DERMA, resources=("E", "M"), weights=(0.5, 0.5))
    quick, _ = known.material(state, thorough=False)
    assert done == ["read", "sort", "material"]
    assert (quick.models["no_interval"] == NOT_DRAWN).all()
    known.material(replace(state, weights=(0.9, 0.1)), thorough=False)
    assert done[3:] == ["material"]
    known.material(replace(state, at_least=0.5, colour="kind"), thorough=False)
    assert done[4:] == []
    complete, _ = known.material(state)
    assert done[4:] == ["sort", "material"]  # of the companions, which do not exist
    assert NOT_DRAWN not in set(complete.models["no_interval"])
    assert known.material(state, thorough=False)[0] is complete  # intervals that are known stay
    assert list(complete.models["score"]) == list(quick.models["score"])


def test_a_new_run_is_read_at_the_next_check(filled: str) -> None:
    known = Cache(filled)
    state = View(experiments=DERMA)
    assert known.version(DERMA) == ""
    assert len(known.material(state)[0].models) == 2
    before = known.version(DERMA)
    known.check(DERMA)
    assert known.version(DERMA) == before
    logged(filled, run("newcomer", start=5000))
    known.check(DERMA)
    assert known.version(DERMA) != before
    assert "newcomer" in set(known.material(state)[0].models["model"])


def test_a_store_may_disappear_and_return(filled: str, tmp_path: Path) -> None:
    known = Cache(filled)
    known.check(DERMA)
    path = tmp_path / "mlflow.db"
    shutil.move(path, tmp_path / "away.db")
    known.check(DERMA)
    assert "there is no store" in known.trouble(DERMA)
    assert "\n" not in known.trouble(DERMA)
    assert len(known.material(View(experiments=DERMA))[0].models) == 2  # what was read stays
    with pytest.raises(PeprError):
        known.source(("other",))
    shutil.move(tmp_path / "away.db", path)
    known.check(DERMA)
    assert known.trouble(DERMA) == ""


def test_an_experiment_that_is_gone_is_one_line(filled: str) -> None:
    known = Cache(filled)
    known.check(("no such",))
    assert "'no such'" in known.trouble(("no such",))
    assert known.trouble(DERMA) == ""


def test_a_check_never_raises_whatever_the_server_answers(
    filled: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(**_: object) -> str:
        raise KeyError("runs")

    monkeypatch.setattr(read, "stamp", broken)
    known = Cache(filled)
    known.check(DERMA)
    assert "KeyError" in known.trouble(DERMA)


def test_only_the_newest_results_are_cached() -> None:
    recent: Recent[int] = Recent(2)
    for key in (1, 2, 1, 3):
        recent.get(key, lambda key=key: key)  # type: ignore[misc]
    assert [recent.known(key) for key in (1, 2, 3)] == [1, None, 3]
