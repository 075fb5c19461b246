"""What a reader of any output must know about all of it. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from pepr_mlops.comparison.conditions import NOT_KNOWN, about_energy, comparable, conditions
from pepr_mlops.comparison.question import Question


def notes_on(
    found: pd.DataFrame, used: pd.DataFrame, costs: Sequence[str], question: Question
) -> list[str]:
    """What a reader of any output must know about all of it."""
    notes = []
    estimated = used["energy_source"].fillna("").str.contains("estimated")
    if about_energy(costs) and estimated.any():
        notes.append(
            f"the energy of {estimated.sum()} of {len(used)} runs is ESTIMATED, off by 40 % and "
            f"more; intervals take {question.energy_error:.0%} (--energy-error)"
        )
    imported = used["imported_from"].dropna().unique()
    if len(imported):
        notes.append(f"IMPORTED, not measured by pepr: {', '.join(imported)}")
    unidentified = used[used["data_digest"].isna() & used["logged_by_pepr"]]
    if len(unidentified):
        notes.append(
            f"{len(unidentified)} of {len(used)} runs do not say what their data set held: they "
            "are compared by its name"
        )
    if "carbon_gco2e" in costs:
        notes += _carbon_notes(used, question)
    foreign = ~found["logged_by_pepr"]
    if foreign.any():
        values = conditions(found[foreign], comparable(found, costs))
        unknown = [c for c in values if (values[c] == NOT_KNOWN).all()]
        notes.append(
            f"{foreign.sum()} of {len(found)} runs were not logged by pepr: their "
            f"{', '.join(unknown)} are not known, so that differences there go unnoticed, their "
            "power, counters and repetitions cannot be checked, and runs of one model are averaged "
            "whatever they differ in besides"
        )
    return notes


def _carbon_notes(used: pd.DataFrame, question: Question) -> list[str]:
    notes = []
    intensities = used["carbon_intensity_g_per_kwh"].dropna()
    if question.intensity is not None:
        notes.append(
            f"CO2e of all runs under {question.intensity.g_per_kwh:g} g/kWh "
            f"({question.intensity.source})"
        )
    elif intensities.nunique() > 1:
        notes.append(
            f"CO2e mixes grid intensities from {intensities.min():g} to {intensities.max():g} "
            "g/kWh with the models' cost; give --carbon-intensity or --country for one"
        )
    pue = used["pue"].fillna(1.0)
    if pue.nunique() > 1:
        notes.append(
            f"CO2e mixes buildings of a PUE from {pue.min():g} to {pue.max():g} with the models' "
            "cost; compare by energy (E), which has no PUE in it"
        )
    return notes
