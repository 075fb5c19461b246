"""Energy and time of blocks of work.

The energy is read from counters by Zeus, estimated by CodeCarbon's model where a machine has none,
or not known. What could not be read has no value and a reason; it is never zero.
"""

from __future__ import annotations

import time

from pepr_mlops.costs.device import Device
from pepr_mlops.costs.meters.codecarbon import EstimateMeter
from pepr_mlops.costs.meters.meter import Meter
from pepr_mlops.costs.meters.zeus import ZeusMeter, find_sensors
from pepr_mlops.errors import WrongUse

IDLE_S = 3.0
_IDLE_ESTIMATED_S = 0.5  # the model takes the cube of the load, which is next to nothing


def open_meter(energy: str, device: Device, *, host: bool = True) -> Meter:
    """The meter for work on `device`; `energy` is RunSpec's.

    `measured` raises `WrongUse` where the device has no sensor; `auto` then estimates a CPU
    machine, but leaves out the energy of a GPU with the reason, since no offline model has it.
    `estimated` estimates even where there are sensors. Without `host` CPU and memory are not read,
    since other runs use them too.
    """
    if energy == "off":
        return Meter(device.synchronize, {})
    if energy == "estimated":
        if device.kind != "cpu":
            raise WrongUse(
                "energy: estimated works for CPU and memory only, not for "
                f"{device.kind}; use measured, auto or off, or device=cpu"
            )
        try:
            return EstimateMeter(device.synchronize, "energy=estimated was requested")
        except LookupError as error:
            raise WrongUse(f"energy: estimated is not possible here ({error}); use off") from error
    monitor, components, notes = find_sensors(device.gpu_names, host)
    needed = {"cuda": "gpu", "mps": "soc"}.get(device.kind)
    complete = needed in components if needed else bool(components)
    if complete or "soc" in components:
        return ZeusMeter(monitor, components, device.synchronize, notes)
    why = "; ".join(f"{component}: {note}" for component, note in notes.items())
    if energy == "measured":
        raise WrongUse(
            f"energy: measured is not possible here, no sensor for the {needed or 'cpu'} ({why}); "
            "use auto, estimated or off, or see https://ml.energy/zeus/getting_started for access"
        )
    if needed:
        return Meter(device.synchronize, notes)
    try:
        return EstimateMeter(device.synchronize, why)
    except LookupError as error:
        return Meter(device.synchronize, {"cpu": f"{why}; no estimate: {error}"})


def idle_tags(meter: Meter, required: bool) -> dict[str, str]:
    """The power in W while nothing runs, over 3 s if measured and 0.5 s if estimated.

    Raises `WrongUse` when measuring is `required` and a sensor returns nothing.
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
                f"energy: measured is not possible here, a sensor returns nothing ({why}); use "
                "auto, estimated or off",
                reason="no_sensor",
            )
        return {}
    counted_s = window.time_s + (window.paused_s if measured else 0.0)
    return {"pepr.idle_power_w": f"{sum(window.joules.values()) / counted_s:.4g}"}
