"""The energy label: a letter from A to E for training a model and for using it, as an SVG.

A letter compares one number with those of a reference: Wh per 1,000 training images and epoch, or
Wh per 1,000 images classified. Per image and epoch, since data sets and numbers of epochs differ.
"""

from __future__ import annotations

import bisect
import math
import re
import statistics
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from pepr_mlops.errors import WrongUse
from pepr_mlops.files import read_json
from pepr_mlops.report import theme
from pepr_mlops.report.templates import TEMPLATES
from pepr_mlops.text import number, printable
from pepr_mlops.validation import checked

LETTERS = "ABCDE"
_BOUNDS = (-1.5, -0.5, 0.5, 1.5)  # between letters, in factors of two from the median
# From green to red as Okabe and Ito have them, which grow lighter and then darker again.
COLOURS = (theme.GREEN, "#8CC65A", "#F0E442", theme.ORANGE, theme.RED)
# How an energy came about, in large print, by `pepr.energy_source`.
PRINT = {"measured": "MEASURED", "estimated": "ESTIMATED", "imported": "PUBLISHED"}
_VERSION = 1
_WIDTH, _LINE = 36, 10.5  # characters of a line of small print, and its height
_TRAINED = re.compile(r"(\d+) of \d+ epochs trained")  # of the tag `pepr.early_stop`
_CONDITIONS = {"hardware": "{}", "image_size": "{} pixels", "precision": "{}"}

What = Literal["train", "use"]


@dataclass(frozen=True)
class Reference:
    """Energies that a letter compares with: `wh` by model, in Wh per 1,000 training images and
    epoch or per 1,000 images classified. `name` says whose in a line, `source` where they are from.
    `hardware`, `image_size` and `precision` are theirs, None where not known."""

    name: str
    source: str
    wh: Mapping[str, float]
    hardware: str | None = None
    image_size: str | None = None
    precision: str | None = None
    caveats: tuple[str, ...] = ()


References = Mapping[What, Reference]


@dataclass(frozen=True)
class Side:
    """One half of a label. `wh` is the number that the letter is of, `per` its unit, and `origin`
    how it came about, in print. `missing` says why there is no number or no letter. `unlike` are
    the conditions that differ from those of the reference."""

    title: str
    per: str
    wh: float | None = None
    total: str = ""
    origin: str = ""
    letter: str | None = None
    missing: str = ""
    unlike: tuple[str, ...] = ()
    reference: Reference | None = None


@dataclass(frozen=True)
class Label:
    """The energy label of one run."""

    model: str
    training: Side
    use: Side
    made: str


def letter(wh: float, reference: Reference) -> str:
    """The letter of an energy.

    C is within a factor of √2 of the median of the reference, and each letter is a factor of two:
    A is less than 0.35 of the median, E more than 2.8 times it. A letter thus stands for the same
    amount whichever models are in the reference, and only one number of the reference decides, its
    median, which a few models hardly move. Fifths of the reference would move in four places and
    make some letters a factor of 1.2 wide.
    """
    middle = statistics.median(reference.wh.values())
    return LETTERS[bisect.bisect_right(_BOUNDS, math.log2(wh / middle))]


def references(path: Path | None = None) -> References:
    """The references: those shipped, each replaced by that of the JSON file `path` if it has one.
    Raises `WrongUse` for a file that is none."""
    shipped = resources.files("pepr_mlops.report").joinpath("energy_reference.json")
    with resources.as_file(shipped) as own:
        found = _read(own)
    return found if path is None else {**found, **_read(path)}


def _read(path: Path) -> dict[What, Reference]:
    where = f"label_reference: {path}"
    try:
        content = read_json(path, "label_reference")
    except OSError as error:
        raise WrongUse(f"{where} cannot be read ({error.strerror})") from error
    if not isinstance(content, Mapping) or content.get("version") != _VERSION:
        raise WrongUse(f'{where} has no "version": {_VERSION}; write it as docs/using.md shows')
    parts = {k: v for k, v in content.items() if k != "version"}
    found: dict[What, Reference] = checked(dict[What, Reference], parts, where)
    for name, reference in found.items():
        wrong = [v for v in reference.wh.values() if not (0 < v < math.inf)]
        if wrong or not reference.wh:
            value = f"{wrong[0]:g}" if wrong else "nothing"
            raise WrongUse(f"{where}: wh of {name} has {value}; give numbers of Wh above 0")
    return found


def label_of(run: pd.Series, train_images: int | None, found: References, *, made: str) -> Label:
    """The label of a run, a row of the frame of runs.

    `train_images` is the number of its training images, None where that was not logged.
    """
    return Label(
        printable(f"{run['model']} on {run['dataset']}"),
        _training(run, train_images, found.get("train")),
        _use(run, found.get("use")),
        made,
    )


def _training(run: pd.Series, images: int | None, reference: Reference | None) -> Side:
    side = Side("Training", "Wh per 1,000 images and epoch", reference=reference)
    total = _known(run, "energy_wh")
    if total is None:
        return replace(side, missing=not_measured(run))
    side = replace(
        side, total=f"{number(total, 3)} Wh", origin=PRINT.get(str(run["energy_source"]), "")
    )
    epochs = trained_epochs(run)
    if images is None or epochs is None:
        what = "training images" if images is None else "epochs"
        return replace(side, missing=f"no letter: the number of {what} is not known")
    return _lettered(side, 1000 * total / (images * epochs), _unlike(run, reference, ""))


def _use(run: pd.Series, reference: Reference | None) -> Side:
    side = Side("Use", "Wh per 1,000 images", reference=reference)
    each = _known(run, "metrics.inference/wh_per_image")
    if each is None:
        return replace(side, missing="not measured: pepr profile measures it")
    source = str(run.get("tags.pepr.inference_energy_source", ""))
    side = replace(side, origin=PRINT.get(source, "SOURCE NOT KNOWN"))
    return _lettered(side, 1000 * each, _unlike(run, reference, "tags.pepr.inference_"))


def _lettered(side: Side, wh: float, unlike: tuple[str, ...]) -> Side:
    side = replace(side, wh=wh)
    if side.reference is None:
        return replace(side, missing="no letter: there is no measured reference")
    if wh <= 0:
        return replace(side, missing="no letter: the energy is zero")
    return replace(side, letter=letter(wh, side.reference), unlike=unlike)


def not_measured(run: pd.Series) -> str:
    """Why a run has no energy of training."""
    why = run.get("energy_missing")
    return f"not measured: {why}" if isinstance(why, str) else "not measured"


def trained_epochs(run: pd.Series[Any] | Mapping[str, Any]) -> int | None:
    """How many epochs a run was trained for, also where patience ended it; None where a budget or a
    failure did."""
    if run["status"] != "FINISHED" or isinstance(run.get("stopped"), str):
        return None
    early = run.get("early_stop")
    if isinstance(early, str):
        trained = _TRAINED.search(early)
        return int(trained[1]) if trained else None
    epochs = run.get("epochs")
    return None if epochs is None or pd.isna(epochs) else int(epochs)


def _known(run: pd.Series, name: str) -> float | None:
    value = run.get(name)
    return None if value is None or not math.isfinite(value) else float(value)


def _unlike(run: pd.Series, reference: Reference | None, prefix: str) -> tuple[str, ...]:
    """The conditions of a run that are known to differ from those of the reference."""
    found = []
    for name, text in _CONDITIONS.items():
        theirs = None if reference is None else getattr(reference, name)
        ours = run.get(f"{prefix}{name}")
        if theirs is not None and ours is not None and not pd.isna(ours) and str(ours) != theirs:
            found.append(f"{text.format(ours)}, not {text.format(theirs)}")
    return tuple(found)


def sentences(side: Side) -> list[str]:
    """What one half of a label says, for the card and for readers of a screen."""
    if side.wh is None and not side.total:
        return [f"{side.title}: {side.missing}"]
    amounts = [side.total] if side.total else []
    amounts += [] if side.wh is None else [f"{number(side.wh, 3)} {side.per}"]
    first = f"{side.title}: {', '.join(amounts)}, {side.origin or 'source not known'}"
    if side.letter is None:
        return [first, side.missing]
    assert side.reference is not None
    found = [first, f"letter {side.letter} of A to E against {side.reference.name}"]
    return found + ([f"conditions differ: {'; '.join(side.unlike)}"] if side.unlike else [])


def spoken(label: Label) -> str:
    """All that a label says, for readers who do not see it."""
    halves = [*sentences(label.training), *sentences(label.use)]
    return f"Energy label of {label.model}. {'. '.join(halves)}."


@dataclass(frozen=True)
class _Line:
    y: float
    text: str
    size: float
    bold: bool


def svg(label: Label) -> str:
    """The label as a self-contained SVG file 200 units wide, readable at 200 pixels."""
    lines, y = [], 168.0
    for side in (label.training, label.use):
        lines.append(_Line(y, f"{side.title}: {side.origin}".rstrip(": "), 12.5, True))
        details = [side.total] if side.total else []
        details += [f"{number(side.wh, 3)} {side.per}"] if side.wh is not None else []
        details += [side.missing] if side.missing else []
        details += [f"Unlike the reference: {text}" for text in side.unlike]
        for text in details:
            for part in textwrap.wrap(printable(text), _WIDTH):
                y += _LINE + 1
                lines.append(_Line(y, part, 9, False))
        y += 18
    for text in _small_print(label):
        for part in textwrap.wrap(printable(text), _WIDTH):
            lines.append(_Line(y, part, 8.5, False))
            y += _LINE
    return TEMPLATES.get_template("label.svg").render(
        label=label,
        letters=list(zip(LETTERS, COLOURS, strict=True)),
        sides=[(label.training, 125), (label.use, 173)],
        place={name: i for i, name in enumerate(LETTERS)},
        lines=lines,
        height=math.ceil(y),
        names=textwrap.wrap(label.model, 33, max_lines=2, placeholder=" …"),
        spoken=spoken(label),
    )


def _small_print(label: Label) -> list[str]:
    """Against what the letters are, and when the label was made."""
    found = []
    for side in (label.training, label.use):
        if side.letter is not None and side.reference is not None:
            hardware = f", {side.reference.hardware}" if side.reference.hardware else ""
            found.append(f"{side.title} against {side.reference.name}{hardware}.")
    if found:
        found.append("C is near their median; each letter is a factor of two.")
    return [*found, label.made]
