"""How long do the draws of a large comparison set take, for each metric as P?

    python benchmarks/draws.py --out benchmarks/results/draws.json

131 models with five seeds each predicted the same 3,000 images of two classes; P of each draw is
that of 3,000 images drawn with replacement.
"""

from __future__ import annotations

import time
from pathlib import Path

import click
import numpy as np
import pandas as pd
from common import machine, write

from pepr_mlops.comparison.draws import Errors, Sample, draw
from pepr_mlops.comparison.metrics import METRICS, Predicted, value

MODELS, SEEDS, IMAGES, DRAWS = 131, 5, 3000, 2000
SORTED = ("average_precision", "sensitivity_at_90_specificity")  # of ten runs, since they are slow


def seconds(metric: str, runs: int) -> float:
    """The time of the draws of `runs` runs."""
    rng = np.random.default_rng(0)
    labels, clusters = rng.integers(0, 2, IMAGES), np.arange(IMAGES)
    samples, values = {}, []
    for run in range(runs):
        chance = 1 / (1 + np.exp(-(rng.standard_normal(IMAGES) + 2 * labels - 1)))
        both = np.column_stack([1 - chance, chance])
        predicted = Predicted(labels, both, "binary-class", np.array([0.5]))
        weighted = METRICS[metric](predicted)
        assert weighted is not None
        samples[str(run)] = Sample(weighted, clusters, "test")
        values.append(value(metric, predicted))
    table = pd.DataFrame({"run_id": list(samples), "performance": values, "energy_wh": 1.0})
    table = table.assign(model=np.arange(runs) // SEEDS, energy="measured", machine="")
    table = table.assign(images=np.nan, doubt="")
    start = time.perf_counter()
    models = pd.RangeIndex(table["model"].nunique())
    draw(table, models, samples, ["energy_wh"], Errors(), draws=DRAWS)
    return time.perf_counter() - start


@click.command()
@click.option("--out", type=click.Path(path_type=Path))
def main(out: Path | None) -> None:
    design = {"models": MODELS, "seeds": SEEDS, "images": IMAGES, "draws": DRAWS}
    rows = []
    for metric in METRICS:
        if metric == "ece":  # has no interval
            continue
        runs = 10 if metric in SORTED else MODELS * SEEDS
        rows.append({"metric": metric, "runs": runs, "s": round(seconds(metric, runs), 2)})
    write({**machine(), **design, "rows": rows}, out)


if __name__ == "__main__":
    main()
