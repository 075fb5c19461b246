"""What is reported has a unit and a name."""

from __future__ import annotations

from pepr_mlops.names import METRICS, TAGS, memory_metric


def test_units_are_known() -> None:
    assert {m.unit for m in METRICS.values()} <= {
        "1",
        "nat",
        "Wh",
        "s",
        "1/s",
        "GB",
        "g",
        "ms",
        "GMAC",
    }
    assert all(name.startswith("pepr.") for name in TAGS)
    assert memory_metric("cuda") == "memory/reserved_gb"
    assert memory_metric("cpu") == "memory/rss_gb"
