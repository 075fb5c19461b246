"""What all epochs will cost, from those that are over."""

from __future__ import annotations

import pytest

from pepr_mlops.costs.forecast import (
    WARM_STEPS,
    Cost,
    Forecast,
    Mark,
    steady_steps,
    usual_cost,
    window_cost,
)
from pepr_mlops.costs.totals import Costs, Window
from pepr_mlops.train.cuda_graphs import UNRECORDED


def test_the_usual_steps_are_after_the_warm_up_and_before_the_last() -> None:
    assert [steady_steps(n) for n in (1, 2, 3, 4, 6, 9, 100)] == [
        *((), (), (1, 2), (2, 3)),
        *((3, 5), (4, 8), (4, 99)),
    ]
    assert WARM_STEPS == UNRECORDED + 1  # in the last of which a graph is recorded


def test_an_epoch_is_forecast_from_the_rate_between_two_marks() -> None:
    marks = [Mark(30, 107.0, 500.0), Mark(80, 112.0, 2300.0)]  # 0.1 s, 36 J an image
    assert usual_cost(marks, 100) == Cost(10.0, pytest.approx(1.0))
    assert usual_cost(marks[:1], 100) is None
    assert usual_cost([], 100) is None
    assert usual_cost([Mark(30, 107.0, None), marks[1]], 100) == Cost(10.0, None)
    still = [Mark(30, 107.0, 500.0), Mark(80, 112.0, 500.0)]  # it has not moved, or has wrapped
    assert usual_cost(still, 100) == Cost(10.0, None)
    near = [Mark(30, 107.0, 500.0), Mark(80, 109.9, 2300.0)]  # a tenth of a second is too much
    assert usual_cost(near, 100) == Cost(pytest.approx(5.8), None)


def test_a_window_has_its_energy_only_where_all_of_it_is_known() -> None:
    assert window_cost(Window(2.0, {"gpu": 36.0, "cpu": 36.0}, {})) == Cost(
        2.0, pytest.approx(0.02)
    )
    assert window_cost(Window(2.0, {"gpu": 36.0}, {"cpu": "no reading"})) == Cost(2.0, None)
    assert window_cost(Window(2.0, {"gpu": 36.0, "cpu": 0.0}, {})) == Cost(2.0, None)
    assert window_cost(Window(2.0, {}, {})) == Cost(2.0, None)


def test_the_usual_energy_stands_for_a_window_or_else_its_mean_power() -> None:
    window = Window(20.0, {"gpu": 7200.0}, {})  # with 4 s of warm-up, 2 Wh in all
    assert window_cost(window, Cost(16.0, 1.9)) == Cost(16.0, 1.9)
    assert window_cost(window, Cost(16.0, None)) == Cost(16.0, pytest.approx(1.6))
    lost = Window(20.0, {"gpu": 7200.0}, {"cpu": "no reading"})
    assert window_cost(lost, Cost(16.0, 1.9)) == Cost(16.0, None)


def _costs(train_j: float | None, train_s: float, eval_s: float) -> Costs:
    costs = Costs({"gpu": "measured"})
    energy = {} if train_j is None else {"gpu": train_j}
    costs.add("train", Window(train_s, energy, {}), "epoch 1")
    costs.add("eval", Window(eval_s, energy, {}), "epoch 1")
    return costs


def test_past_epochs_keep_their_costs_and_remaining_ones_take_the_median() -> None:
    forecast = Forecast(10)
    assert forecast.empty
    forecast.add(Cost(8.0, 1.0), 2.0)
    assert not forecast.empty
    assert forecast.metrics(1, _costs(2 * 3600.0, 20.0, 5.0)) == {
        "forecast/train_s": 20.0 + 9 * 8.0,
        "forecast/train_wh": 2.0 + 9 * 1.0,
        "forecast/eval_s": 5.0 + 9 * 2.0,
    }
    forecast.add(Cost(9.0, None), 2.0)
    forecast.add(Cost(60.0, 1.5), 30.0)  # another program was running
    assert forecast.metrics(3, _costs(5 * 3600.0, 90.0, 40.0)) == {
        "forecast/train_s": 90.0 + 7 * 9.0,
        "forecast/train_wh": 5.0 + 7 * 1.25,
        "forecast/eval_s": 40.0 + 7 * 2.0,
    }
    assert forecast.metrics(10, _costs(3600.0, 1.0, 1.0)) == {}


def test_a_resumed_training_has_the_costs_of_earlier_attempts() -> None:
    forecast = Forecast(10)
    forecast.add(Cost(8.0, 1.0), 2.0)  # the seventh epoch, the first of this process
    found = forecast.metrics(7, _costs(30 * 3600.0, 200.0, 50.0))
    assert found["forecast/train_s"] == 200.0 + 3 * 8.0
    assert found["forecast/train_wh"] == 30.0 + 3 * 1.0


def test_without_energy_there_is_no_forecast_of_it() -> None:
    forecast = Forecast(2)
    forecast.add(Cost(8.0, 1.0), 2.0)
    assert "forecast/train_wh" not in forecast.metrics(1, _costs(None, 8.0, 2.0))
    forecast = Forecast(2)
    forecast.add(Cost(8.0, None), 2.0)
    assert "forecast/train_wh" not in forecast.metrics(1, _costs(36.0, 8.0, 2.0))
