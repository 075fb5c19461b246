"""Published results of others as finished runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pepr_mlops.imports import pepr_paper, timm_results
from pepr_mlops.imports.files import FinishedRun

SOURCES: dict[str, Callable[[Path], list[FinishedRun]]] = {
    "pepr-paper": pepr_paper.read,
    "timm": timm_results.read,
}
