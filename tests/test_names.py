"""What is reported has a unit and a name."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from pepr_mlops.names import METRICS, TAGS, memory_metric

ROOT = Path(__file__).parents[1]
PARAMETERS = {"pepr.attempt."}  # of runs, with the number of the attempt


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


def _known(tag: str) -> bool:
    return tag in TAGS or any(t[-1] == "*" and tag.startswith(t[:-1]) for t in TAGS)


def _tags_in_code() -> Iterator[str]:
    for path in (ROOT / "pepr_mlops").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and re.fullmatch(
                r"pepr\.[a-z0-9_.]+", str(node.value)
            ):
                yield str(node.value)


def test_every_tag_that_is_logged_has_a_meaning() -> None:
    tags = set(_tags_in_code()) - PARAMETERS
    assert len(tags) > 50
    assert {tag for tag in tags if not _known(tag)} == set()


def test_the_documentation_names_no_tag_that_is_not_logged() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    named = {tag for page in pages for tag in re.findall(r"`(pepr\.[a-z_]+)`", page.read_text())}
    assert len(named) > 20
    assert {tag for tag in named if not _known(tag)} == set()
