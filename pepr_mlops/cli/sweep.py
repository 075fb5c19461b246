"""`pepr sweep`: many training jobs, each once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pepr_mlops.cli.options import Command, option, tracking_uri
from pepr_mlops.errors import WrongUse
from pepr_mlops.files import read_toml
from pepr_mlops.names import RESOURCES
from pepr_mlops.spec import NONE, SWEPT, RunSpec, value_type
from pepr_mlops.tracking.ownership import STALE_S

if TYPE_CHECKING:
    from pepr_mlops.sweep.frugal import Objective
    from pepr_mlops.sweep.sweep import Settings

_EXAMPLE = """
    \b
    Examples:
      pepr sweep --model resnet18d,mobilenetv2_050 --dataset digits --image-size 32 --pretrained false --seed 0,1 --dry-run
      pepr sweep --model paper --dataset derma --seed 0,1,2 --budget-wh 5000
      pepr sweep --model paper:small --dataset ./my_images --strict
      pepr sweep paper.toml --engine ray --address auto --checkpoints /shared/checkpoints
      pepr sweep --model paper --dataset derma --weights-dir /shared/weights
      pepr sweep --model paper --dataset derma --strategy frugal --objective pepr-e --top 5
      pepr sweep --replay --experiment derma_pt --objective pepr-e
"""  # noqa: E501

_HELP = """Train every combination of models, data sets, seeds and any other option of `pepr train`.

FILE (TOML) and the options name them, values with commas between; options go before the file. A
model may be a glob over timm's names, `paper`, or `paper:small+efficient` (small, large, efficient,
inefficient, cnn, other).

What the tracking server has is not trained again: stop it and start it again as you like.

The strategy `frugal` looks for the best models by PePR and trains the others as little as it can;
`--replay` tells what it would have found and spent where all of an experiment is trained already.
"""


def _grid(command: Callable[..., int]) -> Callable[..., int]:
    """An option for each field of RunSpec that a sweep may vary."""
    for f in reversed([f for f in fields(RunSpec) if f.name in SWEPT]):
        flag = "--" + f.name.replace("_", "-")
        heading, note = f.metadata["heading"], f.metadata["help"]
        command = option(heading, flag, f.name, metavar="VALUE[,…]", help=note)(command)
        if value_type(f) is bool:
            no = f"--no-{flag[2:]}"
            off = option(heading, no, f.name, flag_value="false", help=f"{flag} false")
            command = off(command)
    return command


@click.command(cls=Command, help=_HELP + _EXAMPLE)
@click.argument("file", type=click.Path(path_type=Path), required=False)
@_grid
@option(
    "Model",
    "--weights-dir",
    metavar="DIR",
    help="folder with a file of weights for each model, such as DIR/resnet18d.safetensors, used "
    "instead of the hub",
)
@option(
    "Search",
    "--strategy",
    type=click.Choice(["exhaustive", "frugal"]),
    help="train all, or look for the best [default: exhaustive]",
)
@option(
    "Search",
    "--objective",
    type=click.Choice([f"pepr-{letter.lower()}" for letter in RESOURCES if letter != "D"]),
    help="what a frugal search is for: PePR by energy, time, memory or CO2e [default: pepr-e]",
)
@option("Search", "--top", type=click.IntRange(1), help="how many it is to find [default: 5]")
@option("Search", "--alpha", type=float, help="α of αP / (α + R), how much P counts [default: 1]")
@option("Search", "--certify", is_flag=True, help="search on until the top is proven")
@option("Search", "--replay", is_flag=True, help="search among the recorded runs of --experiment")
@option(
    "Essentials",
    "--dry-run",
    is_flag=True,
    help="show the jobs and what they will cost; do nothing",
)
@option(
    "Essentials", "--budget-wh", type=float, help="stop when the runs of the sweep took so much"
)
@option(
    "Sweep",
    "--retries",
    default=1,
    show_default=True,
    type=click.IntRange(0),
    help="tries again of a job that failed by what may pass: a crash, a lost machine or server",
)
@option("Sweep", "--retry-failed", is_flag=True, help="try again what failed for good before")
@option(
    "Data", "--strict", is_flag=True, help="refuse doubtful images, such as test images in train"
)
@option(
    "Sweep",
    "--busy",
    type=click.Choice(["wait", "refuse"]),
    default="wait",
    show_default=True,
    help="when others use the GPU",
)
@option("Sweep", "--cool-to", type=float, metavar="°C", help="let the device cool before each job")
@option("Sweep", "--order-seed", default=0, show_default=True, help="seed of the order of the jobs")
@option(
    "Machine", "--engine", type=click.Choice(["local", "ray"]), default="local", show_default=True
)
@option("Machine", "--address", help="Ray cluster, such as auto; one of this machine if none")
@option(
    "Machine",
    "--checkpoints",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="trainings under way [default: PEPR_CHECKPOINTS or ~/.cache/pepr_mlops/checkpoints]",
)
@option(
    "Sweep",
    "--stale-after",
    "stale_s",
    default=STALE_S,
    show_default=True,
    metavar="SECONDS",
    help="silence after which a run of another machine is given up",
)
@tracking_uri
@option("Output", "--format", "form", type=click.Choice(["table", "csv", "json"]), default="table")
def command(
    file: Path | None,
    weights_dir: str | None,
    dry_run: bool,
    form: str,
    strategy: str | None,
    replay: bool,
    objective: str | None,
    top: int | None,
    alpha: float | None,
    certify: bool,
    **given: Any,
) -> int:
    grid = read(file) | {k: split(k, v) for k in SWEPT if (v := given.pop(k)) is not None}
    if weights_dir is not None:
        grid["weights_dir"] = weights_dir
    settings = _settings(**given)
    given_or_not = {"objective": objective, "top": top, "alpha": alpha, "certify": certify or None}
    asked: dict[str, Any] = {k: v for k, v in given_or_not.items() if v is not None}
    if not replay and strategy != "frugal":
        for name in asked:
            raise WrongUse(f"{name}: only a search has one; add --strategy frugal or --replay")
    sought = _sought(**asked) if replay or strategy == "frugal" else None
    if replay and sought is not None:
        from pepr_mlops.cli import search_output

        return search_output.replay(
            _recorded(grid, [*given, "dry_run"]), *sought, form, settings.tracking_uri
        )
    from pepr_mlops.cli import sweep_output

    return (sweep_output.dry_run if dry_run else sweep_output.run)(grid, settings, form, sought)


def _sought(objective: str = "pepr-e", **given: Any) -> tuple[str, Objective]:
    """The letter of the cost and what is sought with it."""
    from pepr_mlops.sweep.frugal import Objective

    return objective.removeprefix("pepr-").upper(), Objective(**given)


def _recorded(grid: dict[str, Any], given: Iterable[str]) -> list[str]:
    """The experiments to replay; a replay trains nothing, so it takes nothing else."""
    from click.core import ParameterSource

    experiments = grid.pop("experiment", None)
    asked = click.get_current_context().get_parameter_source
    others = [n for n in given if n != "tracking_uri" and asked(n) is ParameterSource.COMMANDLINE]
    if experiments is None or grid or others:
        extra = ", not " + ", ".join([*grid, *others]) if grid or others else ""
        raise WrongUse(f"replay: it reads the runs of --experiment NAME{extra}; name only that")
    return [str(e) for e in (experiments if isinstance(experiments, list) else [experiments])]


def _settings(
    budget_wh: float | None,
    retries: int,
    stale_s: float,
    cool_to: float | None,
    **same: Any,
) -> Settings:
    from pepr_mlops.sweep.driver import Limits
    from pepr_mlops.sweep.sweep import Settings

    for name, value in (("budget_wh", budget_wh), ("stale_after", stale_s)):
        if value is not None and not 0 < value < float("inf"):
            raise WrongUse(f"{name}: {value:g} is not a number above 0")
    return Settings(limits=Limits(budget_wh, retries, stale_s), cool_c=cool_to, **same)


def split(key: str, text: str) -> list[str]:
    """The values of an option. Raises `WrongUse` where one is empty."""
    words = [word.strip() for word in text.split(",")]
    if not all(words):
        raise WrongUse(f"{key}: {text!r} has an empty value; write {key}=A,B")
    return words


def read(file: Path | None) -> dict[str, Any]:
    """The grid of a TOML file. Raises `WrongUse` for one that is not there or is none."""
    if file is None or str(file) == NONE:  # `mlflow run` always passes one
        return {}
    try:
        return read_toml(file, "sweep")
    except OSError as error:
        raise WrongUse(f"sweep: {file} cannot be read ({error.strerror})") from error
