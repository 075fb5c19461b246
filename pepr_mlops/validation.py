"""Values that people write, checked against types by pydantic, whose errors become one line."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any

from pepr_mlops.errors import WrongUse, nearest

if TYPE_CHECKING:
    from pydantic import ValidationError

    from pepr_mlops.spec import RunSpec

_LONGEST = 60  # characters of a value in a message
# Pydantic's names of errors in words; for types their first part, such as `int` of `int_parsing`.
_TYPES = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "string": "a text",
    "tuple": "a list",
    "list": "a list",
    "dict": "a table",
    "dataclass": "a table",
}
_PROBLEMS = {
    "greater_than": "is not above {gt:g}",
    "greater_than_equal": "is not {ge:g} or more",
    "less_than": "is not below {lt:g}",
    "less_than_equal": "is not {le:g} or less",
    "finite_number": "is not a finite number",
    "missing": "has too few values",
    "too_long": "has too many values",
}


def checked(kind: Any, value: Any, where: str = "", *, strict: bool = False) -> Any:
    """`value` as the type `kind`, or as a `TypeAdapter` takes it.

    With `strict` a text is no number. Raises `WrongUse`, which begins with `where` and names the
    value and the valid ones; of a dataclass also for unknown keys.
    """
    from pydantic import TypeAdapter, ValidationError  # takes longer than `pepr --help`

    if is_dataclass(kind) and isinstance(value, Mapping):
        refuse_unknown(value, [f.name for f in fields(kind)], "key", where)
    adapter = kind if isinstance(kind, TypeAdapter) else TypeAdapter(kind)
    try:
        return adapter.validate_python(value, strict=strict or None)
    except ValidationError as error:
        raise wrong_use(error, where) from None


def wrong_use(error: ValidationError, where: str = "") -> WrongUse:
    """Its first error in one line: the place, the value, what is valid and the nearest."""
    first = error.errors(include_url=False)[0]
    value, kind, context = first["input"], first["type"], first.get("ctx", {})
    name, _, problem = kind.partition("_")
    if kind == "literal_error":
        choices = re.findall(r"'.+?'|[^ ,]+", context["expected"].replace(" or ", " "))
        choices = [choice.strip("'") for choice in choices]
        text = f"is not one of {', '.join(choices)}{nearest(str(value), choices)}"
    elif kind in _PROBLEMS:
        text = _PROBLEMS[kind].format(**context)
    elif name in _TYPES and problem in ("type", "parsing", "parsing_size", "from_float", "unicode"):
        text = f"is not {_TYPES[name]}"
    else:
        text = first["msg"].partition(" ")[2]  # without "Input"
    shown = repr(value)
    if len(shown) > _LONGEST:
        shown = f"{shown[:_LONGEST]}…"
    keys = [part for part in first["loc"] if isinstance(part, str)]
    if keys[-1:] == ["[key]"]:  # it is the key that is wrong, which is the value then
        keys = keys[:-2]
    return WrongUse(": ".join([*([where] if where else []), *keys, f"{shown} {text}"]))


def refuse_unknown(given: Iterable[str], valid: Iterable[str], what: str, where: str = "") -> None:
    """Raise `WrongUse` for the first name that is not valid, with the nearest and the valid.

    `what` says what the names stand for, such as `parameter`.
    """
    known = list(valid)
    for name in given:
        if name not in known:
            start = f"{where}: " if where else ""
            raise WrongUse(
                f"{start}{name}: no such {what}{nearest(name, known) or '.'} "
                f"Valid: {', '.join(known) or 'none'}"
            )


def window_bounds(window: str) -> tuple[float, float] | None:
    """Centre and width of a window `CENTER,WIDTH`, None of the kinds that have a name.

    Raises `WrongUse` for what is neither.
    """
    if window in ("auto", "dicom", "percentile"):
        return None
    with suppress(ValueError):
        centre, width = map(float, window.split(","))
        if math.isfinite(centre) and 0 < width < math.inf:
            return centre, width
    raise WrongUse(
        f"window: {window!r} is not auto, dicom, percentile or CENTER,WIDTH with a width above 0, "
        "such as 40,400"
    )


def check_recipe(spec: RunSpec) -> None:
    """Raise `WrongUse` for settings of a training that exclude each other."""
    if spec.warmup >= spec.epochs:
        raise WrongUse(
            f"warmup: {spec.warmup} of {spec.epochs} epochs leave none for the full learning rate; "
            "give fewer"
        )
    if spec.tune == "head" and (spec.compile or spec.untried or spec.launch == "graph"):
        raise WrongUse(
            "tune: a head is too small for compile, CUDA graphs and a trial of settings; name "
            "precision and layout, with launch=kernels and without compile"
        )


def check_fold(folds: int | None, fold: int | None) -> None:
    """Raise `WrongUse` where only one is given, or a fold that there is not."""
    if (folds is None) != (fold is None):
        raise WrongUse(
            "folds: give the part that is test too, such as --folds 5 --fold 1, or train all with "
            "pepr sweep --folds 5"
            if fold is None
            else "fold: give the number of parts too, such as --folds 5 --fold 1"
        )
    if folds is not None and fold is not None and fold > folds:
        raise WrongUse(f"fold: {fold} is not one of 1 to {folds}; give one of these")
