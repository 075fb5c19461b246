"""What the controls of the live page say, as a query string, a question and a command. Pure."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import parse_qsl, urlencode

from pepr_mlops.comparison import Question
from pepr_mlops.names import PERFORMANCE, RESOURCES

NORMALISATIONS = ("minmax", "zero", "robust")
MIXED = ("refuse", "stratify", "allow")
COLOURS = ("none", "kind", "efficient", "size")
AXES = ("R", "cost")
MOST_ALPHA = 10.0
MOST_ROWS = 2000
_MOST_FIELDS = 100
_LONGEST = 300  # characters of a name; MLflow takes 250 for keys


@dataclass(frozen=True)
class State:
    """A view. `weights` are by resource as the sliders stand, not summing to 1.

    `at_most` are budgets by resource, `at_least` one for P. `chosen_set` is the comparison set
    that is shown where there are several, empty for the first. `rows` are those of the table.
    """

    experiments: tuple[str, ...] = ()
    resources: tuple[str, ...] = ("E",)
    weights: tuple[float, ...] = (0.5,)
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


WEIGHT = 0.5  # where a slider stands that nobody moved


def question(state: State, draws: int) -> Question:
    """What the view asks of the runs; several resources have one score by their weights."""
    return Question(
        resources=state.resources,
        weights=shares(state) if len(state.resources) > 1 else None,
        alpha=state.alpha,
        normalisation=state.normalisation,  # type: ignore[arg-type]
        strict=state.strict,
        mixed=state.mixed,  # type: ignore[arg-type]
        draws=draws,
    )


def shares(state: State) -> tuple[float, ...]:
    """The weights as they count: summing to 1, equal where all sliders stand at 0."""
    total = math.fsum(state.weights)
    if total <= 0:
        return (1 / len(state.weights),) * len(state.weights)
    return tuple(weight / total for weight in state.weights)


def written(state: State, default: State) -> str:
    """The query string of a view, without what is as by default; `parse` undoes it."""
    fields: list[tuple[str, str]] = [("experiment", name) for name in state.experiments]
    if state.resources != default.resources:
        fields += [("resource", name) for name in state.resources]
    if len(state.resources) > 1 and set(state.weights) != {WEIGHT}:
        fields.append(("weights", ",".join(f"{w:.12g}" for w in state.weights)))
    for key in ("alpha", "normalisation", "mixed"):
        if getattr(state, key) != getattr(default, key):
            fields.append((key, _plain(getattr(state, key))))
    if state.strict:
        fields.append(("strict", "1"))
    fields += [("max", f"{name}={_plain(limit)}") for name, limit in state.at_most]
    if state.at_least is not None:
        fields.append(("min", f"{PERFORMANCE}={_plain(state.at_least)}"))
    for key, name in (("colour", "colour"), ("axis", "axis"), ("set", "chosen_set"),
                      ("rows", "rows")):  # fmt: skip
        if getattr(state, name) != getattr(default, name):
            fields.append((key, _plain(getattr(state, name))))
    return "?" + urlencode(fields) if fields else ""


def parse(search: str, default: State, offered: Sequence[str]) -> tuple[State, list[str]]:
    """The view of a query string, and what of it is not understood, where the default is taken.

    `offered` are the resources there are controls for.
    """
    try:
        pairs = parse_qsl(search.removeprefix("?"), max_num_fields=_MOST_FIELDS)
    except ValueError:
        return default, [f"the address has more than {_MOST_FIELDS} settings; all are ignored"]
    given: dict[str, list[str]] = {}
    for key, value in pairs:
        given.setdefault(key, []).append(value)
    messages: list[str] = []
    values: dict[str, Any] = {}
    for key, texts in given.items():
        if key not in _READERS:
            messages.append(f"the address has {_short(key)}, which is no setting; it is ignored")
            continue
        try:
            values |= _READERS[key](texts, offered)
        except ValueError as error:
            messages.append(f"{key} in the address: {error}; the default is used")
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


def command(state: State, dashboard: str, tracking_uri: str | None) -> str:
    """The command line that makes the static report of the view."""
    words = ["pepr", "report"]
    for name in state.experiments:
        words += ["--experiment", name]
    if tracking_uri:
        words += ["--tracking-uri", tracking_uri]
    words += ["--resource", ",".join(state.resources)]
    if len(state.resources) > 1:
        words += ["--resource-weights", ",".join(f"{w:.12g}" for w in shares(state))]
    if state.alpha != 1:
        words += ["--alpha", _plain(state.alpha)]
    words += ["--normalisation", state.normalisation]
    words += {"refuse": [], "stratify": ["--stratify"], "allow": ["--allow-mixed"]}[state.mixed]
    words += ["--strict"] if state.strict else []
    words += ["--dashboard", dashboard, "--out", "report.html"]
    return shlex.join(words)


def _plain(value: object) -> str:
    return f"{value:.12g}" if isinstance(value, float) else str(value)


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:40] + "…")


# Reading one setting: its texts and the resources on offer, to fields of `State`. -----------------


def _names(texts: Sequence[str], offered: Sequence[str]) -> dict[str, Any]:
    for text in texts:
        if not text.strip() or len(text) > _LONGEST:
            raise ValueError(f"{_short(text)} is no name")
    return {"experiments": tuple(dict.fromkeys(texts))}


def _resources(texts: Sequence[str], offered: Sequence[str]) -> dict[str, Any]:
    for text in texts:
        if text not in offered:
            raise ValueError(f"{_short(text)} is none of {', '.join(offered)}")
    return {"resources": tuple(dict.fromkeys(texts))}


def _weights(texts: Sequence[str], offered: Sequence[str]) -> dict[str, Any]:
    weights = tuple(_number(word, 0, 1) for word in texts[-1].split(","))
    return {"weights": weights}


def _alpha(texts: Sequence[str], offered: Sequence[str]) -> dict[str, Any]:
    return {"alpha": _number(texts[-1], 1, MOST_ALPHA)}


def _at_most(texts: Sequence[str], offered: Sequence[str]) -> dict[str, Any]:
    limits = {}
    for text in texts:
        name, _, number = text.rpartition("=")
        if name not in offered:
            raise ValueError(f"{_short(text)} is not NAME=NUMBER of {', '.join(offered)}")
        limits[name] = _number(number, 0, math.inf)
    return {"at_most": tuple(limits.items())}


def _at_least(texts: Sequence[str], offered: Sequence[str]) -> dict[str, Any]:
    name, _, number = texts[-1].rpartition("=")
    if name != PERFORMANCE:
        raise ValueError(f"{_short(texts[-1])} is not {PERFORMANCE}=NUMBER")
    return {"at_least": _number(number, 0, 1)}


def _strict(texts: Sequence[str], offered: Sequence[str]) -> dict[str, Any]:
    if texts[-1] not in ("0", "1"):
        raise ValueError(f"{_short(texts[-1])} is neither 0 nor 1")
    return {"strict": texts[-1] == "1"}


def _set(texts: Sequence[str], offered: Sequence[str]) -> dict[str, Any]:
    return {"chosen_set": texts[-1]}


def _rows(texts: Sequence[str], offered: Sequence[str]) -> dict[str, Any]:
    rows = _number(texts[-1], 1, MOST_ROWS)
    if rows != int(rows):
        raise ValueError(f"{_short(texts[-1])} is not a whole number")
    return {"rows": int(rows)}


def _one_of(field: str, choices: Sequence[str]) -> Callable[..., dict[str, Any]]:
    def read(texts: Sequence[str], offered: Sequence[str]) -> dict[str, Any]:
        if texts[-1] not in choices:
            raise ValueError(f"{_short(texts[-1])} is none of {', '.join(choices)}")
        return {field: texts[-1]}

    return read


def _number(text: str, low: float, high: float) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not (low <= number <= high) or math.isinf(number):
        until = f" to {high:g}" if high < math.inf else ""
        raise ValueError(f"{_short(text)} is not a number from {low:g}{until}")
    return number


_READERS: Mapping[str, Callable[[Sequence[str], Sequence[str]], dict[str, Any]]] = {
    "experiment": _names,
    "resource": _resources,
    "weights": _weights,
    "alpha": _alpha,
    "normalisation": _one_of("normalisation", NORMALISATIONS),
    "mixed": _one_of("mixed", MIXED),
    "strict": _strict,
    "max": _at_most,
    "min": _at_least,
    "colour": _one_of("colour", COLOURS),
    "axis": _one_of("axis", AXES),
    "set": _set,
    "rows": _rows,
}


# From and to the controls -------------------------------------------------------------------------


def offered(more: Sequence[str] = ()) -> tuple[str, ...]:
    """The resources that have controls: the letters, and what a dashboard names besides."""
    return tuple(dict.fromkeys([*RESOURCES, *more]))


def limit(value: object, low: float, high: float, default: float | None) -> float | None:
    """What a field for a number says, the default where it is empty or out of range."""
    if isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high:
        return float(value) if math.isfinite(value) else default
    return default
