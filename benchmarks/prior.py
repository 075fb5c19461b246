"""Make what a frugal search knows of other data sets, from the PePR paper's measurements.

    python benchmarks/prior.py --data DIR

It has 131 models on four data sets of three families, with 10 epochs; `derma` was trained from
scratch, the others were fine-tuned.
"""

from __future__ import annotations

import json
from pathlib import Path

import click
import pandas as pd
from frugal import EPOCHS, PAPER

from pepr_mlops.sweep.prior import Earlier, as_json

FAMILIES = {"derma_pt": "derma"}  # the others are their own
FROM_SCRATCH = ("derma",)
RECIPE = {"epochs": "10", "image_size": "256", "batch_size": "32", "lr": "0.0005"}
COSTS = {"energy": "energy_wh", "train_time": "train_time_s", "memR": "memory_gb"}
SOURCE = (
    "R. Selvan et al., PePR: Performance Per Resource Unit as a Metric to Promote Small-scale Deep "
    "Learning in Medical Image Analysis (NLDL 2025), all_results.csv of its repository: 131 timm "
    "models, 10 epochs, one seed; P is test accuracy"
)


@click.command()
@click.option("--data", type=click.Path(path_type=Path), required=True, help="of all_results.csv")
@click.option("--out", type=click.Path(path_type=Path))
def main(data: Path, out: Path | None) -> None:
    found = earlier(pd.read_csv(data / "all_results.csv"))
    content = {"source": SOURCE, "made_by": "benchmarks/prior.py", "data_sets": as_json(found)}
    text = json.dumps(content, separators=(",", ":")) + "\n"
    if out is None:
        click.echo(text, nl=False)
    else:
        out.write_text(text)


def earlier(runs: pd.DataFrame) -> list[Earlier]:
    found = []
    for name in PAPER:
        of = runs[runs["dataset"] == name].set_index("model").sort_index()
        costs = of[list(COSTS)].rename(columns=COSTS)
        recipe = RECIPE | {"pretrained": str(name not in FROM_SCRATCH).lower()}
        found.append(Earlier.of(FAMILIES.get(name, name), name, recipe, of[EPOCHS], costs))
    return found


if __name__ == "__main__":
    main()
