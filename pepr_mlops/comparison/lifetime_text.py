"""Training and use in sentences, for the terminal and the report. Pure."""

from __future__ import annotations

from typing import Any

from pepr_mlops.comparison.lifetime import Lifetime, Step
from pepr_mlops.comparison.profiles import remedy
from pepr_mlops.comparison.words import amount
from pepr_mlops.names import FORMS
from pepr_mlops.text import few, number

_SURE = 0.975


def one_training(
    name: str,
    training_wh: float,
    training_source: str,
    wh_per_image: float,
    use_source: str,
    of: str = "",
) -> str:
    """How many images cost as much as a training, with how the two energies are known. `of` says
    what the numbers are the mean of, where they are."""
    return (
        f"One training of {name}{of} = {number(training_wh / wh_per_image, 3)} images of use "
        f"({amount(training_wh, 'Wh')} {training_source}, {amount(wh_per_image, 'Wh')} an "
        f"image {use_source})"
    )


def _mean(n: int) -> str:
    return f" (mean of {n} runs)" if n > 1 else ""


def sentences(found: Lifetime | None) -> list[str]:
    """What use costs, the most important first; nothing where no model was profiled."""
    if found is None:
        return []
    lines = []
    if found.use is not None and found.winner is not None:
        lines += [_winner(found, found.winner)]
    rows = found.models[found.models["label"].isin([found.first, found.winner])]
    for row in (rows if len(rows) else found.models.head(1)).to_dict("records"):
        lines.append(
            one_training(
                *(row["label"], row["training_wh"], str(row["training_source"])),
                *(row["wh_per_image"], str(row["use_source"]), _mean(row["n"])),
            )
        )
    lines += [step_text(step, found.years) for step in found.steps]
    if found.missing:
        n = len(found.missing)
        lines.append(
            f"{n} more good-enough {'model was' if n == 1 else 'models were'} not profiled "
            f"({few(list(found.missing))}); {remedy(FORMS[0])} measures the energy of use"
        )
    return lines


def _winner(found: Lifetime, winner: str) -> str:
    """Whether use changes the choice."""
    assert found.use is not None
    rows = found.models.set_index("label")
    start = (
        f"With {number(found.use.images_per_year)} images a year for {_years(found.years)} "
        f"{winner} takes {_total(rows.loc[winner])}"
    )
    if winner == found.first:
        changes = "it is the cheapest good-enough model by training alone, too"
    else:
        changes = (
            f"{found.first}, the cheapest by training alone, takes {_total(rows.loc[found.first])}"
        )
    doubt = ""
    if found.surely is not None and found.surely < _SURE:
        doubt = "; within the errors of the energies, the next model cannot be told apart from it"
    return f"{start}; {changes}{doubt}"


def _total(row: Any) -> str:
    interval = f" (95% {amount(row['low'], 'Wh')} to {amount(row['high'], 'Wh')})"
    carbon = f" and {amount(row['gco2e'], 'g')} CO2e" if row["gco2e"] == row["gco2e"] else ""
    return f"{amount(row['total_wh'], 'Wh')} of training and use{interval}{carbon}"


def step_text(step: Step, years: float) -> str:
    """From where on another model is the cheapest."""
    sure = f"95% {number(step.low, 3)} to {number(step.high, 3)}"
    if step.high == float("inf"):
        sure = f"at least {number(step.low, 3)}; within the errors of the energies it may be never"
    return (
        f"From {number(step.images, 3)} images a year for {_years(years)} on ({sure}) "
        f"{step.cheaper} needs less energy of training and use than {step.dearer}"
    )


def _years(years: float) -> str:
    return f"{years:g} year{'s' * (years != 1)}"
