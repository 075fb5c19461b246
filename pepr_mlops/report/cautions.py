"""What readers must know before they trust a figure, in its words."""

from __future__ import annotations

from collections.abc import Sequence

from pepr_mlops.comparison.inference import doubtful
from pepr_mlops.comparison.profiles import forms_of, is_energy
from pepr_mlops.report.material import Material


def stamps(material: Material, sets: Sequence[str]) -> str:
    """The warnings that belong into every figure of these sets, or an empty text."""
    rows = material.sets[material.sets["comparison_set"].isin(sets)]
    words = []
    for row in rows.to_dict("records"):
        name = row["comparison_set"]
        if "estimated" in str(row["energy_source"]) and material.energy_matters(name):
            words.append("energy estimated")
        resources = material.question(name).resources
        runs, of_use = material.runs_of(name), [r for r in resources if is_energy(r)]
        if any(doubtful(runs, form, "energy_source").any() for form in forms_of(of_use)):
            words.append("energy of use estimated")
        times = runs["time_source"]
        if "T" in resources and (times == "estimated").any():
            words.append("time estimated")
        if row["mixed"]:
            words.append("conditions mixed")
    return ", ".join(dict.fromkeys(words))
