"""The paper's models and their categories."""

from __future__ import annotations

import csv
from pathlib import Path
from statistics import median

from pepr_mlops import paper_models


def test_the_table_has_the_papers_counts() -> None:
    table = paper_models.paper_models()
    assert len(table) == 131
    assert len({m.model for m in table}) == 131
    assert sum(m.kind == "CNN" for m in table) == 80
    assert sum(m.kind == "Other" for m in table) == 51
    assert sum(m.efficient for m in table) == 31
    assert median(m.parameters for m in table) == 24_671_464
    assert sum(m.size == "small" for m in table) == 66  # the median itself is small


def test_the_table_is_the_papers_model_by_model(paper_names: Path) -> None:
    with paper_names.open(newline="") as file:
        rows = list(csv.reader(file))[1:]
    ours = {m.model: m for m in paper_models.paper_models()}
    assert {row[0] for row in rows} == set(ours)
    for name, parameters, kind, efficient, *_ in rows:
        assert ours[name].parameters == int(float(parameters)), name
        assert ours[name].kind == kind, name
        assert ours[name].efficient == (int(float(efficient)) == 1), name


def test_filters_combine() -> None:
    found = paper_models.select(name="mobile*", kind="CNN", efficient=True, size="small")
    assert {m.model for m in found} >= {"mobilenetv2_050"}
    assert all(m.kind == "CNN" and m.efficient and m.size == "small" for m in found)
    assert paper_models.select(name="no such*") == []
