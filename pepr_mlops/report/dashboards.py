"""Dashboards as code: which figures, in which order, for which question.

A dashboard is a TOML file:

    title = "Which model, for which energy?"
    resources = ["E", "M"]            # costs, the first is the main one
    normalisation = "zero"            # as `pepr score`
    [experiments.derma]               # shown beside what is asked for, where the server has it
    [experiments.imagenet]
    resources = ["inference/gmacs"]   # with costs of its own
    mixed = "stratify"                # refuse, stratify or allow runs that differ
    [[figure]]
    kind = "plane"                    # a file of `pepr_mlops.report`
    axis = "cost"                     # its options
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from pepr_mlops.comparison.pepr import METHODS
from pepr_mlops.errors import WrongUse, nearest
from pepr_mlops.files import read_toml
from pepr_mlops.report.figures import KINDS


@dataclass(frozen=True)
class Beside:
    """An experiment shown beside those asked for; None is as they are."""

    resources: tuple[str, ...] | None = None
    mixed: Literal["refuse", "stratify", "allow"] | None = None


@dataclass(frozen=True)
class Wanted:
    """One figure: its kind, title and caption (None for the kind's own) and `Options`."""

    kind: str
    options: Any
    title: str | None = None
    caption: str | None = None


@dataclass(frozen=True)
class Board:
    """A dashboard; `resources` and `normalisation` are None where it leaves them open."""

    title: str
    figures: tuple[Wanted, ...]
    resources: tuple[str, ...] | None = None
    normalisation: str | None = None
    experiments: Mapping[str, Beside] = field(default_factory=dict)


def shipped() -> dict[str, Path]:
    """The dashboards that come with the package, by name."""
    inside = Path(str(files("pepr_mlops"))) / "dashboards"  # in a wheel
    folder = inside if inside.is_dir() else inside.parents[1] / "dashboards"  # in a checkout
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def load(name: str) -> Board:
    """The dashboard of a name or in a file. Raises `WrongUse` for what is none, saying where."""
    known = shipped()
    path = known.get(name) or Path(name)
    try:
        content = read_toml(path, "dashboard")
    except OSError as error:
        raise WrongUse(
            f"dashboard: {name!r} is neither a file that can be read ({error.strerror}) nor one "
            f"of {', '.join(known)}{nearest(name, known)}"
        ) from error
    return parse(content, str(path))


def parse(content: Mapping[str, Any], where: str) -> Board:
    """A dashboard from the content of a TOML file. Raises `WrongUse` naming the file and key."""
    valid = {"title": str, "resources": tuple[str, ...], "experiments": dict, "figure": list,
             "normalisation": Literal[tuple(m for m in METHODS if m != "reference")]}  # fmt: skip
    _known(content, valid, where)
    values = {
        key: _typed(content[key], kind, f"{where}: {key}")
        for key, kind in valid.items()
        if key in content
    }
    if not values.get("figure"):
        raise WrongUse(f"dashboard: {where} has no [[figure]]; valid kinds: {', '.join(KINDS)}")
    figures = [_figure(f, f"{where}: figure {i}") for i, f in enumerate(values["figure"], 1)]
    beside = {
        name: Beside(**_options(Beside, given, f"{where}: experiments.{name}"))
        for name, given in values.get("experiments", {}).items()
    }
    return Board(
        title=values.get("title", "PePR report"),
        figures=tuple(figures),
        resources=values.get("resources"),
        normalisation=values.get("normalisation"),
        experiments=beside,
    )


def _figure(given: Any, where: str) -> Wanted:
    given = dict(_typed(given, dict, where))
    kind = given.pop("kind", None)
    if not isinstance(kind, str) or kind not in KINDS:
        raise WrongUse(
            f"dashboard: {where}: kind {kind!r} is none{nearest(str(kind), KINDS)} Valid: "
            f"{', '.join(KINDS)}"
        )
    where = f"{where} ({kind})"
    words = {
        key: _typed(given.pop(key), str, f"{where}: {key}")
        for key in ("title", "caption")
        if key in given
    }
    options = KINDS[kind].Options
    return Wanted(kind, options(**_options(options, given, where, ("title", "caption"))), **words)


def _options(kind: type, given: Any, where: str, more: tuple[str, ...] = ()) -> dict[str, Any]:
    given = _typed(given, dict, where)
    hints = get_type_hints(kind)
    types = {f.name: hints[f.name] for f in fields(kind)}
    _known(given, [*types, *more], where)
    return {key: _typed(value, types[key], f"{where}: {key}") for key, value in given.items()}


def _known(given: Mapping[str, Any], valid: Any, where: str) -> None:
    for key in given:
        if key not in valid:
            raise WrongUse(
                f"dashboard: {where}: no such key {key!r}{nearest(key, valid) or '.'} Valid: "
                f"{', '.join(valid) or 'none'}"
            )


def _typed(value: Any, kind: Any, where: str) -> Any:
    """The value as the type asks for it, lists as tuples."""
    choices = [k for k in get_args(kind) if k is not type(None)]
    if type(None) in get_args(kind):
        return _typed(value, choices[0], where)
    if get_origin(kind) is Literal:
        if value not in choices:
            raise WrongUse(
                f"dashboard: {where} is {value!r}; valid: {', '.join(map(str, choices))}"
            )
        return value
    if get_origin(kind) is tuple:
        if not isinstance(value, list) or not all(isinstance(v, choices[0]) for v in value):
            raise WrongUse(f"dashboard: {where} is {value!r}; valid: a list of texts")
        return tuple(value)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind is float and number:
        return float(value)
    count = number and value > 0  # what is a whole number here says how many to show
    if not isinstance(value, kind) or (kind is int and not count):
        words = {str: "a text", int: "a whole number from 1", float: "a number",
                 bool: "true or false", dict: "a table", list: "a list of tables"}  # fmt: skip
        raise WrongUse(f"dashboard: {where} is {value!r}; valid: {words[kind]}")
    return value
