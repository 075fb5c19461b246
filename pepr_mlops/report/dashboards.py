"""Dashboards as code: which figures, in which order, for which question.

A dashboard is a TOML file:

    title = "Which model, for which energy?"
    resources = ["E", "M"]            # costs, the first is the main one
    normalisation = "zero"            # as `pepr score`
    [experiments.derma]               # shown with the requested ones, where the server has it
    [experiments.imagenet]
    resources = ["inference/gmacs"]   # with costs of its own
    mixed = "stratify"                # refuse, stratify or allow runs that differ
    [[figure]]
    kind = "plane"                    # one of `pepr_mlops.report.figures`
    axis = "cost"                     # its options
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from pepr_mlops.errors import WrongUse, nearest
from pepr_mlops.files import read_toml
from pepr_mlops.report.figures import KINDS
from pepr_mlops.validation import checked, refuse_unknown


@dataclass(frozen=True)
class Companion:
    """An experiment shown with the requested ones; None means the same as theirs."""

    resources: tuple[str, ...] | None = None
    mixed: Literal["refuse", "stratify", "allow"] | None = None


@dataclass(frozen=True)
class FigureSpec:
    """One figure: its kind, title and caption (None for the kind's own) and `Options`."""

    kind: str
    options: Any
    title: str | None = None
    caption: str | None = None


@dataclass(frozen=True)
class Dashboard:
    """A dashboard; what is None is left open. Without a title a page has the experiments' names."""

    figures: tuple[FigureSpec, ...]
    title: str | None = None
    resources: tuple[str, ...] | None = None
    normalisation: Literal["minmax", "zero", "robust"] | None = None
    experiments: Mapping[str, Companion] = field(default_factory=dict)


def shipped() -> dict[str, Path]:
    """The dashboards that come with the package, by name."""
    inside = Path(str(files("pepr_mlops"))) / "dashboards"  # in a wheel
    folder = inside if inside.is_dir() else inside.parents[1] / "dashboards"  # in a checkout
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def load(name: str) -> Dashboard:
    """The dashboard with this name or in this file. Raises `WrongUse`, naming file and key."""
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


def parse(content: Mapping[str, Any], where: str) -> Dashboard:
    """A dashboard from the content of a TOML file. Raises `WrongUse` naming the file and key."""
    where = f"dashboard: {where}"
    keys = ("title", "resources", "normalisation", "experiments", "figure")
    refuse_unknown(content, keys, "key", where)
    given = checked(list[Any], content.get("figure", []), f"{where}: figure")
    if not given:
        raise WrongUse(f"{where} has no [[figure]]; valid kinds: {', '.join(KINDS)}")
    figures = tuple(_figure(one, f"{where}: figure {i}") for i, one in enumerate(given, 1))
    companions = checked(dict[str, Any], content.get("experiments", {}), f"{where}: experiments")
    experiments = {
        name: checked(Companion, one, f"{where}: experiments.{name}")
        for name, one in companions.items()
    }
    rest = {key: value for key, value in content.items() if key != "figure"}
    found: Dashboard = checked(
        Dashboard, {**rest, "figures": figures, "experiments": experiments}, where
    )
    return found


def _figure(given: Any, where: str) -> FigureSpec:
    options = checked(dict[str, Any], given, where)
    kind = checked(Literal[tuple(KINDS)], options.pop("kind", None), f"{where}: kind")
    words = {
        key: checked(str, options.pop(key), f"{where}: {key}")
        for key in ("title", "caption")
        if key in options
    }
    return FigureSpec(kind, checked(KINDS[kind].Options, options, f"{where} ({kind})"), **words)
