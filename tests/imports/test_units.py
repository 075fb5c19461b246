"""Units of others: hand-computed values, and that all of ours are there."""

from __future__ import annotations

import pytest

from pepr_mlops.errors import WrongUse
from pepr_mlops.imports import units
from pepr_mlops.names import METRICS


@pytest.mark.parametrize(
    ("value", "unit", "ours", "expected"),
    [
        (1.5, "kWh", "Wh", 1500.0),
        (0.002, "MWh", "Wh", 2000.0),
        (250.0, "mWh", "Wh", 0.25),
        (7200.0, "J", "Wh", 2.0),
        (3.6, "MJ", "Wh", 1000.0),
        (18.0, "kJ", "Wh", 5.0),
        (1.0, "Wh", "J", 3600.0),
        (12.0, "Wh", "Wh", 12.0),
        (90.0, "min", "s", 5400.0),
        (1.5, "h", "s", 5400.0),
        (57.0, "ms", "s", 0.057),
        (0.25, "s", "ms", 250.0),
        (0.0303, "kg", "g", 30.3),
        (2.0, "t", "g", 2e6),
        (5.0, "mg", "g", 0.005),
        (57.0, "%", "1", 0.57),
        (0.57, "1", "%", 57.0),
        (16.0, "GiB", "GB", 17.179869184),
        (1024.0, "MiB", "GB", 1.073741824),
        (1500.0, "MB", "GB", 1.5),
        (2e9, "B", "GB", 2.0),
        (120.0, "1/min", "1/s", 2.0),
        (7200.0, "1/h", "1/s", 2.0),
        (1500.0, "MMAC", "GMAC", 1.5),
        (0.7, "nat", "nat", 0.7),
    ],
)
def test_values_are_converted(value: float, unit: str, ours: str, expected: float) -> None:
    assert units.convert(value, unit, ours) == pytest.approx(expected, rel=1e-15)


def test_integers_of_per_cent_are_the_nearest_share() -> None:
    assert [units.convert(n, "%", "1") for n in range(101)] == [n / 100 for n in range(101)]


def test_every_unit_of_ours_is_in_the_table_and_no_name_means_two_things() -> None:
    for metric in METRICS.values():
        assert metric.unit in units.valid(metric.unit)
    names = [name for row in units.UNITS for name in row]
    assert len(names) == len(set(names))


def test_units_of_something_else_are_refused() -> None:
    with pytest.raises(WrongUse, match=r"'kW' is none of Wh; did you mean 'kWh'.* Valid: mWh, Wh"):
        units.convert(1.0, "kW", "Wh")
    with pytest.raises(WrongUse, match="'kg' is none of Wh"):
        units.convert(1.0, "kg", "Wh")
