"""Energy and time of blocks of work, each with where it comes from.

One interface over three ways to know the energy: counters read by Zeus, an estimate of a machine
without counters by CodeCarbon's model, and nothing. What could not be read has no value and a
reason; it is never zero.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from pepr_mlops.costs.meters.codecarbon import EstimateMeter, cpu_name
from pepr_mlops.costs.meters.stopwatch import Timed
from pepr_mlops.costs.meters.zeus import ZeusMeter, find_sensors
from pepr_mlops.costs.totals import Window, overall
from pepr_mlops.errors import WrongUse
from pepr_mlops.names import Source

IDLE_S = 3.0
_IDLE_ESTIMATED_S = 0.5  # by the cube of the load, of which little matters


class Meter(Protocol):
    """Measures one block at a time.

    `sources` names the components that count towards energy and how each is known, `method` says
    how in words, `notes` why other components are not read; `details` are tags of its own.
    """

    sources: Mapping[str, Source]
    method: str
    notes: Mapping[str, str]
    details: Mapping[str, str]

    def begin(self, name: str) -> None:
        """Open the window `name` once the device has finished the work given to it."""

    def end(self) -> Window:
        """Close it once the device has finished the work given to it."""

    def spent_j(self) -> float | None:
        """Joules of all components since `begin`, or None if not known. Does not wait."""

    def elapsed_s(self) -> float:
        """Seconds since `begin` in which this process was not stopped; waits for a second at most
        where it may just have been resumed."""


class NoMeter(Timed):
    """Time only."""

    sources: Mapping[str, Source] = {}
    method = "none"

    def __init__(self, synchronize: Callable[[], None], notes: Mapping[str, str]) -> None:
        self.notes = notes
        self._synchronize = synchronize

    def begin(self, name: str) -> None:
        self._synchronize()
        self._start()

    def end(self) -> Window:
        self._synchronize()
        time_s, paused_s = self._stop()
        return Window(time_s, {}, {}, paused_s)

    def spent_j(self) -> float | None:
        return None


def open_meter(
    energy: str,
    accelerator: str,
    gpu_uuids: Sequence[str],
    synchronize: Callable[[], None],
    *,
    host: bool = True,
) -> Meter:
    """The meter for work on `accelerator` (`cuda`, `mps`, `cpu`).

    `gpu_uuids` are the GPUs used, as NVML names them; `synchronize` waits for their work.
    `energy` is RunSpec's: `measured` raises `WrongUse` where what does the work has no sensor;
    `auto` then estimates a CPU machine and leaves the energy of a GPU out, with the reason, since
    no offline model knows it; `estimated` estimates even where there are sensors. Without `host`
    CPU and memory are not read, since others work on them too.
    """
    if energy == "off":
        return NoMeter(synchronize, {})
    if energy == "estimated":
        if accelerator != "cpu":
            raise WrongUse(
                f"energy: estimated knows CPU and memory only and the work runs on {accelerator}; "
                "use measured, auto or off, or device=cpu"
            )
        return _estimate(synchronize, "as asked", required=True)
    monitor, components, notes = find_sensors(gpu_uuids, host)
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
    return _estimate(synchronize, why, required=False)


def prefetch(energy: str) -> list[Callable[[], object]]:
    """What can be done in a thread for `open_meter` of a machine without GPUs to take less time."""
    return [cpu_name()] if energy in ("auto", "estimated") else []


def _estimate(synchronize: Callable[[], None], why: str, required: bool) -> Meter:
    try:
        return EstimateMeter(synchronize, why)
    except LookupError as error:
        if required:
            raise WrongUse(f"energy: estimated is not possible here ({error}); use off") from error
        return NoMeter(synchronize, {"cpu": f"{why}; no estimate: {error}"})


def idle_tags(meter: Meter, required: bool) -> dict[str, str]:
    """The power of waiting for a few seconds, less where it is estimated, before the work starts.

    Raises `WrongUse` when measuring is `required` and a sensor gives nothing.
    """
    if not meter.sources:
        return {}
    meter.begin("idle")
    measured = "measured" in meter.sources.values()
    time.sleep(IDLE_S if measured else min(IDLE_S, _IDLE_ESTIMATED_S))
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
    counted_s = window.time_s + (window.paused_s if measured else 0.0)
    return {"pepr.idle_power_w": f"{sum(window.joules.values()) / counted_s:.4g}"}


def source_tags(meter: Meter) -> dict[str, str]:
    """How the energy is known."""
    source = {"pepr.energy_source": overall(meter.sources), "pepr.energy_method": meter.method}
    tags = {**source, **meter.details}
    if meter.sources:
        tags["pepr.energy_components"] = ",".join(f"{c}={s}" for c, s in meter.sources.items())
    return tags
