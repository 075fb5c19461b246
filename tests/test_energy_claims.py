"""What the pages claim of energies is what their sources say."""

from __future__ import annotations

import re
from pathlib import Path

import gpu

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), ROOT / "benchmarks" / "README.md"]


def _sentences(path: Path) -> list[str]:
    """Sentences, rows of tables and items of lists, each on a line."""
    blocks = re.split(r"\n\n|\n(?=[-|])", path.read_text())
    return [one for text in blocks for one in re.split(r"(?<=\.) ", re.sub(r"\s+", " ", text))]


def test_the_error_of_an_estimate_is_one_of_a_published_comparison() -> None:
    claims = [text for path in PAGES for text in _sentences(path) if "up to 40%" in text]
    assert len(claims) == 3
    for text in claims:
        assert "in a published comparison" in text
        assert "arxiv.org/abs/2509.22092" in text
        assert "nothing bounds" in text


def test_a_counter_that_agrees_with_its_own_sensor_is_not_called_right() -> None:
    text = re.sub(r"\s+", " ", (ROOT / "benchmarks" / "README.md").read_text())
    assert "Is a GPU's energy right" not in text
    (row,) = re.findall(r"\| Does a GPU's energy counter agree .*?\|.*?\|.*?\|", text)
    assert "consistency, not that the energy is right" in row
    assert "a quarter of the time ([arXiv:2312.02741]" in row
    assert "shorter than 60 s" in row
    page = (ROOT / "docs" / "measuring.md").read_text()
    assert "arXiv:2312.02741" in page


def test_energy_is_compared_over_a_minute() -> None:
    (option,) = [one for one in gpu.main.params if one.name == "energy_seconds"]
    assert option.default >= 60
