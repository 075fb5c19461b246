"""How fast is `pepr train` against a plain training loop, evaluation and logging included?

    python benchmarks/train.py

The plain loop is that of the paper: torch's fp32, contiguous layout, a `DataLoader` without workers
and a `.item()` at every step. Each arm is a process of its own with the same model, batch, seed and
images, and they take turns: one trains an epoch while the others are stopped by a signal, so that a
machine that slows down meanwhile weighs on all. The first epoch of each is left out.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median, stdev
from typing import IO, Any

import click
import numpy as np
from common import machine, write


@dataclass(frozen=True)
class Case:
    """A model at a size in pixels, on so many images to train on, validate and test."""

    model: str
    pixels: int
    images: tuple[int, int, int]
    epochs: int


# Validation and test together are 43% of the images trained on, as in DermaMNIST. A GPU has more
# of them, the same ones several times.
_SPEED = {
    "cpu": (
        Case("resnet18d", 64, (512, 73, 146), 6),
        Case("mobilenetv2_050", 64, (1024, 146, 293), 8),
        Case("resnet18d", 224, (128, 18, 37), 5),
    ),
    "cuda": (
        Case("resnet18d", 64, (6144, 876, 1752), 6),
        Case("mobilenetv2_050", 64, (6144, 876, 1752), 6),
        Case("resnet18d", 224, (3072, 438, 876), 6),
    ),
}
_LEARNING = Case("mobilenetv2_050", 64, (1024, 146, 293), 8)
_ARMS = {
    "fp32": ["--layout", "auto", "--launch", "auto"],
    "auto": ["--precision", "auto", "--layout", "auto", "--launch", "auto"],
}


@click.command()
@click.option("--seeds", default=3, help="trainings of each arm that are compared by accuracy")
@click.option("--only", default="", help="MODEL:PIXELS or learning, with commas between")
@click.option("--out", type=click.Path(path_type=Path))
@click.option("--plain", hidden=True, help="what the process of the plain loop trains")
def main(seeds: int, only: str, out: Path | None, plain: str | None) -> None:
    if plain is not None:
        _plain_loop(**json.loads(plain))
        return
    head = machine()
    cases = {
        f"{case.model}:{case.pixels}": case for case in _SPEED[head["device"].partition(":")[0]]
    }
    chosen_cases = only.split(",") if only else [*cases, "learning"]
    found: dict[str, Any] = {**head, "threads": len(os.sched_getaffinity(0))}
    with tempfile.TemporaryDirectory() as folder:
        found["speed"] = [_speed(cases[n], Path(folder)) for n in chosen_cases if n != "learning"]
        if "learning" in chosen_cases:
            found["learning"] = _learning(_LEARNING, seeds, Path(folder))
    write(found, out)


def _speed(case: Case, folder: Path) -> dict[str, Any]:
    """Images/s of each arm, epoch by epoch in turns, and against the plain loop."""
    images = _images(case, folder)
    arms = {"plain": _plain(case, images, 0)}
    arms |= {name: _pepr(case, images, 0, options, folder) for name, options in _ARMS.items()}
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    chosen: dict[str, str] = {}
    with _stopped(arms) as running:
        for epoch in range(1, case.epochs + 1):
            for name in arms if epoch % 2 else reversed(arms):
                took_s = running[name].epoch()
                if epoch > 1:
                    seconds[name].append(took_s)
        for name in _ARMS:
            chosen[name] = running[name].printed(r": (\w+(?:, \w+)+) \(")
    ratios_of = {
        name: [a / b for a, b in zip(seconds["plain"], seconds[name], strict=True)]
        for name in _ARMS
    }
    found = {
        "model": case.model,
        "pixels": case.pixels,
        "images": case.images,
        "chosen": chosen,
        "images_per_s": {n: case.images[0] / median(times) for n, times in seconds.items()},
        "ratio": {name: median(ratios) for name, ratios in ratios_of.items()},
        "ratio_least_greatest": {name: [min(r), max(r)] for name, r in ratios_of.items()},
        "seconds": seconds,
    }
    click.echo(f"{case.model} {case.pixels}: {found['ratio']}", err=True)
    return found


def _learning(case: Case, seeds: int, folder: Path) -> dict[str, Any]:
    """Test accuracy after the last epoch of each arm, over seeds."""
    images = _images(case, folder)
    accuracy: dict[str, list[float]] = {"plain": [], **{name: [] for name in _ARMS}}
    for seed in range(seeds):
        arms = {"plain": _plain(case, images, seed)}
        arms |= {n: _pepr(case, images, seed, options, folder) for n, options in _ARMS.items()}
        for name, words in arms.items():
            done = subprocess.run(words, capture_output=True, text=True, check=True)
            match = re.search(r"test accuracy\s+([\d.]+)", done.stdout)
            assert match is not None, done.stdout
            accuracy[name].append(float(match[1]))
            click.echo(f"seed {seed}, {name}: {match[1]}", err=True)
    return {
        "model": case.model,
        "pixels": case.pixels,
        "images": case.images,
        "epochs": case.epochs,
        "test_accuracy": accuracy,
        "mean": {name: mean(values) for name, values in accuracy.items()},
        "standard_deviation": {name: stdev(values) for name, values in accuracy.items()},
    }


def _images(case: Case, folder: Path) -> Path:
    """Scikit-learn's digits at the size of the case, as one folder per split and class."""
    from PIL import Image
    from sklearn.datasets import load_digits

    root = folder / f"{case.model}_{case.pixels}"
    if root.exists():
        return root
    digits = load_digits()
    n = len(digits.target)
    order = np.random.default_rng(0).permutation(n)
    starts = np.cumsum((0, *case.images))
    for split, start, stop in zip(("train", "val", "test"), starts, starts[1:], strict=False):
        for i in range(start, stop):
            label, pixels = digits.target[order[i % n]], digits.images[order[i % n]]
            of_class = root / split / str(label)
            of_class.mkdir(parents=True, exist_ok=True)
            grey = Image.fromarray((pixels * 15.9).astype(np.uint8))
            grey.resize((case.pixels, case.pixels), Image.Resampling.BILINEAR).save(
                of_class / f"{i}.png", compress_level=1
            )
    return root


def _plain(case: Case, images: Path, seed: int) -> list[str]:
    of = {"model": case.model, "pixels": case.pixels, "epochs": case.epochs, "seed": seed}
    return [sys.executable, __file__, "--plain", json.dumps({**of, "images": str(images)})]


def _pepr(case: Case, images: Path, seed: int, options: list[str], folder: Path) -> list[str]:
    words = [sys.executable, "-m", "pepr_mlops", "train", "--dataset", str(images)]
    words += ["--model", case.model, "--image-size", str(case.pixels), "--no-pretrained"]
    words += ["--epochs", str(case.epochs), "--seed", str(seed)]
    # A store for each arm: one that is stopped may hold the lock of its own.
    store = f"sqlite:///{folder}/{case.model}_{case.pixels}_{'_'.join(options)}.db"
    return [*words, *options, "--tracking-uri", store]


class _Turns:
    """A training that runs for one epoch at a time and is stopped in between."""

    def __init__(self, words: list[str]) -> None:
        self._process = subprocess.Popen(
            words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        self._lines: list[str] = []

    def epoch(self) -> float:
        """Seconds to the end of the next epoch, what is logged of it included."""
        self._process.send_signal(signal.SIGCONT)
        started = time.perf_counter()
        errors: IO[str] | None = self._process.stderr
        assert errors is not None
        for line in errors:
            self._lines.append(line)
            if line.startswith("epoch "):
                took_s = time.perf_counter() - started
                self._process.send_signal(signal.SIGSTOP)
                return took_s
        raise AssertionError("".join(self._lines))

    def printed(self, pattern: str) -> str:
        found = re.search(pattern, "".join(self._lines))
        assert found is not None, self._lines
        return found[1]

    def end(self, *, well: bool) -> None:
        """Let it end, which it has to do by itself where all went `well`."""
        self._process.send_signal(signal.SIGCONT)
        if not well:
            self._process.kill()
        _, errors = self._process.communicate()
        assert not well or self._process.returncode == 0, errors


@contextmanager
def _stopped(arms: dict[str, list[str]]) -> Iterator[dict[str, _Turns]]:
    running: dict[str, _Turns] = {}
    try:
        for name, words in arms.items():
            running[name] = _Turns(words)
            running[name]._process.send_signal(signal.SIGSTOP)
        yield running
    except BaseException:
        for turns in running.values():
            turns.end(well=False)
        raise
    for turns in running.values():
        turns.end(well=True)


def _plain_loop(model: str, pixels: int, epochs: int, seed: int, images: str) -> None:
    """Training as people write it: the comparison."""
    import timm
    import torch
    from PIL import Image
    from torch.utils.data import DataLoader, Dataset

    class Folder(Dataset[tuple[torch.Tensor, int]]):
        """Images in memory, made floats one by one."""

        def __init__(self, root: Path) -> None:
            files = sorted(root.glob("*/*.png"))
            self.images = [np.array(Image.open(file)) for file in files]
            self.labels = [int(file.parent.name) for file in files]

        def __len__(self) -> int:
            return len(self.images)

        def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
            return torch.from_numpy(self.images[i]).unsqueeze(0).float() / 255, self.labels[i]

    torch.manual_seed(seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    splits = {name: Folder(Path(images) / name) for name in ("train", "val", "test")}
    loaders = {
        name: DataLoader(split, batch_size=32, shuffle=name == "train")
        for name, split in splits.items()
    }
    network = timm.create_model(model, pretrained=False, num_classes=10, in_chans=1).to(device)
    optimiser = torch.optim.Adam(network.parameters(), lr=5e-4)
    criterion = torch.nn.CrossEntropyLoss()
    accuracy = {}
    for epoch in range(1, epochs + 1):
        network.train()
        total = 0.0
        for x, y in loaders["train"]:
            x, y = x.to(device), y.to(device)
            optimiser.zero_grad()
            loss = criterion(network(x), y)
            loss.backward()
            optimiser.step()
            total += loss.item()
        network.eval()
        for name in ("val", "test"):
            right = 0
            with torch.no_grad():
                for x, y in loaders[name]:
                    x, y = x.to(device), y.to(device)
                    right += int((network(x).argmax(dim=1) == y).sum().item())
            accuracy[name] = right / len(splits[name])
        mean_loss = total / len(loaders["train"])
        print(f"epoch {epoch}/{epochs}: loss {mean_loss:.4f}", file=sys.stderr, flush=True)
    print(f"test accuracy    {accuracy['test']:.4f}")


if __name__ == "__main__":
    main()
