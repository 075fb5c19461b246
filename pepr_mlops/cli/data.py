"""`pepr data`: data sets, their files, and whether they are sound."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pepr_mlops.cli import data_describe, data_lidc
from pepr_mlops.cli.options import FILE, Command, of_spec, option, spec_of, tracking_uri
from pepr_mlops.cli.output import as_json, render, say, say_or_write, table
from pepr_mlops.spec import OF_FILES, SIZES, RunSpec
from pepr_mlops.text import printable

if TYPE_CHECKING:
    from pepr_mlops.data.audit import Audit

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


@click.group
def command() -> None:
    """List, fetch, describe, check and build data sets.

    \b
    Examples:
      pepr data list
      pepr data get derma --size 28
      pepr data describe ./my_images
      pepr data check ./my_images
      pepr data lidc --dicom ./LIDC-IDRI --out ./lidc
    """


command.add_command(data_lidc.command)
command.add_command(data_describe.command)


@command.command("list")
@_root
@click.option("--format", "form", type=click.Choice(["table", "csv", "json"]), default="table")
def list_(data_root: str | None, form: str) -> None:
    """List the data sets known by name, and which of their files are on this disk.

    \b
    Examples:
      pepr data list
      pepr data list --data-root ./medmnist --format json
    """
    from dataclasses import asdict

    from pepr_mlops.data.catalogue import catalogue
    from pepr_mlops.data.splits import SPLITS

    entries = catalogue(data_root)
    if form == "json":
        say(as_json([asdict(entry) for entry in entries]))
        return
    thousands = "," if form == "table" else ""
    rows = [
        {
            "name": entry.name,
            "alias": entry.alias or "",
            "task": entry.task,
            "classes": str(len(entry.classes) or ""),
            "channels": str(entry.channels),
            **{
                split: f"{entry.images[split]:{thousands}}" if split in entry.images else ""
                for split in SPLITS
            },
            "sizes": " ".join(map(str, entry.sizes)),
            "licence": entry.licence,
            "on disk": " ".join(map(str, entry.on_disk)),
        }
        for entry in entries
    ]
    say(render(rows, form))


@command.command
@click.argument("name")
@_size
@_root
def get(name: str, size: int, data_root: str | None) -> None:
    """Download the file of a data set, verify it, and print where it is.

    `pepr train` does so by itself; use this before a machine goes offline.

    \b
    Examples:
      pepr data get derma
      pepr data get pneumonia --size 28 --data-root ./medmnist
    """
    from pepr_mlops.data import fetch

    fetched = fetch(name, size, data_root)
    if fetched is None:
        say(f"{name} comes with scikit-learn and needs no download", err=True)
        return
    path, new = fetched
    say("downloaded and verified" if new else "already here and intact", err=True)
    say(path)


@command.command
@click.option("--experiment", "experiments", multiple=True, required=True, metavar="NAME")
@click.option("--dataset", metavar="DIR", help="where the data set is now, if it has moved")
@_root
@tracking_uri
def identify(
    experiments: tuple[str, ...],
    dataset: str | None,
    data_root: str | None,
    tracking_uri: str | None,
) -> None:
    """Find out which data earlier runs used.

    Runs are compared by a digest of their data set. Runs logged by versions without one are
    compared by its name, and never with others. Where the data set is still here, this draws and
    resizes it as each of these runs did. If its images have the digests that the run logged, the
    digest of the data set is added to the run.

    \b
    Examples:
      pepr data identify --experiment derma
      pepr data identify --experiment clinic --dataset /archive/clinic
    """
    from pepr_mlops.sweep.earlier import identify_runs

    matches, absent = identify_runs(
        experiments, dataset=dataset, data_root=data_root, tracking_uri=tracking_uri
    )
    counts = {
        "used the data that are here; their digest was logged": matches.same,
        "used other data": matches.other,
        "cannot be checked: the data are not here, or the run logged no digest or used a file of "
        "weights": matches.unknown,
    }
    rows = [(str(len(runs)), text) for text, runs in counts.items() if runs]
    rows += [("", f"{path} is not here; give --dataset or --data-root") for path in absent]
    say(table(rows) if rows else "all finished runs name the data they used")


@command.command(cls=Command)
@click.argument("target")
@of_spec("size", "data_root", "folds", "fold", *OF_FILES)
@option(
    "Output",
    "--format",
    "how to write the result",
    name="form",
    type=click.Choice(["table", "json"]),
    default="table",
)
@option(
    "Output",
    "--out",
    "write all pairs of identical images to this file",
    type=FILE,
    metavar="CSV",
)
def check(target: str, form: str, out: Path | None, **given: str | bool | None) -> int:
    """Check a data set before a model is trained on it: class balance, damaged files, wrong labels,
    and images or patients in more than one split.

    TARGET is a folder of classes, DIR/CLASS/* or DIR/{train,val,test}/CLASS/*, a table LABELS.csv
    of images and labels, a FILE.npz in MedMNIST's format, a folder of such files, or a name of
    `pepr data list`. A table FILE.csv next to FILE.npz is checked too: it has the columns patient
    and split and a row for each image. The exit status is 1 when there is an error, 0 with warnings
    only.

    \b
    Examples:
      pepr data check ./my_images
      pepr data check labels.csv --images ./jpegs --patient-column patient
      pepr data check ./dicom --window 40,400 --format json
      pepr data check pneumonia --size 28
      pepr data check ./my_images --out pairs.csv
    """
    import pandas as pd

    from pepr_mlops.data.audit_files import audit_target

    audits = audit_target(spec_of({"dataset": target, **given}))
    if out is not None:
        pairs = pd.concat([audit.pairs.assign(source=audit.source) for audit in audits])
        say_or_write(render(pairs[["source", *audits[0].pairs]], "csv"), out)
    if form == "json":
        say(as_json([vars(a) | {"findings": [vars(f) for f in a.findings]} for a in audits]))
    else:
        say("\n\n".join(_text(audit, advise=out is None) for audit in audits))
    return int(any(audit.of("error") for audit in audits))


def _text(audit: Audit, *, advise: bool) -> str:
    """Class balance, shapes and findings, errors first; `advise` adds how to list all pairs."""
    from pepr_mlops.data.audit import STRICT

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
    for finding in audit.findings:
        lines.append(printable(f"{finding.severity}: {finding.message}"))
        lines += [f"    {printable(example)}" for example in finding.examples]
    if advise and len(audit.pairs) > _SHOWN:
        lines.append(f"all {len(audit.pairs):,} pairs of identical images: --out pairs.csv")
    if any(finding.kind in STRICT for finding in audit.findings):
        lines.append("--strict refuses to train on leaks, conflicts, repeats and single images")
    errors, warnings = len(audit.of("error")), len(audit.of("warning"))
    return "\n".join([*lines, f"errors: {errors}, warnings: {warnings}"])
