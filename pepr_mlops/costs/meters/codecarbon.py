"""Energy of a CPU machine without sensors, by CodeCarbon's model."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata

from pepr_mlops.costs.meters.meter import Meter
from pepr_mlops.costs.meters.sockets import design_power_w, virtual_per_core
from pepr_mlops.errors import one_line
from pepr_mlops.names import Source
from pepr_mlops.process import allowed_memory, uninterrupted

_EVERY_S = 1.0
_IDLE_SHARE = 0.1  # of its design power, in CodeCarbon's model


class EstimateMeter(Meter):
    """Estimates CPU and memory power with CodeCarbon's offline model of a machine without sensors.

    The CPU takes its design power times 0.1 + 0.9 load³, where the load is that of all CPUs of the
    machine, sampled every second; memory takes a constant power, by the size that this process may
    use. Such estimates were off by up to 40% in a published comparison (arXiv:2509.22092); nothing
    bounds the error on this machine. Most of the estimate is the same whatever is computed. It is
    marked everywhere. `why` says why nothing is measured. Raises `LookupError` where the model does
    not apply.
    """

    def __init__(self, synchronize: Callable[[], None], why: str) -> None:
        super().__init__(synchronize, {})
        with _codecarbon_quiet():
            from codecarbon.core.cpu import DEFAULT_POWER_PER_CORE, TDP
            from codecarbon.core.util import count_cpus, count_physical_cpus
            from codecarbon.external.hardware import B_TO_GB, CPU
            from codecarbon.external.ram import RAM

            class AllowedRAM(RAM):
                @property
                def machine_memory_GB(self) -> float:  # noqa: N802  # CodeCarbon's name
                    return float(min(super().machine_memory_GB, allowed_memory() / B_TO_GB))

            tdp = TDP()
            try:
                memory = AllowedRAM()
                self._dram_w = float(memory.total_power().W)
                size_gb = memory.machine_memory_GB * B_TO_GB / 1e9
            except Exception as error:  # CodeCarbon asks Slurm for it, which may be absent
                raise LookupError(f"memory size unknown: {one_line(error)}") from error
            if tdp.tdp is None or self._dram_w <= 0:
                raise LookupError("CodeCarbon has no power for this CPU or this memory")
            # CodeCarbon's guess for an unknown CPU covers all threads already.
            guessed = tdp.tdp == DEFAULT_POWER_PER_CORE * count_cpus()
            full_w, about = float(tdp.tdp), "unknown CPU, 4 W a thread"
            if not guessed:
                full_w, about = design_power_w(
                    tdp.model,
                    full_w,
                    count_physical_cpus(),
                    os.cpu_count() or 1,
                    virtual_per_core(),
                )
            self._cpu = CPU.from_utils(".", "cpu_load", tdp.model, full_w)  # type: ignore[arg-type]
        self.sources: Mapping[str, Source] = {"cpu": "estimated", "dram": "estimated"}
        constant_w = self._dram_w + _IDLE_SHARE * full_w
        self.method = (
            f"CodeCarbon {metadata.version('codecarbon')} model: CPU {tdp.model}, {full_w:.3g} W "
            f"at full load{f' ({about})' if about else ''}; memory {self._dram_w:g} W "
            f"({size_gb:.3g} GB); {constant_w:.3g} W of these whatever the load"
            f"{'; not measured: ' + why if why else ''}"
        )
        self.details = {
            "pepr.energy_model": f"cpu {full_w:.3g} W, dram {self._dram_w:g} W",
            "pepr.energy_constant_w": f"{constant_w:.4g}",
        }
        self._joules: dict[str, float] = {}
        self._read_s, self._sampled = 0.0, (0.0, 0.0)  # the clock at the last sample, and elapsed_s
        self._sampling = threading.Lock()
        self._halted = threading.Event()
        self._sampler: threading.Thread | None = None

    def begin(self, name: str) -> None:
        self._halt()
        super().begin(name)
        self._read_s, self._sampled = 0.0, (time.perf_counter(), 0.0)
        self._halted = threading.Event()
        self._sampler = threading.Thread(target=self._sample, args=(self._halted,), daemon=True)
        with uninterrupted():
            self._sampler.start()

    def _open(self, name: str) -> None:
        self._joules = {"cpu": 0.0, "dram": 0.0}
        self._cpu.start()

    def _stop(self) -> tuple[float, float]:
        self._halt()
        return super()._stop()

    def _close(self, time_s: float, paused_s: float) -> tuple[dict[str, float], dict[str, str]]:
        self._add(time_s)
        return dict(self._joules), {}

    def spent_j(self) -> float | None:
        self._add(self.elapsed_s())
        return sum(self._joules.values())

    def _sample(self, halted: threading.Event) -> None:
        while not halted.wait(_EVERY_S):
            self._sample_load(self.elapsed_s())

    def _sample_load(self, elapsed_s: float) -> None:
        """Sample the load. While the process was stopped the load was not its own: such a sample is
        dropped if there are others."""
        with uninterrupted(), self._sampling:
            now_s = time.perf_counter()
            clock_s, counted_s = now_s - self._sampled[0], elapsed_s - self._sampled[1]
            self._sampled = now_s, elapsed_s
            self._cpu.monitor_power()
            samples = self._cpu._power_history
            if clock_s - counted_s > _EVERY_S / 2 and len(samples) > 1:
                samples.pop()

    def _add(self, elapsed_s: float) -> None:
        """Count the time since the last reading at the mean power of its samples."""
        self._sample_load(elapsed_s)
        since_s = elapsed_s - self._read_s
        self._joules["cpu"] += self._cpu.total_power().W * since_s
        self._joules["dram"] += self._dram_w * since_s
        self._read_s = elapsed_s

    def _halt(self) -> None:
        with uninterrupted():  # a signal in between would leave the event's lock held
            self._halted.set()
            if self._sampler is not None:
                self._sampler.join()
                self._sampler = None


def prefetch(energy: str) -> list[Callable[[], object]]:
    """Calls for other threads after which `open_meter` takes less time on a machine without GPUs.

    CodeCarbon reads the CPU's name in another process, which takes a second, and caches it.
    """
    if energy not in ("auto", "estimated"):
        return []
    with _codecarbon_quiet():
        import cpuinfo  # noqa: F401  # needed by the call, which may be in another thread
        from codecarbon.core.util import detect_cpu_model
    return [detect_cpu_model]


@contextlib.contextmanager
def _codecarbon_quiet() -> Iterator[None]:
    """Hold back what CodeCarbon prints about absent hardware; `method` has the rest."""
    logger = logging.getLogger("codecarbon")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)
