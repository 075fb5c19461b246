"""`pepr report`, also `pepr-report`: an experiment as a page, figures and tables."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from pepr_mlops.cli import options as asked
from pepr_mlops.cli.options import Command, option
from pepr_mlops.cli.output import say
from pepr_mlops.errors import WorkFailed, WrongUse
from pepr_mlops.text import file_name

if TYPE_CHECKING:
    from pepr_mlops.report.figures.common import Panel

IMAGES = ("png", "svg", "pdf")
TABLES = {"csv": "csv", "latex": "tex", "markdown": "md"}
FORMATS = ("html", *IMAGES, *TABLES)

_EXAMPLE = """
    \b
    Examples:
      pepr report --experiment derma
      pepr report --experiment derma_pt --dashboard paper --out derma_pt.html
      pepr report --experiment derma --format html,pdf,latex --out report/derma.html
      pepr report --experiment derma --resource E,M --resource-weights 0.7,0.3 --country DNK
"""


@click.command(
    cls=Command,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Write what an experiment says as one HTML page that opens without a network.\n\n"
    "Printed are the page's path and the answer: best by PePR, best by performance, what the "
    "difference costs. Images and tables of every figure go into a folder beside the page.\n"
    + _EXAMPLE,
)
@asked.which
@asked.how
@option(
    "Essentials",
    "--dashboard",
    default="default",
    show_default=True,
    metavar="NAME|FILE",
    help="which figures: default, paper, budget, or a TOML file of your own",
)
@option(
    "Output",
    "--format",
    "forms",
    default="html",
    show_default=True,
    metavar="FORM[,…]",
    help=f"any of {', '.join(FORMATS)}",
)
@option(
    "Output",
    "--out",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="the page [default: pepr-report-EXPERIMENT.html]",
)
@option(
    "Output",
    "--plotlyjs",
    type=click.Choice(["inside", "directory"]),
    default="inside",
    show_default=True,
    help="plotly.js in the page (5 MB), or as a file beside it that several pages share",
)
@option(
    "Output",
    "--publications",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="folder of regions_papers_data_2013.csv and _2023.csv, for the figure of publications",
)
@click.pass_context
def command(
    context: click.Context,
    /,
    experiments: tuple[str, ...],
    tracking_uri: str | None,
    dashboard: str,
    forms: str,
    out: Path | None,
    plotlyjs: str,
    publications: Path | None,
    where: tuple[str, ...],
    **options: Any,
) -> None:
    from plotly.offline import get_plotlyjs

    from pepr_mlops.cli.output import tell
    from pepr_mlops.report import dashboards as boards
    from pepr_mlops.report import page, sources, summary
    from pepr_mlops.report.figures import publications as papers

    wanted = _forms(forms)
    board = boards.load(dashboard)
    if context.get_parameter_source("resources") is ParameterSource.DEFAULT and board.resources:
        options["resources"] = ",".join(board.resources)
    if options["normalisation"] is None and options["reference"] is None:
        options["normalisation"] = board.normalisation
    question = asked.question(**options)
    countries = None if publications is None else papers.read(publications)
    say(f"reading {', '.join(experiments)} …", err=True)
    source = sources.read(
        experiments,
        list(board.experiments),
        performance=question.performance,
        where=asked.pairs(where),
        tracking_uri=tracking_uri,
    )
    prepared, notes = sources.sort(source, question, board.experiments)
    if where:
        notes.insert(0, f"only runs with {', '.join(where)}")
    material = sources.material(source, prepared, question, countries)

    path = out or Path(_file_name(experiments))
    written = []
    if "html" in wanted:
        say("drawing the page …", err=True)
        text = page.html(
            material,
            board,
            notes,
            command=asked.typed(context, "pepr report"),
            made=page.made_now(),
            plotlyjs=plotlyjs,  # type: ignore[arg-type]
        )
        _write(path, text)
        if plotlyjs == "directory":
            _write(path.parent / page.PLOTLY_FILE, get_plotlyjs())
        written.append(path)
    if set(wanted) - {"html"}:
        folder = _folder(path)
        panels, _ = page.panels(material, board)
        written += _images(panels, [f for f in wanted if f in IMAGES], folder)
        written += _tables(panels, [f for f in wanted if f in TABLES], folder)
    found = summary.summarise(material, notes)
    tell([*found.warnings, *found.notes])
    say(f"{path if 'html' in wanted else _folder(path)}")
    for answer in found.answers:
        if len(found.answers) > 1:
            say(f"\n{answer.comparison_set}")
        say(f"{answer.best}.\n{answer.performer}.\n{answer.difference}.")


def _forms(text: str) -> list[str]:
    forms = [word.strip() for word in text.split(",") if word.strip()]
    for form in forms:
        if form not in FORMATS:
            raise WrongUse(f"format: {form!r} is not one of {', '.join(FORMATS)}")
    if not forms:
        raise WrongUse(f"format: name one or more of {', '.join(FORMATS)}")
    return list(dict.fromkeys(forms))


def _folder(path: Path) -> Path:
    """Where images and tables go: beside the page, under its name without the ending."""
    return path.with_suffix("") if path.suffix else path.with_name(f"{path.name}-files")


def _file_name(experiments: tuple[str, ...]) -> str:
    """A name for the page whatever the experiments are called."""
    words = [file_name(name) or "experiment" for name in experiments]
    return f"pepr-report-{file_name('-'.join(words))}.html"


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise WorkFailed(f"out: {path} cannot be written ({error.strerror})") from error


def _images(panels: list[Panel], forms: list[str], folder: Path) -> list[Path]:
    if not forms:
        return []
    from tqdm import tqdm

    from pepr_mlops.report.images import images

    _make(folder)
    with tqdm(total=len(panels) * len(forms), unit="image", leave=False, disable=None) as shown:
        return images(panels, forms, folder, lambda path: shown.update())


def _tables(panels: list[Panel], forms: list[str], folder: Path) -> list[Path]:
    from pepr_mlops.cli.output import text
    from pepr_mlops.comparison.table import readable
    from pepr_mlops.report.figures.ranking import headings, listed

    written = []
    for i, panel in enumerate(panels, 1):
        for form in forms:
            table, columns = panel.table.drop(columns="run_id", errors="ignore"), None
            if panel.recompute is not None and form != "csv":  # what a paper prints
                shown = listed(panel.table, panel.recompute["top"])
                columns = headings(shown, panel.recompute["by"])
                table = readable(shown, list(columns))
            path = folder / f"{i:02d}-{panel.kind}.{TABLES[form]}"
            _write(path, text(table, form, columns) + "\n")
            written.append(path)
    return written


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WorkFailed(f"out: {folder} cannot be made ({error.strerror})") from error


def main() -> None:
    """Run `pepr-report` and exit with its status."""
    from pepr_mlops.cli import run_command

    run_command(lambda: command.main(prog_name="pepr-report", standalone_mode=False), whole=True)
