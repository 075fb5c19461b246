"""What the address of the live page means, and the report that shows the same."""

from __future__ import annotations

import pytest

from pepr_mlops.comparison.answer import Terms
from pepr_mlops.comparison.inference import Use
from pepr_mlops.live.view import View, parse
from pepr_mlops.report.dashboards import Dashboard
from pepr_mlops.report.spending import Price

DEFAULT = View(("derma",))
BOARD = Dashboard((), resources=("M", "T"), normalisation="zero")


def test_an_address_is_a_question_as_pepr_report_asks_it() -> None:
    view, messages = parse(
        {
            "experiment": ["a", "b", "a"],
            "resource": ["E", "M,T"],
            "strict": ["1"],
            "margin": ["0.03"],
            "images-per-year": ["20000"],
            "years": ["5"],
            "price-per-kwh": ["0.3€"],
        },
        DEFAULT,
    )
    assert messages == []
    assert view.experiments == ("a", "b")
    question = view.question(BOARD)
    assert question.resources == ("E", "M", "T")
    assert question.normalisation == "zero"  # of the dashboard
    assert question.strict
    assert question.use == Use(20_000, 5)
    assert view.terms == Terms(0.03)
    assert view.price == Price(0.3, "€")
    assert view.command("mine.toml", "http://localhost:5000") == (
        "pepr report --experiment a --experiment b --tracking-uri http://localhost:5000 "
        "--resource E,M,T --strict --margin 0.03 --images-per-year 20000 --years 5 "
        "--price-per-kwh '0.3€' --dashboard mine.toml"
    )
    assert view.address == (
        "experiment=a&experiment=b&resource=E&resource=M&resource=T&strict=True&margin=0.03"
        "&images-per-year=20000&years=5&price-per-kwh=0.3%E2%82%AC"
    )


def test_an_address_without_settings_is_the_command_line() -> None:
    view, _ = parse({}, DEFAULT)
    assert view == DEFAULT
    assert view.question(BOARD).resources == ("M", "T")
    assert view.terms == Terms()
    assert view.price is None
    assert parse({"experiment": [""]}, DEFAULT)[0].experiments == ()


@pytest.mark.parametrize(
    ("key", "text", "message"),
    [
        ("margin", "1", "margin in the address: '1' is not below 1; it is ignored"),
        ("margin", "0", "is not above 0"),
        ("margin", "nan", "is not"),
        ("alpha", "0.5", "is not 1 or more"),
        ("strict", "perhaps", "is not true or false"),
        ("normalisation", "minmaxx", "did you mean 'minmax'?"),
        ("resource", "", "should have at least 1 item"),
        ("years", "5", "of how many images-per-year?"),
        ("images-per-year", "inf", "is not a finite number"),
        ("<script>", "1", "<script>: no such setting"),
    ],
)
def test_a_wrong_setting_is_reported_and_ignored(key: str, text: str, message: str) -> None:
    view, messages = parse({key: [text]}, DEFAULT)
    assert view == DEFAULT
    assert len(messages) == 1
    assert message in messages[0]
