"""AMD's GPUs, as AMD SMI (`amdsmi`, a part of ROCm) reports them.

PyTorch numbers the GPUs that ROCR_VISIBLE_DEVICES, HIP_VISIBLE_DEVICES and CUDA_VISIBLE_DEVICES
leave, AMD SMI all of them and in another order. Both know a GPU's place on the PCI bus.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from pepr_mlops.errors import one_line
from pepr_mlops.process import slurm_gpus

if TYPE_CHECKING:
    import torch

VISIBLE = "HIP_VISIBLE_DEVICES"
_BELOW = "ROCR_VISIBLE_DEVICES"
_NONE = ("", "-1")
_THOUSANDTHS = 1000.0  # °C that no GPU reaches: AMD SMI counts in thousandths in some versions
_TWO_HALVES = "MI250"  # cards that PyTorch sees as two GPUs, of which one counts for both


def count() -> int:
    try:
        with _library() as amdsmi:
            return len(amdsmi.amdsmi_get_processor_handles())
    except LookupError:
        return 0


def slots() -> list[dict[str, str]]:
    """ROCr hides GPUs first, by Slurm's numbers too; HIP counts those that it leaves, and takes
    CUDA's variable for its own."""
    total, here = count(), os.environ
    visible, left = here.get(VISIBLE) or here.get("CUDA_VISIBLE_DEVICES"), here.get(_BELOW)
    variable = VISIBLE
    if visible is None and left is not None:
        visible = ",".join(map(str, range(len(left.split(","))))) if left else ""
    elif visible is None and (visible := slurm_gpus()) is not None:
        variable = _BELOW
    if total == 0 or (visible is not None and visible.strip() in _NONE):
        return []
    names = map(str, range(total)) if visible is None else visible.split(",")
    return [{variable: name.strip()} for name in names]


def everything() -> str | None:
    """HIP's numbers of the GPUs that AMD SMI sees, which need not begin with 0 in a container."""
    try:
        with _library() as amdsmi:
            return ",".join(map(str, sorted(_numbers(amdsmi))))
    except LookupError:
        return None


def identify(device: torch.device) -> str:
    """The place on the PCI bus, as `0000:c1:00`: cards without a serial number share a UUID."""
    import torch

    found: Any = torch.cuda.get_device_properties(device)  # its stub lacks the places
    return f"{found.pci_domain_id:04x}:{found.pci_bus_id:02x}:{found.pci_device_id:02x}"


def identify_handle(handle: Any) -> str:
    with _library() as amdsmi:
        address: str = amdsmi.amdsmi_get_gpu_device_bdf(handle)
    return address.lower().partition(".")[0]  # without the function, which numbers partitions


def check_counter(name: str) -> None:
    with _library() as amdsmi:
        if len(handles := _handles(amdsmi, name)) > 1:
            raise LookupError("the GPU is divided into partitions and its counter covers them all")
        try:
            amdsmi.amdsmi_get_energy_count(handles[0])
        except amdsmi.AmdSmiException as error:
            raise LookupError(f"the GPU has no energy counter: {_text(error)}") from error


def tags(device: torch.device) -> dict[str, str]:
    found = {}
    try:
        with _library() as amdsmi:
            first, *others = _handles(amdsmi, identify(device))
            reads: dict[str, Callable[[], object]] = {
                "gpu_uuid": lambda: amdsmi.amdsmi_get_gpu_device_uuid(first),
                "gpu_driver": lambda: amdsmi.amdsmi_get_gpu_driver_info(first)["driver_version"],
                "gpu_power_limit_w": lambda: (
                    f"{amdsmi.amdsmi_get_power_cap_info(first)['power_cap'] / 1e6:g}"  # in µW
                ),
            }
            for tag, read in reads.items():
                with suppress(amdsmi.AmdSmiException):
                    found[f"pepr.{tag}"] = str(read())
    except LookupError as error:
        return {"pepr.gpu_nvml": f"unavailable: {error}"}
    return {**found, "pepr.gpu_mig": f"1 of {1 + len(others)} partitions" if others else "off"}


def process_ids(device: torch.device) -> list[int] | None:
    """Those on both halves of a card whose energy counter covers both."""
    try:
        with _library() as amdsmi:
            handles = _handles(amdsmi, identify(device))
            numbers = _numbers(amdsmi)
            for number, handle in numbers.items():
                name = amdsmi.amdsmi_get_gpu_asic_info(handle)["market_name"]
                if handle in handles and _TWO_HALVES in name and number ^ 1 in numbers:
                    handles = [handle, numbers[number ^ 1]]
                    break
            lists = map(amdsmi.amdsmi_get_gpu_process_list, handles)
            return [int(process["pid"]) for processes in lists for process in processes]
    except LookupError:
        return None


def memory_used(device: torch.device) -> int | None:
    try:
        with _library() as amdsmi:
            handle = _handles(amdsmi, identify(device))[0]
            kind = amdsmi.AmdSmiMemoryType.VRAM
            return int(amdsmi.amdsmi_get_gpu_memory_usage(handle, kind))
    except LookupError:
        return None


def temperature_c(device: torch.device) -> float | None:
    """At the hottest place of the chip."""
    try:
        with _library() as amdsmi:
            handle = _handles(amdsmi, identify(device))[0]
            kind = amdsmi.AmdSmiTemperatureType.HOTSPOT
            read = amdsmi.amdsmi_get_temp_metric(
                handle, kind, amdsmi.AmdSmiTemperatureMetric.CURRENT
            )
    except LookupError:
        return None
    return float(read if read < _THOUSANDTHS else read / 1000)


def _numbers(amdsmi: Any) -> dict[int, Any]:
    """AMD SMI's handles by HIP's numbers where nothing hides GPUs."""
    numbers = {}
    for handle in amdsmi.amdsmi_get_processor_handles():
        number = amdsmi.amdsmi_get_gpu_enumeration_info(handle)["hip_id"]
        if isinstance(number, int):  # else HIP does not use it
            numbers[number] = handle
    return numbers


def _handles(amdsmi: Any, name: str) -> list[Any]:
    """AMD SMI's handles of the GPU at a place on the PCI bus: several if it is divided."""
    handles = amdsmi.amdsmi_get_processor_handles()
    found = [handle for handle in handles if identify_handle(handle) == name]
    if not found:
        raise LookupError(f"AMD SMI does not see the GPU at {name}")
    return found


@contextmanager
def _library() -> Iterator[Any]:
    """AMD SMI, ready to use. Its errors become a `LookupError` with the reason."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # it prints which library it lacks
            import amdsmi
    except Exception as error:  # of many kinds: its library is absent or does not fit
        raise LookupError(
            f"AMD SMI cannot be loaded ({one_line(error)}); install the amdsmi of this ROCm"
        ) from error
    try:
        amdsmi.amdsmi_init(amdsmi.AmdSmiInitFlags.INIT_AMD_GPUS)
        yield amdsmi
    except amdsmi.AmdSmiException as error:
        raise LookupError(f"AMD SMI: {_text(error)}") from error


def _text(error: Exception) -> str:
    return " ".join(str(error).split())
