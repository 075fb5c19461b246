"""A stand-in for `amdsmi` and for PyTorch on ROCm: a machine with AMD GPUs that have a clock."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from pepr_mlops.costs import gpus

RESOLUTION_UJ = 15.3  # of the energy counter of an MI200


@dataclass(frozen=True)
class Card:
    """A GPU, or a part of one: its place on the PCI bus, HIP's number and its power.

    `counter` is what its energy counter counts of that, None where it has none.
    """

    bdf: str
    hip_id: int
    power_w: int
    name: str = "AMD Instinct MI210"
    counter: float | None = 1.0
    pids: tuple[int, ...] = ()
    used: int = 0


class AmdSmi(ModuleType):
    """The functions of `amdsmi` that Zeus and this package call; handles are the cards."""

    class AmdSmiException(Exception):
        pass

    class AmdSmiLibraryException(AmdSmiException):
        def get_error_code(self) -> int:
            return 2

        def get_error_info(self) -> str:
            return str(self)

    AmdSmiInitFlags = SimpleNamespace(INIT_AMD_GPUS=1)
    AmdSmiTemperatureType = SimpleNamespace(HOTSPOT=1)
    AmdSmiMemoryType = SimpleNamespace(VRAM=0)
    AmdSmiTemperatureMetric = SimpleNamespace(CURRENT=0)

    def __init__(self, *cards: Card) -> None:
        super().__init__("amdsmi")
        self.cards, self.now_s, self.temperature = list(cards), 1000.0, 61

    def wait(self, seconds: float) -> None:
        """Let all cards draw their power for so long."""
        self.now_s += seconds

    def amdsmi_init(self, flag: int) -> None:
        """Nothing to do."""

    def amdsmi_shut_down(self) -> None:
        """Nothing to do."""

    def amdsmi_get_processor_handles(self) -> list[Card]:
        return list(self.cards)

    def amdsmi_get_gpu_device_bdf(self, card: Card) -> str:
        return card.bdf.upper()

    def amdsmi_get_gpu_device_uuid(self, card: Card) -> str:
        return f"uuid-{card.hip_id}"

    def amdsmi_get_gpu_enumeration_info(self, card: Card) -> dict[str, int]:
        return {"hip_id": card.hip_id}

    def amdsmi_get_gpu_asic_info(self, card: Card) -> dict[str, str]:
        return {"market_name": card.name}

    def amdsmi_get_gpu_driver_info(self, card: Card) -> dict[str, str]:
        return {"driver_name": "amdgpu", "driver_version": "6.12.12"}

    def amdsmi_get_power_cap_info(self, card: Card) -> dict[str, int]:
        return {"power_cap": 300_000_000}

    def amdsmi_get_power_info(self, card: Card) -> dict[str, Any]:
        return {"current_socket_power": "N/A", "average_socket_power": card.power_w}

    def amdsmi_get_energy_count(self, card: Card) -> dict[str, float]:
        if card.counter is None:
            raise self.AmdSmiLibraryException("AMDSMI_STATUS_NOT_SUPPORTED")
        counted_uj = card.counter * card.power_w * self.now_s * 1e6
        return {
            "energy_accumulator": counted_uj / RESOLUTION_UJ,
            "counter_resolution": RESOLUTION_UJ,
        }

    def amdsmi_get_temp_metric(self, card: Card, kind: int, metric: int) -> int:
        return self.temperature

    def amdsmi_get_gpu_memory_usage(self, card: Card, kind: int) -> int:
        return card.used

    def amdsmi_get_gpu_process_list(self, card: Card) -> list[dict[str, int]]:
        return [{"pid": pid} for pid in card.pids]


def machine(monkeypatch: pytest.MonkeyPatch, *cards: Card) -> AmdSmi:
    """Make this process one of a machine with these cards, and PyTorch one for ROCm."""
    import torch
    import zeus.device.gpu
    from zeus.device.gpu import amd

    smi = AmdSmi(*cards)
    monkeypatch.setitem(sys.modules, "amdsmi", smi)
    monkeypatch.setattr(amd, "amdsmi", smi)
    monkeypatch.setattr(amd, "time", SimpleNamespace(sleep=smi.wait))  # Zeus checks the counters
    monkeypatch.setattr(zeus.device.gpu, "_gpus", None)
    forget()
    monkeypatch.setattr(gpus, "rocm", lambda: "7.0.2")
    monkeypatch.setattr("pepr_mlops.costs.doctor.rocm", lambda: "7.0.2")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(_visible(cards)))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(_visible(cards)))
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda d: _visible(cards)[d.index].name)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda d: _properties(cards, d))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    monkeypatch.setattr(torch, "zeros", lambda *given, **options: None)
    return smi


def forget() -> None:
    """Let Zeus ask again which GPUs there are."""
    from zeus.device.gpu import amd

    for function in (amd.amdsmi_is_available, amd._hip_to_amdsmi_handle):
        function.cache_clear()


def _visible(cards: tuple[Card, ...]) -> list[Card]:
    """The GPUs as HIP numbers them: ROCr hides some first, then HIP by the numbers that are left.

    Source: ROCm's documentation, GPU isolation techniques.
    """
    left = sorted(cards, key=lambda card: card.hip_id)
    for variables in (("ROCR_VISIBLE_DEVICES",), ("HIP_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES")):
        given = next((os.environ[name] for name in variables if os.environ.get(name)), None)
        if given is not None:
            left = [left[int(number)] for number in given.split(",") if int(number) in range(64)]
    return left


def _properties(cards: tuple[Card, ...], device: Any) -> SimpleNamespace:
    index = device if isinstance(device, int) else device.index
    domain, bus, place = _visible(cards)[index].bdf.split(":")
    return SimpleNamespace(
        pci_domain_id=int(domain, 16),
        pci_bus_id=int(bus, 16),
        pci_device_id=int(place.partition(".")[0], 16),
        total_memory=64e9,
        gcnArchName="gfx90a",
    )
