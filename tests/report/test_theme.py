"""Colours that everybody can tell from the paper, light and dark."""

from __future__ import annotations

import pytest

from pepr_mlops.report import theme


def _luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return float(sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True)))


def _contrast(one: str, two: str) -> float:
    """As WCAG 2 has it."""
    dark, light = sorted((_luminance(one), _luminance(two)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("paper", [theme.LIGHT, theme.DARK])
@pytest.mark.parametrize("colour", [theme.CHOICE, theme.BEST, theme.NEUTRAL, *theme.COLOURS])
def test_marks_are_seen_on_both_papers(colour: str, paper: str) -> None:
    assert _contrast(colour, paper) >= 3


@pytest.mark.parametrize("dark", [False, True])
def test_words_are_read_on_both_papers(dark: bool) -> None:
    layout = theme.template(dark).layout
    for colour in (layout.font.color, layout.title.font.color):
        assert _contrast(colour, layout.paper_bgcolor) >= 4.5


def test_the_choice_is_green_the_best_orange_and_others_keep_their_order() -> None:
    models = ["a", "b", "c", "d"]
    found = {m: s["color"] for m, s in theme.styles(models, "c", "a").items()}
    assert found == {
        "a": theme.BEST, "c": theme.CHOICE, "b": theme.COLOURS[0], "d": theme.COLOURS[1]
    }  # fmt: skip
    assert theme.styles(models, "a", "a")["a"]["color"] == theme.CHOICE
    assert {s["color"] for s in theme.styles(models, None, None).values()} == set(theme.COLOURS[:4])


def test_a_long_name_is_cut_off_and_stays_text() -> None:
    assert theme.name("<b>" + "x" * 40) == "&lt;b&gt;" + "x" * 24 + "…"
    assert theme.name("resnet18d") == "resnet18d"
