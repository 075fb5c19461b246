"""All devices that a command may use, as one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pynvml
import pytest
import torch

from pepr_mlops.costs import device, visible_devices
from pepr_mlops.costs.gpus import nvidia
from pepr_mlops.costs.visible_devices import VisibleDevices

TAGS = [
    {"pepr.gpu": "NVIDIA A100", "pepr.gpu_uuid": "GPU-a", "pepr.gpu_power_limit_w": "400"},
    {"pepr.gpu": "NVIDIA A100", "pepr.gpu_uuid": "GPU-b", "pepr.gpu_power_limit_w": "250.5"},
    {"pepr.gpu": "NVIDIA L4", "pepr.gpu_uuid": "GPU-c", "pepr.gpu_nvml": "unavailable"},
]


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three GPUs, which torch and NVML report."""

    def tags(one: torch.device) -> dict[str, str]:
        return TAGS[one.index]

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(nvidia, "identify", lambda one: TAGS[one.index]["pepr.gpu_uuid"])
    monkeypatch.setattr(device, "gpu_tags", tags)
    monkeypatch.setattr(visible_devices, "gpu_tags", tags)
    used = {"GPU-a": 1_000_000_000, "GPU-b": 2_500_000_000, "GPU-c": 0}
    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByUUID", lambda uuid: uuid)

    def memory(uuid: str) -> Any:
        return SimpleNamespace(used=used[uuid])

    monkeypatch.setattr(pynvml, "nvmlDeviceGetMemoryInfo", memory)


@pytest.mark.usefixtures("gpus")
def test_all_gpus_count_together() -> None:
    found = VisibleDevices.find()
    assert (found.kind, found.memory_metric) == ("cuda", "memory/device_used_gb")
    assert found.gpu_names == ["GPU-a", "GPU-b", "GPU-c"]
    tags = found.describe()
    assert tags["pepr.gpu"] == tags["pepr.hardware"] == "2 × NVIDIA A100 + 1 × NVIDIA L4"
    assert tags["pepr.gpu_uuid"] == "GPU-a, GPU-b, GPU-c"
    assert (tags["pepr.gpu_count"], tags["pepr.gpu_power_limit_w"]) == ("3", "400")
    assert tags["pepr.gpu_nvml"] == "unavailable"


@pytest.mark.usefixtures("gpus")
def test_memory_of_gpus_is_the_sum_that_their_driver_reports() -> None:
    memory = VisibleDevices.find().memory()
    memory.restart()
    with memory.sampled():
        pass
    assert memory.metrics() == {"memory/device_used_gb": 3.5}


def test_without_gpus_it_is_the_cpu() -> None:
    found = VisibleDevices.find()
    assert (found.kind, found.memory_metric, found.gpu_names) == ("cpu", "memory/rss_gb", [])
    assert found.other_processes() is None
    tags = found.describe()
    assert tags["pepr.hardware"] == tags["pepr.cpu"]
    assert "pepr.threads" not in tags
