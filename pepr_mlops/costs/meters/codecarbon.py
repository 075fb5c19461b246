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

from pepr_mlops.costs.meters.sockets import design_power_w, virtual_per_core
from pepr_mlops.costs.meters.stopwatch import Timed
from pepr_mlops.costs.totals import Window
from pepr_mlops.errors import one_line
from pepr_mlops.names import Source
from pepr_mlops.process import allowed_memory, uninterrupted

_EVERY_S = 1.0
_IDLING = 0.1  # of its design power, as CodeCarbon has it


class EstimateMeter(Timed):
    """Estimates CPU and memory power with CodeCarbon's offline model of a machine without sensors.

    The CPU takes its design power times 0.1 + 0.9 load³, the load being the whole machine's,
    sampled every second; memory takes a constant power by the size that this process may use. Off
    by 40 % and more, hence marked everywhere, and mostly the same whatever is computed. `why` says
    why nothing is measured. Raises `LookupError` where the model does not apply.
    """

    def __init__(self, synchronize: Callable[[], None], why: str) -> None:
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
            except Exception as error:  # CodeCarbon asks Slurm for it, which may not be there
                raise LookupError(f"memory size unknown: {one_line(error)}") from error
            if tdp.tdp is None or self._dram_w <= 0:
                raise LookupError("CodeCarbon knows neither this CPU nor this memory")
            # CodeCarbon's own guess for a CPU it does not know is of all threads already.
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
        constant_w = self._dram_w + _IDLING * full_w
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
        self.notes: Mapping[str, str] = {}
        self._synchronize = synchronize
        self._joules: dict[str, float] = {}
        self._read_s, self._sampled = 0.0, (0.0, 0.0)  # the clock at the last sample, and elapsed_s
        self._looking = threading.Lock()
        self._halted = threading.Event()
        self._sampler: threading.Thread | None = None

    def begin(self, name: str) -> None:
        self._synchronize()
        self._halt()
        self._joules = {"cpu": 0.0, "dram": 0.0}
        self._cpu.start()
        self._start()
        self._read_s, self._sampled = 0.0, (time.perf_counter(), 0.0)
        self._halted = threading.Event()
        self._sampler = threading.Thread(target=self._sample, args=(self._halted,), daemon=True)
        with uninterrupted():
            self._sampler.start()

    def end(self) -> Window:
        self._synchronize()
        self._halt()
        time_s, paused_s = self._stop()
        self._add(time_s)
        return Window(time_s, dict(self._joules), {}, paused_s)

    def spent_j(self) -> float | None:
        self._add(self.elapsed_s())
        return sum(self._joules.values())

    def _sample(self, halted: threading.Event) -> None:
        while not halted.wait(_EVERY_S):
            self._look(self.elapsed_s())

    def _look(self, elapsed_s: float) -> None:
        """Sample the load. A sample of a time in which the process stood still says nothing of its
        own load; it is dropped where there are others."""
        with uninterrupted(), self._looking:
            now_s = time.perf_counter()
            clock_s, counted_s = now_s - self._sampled[0], elapsed_s - self._sampled[1]
            self._sampled = now_s, elapsed_s
            self._cpu.monitor_power()
            samples = self._cpu._power_history
            if clock_s - counted_s > _EVERY_S / 2 and len(samples) > 1:
                samples.pop()

    def _add(self, elapsed_s: float) -> None:
        """Count the time since the last reading at the mean power of its samples."""
        self._look(elapsed_s)
        since_s = elapsed_s - self._read_s
        self._joules["cpu"] += self._cpu.total_power().W * since_s
        self._joules["dram"] += self._dram_w * since_s
        self._read_s = elapsed_s

    def _halt(self) -> None:
        with uninterrupted():  # a signal amid it would leave the event's lock held
            self._halted.set()
            if self._sampler is not None:
                self._sampler.join()
                self._sampler = None


def cpu_name() -> Callable[[], object]:
    """The call with which CodeCarbon learns this CPU's name, from another process in a second.

    It remembers the answer, so that an `EstimateMeter` made after the call has it at once.
    """
    with _codecarbon_quiet():
        import cpuinfo  # noqa: F401  # by the call, which may be of another thread
        from codecarbon.core.util import detect_cpu_model
    return detect_cpu_model


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
