"""How often do the intervals hold the truth, and how often is a claim of good enough false?

    python benchmarks/coverage.py --out benchmarks/results/coverage.json

Each study is simulated with a known truth: models of different ability, images of different
difficulty (the same for all models) and an affinity of each model to each image; each seed of a
model is somewhat better or worse, by its model's own spread. Every model predicts every image with
each seed, and energy is read with an error. The study is then analysed as `pepr score` and `pepr
select` do. `P`, `score` and `rank` are the shares of nominal 95% intervals that hold the truth,
over all models and studies; `false_good` and `false_bad` are the shares of studies in which some
model was wrongly called good enough, or not good enough, by a margin of 0.02.

With one seed the spread between runs has to come from elsewhere. `one seed` rows state how it was
taken: the true one; or 0.01, as assumed by default, where it is truly half or twice that.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # each process has a study of its own

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from multiprocessing import Pool
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd
from common import machine, write
from tqdm import tqdm

from pepr_mlops.comparison.draws import Draws, Errors, Sample, draw
from pepr_mlops.comparison.good_enough import BAD, GOOD, judge
from pepr_mlops.comparison.intervals import Scoring, intervals
from pepr_mlops.comparison.metrics import Ratios
from pepr_mlops.comparison.pepr import Floats
from pepr_mlops.comparison.spread import Spread

_ABILITY = (2.0, 0.35)  # mean and standard deviation over models, in logits
_DIFFICULTY, _AFFINITY = 1.5, 1.0  # standard deviations over images, in logits
_FREEDOM = 10  # of the inverse chi-squared law of models' spreads
_MARGIN = 0.02
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(60)
_COST = ["energy_wh"]


@dataclass(frozen=True)
class Row:
    """The design of studies: `sd` is the mean spread of P between runs, and `assumed_sd` the one
    that the analysis takes for models of one seed."""

    seeds: int
    images: int
    sd: float = 0.01
    assumed_sd: float = 0.01


def rows() -> Iterator[Row]:
    for images in (300, 624, 2005, 10_000):
        for seeds in (1, 3, 5, 10):
            yield Row(seeds, images)
    for images in (624, 2005):
        for sd in (0.005, 0.02):
            yield Row(1, images, sd=sd)


def _share(ability: Floats) -> Floats:
    """The chance of models of this ability to be right, over all images."""
    logits = ability[..., None] + np.hypot(_DIFFICULTY, _AFFINITY) * _NODES
    return np.asarray((_WEIGHTS / (1 + np.exp(-logits))).sum(axis=-1) / _WEIGHTS.sum())


def study(row: Row, models: int, draws: int, seed: int) -> dict[str, dict[str, float]]:
    """What of one simulated study holds, with measured and with estimated energies."""
    rng = np.random.default_rng(seed)
    ability = rng.normal(*_ABILITY, models)
    truth, slope = _share(ability), (_share(ability + 0.01) - _share(ability - 0.01)) / 0.02
    spread = row.sd * np.sqrt(_FREEDOM / rng.chisquare(_FREEDOM, models))
    better = rng.standard_normal((models, row.seeds)) * (spread / slope)[:, None]
    logits = ability[:, None] + _DIFFICULTY * rng.standard_normal(row.images)
    logits += _AFFINITY * rng.standard_normal((models, row.images))
    chance = 1 / (1 + np.exp(-(logits[:, None] + better[..., None])))
    right = (rng.random(chance.shape, dtype=np.float32) < chance).reshape(-1, row.images)
    cost = 10 * np.exp(rng.standard_normal(models))
    errors = Errors(spread=Spread(row.assumed_sd, np.inf, "stated"))
    own, common = rng.standard_normal(models), rng.standard_normal()
    off = {
        "measured": (1 + errors.measured) ** own,
        "estimated": (1 + errors.common) ** common * (1 + errors.own) ** own,
    }
    of = np.repeat(np.arange(models), row.seeds)
    runs = pd.DataFrame(
        {
            "run_id": [str(i) for i in range(len(of))],
            "model": of,
            "performance": right.mean(axis=1),
            "energy_wh": 0.0,
            "machine": "",
            "images": np.nan,
            "doubt": "",
        }
    )
    every, clusters = np.ones((1, 1, row.images)), np.arange(row.images)
    samples = {
        str(i): Sample(Ratios(one[None, None].astype(np.float32), every), clusters, "test")
        for i, one in enumerate(right)
    }
    drawn, found = None, {}
    for energy in off:
        read = runs.assign(energy=energy, energy_wh=(cost / off[energy])[of])
        own_samples = samples if drawn is None else {}  # P is drawn once
        of_energy = draw(
            *(read, pd.RangeIndex(models), own_samples, _COST, errors), draws=draws, seed=seed
        )
        drawn = of_energy if drawn is None else replace(drawn, costs=of_energy.costs)
        found[energy] = _held(drawn, truth, cost)
    return found


def _held(drawn: Draws, truth: Floats, cost: Floats) -> dict[str, float]:
    scoring = Scoring(_COST, [1.0])
    found = intervals(drawn, scoring)
    scores = scoring.scores(truth, {"energy_wh": cost})
    ranks = pd.Series(-scores).rank(method="min").to_numpy()
    verdicts, good = judge(drawn, _MARGIN)["verdict"], truth >= truth.max() - _MARGIN
    held = {
        name: float(((found[f"{of}_low"] <= true) & (true <= found[f"{of}_high"])).mean())
        for name, of, true in (("P", "p", truth), ("score", "ci", scores), ("rank", "rank", ranks))
    }
    return held | {
        "false_good": float((verdicts[~good] == GOOD).any()),
        "false_bad": float((verdicts[good] == BAD).any()),
        "told": float((verdicts != "cannot tell").mean()),
    }


def coverage(
    row: Row, models: int, draws: int, studies: int, pool: Any = None
) -> dict[str, dict[str, Any]]:
    """The means over studies, and the standard error of the coverage of P, by kind of energy."""
    one = partial(study, row, models, draws)
    seeds = range(studies)
    every = list(pool.imap(one, seeds, 10) if pool else map(one, seeds))
    rows = {}
    for energy in every[0]:
        found = pd.DataFrame([each[energy] for each in every])
        error = round(float(found["P"].std() / np.sqrt(studies)), 4)
        means = found.mean().round(4).to_dict()
        rows[energy] = {**asdict(row), "energy": energy, **means, "P_error": error}
    return rows


@click.command()
@click.option("--studies", default=1000)
@click.option("--models", default=5)
@click.option("--draws", default=300)
@click.option("--out", type=click.Path(path_type=Path))
def main(studies: int, models: int, draws: int, out: Path | None) -> None:
    with Pool() as pool:
        found = [
            each
            for row in tqdm(list(rows()))
            for each in coverage(row, models, draws, studies, pool).values()
        ]
    write({**machine(), "studies": studies, "models": models, "draws": draws, "rows": found}, out)


if __name__ == "__main__":
    main()
