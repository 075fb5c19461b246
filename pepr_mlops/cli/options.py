"""Options under headings, and those that `score`, `select`, `stats` and `runs` have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from pepr_mlops.errors import WrongUse
from pepr_mlops.spec import convert
from pepr_mlops.validation import checked

if TYPE_CHECKING:
    import pandas as pd

    from pepr_mlops.comparison import Comparison, Mixed, Question
    from pepr_mlops.comparison.pepr import Reference
    from pepr_mlops.comparison.runs import Evidence

_TRUTH = ("true", "false", "yes", "no", "1", "0")
F = TypeVar("F", bound=Callable[..., Any])
FORMATS = ("table", "csv", "json", "latex", "markdown")

# In the order of the help; the last one has what no heading was given for, such as --help.
HEADINGS = (
    *("Essentials", "Model", "Data", "Recipe", "Machine", "Measuring", "Search", "Sweep"),
    *("Runs", "Score", "Tracking", "Output", "Other"),
)


class Option(click.Option):
    """An option with its heading, one of `HEADINGS`."""

    def __init__(self, *args: Any, heading: str, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.heading = heading


class Command(click.Command):
    """A command whose help has a section for each heading.

    It may be called as `mlflow run` writes its parameters: `--dry_run true`.
    """

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.context_settings.setdefault("token_normalize_func", _dashed)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        flags = {
            name: parameter
            for parameter in self.params
            if isinstance(parameter, click.Option) and parameter.is_flag
            for name in parameter.opts
        }
        has_arguments = any(isinstance(parameter, click.Argument) for parameter in self.params)
        words: list[str] = []
        for word in args:
            flag = flags.get(_dashed(words[-1])) if words else None
            is_value = word.lower() in _TRUTH or not (has_arguments or word.startswith("-"))
            if flag is None or not is_value:
                words.append(word)
            elif not checked(bool, word, str(flag.name)):
                words[-1:] = flag.secondary_opts[:1]
        return super().parse_args(ctx, words)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {heading: [] for heading in HEADINGS}
        for parameter in self.get_params(ctx):
            if (record := parameter.get_help_record(ctx)) is not None:
                sections[getattr(parameter, "heading", HEADINGS[-1])].append(record)
        for heading, records in sections.items():
            if records:
                with formatter.section(heading):
                    formatter.write_dl(records)


def _dashed(word: str) -> str:
    return word.replace("_", "-")


def option(heading: str, *names: str, **settings: Any) -> Callable[[F], F]:
    """`click.option` under a heading."""
    return click.option(*names, cls=Option, heading=heading, **settings)


def tracking_uri(command: F) -> F:
    """The option that names the tracking server."""
    say = "MLflow tracking server [default: MLFLOW_TRACKING_URI]"
    return option("Tracking", "--tracking-uri", help=say)(command)


_WHICH = (
    option(
        "Essentials",
        "--experiment",
        "experiments",
        multiple=True,
        required=True,
        metavar="NAME",
        help="runs tagged so, and those of the MLflow experiment of that name; may be repeated",
    ),
    tracking_uri,
    option("Score", "--performance", metavar="METRIC", help="P [default: each run's own]"),
    option(
        "Essentials",
        "--resource",
        "resources",
        default="E",
        show_default=True,
        metavar="E|C|M|T|D|METRIC[,…]",
        help="costs: energy, CO2e, memory, time, data or any metric; a score for each",
    ),
    option(
        "Runs",
        "--model-param",
        default="model",
        metavar="NAME",
        help="parameter that names the model, of runs pepr did not log",
    ),
    option(
        "Runs",
        "--where",
        multiple=True,
        metavar="NAME=VALUE",
        help="only the runs with this data_digest, hardware, precision, …; may be repeated",
    ),
    option(
        "Runs",
        "--drop",
        default="",
        metavar="FLAG[,…]",
        help="leave out the runs with these flags, such as busy_cpu,paused",
    ),
    option("Runs", "--strict", is_flag=True, help="leave out every run that is doubtful"),
    option("Score", "--country", metavar="CODE", help="CO2e of all runs under this country's grid"),
    option(
        "Score",
        "--carbon-intensity",
        type=float,
        metavar="G",
        help="CO2e of all runs at this gCO2e/kWh",
    ),
)
_HOW = (
    option(
        "Score",
        "--resource-weights",
        metavar="w[,…]",
        help="one score of all resources with these weights, summing to 1",
    ),
    option(
        "Score",
        "--alpha",
        type=float,
        default=1.0,
        show_default=True,
        help="αP/(α+R); from 1, R counts less",
    ),
    option(
        "Score",
        "--normalisation",
        type=click.Choice(["minmax", "zero", "robust", "reference"]),
        help="R from least to greatest cost, from no cost, between quantiles, or by --reference "
        "[default: minmax, with --reference that]",
    ),
    option(
        "Score",
        "--quantiles",
        default="0.05,0.95",
        show_default=True,
        metavar="LOW,HIGH",
        help="of robust",
    ),
    option(
        "Score",
        "--reference",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="bounds saved by `pepr score --save-reference`",
    ),
    option(
        "Score",
        "--stratify",
        is_flag=True,
        help="a score set for each group of runs that differ in hardware, precision, …",
    ),
    option("Score", "--allow-mixed", is_flag=True, help="score such groups together all the same"),
    option(
        "Score",
        "--energy-error",
        type=float,
        default=0.05,
        show_default=True,
        metavar="SHARE",
        help="relative error of a measured energy, for the intervals",
    ),
)
_OUT = (
    option(
        "Output", "--format", "form", type=click.Choice(FORMATS), default="table", show_default=True
    ),
    option(
        "Output",
        "--out",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="write there instead",
    ),
)


def which(command: F) -> F:
    """Options that say which runs, with which costs."""
    return _add(command, _WHICH)


def how(command: F) -> F:
    """Options that say how they are scored."""
    return _add(command, _HOW)


def output(command: F) -> F:
    """Options that say how results are written."""
    return _add(command, _OUT)


def _add(command: F, options: Sequence[Callable[[F], F]]) -> F:
    for add in reversed(options):
        command = add(command)
    return command


@dataclass(frozen=True)
class Asked:
    """The runs found, what is asked of them and what is known besides."""

    runs: pd.DataFrame
    question: Question
    evidence: Evidence


def read(
    experiments: Sequence[str], tracking_uri: str | None, where: Sequence[str], **options: Any
) -> Asked:
    """The options as a question, and the runs it is about."""
    from pepr_mlops.cli.output import tell
    from pepr_mlops.comparison import conditions
    from pepr_mlops.tracking import read as query

    asked, values = question(**options), pairs(where)
    runs = query.load_runs(list(experiments), tracking_uri=tracking_uri)
    evidence = query.load_evidence(runs, tracking_uri=tracking_uri)
    cache = conditions.where(runs, values)
    if values:
        tell([f"only {', '.join(where)}: {len(cache)} of {len(runs)} runs"])
    return Asked(cache, asked, evidence)


def compared(found: Asked) -> Comparison:
    """The answer; of many runs, intervals that were found before are not drawn again."""
    from pepr_mlops.comparison import compare
    from pepr_mlops.tracking.read import cache

    return compare(found.runs, found.question, found.evidence, cache.intervals)


def question(
    *,
    performance: str | None,
    resources: str,
    model_param: str,
    drop: str,
    strict: bool,
    country: str | None,
    carbon_intensity: float | None,
    resource_weights: str | None = None,
    alpha: float = 1.0,
    normalisation: str | None = None,
    quantiles: str = "0.05,0.95",
    reference: Path | None = None,
    stratify: bool = False,
    allow_mixed: bool = False,
    energy_error: float = 0.05,
) -> Question:
    """The options as a question."""
    from pepr_mlops.comparison import Question
    from pepr_mlops.costs import carbon

    if country is not None and carbon_intensity is not None:
        raise WrongUse("country: give either country or carbon_intensity, not both")
    if carbon_intensity is not None:
        carbon_intensity = convert("carbon_intensity", str(carbon_intensity))
    mixed: Mixed = "stratify" if stratify else "allow" if allow_mixed else "refuse"
    if stratify and allow_mixed:
        raise WrongUse("stratify: allow-mixed says the contrary; give one of them")
    return Question(
        performance=performance,
        resources=tuple(name.strip() for name in resources.split(",") if name.strip()),
        weights=None
        if resource_weights is None
        else checked(tuple[float, ...], resource_weights.split(","), "resource_weights"),
        alpha=alpha,
        normalisation=normalisation or ("reference" if reference else "minmax"),  # type: ignore[arg-type]
        quantiles=checked(tuple[float, float], quantiles.split(","), "quantiles"),
        reference=None if reference is None else _load(reference),
        strict=strict,
        drop=tuple(flag.strip() for flag in drop.split(",") if flag.strip()),
        mixed=mixed,
        intensity=carbon.resolve(country, carbon_intensity),
        model_param=model_param,
        energy_error=energy_error,
    )


def typed(context: click.Context, program: str) -> str:
    """The command line of this call, without what is as by default."""
    import shlex

    from click.core import ParameterSource

    from pepr_mlops.text import address, printable, without_password

    words = program.split()
    for given in context.command.params:
        value = context.params[given.name] if given.name else None
        if context.get_parameter_source(given.name or "") is not ParameterSource.COMMANDLINE:
            continue
        shown = address if given.name == "tracking_uri" else without_password
        for one in value if isinstance(value, tuple) else (value,):
            words += [given.opts[0]] if one is True else [given.opts[0], shown(str(one))]
    return printable(shlex.join(words))


def pairs(where: Sequence[str]) -> list[tuple[str, str]]:
    """The names and values of `--where`."""
    for word in where:
        if "=" not in word:
            raise WrongUse(f"where: {word!r} is not NAME=VALUE, as precision=bf16")
    parts = [word.partition("=") for word in where]
    return [(name.strip(), value.strip()) for name, _, value in parts]


def _load(path: Path) -> Reference:
    from pepr_mlops.comparison.pepr import Reference
    from pepr_mlops.files import read_json

    try:
        return Reference.from_dict(read_json(path, "reference"))
    except OSError as error:
        raise WrongUse(f"reference: {path} cannot be read ({error.strerror})") from error
