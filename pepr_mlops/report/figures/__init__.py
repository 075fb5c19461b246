"""All kinds of figures, by the name a dashboard calls them."""

from __future__ import annotations

from types import ModuleType

from pepr_mlops.report.figures import (
    categories,
    clinical,
    conditions,
    curves,
    energy,
    lifetime,
    parameters,
    plane,
    publications,
    ranking,
    reliability,
    sensitivity,
    sizes,
    subgroups,
)

# Those of one comparison set have `panel(material, options, comparison_set)`, the others, which
# compare experiments, `panel(material, options)`. Both raise `NothingToDraw`.
OF_A_SET: dict[str, ModuleType] = {
    "ranking": ranking,
    "plane": plane,
    "curves": curves,
    "sensitivity": sensitivity,
    "space": parameters,
    "energy": energy,
    "lifetime": lifetime,
    "subgroups": subgroups,
    "clinical": clinical,
    "reliability": reliability,
}
KINDS: dict[str, ModuleType] = {
    **OF_A_SET,
    "categories": categories,
    "conditions": conditions,
    "sizes": sizes,
    "publications": publications,
}
# The section of the page that shows them.
SECTION = {
    "ranking": "ranking",
    "sensitivity": "what-if",
    **dict.fromkeys(("plane", "curves", "energy", "lifetime"), "costs"),
    **dict.fromkeys(("subgroups", "clinical", "reliability"), "fairness"),
    **dict.fromkeys(("space", "categories", "sizes", "publications"), "kinds"),
    "conditions": "conditions",
}
