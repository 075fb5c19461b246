"""The tags of a run: what is known when it begins, and what only at its end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pepr_mlops.costs import carbon
from pepr_mlops.costs import device as hardware
from pepr_mlops.costs.gauges import Gauges
from pepr_mlops.costs.meters import Meter, source_tags
from pepr_mlops.costs.other_load import OtherLoad
from pepr_mlops.names import memory_metric

if TYPE_CHECKING:
    import torch


def opening(
    experiment: str,
    performance: str,
    device: torch.device,
    meter: Meter,
    intensity: carbon.Intensity | None,
    pue: float,
) -> dict[str, str]:
    """What the run is compared by, how its energy is known, and the machine."""
    return {
        "pepr.experiment": experiment,
        "pepr.performance": performance,
        "pepr.memory": memory_metric(device.type),
        **source_tags(meter),
        **carbon.tags(intensity, pue),
        **hardware.describe(device),
    }


def closing(
    gauges: Gauges, device: torch.device, others: set[str] | None, load: OtherLoad
) -> dict[str, str]:
    """How the energy fared, and who else worked: processes seen on the GPU, `others` before the
    work, and the `load` of the CPUs since."""
    return {
        **gauges.costs.tags(gauges.meter.notes),
        **load.tags(),
        **hardware.other_processes_tag(others, hardware.other_gpu_processes(device)),
    }
