"""What the runs of a tracking server tell about a search on other data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from made import frame, run

from pepr_mlops.names import PERFORMANCE
from pepr_mlops.sweep.earlier_runs import METRICS, earlier_of, recipe_of, telling
from pepr_mlops.sweep.prior import Earlier, prior_of
from pepr_mlops.sweep.search import read_prior

MODELS = [f"m{i}" for i in range(8)]


def group(start: int, models: list[str] = MODELS, **changed: Any) -> tuple[Any, pd.DataFrame]:
    """Runs of three epochs, run ids from run`start`, with P 0.5 + i/100 on validation and 0.1 more
    on test after the last epoch, the earlier ones 0.2 and 0.1 below."""
    runs = [
        run(model, epochs=3, energy_wh=float(i + 1), start=1_790_000_000_000 + start + i, **changed)
        for i, model in enumerate(models)
    ]
    rows = [
        (f"run{start + i}", e, 0.5 + i / 100 - below, 0.6 + i / 100 - below)
        for i in range(len(models))
        for e, below in ((1, 0.2), (2, 0.1), (3, 0.0))
    ]
    return runs, pd.DataFrame(rows, columns=["run_id", "step", *METRICS])


def found(*groups: tuple[Any, pd.DataFrame]) -> list[Earlier]:
    runs = frame([one for made, _ in groups for one in made])
    return earlier_of(runs, pd.concat([epochs for _, epochs in groups]))


def test_a_data_set_with_enough_models_is_summed_up_on_validation() -> None:
    (one,) = found(group(0, dataset="digits"))
    assert (one.family, one.name) == ("digits", "0123456789abcdef")
    assert one.models == tuple(MODELS)
    assert one.finals == pytest.approx([0.5 + i / 100 for i in range(8)])
    # the levels are P of epochs 1, 2 and the mean of 2 and 3
    assert one.centre == pytest.approx((0.2, 0.1, 0.05))
    assert one.costs["energy_wh"] == pytest.approx(np.log(np.arange(1, 9)), abs=1e-4)
    assert one.recipe == {
        "pretrained": "true",
        "epochs": "3",
        "image_size": "256",
        "batch_size": "32",
        "lr": "0.0005",
    }


def test_other_settings_seeds_and_too_few_models_stand_alone() -> None:
    two = found(group(0, dataset="a"), group(8, dataset="a", lr=1e-3))
    assert {one.recipe["lr"] for one in two} == {"0.0005", "0.001"}
    assert len(found(group(0, dataset="a", seed=1), group(8, dataset="a", seed=2))) == 2
    assert found(group(0, MODELS[:7])) == []
    made = [*group(0, dataset="a")[0], *group(8, MODELS[:7], dataset="b")[0]]
    assert list(telling(frame(made))["run_id"]) == [f"run{i}" for i in range(8)]
    assert found(group(0, MODELS[:4]), group(4, MODELS[4:], lr=1e-3)) == []


def test_of_several_runs_of_a_model_the_newest_counts_and_incomplete_ones_do_not() -> None:
    old, new = group(0), group(8, MODELS[:1])
    new[1].loc[:, METRICS[0]] = [0.7, 0.8, 0.9]
    (one,) = found(old, new)
    assert one.finals[0] == 0.9
    lacking = old[0], old[1][(old[1]["run_id"] != "run3") | (old[1]["step"] != 2)]
    assert found(lacking) == []  # seven are left
    assert found((old[0], old[1].assign(**{METRICS[0]: np.nan})))[0].finals[0] == 0.6  # on test
    percent = old[1].assign(**dict.fromkeys(METRICS, 60.0))
    assert found((old[0], percent)) == []


def test_folds_are_no_trainings_of_their_own() -> None:
    assert found(group(0, folds=5, fold=1)) == []


def test_data_sets_with_other_settings_count_less() -> None:
    same, other = found(group(0, dataset="a"), group(8, dataset="b", lr=1e-3, image_size=64))
    recipe = recipe_of(frame([run(epochs=3)]))
    prior = prior_of([same, other], [], recipe=recipe)
    assert prior is not None
    assert prior.families == pytest.approx({"a": 1 / (1 + 0.25), "b": 0.25 / 1.25})
    twice = prior_of([same, other], [same.name], recipe=recipe)  # by the digest of the data
    assert twice is None  # both have that of these tests


def test_without_a_store_the_server_has_no_prior(tmp_path: Path) -> None:
    absent = f"sqlite:///{tmp_path / 'none.db'}"
    assert read_prior("server", ["digits"], "E", "energy_wh", {}, absent) is None
    both = read_prior("both", ["derma"], "E", "energy_wh", {}, absent)
    assert both is not None
    assert both.families == pytest.approx({"lidc": 0.5, "pneumonia": 0.5})
    assert not (tmp_path / "none.db").exists()


def test_the_metric_on_test_is_read_too() -> None:
    assert METRICS == ("val/accuracy", PERFORMANCE)
