"""What makes the numbers of a report less than they look, for its top and for every figure."""

from __future__ import annotations

from collections.abc import Sequence

from pepr_mlops.comparison.notes import constant_text
from pepr_mlops.names import DOUBTS
from pepr_mlops.report.material import Material, energy_matters

_DISTURBED = {"busy_cpu", "busy_machine", "other_processes"}


def warnings(material: Material) -> list[str]:
    """What makes the numbers of the main sets less than they look: estimates, other programs at
    work, pauses, doubtful images and mixtures."""
    found = []
    for row in material.sets[material.sets["main"]].to_dict("records"):
        name = row["comparison_set"]
        runs = material.runs[material.runs["comparison_set"] == name]
        if energy_matters(material, name):
            estimated = runs["energy_source"].fillna("").str.contains("estimated")
            if estimated.any():
                found.append(
                    f"ESTIMATED: the energy of {estimated.sum()} of {len(runs)} runs of {name} was "
                    f"not measured; such estimates are off by 40 % and more{constant_text(runs)}"
                )
        if "T" in material.resources(name) and (runs["time_source"] == "estimated").any():
            found.append(f"ESTIMATED: the training time T of runs of {name} was not measured")
        rows = material.of(name)
        disturbed = rows["codes"].map(lambda codes: not _DISTURBED.isdisjoint(codes))
        if disturbed.any():
            found.append(
                f"DISTURBED: others used the CPUs or the GPU of {disturbed.sum()} of {len(rows)} "
                f"models of {name} meanwhile, whose energy and time may be too high; train them "
                "again"
            )
        paused = rows["codes"].map(lambda codes: "paused" in codes)
        if paused.any():
            found.append(
                f"PAUSED: {paused.sum()} of {len(rows)} models of {name} were stopped for a while "
                "as they trained (Ctrl-Z, docker pause, sleep). Their time leaves that out, their "
                "measured energy does not; train them again"
            )
        for doubt in DOUBTS:
            counts = runs[doubt.code].dropna()
            if doubt.flagged and len(counts):
                found.append(
                    f"DOUBTFUL IMAGES: {len(counts)} of {len(runs)} runs of {name}: "
                    f"{doubt.text(counts.iloc[0])}; correct the images and train again"
                )
        if row["mixed"]:
            found.append(f"MIXED: {name} compares unlike with unlike, as was allowed")
    return found


def stamps(material: Material, sets: Sequence[str]) -> str:
    """What must stand in every figure of these sets, empty where nothing must."""
    rows = material.sets[material.sets["comparison_set"].isin(sets)]
    words = []
    for row in rows.to_dict("records"):
        estimated = "estimated" in str(row["energy_source"])
        if estimated and energy_matters(material, row["comparison_set"]):
            words.append("energy ESTIMATED")
        name = row["comparison_set"]
        times = material.runs.loc[material.runs["comparison_set"] == name, "time_source"]
        if "T" in material.question(name).resources and (times == "estimated").any():
            words.append("time ESTIMATED")
        if row["mixed"]:
            words.append("conditions MIXED")
    return ", ".join(dict.fromkeys(words))
