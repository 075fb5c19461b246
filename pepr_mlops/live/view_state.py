"""The settings of the live page's controls, as a query string, a question and a command. Pure."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Annotated, Any, Literal
from urllib.parse import parse_qs, urlencode

from pydantic import Field, TypeAdapter

from pepr_mlops.comparison import Question
from pepr_mlops.comparison.inference import Use
from pepr_mlops.errors import WrongUse
from pepr_mlops.names import PERFORMANCE, RESOURCES
from pepr_mlops.validation import checked, refuse_unknown

NORMALISATIONS = ("minmax", "zero", "robust")
MIXED = ("refuse", "stratify", "allow")
COLOURS = ("none", "kind", "efficient", "size")
AXES = ("R", "cost")
MOST_ALPHA = 10.0
MOST_ROWS = 2000
WEIGHT = 0.5  # where a slider stands that nobody moved
_MOST_FIELDS = 100
_LONGEST = 300  # characters of a name; MLflow takes 250 for keys


@dataclass(frozen=True)
class View:
    """The settings of all controls. `weights` are where the sliders of the resources stand; they
    need not sum to 1.

    `at_most` are budgets by resource, `at_least` is one for P. `chosen_set` is the comparison set
    to show where there are several, empty for the first. `rows` is how many the table has. With
    `images_per_year` models are also compared by their energy of training and so many `years` of
    use.
    """

    experiments: tuple[str, ...] = ()
    resources: tuple[str, ...] = ("E",)
    weights: tuple[float, ...] = (WEIGHT,)
    alpha: float = 1.0
    normalisation: str = "minmax"
    mixed: str = "refuse"
    strict: bool = False
    at_most: tuple[tuple[str, float], ...] = ()
    at_least: float | None = None
    colour: str = "none"
    axis: str = "R"
    chosen_set: str = ""
    rows: int = 25
    images_per_year: float | None = None
    years: float = 1.0


def question(view: View, draws: int) -> Question:
    """The question that the view shows the answer to; several resources have one score by their
    weights."""
    return Question(
        resources=view.resources,
        weights=shares(view) if len(view.resources) > 1 else None,
        alpha=view.alpha,
        normalisation=view.normalisation,  # type: ignore[arg-type]
        strict=view.strict,
        mixed=view.mixed,  # type: ignore[arg-type]
        draws=draws,
        use=None if view.images_per_year is None else Use(view.images_per_year, view.years),
    )


def shares(view: View) -> tuple[float, ...]:
    """The weights scaled to a sum of 1; equal ones where all sliders stand at 0."""
    total = math.fsum(view.weights)
    if total <= 0:
        return (1 / len(view.weights),) * len(view.weights)
    return tuple(weight / total for weight in view.weights)


def written(view: View, default: View) -> str:
    """The query string of a view, without its default values; `parse` reads it."""
    fields: list[tuple[str, str]] = [("experiment", name) for name in view.experiments]
    if view.resources != default.resources:
        fields += [("resource", name) for name in view.resources]
    if len(view.resources) > 1 and set(view.weights) != {WEIGHT}:
        fields.append(("weights", ",".join(f"{w:.12g}" for w in view.weights)))
    for key in ("alpha", "normalisation", "mixed"):
        if getattr(view, key) != getattr(default, key):
            fields.append((key, _plain(getattr(view, key))))
    if view.strict:
        fields.append(("strict", "1"))
    fields += [("max", f"{name}={_plain(limit)}") for name, limit in view.at_most]
    if view.at_least is not None:
        fields.append(("min", f"{PERFORMANCE}={_plain(view.at_least)}"))
    keys = {"chosen_set": "set", "images_per_year": "images"}
    for name in ("colour", "axis", "chosen_set", "rows", "images_per_year", "years"):
        if getattr(view, name) != getattr(default, name):
            key = keys.get(name, name)
            fields.append((key, _plain(getattr(view, name))))
    return "?" + urlencode(fields) if fields else ""


def parse(search: str, default: View, offered: Sequence[str]) -> tuple[View, list[str]]:
    """The view of a query string, and a message for each setting in it that is wrong and ignored.

    `offered` are the resources that have controls.
    """
    try:
        given = parse_qs(search.removeprefix("?"), max_num_fields=_MOST_FIELDS)
    except ValueError:
        return default, [f"the address has more than {_MOST_FIELDS} settings; all are ignored"]
    messages: list[str] = []
    values: dict[str, Any] = {}
    settings = _settings(tuple(offered))
    for key, texts in given.items():
        try:
            refuse_unknown([key], settings, "setting", "the address")
            field, kind, read = settings[key]
            values[field] = checked(kind, read(texts), f"{key} in the address")
        except WrongUse as error:
            messages.append(f"{error}; it is ignored")
    if "at_most" in values:
        values["at_most"] = tuple(values["at_most"].items())
    if "at_least" in values:
        values["at_least"] = values["at_least"][PERFORMANCE]
    if "resources" in values or "weights" in values:
        resources = values.get("resources", default.resources)
        fitting = len(values.get("weights", ())) == len(resources)
        if "weights" in values and not fitting:
            messages.append(
                f"weights in the address: {len(values['weights'])} for {len(resources)} "
                "resources; the default is used"
            )
        if not fitting:
            values["weights"] = (WEIGHT,) * len(resources)
    return replace(default, **values), messages


def command(view: View, dashboard: str, tracking_uri: str | None) -> str:
    """The command line that makes the static report of the view."""
    words = ["pepr", "report"]
    for name in view.experiments:
        words += ["--experiment", name]
    if tracking_uri:
        words += ["--tracking-uri", tracking_uri]
    words += ["--resource", ",".join(view.resources)]
    if len(view.resources) > 1:
        words += ["--resource-weights", ",".join(f"{w:.12g}" for w in shares(view))]
    if view.alpha != 1:
        words += ["--alpha", _plain(view.alpha)]
    words += ["--normalisation", view.normalisation]
    words += {"refuse": [], "stratify": ["--stratify"], "allow": ["--allow-mixed"]}[view.mixed]
    words += ["--strict"] if view.strict else []
    if view.images_per_year is not None:
        words += ["--images-per-year", _plain(view.images_per_year), "--years", _plain(view.years)]
    words += ["--dashboard", dashboard, "--out", "report.html"]
    return shlex.join(words)


def _plain(value: object) -> str:
    return f"{value:.12g}" if isinstance(value, float) else str(value)


_Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
_Above = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_Limit = Annotated[float, Field(ge=0, allow_inf_nan=False)]


@cache
def _settings(
    offered: tuple[str, ...],
) -> dict[str, tuple[str, TypeAdapter[Any], Callable[[list[str]], Any]]]:
    """By the key in the address: the field of `View`, its type, and its value from the texts."""
    resource: Any = Literal[offered]

    def each(texts: list[str]) -> list[str]:
        return list(dict.fromkeys(texts))

    def last(texts: list[str]) -> str:
        return texts[-1]

    def by_name(texts: list[str]) -> dict[str, str]:
        return {name: number for name, _, number in (text.partition("=") for text in texts)}

    name = Annotated[str, Field(max_length=_LONGEST, pattern=r"\S")]
    table: dict[str, tuple[str, Any, Callable[[list[str]], Any]]] = {
        "experiment": ("experiments", tuple[name, ...], each),
        "resource": ("resources", tuple[resource, ...], each),
        "weights": ("weights", tuple[_Share, ...], lambda texts: texts[-1].split(",")),
        "alpha": ("alpha", Annotated[float, Field(ge=1, le=MOST_ALPHA)], last),
        "normalisation": ("normalisation", Literal[NORMALISATIONS], last),
        "mixed": ("mixed", Literal[MIXED], last),
        "strict": ("strict", bool, last),
        "max": ("at_most", dict[resource, _Limit], by_name),
        "min": ("at_least", dict[Literal[PERFORMANCE], _Share], by_name),  # type: ignore[valid-type]
        "colour": ("colour", Literal[COLOURS], last),
        "axis": ("axis", Literal[AXES], last),
        "set": ("chosen_set", str, last),
        "rows": ("rows", Annotated[int, Field(ge=1, le=MOST_ROWS)], last),
        "images": ("images_per_year", _Above, last),
        "years": ("years", _Above, last),
    }
    return {key: (field, TypeAdapter(kind), read) for key, (field, kind, read) in table.items()}


# From and to the controls -------------------------------------------------------------------------


def offered(more: Sequence[str] = ()) -> tuple[str, ...]:
    """The resources that have controls: the letters, and `more` that a dashboard names."""
    return tuple(dict.fromkeys([*RESOURCES, *more]))


def limit(value: Any, low: float, high: float) -> float | None:
    """The number in a field, None where it is empty or out of range."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if number and low <= value <= high and value < math.inf else None
