"""Does starting from ImageNet weights pay? One model with them and from scratch, over seeds.

python benchmarks/pretrained.py --data-root DIR --weights tf_efficientnet_lite0.safetensors
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import click
from common import machine, write

from pepr_mlops import RunSpec, run
from pepr_mlops.train.progress import Printed

_METRICS = (
    "test/accuracy",
    "test/balanced_accuracy",
    "test/auc",
    "best_val/accuracy",
    "best_val/auc",
    "energy/train_wh",
    "time/train_s",
)


@click.command()
@click.option("--model", default="tf_efficientnet_lite0")
@click.option("--dataset", default="pneumonia")
@click.option("--data-root", help="folder of the MedMNIST file")
@click.option("--weights", help="file of the pretrained weights; timm's hub if none")
@click.option("--size", default=28)
@click.option("--image-size", default=64)
@click.option("--epochs", default=10)
@click.option("--seeds", default=3, help="how many, from 0")
@click.option("--precision", default="fp32")
@click.option("--out", type=click.Path(path_type=Path))
def main(seeds: int, out: Path | None, **fields: Any) -> None:
    arms: dict[str, dict[str, list[float | None]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(seeds):
            for arm, start in (
                ("pretrained", {"pretrained": True}),
                ("scratch", {"pretrained": False, "weights": None}),
            ):
                spec = RunSpec(
                    **{**fields, **start},
                    seed=seed,
                    channels="rgb",
                    intensities="pretrained",
                    layout="channels_last",
                )
                outcome = run(spec, tracking_uri=f"sqlite:///{folder}/runs.db", progress=Printed)
                measured = arms.setdefault(arm, {name: [] for name in _METRICS})
                for name in _METRICS:
                    measured[name].append(outcome.result.metrics.get(name))
    write(
        {
            **machine(),
            "energy_source": outcome.energy_source,
            "spec": {**fields, "weights": Path(fields["weights"] or "hub").name, "data_root": None},
            "seeds": list(range(seeds)),
            "runs": arms,
            "mean": {arm: _over(measured, mean) for arm, measured in arms.items()},
            "standard_deviation": {arm: _over(measured, stdev) for arm, measured in arms.items()},
        },
        out,
    )


def _over(measured: dict[str, list[float | None]], statistic: Any) -> dict[str, float | None]:
    """The statistic over the seeds; None where a seed has no value."""
    return {
        name: None if None in values or len(values) < 2 else statistic(values)
        for name, values in measured.items()
    }


if __name__ == "__main__":
    main()
