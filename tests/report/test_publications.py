"""Publications per inhabitant by region."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made import frame, run

from pepr_mlops.comparison import Question, compare
from pepr_mlops.errors import WrongUse
from pepr_mlops.report.figures import publications
from pepr_mlops.report.material import Material, NothingToDraw, Part, gather

COLUMNS = ["year", "name", "region", "papers", "population"]


def _material(table: pd.DataFrame | None) -> Material:
    question = Question(draws=10)
    runs = frame([run()])
    return gather([Part(compare(runs, question), question, runs)], publications=table)


MADE = pd.DataFrame(
    [
        (2013, "A", "<b>North", 10.0, 1e6),
        (2013, "B", "<b>North", 20.0, 4e6),
        (2013, "C", "South", 1.0, 2e6),
        (2022, "A", "<b>North", 50.0, 1e6),
        (2022, "B", "<b>North", 40.0, 5e6),
        (2022, "C", "South", 6.0, 2e6),
        (2022, "D", "South", 900.0, np.nan),
    ],
    columns=COLUMNS,
)


def test_sums_over_sums_and_not_means_of_countries() -> None:
    regions = publications.data(_material(MADE))
    assert regions[["region", "year", "per_million"]].to_numpy().tolist() == [
        ["<b>North", 2013, 6.0],
        ["<b>North", 2022, 15.0],
        ["South", 2013, 0.5],
        ["South", 2022, 3.0],  # a country without inhabitants has no papers either
    ]


def test_the_figure_and_what_to_read_off_it() -> None:
    panel = publications.panel(_material(MADE), publications.Options())
    assert {t.name: list(t.x) for t in panel.figure.data} == {"2013": [6, 0.5], "2022": [15, 3]}
    assert all(list(t.y) == [0, 1] for t in panel.figure.data)
    assert len({t.marker.color for t in panel.figure.data}) == 2
    assert list(panel.figure.layout.yaxis.ticktext) == ["&lt;b&gt;North", "South"]
    assert "<b>North" not in str(panel.figure.to_dict())
    assert (
        panel.caption == "<b>North published 5 times as much as South in 2022 (15 and 3 per "
        "million inhabitants), 12 times in 2013."
    )
    assert panel.sets == ()


def test_a_region_of_one_year_has_one_bar() -> None:
    table = MADE[(MADE["region"] != "South") | (MADE["year"] == 2022)]
    panel = publications.panel(_material(table), publications.Options())
    assert {t.name: list(t.y) for t in panel.figure.data} == {"2013": [0], "2022": [0, 1]}
    assert panel.caption.endswith("per million inhabitants).")


def test_without_a_table_there_is_nothing_to_draw() -> None:
    with pytest.raises(NothingToDraw, match="--publications DIR"):
        publications.panel(_material(None), publications.Options())
    with pytest.raises(NothingToDraw, match="empty"):
        publications.panel(_material(MADE[:0]), publications.Options())


def test_the_papers_files(paper_results: Path) -> None:
    table = publications.read(paper_results)
    assert list(table) == COLUMNS
    assert table["year"].value_counts().to_dict() == {2022: 201, 2013: 195}
    values = publications.data(_material(table)).set_index(["region", "year"])["per_million"]
    assert len(values) == 24
    # Sums of the files' columns by Region_updated, as a spreadsheet gives them
    assert values["North America", 2013] == pytest.approx(99023 / 354.792461)
    assert values["North America", 2022] == pytest.approx(212440 / 375.495909)
    assert values["Sub-Saharan Africa", 2022] == pytest.approx(10402 / 1082.653820)
    assert values["South Asia", 2013] == pytest.approx(3080 / 1530.163019)
    caption = publications.panel(_material(table), publications.Options()).caption
    assert caption == (
        "Northern Europe published 92 times as much as Sub-Saharan Africa in 2022 (882 and 9.61 "
        "per million inhabitants), 93 times in 2013."
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: None, r"there is no regions_papers_data_2023\.csv in .*saintslab/PePR"),
        (lambda text: text.replace("Region_updated", "Area"), "has no column Region_updated"),
        (lambda text: text.replace("142933", ""), r"row 3 of .*2023\.csv is incomplete"),
        (lambda text: text.replace("142933", "many"), "row 3 of .* is incomplete"),
        (lambda text: text.replace("1412175000", "0"), "row 3 of .* is incomplete"),
        (lambda text: "", "is no readable CSV table"),
    ],
)
def test_files_that_are_not_those_are_refused(
    paper_results: Path, tmp_path: Path, change, words: str
) -> None:  # type: ignore[no-untyped-def]
    for name in publications.FILES:
        shutil.copy(paper_results / name, tmp_path)
    file = tmp_path / "regions_papers_data_2023.csv"
    text = change(file.read_text())
    if text is None:
        file.unlink()
    else:
        file.write_text(text)
    with pytest.raises(WrongUse, match=words) as caught:
        publications.read(tmp_path)
    assert "\n" not in str(caught.value)
