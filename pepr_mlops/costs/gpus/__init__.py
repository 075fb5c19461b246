"""GPUs of PyTorch's `cuda` devices: NVIDIA's, and AMD's where PyTorch is built for ROCm.

`nvidia` and `amd` have the same functions, those of `Driver`. Reasons are errors of theirs: a GPU
whose driver cannot be asked still computes.
"""

from __future__ import annotations

import functools
import runpy
from importlib import util
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pepr_mlops.costs.gpus import amd, nvidia

if TYPE_CHECKING:
    import torch


class Driver(Protocol):
    """What the driver of a vendor reports."""

    @property
    def VISIBLE(self) -> str:  # noqa: N802  # a constant of a module
        """The variable that names the GPUs which a process may use."""

    def slots(self) -> list[dict[str, str]]:
        """The environment of a process that sees one GPU only, for each GPU that this process may
        use. They are those of the Slurm job where nothing hides the others."""

    def everything(self) -> str | None:
        """The value of VISIBLE with which Zeus sees all GPUs; None if it must not be set."""

    def count(self) -> int:
        """How many GPUs there are, including those that this process may not use."""

    def identify(self, device: torch.device) -> str:
        """The driver's name for a GPU, one for each: torch's index need not be the driver's."""

    def identify_handle(self, handle: Any) -> str:
        """The same of a handle of the driver, as Zeus has it."""

    def check_counter(self, name: str) -> None:
        """Raises `LookupError` with the reason if no energy counter belongs to the GPU `name`."""

    def tags(self, device: torch.device) -> dict[str, str]:
        """Tags that name the driver and the limits of a GPU, or say why it reports nothing."""

    def process_ids(self, device: torch.device) -> list[int] | None:
        """The processes that compute on a GPU; None where the driver does not report them."""

    def memory_used(self, device: torch.device) -> int | None:
        """Bytes of the memory of a GPU that are in use, by whatever process; None if unknown."""

    def temperature_c(self, device: torch.device) -> float | None:
        """Degrees Celsius of a GPU, None if unknown."""


def driver() -> Driver:
    """The driver of the GPUs that this PyTorch is built for."""
    return amd if rocm() else nvidia


@functools.cache
def rocm() -> str | None:
    """The version of HIP that PyTorch is built for, None for another build than ROCm's.

    PyTorch is not imported, which takes seconds: its file of versions is read.
    """
    spec = util.find_spec("torch")
    if spec is None or spec.origin is None:
        return None
    version: str | None = runpy.run_path(str(Path(spec.origin).parent / "version.py")).get("hip")
    return version
