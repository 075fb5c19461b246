"""Adding up windows, counted by hand."""

from __future__ import annotations

import pytest

from pepr_mlops.costs.carbon import Intensity
from pepr_mlops.costs.totals import Costs, Window, cautions
from pepr_mlops.names import METRICS


def _window(seconds: float, **joules: float) -> Window:
    return Window(seconds, joules, {})


def test_two_epochs_by_phase_and_component() -> None:
    costs = Costs({"gpu": "measured", "cpu": "measured"})
    costs.add("train", _window(10, gpu=3600, cpu=1800), "epoch 1")
    costs.add("eval", _window(2, gpu=360, cpu=180), "epoch 1")
    costs.add("train", _window(12, gpu=7200, cpu=1800), "epoch 2")
    found = costs.metrics(Intensity(500, "given"), pue=1.2)
    assert found == pytest.approx(
        {
            "time/train_s": 22,
            "time/eval_s": 2,
            "energy/train_gpu_wh": 3.0,
            "energy/train_cpu_wh": 1.0,
            "energy/train_wh": 4.0,
            "energy/eval_gpu_wh": 0.1,
            "energy/eval_cpu_wh": 0.05,
            "energy/eval_wh": 0.15,
            "carbon/train_gco2e": 4.0 / 1000 * 500 * 1.2,
        }
    )
    assert set(found) <= set(METRICS)


def test_a_component_that_missed_an_epoch_has_no_energy_nor_has_the_sum() -> None:
    costs = Costs({"gpu": "measured", "cpu": "measured"})
    costs.add("train", _window(10, gpu=3600, cpu=1800), "epoch 1")
    costs.add("train", Window(10, {"cpu": 1800}, {"gpu": "GPU is lost"}), "epoch 2")
    costs.add("train", _window(10, gpu=3600, cpu=1800), "epoch 3")
    found = costs.metrics(Intensity(500, "given"), pue=1.0)
    assert found == pytest.approx({"time/train_s": 30, "energy/train_cpu_wh": 1.5})
    assert costs.energy_wh("train") is None
    assert costs.tags({"dram": "no zone"})["pepr.energy_missing"] == (
        "dram: no zone; gpu (train): epoch 2: GPU is lost"
    )


def test_nothing_measured_is_missing_and_not_zero() -> None:
    costs = Costs({})
    costs.add("train", _window(5), "epoch 1")
    assert costs.metrics(Intensity(500, "given"), pue=1.0) == {"time/train_s": 5.0}
    assert costs.tags({}) == {}


def test_paused_time_is_counted_separately_over_all_attempts() -> None:
    costs = Costs({"gpu": "measured"})
    costs.add("train", Window(10, {"gpu": 3600}, {}, paused_s=29.5), "epoch 1")
    costs.add("eval", Window(2, {"gpu": 36}, {}, paused_s=5.0), "epoch 1")
    later = Costs({"gpu": "measured"})
    later.resume(costs.state())
    later.add("train", Window(10, {"gpu": 3600}, {}, paused_s=1.5), "epoch 2")
    assert later.metrics(None, pue=1.0)["time/train_s"] == 20
    assert later.tags({})["pepr.paused_s"] == "31.0"
    untroubled = Costs({})
    untroubled.add("train", Window(10, {}, {}), "epoch 1")
    assert "pepr.paused_s" not in untroubled.tags({})


@pytest.mark.parametrize(
    ("tags", "texts"),
    [
        ({}, []),
        (
            {"pepr.cpu_others": "1.50", "pepr.cpu_others_of": "2"},
            ["other programs used 1.5 of 2 CPUs: time and energy are overstated"],
        ),
        ({"pepr.cpu_others": "0.15", "pepr.cpu_others_of": "2"}, []),
        (
            {"pepr.cpu_others": "0", "pepr.machine_cpu_others": "9.5"},
            ["other programs used 9.5 of the machine's 16 CPUs: energy is overstated"],
        ),
        (
            {"pepr.machine_cpu_others": "9.5", "pepr.energy_components": "gpu=measured"},
            [],
        ),
        (
            {"pepr.gpu_other_processes": "4711 python"},
            ["other programs used the GPU: 4711 python"],
        ),
        (
            {"pepr.paused_s": "30.2"},
            ["stopped or asleep for 30 s of the training: left out"],
        ),
        (
            {"pepr.paused_s": "30.2", "pepr.energy_source": "measured"},
            [
                "stopped or asleep for 30 s of the training: time leaves that out, measured "
                "energy does not"
            ],
        ),
    ],
)
def test_what_disturbed_a_run_is_reported_at_its_end(
    tags: dict[str, str], texts: list[str]
) -> None:
    of_the_run = {
        **{"pepr.memory": "memory/rss_gb", "pepr.cpu_count": "16"},
        **{"pepr.energy_source": "estimated", "pepr.energy_components": "cpu=estimated"},
    }
    assert cautions({**of_the_run, **tags}) == texts


def test_short_measured_windows_carry_a_caution() -> None:
    costs = Costs({"gpu": "measured"})
    costs.add("train", _window(5.5, gpu=1), "epoch 1")
    assert costs.tags({}) == {}  # a tick of 0.1 s in 5.5 s
    costs.add("train", _window(0.5, gpu=1), "epoch 2")
    costs.add("train", _window(0.5, gpu=1), "epoch 3")  # 3 ticks in 6.5 s are 4.6%
    assert costs.tags({}) == {}
    costs.add("train", _window(0.5, gpu=1), "epoch 4")
    assert "off by up to 6%" in costs.tags({})["pepr.energy_caution"]
    estimated = Costs({"cpu": "estimated"})
    estimated.add("train", _window(0.5, cpu=1), "epoch 1")
    assert estimated.tags({}) == {}


def test_windows_too_short_to_move_the_counter_add_up() -> None:
    costs = Costs({"gpu": "measured"})
    costs.add("train", _window(0.01, gpu=0.0), "epoch 1")
    assert costs.metrics(None, 1.0) == {"time/train_s": 0.01}  # not 0 Wh
    assert costs.energy_wh("train") is None
    costs.add("train", _window(0.09, gpu=36.0), "epoch 1")
    assert costs.energy_wh("train") == pytest.approx(0.01)


def test_energy_of_a_part_of_the_run_is_called_lost() -> None:
    costs = Costs({"gpu": "measured"})
    costs.add("train", _window(10, gpu=3600), "epoch 1")
    costs.add("train", Window(10, {}, {"gpu": "GPU is lost"}), "epoch 2")
    assert costs.tags({})["pepr.energy_source"] == "lost"
