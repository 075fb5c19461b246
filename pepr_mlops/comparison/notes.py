"""Notes: what a reader of any output must know about all its runs. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from pepr_mlops.comparison import inference
from pepr_mlops.comparison.conditions import (
    NOT_KNOWN,
    about_energy,
    comparable,
    conditions,
    energy_is,
    of_folds,
    places,
)
from pepr_mlops.comparison.question import Question
from pepr_mlops.comparison.words import OFF_BY
from pepr_mlops.costs.totals import J_PER_WH
from pepr_mlops.names import DOUBTS

# What decides how long a step takes besides the settings of a run.
_VERSIONS = {
    "torch": "tags.pepr.version.torch",
    "timm": "tags.pepr.version.timm",
    "GPU driver": "tags.pepr.gpu_driver",
}
_ALIKE = 0.05  # relative; models whose power differs by less draw the same


class Explained(str):
    """A note whose content a badge of the report explains, too."""

    __slots__ = ()


def notes_on(
    found: pd.DataFrame, used: pd.DataFrame, costs: Sequence[str], question: Question
) -> list[str]:
    """The notes on a comparison of the runs `used`, of all that were `found`."""
    notes: list[str] = []
    common, own = question.estimate_error
    estimated = energy_is(used, "estimated")
    if about_energy(costs) and estimated.any():
        notes.append(
            Explained(
                f"the energy of {estimated.sum()} of {len(used)} runs is estimated, off by "
                f"{OFF_BY}{constant_text(used)}; intervals take {100 * common:g}% for all models "
                f"together and {100 * own:g}% for each (--estimate-error)"
            )
        )
    imported = used["imported_from"].dropna().unique()
    if len(imported):
        names = ", ".join(imported)
        notes.append(Explained(f"energy and time are imported, not measured by pepr: {names}"))
    unidentified = used[used["data_digest"].isna() & used["logged_by_pepr"]]
    if len(unidentified):
        folders = places(unidentified)
        several = f", though it was at {', '.join(folders)}" if len(folders) > 1 else ""
        notes.append(
            f"{len(unidentified)} of {len(used)} runs do not say what their data set contained: "
            f"they are compared by its name{several}"
        )
    early = used["early_stop"].notna()
    if early.any():
        notes.append(
            f"{early.sum()} of {len(used)} runs ended early by their patience: P and costs are "
            "those of the epochs trained"
        )
    notes += [
        *inference.notes(found, used, costs, question.use),
        *_fold_notes(used),
        *_image_notes(used),
    ]
    notes += [*_version_notes(used), *_resize_notes(used)]
    if "carbon_gco2e" in costs:
        notes += _carbon_notes(used, question)
    foreign = ~used["logged_by_pepr"]
    if foreign.any():
        values = conditions(used[foreign], comparable(costs))
        unknown = [c for c in values if (values[c] == NOT_KNOWN).all()]
        notes.append(
            f"{foreign.sum()} of {len(used)} runs not logged by pepr: their "
            f"{', '.join(unknown)} are not known, so that differences there go unnoticed, their "
            "power, counters and repetitions cannot be checked, and runs of one model are averaged "
            "whatever else they differ in"
        )
    return notes


def _fold_notes(used: pd.DataFrame) -> list[str]:
    """How the folds of a cross-validation count."""
    n = int(of_folds(used).sum())
    if not n:
        return []
    return [
        f"{n} of {len(used)} runs are folds: those of one model and seed count as one run, with P "
        "of all their predictions together, the sum of their energy, CO2e and time, and the most "
        "memory that one of them used; their validation images are their test images, too, so that "
        "a choice by validation is no independent one"
    ]


def _image_notes(used: pd.DataFrame) -> list[str]:
    """Doubts about images that P does not depend on; the others flag their runs."""
    found = []
    for doubt in DOUBTS:
        counts = used[doubt.code].dropna()
        if len(counts) and not doubt.flagged:
            more = counts.nunique() - 1
            others = f" (other counts: {more})" if more else ""
            found.append(f"{len(counts)} of {len(used)} runs: {doubt.text(counts.iloc[0])}{others}")
    return found


def _resize_notes(used: pd.DataFrame) -> list[str]:
    """A note where some runs are of a version that resized images in another way."""
    column = "tags.pepr.resize"
    known = used[column].dropna() if column in used else used["run_id"].iloc[:0]
    if known.empty:
        return []
    jobs = used["logged_by_pepr"] & used["compile"].notna()
    others = jobs & (used[column] != known.iloc[-1])
    if not others.any():
        return []
    return [
        f"{others.sum()} of {len(used)} runs are of a version that resized images in another way: "
        "their pixels differ by up to one grey value, and P by chance"
    ]


def _version_notes(used: pd.DataFrame) -> list[str]:
    """Libraries and drivers of several versions, which may compute at other costs."""
    found = []
    for name, column in _VERSIONS.items():
        versions = used[column].dropna().unique() if column in used else ()
        if len(versions) > 1:
            found.append(f"{name} {', '.join(sorted(versions))}")
    return [f"runs used several versions: {'; '.join(found)}"] if found else []


def constant_text(runs: pd.DataFrame) -> str:
    """Which share of the estimated training energy is the same whatever the runs compute, as the
    end of a sentence; empty where it is not known."""
    known = runs["energy_constant_w"].notna() & (runs["energy_wh"] > 0)
    energy_j = float((runs.loc[known, "energy_wh"] * J_PER_WH).sum())
    constant_j = float((runs["energy_constant_w"] * runs["train_time_s"])[known].sum())
    if not energy_j:
        return ""
    estimated = energy_is(runs, "estimated")
    n = int((runs["energy_constant_w"].notna() & estimated).sum())
    limit = "" if n == estimated.sum() else f" (known of {n} of {estimated.sum()} runs)"
    return f", and {100 * constant_j / energy_j:.0f}% of it is counted whatever the load{limit}"


def same_ranking(name: str, members: pd.DataFrame) -> list[str]:
    """A note where estimated energy must rank the models of a set as time does."""
    if not energy_is(members, "estimated").all():
        return []
    by_row = members.groupby(["model", "variant"])[["energy_wh", "train_time_s"]].mean()
    watts = by_row["energy_wh"] * J_PER_WH / by_row["train_time_s"]
    if len(watts) < 2 or not watts.max() <= (1 + _ALIKE) * watts.min():
        return []
    low, high = f"{watts.min():.3g}", f"{watts.max():.3g}"
    power = f"{low} W" if low == high else f"between {low} and {high} W"
    return [
        f"{name}: the estimate gives all models {power}, "
        "so that their energy ranks them as their time does; compare by time (T), or measure"
    ]


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
        missing = int(used["pue"].isna().sum())
        taken = f" (taken as 1 for {missing} of {len(pue)} runs)" if missing else ""
        notes.append(
            f"CO2e mixes buildings of a PUE from {pue.min():g} to {pue.max():g}{taken} with the "
            "models' cost; compare by energy (E), which has no PUE in it"
        )
    return notes
