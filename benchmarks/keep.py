"""What does keeping weights cost a training? Runs that keep none, the last, and both.

    python benchmarks/keep.py --data-root DIR

Each round trains the same network on the same images once with each setting, in an order that
rotates and reverses from round to round, so that a machine that slows down meanwhile weighs on all.
Energy, time and memory are those that the run logs; the wall time is that of the complete run with
its weights on an MLflow server on this machine. Differences to `none` are taken round by round, in
per cent, with the 95% interval of their mean by Student's t.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import click
import numpy as np
from common import machine, server, write
from scipy.stats import t as student

from pepr_mlops import RunSpec, run
from pepr_mlops.train.progress import Silent

ARMS = ("none", "last", "both")


@click.command()
@click.option("--pairs", default=10)
@click.option("--epochs", default=2)
@click.option("--image-size", default=64)
@click.option("--model", default="resnet18d")
@click.option("--dataset", default="pneumonia")
@click.option("--size", default=28)
@click.option("--fraction", default=1.0)
@click.option("--data-root", required=True, help="folder of the MedMNIST file")
@click.option("--out", type=click.Path(path_type=Path))
def main(pairs: int, out: Path | None, **settings: object) -> None:
    spec = {**settings, "pretrained": False}
    found: dict[str, dict[str, list[float]]] = {arm: {} for arm in ARMS}
    with tempfile.TemporaryDirectory() as folder, server(Path(folder)) as address:
        _train(spec, "none", address)  # warm up
        for number in range(pairs):
            turned = [*ARMS[number % 3 :], *ARMS[: number % 3]]
            for arm in turned if number % 2 else turned[::-1]:
                for name, value in _train(spec, arm, address).items():
                    found[arm].setdefault(name, []).append(value)
    write(
        {
            **machine(),
            **{name: value for name, value in settings.items() if name != "data_root"},
            "pairs": pairs,
            "per_cent_more_than_none": {
                arm: {
                    name: _difference(found[arm][name], found["none"][name]) for name in found[arm]
                }
                for arm in ARMS[1:]
            },
            "measured": found,
        },
        out,
    )


def _train(spec: dict[str, object], keep: str, address: str) -> dict[str, float]:
    """What one run logs of its cost, and its wall time in s."""
    started = time.perf_counter()
    outcome = run(
        RunSpec(**spec, keep=keep),  # type: ignore[arg-type]
        tracking_uri=address,
        progress=Silent,
    )
    wall_s = time.perf_counter() - started
    metrics = outcome.result.metrics
    names = ("energy/train_wh", "energy/eval_wh", "time/train_s", "time/eval_s")
    costs = {name: metrics[name] for name in (*names, outcome.memory_metric) if name in metrics}
    return {**costs, "wall_s": wall_s}


def _difference(these: list[float], those: list[float]) -> dict[str, float]:
    """The mean of the differences in per cent, with its 95% interval."""
    more = 100 * (np.array(these) / np.array(those) - 1)
    half = student.ppf(0.975, len(more) - 1) * more.std(ddof=1) / np.sqrt(len(more))
    mean = float(more.mean())
    return {"mean": mean, "low": mean - float(half), "high": mean + float(half)}


if __name__ == "__main__":
    main()
