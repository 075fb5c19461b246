"""What a command may compute on: all GPUs that it can see, or else the CPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pepr_mlops.costs.device import Device, gpu_tags
from pepr_mlops.costs.tree_memory import TreeMemory

if TYPE_CHECKING:
    import torch

_JOINED: dict[str, Callable[[list[str]], str]] = {
    "pepr.gpu_power_limit_w": lambda limits: f"{max(map(float, limits)):g}",  # of each
    "pepr.gpu": lambda names: names[0] if len(names) == 1 else _counted(names),
}


@dataclass(frozen=True)
class VisibleDevices(Device):
    """All GPUs in CUDA_VISIBLE_DEVICES, whose energy and memory count together.

    `torch_device` is the first of them, or the device without GPUs. No work of torch is waited for,
    since another process does it.
    """

    gpus: tuple[torch.device, ...] = ()

    @classmethod
    def find(cls) -> VisibleDevices:
        import torch

        first = Device.resolve("auto").torch_device
        count = torch.cuda.device_count() if first.type == "cuda" else 0
        return cls(first, tuple(torch.device("cuda", i) for i in range(count)))

    @property
    def gpu_uuids(self) -> list[str]:
        return [uuid for gpu in self.gpus for uuid in Device(gpu).gpu_uuids]

    @property
    def memory_metric(self) -> str:
        return "memory/device_used_gb" if self.gpus else "memory/rss_gb"

    def memory(self) -> TreeMemory:
        return TreeMemory(self.gpu_uuids)

    def synchronize(self) -> None: ...

    def describe(self) -> dict[str, str]:
        tags = super().describe()
        del tags["pepr.threads"]  # those of this process
        each = [gpu_tags(gpu) for gpu in self.gpus]
        for name in {name for own in each for name in own}:
            values = [own[name] for own in each if name in own]
            tags[name] = _JOINED.get(name, _together)(values)
        if len(each) > 1:
            tags["pepr.gpu_count"] = str(len(each))
        return {**tags, "pepr.hardware": tags.get("pepr.gpu", tags["pepr.cpu"])}

    def other_processes(self) -> set[str] | None:
        """Call it before the command begins and after it has ended: then none is its own."""
        import psutil
        import pynvml

        if not self.gpus:
            return None
        found = set()
        try:
            pynvml.nvmlInit()
            for uuid in self.gpu_uuids:
                handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
                for process in pynvml.nvmlDeviceGetComputeRunningProcesses(handle):
                    known = psutil.pid_exists(process.pid)
                    name = psutil.Process(process.pid).name() if known else "?"
                    found.add(f"{process.pid} {name}")
        except (pynvml.NVMLError, psutil.Error):
            return None
        return found


def _counted(names: list[str]) -> str:
    """`2 × NVIDIA A100`, or of several kinds each."""
    kinds = dict.fromkeys(names)
    return " + ".join(f"{names.count(kind)} × {kind}" for kind in kinds)


def _together(values: list[str]) -> str:
    return ", ".join(dict.fromkeys(values))
