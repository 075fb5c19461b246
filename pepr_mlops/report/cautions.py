"""What readers must know before they trust the numbers, for the report and for each figure."""

from __future__ import annotations

from collections.abc import Sequence

from pepr_mlops.comparison.conditions import energy_is
from pepr_mlops.comparison.inference import doubtful
from pepr_mlops.comparison.notes import OFF_BY, constant_text
from pepr_mlops.comparison.profiles import forms_of, is_energy
from pepr_mlops.names import DOUBTS, FORMS
from pepr_mlops.report.material import Material

ENERGY_ESTIMATED = "energy ESTIMATED"
_DISTURBED = {"busy_cpu", "busy_machine", "other_processes"}


def warnings(material: Material) -> list[str]:
    """Why numbers of the requested sets may be wrong: estimates, other programs, pauses, doubtful
    images, mixed conditions."""
    found = []
    for row in material.sets[material.sets["main"]].to_dict("records"):
        name = row["comparison_set"]
        runs = material.runs_of(name)
        if material.energy_matters(name):
            estimated = energy_is(runs, "estimated")
            if estimated.any():
                found.append(
                    f"ESTIMATED: the energy of {estimated.sum()} of {len(runs)} runs of {name} is "
                    f"estimated, which can be wrong by {OFF_BY}{constant_text(runs)}"
                )
        found += [
            f"ESTIMATED: the energy of use of {n} of {len(runs)} runs of {name} is estimated, "
            f"which can be wrong by {OFF_BY}"
            for form in FORMS
            if (n := int(doubtful(runs, form, "energy_source").sum()))
        ]
        times = int((runs["time_source"] == "estimated").sum())
        if "T" in material.resources(name) and times:
            found.append(
                f"ESTIMATED: the training time of {times} of {len(runs)} runs of {name} is "
                "estimated"
            )
        rows = material.models_of(name)
        disturbed = sum(not _DISTURBED.isdisjoint(codes) for codes in rows["codes"])
        if disturbed:
            found.append(
                f"DISTURBED: other programs were running while {disturbed} of {len(rows)} models "
                f"of {name} trained, so their time and energy may be overstated. Train them again "
                "on an idle machine"
            )
        paused = sum("paused" in codes for codes in rows["codes"])
        if paused:
            found.append(
                f"PAUSED: training of {paused} of {len(rows)} models of {name} was suspended for a "
                "while (Ctrl-Z, docker pause, sleep). Their time excludes the pause, their "
                "measured energy includes it. Train them again"
            )
        for doubt in DOUBTS:
            counts = runs[doubt.code].dropna()
            if doubt.flagged and len(counts):
                found.append(
                    f"DOUBTFUL IMAGES: {len(counts)} of {len(runs)} runs of {name}: "
                    f"{doubt.text(counts.iloc[0])}; correct the images and train again"
                )
        if row["mixed"]:
            found.append(
                f"MIXED: the models of {name} were trained under different conditions. "
                "Compare their costs with care"
            )
    return found


def stamps(material: Material, sets: Sequence[str]) -> str:
    """The warnings that belong into every figure of these sets, or an empty text."""
    rows = material.sets[material.sets["comparison_set"].isin(sets)]
    words = []
    for row in rows.to_dict("records"):
        name = row["comparison_set"]
        if "estimated" in str(row["energy_source"]) and material.energy_matters(name):
            words.append(ENERGY_ESTIMATED)
        resources = material.question(name).resources
        runs, of_use = material.runs_of(name), [r for r in resources if is_energy(r)]
        if any(doubtful(runs, form, "energy_source").any() for form in forms_of(of_use)):
            words.append("energy of use ESTIMATED")
        times = runs["time_source"]
        if "T" in resources and (times == "estimated").any():
            words.append("time ESTIMATED")
        if row["mixed"]:
            words.append("conditions MIXED")
    return ", ".join(dict.fromkeys(words))
