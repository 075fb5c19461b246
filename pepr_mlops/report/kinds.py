"""All kinds of figures, by the name a dashboard calls them."""

from __future__ import annotations

from types import ModuleType

from pepr_mlops.report import curves, plane

# Those of one comparison set have `panel(material, options, comparison_set)`, the others, which
# look across experiments, `panel(material, options)`. Both raise `NothingToDraw`.
OF_A_SET: dict[str, ModuleType] = {"plane": plane, "curves": curves}
ACROSS: dict[str, ModuleType] = {}
KINDS = {**OF_A_SET, **ACROSS}
