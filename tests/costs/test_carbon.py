from __future__ import annotations

import pytest

from pepr_mlops.costs import carbon
from pepr_mlops.errors import WrongUse


def test_a_kilowatt_hour_times_intensity_times_pue() -> None:
    assert carbon.gco2e(1000, carbon.Intensity(100, "given"), 1.5) == pytest.approx(150)
    assert carbon.gco2e(2.5, carbon.Intensity(400, "given"), 1.0) == pytest.approx(1.0)


def test_countries_come_from_the_offline_table() -> None:
    denmark = carbon.resolve("dnk", None)
    poland = carbon.resolve("POL", None)
    assert denmark is not None
    assert poland is not None
    assert "Denmark" in denmark.source
    assert "Our World in Data" in denmark.source
    assert 30 < denmark.g_per_kwh < 250 < poland.g_per_kwh < 900


def test_a_given_intensity_is_used_and_none_stays_none() -> None:
    assert carbon.resolve(None, 123.0) == carbon.Intensity(123.0, "given")
    assert carbon.resolve(None, None) is None
    assert carbon.tags(None, 1.0) == {}


@pytest.mark.parametrize(("typed", "hint"), [("denmark", "'DNK'"), ("DMK", "'DNK'"), ("XX", "ISO")])
def test_an_unknown_country_is_an_error_with_a_hint(typed: str, hint: str) -> None:
    with pytest.raises(WrongUse, match="no grid intensity") as refused:
        carbon.resolve(typed, None)
    assert hint in str(refused.value)
