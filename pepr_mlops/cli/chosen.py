"""The options by which `pepr select` chooses, and MODEL: a run, or `best`, what it names first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

from pepr_mlops.cli.options import (
    load_request,
    option,
    run_options_of,
    score_options,
    terms_options,
    together,
)
from pepr_mlops.errors import WrongUse
from pepr_mlops.names import PERFORMANCE
from pepr_mlops.text import decimals

if TYPE_CHECKING:
    import pandas as pd

    from pepr_mlops.comparison.selected import Choice, Selected
    from pepr_mlops.comparison.selection import Budget

F = TypeVar("F", bound=Callable[..., Any])

BEST = "best"

choice_options = together(
    terms_options,
    option("Essentials", "--max", "at most this value", multiple=True, metavar="NAME=LIMIT"),
    option("Essentials", "--min", "at least this value", multiple=True, metavar="NAME=LIMIT"),
    option(
        "Essentials",
        "--by",
        "the cheapest good-enough model by the first resource, or the best by P or PePR",
        type=click.Choice(["cost", "performance", "score"]),
        default="cost",
    ),
)
# How much models are used after training.
use_options = together(
    option(
        "Essentials",
        "--images-per-year",
        "choose by the energy of training and use, for so many images a year",
        type=float,
        metavar="N",
    ),
    option("Essentials", "--years", "of use", type=float, metavar="Y"),
)
# For commands with an argument MODEL that may be `best`.
model_options = together(run_options_of(required=False), score_options, choice_options, use_options)


@dataclass(frozen=True)
class Chosen:
    """A run, and the choice that led to it, None where it was named; `text` says which it is."""

    run_id: str
    selected: Selected | None
    text: str


def choice_from(options: dict[str, Any]) -> Choice:
    """The choice that `choice_options` make, which are taken out of the options."""
    from pepr_mlops.comparison.answer import Terms
    from pepr_mlops.comparison.selected import Choice

    terms = Terms(*(options.pop(name) for name in ("margin", "confidence", "decide_on")))
    budgets = [_budget(word, kind) for kind in ("max", "min") for word in options.pop(kind)]
    return Choice(terms, budgets, options.pop("by"))


def chosen_run(
    model: str,
    experiments: Sequence[str],
    tracking_uri: str | None,
    **options: Any,
) -> Chosen:
    """The run that MODEL names. Raises `WrongUse` as `Selected.best_run`."""
    from pepr_mlops.comparison import selected

    if model != BEST:
        return Chosen(model, None, f"run {model}")
    if not experiments:
        raise WrongUse("best: of which runs? Give --experiment NAME, or name a run")
    choice = choice_from(options)
    request = load_request(experiments, tracking_uri, **options)
    found = selected.select(request.compare(), request.question, choice)
    row = found.best_run()
    return Chosen(
        row["run_id"], found, f"best is {found.chosen}: run {row['run_id']}{_seed(row, found)}"
    )


def _seed(row: pd.Series, found: Selected) -> str:
    """The seed of a run, and how far P of the others of its model goes."""
    if row.isna()["seed"]:
        return ""
    same = found.found.members
    p = same[(same["model"] == row["model"]) & (same["variant"] == row["variant"])][PERFORMANCE]
    of_all = f"; its {len(p)} runs from {decimals(p.min())} to {decimals(p.max())}"
    return f", seed {row['seed']}, P {decimals(row[PERFORMANCE])}" + (of_all if len(p) > 1 else "")


def _budget(word: str, kind: str) -> Budget:
    from pepr_mlops.comparison.selected import OWN
    from pepr_mlops.comparison.selection import Budget

    name, equals, number = word.rpartition("=")
    try:
        limit = float(number)
    except ValueError:
        limit = float("nan")
    if not equals or not name or limit != limit:
        raise WrongUse(f"{kind}: {word!r} is not NAME=NUMBER, such as energy_wh=20")
    return Budget(OWN.get(name, name), kind, limit)  # type: ignore[arg-type]
