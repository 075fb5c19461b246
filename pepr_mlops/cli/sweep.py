"""`pepr sweep`: many training jobs, each once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pepr_mlops.cli.options import FILE, command_line, of_field, option, tracking_uri
from pepr_mlops.cli.slurm_options import slurm_options, take
from pepr_mlops.cli.srun import Once
from pepr_mlops.errors import WrongUse
from pepr_mlops.files import read_toml
from pepr_mlops.names import RESOURCES
from pepr_mlops.spec import NONE, SWEEPABLE, UNSPLIT, RunSpec, value_type
from pepr_mlops.tracking.ownership import STALE_S

if TYPE_CHECKING:
    from pepr_mlops.cli.sweep_output import Target
    from pepr_mlops.sweep.keep_top import KeepTop
    from pepr_mlops.sweep.sweep import Settings

_OF_SEARCH = (
    *("objective", "top", "alpha", "normalisation", "within", "certify", "budget_percent"),
    *("decide_on", "prior"),
)


def _grid(command: Callable[..., int]) -> Callable[..., int]:
    """An option for each field of RunSpec that a sweep may vary."""
    for f in reversed([f for f in fields(RunSpec) if f.name in SWEEPABLE]):
        flag = "--" + f.name.replace("_", "-")
        heading, (help, metavar) = f.metadata["heading"], of_field(f)
        several = "" if f.name in UNSPLIT else "[,…]"
        command = option(heading, flag, help, name=f.name, metavar=f"{metavar}{several}")(command)
        if value_type(f) is bool:
            no = f"--no-{flag[2:]}"
            off = option(heading, no, f"{flag} false", name=f.name, flag_value="false")
            command = off(command)
    return command


@click.command(cls=Once)
@click.argument("file", type=FILE, required=False)
@_grid
@option(
    "Model",
    "--weights-dir",
    "folder with a file of weights for each model, such as DIR/resnet18d.safetensors, used "
    "instead of the hub",
    metavar="DIR",
)
@option(
    "Search",
    "--strategy",
    "train all jobs, or search for the best [default: exhaustive]",
    type=click.Choice(["exhaustive", "frugal"]),
)
@option(
    "Search",
    "--objective",
    "what a frugal search maximises: PePR by energy, CO2e, memory or time, which is also the cost "
    "of --within [default: pepr-e]",
    type=click.Choice([f"pepr-{letter.lower()}" for letter in RESOURCES if letter != "D"]),
)
@option("Search", "--top", "how many models to find [default: 5]", type=click.IntRange(1))
@option("Search", "--alpha", "α of αP / (α + R), the weight of P [default: 1]", type=float)
@option(
    "Search",
    "--normalisation",
    "R from least to greatest cost, or from no cost, as in the PePR paper's tables "
    "[default: minmax]",
    type=click.Choice(["minmax", "zero"]),
)
@option(
    "Search",
    "--within",
    "look for the cheapest model whose P is at most this much below the best, such as 0.01",
    type=float,
    metavar="MARGIN",
)
@option(
    "Search",
    "--certify",
    "search until the answer holds with this probability, such as 0.95, or without one until it "
    "is proven",
    is_flag=False,
    flag_value=1.0,
    type=float,
    metavar="[PROBABILITY]",
)
@option(
    "Search",
    "--budget-percent",
    "use this much of what training all takes for the best answer; --budget-wh too",
    type=float,
)
@option(
    "Search",
    "--decide-on",
    "split whose P decides which models train for longer and win [default: val]",
    type=click.Choice(["val", "test"]),
)
@option(
    "Search",
    "--prior",
    "other data sets to learn from: the PePR paper's (shipped), those of the tracking server, "
    "both, none, or those of a file [default: both]",
    metavar="shipped|server|both|none|FILE",
)
@option("Search", "--replay", "search among the recorded runs of --experiment", is_flag=True)
@option(
    "Model",
    "--keep-top",
    "delete the weights of all but the N best models and those that tie with them",
    type=click.IntRange(1),
    metavar="N",
)
@option(
    "Model",
    "--by",
    "what --keep-top orders by: the cheapest good-enough models, P or PePR [default: cost]",
    type=click.Choice(["cost", "performance", "score"]),
)
@option(
    "Essentials", "--dry-run", "show the jobs and their expected cost; train nothing", is_flag=True
)
@option("Essentials", "--budget-wh", "stop when the sweep's runs have used this", type=float)
@option(
    "Sweep",
    "--retries",
    "retries after a transient failure: a crash, a lost machine or server",
    default=1,
    type=click.IntRange(0),
)
@option("Sweep", "--retry-failed", "retry jobs that failed for good before", is_flag=True)
@option("Data", "--strict", "refuse doubtful images, such as test images in train", is_flag=True)
@option(
    "Sweep",
    "--busy",
    "when other programs use the GPU",
    type=click.Choice(["wait", "refuse"]),
    default="wait",
)
@option("Sweep", "--cool-to", "let the device cool before each job", type=float, metavar="°C")
@option("Sweep", "--order-seed", "seed of the order of the jobs", default=0)
@option(
    "Machine",
    "--engine",
    "run jobs on this machine, on a Ray cluster or by Slurm",
    type=click.Choice(["local", "ray", "slurm"]),
    default="local",
)
@option("Machine", "--address", "Ray cluster, such as auto; one on this machine if none")
@option(
    "Machine",
    "--checkpoints",
    "unfinished trainings [default: PEPR_CHECKPOINTS or ~/.cache/pepr_mlops/checkpoints]",
    type=FILE,
    metavar="DIR",
)
@option(
    "Sweep",
    "--stale-after",
    "seconds without a heartbeat before a run on another machine counts as lost",
    name="stale_s",
    default=STALE_S,
    metavar="SECONDS",
)
@slurm_options
@tracking_uri
@option(
    "Output",
    "--format",
    "how to write the jobs",
    name="form",
    type=click.Choice(["table", "csv", "json"]),
    default="table",
)
def command(
    file: Path | None,
    weights_dir: str | None,
    dry_run: bool,
    form: str,
    strategy: str | None,
    replay: bool,
    keep_top: int | None,
    by: str | None,
    **given: Any,
) -> int:
    """Train every combination of models, data sets, seeds and any other option of `pepr train`.

    Name them in FILE (TOML) and in the options, with commas between values; options override the
    file. A model may be a glob over timm's names, `paper`, or `paper:small+efficient` (small,
    large, efficient, inefficient, cnn, other).

    Jobs that the tracking server has are not trained again: stop the sweep and start it again as
    you like.

    The strategy `frugal` searches for the best models by PePR and trains the others as little as
    possible; `--replay` shows what it would have found and spent in an experiment that is trained
    already.

    \b
    Examples:
      pepr sweep --model resnet18d,mobilenetv2_050 --dataset digits --image-size 32 --pretrained false --seed 0,1 --dry-run
      pepr sweep --model paper --dataset derma --seed 0,1,2 --budget-wh 5000
      pepr sweep --model paper:small --dataset ./my_images --folds 5
      pepr sweep --model paper:small --dataset ./my_images --strict
      pepr sweep paper.toml --engine slurm --device cuda --time 4:00:00 --max-jobs 8 --checkpoints /shared/checkpoints
      pepr sweep paper.toml --engine ray --address auto --checkpoints /shared/checkpoints
      pepr sweep --model paper --dataset derma --keep-top 5 --by performance
      pepr sweep --model paper --dataset derma --weights-dir /shared/weights
      pepr sweep --model paper --dataset derma --strategy frugal --objective pepr-e --top 5
      pepr sweep --model paper --dataset derma --strategy frugal --within 0.01 --budget-percent 10
      pepr sweep --replay --experiment derma_pt --objective pepr-e
    """  # noqa: E501
    grid = read(file)
    table = grid.pop("slurm", {})
    grid |= {k: split(k, v) for k in SWEEPABLE if (v := given.pop(k)) is not None}
    if weights_dir is not None:
        grid["weights_dir"] = weights_dir
    chosen = {name: v for name in _OF_SEARCH if (v := given.pop(name)) is not None}
    slurm, detach = take(given, table)
    settings = _settings(keep_top=_keep_top(keep_top, by, strategy, replay), slurm=slurm, **given)
    target = None
    if replay or strategy == "frugal":
        target = _target(chosen, settings.limits.budget_wh)
    elif chosen:
        raise WrongUse(
            f"{next(iter(chosen))}: it is an option of a search; add --strategy frugal or --replay"
        )
    if detach and target is not None:
        raise WrongUse(
            "detach: a frugal search decides after each job what to train next; leave out "
            "--detach, or train all jobs with --strategy exhaustive"
        )
    if replay and target is not None:
        from pepr_mlops.cli import search_output

        experiments = _recorded(grid, [*given, "dry_run"])
        return search_output.replay(experiments, *target, form, settings.tracking_uri)
    from pepr_mlops.cli import sweep_output

    if dry_run:
        return sweep_output.dry_run(grid, settings, form, target)
    if detach:
        again = command_line(click.get_current_context(), "pepr sweep", without="detach")
        return sweep_output.detach(grid, settings, again)
    return sweep_output.run(grid, settings, form, target)


def _target(chosen: dict[str, Any], budget_wh: float | None) -> Target:
    """The options of a search as one value."""
    from pepr_mlops.sweep.observed import Objective

    letter = chosen.pop("objective", "pepr-e").removeprefix("pepr-").upper()
    decide_on, prior = chosen.pop("decide_on", None), chosen.pop("prior", "both")
    if (percent := chosen.pop("budget_percent", None)) is not None:
        chosen["budget_share"] = percent / 100
    if chosen.get("within") is not None:
        chosen.setdefault("top", 1)
    chosen.setdefault("normalisation", "minmax")
    return letter, Objective(**chosen, budget=budget_wh), decide_on, prior


def _recorded(grid: dict[str, Any], given: Iterable[str]) -> list[str]:
    """The experiments to replay. A replay trains nothing, so it takes no other option."""
    from click.core import ParameterSource

    experiments = grid.pop("experiment", None)
    source = click.get_current_context().get_parameter_source
    own = {"tracking_uri", "budget_wh"}
    others = [n for n in given if n not in own and source(n) is ParameterSource.COMMANDLINE]
    if experiments is None or grid or others:
        extra = f" and not {', '.join([*grid, *others])}" if grid or others else ""
        raise WrongUse(f"replay: give --experiment NAME{extra}; its runs are replayed")
    return [str(e) for e in (experiments if isinstance(experiments, list) else [experiments])]


def _keep_top(n: int | None, by: str | None, strategy: str | None, replay: bool) -> KeepTop | None:
    """The options as one value. Raises `WrongUse` for `--by` alone, and for a search, which trains
    most models too little for their weights to be kept."""
    from pepr_mlops.sweep.keep_top import KeepTop

    if n is None:
        if by is not None:
            raise WrongUse("by: it orders the models of --keep-top; add --keep-top N")
        return None
    if strategy == "frugal" or replay:
        raise WrongUse("keep_top: a search trains few models to the end; leave --keep-top out")
    return KeepTop(n, by or "cost")  # type: ignore[arg-type]


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
            raise WrongUse(f"{name}: {value:g} is not above 0")
    return Settings(limits=Limits(budget_wh, retries, stale_s), cool_c=cool_to, **same)


def split(key: str, text: str) -> list[str]:
    """The values of an option, one where a value may contain commas. Raises `WrongUse` where one is
    empty."""
    if key in UNSPLIT:
        return [text]
    words = [word.strip() for word in text.split(",")]
    if not all(words):
        raise WrongUse(f"{key}: {text!r} has an empty value; write {key}=A,B")
    return words


def read(file: Path | None) -> dict[str, Any]:
    """The grid of a TOML file. Raises `WrongUse` for one that cannot be read or is not TOML."""
    if file is None or str(file) == NONE:  # `mlflow run` always passes one
        return {}
    try:
        return read_toml(file, "sweep")
    except OSError as error:
        raise WrongUse(f"sweep: {file} cannot be read ({error.strerror})") from error
