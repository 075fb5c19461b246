"""Profiles: how long a window lasts, what an image costs, and what is marked or missing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from pepr_mlops.costs.device import Device
from pepr_mlops.costs.meters.meter import Meter
from pepr_mlops.costs.meters.zeus import ZeusMeter
from pepr_mlops.costs.recorder import Recorder
from pepr_mlops.costs.totals import Window
from pepr_mlops.errors import WrongUse
from pepr_mlops.names import METRICS, TAGS
from pepr_mlops.train.use import profile as profiles
from pepr_mlops.train.use.profile import Profile, Subject, profile, refuse_others, window_s

DESCRIBED: Any = SimpleNamespace(image_size=8, colour="grey", model="tiny")


class _Machine(Meter):
    """A clock of its own: a call takes 0.5 s and 3.6 J, twice as much for several images. Its
    counter moves every `tick_s`; `gone` are the windows in which it is not read."""

    sources = {"cpu": "measured"}  # noqa: RUF012

    def __init__(self, tick_s: float = 0.5, gone: tuple[int, ...] = ()) -> None:
        super().__init__(lambda: None, {})
        self.tick_s, self.gone = tick_s, gone
        self.now_s = self.joules = 0.0
        self.windows: list[float] = []
        self.factors: Iterator[float] | None = None

    def predict(self, images: Any) -> Any:
        self.now_s += 0.5
        self.joules += 3.6 * (2 if len(images) > 1 else 1)
        return np.zeros((len(images), 2))

    def begin(self, name: str) -> None:
        self.began_s, self.joules = self.now_s, 0.0

    def elapsed_s(self) -> float:
        return self.now_s - self.began_s

    def end(self) -> Window:
        self.windows.append(self.elapsed_s())
        if len(self.windows) in self.gone:
            return Window(self.elapsed_s(), {}, {"cpu": "counter did not advance"})
        factor = 1.0 if self.factors is None else next(self.factors)
        return Window(self.elapsed_s(), {"cpu": self.joules * factor}, {})


def _profiled(machine: _Machine, monkeypatch: pytest.MonkeyPatch, form: str) -> Profile:
    clock = SimpleNamespace(
        perf_counter=lambda: machine.now_s, strftime=time.strftime, gmtime=time.gmtime
    )
    monkeypatch.setattr(profiles, "time", clock)
    subject = Subject(form, DESCRIBED, "fp32", machine.predict, lambda: None, {})
    recorder = Recorder(Device(torch.device("cpu")), machine, None, 1.0)
    return profile(subject, recorder, 4, lambda text: None)


def test_a_window_takes_three_seconds_and_twenty_ticks_of_the_slowest_counter() -> None:
    assert window_s(0.0) == window_s(0.1) == 3.0
    assert window_s(0.5) == 10.0
    assert ZeusMeter(None, ("gpu", "cpu"), lambda: None, {}).tick_s == 0.1
    assert ZeusMeter(None, ("cpu", "dram"), lambda: None, {}).tick_s == 0.001


def test_an_image_costs_what_its_windows_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = _Machine()
    found = _profiled(machine, monkeypatch, "inference")
    assert machine.windows == [10.0] * 10  # five of one image, five of batches
    values = {name: value.mean for name, value in found.values.items()}
    assert values["wh_per_image_b1"] == pytest.approx(0.001)  # 3.6 J
    assert values["wh_per_image"] == pytest.approx(0.0005)  # 7.2 J for 4
    assert values["ms_p50"] == values["ms_p95"] == pytest.approx(500.0)
    assert values["images_per_s"] == pytest.approx(8.0)
    assert found.conditions["unstable"] == "none"
    assert found.conditions["energy_source"] == "measured"
    assert found.conditions["batch"] == "4"


def test_a_value_that_varies_by_more_than_5_percent_is_marked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine = _Machine()
    machine.factors = iter([1.0] * 9 + [2.0])  # the last window of batches takes twice as much
    found = _profiled(machine, monkeypatch, "inference")
    value = found.values["wh_per_image"]
    assert value.mean == pytest.approx(0.0006)
    assert value.cv == pytest.approx(np.std([1, 1, 1, 1, 2], ddof=1) / 1.2)
    assert found.conditions["unstable"] == "wh_per_image 37.3%"
    assert found.metrics()["inference/wh_per_image_cv"] == pytest.approx(0.3727, abs=1e-4)


def test_an_energy_that_one_window_missed_is_missing_with_the_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = _profiled(_Machine(gone=(4,)), monkeypatch, "inference_onnx")  # the second of batches
    assert "wh_per_image" not in found.values
    assert found.values["wh_per_image_b1"].mean == pytest.approx(0.001)
    assert found.conditions["energy_source"] == "lost"
    reason = "cpu (eval): repeat 2, batches: counter did not advance"
    assert found.conditions["energy_missing"] == reason
    assert "wh_per_image," not in found.conditions["values"]


def test_every_value_and_condition_has_a_meaning(monkeypatch: pytest.MonkeyPatch) -> None:
    for form in ("inference", "inference_onnx"):
        found = _profiled(_Machine(), monkeypatch, form)
        assert set(found.metrics()) <= set(METRICS)
        assert set(found.tags()) <= set(TAGS)
        assert ("memory_gb" in found.values) == (form == "inference")  # PyTorch is there, too


def test_other_conditions_are_not_overwritten_unawares(monkeypatch: pytest.MonkeyPatch) -> None:
    found = _profiled(_Machine(), monkeypatch, "inference")
    refuse_others("r", found.tags(), "inference", found.conditions)
    refuse_others("r", {}, "inference", found.conditions)
    other = {**found.tags(), "pepr.inference_hardware": "NVIDIA H100"}
    with pytest.raises(
        WrongUse, match=r"run r was profiled .*hardware NVIDIA H100, here .*--replace"
    ):
        refuse_others("r", other, "inference", found.conditions)
    refuse_others("r", other, "inference_onnx", found.conditions)  # values of their own
