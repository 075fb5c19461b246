"""Models by name, glob and category of the paper's table."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Sequence
from typing import Any

from pepr_mlops.errors import WrongUse

PAPER = "paper"
_CATEGORIES = {
    "small": ("size", "small"),
    "large": ("size", "large"),
    "efficient": ("efficient", True),
    "inefficient": ("efficient", False),
    "cnn": ("kind", "CNN"),
    "other": ("kind", "Other"),
}


def models(selectors: Iterable[str]) -> list[str]:
    """Names of models from names, globs over timm's, and the paper's table, each once.

    `paper` is all 131 of it, `paper:small+efficient` those of every category named (small, large,
    efficient, inefficient, cnn, other, or a glob). Raises `WrongUse` for what matches nothing.
    """
    found: list[str] = []
    for selector in selectors:
        kind, _, categories = selector.partition(":")
        if kind == PAPER:
            names = _of_the_paper([c for c in categories.split("+") if c])
        elif any(c in selector for c in "*?["):
            import timm

            names = fnmatch.filter(timm.list_models(), selector)
        else:
            names = [selector]
        if not names:
            raise WrongUse(
                f"model: {selector!r} matches no model; `pepr models` lists the paper's, "
                "timm.list_models() all"
            )
        found += names
    return list(dict.fromkeys(found))


def _of_the_paper(categories: Sequence[str]) -> list[str]:
    from pepr_mlops.paper_models import select

    wanted: dict[str, Any] = {}
    for category in categories:
        if category.lower() in _CATEGORIES:
            key, value = _CATEGORIES[category.lower()]
        elif any(c in category for c in "*?["):
            key, value = "name", category
        else:
            raise WrongUse(
                f"model: paper:{category} is none of {', '.join(_CATEGORIES)} and no glob"
            )
        if wanted.get(key, value) != value:
            return []
        wanted[key] = value
    return [m.model for m in select(**wanted)]
