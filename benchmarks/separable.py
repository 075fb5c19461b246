"""How many of the paper's best models are really apart from the others?

    python benchmarks/separable.py --data ../shared/data/pepr-paper

The paper's released measurements are imported as runs. Each model was trained once, and its
accuracy counted on 1,984 (derma), 3,008 (lidc) or 608 (pneumonia) test images, so the error of the
images is binomial and the spread between runs is unknown: three values of it are assumed. For each,
`certain` is how many of the best five by PePR-E are among the best five in 95% of the draws,
`width` the mean width of their 95% intervals, `margin` the least distance to the best that any
model can be shown to keep, and `open` how many models are not shown to be worse than the best by
more than 0.01.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import click
from common import machine, write

from pepr_mlops.comparison import Question, compare
from pepr_mlops.comparison.answer import answer, choices
from pepr_mlops.imports import pepr_paper
from pepr_mlops.tracking import import_runs, read

EXPERIMENTS = ("derma", "derma_pt", "lidc", "pneumonia")
SPREADS = (0.0, 0.01, 0.02)


def separable(uri: str, experiment: str, seed_sd: float) -> dict[str, Any]:
    """The numbers of one experiment under one spread between runs."""
    runs = read.load_runs(experiment, tracking_uri=uri)
    question = Question(normalisation="zero", seed_sd=seed_sd)
    comparison = compare(runs, question, read.load_evidence(runs, tracking_uri=uri))
    best = comparison.scores.head(5)
    found = answer(choices(comparison, question, experiment))
    return {
        "experiment": experiment,
        "images": found.images,
        "seed_sd": seed_sd,
        "certain": int((best["top_share"] >= 0.95).sum()),
        "width": round(float((best["ci_high"] - best["ci_low"]).mean()), 4),
        "margin": round(float(found.models["at_most"].min()), 4),
        "open": len(found.models) - len(found.of("not good enough")),
    }


@click.command()
@click.option("--data", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--out", type=click.Path(path_type=Path))
def main(data: Path, out: Path | None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        uri = f"sqlite:///{folder}/mlflow.db"
        import_runs(pepr_paper.read(data), uri)
        rows = [separable(uri, name, sd) for name in EXPERIMENTS for sd in SPREADS]
    write({**machine(), "rows": rows}, out)


if __name__ == "__main__":
    main()
