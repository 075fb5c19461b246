"""What a study cost in all: energy, CO2e, and the drive of a car that emits as much; and the price
of energy. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import pandas as pd

from pepr_mlops.costs.carbon import Intensity
from pepr_mlops.errors import WrongUse
from pepr_mlops.report.material import Material
from pepr_mlops.text import number

# New passenger cars in the EU in 2024: European Environment Agency, "Average CO2 emissions from new
# cars and new vans". carbontracker, which the paper measured with, converts by it since November
# 2025.
CAR_G_PER_KM = 106.8


@dataclass(frozen=True)
class Price:
    """What a kWh costs: an amount of a currency."""

    amount: float
    currency: str

    @classmethod
    def parse(cls, text: str) -> Price:
        """The price in a text such as `0.30€`, `0.30 EUR` or `$0.15`. Raises `WrongUse`."""
        found = _PRICE.fullmatch(text.strip())
        if found is None or bool(found["before"]) == bool(found["after"]):
            raise WrongUse(
                f"price_per_kwh: {text!r} is not a number and its currency, such as 0.30€ or "
                "'0.30 USD'"
            )
        return cls(float(found["amount"]), found["before"] or found["after"])

    def __str__(self) -> str:
        return f"{self.amount:.12g}{self.currency}"


_PRICE = re.compile(
    r"(?P<before>[^\d\s.,+-]{0,8})\s*(?P<amount>\d+(\.\d+)?)\s*(?P<after>[^\d\s.,+-]{0,8})"
)


@dataclass(frozen=True)
class Spent:
    """What all runs of the requested experiments cost, also those left out.

    `energy_kwh` adds up training of the `known` runs, evaluation of the `evaluated` ones of these
    and the trial of settings of the `tried` runs; None where no run has any energy. The energy of
    the trial is missing in `unknown_trials`. `co2e_kg` is that of `co2e_known` of the `counted`
    runs that have any energy, at `intensity` (words), and `car_km` is the same as a drive.
    """

    runs: int
    counted: int
    known: int
    evaluated: int
    tried: int
    unknown_trials: int
    energy_kwh: float | None
    co2e_kg: float | None
    co2e_known: int
    intensity: str
    car_km: float | None


def cost(material: Material) -> Spent:
    """What the requested experiments cost, by their own or the requested carbon intensity."""
    runs = pd.concat([p.found for p in material.parts if p.main]).drop_duplicates("run_id")
    return cost_of(runs, next(p for p in material.parts if p.main).question.intensity)


def cost_of(runs: pd.DataFrame, intensity: Intensity | None = None) -> Spent:
    """What these runs cost, each once, by their own carbon intensity or another one."""
    energy = runs["energy_wh"].where(np.isfinite(runs["energy_wh"]))

    def energy_of(phase: str) -> pd.Series[float]:
        wh = runs.get(f"metrics.energy/{phase}_wh", pd.Series(np.nan, runs.index))
        return wh.where(np.isfinite(wh))

    evaluation, trial = energy_of("eval").where(energy.notna()), energy_of("trial")
    total_kwh = (energy + evaluation.fillna(0)).add(trial, fill_value=0) / 1000
    nothing = pd.Series(None, runs.index, dtype="object")
    had_trial = runs.get("tags.pepr.tried", nothing).notna()
    had_trial |= runs.get("metrics.time/trial_s", nothing).notna()
    pue = runs["pue"].fillna(1.0)
    if intensity is not None:
        g_per_kwh = pd.Series(intensity.g_per_kwh, runs.index)
        words = f"{intensity.g_per_kwh:g} g/kWh ({intensity.source})"
    else:
        g_per_kwh = runs["carbon_intensity_g_per_kwh"]
        words = _intensities(runs[total_kwh.notna()])
    kg = total_kwh * g_per_kwh * pue / 1000
    co2e_kg = float(kg.sum()) if kg.notna().any() else None
    return Spent(
        runs=len(runs),
        counted=int(total_kwh.notna().sum()),
        known=int(energy.notna().sum()),
        evaluated=int(evaluation.notna().sum()),
        tried=int(trial.notna().sum()),
        unknown_trials=int((had_trial & trial.isna()).sum()),
        energy_kwh=float(total_kwh.sum()) if total_kwh.notna().any() else None,
        co2e_kg=co2e_kg,
        co2e_known=int(kg.notna().sum()),
        intensity=words,
        car_km=None if co2e_kg is None else co2e_kg * 1000 / CAR_G_PER_KM,
    )


def _intensities(runs: pd.DataFrame) -> str:
    values = runs["carbon_intensity_g_per_kwh"].dropna()
    if values.empty:
        return "no run has a grid intensity; give --country or --carbon-intensity"
    sources = "; ".join(sorted(runs["carbon_source"].dropna().unique()))
    low, high = values.min(), values.max()
    span = f"{low:.4g}" if low == high else f"{low:.4g} to {high:.4g}"
    return f"{span} g/kWh ({sources})" if sources else f"{span} g/kWh"


def spent_words(spent: Spent) -> str:
    """One sentence: kWh, CO2e and the drive, and of how many runs that is."""
    if spent.energy_kwh is None:
        return f"No energy is known for the {spent.runs} runs."
    words = f"{_scaled(spent.energy_kwh, 'kWh', 'Wh')} for "
    if spent.known:
        words += f"training {spent.known} runs"
        if spent.evaluated == spent.known:
            words += " and evaluating them"
        elif spent.evaluated:
            words += f" and evaluating {spent.evaluated} of them"
        else:
            words += ", evaluation not known"
        words += ", and for " if spent.tried else ""
    if spent.tried:
        words += f"trying settings in {spent.tried}"
    if spent.unknown_trials:
        words += f", without the unknown energy of trying settings in {spent.unknown_trials}"
    if spent.known < spent.runs:
        more = spent.runs - spent.known
        words += f" ({more} more {'has' if more == 1 else 'have'} no energy reading)"
    if spent.co2e_kg is None or spent.car_km is None:
        return f"{words}. The CO2e is not known: {spent.intensity}."
    partly = "" if spent.co2e_known == spent.counted else f" (of {spent.co2e_known} of these runs)"
    return (
        f"{words}, {_scaled(spent.co2e_kg, 'kg', 'g')} of CO2e{partly} at {spent.intensity}, as "
        f"much as {_scaled(spent.car_km, 'km', 'm')} in a car ({CAR_G_PER_KM} g/km, new cars in "
        "the EU in 2024)."
    )


def _scaled(value: float, unit: str, thousandth: str) -> str:
    """Three digits in the unit, below one of it in its thousandths."""
    return f"{number(value * 1000, 3)} {thousandth}" if value < 1 else f"{number(value, 3)} {unit}"
