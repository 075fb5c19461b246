"""Which costs are of profiles, and what profiles must share to be compared. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from pepr_mlops.names import FORMS, PROFILED, PROFILED_BY


def profiled(costs: Iterable[str]) -> list[str]:
    """Those of the costs, columns of runs or metrics, that profiles measure, as metrics."""
    names = [cost.removeprefix("metrics.") for cost in costs]
    return [name for name in names if name in PROFILED]


def form_of(cost: str) -> str:
    """The form of the model (`names.FORMS`) that a cost of a profile is of."""
    return cost.removeprefix("metrics.").partition("/")[0]


def forms_of(costs: Iterable[str]) -> list[str]:
    """The forms that these costs are of."""
    found = {form_of(name) for name in profiled(costs)}
    return [form for form in FORMS if form in found]


def is_energy(cost: str) -> bool:
    """Whether a cost is an energy of use."""
    return bool(profiled([cost])) and "/wh_per_image" in cost


def conditions_of(costs: Iterable[str]) -> list[str]:
    """The columns that runs share whose profiles are compared by these costs."""
    costs, found = list(costs), []
    for form in forms_of(costs):
        energy = any(is_energy(c) and form_of(c) == form for c in costs)
        found += [f"{form}_{n}" for n in PROFILED_BY if energy or not n.startswith("energy_")]
    return found


def remedy(name: str) -> str:
    """The command that measures a cost of profiles."""
    onnx = " --onnx" if form_of(name) == FORMS[1] else ""
    return f"`pepr profile RUN{onnx}`, or with --experiment NAME,"
