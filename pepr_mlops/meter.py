"""Energy and time of blocks of work, each with where it comes from.

One interface over three ways to know the energy: counters read by Zeus, an estimate of a machine
without counters by CodeCarbon's model, and nothing. What could not be read has no value and a
reason; it is never zero.
"""

from __future__ import annotations

import contextlib
import io
import logging
import math
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

from pepr_mlops.costs import Window, overall
from pepr_mlops.errors import WrongUse
from pepr_mlops.schema import COMPONENTS, Source

IDLE_S = 3.0
_ESTIMATE_EVERY_S = 1.0


class Meter(Protocol):
    """Measures one block at a time.

    `sources` names the components that count towards energy and how each is known, `method` says
    how in words, `notes` why other components are not read.
    """

    sources: Mapping[str, Source]
    method: str
    notes: Mapping[str, str]

    def begin(self, name: str) -> None:
        """Open the window `name` once the device has finished the work given to it."""

    def end(self) -> Window:
        """Close it once the device has finished the work given to it."""

    def spent_j(self) -> float | None:
        """Joules of all components since `begin`, or None if not known. Does not wait."""


class NoMeter:
    """Time only."""

    sources: Mapping[str, Source] = {}
    method = "none"

    def __init__(self, synchronize: Callable[[], None], notes: Mapping[str, str]) -> None:
        self.notes = notes
        self._synchronize = synchronize
        self._started = 0.0

    def begin(self, name: str) -> None:
        self._synchronize()
        self._started = time.perf_counter()

    def end(self) -> Window:
        self._synchronize()
        return Window(time.perf_counter() - self._started, {}, {})

    def spent_j(self) -> float | None:
        return None


class ZeusMeter:
    """Reads counters through a `zeus.monitor.ZeusMonitor` or its replay.

    `components` are those the monitor can read. Zeus' own clock is the wall clock, which can be
    set while we measure, so time is taken from the monotonic one.
    """

    def __init__(
        self,
        monitor: Any,
        components: Sequence[str],
        synchronize: Callable[[], None],
        notes: Mapping[str, str],
    ) -> None:
        self.sources: Mapping[str, Source] = dict.fromkeys(components, "measured")
        self.method = f"Zeus {metadata.version('zeus')}"
        self.notes = notes
        self._monitor = monitor
        self._synchronize = synchronize
        self._started = 0.0
        self._name = ""
        self._part = 0
        self._joules: dict[tuple[str, int], float] = {}  # by component and its device's index
        self._missing: dict[str, str] = {}

    def begin(self, name: str) -> None:
        self._synchronize()
        self._name, self._part = name, 0
        self._joules, self._missing = {}, {}
        self._open(name)
        self._started = time.perf_counter()

    def end(self) -> Window:
        self._synchronize()
        elapsed = time.perf_counter() - self._started
        self._close(self._key(self._part))
        for (component, _), joules in self._joules.items():
            if joules <= 0:
                self._missing.setdefault(
                    component, f"counter did not advance over {elapsed:.3g} s ({joules:g} J)"
                )
        read = {component for component, _ in self._joules}
        for component in self.sources:
            if component not in read:
                self._missing.setdefault(component, "no reading")
        return Window(elapsed, self._totals(), dict(self._missing))

    def spent_j(self) -> float | None:
        """Splits the window in two and adds up the parts.

        The next part is opened before this one is closed, so that nothing falls between them; a
        tick of the counter within those microseconds counts twice.
        """
        following = self._part + 1
        self._open(self._key(following))
        self._close(self._key(self._part))
        self._part = following
        totals = self._totals()
        return sum(totals.values()) if totals.keys() == self.sources.keys() else None

    def _key(self, part: int) -> str:
        return self._name if part == 0 else f"{self._name}+{part}"

    def _totals(self) -> dict[str, float]:
        totals: dict[str, float] = {}
        for (component, _), joules in self._joules.items():
            if component not in self._missing:
                totals[component] = totals.get(component, 0.0) + joules
        return totals

    def _open(self, key: str) -> None:
        self._try(lambda: self._monitor.begin_window(key, sync_execution=False, restart=True))

    def _close(self, key: str) -> None:
        read = self._try(lambda: self._monitor.end_window(key, sync_execution=False))
        for (component, index), joules in (_readings(read) if read is not None else {}).items():
            if component not in self.sources:
                continue
            if joules is None or not math.isfinite(joules) or joules < 0:
                self._missing.setdefault(component, f"counter gave {joules} J")
                continue
            place = (component, index)
            self._joules[place] = self._joules.get(place, 0.0) + joules

    def _try(self, call: Callable[[], Any]) -> Any:
        """A sensor may vanish at any time: keep why, for every component, and go on training."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of a zero reading, which `end` handles
                return call()
        except Exception as error:  # Zeus lets through the errors of drivers, files and its own
            for component in self.sources:
                self._missing.setdefault(component, _one_line(error))
            return None


def _readings(measurement: Any) -> dict[tuple[str, int], float | None]:
    """Joules by component and device of a `zeus.monitor.Measurement`, whose fields these are.

    `total_energy` is not among them: it is the GPUs' alone. An SoC's own total, or else its parts
    that do not overlap, are one component.
    """
    joules: dict[tuple[str, int], float | None] = {}
    for component, by_device in (
        ("gpu", measurement.gpu_energy),
        ("cpu", measurement.cpu_energy),
        ("dram", measurement.dram_energy),
    ):
        for index, value in (by_device or {}).items():
            joules[component, index] = value
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


class EstimateMeter:
    """Estimates CPU and memory power with CodeCarbon's offline model of a machine without sensors.

    The CPU takes its design power scaled with the load of the whole machine, sampled every second;
    memory takes a constant power by its size. Off by 40 % and more, hence marked everywhere.
    """

    def __init__(self, synchronize: Callable[[], None]) -> None:
        with _codecarbon_quiet():
            from codecarbon.core.cpu import TDP
            from codecarbon.core.util import count_physical_cpus
            from codecarbon.external.hardware import CPU
            from codecarbon.external.ram import RAM

            tdp = TDP()
            full_w = None if tdp.tdp is None else tdp.tdp * count_physical_cpus()
            self._cpu = CPU.from_utils(".", "cpu_load", tdp.model, full_w)
            self._dram_w = float(RAM().total_power().W)
        self.sources: Mapping[str, Source] = {"cpu": "estimated", "dram": "estimated"}
        self.method = (
            f"CodeCarbon {metadata.version('codecarbon')} model: CPU {tdp.model}, "
            f"{self._cpu._tdp:g} W at full load; memory {self._dram_w:g} W"
        )
        self.notes: Mapping[str, str] = {}
        self._synchronize = synchronize
        self._joules: dict[str, float] = {}
        self._started = self._read = 0.0
        self._stop = threading.Event()
        self._sampler: threading.Thread | None = None

    def begin(self, name: str) -> None:
        self._synchronize()
        self._halt()
        self._joules = {"cpu": 0.0, "dram": 0.0}
        self._cpu.start()
        self._stop = threading.Event()
        self._sampler = threading.Thread(target=self._sample, args=(self._stop,), daemon=True)
        self._sampler.start()
        self._started = self._read = time.perf_counter()

    def end(self) -> Window:
        self._synchronize()
        self._add()
        self._halt()
        return Window(self._read - self._started, dict(self._joules), {})

    def spent_j(self) -> float | None:
        self._add()
        return sum(self._joules.values())

    def _sample(self, stop: threading.Event) -> None:
        while not stop.wait(_ESTIMATE_EVERY_S):
            self._cpu.monitor_power()

    def _add(self) -> None:
        """Count the time since the last reading at the mean power of its samples."""
        now = time.perf_counter()
        self._joules["cpu"] += self._cpu.total_power().W * (now - self._read)
        self._joules["dram"] += self._dram_w * (now - self._read)
        self._read = now

    def _halt(self) -> None:
        self._stop.set()
        if self._sampler is not None:
            self._sampler.join()
            self._sampler = None


@contextlib.contextmanager
def _codecarbon_quiet() -> Iterator[None]:
    """Hold back what CodeCarbon prints about hardware that is not here; `method` says the rest."""
    logger = logging.getLogger("codecarbon")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)


def open_meter(
    energy: str,
    accelerator: str,
    gpu_uuids: Sequence[str],
    synchronize: Callable[[], None],
) -> Meter:
    """The meter for work on `accelerator` (`cuda`, `mps`, `cpu`).

    `gpu_uuids` are the GPUs used, as NVML names them; `synchronize` waits for their work.
    `energy` is RunSpec's: `measured` raises `WrongUse` where what does the work has no sensor;
    `auto` then estimates a CPU machine and leaves the energy of a GPU out, with the reason, since
    no offline model knows it; `estimated` estimates even where there are sensors.
    """
    if energy == "off":
        return NoMeter(synchronize, {})
    if energy == "estimated":
        if accelerator != "cpu":
            raise WrongUse(
                f"energy: estimated knows CPU and memory only and the work runs on {accelerator}; "
                "use measured, auto or off, or device=cpu"
            )
        return EstimateMeter(synchronize)
    monitor, components, notes = _zeus(gpu_uuids)
    needed = {"cuda": "gpu", "mps": "soc"}.get(accelerator)
    complete = needed in components if needed else bool(components)
    if complete or "soc" in components:
        return ZeusMeter(monitor, components, synchronize, notes)
    why = "; ".join(f"{component}: {note}" for component, note in notes.items())
    if energy == "measured":
        raise WrongUse(
            f"energy: measured is not possible here, no sensor of the {needed or 'cpu'} ({why}); "
            "use auto, estimated or off, or see https://ml.energy/zeus/getting_started for access"
        )
    if needed:
        return NoMeter(synchronize, notes)
    return EstimateMeter(synchronize)


def _zeus(gpu_uuids: Sequence[str]) -> tuple[Any, tuple[str, ...], dict[str, str]]:
    """A monitor of these GPUs and of the CPU packages, what it reads, and why not the rest."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from zeus.monitor import ZeusMonitor

        notes: dict[str, str] = {}
        gpus: list[int] = []
        try:
            gpus = [_zeus_index(uuid) for uuid in gpu_uuids]
        except Exception as error:  # NVML's or Zeus' own, or of CUDA_VISIBLE_DEVICES by UUID
            notes["gpu"] = _one_line(error)
        packages, has_dram, notes["cpu"] = _packages()
        try:
            monitor = ZeusMonitor(gpu_indices=gpus, cpu_indices=packages)
        except Exception as error:  # a counter that vanished since
            return None, (), {**notes, "zeus": _one_line(error)}
    if monitor.soc_is_present:  # its counters hold the CPU's and the GPU's already
        return monitor, ("soc",), {}
    read = {"gpu": bool(gpus), "cpu": bool(packages), "dram": has_dram}
    if packages:
        del notes["cpu"]
        if not has_dram:
            notes["dram"] = "RAPL has no memory zone on this CPU"
    return monitor, tuple(c for c in COMPONENTS if read.get(c)), notes


def _packages() -> tuple[list[int], bool, str]:
    """Positions of the CPU packages among Zeus' RAPL zones, whether all have a memory zone, and
    why there is none.

    Zeus lists every top zone, also `psys`, which holds the packages a second time.
    """
    from zeus.device import get_cpus

    try:
        cpus = get_cpus()
        found = []
        for i, cpu in enumerate(cpus.cpus):
            folder = Path(getattr(cpu, "path", f"/sys/class/powercap/intel-rapl:{cpu.cpu_index}"))
            if (folder / "name").read_text().startswith("package"):
                cpus.get_total_energy_consumption(i)
                found.append(i)
    except Exception as error:  # Zeus lets through the errors of files and permissions
        return [], False, _one_line(error)
    if not found:
        return [], False, "RAPL has no package zone"
    return found, all(cpus.supports_get_dram_energy_consumption(i) for i in found), ""


def _zeus_index(uuid: str) -> int:
    """Zeus' index of the GPU that NVML calls `uuid`.

    CUDA numbers GPUs by speed unless told otherwise and Zeus by PCI bus, so that the same number
    can name two GPUs.
    """
    import pynvml
    from zeus.device import get_gpus

    gpus = get_gpus()
    for i, gpu in enumerate(gpus.gpus):
        if pynvml.nvmlDeviceGetUUID(gpu.handle) == uuid:
            gpus.get_instant_power_usage(i)
            return i
    raise LookupError(f"Zeus does not see {uuid}")


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]


def idle_tags(meter: Meter, required: bool) -> dict[str, str]:
    """The power of waiting for a few seconds, before the work starts.

    Raises `WrongUse` when measuring is `required` and a sensor gives nothing.
    """
    if not meter.sources:
        return {}
    meter.begin("idle")
    time.sleep(IDLE_S)
    window = meter.end()
    if window.missing:
        why = "; ".join(f"{component}: {reason}" for component, reason in window.missing.items())
        if required:
            raise WrongUse(
                f"energy: measured is not possible here, a sensor gives nothing ({why}); use "
                "auto, estimated or off",
                reason="no_sensor",
            )
        return {}
    return {"pepr.idle_power_w": f"{sum(window.joules.values()) / window.time_s:.4g}"}


def source_tags(meter: Meter) -> dict[str, str]:
    """How the energy is known."""
    tags = {"pepr.energy_source": overall(meter.sources), "pepr.energy_method": meter.method}
    if meter.sources:
        tags["pepr.energy_components"] = ",".join(f"{c}={s}" for c, s in meter.sources.items())
    return tags
