"""Does a GPU's energy counter agree with its power reading, how fast does it train, and what does
measuring cost there?

    python benchmarks/gpu.py

- energy: windows of training as Zeus reads them off the counter, against the power that another
  process reads from NVML meanwhile, summed over time. Both are of one sensor, so that this shows
  consistency, not accuracy: on A100 and H100 the power reading samples only a quarter of the time
  (arXiv:2312.02741). Windows are of 60 s and more, in which such gaps average out better;
- speed: images/s and J/image at batch 32 of the loop as the paper ran it (torch's defaults, a
  DataLoader without workers, `.item()` at every step) and of `pepr train`'s own loop in several
  settings, kernel by kernel and as CUDA graphs, compiled and not;
- watching: what a budget in Wh, which reads the counter during an epoch, does to the speed.

The images are random, of DermaMNIST's shape; what is in them does not matter to speed.
"""

from __future__ import annotations

import json
import multiprocessing
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

import click
import numpy as np
import pynvml
import torch
from common import machine, write
from torch.utils.flop_counter import FlopCounterMode

from pepr_mlops.costs.device import Device
from pepr_mlops.costs.meters import open_meter
from pepr_mlops.costs.meters.meter import Meter
from pepr_mlops.costs.recorder import Recorder
from pepr_mlops.data.splits import Split, Splits
from pepr_mlops.errors import Paused
from pepr_mlops.spec import RunSpec
from pepr_mlops.train import loop, models, trainer
from pepr_mlops.train.progress import Silent

CLASSES = 7
# Model, pixels, and images of an epoch.
SHAPES = (
    ("resnet18d", 224, 2048),
    ("mobilenetv2_050", 64, 4096),
    ("resnet18d", 64, 4096),
    ("resnet50", 224, 2048),
    ("mobilenetv2_050", 224, 2048),
)
BF16: dict[str, Any] = {"precision": "bf16", "layout": "channels_last"}
GRAPH: dict[str, Any] = {"launch": "graph"}
PAPERS = "paper's loop"
ARMS: dict[str, dict[str, Any]] = {
    "fp32 (default)": {},
    "bf16 channels_last": BF16,
    "fp32 graph": GRAPH,
    "tf32 graph": {"precision": "tf32"} | GRAPH,
    "bf16 channels_last graph": BF16 | GRAPH,
    "bf16 graph": {"precision": "bf16"} | GRAPH,
    "tf32": {"precision": "tf32"},
}
COMPILED: dict[str, dict[str, Any]] = {
    "bf16 channels_last graph compiled": BF16 | GRAPH | {"compile": True},
    "bf16 channels_last compiled": BF16 | {"compile": True},
}


class Bench:
    def __init__(self, device: torch.device, seconds: float, count: int) -> None:
        self.device, self.seconds, self.count = device, seconds, count
        self.meter: Meter = _meter(device)
        self.images: dict[tuple[int, int], Splits] = {}

    def splits(self, pixels: int) -> Splits:
        key = (pixels, self.count)
        if key not in self.images:
            self.images[key] = _splits(*key)
        return self.images[key]

    def network(self, spec: RunSpec) -> torch.nn.Module:
        return models.build(
            spec.model, classes=CLASSES, channels=3, image_size=spec.image_size, pretrained=False
        )

    def ours(self, spec: RunSpec, seconds: float | None = None) -> dict[str, float]:
        """The package's loop: epochs until they took `seconds`, the first left out."""
        seconds = seconds or self.seconds
        torch._dynamo.reset()
        trainer.open_device(spec, self.device)
        trainer.prepare(spec, self.device)
        recorder = Recorder(Device(self.device), self.meter, None, 1.0)
        points: list[Mapping[str, float]] = []

        def enough(epoch: int, metrics: Mapping[str, float]) -> bool:
            return metrics["time/train_s"] - points[0]["time/train_s"] >= seconds

        with suppress(Paused):
            loop.fit(
                spec,
                self.splits(spec.image_size),
                self.network(spec),
                recorder,
                lambda metrics, epoch: points.append(dict(metrics)),
                Silent(spec, ""),
                time.perf_counter(),
                pause=enough,
            )
        first, last = points[0], points[-1]
        images = len(self.splits(spec.image_size).train) * (len(points) - 1)
        return _rates(
            images,
            last["time/train_s"] - first["time/train_s"],
            _difference(first, last, "energy/train_wh", 3600),
        ) | {"first_epoch_s": first["time/train_s"]}

    def papers(self, model: str, pixels: int) -> dict[str, float]:
        """A loop as the paper ran it, for `seconds` after some steps to warm up."""
        from torchvision.transforms.functional import to_tensor

        for operations, usual in (
            (torch.backends, "none"),
            (torch.backends.cuda.matmul, "none"),
            (torch.backends.cudnn.conv, "tf32"),  # torch's default
            (torch.backends.cudnn.rnn, "tf32"),
        ):
            operations.fp32_precision = usual
        torch.use_deterministic_algorithms(False)
        part = self.splits(pixels).train

        class Images(torch.utils.data.Dataset):  # type: ignore[type-arg]
            def __len__(self) -> int:
                return len(part)

            def __getitem__(self, i: int) -> Any:
                return to_tensor(part.images[i]), part.labels[i]

        loader = torch.utils.data.DataLoader(Images(), batch_size=32, shuffle=True)
        network = self.network(RunSpec(model=model, image_size=pixels)).to(self.device)
        optimiser = torch.optim.Adam(network.parameters(), lr=5e-4)
        criterion = torch.nn.CrossEntropyLoss()
        network.train()
        images = steps = 0
        total, started, taken_s, joules = 0.0, 0.0, 0.0, None
        while not taken_s:
            for x, y in loader:
                if steps == 10:
                    self.meter.begin("train")
                    started, images = time.perf_counter(), 0
                x, y = x.to(self.device), y.to(self.device)
                optimiser.zero_grad()
                loss = criterion(network(x), y)
                loss.backward()
                optimiser.step()
                total += loss.item()
                images += len(x)
                steps += 1
                if steps > 10 and time.perf_counter() - started >= self.seconds:
                    window = self.meter.end()
                    taken_s, joules = window.time_s, window.joules.get("gpu")
                    break
        return _rates(images, taken_s, joules)

    # What is measured ----------------------------------------------------------------------------

    def speed(self, limit_s: float, keep: Callable[[Any], None]) -> list[dict[str, Any]]:
        """Every arm of every shape; what takes long last, and not begun after `limit_s`."""
        rows: list[dict[str, Any]] = [
            {"model": model, "image_size": pixels, "arms": {}} for model, pixels, _ in SHAPES
        ]
        plan = [(shape, name) for shape in range(len(SHAPES)) for name in (PAPERS, *ARMS)]
        plan += [(shape, name) for name in COMPILED for shape in (3, 1)]
        for shape, name in plan:
            if time.perf_counter() - STARTED > limit_s:
                break
            model, pixels, self.count = SHAPES[shape]
            row = rows[shape]
            spec = _spec(model, pixels, (ARMS | COMPILED).get(name, {}))

            def arm(spec: RunSpec = spec, name: str = name) -> dict[str, float]:
                return (
                    self.papers(spec.model, spec.image_size) if name == PAPERS else self.ours(spec)
                )

            row["arms"][name] = _tried(arm)
            if "train_gflop_per_image" not in row:
                row["train_gflop_per_image"] = self.flops(_spec(model, pixels, {})) / 1e9
            _compare(row)
            _say(f"{model} {pixels}: {name}: {row['arms'][name]}")
            keep(rows)
        return rows

    def flops(self, spec: RunSpec) -> float:
        """Floating-point operations to train on one image; a multiply-add counts as two."""
        network = self.network(spec).to(self.device)
        x = torch.zeros(2, 3, spec.image_size, spec.image_size, device=self.device)
        with FlopCounterMode(display=False) as counter:
            network(x).sum().backward()
        return counter.get_total_flops() / 2

    def peak(self) -> dict[str, float]:
        """TFLOP/s of the product of two large random matrices."""
        n = 8192
        found = {}
        for name, dtype, precision in (
            ("bf16", torch.bfloat16, "ieee"),
            ("tf32", torch.float32, "tf32"),
            ("fp32", torch.float32, "ieee"),
        ):
            torch.backends.cuda.matmul.fp32_precision = precision
            a, b = (torch.randn(n, n, device=self.device, dtype=dtype) for _ in range(2))
            took = []
            for _ in range(8):
                start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
                start.record()
                a @ b
                end.record()
                torch.cuda.synchronize()
                took.append(start.elapsed_time(end) / 1000)
            found[name] = 2 * n**3 / median(took[3:]) / 1e12
        return found

    def idle(self) -> dict[str, float]:
        """Watts off the counter while nothing runs: before this process uses the GPU, and after."""
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByUUID(Device(self.device).gpu_names[0])

        def watts(seconds: float) -> float:
            before, started = _counter(handle), time.monotonic()
            time.sleep(seconds)
            return (_counter(handle) - before) / (time.monotonic() - started)

        found = {"nvidia_smi_w": _nvidia_smi_w(), "before_cuda_w": watts(4)}
        torch.zeros(1, device=self.device)
        found |= {"first_3_s_of_cuda_w": watts(3), "next_5_s_w": watts(5)}
        return found | {"nvidia_smi_of_cuda_w": _nvidia_smi_w()}

    def energy(self, seconds: float) -> dict[str, Any]:
        """Training windows against the integral of the power read by another process."""
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        uuid = Device(self.device).gpu_names[0]
        sampler = context.Process(target=_sample, args=(theirs, uuid))
        sampler.start()
        ours.recv()
        windows = []
        for name, spec in (
            (
                "resnet50 224 px bf16",
                RunSpec(model="resnet50", image_size=224, pretrained=False, epochs=1000, **BF16),
            ),
            (
                "resnet18d 64 px fp32",
                RunSpec(model="resnet18d", image_size=64, pretrained=False, epochs=1000),
            ),
        ):
            single, spied = _Spied(self.meter), _Spied(_meter(self.device))
            bench = Bench(self.device, seconds, self.count)
            bench.meter = spied
            single.begin("train")
            bench.ours(spec)
            single.end()
            windows.append((f"{name}, one window", single.windows))
            windows.append((f"{name}, epoch by epoch", spied.windows))
        ours.send("stop")
        samples = ours.recv()
        sampler.join()
        times = np.array(samples["t"])
        found = []
        for name, spans in windows:
            row: dict[str, Any] = {"work": name, "windows": len(spans)}
            row["seconds"] = sum(to - since for since, to, _ in spans)
            row["zeus_j"] = sum(joules for *_, joules in spans)
            row["zeus_w"] = row["zeus_j"] / row["seconds"]
            for kind in ("average", "instant"):
                watts = np.array(samples[kind], dtype=float)
                known = np.isfinite(watts)
                if known.any():
                    integral = sum(
                        _integral(times[known], watts[known], since, to) for since, to, _ in spans
                    )
                    row[f"{kind}_power_j"] = integral
                    row[f"ratio_to_{kind}"] = row["zeus_j"] / integral
            found.append(row)
            _say(str(row))
        return {
            "samples_per_s": (len(times) - 1) / (times[-1] - times[0]),
            "counter_moves_every_s": samples["tick_s"],
            "rows": found,
        }

    def watching(self, pairs: int) -> dict[str, Any]:
        """The loop with a budget in Wh that is never reached, against without."""
        one = {"model": "resnet18d", "image_size": 64, "pretrained": False, "epochs": 1000}
        rates: dict[str, list[float]] = {"off": [], "on": []}
        for pair in range(pairs):
            for arm in ("on", "off") if pair % 2 else ("off", "on"):
                watched = {"budget_wh": 1e6} if arm == "on" else {}
                found = self.ours(RunSpec(**one, **watched), 2.0)
                rates[arm].append(found["images_per_s"])
        self.meter.begin("train")
        took = []
        for _ in range(50):
            started = time.perf_counter()
            self.meter.spent_j()
            took.append(time.perf_counter() - started)
        self.meter.end()
        return {
            "images_per_s": rates,
            "ratio": median(a / b for a, b in zip(rates["on"], rates["off"], strict=True)),
            "reading_ms": median(took) * 1000,
        }


class _Spied:
    """A meter that remembers when its windows of training were, and their joules."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self.sources, self.method, self.notes = meter.sources, meter.method, meter.notes
        self.windows: list[tuple[float, float, float]] = []
        self._begun, self._name = 0.0, ""

    def begin(self, name: str) -> None:
        self._meter.begin(name)
        self._begun, self._name = time.monotonic(), name

    def end(self) -> Any:
        window = self._meter.end()
        if self._name == "train":
            self.windows.append((self._begun, time.monotonic(), window.joules.get("gpu", 0.0)))
        return window

    def spent_j(self) -> float | None:
        return self._meter.spent_j()

    def elapsed_s(self) -> float:
        return float(self._meter.elapsed_s())


def _sample(theirs: Connection, uuid: str) -> None:
    """Power every 10 ms until it is stopped; first, how often the energy counter moves."""
    pynvml.nvmlInit()
    handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
    moved = []
    before, until = pynvml.nvmlDeviceGetTotalEnergyConsumption(handle), time.monotonic() + 3
    while time.monotonic() < until:
        now = pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
        if now != before:
            moved.append(time.monotonic())
            before = now
        time.sleep(0.001)
    samples: dict[str, Any] = {"t": [], "average": [], "instant": []}
    samples["tick_s"] = median(np.diff(moved).tolist()) if len(moved) > 2 else None
    theirs.send("ready")
    while not theirs.poll(0.008):
        samples["t"].append(time.monotonic())
        samples["average"].append(pynvml.nvmlDeviceGetPowerUsage(handle) / 1000)
        samples["instant"].append(_instant_w(handle))
    theirs.send(samples)


def _counter(handle: Any) -> float:
    """Joules the GPU has taken so far, as the driver counts."""
    return float(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1000


def _nvidia_smi_w() -> float:
    words = [
        "nvidia-smi",
        "--query-gpu=power.draw.instant",
        "--format=csv,noheader,nounits",
        "-i=0",
    ]
    return float(subprocess.run(words, capture_output=True, text=True, check=True).stdout)


def _instant_w(handle: Any) -> float:
    (field,) = pynvml.nvmlDeviceGetFieldValues(handle, [pynvml.NVML_FI_DEV_POWER_INSTANT])
    return float("nan") if field.nvmlReturn else field.value.uiVal / 1000


def _meter(device: torch.device) -> Meter:
    return open_meter("auto", Device(device))


def _spec(model: str, pixels: int, fields: Mapping[str, Any]) -> RunSpec:
    return RunSpec(model=model, image_size=pixels, epochs=1000, pretrained=False, **fields)


def _compare(row: dict[str, Any]) -> None:
    """How the arms stand to the paper's loop, and the rate of arithmetic of each."""
    base = row["arms"][PAPERS]
    for of in row["arms"].values():
        for name in ("images_per_s", "j_per_image"):
            if name in of and name in base:
                of[f"{name}_over_papers"] = of[name] / base[name]
        if "images_per_s" in of:
            of["tflop_per_s"] = of["images_per_s"] * row["train_gflop_per_image"] / 1000


def _integral(times: Any, watts: Any, since: float, to: float) -> float:
    """Joules between two moments, the power being linear between samples."""
    inside = (times > since) & (times < to)
    t = np.concatenate([[since], times[inside], [to]])
    return float(np.trapezoid(np.interp(t, times, watts), t))


def _splits(pixels: int, n: int) -> Splits:
    rng = np.random.default_rng(0)

    def part(count: int) -> Split:
        images = rng.integers(0, 256, (count, pixels, pixels, 3), dtype=np.uint8)
        return Split(images, rng.integers(0, CLASSES, count))

    names = tuple(map(str, range(CLASSES)))
    return Splits("random", "random", "multi-class", names, 3, part(n), part(64), part(64))


def _difference(
    first: Mapping[str, float], last: Mapping[str, float], name: str, unit: float
) -> float | None:
    return (last[name] - first[name]) * unit if name in last else None


def _rates(images: int, seconds: float, joules: float | None) -> dict[str, float]:
    rates = {"images_per_s": images / seconds, "seconds": seconds}
    if joules is not None:
        rates |= {"j_per_image": joules / images, "watts": joules / seconds}
    return rates


def _tried(arm: Callable[[], dict[str, float]]) -> dict[str, Any]:
    try:
        return dict(arm())
    except Exception as error:
        traceback.print_exc()
        return {"error": f"{type(error).__name__}: {error}"[:400]}


def _say(text: str) -> None:
    print(f"{time.perf_counter() - STARTED:5.0f} s: {text}", file=sys.stderr, flush=True)


STARTED = time.perf_counter()


@click.command()
@click.option("--parts", default="energy,watching,speed")
@click.option("--seconds", default=3.0, help="of each measurement of speed")
@click.option("--energy-seconds", default=60.0, help="of training, at least, for each comparison")
@click.option("--device", default="cuda", help="cpu: only to try the script")
@click.option("--limit", default=1e9, help="begin no measurement of speed after so many seconds")
@click.option("--out", type=click.Path(path_type=Path))
def main(
    parts: str, seconds: float, energy_seconds: float, device: str, limit: float, out: Path | None
) -> None:
    bench = Bench(Device.resolve(device).torch_device, seconds, 4096)
    result: dict[str, Any] = {**machine(), "energy_source": bench.meter.method}

    def keep(**found: Any) -> None:
        result.update(found)
        if out is not None:  # what there is, should the time run out
            out.with_suffix(".part").write_text(json.dumps(result, indent=1))

    if "energy" in parts:
        keep(idle=bench.idle())
        keep(energy=bench.energy(energy_seconds))
    if "watching" in parts:
        keep(watching=_tried(lambda: bench.watching(2)))
    if "speed" in parts:
        if bench.device.type == "cuda":
            keep(matrix_product_tflop_per_s=bench.peak())
        keep(speed=bench.speed(limit, lambda rows: keep(speed=rows)))
    write(result, out)


if __name__ == "__main__":
    main()
