"""Options under headings, and those that `score`, `select`, `stats` and `runs` have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from pepr_mlops.errors import WrongUse
from pepr_mlops.spec import NONE, RunSpec, as_text, convert, value_type
from pepr_mlops.validation import checked

if TYPE_CHECKING:
    import pandas as pd

    from pepr_mlops.comparison import Comparison, Question
    from pepr_mlops.comparison.inference import Use
    from pepr_mlops.comparison.pepr import Reference
    from pepr_mlops.comparison.runs import Evidence

_TRUTH = ("true", "false", "yes", "no", "1", "0")
F = TypeVar("F", bound=Callable[..., Any])
FORMATS = ("table", "csv", "json", "latex", "markdown")
FILE = click.Path(path_type=Path)

# In the order of the help; options without a heading, such as --help, are under the last one.
HEADINGS = (
    *(
        "Essentials",
        "Model",
        "Data",
        "Images",
        "Recipe",
        "Machine",
        "Measuring",
        "Search",
        "Sweep",
        "Slurm",
    ),
    *("Runs", "Score", "Tracking", "Output", "Other"),
)


class Option(click.Option):
    """An option with its heading, one of `HEADINGS`."""

    def __init__(self, *args: Any, heading: str, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.heading = heading


class Command(click.Command):
    """A command whose help has a section for each heading.

    It may be called as `mlflow run` writes its parameters: `--dry_run true`, and
    `--checkpoints none` for an option that is not given. For fields of `RunSpec` `none` is a value.
    """

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.context_settings.setdefault("token_normalize_func", _dashed)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        options = {
            name: (parameter, other)
            for parameter in self.params
            if isinstance(parameter, click.Option)
            for flags, other in (
                (parameter.opts, parameter.secondary_opts[:1]),
                (parameter.secondary_opts, parameter.opts[:1]),
            )
            for name in flags
        }
        has_arguments = any(isinstance(parameter, click.Argument) for parameter in self.params)
        words: list[str] = []
        for word in args:
            option, other = options.get(_dashed(words[-1]), (None, [])) if words else (None, [])
            if option is None:
                words.append(word)
            elif word.lower() in ("", NONE) and not _takes_none(option):  # not given
                words.pop()
            elif not option.is_flag or (
                word.lower() not in _TRUTH and (has_arguments or word.startswith("-"))
            ):
                words.append(word)
            elif not checked(bool, word, str(option.name)):
                words[-1:] = other
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


def _takes_none(option: click.Option) -> bool:
    """Whether `none` is a value of the option, which may be right or wrong."""
    of_spec = option.name in {f.name for f in fields(RunSpec)}  # they are texts and flags
    named = NONE in (option.metavar or "").split("|")
    return named or option.required or (of_spec and option.type is not click.FLOAT)


def _dashed(word: str) -> str:
    return word.replace("_", "-")


def option(
    heading: str, flag: str, help: str, *, name: str | None = None, **settings: Any
) -> Callable[[F], F]:
    """`click.option` under a heading, which shows its default; `name` is its parameter where that
    is not the flag's."""
    declared = [flag] if name is None else [flag, name]
    settings.setdefault("show_default", settings.get("default") != "")
    return click.option(*declared, cls=Option, heading=heading, help=help, **settings)


def of_field(f: Field[Any]) -> tuple[str, str]:
    """The help and the metavar of the option for a field of `RunSpec`."""
    choices = f.metadata["choices"]
    kind = "|".join(map(str, choices)) if choices else value_type(f).__name__.upper()
    return f"{f.metadata['help']} [default: {as_text(f.default)}]", kind


def of_spec(*names: str) -> Callable[[F], F]:
    """The options for these fields of `RunSpec`, whose values `spec_of` takes."""

    def decorate(command: F) -> F:
        for f in reversed([f for f in fields(RunSpec) if f.name in names]):
            flag = "--" + f.name.replace("_", "-")
            help, metavar = of_field(f)
            settings: dict[str, Any] = {"default": None}
            if value_type(f) is bool:
                flag = f"{flag}/--no-{flag[2:]}"
            else:
                settings["metavar"] = metavar
            command = option(f.metadata["heading"], flag, help, name=f.name, **settings)(command)
        return command

    return decorate


def spec_of(given: Mapping[str, str | bool | None]) -> RunSpec:
    """The spec of the options that were given. Raises `WrongUse`."""
    return RunSpec.parse({k: as_text(v) for k, v in given.items() if v is not None})


def together(*options: Callable[[F], F]) -> Callable[[F], F]:
    """Several options as one decorator, in this order."""

    def decorate(command: F) -> F:
        for add in reversed(options):
            command = add(command)
        return command

    return decorate


def tracking_uri(command: F) -> F:
    """The option that names the tracking server."""
    help = "MLflow tracking server [default: MLFLOW_TRACKING_URI]"
    return option("Tracking", "--tracking-uri", help)(command)


def run_options_of(*, required: bool) -> Callable[[F], F]:
    """Which runs, and which of their costs."""
    experiment = option(
        "Essentials",
        "--experiment",
        "runs tagged so, and those of the MLflow experiment of that name; may be repeated",
        name="experiments",
        multiple=True,
        required=required,
        metavar="NAME",
    )
    return together(experiment, _of_runs)


_of_runs = together(
    tracking_uri,
    option("Score", "--performance", "P [default: each run's own]", metavar="METRIC"),
    option(
        "Essentials",
        "--resource",
        "costs: energy, CO2e, memory, time, data or any metric; a score for each",
        name="resources",
        default="E",
        metavar="E|C|M|T|D|METRIC[,…]",
    ),
    option(
        "Runs",
        "--model-param",
        "parameter that names the model, for runs that pepr did not log",
        default="model",
        metavar="NAME",
    ),
    option(
        "Runs",
        "--where",
        "only the runs with this data_digest, hardware, precision, …; may be repeated",
        multiple=True,
        metavar="NAME=VALUE",
    ),
    option(
        "Runs",
        "--drop",
        "leave out runs with these flags, such as busy_cpu,paused",
        default="",
        metavar="FLAG[,…]",
    ),
    option("Runs", "--strict", "leave out every doubtful run", is_flag=True),
    option("Score", "--country", "CO2e of all runs on this country's grid", metavar="CODE"),
    option(
        "Score", "--carbon-intensity", "CO2e of all runs at this gCO2e/kWh", type=float, metavar="G"
    ),
)
run_options = run_options_of(required=True)
score_options = together(
    option(
        "Score",
        "--resource-weights",
        "combine all resources into one score with these weights, which sum to 1",
        metavar="w[,…]",
    ),
    option("Score", "--alpha", "αP/(α+R); 1 or more: the higher, the less R counts", default=1.0),
    option(
        "Score",
        "--normalisation",
        "R from least to greatest cost, from no cost, between quantiles, or by --reference "
        "[default: minmax, or reference with --reference]",
        type=click.Choice(["minmax", "zero", "robust", "reference"]),
    ),
    option("Score", "--quantiles", "for robust", default="0.05,0.95", metavar="LOW,HIGH"),
    option(
        "Score",
        "--reference",
        "bounds saved by `pepr score --save-reference`",
        type=FILE,
        metavar="FILE",
    ),
    option(
        "Score",
        "--stratify",
        "score runs that differ in hardware, precision, … in separate sets",
        is_flag=True,
    ),
    option("Score", "--allow-mixed", "score such runs together anyway", is_flag=True),
    option(
        "Score",
        "--energy-error",
        "relative error of a measured energy, for the intervals",
        default=0.05,
        metavar="SHARE",
    ),
    option(
        "Score",
        "--estimate-error",
        "relative errors of an estimated energy: common to all models of a machine, and of each",
        default="0.2,0.1",
        metavar="COMMON,OWN",
    ),
    option(
        "Score",
        "--seed-sd",
        "standard deviation of P between runs of a model, where no model has several "
        "[default: that of other experiments, else 0.01]",
        type=float,
        metavar="SD",
    ),
    option(
        "Score",
        "--test-images",
        "number of test images, for runs that logged neither it nor predictions",
        type=int,
        metavar="N",
    ),
)
# What is good enough.
terms_options = together(
    option("Essentials", "--margin", "P below the best that is good enough", default=0.01),
    option(
        "Essentials",
        "--decide-on",
        "the split that models are chosen by [default: val where runs logged its predictions]",
        type=click.Choice(["val", "test"]),
    ),
    option("Score", "--confidence", "of the claim that a model is good enough", default=0.95),
)
output_options = together(
    option(
        "Output",
        "--format",
        "how to write the result",
        name="form",
        type=click.Choice(FORMATS),
        default="table",
    ),
    option("Output", "--out", "write the result to this file", type=FILE, metavar="FILE"),
)


@dataclass(frozen=True)
class Request:
    """A question, the runs to answer it from, and the evidence about them."""

    runs: pd.DataFrame
    question: Question
    evidence: Evidence

    def compare(self) -> Comparison:
        """The answer."""
        from pepr_mlops.comparison import compare

        return compare(self.runs, self.question, self.evidence)


def load_request(
    experiments: Sequence[str], tracking_uri: str | None, where: Sequence[str], **options: Any
) -> Request:
    """The options as a question, with the runs that they name and their evidence."""
    from pepr_mlops.cli.output import note
    from pepr_mlops.comparison import conditions
    from pepr_mlops.tracking import read

    request, values = question(**options), pairs(where)
    runs = read.load_runs(list(experiments), tracking_uri=tracking_uri)
    evidence = read.load_evidence(runs, tracking_uri=tracking_uri)
    matching = conditions.where(runs, values)
    if values:
        note(f"only {', '.join(where)}: {len(matching)} of {len(runs)} runs")
    return Request(matching, request, evidence)


def question(
    *,
    resources: str,
    drop: str,
    country: str | None,
    carbon_intensity: float | None,
    resource_weights: str | None = None,
    normalisation: str | None = None,
    quantiles: str = "0.05,0.95",
    reference: Path | None = None,
    estimate_error: str = "0.2,0.1",
    stratify: bool = False,
    allow_mixed: bool = False,
    images_per_year: float | None = None,
    years: float | None = None,
    **others: Any,
) -> Question:
    """The options as a question; `others` are fields of it as they are."""
    from pepr_mlops.comparison import Question
    from pepr_mlops.costs import carbon

    if country is not None and carbon_intensity is not None:
        raise WrongUse("country: give either country or carbon_intensity, not both")
    if carbon_intensity is not None:
        carbon_intensity = convert("carbon_intensity", str(carbon_intensity))
    if stratify and allow_mixed:
        raise WrongUse("stratify: give either --stratify or --allow-mixed, not both")
    return Question(
        resources=names(resources),
        weights=None
        if resource_weights is None
        else checked(tuple[float, ...], resource_weights.split(","), "resource_weights"),
        normalisation=normalisation or ("reference" if reference else "minmax"),  # type: ignore[arg-type]
        quantiles=checked(tuple[float, float], quantiles.split(","), "quantiles"),
        estimate_error=checked(tuple[float, float], _two(estimate_error), "estimate_error"),
        reference=None if reference is None else load_reference(reference),
        drop=names(drop),
        mixed="stratify" if stratify else "allow" if allow_mixed else "refuse",
        intensity=carbon.resolve(country, carbon_intensity),
        use=_use(images_per_year, years),
        **others,
    )


def _use(images_per_year: float | None, years: float | None) -> Use | None:
    """The options as how much models are used, by default for a year."""
    from pepr_mlops.comparison.inference import Use

    if images_per_year is None:
        if years is not None:
            raise WrongUse("years: of how many images? Give --images-per-year N, too")
        return None
    return Use(images_per_year) if years is None else Use(images_per_year, years)


def _two(text: str) -> list[str]:
    """The two numbers of `--estimate-error`."""
    parts = text.split(",")
    if len(parts) != 2:
        raise WrongUse(f"estimate_error: {text!r} is not COMMON,OWN, such as 0.2,0.1")
    return parts


def names(text: str) -> tuple[str, ...]:
    """The names between commas."""
    return tuple(filter(None, map(str.strip, text.split(","))))


def command_line(context: click.Context, program: str, without: str | None = None) -> str:
    """The command line of this call, without options at their default and the one of the name
    `without`."""
    import shlex

    from click.core import ParameterSource

    from pepr_mlops.text import address, printable, without_password

    words = program.split()
    for parameter in {p.name: p for p in context.command.params}.values():  # --no-on before --on
        name = parameter.name or ""
        typed = context.get_parameter_source(name) is ParameterSource.COMMANDLINE
        if not typed or name == without:
            continue
        flag = [] if isinstance(parameter, click.Argument) else [parameter.opts[0]]
        value = context.params[name]
        safe = address if name == "tracking_uri" else without_password
        for one in value if isinstance(value, tuple) else (value,):
            words += flag if one is True else [*flag, safe(str(one))]
    return printable(shlex.join(words))


def pairs(
    words: Sequence[str], option: str = "where", example: str = "precision=bf16"
) -> list[tuple[str, str]]:
    """The names and values of `--where`, or of another option whose words are NAME=VALUE."""
    for word in words:
        if "=" not in word:
            raise WrongUse(f"{option}: {word!r} is not NAME=VALUE, such as {example}")
    return [(n.strip(), value.strip()) for n, value in (word.split("=", 1) for word in words)]


def load_reference(path: Path) -> Reference:
    """Bounds that `pepr score --save-reference` wrote. Raises `WrongUse` for other files."""
    from pepr_mlops.comparison.pepr import Reference
    from pepr_mlops.files import read_json

    try:
        return Reference.from_dict(read_json(path, "reference"))
    except OSError as error:
        raise WrongUse(f"reference: {path} cannot be read ({error.strerror})") from error
