"""`pepr data`: the data sets there are, their files, and whether they are sound."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pepr_mlops.cli import data_lidc
from pepr_mlops.cli.options import tracking_uri
from pepr_mlops.cli.output import say
from pepr_mlops.cli.table import table
from pepr_mlops.spec import SIZES, RunSpec

if TYPE_CHECKING:
    import pandas as pd

    from pepr_mlops.data.audit import Audit, Finding
    from pepr_mlops.data.catalogue import Entry

_EXAMPLE = """
    \b
    Examples:
      pepr data list
      pepr data get derma --size 28
      pepr data check ./my_images
      pepr data lidc --dicom ./LIDC-IDRI --out ./lidc
"""
_LIST_EXAMPLE = """
    \b
    Examples:
      pepr data list
      pepr data list --data-root ./medmnist --format json
"""
_GET_EXAMPLE = """
    \b
    Examples:
      pepr data get derma
      pepr data get pneumonia --size 28 --data-root ./medmnist
"""
_IDENTIFY_EXAMPLE = """
    \b
    Examples:
      pepr data identify --experiment derma
      pepr data identify --experiment clinic --dataset /archive/clinic
"""
_CHECK_EXAMPLE = """
    \b
    Examples:
      pepr data check ./my_images
      pepr data check pneumonia --size 28
      pepr data check ./my_images --out pairs.csv
      pepr data check ./medmnist --format json
"""
_STRICT = {"leakage", "conflict", "duplicates", "alone"}  # findings that `--strict` refuses
_SHOWN = 5  # shapes of images in a table, and pairs of identical ones

_root = click.option(
    "--data-root", metavar="DIR", help="folder of the data sets [default: MedMNIST's own]"
)
_size = click.option(
    "--size",
    type=click.Choice(SIZES),
    default=RunSpec.size,
    show_default=True,
    help="resolution of the MedMNIST file",
)


@click.group(help="List, fetch, check and build data sets.\n" + _EXAMPLE)
def command() -> None:
    pass


command.add_command(data_lidc.command)


@command.command(
    "list",
    help="List the data sets that have a name, and which of their files are here.\n"
    + _LIST_EXAMPLE,
)
@_root
@click.option("--format", "form", type=click.Choice(["table", "csv", "json"]), default="table")
def list_(data_root: str | None, form: str) -> None:
    from pepr_mlops.data.catalogue import catalogue

    entries = catalogue(data_root)
    if form == "json":
        import json
        from dataclasses import asdict

        say(json.dumps([asdict(entry) for entry in entries], indent=2))
        return
    header = ["name", "alias", "task", "classes", "channels", "train", "val", "test"]
    header += ["sizes", "licence", "on disk"]
    rows = [_row(entry, "," if form == "table" else "") for entry in entries]
    if form == "csv":
        import csv
        import sys

        csv.writer(sys.stdout, lineterminator="\n").writerows([header, *rows])
        return
    say(table(rows, header))


def _row(entry: Entry, thousands: str) -> list[str]:
    return [
        entry.name,
        entry.alias or "",
        entry.task,
        str(len(entry.classes) or ""),
        str(entry.channels),
        *(
            f"{entry.images[split]:{thousands}}" if split in entry.images else ""
            for split in ("train", "val", "test")
        ),
        " ".join(map(str, entry.sizes)),
        entry.licence,
        " ".join(map(str, entry.on_disk)),
    ]


@command.command(
    help="Download the file of a data set, verify it, and print where it is.\n\n"
    "`pepr train` does so by itself; this prepares a machine that will be offline.\n" + _GET_EXAMPLE
)
@click.argument("name")
@_size
@_root
def get(name: str, size: int, data_root: str | None) -> None:
    from pepr_mlops.data import fetch

    fetched = fetch(name, size, data_root)
    if fetched is None:
        say(f"{name} comes with scikit-learn and needs no download", err=True)
        return
    path, new = fetched
    say("downloaded and verified" if new else "was here already and is intact", err=True)
    say(path)


@command.command(
    help="Find out which data earlier runs used.\n\n"
    "Runs are compared by a digest of their data set. Runs logged by versions that had none are "
    "compared by its name, and never with others. Where the data set is still here, this draws and "
    "resizes it as each of these runs did, compares the digests of the images that the run logged, "
    "and logs the digest of the data set if they are the same.\n" + _IDENTIFY_EXAMPLE
)
@click.option("--experiment", "experiments", multiple=True, required=True, metavar="NAME")
@click.option("--dataset", metavar="DIR", help="the data set, if it was moved since")
@_root
@tracking_uri
def identify(
    experiments: tuple[str, ...],
    dataset: str | None,
    data_root: str | None,
    tracking_uri: str | None,
) -> None:
    from pepr_mlops.sweep import sweep

    found, absent = sweep.identify(
        experiments, dataset=dataset, data_root=data_root, tracking_uri=tracking_uri
    )
    counts = {
        "used the data that are here; their digest was logged": found.same,
        "used other data": found.other,
        "not known: the data are not here, or the run logged no digest or had a file of weights": (
            found.unknown
        ),
    }
    rows = [(str(len(runs)), text) for text, runs in counts.items() if runs]
    for place in absent:
        rows.append(("", f"not here: {place}; say where it is with --dataset or --data-root"))
    say(table(rows) if rows else "all finished runs say which data they used")


@command.command(
    help="Check a data set before a model is trained on it: class balance, damaged files, wrong "
    "labels, and images or patients in more than one split.\n\n"
    "TARGET is DIR/{train,val,test}/CLASS/*.png, a FILE.npz in MedMNIST's format, a folder of "
    "such files, or a name of `pepr data list`. Beside FILE.npz a table FILE.csv with the columns "
    "patient and split, a row for each image, is compared as well. The exit status is 1 when "
    "there is an error, 0 with warnings only.\n" + _CHECK_EXAMPLE
)
@click.argument("target")
@_size
@_root
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="CSV",
    help="write all pairs of identical images there",
)
def check(target: str, size: int, data_root: str | None, form: str, out: Path | None) -> int:
    from pepr_mlops.data.audit_files import examine

    audits = examine(target, size, data_root)
    if out is not None:
        from pepr_mlops.cli.output import give, text

        give(text(_pairs(audits), "csv"), out)
    if form == "json":
        from dataclasses import asdict

        from pepr_mlops.cli.output import as_json

        found = [
            {
                **asdict(audit),
                "counts": audit.counts.to_dict("records"),
                "shapes": audit.shapes.to_dict("records"),
                "pairs": audit.pairs.to_dict("records"),
            }
            for audit in audits
        ]
        say(as_json(found))
    else:
        say("\n\n".join(map(_text, audits)))
    return int(any(audit.of("error") for audit in audits))


def _pairs(audits: Sequence[Audit]) -> pd.DataFrame:
    """The pairs of identical images of all data sets, `source` naming theirs."""
    import pandas as pd

    frames = [audit.pairs.assign(source=audit.source) for audit in audits]
    return pd.concat(frames)[["source", *audits[0].pairs]]


def _text(audit: Audit) -> str:
    """Class balance, shapes and findings, errors first."""
    lines = [audit.source, ""]
    if len(audit.counts):
        rows = [
            [split, name, f"{n:,}", f"{100 * share:.1f}"]
            for split, name, n, share in audit.counts.itertuples(index=False)
        ]
        lines += [table(rows, ["split", "class", "images", "%"]), ""]
    if len(audit.shapes):
        shapes = [
            f"{n:,} of {height}×{width} {colour}"
            for height, width, colour, n in audit.shapes[:_SHOWN].itertuples(index=False)
        ]
        more = len(audit.shapes) - _SHOWN
        lines += [f"shapes: {', '.join(shapes)}{f' and {more:,} more' if more > 0 else ''}", ""]
    lines += map(_lines, audit.findings)
    if len(audit.pairs) > _SHOWN:
        lines.append(f"all {len(audit.pairs):,} pairs of identical images: --out pairs.csv")
    errors, warnings = len(audit.of("error")), len(audit.of("warning"))
    if any(finding.kind in _STRICT for finding in audit.findings):
        lines.append("--strict refuses to train on leaks, conflicts, repeats and single images")
    lines.append(f"errors: {errors}, warnings: {warnings}")
    return "\n".join(lines)


def _lines(finding: Finding) -> str:
    from pepr_mlops.text import printable

    first = f"{finding.severity}: {finding.message}"
    return "\n".join(map(printable, [first, *(f"    {example}" for example in finding.examples)]))
