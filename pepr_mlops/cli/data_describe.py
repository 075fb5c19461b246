"""`pepr data describe`: what a data set holds, on one page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pepr_mlops.cli.options import FILE, Command, of_spec, option, spec_of
from pepr_mlops.cli.output import render, say, table, write
from pepr_mlops.spec import OF_FILES

if TYPE_CHECKING:
    from pepr_mlops.data.description import Description


@click.command("describe", cls=Command)
@click.argument("target")
@of_spec("size", "data_root", "image_size", "channels", "folds", "fold", "seed", *OF_FILES)
@option(
    "Output",
    "--html",
    "write one page with images of each class to this file",
    name="page",
    type=FILE,
    metavar="FILE",
)
@option(
    "Output",
    "--out",
    "write which file is which image of predictions.npz to this file",
    type=FILE,
    metavar="CSV",
)
def command(target: str, page: Path | None, out: Path | None, **given: str | bool | None) -> None:
    """Describe a data set: its classes, splits, patients, subgroups, files and grey values.

    TARGET is a folder of classes, a table LABELS.csv of images and labels, or a name of `pepr data
    list`. Splits are those that training with the same options would use. Nothing that is printed
    or written names a patient; the table of --out names files.

    \b
    Examples:
      pepr data describe ./archive
      pepr data describe ./archive --html archive.html
      pepr data describe labels.csv --images ./jpegs --out files.csv
      pepr data describe ./dicom --window 40,400 --image-size 128
      pepr data describe digits
    """
    from pepr_mlops.data.describe import open_target

    found = open_target(spec_of({"dataset": target, **given}))
    names = None if out is None else found.files()
    described = found.describe()
    say(_text(described))
    if page is not None:
        from pepr_mlops.report import dataset, templates

        write(page, dataset.html(described, found.contact_sheet(), templates.made_now()), "html")
        say(f"written to {page}", err=True)
    if out is not None and names is not None:
        write(out, render(names, "csv") + "\n")
        say(f"written to {out}", err=True)


def _text(described: Description) -> str:
    rows = [[name, *(f"{n:,}" for n in counts)] for name, counts in described.rows()]
    lines = [described.name, "", table(rows, ["class", *described.images]), ""]
    lines += [table([list(fact) for fact in described.facts()]), ""]
    return "\n".join([*lines, *(f"note: {note}" for note in described.notes)]).rstrip()
