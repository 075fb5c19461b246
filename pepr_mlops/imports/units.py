"""Units of other programs and tables, and their values in ours. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from pepr_mlops.errors import WrongUse, nearest

# How much a unit is of the smallest in its row: whole numbers, so that conversions are exact.
UNITS: tuple[Mapping[str, int], ...] = (
    {"mWh": 3600, "Wh": 3_600_000, "kWh": 3_600_000_000, "MWh": 3_600_000_000_000}
    | {"mJ": 1, "J": 1000, "kJ": 1_000_000, "MJ": 1_000_000_000},
    {"ms": 1, "s": 1000, "min": 60_000, "h": 3_600_000},
    {"mg": 1, "g": 1000, "kg": 1_000_000, "t": 1_000_000_000},
    {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30},
    {"%": 1, "1": 100},
    {"1/h": 1, "1/min": 60, "1/s": 3600},
    {"MAC": 1, "MMAC": 10**6, "GMAC": 10**9},
    {"nat": 1},
)


def valid(ours: str) -> Mapping[str, int]:
    """The units that `ours` may be given in."""
    return next(units for units in UNITS if ours in units)


def convert(value: float, unit: str, ours: str) -> float:
    """A value in `unit` as one in `ours`, such as kWh as Wh.

    Raises `WrongUse` for a unit of something else, with the valid ones.
    """
    units = valid(ours)
    if unit not in units:
        raise WrongUse(
            f"unit: {unit!r} is none of {ours}{nearest(unit, units) or '.'} "
            f"Valid: {', '.join(units)}"
        )
    given, target = units[unit], units[ours]
    return value * (given / target) if given >= target else value / (target / given)
