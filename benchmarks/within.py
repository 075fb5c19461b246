"""Is the model that a search calls good enough so, and do its chances hold?

    python benchmarks/within.py --data DIR

Searches replayed over the measurements of the PePR paper, as released and with noise added (P of
every epoch with a standard deviation of 0.01, costs of 5%), each experiment with the prior of the
other families:

- `budgets`: the cheapest model within 0.01 of the best, and the best by PePR, with a share of the
  energy of training all; the search with and without its prior, and its rivals at equal budget.
- `certificates`: until the answer holds with a probability; how often it is right.
- `settings`: PePR with a random cost, α, normalisation, top and subset of models.

Three families of data and single seeds: what holds here may not hold elsewhere.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd
from common import machine, write
from frugal import COSTS, EPOCHS, PAPER
from prior import FAMILIES, earlier
from rivals import halving, hyperband, in_order

from pepr_mlops.errors import WrongUse
from pepr_mlops.names import RESOURCES
from pepr_mlops.sweep.observed import Objective
from pepr_mlops.sweep.prior import Prior, prior_of
from pepr_mlops.sweep.replay import Curves, Found, replay

BUDGETS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2)
PROBABILITIES = (0.5, 0.8, 0.95)
WITHIN, PEPR = Objective(top=1, within=0.01), Objective(top=1)


@click.command()
@click.option("--data", type=click.Path(path_type=Path), required=True, help="of all_results.csv")
@click.option("--seeds", default=5, help="of the noise")
@click.option("--settings", default=200, help="random settings")
@click.option("--out", type=click.Path(path_type=Path))
def main(data: Path, seeds: int, settings: int, out: Path | None) -> None:
    released, started = pd.read_csv(data / "all_results.csv"), time.perf_counter()
    models = pd.read_csv(data / "model_names.csv").set_index("model")["num_param"]
    budgets: list[dict[str, Any]] = []
    certificates: list[dict[str, Any]] = []
    for seed in (None, *range(seeds)):
        runs = with_noise(released, seed)
        for experiment in PAPER:
            cell = {"noise": seed is not None, "experiment": experiment, "seed": seed}
            curves, prior = case(runs, experiment, "E")
            rows = _budgets(curves, prior, models.reindex(curves.cost.index), seed or 0)
            budgets += [cell | row for row in rows]
            certificates += [cell | row for row in _certificates(curves, prior)]
    rows = list(_settings(released, settings))
    write(
        {
            **machine(),
            "seeds": seeds,
            "replay_s": time.perf_counter() - started,
            "budgets": _means(budgets, ["noise", "objective", "budget", "strategy"]),
            "certificates": _means(certificates, ["noise", "objective", "alpha", "certify"]),
            "settings": _shares(pd.DataFrame(rows)),
        },
        out,
    )


def with_noise(runs: pd.DataFrame, seed: int | None) -> pd.DataFrame:
    """The four complete experiments, with the noise of this seed."""
    found = runs[runs["dataset"].isin(PAPER)].sort_values(["dataset", "model"]).copy()
    if seed is not None:
        rng = np.random.default_rng(seed)
        noise = rng.normal(0, 0.01, (len(found), len(EPOCHS)))
        found[EPOCHS] = np.clip(found[EPOCHS] + noise, 0, 1)
        for column in COSTS.values():
            found[column] *= np.exp(rng.normal(0, 0.05, len(found)))
    return found


def case(runs: pd.DataFrame, experiment: str, cost: str) -> tuple[Curves, Prior | None]:
    """The curves of an experiment and the prior from the other families."""
    own = runs[runs["dataset"] == experiment].set_index("model")
    family = FAMILIES.get(experiment, experiment)
    prior = prior_of(earlier(runs), [family], RESOURCES[cost].column, "energy_wh")
    return Curves(own[EPOCHS], own[COSTS[cost]], own["energy"]), prior


def _budgets(
    curves: Curves, prior: Prior | None, sizes: pd.Series[float], seed: int
) -> Iterator[dict[str, Any]]:
    cheapest = np.argsort(curves.cost.to_numpy(), kind="stable")
    smallest = np.argsort(sizes.to_numpy(), kind="stable")
    mixed = np.random.default_rng(seed).permutation(len(curves.cost))
    for objective, name in ((WITHIN, "within 0.01"), (PEPR, "PePR-E")):
        for budget in BUDGETS:
            limited = replace(objective, budget_share=budget)
            found = {
                "frugal": _searched(curves, limited, prior),
                "no_prior": _searched(curves, limited, None),
                "cheapest": in_order(curves, objective, budget, cheapest),
                "fewest_parameters": in_order(curves, objective, budget, smallest),
                "random": in_order(curves, objective, budget, mixed),
                "halving": halving(curves, objective, budget, mixed, by_score=False),
                "cheapest_halving": halving(curves, objective, budget, cheapest, by_score=True),
                "hyperband": hyperband(curves, objective, budget, mixed),
                "cheapest_hyperband": hyperband(curves, objective, budget, cheapest),
            }
            for strategy, one in found.items():
                cell = {"objective": name, "budget": budget, "strategy": strategy}
                yield cell | _figures(one)


def _searched(curves: Curves, objective: Objective, prior: Prior | None) -> Found | None:
    try:
        return replay(curves, objective, prior)
    except WrongUse:  # the budget is too small for any model
        return None


def _figures(found: Found | None) -> dict[str, Any]:
    """`right`, and the regret in P or in score where there is an answer."""
    if found is None or found.answer is None:
        return {"right": False, "regret": np.nan, "answers": 0.0, "spent": 0.0, "holds": np.nan}
    return {
        "right": found.best,
        "regret": found.regret,
        "answers": 1.0,
        "spent": found.spent,
        "holds": found.holds,
    }


def _certificates(curves: Curves, prior: Prior | None) -> Iterator[dict[str, Any]]:
    cases = [(replace(WITHIN, within=m), f"within {m:g}") for m in (0.01, 0.02)]
    cases += [(replace(PEPR, alpha=alpha), "PePR-E") for alpha in (1.0, 5.0, 20.0)]
    for objective, name in cases:
        for probability in PROBABILITIES:
            found = replay(curves, replace(objective, certify=probability), prior)
            cell = {"objective": name, "alpha": objective.alpha, "certify": probability}
            yield cell | _figures(found)


def _settings(runs: pd.DataFrame, n: int) -> Iterator[dict[str, Any]]:
    rng = np.random.default_rng(0)
    for i in range(n):
        noisy = with_noise(runs, i)
        chosen = rng.permutation(131)[: rng.integers(40, 132)]
        noisy = noisy[noisy["model"].isin(np.sort(noisy["model"].unique())[chosen])]
        curves, prior = case(noisy, str(rng.choice(PAPER)), str(rng.choice(list(COSTS))))
        objective = Objective(
            top=int(rng.integers(1, 6)),
            alpha=float(np.exp(rng.uniform(0, np.log(100)))),
            normalisation="minmax" if rng.random() < 0.5 else "zero",
        )
        order = np.argsort(curves.cost.to_numpy(), kind="stable")
        for strategy, given in (("frugal", prior), ("no_prior", None)):
            found = replay(curves, objective, given)
            same = in_order(curves, objective, found.spent, order)
            yield {
                "strategy": strategy,
                "alpha": objective.alpha,
                "regret": found.regret,
                "spent": found.spent,
                "cheapest_regret": same.regret,
            }


def _means(rows: list[dict[str, Any]], keys: list[str]) -> list[dict[str, Any]]:
    """Over the seeds of an experiment, the experiments of a family, and the families, and the
    least and greatest of these in what is right."""
    table = pd.DataFrame(rows)
    table["family"] = table["experiment"].replace(FAMILIES)
    figures = ["right", "regret", "answers", "spent", "holds"]
    table[figures] = table[figures].astype(float)
    by = table.groupby([*keys, "family", "experiment"])[figures].mean()
    families = by.groupby(level=[*keys, "family"]).mean()
    found = families.groupby(level=keys).mean()
    found["least_right"] = families["right"].groupby(level=keys).min()
    found["most_right"] = families["right"].groupby(level=keys).max()
    found = found.round(4).reset_index().astype(object)
    result: list[dict[str, Any]] = found.where(found.notna(), None).to_dict("records")
    return result


def _shares(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """The share of settings with little regret, and of those in which the cheapest models, trained
    with the same energy, were better."""
    found = []
    for strategy, own in rows.groupby("strategy"):
        found.append(
            {
                "strategy": strategy,
                "settings": len(own),
                "regret_at_most_0.01": float((own["regret"] <= 0.01).mean()),
                "mean_regret": float(own["regret"].mean()),
                "spent": float(own["spent"].mean()),
                "cheapest_better": float((own["cheapest_regret"] < own["regret"] - 1e-12).mean()),
                "cheapest_better_by_0.005": float(
                    (own["cheapest_regret"] < own["regret"] - 0.005).mean()
                ),
            }
        )
    return found


if __name__ == "__main__":
    main()
