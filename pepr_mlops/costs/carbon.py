"""Carbon dioxide equivalents of electricity: grid intensities by country, offline."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from pepr_mlops.errors import WrongUse, nearest


@dataclass(frozen=True)
class Intensity:
    """Grams of CO2 equivalents per kWh of electricity, where the number is from, and the code of
    the country if it is one's."""

    g_per_kwh: float
    source: str
    country: str | None = None


def resolve(country: str | None, g_per_kwh: float | None) -> Intensity | None:
    """The intensity given, or the country's yearly mean, or None when neither is named.

    `country` is an ISO 3166-1 alpha-3 code in any case. The table is Our World in Data's in the
    CodeCarbon package; nothing is looked up over the network. Raises `WrongUse` for a country that
    is not in the table.
    """
    if g_per_kwh is not None:
        return Intensity(g_per_kwh, "given")
    if country is None:
        return None
    package = find_spec("codecarbon")  # importing it would search for GPUs and print the result
    assert package is not None
    assert package.origin is not None
    path = Path(package.origin).parent / "data" / "private_infra" / "global_energy_mix.json"
    table = json.loads(path.read_text())
    code = country.strip().upper()
    known = {c: row for c, row in table.items() if row.get("carbon_intensity") is not None}
    if code not in known:
        by_name = {row["country_name"].upper(): c for c, row in known.items()}
        hint = f"; did you mean {by_name[code]!r}?" if code in by_name else nearest(code, known)
        raise WrongUse(
            f"country: no grid intensity for {country!r}{hint or '.'} Valid: three-letter ISO "
            "codes such as DNK, DEU, USA; or give carbon_intensity in gCO2e per kWh"
        )
    row = known[code]
    return Intensity(
        float(row["carbon_intensity"]),
        f"{row['country_name']} {row['year']}, Our World in Data via codecarbon "
        f"{metadata.version('codecarbon')}",
        code,
    )


def gco2e(energy_wh: float, intensity: Intensity, pue: float) -> float:
    """Grams of CO2 equivalents: energy in kWh × intensity × power usage effectiveness."""
    return energy_wh / 1000 * intensity.g_per_kwh * pue


def tags(intensity: Intensity | None, pue: float) -> dict[str, str]:
    """The grid intensity, its source and the PUE; none without an intensity."""
    if intensity is None:
        return {}
    return {
        "pepr.carbon_intensity_g_per_kwh": f"{intensity.g_per_kwh:g}",
        "pepr.carbon_source": intensity.source,
        "pepr.pue": f"{pue:g}",
    }
