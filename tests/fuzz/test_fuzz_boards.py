"""Dashboards as TOML: drawn, or one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made import material, run
from odd import FEW, damaged, texts, toml_values, unless_refused

from pepr_mlops.comparison import Question
from pepr_mlops.errors import WrongUse
from pepr_mlops.report import dashboards
from pepr_mlops.report.figures import KINDS
from pepr_mlops.report.material import Material
from pepr_mlops.report.page import panels

NAMES = [*KINDS, "kind", "derma", "E", "M", "T", "score", "performance", "parameters", "resnet18d"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("boards")


@pytest.fixture(scope="module")
def shown() -> Material:
    names = ["resnet18d", "mobilenetv2_050", "vit_tiny_patch16_224", "none of them"]
    runs = [
        run(name, performance=0.6 + i / 10, energy_wh=10.0 * (i + 1), memory_gb=2.0 + i)
        for i, name in enumerate(names)
    ]
    epochs = pd.DataFrame(
        [(f"run{i}", step, 0.1 * step, 5.0 * step) for i in range(4) for step in (1, 2)],
        columns=["run_id", "step", "performance", "energy/train_wh"],
    )
    return material(runs, question=Question(resources=("E", "M"), draws=20), epochs=epochs)


def _value(hint: Any) -> st.SearchStrategy[Any]:
    """A value of the type that an option has, or any."""
    text = texts(*NAMES)
    choices = [c for c in get_args(hint) if isinstance(c, str)]
    fitting: st.SearchStrategy[Any] = st.sampled_from(choices) if choices else text
    if hint is bool:
        fitting = st.booleans()
    elif hint is int:
        fitting = st.integers(-3, 300) | st.sampled_from([2**63 - 1, -(2**63)])
    elif "tuple" in str(hint):
        fitting = st.lists(text, max_size=3)
    return st.one_of(*[fitting] * 4, toml_values())


@st.composite
def _figure(draw: st.DrawFn) -> Any:
    kind = draw(st.sampled_from([*KINDS] * 3 + ["pie", 3, ["plane"]]))
    figure: dict[str, Any] = {"kind": kind}
    hints = get_type_hints(KINDS[kind].Options) if isinstance(kind, str) and kind in KINDS else {}
    for name, hint in {**hints, "title": str, "caption": str}.items():
        if draw(st.integers(0, 2)) == 0:
            figure[name] = draw(_value(hint))
    return draw(st.sampled_from([figure] * 15 + [{**figure, "kidn": 1}, 5]))


@st.composite
def _board(draw: st.DrawFn) -> dict[str, Any]:
    found: dict[str, Any] = {"figure": draw(st.lists(_figure(), min_size=1, max_size=2))}
    for name, usual in (
        ("title", texts()),
        ("resources", st.lists(texts("E", "M", "T"), max_size=3)),
        ("normalisation", texts("zero", "robust", "reference")),
        (
            "experiments",
            st.dictionaries(texts("imagenet"), st.just({}) | toml_values(), max_size=2),
        ),
    ):
        if draw(st.integers(0, 3)) == 0:
            found[name] = draw(usual | toml_values())
    return found


@given(_board())
@FEW
def test_a_dashboard_is_drawn_or_refused(shown: Material, content: dict[str, Any]) -> None:
    board = unless_refused(lambda: dashboards.parse(content, "board.toml"))
    if board is None:
        return
    drawn = unless_refused(lambda: panels(shown, board))
    if drawn is not None:
        assert {panel.kind for panel in drawn[0]} <= {figure.kind for figure in board.figures}
        assert drawn[0] or drawn[1]
        for panel in drawn[0]:
            assert panel.figure.to_json()
            assert not np.isinf(panel.table.select_dtypes("number").to_numpy(float)).any()


PAPER = dashboards.shipped()["paper"].read_bytes()


@given(damaged(PAPER))
def test_the_file_of_a_dashboard_is_one_or_is_refused(folder: Path, content: bytes) -> None:
    (folder / "board.toml").write_bytes(content)
    unless_refused(lambda: dashboards.load(str(folder / "board.toml")))


# What was found -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["energy", "curves", "ranking", "sensitivity"])
@pytest.mark.parametrize("top", [0, -1, True])
def test_none_to_show_is_refused(kind: str, top: object) -> None:
    with pytest.raises(WrongUse, match=r"top: .* is not (a whole number|above 0)"):
        dashboards.parse({"figure": [{"kind": kind, "top": top}]}, "board.toml")


@pytest.mark.parametrize("kind", [["plane"], {"plane": 1}])
def test_a_kind_that_is_no_text_is_refused(kind: object) -> None:
    with pytest.raises(WrongUse, match=r"figure 1: kind: .* is not one of"):
        dashboards.parse({"figure": [{"kind": kind}]}, "board.toml")
