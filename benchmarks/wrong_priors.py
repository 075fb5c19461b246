"""What does a prior that is wrong cost a search?

    python benchmarks/wrong_priors.py --data DIR

Searches for the best by PePR-E, replayed over the measurements of the PePR paper as `within.py`
does. Each has the prior of the other families, none, or a wrong one: its centre moved by 0.2 of P,
its costs given to other models, its variance 25 times as large or as small.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd
from common import machine, write
from frugal import PAPER
from within import case, with_noise

from pepr_mlops.sweep.observed import Objective
from pepr_mlops.sweep.prior import Prior
from pepr_mlops.sweep.replay import replay

ALPHAS = (1.0, 5.0, 20.0)


@click.command()
@click.option("--data", type=click.Path(path_type=Path), required=True, help="of all_results.csv")
@click.option("--seeds", default=3, help="of the noise")
@click.option("--out", type=click.Path(path_type=Path))
def main(data: Path, seeds: int, out: Path | None) -> None:
    released, rows = pd.read_csv(data / "all_results.csv"), []
    for seed in (None, *range(seeds)):
        runs = with_noise(released, seed)
        for experiment in PAPER:
            curves, prior = case(runs, experiment, "E")
            for alpha in ALPHAS:
                for name, wrong in wrongly(prior):
                    found = replay(curves, Objective(top=1, alpha=alpha), wrong)
                    row = {"noise": seed is not None, "experiment": experiment, "seed": seed}
                    row |= {"alpha": alpha, "prior": name}
                    rows.append(row | {"spent": found.spent, "regret": found.regret})
    write({**machine(), "means": means(pd.DataFrame(rows))}, out)


def wrongly(prior: Prior) -> Iterator[tuple[str, Prior | None]]:
    """The prior, none, and wrong ones, each with its name."""
    gain, costs = prior.gain, prior.costs
    yield "as made", prior
    yield "none", None
    for name, centre, scatter in (
        ("centre 0.2 higher", 0.2, 1),
        ("centre 0.2 lower", -0.2, 1),
        ("variance times 25", 0, 5),
        ("variance over 25", 0, 1 / 5),
    ):
        wrong = gain.assign(centre=gain["centre"] + centre, scatter=gain["scatter"] * scatter)
        yield name, replace(prior, gain=wrong)
    shuffled = np.random.default_rng(0).permutation(costs.to_numpy())
    yield "costs shuffled", replace(prior, costs=pd.DataFrame(shuffled, costs.index, costs.columns))


def means(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """Over the families, and how often as much as without a prior a search spends."""
    keys = ["noise", "prior", "alpha"]
    family = rows["experiment"].str.partition("_")[0].rename("family")
    table = rows.groupby([*keys, family], sort=False)[["spent", "regret"]].mean()
    table = table.groupby(level=keys, sort=False).mean()
    table["of_none"] = (
        table["spent"]
        / table["spent"]
        .xs("none", level="prior")
        .reindex(table.index.droplevel("prior"))
        .to_numpy()
    )
    found: list[dict[str, Any]] = table.round(4).reset_index().to_dict("records")
    return found


if __name__ == "__main__":
    main()
