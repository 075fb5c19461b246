"""`pepr import`: published results as runs."""

from __future__ import annotations

from pathlib import Path

import click

from pepr_mlops.cli.options import tracking_uri
from pepr_mlops.cli.output import say


@click.command
@click.argument("source", type=click.Choice(["pepr-paper", "timm"]))
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@tracking_uri
def command(source: str, folder: Path, tracking_uri: str | None) -> None:
    """Log published results as finished MLflow runs, marked as imported.

    pepr-paper: DIR holds all_results.csv of the PePR paper, 131 models in 8 experiments. timm: DIR
    holds results-imagenet.csv and speed benchmarks, of which the newest are taken; the output names
    their card and settings. Runs that exist are left alone.

    \b
    Examples:
      pepr import pepr-paper ./PePR/data
      pepr import timm ./pytorch-image-models/results --tracking-uri sqlite:///mlflow.db
    """
    from tqdm import tqdm

    from pepr_mlops.imports import NOTES, SOURCES
    from pepr_mlops.tracking import import_runs

    runs = SOURCES[source](folder)
    for note in NOTES[source](folder) if source in NOTES else ():
        say(note)
    new = import_runs(
        runs, tracking_uri, lambda new: tqdm(new, unit="run", leave=False, disable=None)
    )
    experiments = dict.fromkeys(run.experiment for run in runs)
    say(f"{new} runs imported, {len(runs) - new} existed; experiments: {', '.join(experiments)}")
