"""What the script of the page knows of each comparison set."""

from __future__ import annotations

import pytest
from made import material, run

from pepr_mlops.comparison import Question
from pepr_mlops.comparison.words import condition_words, cost_words, metric_words
from pepr_mlops.report.groups import data_words, groups


def test_the_most_complete_group_comes_first_and_says_how_it_differs() -> None:
    runs = [
        run("a", pretrained=False),
        *(run(name, energy_wh=20.0 + i) for i, name in enumerate(("a", "b"))),
    ]
    found = groups(material(runs, question=Question(mixed="stratify", draws=20)))
    assert [len(group["rows"]) for group in found] == [2, 1]
    assert [group["pretrained"] for group in found] == [True, False]
    assert [group["differs"] for group in found] == [["pretraining"], ["pretraining"]]
    assert [group["title"] for group in found] == ["pretrained", "from scratch"]
    assert found[0]["dataset"] == "DermaMNIST"


def test_experiments_differ_in_their_names_alone() -> None:
    runs = [run("a"), run("a", epochs=7, tags={"pepr.experiment": "other"})]
    found = groups(material(runs))
    assert {group["experiment"]: group["differs"] for group in found} == {"derma": [], "other": []}
    assert {group["experiment"]: group["title"] for group in found} == {
        "derma": "derma",
        "other": "other",
    }


def test_the_command_that_adds_a_model_trains_it_under_the_same_conditions() -> None:
    (group,) = groups(material([run("a", epochs=3, pretrained=False, lr=0.001, dataset="digits")]))
    *words, model = group["command"].split(" --")
    assert sorted(words[1:-1]) == ["dataset digits", "epochs 3", "experiment derma", "lr 0.001"]
    assert (words[-1], model) == ("no-pretrained", "model MODEL")


def test_the_command_that_adds_a_model_quotes_what_people_named() -> None:
    (group,) = groups(material([run("a", tags={"pepr.experiment": "skin; rm -r"})]))
    assert group["command"] == (
        "pepr train --experiment 'skin; rm -r' --dataset derma --model MODEL"
    )


def test_an_interval_is_known_where_the_error_is() -> None:
    (group,) = groups(material([run("a"), run("b", energy_wh=9.0)]))
    for row in group["rows"]:
        assert (row["decided_low"], row["decided_high"]) == pytest.approx(
            (row["p_low"], row["p_high"])
        )
    untested = {"pepr.test_images": None}
    (group,) = groups(material([run("a", tags=untested), run("b", tags=untested, energy_wh=9.0)]))
    assert {(row["decided_low"], row["decided_high"]) for row in group["rows"]} == {(None, None)}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("derma", "DermaMNIST"),
        ("organamnist", "OrganAMNIST"),
        ("octmnist", "OCTMNIST"),
        ("/data/skin/labels.csv", "labels.csv"),
        ("several", None),
        ("not known", None),
    ],
)
def test_a_data_set_is_spelt_as_by_its_authors(name: str, words: str | None) -> None:
    assert data_words(name) == words


def test_a_metric_that_was_turned_round_is_not_called_by_its_own_name() -> None:
    assert metric_words("1 - test/brier") == {
        "key": "1 - test/brier",
        "name": "1 \N{MINUS SIGN} Brier score",
        "on": "the test set",
        "share": False,
    }
    assert metric_words("val/accuracy")["on"] == "validation"
    assert metric_words("test/accuracy")["share"] is True


def test_costs_and_conditions_are_words() -> None:
    assert cost_words("inference/ms_p50") == {"name": "median time per image"}
    assert cost_words("own") == {"name": "own"}
    assert condition_words("lr", "0.001") == "learning rate 0.001"
