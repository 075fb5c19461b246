"""Runs that are under way: epochs done, and when they end."""

from __future__ import annotations

from typing import Any

import pandas as pd
from made import frame, run

from pepr_mlops.live.under_way import under_way

START = 1_790_000_000_000  # of runs, in ms
NOW = pd.Timestamp(START + 600_000, unit="ms", tz="UTC")  # ten minutes later


def _running(*epochs: int | None, **changed: Any) -> pd.DataFrame:
    """Runs of ten epochs, each epoch 60 s of training; the latest ended 120 s ago."""
    made = [
        run(
            f"m{i}",
            status="RUNNING",
            start=START,
            train_time_s=None if epoch is None else 60.0 * epoch,
            energy_wh=None if epoch is None else 2.0 * epoch,
            epochs=10,
            **changed,
        )
        for i, epoch in enumerate(epochs)
    ]
    ended = NOW - pd.Timedelta(seconds=120)
    return frame(made).assign(
        probe=pd.array([None] * len(made), dtype="str"),
        epoch=pd.array(epochs, dtype="Int64"),
        epoch_time=[pd.NaT if epoch is None else ended for epoch in epochs],
    )


def _after(seconds: float) -> int:
    return START + 600_000 + int(1000 * seconds)


def test_the_end_is_forecast_from_the_mean_of_the_epochs() -> None:
    first, second, third = under_way(_running(3, 5, None), ["derma"], NOW)
    assert [run["model"] for run in (first, second, third)] == ["m1", "m0", "m2"]
    assert (first["done"], first["of"], first["energy_wh"]) == (5, 10, 10.0)
    assert first["started"] == START
    assert first["until"] == _after(5 * 60 - 120)
    assert (first["to_come_wh"], second["to_come_wh"], third["to_come_wh"]) == (10.0, 14.0, None)
    assert second["until"] == _after(7 * 60 - 120)
    assert (third["done"], third["until"], third["energy_wh"]) == (0, None, None)


def test_evaluation_counts_and_patience_makes_it_the_latest() -> None:
    (found,) = under_way(_running(5, patience=3, metrics={"time/eval_s": 50.0}), ["derma"], NOW)
    assert found["until"] == _after(5 * (60 + 10) - 120)
    assert found["at_most"]


def test_a_forecast_that_has_passed_is_none() -> None:
    (found,) = under_way(_running(9), ["derma"], NOW)
    assert found["to_come_wh"] is None
    assert found["until"] is None  # 60 s after an epoch that ended 120 s ago


def test_a_run_without_a_heartbeat_for_five_minutes_is_silent() -> None:
    for seconds, silent in ((299, None), (301, _after(-301))):
        tags = {"pepr.heartbeat": str(_after(-seconds))}
        (found,) = under_way(_running(5, tags=tags), ["derma"], NOW)
        assert found["silent_since"] == silent
        assert (found["until"] is None) == (silent is not None)


def test_only_trainings_of_the_experiments_are_shown() -> None:
    running = _running(1, 1, 1)
    running["experiment"] = ["derma", "other", "derma"]
    running["mlflow_experiment"] = ["x", "here", "x"]
    running["probe"] = pd.array([None, None, "begun"], dtype="str")
    assert [r["model"] for r in under_way(running, ["derma", "here"], NOW)] == ["m0", "m1"]
    assert under_way(running, ["nope"], NOW) == []
