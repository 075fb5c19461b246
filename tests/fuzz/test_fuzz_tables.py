"""Tables of others and raw pages of MLflow: runs of finite numbers, or one line."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from odd import FEW, damaged, numbers, stored, texts, unless_refused

from pepr_mlops.comparison.runs import tidy
from pepr_mlops.errors import WrongUse
from pepr_mlops.imports import pepr_paper, timm_results
from pepr_mlops.imports.files import FinishedRun
from pepr_mlops.text import printable
from pepr_mlops.tracking.read.frames import Page, Point, epochs_frame, raw_frame

PAPER: dict[str, str] = {
    **{"model": "resnet18d", "dataset": "derma", "num_param": "11708744", "energy": "0.012"},
    **{"co2": "2.5", "memR": "1.9", "memM": "1.5", "train_time": "36.5"},
    **{f"test_{epoch:02d}": "0.75" for epoch in range(10)},
}
TIMM: dict[str, str] = {
    **{"model": "resnet18d.ra2_in1k", "img_size": "224", "top1": "72.26", "top5": "90.69"},
    **{"param_count": "11.71"},
}
INFER = {"model": "resnet18d", "infer_img_size": "224", "infer_samples_per_sec": "3,210.5",
         "infer_gmacs": "2.06"}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tables")


def _csv(rows: list[dict[str, str]]) -> bytes:
    text = io.StringIO()
    table = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    return text.getvalue().encode(errors="replace")


@st.composite
def _table(draw: st.DrawFn, row: dict[str, str]) -> bytes:
    """Some rows like this one, with other cells in it."""
    rows = []
    for i in range(draw(st.integers(0, 3))):
        changed = draw(st.dictionaries(st.sampled_from(list(row)), _cells(), max_size=2))
        rows.append({**row, "model": row["model"] + str(i), **changed})
    content = _csv([row, *rows])
    return draw(st.sampled_from([content] * 3) | damaged(content))


def _cells() -> st.SearchStrategy[str]:
    return texts("0.5", "1,234.5", "0,85", "-3", "1e400", "1e308", "85 %") | numbers().map(repr)


def _sound(runs: list[FinishedRun] | None) -> None:
    for run in runs or []:
        assert run.name.strip()
        assert run.points
        for name, value, _ in run.points:
            assert math.isfinite(value), (run.name, name)
            assert value >= 0
            if name == "performance" or name.startswith("test/"):
                assert value <= 1
        assert all(isinstance(v, str) for v in [*run.params.values(), *run.tags.values()])
        assert math.isfinite(float(run.tags.get("pepr.parameters", 0)))
        assert int(run.tags["pepr.parameters"]) > 0
    keys = [run.key for run in runs or []]
    assert len(set(keys)) == len(keys)


@given(_table(PAPER))
def test_the_papers_table_is_runs_or_is_refused(folder: Path, content: bytes) -> None:
    (folder / "all_results.csv").write_bytes(content)
    _sound(unless_refused(lambda: pepr_paper.read(folder)))


@given(_table(TIMM), _table(INFER))
@FEW
def test_timms_tables_are_runs_or_are_refused(folder: Path, results: bytes, speeds: bytes) -> None:
    (folder / "results-imagenet.csv").write_bytes(results)
    (folder / "benchmark-infer-amp-nhwc-pt240-cu124-rtx3090.csv").write_bytes(speeds)
    _sound(unless_refused(lambda: timm_results.read(folder)))


# Raw pages of MLflow ------------------------------------------------------------------------------

_IDS = st.sampled_from(["r0", "r1", "r2", "r3"])
_METRICS = st.sampled_from(["performance", "energy/train_wh", "memory/rss_gb", "a b.c", "E"])
_PARAMS = st.sampled_from(["model", "epochs", "fraction", "dataset", "pretrained", "pue", "width"])
_TAGS = st.sampled_from(
    [
        *("pepr.experiment", "pepr.memory", "pepr.parameters", "pepr.pue", "pepr.heartbeat"),
        *("mlflow.runName", "pepr.energy_source", "pepr.energy_missing"),
    ]
)
_TIMES = st.none() | st.integers(0, 2**41) | st.integers(-(2**63), 2**63 - 1)
_TAG_TEXTS = stored("derma", "memory/rss_gb", "lost", "measured", "1e6")


@st.composite
def _page(draw: st.DrawFn) -> Page:
    ids = draw(st.lists(_IDS, min_size=1, max_size=4))  # a run may be there twice
    of = st.sampled_from(ids)
    status = st.sampled_from(["FINISHED", "RUNNING", "FAILED"])
    return Page(
        [(i, "0", draw(status), draw(_TIMES), draw(_TIMES)) for i in ids],
        draw(st.lists(st.tuples(of, _METRICS, numbers(-1, 10)), max_size=6)),
        draw(st.lists(st.tuples(of, _PARAMS, stored("10", "0.5", "true", "a")), max_size=6)),
        draw(st.lists(st.tuples(of, _TAGS, _TAG_TEXTS), max_size=6)),
    )


@given(st.lists(_page(), max_size=3))
@FEW
def test_pages_make_one_row_per_run_with_its_last_values(pages: list[Page]) -> None:
    raw = raw_frame(iter(pages), {"0": "theirs"})
    runs = tidy(raw).set_index("run_id")
    last = {info[0]: (page, info) for page in pages for info in page.info}
    assert set(runs.index) == set(last)
    assert len(runs) == len(last)
    for run_id, (page, info) in last.items():
        row = runs.loc[run_id]
        assert row["status"] == info[2]
        metrics = {name: value for i, name, value in page.metrics if i == run_id}
        tags = {name: value for i, name, value in page.tags if i == run_id}
        params = {name: value for i, name, value in page.params if i == run_id}
        assert row["experiment"] == printable(tags.get("pepr.experiment", "theirs"))
        memory = printable(tags.get("pepr.memory", ""))
        lost = tags.get("pepr.energy_source") == "lost"
        for column, value in (
            ("performance", metrics.get("performance")),
            ("energy_wh", None if lost else metrics.get("energy/train_wh")),
            ("memory_gb", metrics.get(memory) if memory else None),
        ):
            if value is None:
                assert pd.isna(row[column]), column
            elif math.isfinite(value):
                assert row[column] == value, column
            else:
                assert np.isinf(row[column]), column
        epochs = params.get("epochs", "").strip()
        if epochs == "10":
            assert row["epochs"] == 10
        elif not epochs.replace("_", "").isdecimal():
            assert pd.isna(row["epochs"])


@given(
    st.lists(
        st.lists(st.tuples(_IDS, _METRICS, st.none() | numbers(), st.integers(-1, 3)), max_size=9),
        max_size=2,
    )
)
def test_of_several_points_of_an_epoch_the_last_counts(pages: list[list[Point]]) -> None:
    pages = [[(f"{i}{run}", *rest) for run, *rest in page] for i, page in enumerate(pages)]  # type: ignore[misc]
    found = epochs_frame(iter(pages))
    points = {(run, step, name): v for page in pages for run, name, v, step in page}
    assert len(found) == len({key[:2] for key in points})
    table = found.set_index(["run_id", "step"])
    for (run, step, name), value in points.items():
        stored_value = table.loc[(run, step), name]
        assert (pd.isna(stored_value)) if value is None or value != value else stored_value == value


# What was found -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"test_09": "0,850"}, "test_09 of row 2 of .* is '0,850', not a number from 0 to 1;"),
        ({"test_03": "85"}, "test_03 of row 2 of .* is '85', not a number from 0 to 1;"),
        ({"energy": "unknown"}, "energy of row 2 of .* is 'unknown', not a number from 1e-12"),
        ({"energy": "0"}, "energy of row 2 of .* is '0', not a number"),
        ({"memR": "inf"}, "memR of row 2 of .* is 'inf', not a number"),
        ({"num_param": "1.5"}, "num_param of row 2 of .* is '1.5', not a whole number from 1"),
    ],
)
def test_a_cell_that_is_no_such_number_is_named(
    tmp_path: Path, changed: dict[str, str], message: str
) -> None:
    (tmp_path / "all_results.csv").write_bytes(_csv([{**PAPER, **changed}]))
    with pytest.raises(WrongUse, match=message):
        pepr_paper.read(tmp_path)


def test_two_results_of_one_model_are_refused(tmp_path: Path) -> None:
    (tmp_path / "all_results.csv").write_bytes(_csv([PAPER, {**PAPER, "energy": "0.5"}]))
    with pytest.raises(WrongUse, match="has two results of resnet18d on derma"):
        pepr_paper.read(tmp_path)


def test_a_speed_of_zero_is_refused_and_commas_of_thousands_are_read(tmp_path: Path) -> None:
    (tmp_path / "results-imagenet.csv").write_bytes(_csv([{**TIMM, "param_count": "1,014.45"}]))
    speeds = tmp_path / "benchmark-infer-amp-nhwc-pt240-cu124-rtx3090.csv"
    speeds.write_bytes(_csv([INFER]))
    (run,) = timm_results.read(tmp_path)
    assert run.tags["pepr.parameters"] == "1014450000"
    assert ("inference/ms_per_image", pytest.approx(1000 / 3210.5), 0) in run.points
    speeds.write_bytes(_csv([{**INFER, "infer_samples_per_sec": "0"}]))
    with pytest.raises(WrongUse, match=r"infer_samples_per_sec of row 2 of .* is '0', not a"):
        timm_results.read(tmp_path)
