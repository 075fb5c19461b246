"""Which grey values become black and white: windows of DICOM, and percentiles."""

from __future__ import annotations

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.pixels import apply_windowing

from pepr_mlops.data.own import window
from pepr_mlops.data.own.window import Percentiles, between, linear


def test_a_window_of_hounsfield_units_is_that_of_dicom() -> None:
    """From 40 - 200 black to 40 + 199 white; (40 - 39.5) / 399 + 0.5 is 0.50125."""
    values = np.array([-2000, -160, -159, 40, 238, 239, 3000], np.int16)
    assert linear(values, 40, 400).tolist() == [0, 0, 1, 128, 254, 255, 255]
    assert linear(np.array([99, 100]), 100, 1).tolist() == [0, 255]  # a step at 99.5


@pytest.mark.parametrize("name", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize(("centre", "width"), [(40.0, 400.0), (2047.5, 4096.0), (-600.25, 1.5)])
def test_each_function_is_as_pydicom_computes_it(name: str, centre: float, width: float) -> None:
    values = np.arange(-1100, 3000, dtype=np.int16)
    header = Dataset()
    header.PhotometricInterpretation, header.VOILUTFunction = "MONOCHROME2", name
    header.WindowCenter, header.WindowWidth = centre, width
    header.BitsStored, header.PixelRepresentation = 8, 0  # shows values from 0 to 255
    function = window.FUNCTIONS[name]
    found = function.apply(values, centre, width)
    assert found.dtype == np.uint8
    with np.errstate(over="ignore"):
        exact = apply_windowing(values, header)
    assert np.abs(found - exact).max() <= 0.5 + 1e-9  # the nearest grey level
    assert not function.is_width(0)


def test_bounds_become_black_and_white_and_the_same_bounds_divide_by_nothing() -> None:
    assert between(np.array([-5.0, 0.0, 0.5, 1.0, 9.0]), 0, 1).tolist() == [0, 0, 128, 255, 255]
    assert between(np.full((2, 2), 7), 7, 7).tolist() == [[0, 0], [0, 0]]
    assert between(np.array([6, 7, 8]), 7, 7).tolist() == [0, 0, 255]


def _of(*parts: np.ndarray) -> tuple[float, float]:
    found = Percentiles()
    for part in parts:
        found.add(part)
    return found.bounds()


def test_percentiles_of_0_to_1000_are_5_and_995() -> None:
    assert _of(np.arange(500), np.arange(500, 1001)) == (5.0, 995.0)
    assert _of(np.array([[3, 3], [3, 3]])) == (3.0, 3.0)
    assert _of(np.array([1.0, 2.0])) == pytest.approx((1.005, 1.995))
    with pytest.raises(ValueError, match="no values"):
        _of()


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.float32, np.float64])
def test_percentiles_equal_those_of_numpy(kind: type) -> None:
    rng = np.random.default_rng(0)
    parts = [(rng.gamma(1.5, 20, n) * 3 - 20).astype(kind) for n in (1, 4096, 999, 50_000)]
    expected = np.percentile(np.concatenate(parts).astype(np.float64), [0.5, 99.5])
    assert _of(*parts) == tuple(expected)


def test_percentiles_stay_close_to_exact_in_bounded_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A million different values where a thousand are distinguished, half of all the same."""
    monkeypatch.setattr(window, "MOST", 1000)
    rng = np.random.default_rng(0)
    parts = [np.concatenate([rng.normal(0, 1, 5000), np.full(5000, -1.5)]) for _ in range(100)]
    found = Percentiles()
    for part in parts:
        found.add(part)
    low, high = found.bounds()
    assert len(found._values) <= 1000
    together = np.concatenate(parts)
    assert [(together <= low).mean(), (together <= high).mean()] == pytest.approx(
        [0.005, 0.995], abs=2 / 1000
    )
