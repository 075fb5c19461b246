"""`pepr train`: one training job."""

from __future__ import annotations

import sys
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pepr_mlops.cli.options import of_spec, option, spec_of, tracking_uri
from pepr_mlops.cli.output import say, table
from pepr_mlops.cli.srun import Once
from pepr_mlops.spec import RunSpec

if TYPE_CHECKING:
    from pepr_mlops.train.job import Outcome


@click.command(cls=Once)
@of_spec(*(f.name for f in fields(RunSpec)))
@tracking_uri
@option("Data", "--strict", "refuse doubtful images, such as test images in train", is_flag=True)
@option("Tracking", "--offline", "keep the run on this disk until `pepr sync`", is_flag=True)
@option(
    "Machine",
    "--checkpoints",
    "save the training there after each epoch; the same command resumes it",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
)
def command(
    tracking_uri: str | None,
    strict: bool,
    offline: bool,
    checkpoints: Path | None,
    **given: str | bool | None,
) -> None:
    """Train one model, log what it cost to MLflow, and print a summary.

    \b
    Examples:
      pepr train --model resnet18d --dataset digits --image-size 32 --no-pretrained
      pepr train --model mobilenetv2_050 --dataset derma --country DNK
      pepr train --dataset ./my_images --weights resnet18d.safetensors --precision bf16
      pepr train --dataset ./my_images --strict
    """
    spec = spec_of(given)
    if sys.stderr.isatty():
        say("loading PyTorch, timm and MLflow …", err=True)
    try:
        from pepr_mlops.train.job import run
        from pepr_mlops.train.progress import Printed

        outcome = run(
            spec,
            tracking_uri=tracking_uri,
            strict=strict,
            offline=offline,
            checkpoints=checkpoints,
            progress=Printed,
        )
        say(summary(outcome))
    except (KeyboardInterrupt, SystemExit):  # by a signal
        say(
            "a run that had begun is marked KILLED and keeps its costs so far; with --checkpoints "
            "DIR it could be resumed"
            if checkpoints is None
            else "the same command resumes after the last complete epoch, if there is one",
            err=True,
        )
        raise


def summary(outcome: Outcome) -> str:
    """The result in a few lines, and how to compare the run with others."""
    from pepr_mlops.tracking import address_of
    from pepr_mlops.train.progress import energy_text, seconds_text

    metrics = outcome.result.metrics
    memory = metrics.get(outcome.memory_metric)
    on_gpu = outcome.memory_metric == "memory/reserved_gb"
    kind = "peak reserved on the GPU" if on_gpu else "peak resident set"
    rows = [
        ("test accuracy", f"{metrics['test/accuracy']:.4f}"),
        ("test AUC", f"{metrics['test/auc']:.4f}" if "test/auc" in metrics else "not defined"),
        ("training energy", energy_text(metrics.get("energy/train_wh"), _energy_source(outcome))),
        ("training time", seconds_text(metrics["time/train_s"])),
        ("memory", "not known" if memory is None else f"{memory:.2f} GB ({kind})"),
    ]
    external = {name: value for name, value in metrics.items() if name.startswith("external/")}
    rows += [
        (f"external {name.split('/', 1)[1].replace('/', ' ')}", f"{value:.4f}")
        for name, value in external.items()
        if name.endswith(("/accuracy", "/auc"))
    ]
    carbon = metrics.get("carbon/train_gco2e")
    if carbon is not None:
        rows.insert(3, ("training CO2e", f"{carbon:.4g} g ({outcome.energy_source} energy)"))
    if outcome.result.stopped is not None:
        rows.append(("stopped early", outcome.result.stopped))
    if outcome.result.patience is not None:
        rows.append(("ended early", outcome.result.patience))
    text = "\n".join([table(rows), *(f"caution: {caution}" for caution in outcome.cautions)])
    if not outcome.run.run_id:
        return text
    view = address_of(outcome.run)
    if view.startswith("mlflow "):  # with the path of this environment's program
        program = Path(sys.executable).parent / "mlflow"
        if program.is_relative_to(Path.cwd()):
            program = program.relative_to(Path.cwd())
        view = f"{program}{view.removeprefix('mlflow')}"
    return f"{text}\n\nSee it in MLflow: {view}"


def _energy_source(outcome: Outcome) -> str:
    """The source of the energy, and the share of an estimate that does not depend on the load."""
    from pepr_mlops.costs.totals import J_PER_WH

    energy_wh = outcome.result.metrics.get("energy/train_wh")
    if outcome.constant_w is None or not energy_wh:
        return outcome.energy_source
    constant_wh = outcome.constant_w * outcome.result.metrics["time/train_s"] / J_PER_WH
    return f"{outcome.energy_source}, {constant_wh / energy_wh:.0%} of it at any load"
