"""`pepr import`: results and logs of others as runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pepr_mlops.cli.options import FILE, Command, option, pairs, together, tracking_uri
from pepr_mlops.cli.output import note, say

if TYPE_CHECKING:
    from pepr_mlops.imports.files import FinishedRun

_folder = click.argument("folder", metavar="DIR", type=FILE)
_file = click.argument("file", metavar="FILE", type=FILE)
_described = together(
    option(
        "Essentials",
        "--experiment",
        "name that the runs are compared under",
        required=True,
        metavar="NAME",
    ),
    option("Essentials", "--model", "model of all runs", metavar="NAME"),
    option(
        "Essentials",
        "--param",
        "parameter of all runs, such as dataset=derma or epochs=10; may be repeated",
        name="params",
        multiple=True,
        metavar="NAME=VALUE",
    ),
    tracking_uri,
)


@click.group
def command() -> None:
    """Log results and logs of others as finished MLflow runs, marked as imported.

    Runs that exist are left alone, so that an import can be repeated.

    \b
    Examples:
      pepr import pepr-paper ./PePR/data
      pepr import codecarbon emissions.csv --experiment derma
      pepr import carbontracker ./logs --experiment derma
      pepr import csv results.csv --experiment derma --map model=Model --map test/accuracy=acc:%
    """


@command.command("pepr-paper", cls=Command)
@_folder
@tracking_uri
def pepr_paper(folder: Path, tracking_uri: str | None) -> None:
    """Import the measurements of the PePR paper.

    DIR holds its all_results.csv: 131 models in 8 experiments.

    \b
    Examples:
      pepr import pepr-paper ./PePR/data
    """
    from pepr_mlops.imports import pepr_paper

    _log(pepr_paper.read(folder), tracking_uri)


@command.command("timm", cls=Command)
@_folder
@tracking_uri
def timm(folder: Path, tracking_uri: str | None) -> None:
    """Import timm's results on ImageNet and its speed benchmarks.

    DIR is the folder results of timm's repository, with results-imagenet.csv and speed benchmarks,
    of which the newest are taken; the output names their card and settings.

    \b
    Examples:
      pepr import timm ./pytorch-image-models/results --tracking-uri sqlite:///mlflow.db
    """
    from pepr_mlops.imports import timm_results

    _log(timm_results.read(folder), tracking_uri, timm_results.notes(folder))


@command.command("codecarbon", cls=Command)
@_file
@_described
def codecarbon(
    file: Path, experiment: str, model: str | None, params: Sequence[str], tracking_uri: str | None
) -> None:
    """Import runs from CodeCarbon's emissions.csv.

    The model is the project_name, or --model. Energy is taken as that of training and counts as
    estimated, since the file does not say what was measured. What CodeCarbon did not read is
    missing, never 0.

    \b
    Examples:
      pepr import codecarbon emissions.csv --experiment derma
      pepr import codecarbon emissions.csv --experiment derma --model unet --param dataset=derma
    """
    from pepr_mlops.imports import codecarbon

    runs, notes = codecarbon.read(file, experiment, _given(model, params))
    _log(runs, tracking_uri, notes)


@command.command("carbontracker", cls=Command)
@_folder
@_described
def carbontracker(
    folder: Path,
    experiment: str,
    model: str | None,
    params: Sequence[str],
    tracking_uri: str | None,
) -> None:
    """Import trainings from carbontracker's logs.

    DIR is its log_dir. The model is the log_file_prefix, or --model. Only actual consumption is
    imported, never the predicted one.

    \b
    Examples:
      pepr import carbontracker ./logs --experiment derma
      pepr import carbontracker ./logs --experiment derma --model unet --param dataset=derma
    """
    from pepr_mlops.imports import carbontracker

    runs, notes = carbontracker.read(folder, experiment, _given(model, params))
    _log(runs, tracking_uri, notes)


@command.command("csv", cls=Command)
@_file
@option(
    "Essentials",
    "--map",
    "our name for a column, and its unit if it is not ours; may be repeated",
    name="mapping",
    multiple=True,
    required=True,
    metavar="NAME=COLUMN[:UNIT]",
)
@_described
def csv(
    file: Path,
    mapping: Sequence[str],
    experiment: str,
    model: str | None,
    params: Sequence[str],
    tracking_uri: str | None,
) -> None:
    """Import a table of results, one run a row.

    NAME is an option of `pepr train` (model, dataset, epochs, seed, …), a metric (test/accuracy,
    memory/reserved_gb, …), energy_wh, carbon_gco2e, train_time_s, performance, hardware, parameters
    or id, which tells rows apart that are otherwise equal. P is performance, or else the first
    metric of the test set.

    \b
    Examples:
      pepr import csv results.csv --experiment derma --map model=Model --map test/accuracy=acc:%
      pepr import csv results.csv --experiment derma --map model=Model --map performance=dice \\
        --map energy_wh=Energy:kWh --map train_time_s=Time:h --map hardware=GPU
    """
    from pepr_mlops.imports import csv_table

    runs, notes = csv_table.read(file, experiment, _given(model, params), mapping)
    _log(runs, tracking_uri, notes)


def _given(model: str | None, params: Sequence[str]) -> dict[str, str]:
    """The parameters of all runs, by name."""
    return dict(pairs(params, "param", "dataset=derma")) | ({"model": model} if model else {})


def _log(runs: Sequence[FinishedRun], tracking_uri: str | None, notes: Sequence[str] = ()) -> None:
    """Log the runs, and print how many were new."""
    from tqdm import tqdm

    from pepr_mlops.tracking import import_runs

    new = import_runs(
        runs, tracking_uri, lambda new: tqdm(new, unit="run", leave=False, disable=None)
    )
    experiments = dict.fromkeys(run.experiment for run in runs)
    note(*notes)
    say(f"{new} runs imported, {len(runs) - new} existed; experiments: {', '.join(experiments)}")
