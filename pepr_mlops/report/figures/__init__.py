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
# What they are called where there is nothing to draw; a drawn figure says it with its quantities.
TITLE = {
    "ranking": "Ranking by PePR",
    "plane": "Performance against cost",
    "curves": "PePR curves over the epochs",
    "sensitivity": "How the ranking moves",
    "space": "Size of the models and cost",
    "energy": "Energy of training",
    "lifetime": "Energy of training and use",
    "subgroups": "Performance in groups of the test images",
    "clinical": "Clinical metrics",
    "reliability": "Confidence and accuracy",
    "categories": "Models by category",
    "conditions": "The same models under two conditions",
    "sizes": "Small and large models",
    "publications": "Publications by region",
}
