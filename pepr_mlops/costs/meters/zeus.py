"""Energy counters of GPUs, CPUs and chips, read by Zeus."""

from __future__ import annotations

import contextlib
import math
import os
import sys
import types
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import ExitStack
from importlib import metadata
from pathlib import Path
from typing import Any

from pepr_mlops.costs.gpus import driver
from pepr_mlops.costs.meters.meter import Meter
from pepr_mlops.errors import one_line
from pepr_mlops.names import COMPONENTS, Source

# How often counters move: RAPL's every millisecond, NVML's every 20 to 100 ms.
_TICKS_S = {"gpu": 0.1, "cpu": 0.001, "dram": 0.001, "soc": 0.1}
_STILL_S = 1.0  # ten ticks of the slowest counter: one that has not moved by then is stuck
_PLAUSIBLE_W = 1000.0  # of one socket; a reading while RAPL wraps around can be 262 kJ too high
_VISIBLE = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES")  # that Zeus follows
_NO_APPLE = "Zeus lacks its package for Apple silicon: pip install 'zeus[apple]'"
_SHARED = "jobs on other GPUs of this machine share it"


class ZeusMeter(Meter):
    """Reads counters through a `zeus.monitor.ZeusMonitor` or its replay.

    `components` are those the monitor can read. Zeus takes time from the wall clock, which can be
    set while we measure; the stopwatch takes the monotonic one.
    """

    def __init__(
        self,
        monitor: Any,
        components: Sequence[str],
        synchronize: Callable[[], None],
        notes: Mapping[str, str],
    ) -> None:
        self.sources: Mapping[str, Source] = dict.fromkeys(components, "measured")
        self.tick_s = max((_TICKS_S[component] for component in components), default=0.0)
        self.method = f"Zeus {metadata.version('zeus')}"
        if getattr(monitor, "power_monitor", None) is not None:
            self.method += " (of the GPU its power, read often and integrated)"
        super().__init__(synchronize, notes)
        self._monitor = monitor
        self._name, self._part = "", 0
        self._joules: dict[tuple[str, int], float] = {}  # by component and its device's index
        self._missing: dict[str, str] = {}

    def _open(self, name: str) -> None:
        self._name, self._part = name, 0
        self._joules, self._missing = defaultdict(float), {}
        self._begin_part(self._part)

    def _close(self, time_s: float, paused_s: float) -> tuple[dict[str, float], dict[str, str]]:
        self._end_part()
        counted_s = time_s + paused_s  # counters run on while the process is stopped
        for (component, _), joules in self._joules.items():
            if joules < 0:
                why = f"counter ran backwards by {-joules:g} J"
            elif joules == 0 and counted_s >= _STILL_S:
                why = f"counter did not advance over {counted_s:.3g} s"
            elif component in ("cpu", "dram") and joules > _PLAUSIBLE_W * max(counted_s, _STILL_S):
                why = f"counter gave {joules:g} J in {counted_s:.3g} s, more than a socket can take"
            else:
                continue
            self._missing.setdefault(component, why)
        read = {component for component, _ in self._joules}
        for component in self.sources:
            if component not in read:
                self._missing.setdefault(component, "no reading")
        return self._totals(), dict(self._missing)

    def spent_j(self) -> float | None:
        """Splits the window in two and adds up the parts.

        The next part begins before this one ends, so that no energy is lost between them; a tick
        of the counter within those microseconds counts twice.
        """
        self._begin_part(self._part + 1)
        self._end_part()
        self._part += 1  # last: a signal before it leaves the earlier part to be closed by `end`
        totals = self._totals()
        if totals.keys() != self.sources.keys():
            return None
        return max(0.0, sum(totals.values()))

    def _key(self, part: int) -> str:
        return self._name if part == 0 else f"{self._name}+{part}"

    def _totals(self) -> dict[str, float]:
        totals: dict[str, float] = {}
        for (component, _), joules in self._joules.items():
            if component not in self._missing:
                totals[component] = totals.get(component, 0.0) + joules
        return totals

    def _begin_part(self, part: int) -> None:
        key = self._key(part)
        self._try(lambda: self._monitor.begin_window(key, sync_execution=False, restart=True))

    def _end_part(self) -> None:
        key = self._key(self._part)
        read = self._try(lambda: self._monitor.end_window(key, sync_execution=False))
        for (component, index), joules in (_readings(read) if read is not None else {}).items():
            if component not in self.sources:
                continue
            if joules is None or not math.isfinite(joules):
                self._missing.setdefault(component, f"counter gave {joules} J")
                continue
            # A part is negative while Zeus has not yet noticed that RAPL wrapped around; the next
            # part makes up for it, and `_close` checks the sum.
            self._joules[component, index] += joules

    def _try(self, call: Callable[[], Any]) -> Any:
        """A sensor may vanish at any time: note why for every component, and continue training."""
        try:
            with warnings.catch_warnings(action="ignore"):  # of a zero reading, see `_close`
                return call()
        except Exception as error:  # Zeus lets through the errors of drivers, files and its own
            for component in self.sources:
                self._missing.setdefault(component, one_line(error))
            return None


def _readings(measurement: Any) -> dict[tuple[str, int], float | None]:
    """Joules by component and device of a `zeus.monitor.Measurement`, whose fields these are.

    `total_energy` is left out: it covers the GPUs alone. An SoC is one component: its own total,
    or else the sum of its parts that do not overlap.
    """
    joules: dict[tuple[str, int], float | None] = {
        (component, index): value
        for component in ("gpu", "cpu", "dram")
        for index, value in (getattr(measurement, f"{component}_energy") or {}).items()
    }
    soc = measurement.soc_energy
    if soc is not None:
        parts = [getattr(soc, "total_energy_mj", None)]
        if parts == [None]:
            apple = ("cpu_total_mj", "dram_mj", "gpu_mj", "gpu_sram_mj", "ane_mj")
            jetson = ("cpu_energy_mj", "gpu_energy_mj")
            parts = [getattr(soc, name, None) for name in (*apple, *jetson)]
        known = [part for part in parts if part is not None]
        joules["soc", 0] = sum(known) / 1000 if known else None
    return joules


def find_sensors(
    gpu_names: Sequence[str], host: bool = True
) -> tuple[Any, tuple[str, ...], dict[str, str]]:
    """A monitor of these GPUs and, with `host`, of the CPU packages; the components it reads; why
    it does not read the others."""
    from zeus.device import get_soc
    from zeus.device.soc.common import ZeusSoCInitError

    with warnings.catch_warnings(action="ignore"):
        notes: dict[str, str] = {}
        gpus: list[int] = []
        # Zeus watches RAPL for wrap-arounds in processes that import the main module again: a
        # script without `if __name__ == "__main__"` would train again in each of them.
        no_main = types.ModuleType("__main__")
        # Zeus cannot read UUIDs in these variables, takes CUDA's numbers for NVML's, which may
        # differ, and does not know ROCR_VISIBLE_DEVICES. It reads the GPUs once per process, so it
        # must see all: a later job may use another one.
        visible = driver().everything() if gpu_names else ""  # all, or none
        with ExitStack() as replaced:
            replaced.enter_context(_replaced(sys.modules, "__main__", no_main))
            for variable in _VISIBLE:
                replaced.enter_context(_replaced(os.environ, variable, visible))
            try:
                gpus = [_zeus_index(name) for name in gpu_names]
            except Exception as error:  # ours says why; the driver's and Zeus' own need their kind
                notes["gpu"] = str(error) if type(error) is LookupError else one_line(error)
            packages, has_dram, notes["cpu"] = _packages() if host else ([], False, _SHARED)
            if not gpus and not packages:
                try:
                    get_soc()  # a chip that counts its own energy, as Apple's and Jetson do
                except ZeusSoCInitError:
                    if sys.platform == "darwin":
                        notes["soc"] = _NO_APPLE
                    return None, (), notes  # importing the monitor takes a second
            from zeus.monitor import ZeusMonitor

            try:
                monitor = ZeusMonitor(gpu_indices=gpus, cpu_indices=packages)
            except Exception as error:  # a counter that vanished since
                return None, (), {**notes, "zeus": one_line(error)}
    if monitor.soc_is_present:  # its counters hold the CPU's and the GPU's already
        return monitor, ("soc",), {}
    read = {"gpu": bool(gpus), "cpu": bool(packages), "dram": has_dram}
    if packages:
        del notes["cpu"]
        if not has_dram:
            notes["dram"] = "RAPL has no memory zone on this CPU"
    return monitor, tuple(c for c in COMPONENTS if read.get(c)), notes


@contextlib.contextmanager
def _replaced(values: MutableMapping[str, Any], name: str, value: object) -> Iterator[None]:
    """Replace one of the values during the block, or with None remove it."""
    before = values.get(name)
    try:
        _set(values, name, value)
        yield
    finally:
        _set(values, name, before)


def _set(values: MutableMapping[str, Any], name: str, value: object) -> None:
    if value is None:
        values.pop(name, None)
    else:
        values[name] = value


def _packages() -> tuple[list[int], bool, str]:
    """Positions of the CPU packages among Zeus' RAPL zones, whether all have a memory zone, and
    why there is no package.

    Zeus lists every top zone, also `psys`, which counts the packages a second time.
    """
    from zeus.device import get_cpus
    from zeus.device.cpu.common import ZeusCPUInitError, ZeusCPUNoPermissionError
    from zeus.device.cpu.rapl import ZeusRAPLPermissionError

    try:
        cpus = get_cpus()
        found = []
        for i, cpu in enumerate(cpus.cpus):
            folder = Path(cpus.rapl_dir) / f"intel-rapl:{cpu.cpu_index}"
            if (folder / "name").read_text().startswith("package"):
                cpus.get_total_energy_consumption(i)
                found.append(i)
    except ZeusCPUInitError:
        return [], False, "no RAPL counters"
    except (PermissionError, ZeusCPUNoPermissionError, ZeusRAPLPermissionError):
        return [], False, "RAPL counters are closed to this user"
    except Exception as error:  # Zeus lets through the errors of files
        return [], False, one_line(error)
    if not found:
        return [], False, "RAPL has no package zone"
    return found, all(cpus.supports_get_dram_energy_consumption(i) for i in found), ""


def _zeus_index(name: str) -> int:
    """Zeus' index of the GPU that its driver calls `name`: CUDA's or HIP's index may differ.

    Raises `LookupError` with the reason if its energy cannot be read, or errors of its driver.
    """
    from zeus.device import get_gpus
    from zeus.device.gpu.common import ZeusGPUNotSupportedError

    gpu_driver = driver()
    gpu_driver.check_counter(name)
    gpus = get_gpus()
    for i, gpu in enumerate(gpus.gpus):
        if gpu_driver.identify_handle(gpu.handle) == name:
            if gpus.supports_get_total_energy_consumption(i):
                gpus.get_total_energy_consumption(i)
                return i
            try:  # Zeus adds up the power: of a GPU older than Volta, or if a counter is wrong
                gpus.get_instant_power_usage(i)
            except ZeusGPUNotSupportedError:
                gpus.get_average_power_usage(i)
            return i
    raise LookupError(f"Zeus does not see {name}")
