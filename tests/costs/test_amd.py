"""AMD's GPUs through Zeus' own classes, with a stand-in for `amdsmi` alone."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Iterator

import amd_gpus
import psutil
import pytest
import torch
from amd_gpus import Card

from pepr_mlops.costs import doctor, meters
from pepr_mlops.costs import gpus as vendors
from pepr_mlops.costs.device import Device
from pepr_mlops.costs.gpus import amd
from pepr_mlops.costs.meters import open_meter
from pepr_mlops.costs.meters.meter import Meter
from pepr_mlops.costs.recorder import Recorder
from pepr_mlops.costs.visible_devices import VisibleDevices
from pepr_mlops.errors import WrongUse
from pepr_mlops.spec import RunSpec

# AMD SMI lists by PCI bus, HIP in another order, as on some machines with MI350X.
FOUR = (
    Card("0000:0c:00.0", hip_id=2, power_w=200),
    Card("0000:1d:00.0", hip_id=0, power_w=100),
    Card("0000:9f:00.0", hip_id=3, power_w=400),
    Card("0001:c1:00.0", hip_id=1, power_w=50),
)


@pytest.fixture(autouse=True)
def _nothing_hidden(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    yield
    amd_gpus.forget()


def test_the_build_of_pytorch_says_whose_gpus_there_are() -> None:
    vendors.rocm.cache_clear()
    assert vendors.rocm() == torch.version.hip
    assert vendors.driver() is (vendors.amd if torch.version.hip else vendors.nvidia)


@pytest.mark.parametrize(
    ("variables", "index", "power_w"),
    [
        ({}, 0, 100),  # HIP's numbers, and not AMD SMI's
        ({}, 1, 50),
        ({"HIP_VISIBLE_DEVICES": "2"}, 0, 200),
        ({"HIP_VISIBLE_DEVICES": "3,0"}, 1, 100),
        ({"CUDA_VISIBLE_DEVICES": "3"}, 0, 400),
        ({"ROCR_VISIBLE_DEVICES": "1,3"}, 1, 400),
        ({"ROCR_VISIBLE_DEVICES": "1,3", "HIP_VISIBLE_DEVICES": "1"}, 0, 400),
    ],
)
def test_the_energy_is_that_of_the_gpu_that_pytorch_uses(
    variables: dict[str, str], index: int, power_w: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    smi = amd_gpus.machine(monkeypatch, *FOUR)
    meter = open_meter("measured", Device.resolve(f"cuda:{index}"), host=False)
    assert {name: os.environ[name] for name in variables} == variables
    assert meter.sources == {"gpu": "measured"}
    meter.begin("train")
    smi.wait(10)
    assert meter.spent_j() == pytest.approx(10 * power_w)
    smi.wait(2)
    assert meter.end().joules == {"gpu": pytest.approx(12 * power_w)}


def test_a_gpu_is_described_by_its_name_driver_and_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    smi = amd_gpus.machine(monkeypatch, *FOUR)
    device = Device.resolve("auto")
    tags = device.describe()
    assert tags["pepr.hardware"] == tags["pepr.gpu"] == "AMD Instinct MI210"
    assert {name: tags[f"pepr.{name}"] for name in ("gpu_uuid", "gpu_driver", "gpu_mig")} == {
        **{"gpu_uuid": "uuid-0", "gpu_driver": "6.12.12"},
        "gpu_mig": "off",
    }
    assert tags["pepr.gpu_power_limit_w"] == "300"
    assert device.temperature_c() == 61.0
    smi.temperature = 61_000  # as some versions have it
    assert device.temperature_c() == 61.0
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "")
    assert device.describe()["pepr.hardware"] == "gfx90a"


@pytest.mark.parametrize(
    ("variables", "slots"),
    [
        ({}, [{"HIP_VISIBLE_DEVICES": str(i)} for i in range(4)]),
        ({"HIP_VISIBLE_DEVICES": "2, 0"}, [{"HIP_VISIBLE_DEVICES": i} for i in "20"]),
        ({"CUDA_VISIBLE_DEVICES": "3"}, [{"HIP_VISIBLE_DEVICES": "3"}]),
        ({"ROCR_VISIBLE_DEVICES": "1,3"}, [{"HIP_VISIBLE_DEVICES": i} for i in "01"]),
        ({"ROCR_VISIBLE_DEVICES": ""}, []),
        ({"HIP_VISIBLE_DEVICES": "-1"}, []),
        ({"SLURM_JOB_GPUS": "1,3"}, [{"ROCR_VISIBLE_DEVICES": i} for i in "13"]),
    ],
)
def test_each_gpu_that_may_be_used_is_a_slot_of_a_sweep(
    variables: dict[str, str], slots: list[dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    amd_gpus.machine(monkeypatch, *FOUR)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert vendors.driver().slots() == slots
    amd_gpus.machine(monkeypatch)
    assert vendors.driver().slots() == []


def test_other_programs_on_the_gpu_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    parent = os.getppid()
    cards = (
        Card("0000:0c:00.0", hip_id=0, power_w=200, pids=(os.getpid(), parent)),
        Card("0000:1d:00.0", hip_id=1, power_w=200, pids=(4711,)),
    )
    amd_gpus.machine(monkeypatch, *cards)
    assert Device.resolve("cuda:0").other_processes() == {
        f"{parent} {psutil.Process(parent).name()}"
    }


HALF = "AMD Instinct MI250X"


def test_a_card_of_two_halves_is_measured_as_one_by_its_first_half(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Powers as Zeus' authors found them: the second half reports none."""
    parent = os.getppid()
    first = Card("0000:0c:00.0", hip_id=0, power_w=89, name=HALF, pids=(os.getpid(),))
    second = Card("0000:0d:00.0", hip_id=1, power_w=0, name=HALF, pids=(parent,))
    smi = amd_gpus.machine(monkeypatch, first, second)
    meter = open_meter("auto", Device.resolve("cuda:0"), host=False)
    meter.begin("train")
    smi.wait(4)
    assert meter.end().joules == {"gpu": pytest.approx(4 * 89)}
    assert Device.resolve("cuda:0").other_processes() == {
        f"{parent} {psutil.Process(parent).name()}"
    }
    unknown = open_meter("auto", Device.resolve("cuda:1"), host=False)
    assert "GPU 1 is a chiplet of a dual-die" in unknown.notes["gpu"]
    assert not unknown.sources


@pytest.mark.parametrize(
    ("cards", "why"),
    [
        (
            [Card("0000:0c:00.0", 0, 200, name="AMD Radeon", counter=None)],
            "the GPU has no energy counter: AMDSMI_STATUS_NOT_SUPPORTED",
        ),
        (
            [Card(f"0000:0c:00.{i}", i, 200) for i in range(8)],
            "the GPU is divided into partitions and its counter covers them all",
        ),
    ],
)
def test_unknown_energy_has_its_reason(
    cards: list[Card], why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    amd_gpus.machine(monkeypatch, *cards)
    monkeypatch.setattr("pepr_mlops.costs.memory.Memory", lambda device: None)
    device = Device.resolve("cuda")
    recorder = Recorder.open(RunSpec(energy="auto"), device)
    assert type(recorder.meter) is Meter
    assert recorder.unknown_energy == f"energy of the GPU is not known: {why}"
    assert f"gpu: {why}" in recorder.costs.tags(recorder.meter.notes)["pepr.energy_missing"]
    with pytest.raises(WrongUse, match="no sensor for the gpu"):
        open_meter("measured", device)
    assert Recorder.open(RunSpec(energy="off"), device).unknown_energy is None
    partitions = device.describe()["pepr.gpu_mig"]
    assert partitions == ("off" if len(cards) == 1 else "1 of 8 partitions")
    found = [(check.what, check.found) for check in doctor.energy(device)]
    assert ("gpu", f"not read: {why}") in found


def test_amd_smi_that_cannot_be_loaded_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine without ROCm: `amdsmi` is installed with Zeus, its library is not."""
    amd_gpus.machine(monkeypatch, *FOUR)
    monkeypatch.setitem(sys.modules, "amdsmi", None)
    device = Device.resolve("cuda:0")
    notes = open_meter("auto", device, host=False).notes
    assert notes["gpu"].startswith("AMD SMI cannot be loaded (ModuleNotFoundError")
    assert notes["gpu"].endswith("install the amdsmi of this ROCm")
    tags = device.describe()
    assert tags["pepr.gpu"] == "AMD Instinct MI210"
    assert tags["pepr.gpu_nvml"].startswith("unavailable: AMD SMI cannot be loaded")
    assert (device.other_processes(), device.temperature_c()) == (None, None)
    assert amd.count() == 0


def test_a_wrong_counter_is_replaced_by_the_power(monkeypatch: pytest.MonkeyPatch) -> None:
    """An MI100's counter stands still: Zeus then polls the power, in a process of its own."""
    import zeus.monitor.energy

    amd_gpus.machine(monkeypatch, Card("0000:0c:00.0", 0, 200, counter=0.0))
    polled = []

    class Polled:
        def __init__(self, gpu_indices: list[int], update_period: None) -> None:
            polled.append(gpu_indices)

        def get_energy(self, start_s: float, end_s: float) -> dict[int, float]:
            return {0: 2000.0}

    monkeypatch.setattr(zeus.monitor.energy, "PowerMonitor", Polled)
    meter = open_meter("measured", Device.resolve("cuda"), host=False)
    meter.begin("train")
    assert meter.end().joules == {"gpu": 2000.0}
    assert polled == [[0]]
    assert meter.method.endswith("(of the GPU its power, read often and integrated)")


def test_the_doctor_names_the_gpus_or_why_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    amd_gpus.machine(monkeypatch, *FOUR[:2])
    found = {check.what: check for check in doctor.machine()}
    assert found["cuda:1"].found == "AMD Instinct MI210, 64 GB, driver 6.12.12"
    energy = {check.what: check.found for check in doctor.energy(Device.resolve("cuda:0"))}
    assert energy["gpu"].startswith("measured by Zeus")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    check = {check.what: check for check in doctor.machine()}["GPU"]
    assert check.found == "PyTorch cannot use the 2 AMD GPUs: it needs ROCm with HIP 7.0.2"
    monkeypatch.setenv("HIP_VISIBLE_DEVICES", "-1")
    check = {check.what: check for check in doctor.machine()}["GPU"]
    assert check.found == "HIP_VISIBLE_DEVICES hides all GPUs"


def test_idle_power_is_that_of_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    smi = amd_gpus.machine(monkeypatch, *FOUR)
    meter = open_meter("measured", Device.resolve("cuda:0"), host=False)
    monkeypatch.setattr(meters.time, "sleep", smi.wait)
    monkeypatch.setattr(meters, "IDLE_S", 3.0)
    meter.begin("idle")
    smi.wait(3.0)
    assert meter.end().joules == {"gpu": pytest.approx(300.0)}


def test_a_command_uses_all_gpus_that_it_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HIP_VISIBLE_DEVICES", "0,3")
    cards = [dataclasses.replace(card, used=1_500_000_000, pids=(1,)) for card in FOUR]
    machine = amd_gpus.machine(monkeypatch, *cards)
    found = VisibleDevices.find()
    meter = open_meter("auto", found, host=False)
    meter.begin("train")
    machine.wait(36)
    assert meter.end().joules["gpu"] == pytest.approx(36 * (100 + 400), rel=1e-3)
    memory = found.memory()
    with memory.sampled():
        pass
    assert memory.metrics()["memory/device_used_gb"] == 3
    assert found.other_processes() == {f"1 {psutil.Process(1).name()}"}
    assert found.describe()["pepr.hardware"] == "2 × AMD Instinct MI210"
