"""The view as the static report."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version

from pepr_mlops.report import page
from pepr_mlops.report.dashboards import Dashboard
from pepr_mlops.report.material import Material


def export(material: Material, dashboard: Dashboard, notes: Sequence[str], command: str) -> str:
    """The HTML of `pepr report` for the same material; `command` makes it again."""
    made = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC by pepr_mlops {version('pepr_mlops')}"
    return page.html(material, dashboard, notes, command=command, made=made)
