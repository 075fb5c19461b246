"""What a live page shows, from the query string of its address. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal
from urllib.parse import urlencode

from pydantic import Field, TypeAdapter

from pepr_mlops.comparison import Question
from pepr_mlops.comparison.answer import Terms
from pepr_mlops.comparison.inference import Use
from pepr_mlops.errors import WrongUse
from pepr_mlops.report.dashboards import Dashboard
from pepr_mlops.report.spending import Price
from pepr_mlops.text import printable
from pepr_mlops.validation import checked, refuse_unknown

_LONGEST = 300  # characters of a name; MLflow takes 250 for keys
_Name = Annotated[str, Field(max_length=_LONGEST, pattern=r"\S")]
_Above = Annotated[float, Field(gt=0, allow_inf_nan=False)]


def _each(texts: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(filter(None, texts)))


def _listed(texts: Sequence[str]) -> list[str]:
    return _each(",".join(texts).split(","))


def _last(texts: Sequence[str]) -> str:
    return texts[-1]


# The settings of an address: the names of options of `pepr report`, their types, and their values
# from the texts of the address.
_SETTINGS: dict[str, tuple[TypeAdapter[Any], Callable[[Sequence[str]], Any]]] = {
    "experiment": (TypeAdapter(tuple[_Name, ...]), _each),
    "resource": (TypeAdapter(Annotated[tuple[_Name, ...], Field(min_length=1)]), _listed),
    "normalisation": (TypeAdapter(Literal["minmax", "zero", "robust"]), _last),
    "strict": (TypeAdapter(bool), _last),
    "margin": (TypeAdapter(Annotated[float, Field(gt=0, lt=1)]), _last),
    "alpha": (TypeAdapter(Annotated[float, Field(ge=1, allow_inf_nan=False)]), _last),
    "images-per-year": (TypeAdapter(_Above), _last),
    "years": (TypeAdapter(_Above), _last),
    "price-per-kwh": (TypeAdapter(Price), lambda texts: Price.parse(_last(texts))),
}


@dataclass(frozen=True)
class View:
    """What a page shows: experiments by name, and `settings`, those of `_SETTINGS` that are given,
    by name, as values."""

    experiments: tuple[str, ...] = ()
    settings: tuple[tuple[str, Any], ...] = ()

    def question(self, board: Dashboard) -> Question:
        """How the view compares runs. Raises `WrongUse`."""
        given = dict(self.settings)
        images, years = given.get("images-per-year"), given.get("years", 1.0)
        return Question(
            resources=given.get("resource") or board.resources or Question.resources,
            normalisation=given.get("normalisation") or board.normalisation or "minmax",
            alpha=given.get("alpha", Question.alpha),
            strict=given.get("strict", False),
            use=None if images is None else Use(images, years),
        )

    @property
    def terms(self) -> Terms:
        """How the view compares runs. Raises `WrongUse`."""
        return Terms(dict(self.settings).get("margin", Terms.margin))

    @property
    def price(self) -> Price | None:
        """Price of a kWh."""
        return dict(self.settings).get("price-per-kwh")

    @property
    def address(self) -> str:
        """The query string without its question mark."""
        fields = [("experiment", name) for name in self.experiments or [""]]
        for name, value in self.settings:
            each = value if isinstance(value, tuple) else (value,)
            fields += [(name, _plain(one)) for one in each]
        return urlencode(fields)

    def command(self, dashboard: str, tracking_uri: str | None) -> str:
        """The command line that makes the static report of the view."""
        words = ["pepr", "report"]
        for name in self.experiments:
            words += ["--experiment", name]
        words += ["--tracking-uri", tracking_uri] if tracking_uri else []
        for name, value in self.settings:
            if isinstance(value, bool):
                words += [f"--{name}"] if value else []
            else:
                listed = ",".join(value) if isinstance(value, tuple) else _plain(value)
                words += [f"--{name}", listed]
        words += [] if dashboard == "default" else ["--dashboard", dashboard]
        return printable(shlex.join(words))


def parse(query: Mapping[str, Sequence[str]], default: View) -> tuple[View, list[str]]:
    """The view of a query string, by key its texts, and a message for each setting in it that is
    wrong and ignored. Without an experiment in it `default` has them; an empty one means none."""
    messages: list[str] = []
    values: dict[str, Any] = {}
    for key, texts in query.items():
        try:
            refuse_unknown([key], _SETTINGS, "setting", "the address")
            kind, read = _SETTINGS[key]
            values[key] = checked(kind, read(texts), f"{key} in the address")
        except WrongUse as error:
            messages.append(f"{error}; it is ignored")
    if "years" in values and "images-per-year" not in values:
        messages.append("years in the address: of how many images-per-year? It is ignored")
        del values["years"]
    experiments = values.pop("experiment", default.experiments)
    return View(experiments, tuple(values.items())), messages


def _plain(value: object) -> str:
    return f"{value:.12g}" if isinstance(value, float) else str(value)
