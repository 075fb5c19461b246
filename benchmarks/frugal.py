"""What does a search by PePR find, and for which share of the energy of training everything?

    python benchmarks/frugal.py --data DIR

Searches replayed over the measurements released with the PePR paper, 131 models in each
experiment; `rivals.rivals` says what is searched by.

The rule has no thresholds. Its form, how a curve is summed up, what an untrained model is taken for
and which models a prior is made from, was chosen with these curves at hand; the small-subset
experiments stand next to those of the paper. A prior is never from the data that is searched. Some
energies are the same in several experiments, so these are not independent.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click
import pandas as pd
from common import machine, write
from rivals import means, rivals

from pepr_mlops.sweep.observed import Objective
from pepr_mlops.sweep.replay import Curves
from pepr_mlops.sweep.search import read_prior

PAPER = ("derma", "derma_pt", "lidc", "pneumonia")
SMALL = ("derma_small", "derma_smallest", "lidc_small", "pneumonia_small")
COSTS = {"E": "energy", "T": "train_time", "M": "memR"}
ALPHAS = (1.0, 2.0, 5.0, 20.0)
EPOCHS = [f"test_{i:02d}" for i in range(10)]


@click.command()
@click.option("--data", type=click.Path(path_type=Path), required=True, help="of all_results.csv")
@click.option("--seeds", default=20, help="of what is random")
@click.option("--out", type=click.Path(path_type=Path))
def main(data: Path, seeds: int, out: Path | None) -> None:
    runs = pd.read_csv(data / "all_results.csv")
    started = time.perf_counter()
    cells = [
        *((e, "E", alpha, 1) for alpha in (*ALPHAS, 100.0) for e in PAPER),
        *((e, cost, alpha, 5) for cost in COSTS for alpha in ALPHAS for e in PAPER),
        *((e, cost, 1.0, 5) for cost in COSTS for e in SMALL),
    ]
    rows = [row for cell in cells for row in _cell(runs, *cell, seeds)]
    write(
        {
            **machine(),
            "seeds": seeds,
            "replay_s": time.perf_counter() - started,
            "means": _means(pd.DataFrame(rows)),
            "rows": rows,
        },
        out,
    )


def curves(runs: pd.DataFrame, experiment: str, cost: str) -> Curves:
    """The models of one experiment of the paper; spending is energy whatever the cost."""
    of = runs[runs["dataset"] == experiment].set_index("model")
    return Curves(of[EPOCHS], of[COSTS[cost]], of["energy"])


def _cell(
    runs: pd.DataFrame, experiment: str, cost: str, alpha: float, top: int, seeds: int
) -> list[dict[str, Any]]:
    # No search knows another experiment on its own data.
    prior = read_prior("shipped", [experiment.partition("_")[0]], cost, "energy_wh")
    objective = Objective(top, alpha=alpha)
    found = means(rivals(curves(runs, experiment, cost), objective, seeds, prior))
    cell = {"experiment": experiment, "cost": cost, "alpha": alpha, "top": top}
    rows: list[dict[str, Any]] = found.round(4).reset_index().to_dict("records")
    return [cell | row for row in rows]


_FIGURES = ("best", "hits", "spent", "regret")


def _means(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """Over the experiments of the paper and over the small ones: the means, and the extremes."""
    subset = rows["experiment"].isin(SMALL).map({True: "small", False: "paper"})
    keys = [subset.rename("experiments"), "cost", "alpha", "top", "strategy"]
    # Each family counts once: derma and derma_pt are one.
    family = rows["experiment"].str.partition("_")[0].rename("family")
    table = rows.groupby([*keys, family], sort=False)[list(_FIGURES)].mean()
    table = table.groupby(level=["experiments", *keys[1:]], sort=False).mean()
    by = rows.groupby(keys, sort=False)
    table["least_hits"], table["most_spent"] = by["hits"].min(), by["spent"].max()
    found: list[dict[str, Any]] = table.round(4).reset_index().to_dict("records")
    return found


if __name__ == "__main__":
    main()
