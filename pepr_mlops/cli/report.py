"""`pepr report`, also `pepr-report`: an experiment as a page, figures and tables."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click
from click.core import ParameterSource

from pepr_mlops.cli.chosen import use_options
from pepr_mlops.cli.options import (
    FILE,
    Command,
    command_line,
    names,
    option,
    pairs,
    question,
    run_options,
    score_options,
    terms_options,
)
from pepr_mlops.cli.output import note, render, say, write
from pepr_mlops.errors import WorkFailed, WrongUse
from pepr_mlops.text import file_name

if TYPE_CHECKING:
    from pepr_mlops.comparison import Question
    from pepr_mlops.report.dashboards import Dashboard
    from pepr_mlops.report.figures.common import Panel
    from pepr_mlops.report.summary import Answer

IMAGES = ("png", "svg", "pdf")
TABLES = {"csv": "csv", "latex": "tex", "markdown": "md"}
FORMATS = ("html", *IMAGES, *TABLES)


@click.command(cls=Command, context_settings={"help_option_names": ["-h", "--help"]})
@run_options
@score_options
@terms_options
@use_options
@option(
    "Essentials",
    "--dashboard",
    "which figures: default, paper, budget, or a TOML file of your own",
    default="default",
    metavar="NAME|FILE",
)
@option(
    "Output",
    "--format",
    f"any of {', '.join(FORMATS)}",
    name="forms",
    default="html",
    metavar="FORM[,…]",
)
@option(
    "Output",
    "--out",
    "the page [default: pepr-report-EXPERIMENT.html]",
    type=FILE,
    metavar="FILE",
)
@option(
    "Output",
    "--plotlyjs",
    "plotly.js in the page (2 MB), or in a file next to it that several pages share",
    type=click.Choice(["inside", "directory"]),
    default="inside",
)
@option(
    "Essentials",
    "--price-per-kwh",
    "price of electricity with its currency, such as 0.30€ or '0.30 USD', to show costs in money",
    metavar="PRICE",
)
@option(
    "Output",
    "--publications",
    "folder with regions_papers_data_2013.csv and _2023.csv, for the figure of publications",
    type=FILE,
    metavar="DIR",
)
@click.pass_context
def command(
    context: click.Context,
    /,
    experiments: tuple[str, ...],
    tracking_uri: str | None,
    margin: float,
    confidence: float,
    decide_on: str | None,
    dashboard: str,
    forms: str,
    out: Path | None,
    plotlyjs: Literal["inside", "directory"],
    price_per_kwh: str | None,
    publications: Path | None,
    where: tuple[str, ...],
    **options: Any,
) -> None:
    """Write the results of an experiment as one HTML page that opens without a network.

    Prints the page's path and the answer: which model is good enough and what it saves, as `pepr
    select`. Runs that must not be scored together, as pretrained and from scratch, are shown in
    groups. Images and tables of every figure go into a folder next to the page.

    \b
    Examples:
      pepr report --experiment derma
      pepr report --experiment derma --margin 0.02 --images-per-year 20000 --years 5
      pepr report --experiment derma --price-per-kwh 0.30€
      pepr report --experiment derma_pt --dashboard paper --out derma_pt.html
      pepr report --experiment derma --format html,pdf,latex --out report/derma.html
      pepr report --experiment derma --resource E,M --resource-weights 0.7,0.3 --country DNK
    """
    from pepr_mlops.comparison.answer import Terms
    from pepr_mlops.report import badges, dashboards, page, sources, summary, templates
    from pepr_mlops.report.figures import publications as papers
    from pepr_mlops.report.spending import Price

    requested = _forms(forms)
    price = None if price_per_kwh is None else Price.parse(price_per_kwh)
    terms = Terms(margin, confidence, decide_on)  # type: ignore[arg-type]
    board = dashboards.load(dashboard)
    request = _question(context, board, options)
    countries = None if publications is None else papers.read(publications)
    say(f"reading {', '.join(experiments)} …", err=True)
    source = sources.read(
        experiments,
        list(board.experiments),
        performance=request.performance,
        where=pairs(where),
        tracking_uri=tracking_uri,
    )
    prepared, notes = sources.sort(source, request, board.experiments)
    if where:
        notes.insert(0, f"only runs with {', '.join(where)}")
    material = sources.material(source, prepared, request, countries, terms)
    path = out or Path(_file_name(experiments))
    folder = path.with_suffix("") if path.suffix else path.with_name(f"{path.name}-files")
    if "html" in requested:
        say("drawing the page …", err=True)
        labels = sources.energy_labels(material, tracking_uri)
        html = page.html(
            *(material, board, notes, labels),
            command=command_line(context, "pepr report"),
            made=templates.made_now(),
            price=price,
            plotlyjs=plotlyjs,
        )
        _write_page(path, html, plotlyjs)
    if set(requested) - {"html"}:
        panels, _ = page.panels(material, board)
        _write_images(panels, [form for form in IMAGES if form in requested], folder)
        _write_tables(panels, [form for form in TABLES if form in requested], folder)
    note(*badges.doubts(material), *summary.all_notes(material, notes))
    say(path if "html" in requested else folder)
    _say_answers(summary.answers(material))


def _question(context: click.Context, board: Dashboard, options: dict[str, Any]) -> Question:
    """The question of the options; those that were not given are the dashboard's."""
    if context.get_parameter_source("resources") is ParameterSource.DEFAULT and board.resources:
        options["resources"] = ",".join(board.resources)
    if options["normalisation"] is None and options["reference"] is None:
        options["normalisation"] = board.normalisation
    return question(**options)


def _write_page(path: Path, html: str, plotlyjs: str) -> None:
    from pepr_mlops.report.page import PLOTLY_FILE, plotly_script

    write(path, html)
    if plotlyjs == "directory":
        write(path.parent / PLOTLY_FILE, plotly_script())


def _say_answers(answers: Sequence[Answer]) -> None:
    for answer in answers:
        if len(answers) > 1:
            say(f"\n{answer.comparison_set}")
        say("\n".join(f"{line}." for line in (answer.verdict, *answer.reasons, *answer.details)))


def _forms(text: str) -> tuple[str, ...]:
    forms = names(text)
    for form in forms:
        if form not in FORMATS:
            raise WrongUse(f"format: {form!r} is not one of {', '.join(FORMATS)}")
    if not forms:
        raise WrongUse(f"format: name one or more of {', '.join(FORMATS)}")
    return forms


def _file_name(experiments: tuple[str, ...]) -> str:
    """A name for the page whatever the experiments are called."""
    words = [file_name(name) or "experiment" for name in experiments]
    return f"pepr-report-{file_name('-'.join(words))}.html"


def _write_images(panels: list[Panel], forms: list[str], folder: Path) -> None:
    if not forms:
        return
    from tqdm import tqdm

    from pepr_mlops.report.images import images

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WorkFailed(f"out: {folder} cannot be made ({error.strerror})") from error
    with tqdm(total=len(panels) * len(forms), unit="image", leave=False, disable=None) as bar:
        images(panels, forms, folder, lambda path: bar.update())


def _write_tables(panels: list[Panel], forms: list[str], folder: Path) -> None:
    for i, panel in enumerate(panels, 1):
        for form in forms:
            table = panel.table.drop(columns="run_id", errors="ignore")
            if panel.paper is not None and form != "csv":
                table = panel.paper
            path = folder / f"{i:02d}-{panel.kind}.{TABLES[form]}"
            write(path, render(table, form) + "\n")


def main() -> None:
    """Run `pepr-report` and exit with its status."""
    from pepr_mlops.cli import run_command

    gc.disable()  # the process ends soon; a search for cycles takes a tenth of its time
    run_command(
        lambda: command.main(prog_name="pepr-report", standalone_mode=False), is_program=True
    )
