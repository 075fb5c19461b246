"""Every setting that changes a cost keeps runs apart, or is known not to matter: one table.

A new field of `RunSpec` needs a line here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import pytest
from made import frame, job, run

from pepr_mlops.comparison import Comparison, Question, compare
from pepr_mlops.errors import WorkFailed, WrongUse
from pepr_mlops.names import COMPARED, HARDWARE
from pepr_mlops.spec import FILES, RunSpec

ENERGY, CARBON = Question(draws=0), Question(resources=("C",), draws=0)
GRID = {"pepr.carbon_intensity_g_per_kwh": "300"}


def _pair(question: Question, tags: dict[str, Any] | None = None, **other: Any) -> Comparison:
    """Two seeds of a model, of which the second differs in the setting or the tags."""
    made = [run("a", 0, tags=GRID), run("a", 1, tags={**GRID, **(tags or {})}, **other)]
    for one in made:
        one["metrics"]["carbon/train_gco2e"] = one["metrics"]["energy/train_wh"] * 0.3
    return compare(frame(made), question)


def _condition(**other: Any) -> None:
    """Runs that differ in it are not compared."""
    (name,) = other
    with pytest.raises(WrongUse, match=f"derma mixes {name}"):
        _pair(ENERGY, **other)


def _by_tag(tags: dict[str, Any]) -> Callable[..., None]:
    """What it changes is known by a tag in which runs may not differ."""

    def check(**other: Any) -> None:
        with pytest.raises(WrongUse, match="derma mixes"):
            _pair(ENERGY, tags, **other)

    return check


def _noted(tags: dict[str, Any], text: str) -> Callable[..., None]:
    """Only CO2e depends on it, and a note says that it differs."""

    def check(**other: Any) -> None:
        assert not any(text in note for note in _pair(CARBON, **{}).notes)
        assert any(text in note for note in _pair(CARBON, tags, **other).notes)
        assert not any(text in note for note in _pair(ENERGY, tags, **other).notes)

    return check


def _row(**other: Any) -> None:
    """It is another row."""
    if "model" in other:
        rows = compare(frame([run("a"), run(**other)]), ENERGY).scores
    else:  # the tag says which weights they were
        tags = [{"pepr.weights": f"w.safetensors ({digest})"} for digest in ("feed", "beef")]
        rows = compare(frame([run("a", i, tags=t) for i, t in enumerate(tags)]), ENERGY).scores
    assert rows["n"].tolist() == [1, 1]


def _averaged(**other: Any) -> None:
    """Runs that differ in it only are repetitions, and their spread remains."""
    rows = compare(frame([run("a", seed=0), run("a", **other)]), ENERGY).scores
    assert rows["n"].tolist() == [2]
    assert rows["cost_sd"].notna().all()


def _no_matter(**other: Any) -> None:
    """It changes neither cost nor performance."""
    rows = compare(frame([run("a", seed=0), run("a", seed=1, **other)]), ENERGY).scores
    assert rows["n"].tolist() == [2]


def _covered(**other: Any) -> None:
    """The digest of the data covers what it changes."""
    rows = compare(frame([run("a", seed=0), run("a", seed=1, **other)]), ENERGY).scores
    assert rows["n"].tolist() == [2]


def _fold(**other: Any) -> None:
    """A fold alone is not compared, with other folds or with a training on one split."""
    given = {"folds": 5, "fold": 1, **other}
    with pytest.raises(WorkFailed, match=r"1 left out \(1 of an incomplete cross-validation"):
        compare(frame([run("a", **given)]), ENERGY)
    found = compare(frame([run("a"), run("b", **given)]), ENERGY)
    assert found.runs["used"].tolist() == [True, False]


def _apart(**other: Any) -> None:
    """Each is compared by itself."""
    tags = {"pepr.experiment": other["experiment"]}
    found = compare(frame([run("a"), run("a", 1, tags=tags)]), ENERGY)
    assert found.sets["experiment"].tolist() == ["derma", "other"]


def _left_out(**other: Any) -> None:
    """A run that it ended early is not compared; another was not changed by it."""
    tags = {"pepr.stopped": "budget reached in epoch 3 of 10"}
    found = compare(frame([run("a"), run("b", tags=tags, **other)]), ENERGY)
    assert found.runs["used"].tolist() == [True, False]
    assert compare(frame([run("a", 0), run("a", 1, **other)]), ENERGY).scores["n"].tolist() == [2]


def _name_of_files(**other: Any) -> None:
    """Files are known by what they hold: by any other name they are the same, and other files of
    the same name are not."""
    assert _pair(ENERGY, **other).scores["n"].tolist() == [2]
    with pytest.raises(WrongUse, match="derma mixes data_digest"):
        _pair(ENERGY, {"pepr.data_digest": "feed"})
    unknown = {"pepr.data_digest": None}
    made = [run("a", 0, tags=unknown), run("a", 1, tags=unknown, **other)]
    if "data_root" in other:
        assert any("though it was at" in note for note in compare(frame(made), ENERGY).notes)
    else:
        with pytest.raises(WrongUse, match="derma mixes"):
            compare(frame(made), ENERGY)


# field: another value of it, and the check of how runs that differ in it are compared
TABLE: dict[str, tuple[Any, Callable[..., None]]] = {
    "model": ("b", _row),
    "dataset": ("other", _name_of_files),
    "size": (28, _name_of_files),
    "image_size": (64, _condition),
    "channels": ("rgb", _condition),
    "intensities": ("pretrained", _condition),
    "fraction": (0.5, _condition),
    "images": ("/pngs", _covered),
    "image_column": ("file", _covered),
    "label_columns": ("dx", _covered),
    "patient_column": ("subject", _covered),
    "split_column": ("fold", _covered),
    "group_columns": ("sex", _covered),
    "uncertain": ("negative", _condition),
    "missing": ("skip", _covered),
    "frames": ("middle", _condition),
    "window": ("40,400", _condition),
    "axis": (0, _condition),
    "every": (3, _condition),
    "fit": ("pad", _condition),
    "allow_leak": (True, _covered),
    "external": ("clinic=/b", _covered),
    "folds": (4, _fold),  # complete ones are in test_folds.py
    "fold": (2, _fold),
    "epochs": (3, _condition),
    "batch_size": (8, _condition),
    "lr": (1e-3, _condition),
    "optimizer": ("adamw", _condition),
    "weight_decay": (0.01, _condition),
    "schedule": ("cosine", _condition),
    "warmup": (1, _condition),
    "class_weights": ("balanced", _condition),
    "augment": ("flips", _condition),
    "patience": (2, _condition),
    "tune": ("head", _condition),
    "seed": (1, _averaged),
    "precision": ("bf16", _condition),
    "layout": ("channels_last", _condition),
    "launch": ("graph", _condition),
    "threads": (1, _by_tag({"pepr.threads": "1"})),
    "compile": (True, _condition),
    "deterministic": (True, _condition),
    "pretrained": (False, _condition),
    "weights": ("/w.safetensors", _row),
    "keep": ("none", _no_matter),
    "device": ("cpu", _by_tag({"pepr.hardware": "AMD EPYC"})),
    "data_root": ("/elsewhere", _name_of_files),
    "energy": ("estimated", _by_tag({"pepr.energy_components": "cpu=estimated"})),
    "country": ("DNK", _noted({"pepr.carbon_intensity_g_per_kwh": "120"}, "grid intensities")),
    "carbon_intensity": (
        120.0,
        _noted({"pepr.carbon_intensity_g_per_kwh": "120"}, "grid intensities"),
    ),
    "pue": (2.0, _noted({"pepr.pue": "2"}, "buildings of a PUE from 1 to 2")),
    "budget_wh": (5.0, _left_out),
    "budget_s": (60.0, _left_out),
    "experiment": ("other", _apart),
}


def test_the_table_has_every_setting_and_every_condition() -> None:
    assert list(TABLE) == [f.name for f in fields(RunSpec)]
    by_name = {name for name, (_, check) in TABLE.items() if check is _condition}
    by_tag = {*HARDWARE, "dataset", "size", "data_digest", "performance_metric"}
    assert {*COMPARED} == by_name | by_tag | {"folds"}


@pytest.mark.parametrize("name", TABLE)
def test_runs_that_differ_in_a_setting_are_separated_or_noted(name: str) -> None:
    value, check = TABLE[name]
    check(**{name: value})


@pytest.mark.parametrize("name", TABLE)
def test_a_setting_makes_another_job_but_for_where_files_lie(name: str) -> None:
    if name == "weights":
        plain, changed = job(), job(weights=TABLE[name][0], weights_digest=None)
    else:
        plain = replace(job(), folds=5, fold=1) if name in ("folds", "fold") else job()
        changed = replace(plain, **{name: TABLE[name][0]})
    # The name of a data set is that of the experiment; what is kept changes no training.
    same = name == "keep" or (name in FILES and name != "dataset")
    assert (changed.fingerprint == plain.fingerprint) == same
