"""The votes of the radiologists, counted by hand."""

from __future__ import annotations

from pepr_mlops.data.lidc_build.nodules import Outlined
from pepr_mlops.data.lidc_build.output import labels, votes


def _outlined(ratings: tuple[int, ...], marked: tuple[bool, ...]) -> Outlined:
    return Outlined(1, -12.5, 100, 100, ratings, marked)


def test_more_than_two_of_four_radiologists_decide() -> None:
    seen = [
        _outlined((5, 4, 4, 1), (True, False, False, False)),
        _outlined((5, 4, 3, 1), (True, True, True, True)),
        _outlined((5, 5, 5), (True, True, True)),
        _outlined((5, 5), (True, True)),
    ]
    malignant, marked = votes(seen, "malignant"), votes(seen, "marked")
    assert malignant.tolist() == [[1, 1, 1, 0], [1, 1, 0, 0], [1, 1, 1, -1], [1, 1, -1, -1]]
    assert marked.tolist() == [[1, 0, 0, 0], [1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 0, 0]]
    assert labels(malignant).tolist() == [1, 0, 1, 0]
    assert labels(marked).tolist() == [0, 1, 1, 0]
