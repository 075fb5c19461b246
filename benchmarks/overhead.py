"""What do measuring and logging cost? Training with everything on against everything off.

    python benchmarks/overhead.py --pairs 10

Both arms train the same network on the same images; the order within a pair alternates, and the
ratio is taken pair by pair, so that a machine that slows down meanwhile weighs on both. Logging
goes to an MLflow server on this machine. The CPU time of the process is given with the time,
since other work on the machine weighs less on it.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median

import click
import numpy as np
from common import machine, server, write

from pepr_mlops import data, tracking
from pepr_mlops.costs.carbon import Intensity
from pepr_mlops.costs.device import Device
from pepr_mlops.costs.meters import open_meter
from pepr_mlops.costs.meters.meter import Meter
from pepr_mlops.costs.recorder import Recorder
from pepr_mlops.costs.totals import overall
from pepr_mlops.spec import RunSpec
from pepr_mlops.train import loop, models, trainer
from pepr_mlops.train.progress import Printed, Silent


@click.command()
@click.option("--pairs", default=10)
@click.option("--epochs", default=2)
@click.option("--image-size", default=64)
@click.option("--model", default="resnet18d")
@click.option("--out", type=click.Path(path_type=Path))
def main(pairs: int, epochs: int, image_size: int, model: str, out: Path | None) -> None:
    spec = RunSpec(
        model=model, dataset="digits", image_size=image_size, epochs=epochs, pretrained=False
    )
    splits = data.load(spec)
    seconds: dict[str, list[float]] = {"on": [], "off": []}
    cpu_s: dict[str, list[float]] = {"on": [], "off": []}
    logged_s: list[float] = []
    with (
        tempfile.TemporaryDirectory() as folder,
        server(Path(folder)) as address,
        tracking.start(None, "overhead", "overhead", address) as run,
    ):
        _train(spec, splits, None, [])  # warm up
        for pair in range(pairs):
            for arm in ("on", "off") if pair % 2 else ("off", "on"):
                took = _train(spec, splits, run if arm == "on" else None, logged_s)
                seconds[arm].append(took[0])
                cpu_s[arm].append(took[1])
    device = Device.resolve("auto")
    write(
        {
            **machine(),
            "model": model,
            "image_size": image_size,
            "epochs": epochs,
            "pairs": pairs,
            "energy_source": overall(open_meter("auto", device).sources),
            "off_s": median(seconds["off"]),
            "on_s": median(seconds["on"]),
            "ratio": _ratio(seconds),
            "cpu_ratio": _ratio(cpu_s),
            "logging_s_per_epoch": median(logged_s),
            "logging_s_greatest": max(logged_s),
            "windows_s_per_epoch": 2
            * median(_window_s(open_meter("auto", device)) for _ in range(50)),
            "seconds": seconds,
            "cpu_s": cpu_s,
        },
        out,
    )


def _ratio(seconds: Mapping[str, list[float]]) -> dict[str, float]:
    """The median over the pairs of on by off, with its 95% interval by bootstrap."""
    ratios = np.array(seconds["on"]) / np.array(seconds["off"])
    draws = np.random.default_rng(0).choice(ratios, (10_000, len(ratios)))
    low, high = np.quantile(np.median(draws, axis=1), [0.025, 0.975])
    return {"median": float(np.median(ratios)), "low": float(low), "high": float(high)}


def _window_s(meter: Meter) -> float:
    """Seconds to open and close a window with nothing in it; an epoch has two."""
    started = time.perf_counter()
    meter.begin("empty")
    meter.end()
    return time.perf_counter() - started


def _train(
    spec: RunSpec, splits: data.Splits, run: tracking.Run | None, logged_s: list[float]
) -> tuple[float, float]:
    """Seconds of one training with evaluation, measured and logged to `run` or neither, and of
    this process's CPUs."""
    device = Device.resolve("auto")
    trainer.open_device(spec, device.torch_device)
    trainer.prepare(spec, device.torch_device)
    network = models.build(
        spec.model,
        classes=len(splits.classes),
        channels=splits.channels,
        image_size=spec.image_size,
        pretrained=False,
    )
    meter = open_meter("off" if run is None else "auto", device)

    def record(metrics: Mapping[str, float], epoch: int) -> None:
        if run is not None:
            started = time.perf_counter()
            run.log(metrics, epoch)
            logged_s.append(time.perf_counter() - started)

    shown = Silent(spec, "") if run is None else Printed(spec, overall(meter.sources))
    intensity = None if run is None else Intensity(100.0, "given")
    recorder = Recorder(device, meter, intensity, spec.pue)
    started, started_cpu = time.perf_counter(), time.process_time()
    loop.fit(spec, splits, network, recorder, record, shown, started)
    return time.perf_counter() - started, time.process_time() - started_cpu


if __name__ == "__main__":
    main()
