"""What a command may compute on: all GPUs that it can see, or else the CPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pepr_mlops.costs.device import Device, gpu_tags, named
from pepr_mlops.costs.gpus import driver
from pepr_mlops.costs.tree_memory import TreeMemory

if TYPE_CHECKING:
    import torch

_JOINED: dict[str, Callable[[list[str]], str]] = {
    "pepr.gpu_power_limit_w": lambda limits: f"{max(map(float, limits)):g}",  # of each
    "pepr.gpu": lambda names: names[0] if len(names) == 1 else _counted(names),
}


@dataclass(frozen=True)
class VisibleDevices(Device):
    """All GPUs that PyTorch sees, whose energy and memory count together.

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
    def gpu_names(self) -> list[str]:
        return [name for gpu in self.gpus for name in Device(gpu).gpu_names]

    @property
    def memory_metric(self) -> str:
        return "memory/device_used_gb" if self.gpus else "memory/rss_gb"

    def memory(self) -> TreeMemory:
        return TreeMemory(self.gpus)

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
        lists = [driver().process_ids(gpu) for gpu in self.gpus]
        known = [pids for pids in lists if pids is not None]
        return named({pid for pids in known for pid in pids}) if known else None


def _counted(names: list[str]) -> str:
    """`2 × NVIDIA A100`, or of several kinds each."""
    kinds = dict.fromkeys(names)
    return " + ".join(f"{names.count(kind)} × {kind}" for kind in kinds)


def _together(values: list[str]) -> str:
    return ", ".join(dict.fromkeys(values))
