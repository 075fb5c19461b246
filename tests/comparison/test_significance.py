"""Which comparison sets are tested against each other."""

from __future__ import annotations

import pytest
from made import frame, run

from pepr_mlops.comparison import Question, compare
from pepr_mlops.comparison.significance import differences
from pepr_mlops.errors import WorkFailed, WrongUse


def test_sizes_of_a_data_set_are_tested_although_each_is_a_file_of_its_own() -> None:
    runs = [
        run(model, size=size, performance=p + gain, tags={"pepr.data_digest": str(size)})
        for size, gain in ((28, 0.0), (224, 0.1))
        for model, p in (("a", 0.5), ("b", 0.6), ("c", 0.7), ("d", 0.75))
    ]
    table = differences(compare(frame(runs), Question(mixed="stratify", draws=0)))
    tested = table[(table["quantity"] == "performance") & (table["test"] == "paired t")]
    assert tested["by"].tolist() == ["dataset_size"]
    assert (tested["a"].item(), tested["b"].item()) == ("224", "28")


def test_mixed_runs_are_tested_where_each_model_has_one_row() -> None:
    """Six models, three of them trained in bf16."""
    runs = [
        run(f"m{i}", performance=0.5 + i / 20, energy_wh=10.0 + i, precision=precision,
            tags={"pepr.parameters": str(10**6 * (i + 1))})
        for i, precision in enumerate(["fp32", "bf16"] * 3)
    ]  # fmt: skip
    mixed = Question(mixed="allow", draws=0)
    table = differences(compare(frame(runs), mixed), by=["size"])
    performance = table[table["quantity"] == "performance"].iloc[0]
    assert performance[["mean_a", "mean_b"]].tolist() == pytest.approx([0.55, 0.7])
    again = run("m0", precision="bf16")
    with pytest.raises(WrongUse, match=r"has several rows of a model \(m0: precision="):
        differences(compare(frame([*runs, again]), mixed))


def test_two_data_sets_of_one_name_are_not_tested_against_each_other() -> None:
    runs = [
        run(model, performance=p, tags={"pepr.data_digest": digest})
        for digest in ("here", "there")
        for model, p in (("a", 0.5), ("b", 0.6), ("c", 0.7), ("d", 0.75))
    ]
    scored = compare(frame(runs), Question(mixed="stratify", draws=0))
    with pytest.raises(WorkFailed, match="nothing to test"):
        differences(scored)
