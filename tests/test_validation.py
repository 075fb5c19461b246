"""Values of the wrong type: one line with the place, the value, the valid ones and the nearest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from pepr_mlops.errors import WrongUse
from pepr_mlops.validation import checked, refuse_unknown


@dataclass(frozen=True)
class Options:
    axis: Literal["R", "cost"] = "R"
    models: tuple[str, ...] = ()


@pytest.mark.parametrize(
    ("kind", "value", "words"),
    [
        (Literal["fp32", "bf16"], "bf61", "it: 'bf61' is not one of fp32, bf16; did you mean"),
        (Literal[28, 64], 65, "it: 65 is not one of 28, 64"),
        (bool, "maybe", "it: 'maybe' is not true or false"),
        (int, "2.5", "it: '2.5' is not a whole number"),
        (int, 2.5, "it: 2.5 is not a whole number"),
        (float, "fast", "it: 'fast' is not a number"),
        (Annotated[float, Field(gt=0)], "0", "it: '0' is not above 0"),
        (Annotated[float, Field(ge=1, le=2)], 3, "it: 3 is not 2 or less"),
        (Annotated[float, Field(allow_inf_nan=False)], "nan", "it: 'nan' is not a finite number"),
        (tuple[float, float], ["1"], "it: ['1'] has too few values"),
        (tuple[float, float], [1, 2, 3], "it: [1, 2, 3] has too many values"),
        (Annotated[str, Field(max_length=3)], "abcd", "it: 'abcd' should have at most 3 char"),
        (int, "9" * 9999, "it: '99999"),
        (Options, 5, "it: 5 is not a table"),
        (Options, {"axis": "Cost"}, "it: axis: 'Cost' is not one of R, cost; did you mean 'cost'?"),
        (Options, {"models": "a"}, "it: models: 'a' is not a list"),
        (Options, {"axes": "R"}, "it: axes: no such key; did you mean 'axis'? Valid: axis, models"),
    ],
)
def test_an_invalid_value_is_refused_in_one_line(kind: Any, value: Any, words: str) -> None:
    with pytest.raises(WrongUse) as refused:
        checked(kind, value, "it")
    assert str(refused.value).startswith(words)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 150


def test_a_valid_value_is_converted_to_its_type() -> None:
    assert checked(float, "0.5") == 0.5
    assert checked(Options, {"models": ["a", "b"]}) == Options(models=("a", "b"))


def test_a_strict_check_takes_no_text_for_a_number() -> None:
    with pytest.raises(WrongUse, match="'3' is not a whole number"):
        checked(int, "3", strict=True)


def test_unknown_names_are_refused_with_the_nearest() -> None:
    refuse_unknown(["model"], ["model"], "parameter")
    with pytest.raises(WrongUse, match="modle: no such parameter; did you mean 'model'"):
        refuse_unknown(["model", "modle"], ["model", "seed"], "parameter")
