"""From runs to scores: what is compared with what, and what is noted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from made import frame, run

from pepr_mlops.comparison import Comparison, Question, compare, conditions, inspect, means, pepr
from pepr_mlops.costs.carbon import Intensity
from pepr_mlops.errors import WorkFailed, WrongUse
from pepr_mlops.spec import LATER
from pepr_mlops.tracking.score_tags import changed_scores


def _by_model(found: Comparison, column: str, resource: str = "E") -> dict[str, object]:
    rows = found.scores[found.scores["resource"] == resource]
    return dict(zip(rows["model"], rows[column], strict=True))


THREE = [
    run("small", performance=0.7, energy_wh=10.0, memory_gb=1.0, train_time_s=100),
    run("middle", performance=0.8, energy_wh=20.0, memory_gb=3.0, train_time_s=150),
    run("large", performance=0.9, energy_wh=50.0, memory_gb=5.0, train_time_s=300),
]


def test_scores_by_hand() -> None:
    found = compare(frame(THREE), Question())
    assert _by_model(found, "R") == pytest.approx({"small": 0, "middle": 0.25, "large": 1})
    assert _by_model(found, "score") == pytest.approx(
        {"small": 0.7, "middle": 0.8 / 1.25, "large": 0.45}
    )
    assert _by_model(found, "rank") == {"small": 1, "middle": 2, "large": 3}
    assert found.sets["shared"][0]["hardware"] == "NVIDIA H100"
    assert found.sets[["experiment", "models", "runs"]].to_numpy().tolist() == [["derma", 3, 3]]


def test_each_resource_has_a_score_or_all_have_one() -> None:
    apart = compare(frame(THREE), Question(resources=("E", "M", "T")))
    assert _by_model(apart, "score", "M") == pytest.approx(
        {"small": 0.7, "middle": 0.8 / 1.5, "large": 0.45}
    )
    assert _by_model(apart, "score", "T")["middle"] == pytest.approx(0.8 / 1.25)
    both = compare(frame(THREE), Question(resources=("E", "M"), weights=(0.2, 0.8)))
    expected = 0.8 / (1 + 0.2 * 0.25 + 0.8 * 0.5)
    assert _by_model(both, "score", "E+M")["middle"] == pytest.approx(expected)
    assert both.scores["cost"].isna().all()


def test_seeds_are_averaged_and_fewer_are_flagged() -> None:
    runs = [
        run("a", 0, performance=0.6, energy_wh=10.0),
        run("a", 1, performance=0.8, energy_wh=12.0),
        run("b", 0, performance=0.9, energy_wh=31.0),
    ]
    found = compare(frame(runs), Question())
    assert _by_model(found, "n") == {"a": 2, "b": 1}
    assert _by_model(found, "performance") == pytest.approx({"a": 0.7, "b": 0.9})
    assert _by_model(found, "cost") == pytest.approx({"a": 11.0, "b": 31.0})
    assert _by_model(found, "performance_sd")["a"] == pytest.approx(np.sqrt(0.02))
    assert _by_model(found, "score") == pytest.approx({"a": 0.7, "b": 0.45})
    assert _by_model(found, "flags") == {"a": [], "b": ["1 of 2 seeds"]}
    assert _by_model(found, "codes")["b"] == ["fewer_seeds"]


def test_a_run_that_is_left_out_is_not_scored_and_does_not_set_the_scale() -> None:
    runs = [*THREE, run("huge", performance=0.95, energy_wh=500.0, status="FAILED")]
    found = compare(frame(runs), Question())
    assert _by_model(found, "score")["large"] == pytest.approx(0.45)
    out = found.runs.set_index("model").loc["huge"]
    assert not out["used"]
    assert out["reasons"] == ["failed"]
    assert pd.isna(out["comparison_set"])


def test_doubtful_runs_are_shown_and_left_out_when_strict() -> None:
    doubtful = run("other", energy_wh=30.0, tags={"pepr.gpu_other_processes": "9 python"})
    found = compare(frame([*THREE, doubtful]), Question())
    assert _by_model(found, "flags")["other"] == ["other processes used its GPU: 9 python"]
    strict = compare(frame([*THREE, doubtful]), Question(strict=True))
    assert set(_by_model(strict, "n")) == {"small", "middle", "large"}
    reasons = strict.runs.set_index("model").loc["other", "reasons"]
    assert reasons == ["strict: other processes used its GPU: 9 python"]


def test_without_a_usable_run_the_error_counts_the_reasons() -> None:
    runs = frame([run(status="FAILED"), run("b", status="FAILED"), run("c", energy_wh=None)])
    with pytest.raises(
        WorkFailed, match=r"3 found, 3 left out \(2 failed; 1 cost not known\); `pepr runs`"
    ):
        compare(runs, Question())


# Mixed sets --------------------------------------------------------------------------------------

MIXED = [
    *THREE,
    run("small", performance=0.72, energy_wh=40.0, tags={"pepr.hardware": "CPU"}),
    run("large", performance=0.88, energy_wh=80.0, tags={"pepr.hardware": "CPU"}),
]


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (
            {"tags": {"pepr.hardware": "CPU"}},
            "hardware (hardware=NVIDIA H100: 3 runs; hardware=CPU",
        ),
        (
            {"tags": {"pepr.cpus": "2"}},  # the same CPU, more of it
            "cpus (cpus=not known: 3 runs; cpus=2: 1 run)",
        ),
        ({"tags": {"pepr.threads": "1"}}, "threads"),
        ({"tags": {"pepr.gpu_mig": "3g.40gb"}}, "gpu_mig"),
        ({"tags": {"pepr.gpu_power_limit_w": "300"}}, "gpu_power_limit_w"),
        ({"tags": {"pepr.gpu_clocks_mhz": "SM 1410 of 1980"}}, "gpu_clocks_mhz"),
        ({"precision": "bf16"}, "precision (precision=fp32: 3 runs; precision=bf16: 1 run)"),
        ({"batch_size": 64}, "batch_size (batch_size=32: 3 runs; batch_size=64: 1 run)"),
        ({"image_size": 64}, "image_size"),
        ({"epochs": 3}, "epochs"),
        ({"fraction": 0.1}, "fraction"),
        ({"pretrained": False}, "pretrained"),
        ({"tags": {"pepr.energy_components": "cpu=estimated"}}, "energy_components"),
        ({"tags": {"pepr.performance": "test/auc"}}, "performance_metric"),
        (
            {"tags": {"pepr.data_digest": "feed"}, "data_root": "/there"},
            "data_digest (data_digest=0123456789abcdef: 3 runs; data_digest=feed: 1 run); "
            "0123456789abcdef is derma (last 2026-09-21 14:13), "
            "feed is /there/derma (last 2026-09-21 14:13); choose",
        ),
        (
            {"tags": {"pepr.data_digest": None}},
            "data_digest (data_digest=0123456789abcdef: 3 runs; data_digest=not known: 1 run); "
            "0123456789abcdef is derma (last 2026-09-21 14:13), "
            "`pepr data identify --experiment derma` finds out which",
        ),
    ],
)
def test_unlike_runs_are_refused_with_groups_and_sizes(
    other: dict[str, object], named: str
) -> None:
    runs = frame([*THREE, run("other", **other)])  # type: ignore[arg-type]
    with pytest.raises(WrongUse) as caught:
        compare(runs, Question())
    assert f"derma mixes {named}" in str(caught.value)
    assert "--stratify" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_refusal_names_the_first_conditions_only() -> None:
    other = run("b", epochs=2, precision="bf16", fraction=0.5, batch_size=8, image_size=32)
    with pytest.raises(WrongUse) as caught:
        compare(frame([run("a"), other]), Question())
    assert " and 1 more (" in str(caught.value)
    assert len(str(caught.value)) < 400


def test_the_proposed_conditions_choose_one_set() -> None:
    """The largest: 3 runs in bf16 for one epoch, 2 in fp32 for two, 1 in fp32 for one."""
    settings = [("bf16", 1)] * 3 + [("fp32", 2)] * 2 + [("fp32", 1)]
    made = [run(f"m{i}", precision=p, epochs=e, layout="auto") for i, (p, e) in enumerate(settings)]
    with pytest.raises(WrongUse, match="--where epochs=1 --where precision=bf16 for the largest"):
        compare(frame(made), Question())
    # one condition is enough where it leaves a single set
    with pytest.raises(WrongUse, match="--stratify for a score set of each, --where epochs=2 for"):
        compare(frame(made[2:5]), Question())


def test_runs_on_two_data_sets_of_one_name_are_no_seeds_and_no_repetitions() -> None:
    """Two hospitals with a folder of the same name, each with one seed of the same model."""
    there = {"pepr.data_digest": "feed"}
    runs = frame([run("a", 0), run("a", 1, tags=there), run("a", 0, start=1, tags=there)])
    with pytest.raises(WrongUse, match="derma mixes data_digest"):
        compare(runs, Question())
    apart = compare(runs, Question(mixed="stratify", draws=0))
    assert apart.runs["used"].all()
    assert apart.scores["n"].tolist() == [1, 2]


def test_runs_whose_data_are_not_known_compare_with_each_other_with_a_note() -> None:
    unknown = {"pepr.data_digest": None}
    found = compare(frame([run(m, tags=unknown) for m in ("a", "b")]), Question(draws=0))
    assert found.scores["n"].tolist() == [1, 1]
    expected = "2 of 2 runs do not say what their data set contained: they are compared by its name"
    assert expected in found.notes
    assert expected not in compare(frame(THREE), Question(draws=0)).notes


def test_unknown_data_of_two_places_are_no_repetitions_and_named() -> None:
    """Runs of an earlier version on two hospitals' folders `chest`, with the same seeds."""
    unknown = {"pepr.data_digest": None}
    made = [
        run("a", seed, dataset=f"{hospital}/chest", tags=unknown, start=start)
        for start, hospital in enumerate(("/a", "/b"))
        for seed in (0, 1)
    ]
    found = compare(frame(made), Question(draws=0))
    assert found.runs["used"].all()
    assert (
        "4 of 4 runs do not say what their data set contained: they are compared by its name, "
        "though it was at /a/chest, /b/chest"
    ) in found.notes


def test_the_cpu_next_to_a_gpu_is_a_condition_where_its_energy_counts() -> None:
    cpus = [{"pepr.cpu": name} for name in ("AMD EPYC (avx2)", "Intel Xeon (avx512)")]
    runs = frame([run("a", i, tags=tags) for i, tags in enumerate(cpus)])
    with pytest.raises(WrongUse, match="derma mixes energy_cpu"):
        compare(runs, Question(draws=0))
    assert compare(runs, Question(resources=("T",), draws=0)).scores["n"].tolist() == [2]
    of_gpu = [{**tags, "pepr.energy_components": "gpu=measured"} for tags in cpus]
    runs = frame([run("a", i, tags=tags) for i, tags in enumerate(of_gpu)])
    assert compare(runs, Question(draws=0)).scores["n"].tolist() == [2]


def test_some_runs_of_an_experiment_are_chosen_by_a_condition() -> None:
    runs = frame([*THREE, run("other", precision="bf16"), run("b2", precision="bf16")])
    chosen = conditions.where(runs, [("precision", "bf16"), ("image_size", "256")])
    assert chosen["model"].tolist() == ["other", "b2"]
    same = [("lr", "5e-4"), ("pretrained", "True"), ("epochs", "10"), ("model", "b2")]
    assert conditions.where(runs, same)["model"].tolist() == ["b2"]
    with pytest.raises(WrongUse, match="where: no run has precision=fp64; there are: bf16, fp32"):
        conditions.where(runs, [("precision", "fp64")])
    with pytest.raises(WrongUse, match="where: no run has 'precison'; did you mean 'precision'"):
        conditions.where(runs, [("precison", "bf16")])


def test_runs_of_others_say_their_hardware_as_they_can() -> None:
    theirs = [_foreign("unet", 0.8, cost) for cost in (10.0, 40.0)]
    for one, card in zip(theirs, ("A100", "RTX 3060"), strict=True):
        one["params"]["hardware"] = card
    with pytest.raises(WrongUse, match=r"mixes hardware \(hardware=A100: 1 run; hardware=RTX 3060"):
        compare(frame(theirs), THEIRS)


def test_runs_with_a_flag_are_left_out_where_all_are_estimates() -> None:
    """Of which `strict` would leave none."""
    estimated = {"pepr.energy_source": "estimated"}
    busy = {**estimated, "pepr.gpu_other_processes": "4711 python"}
    runs = frame([run("a", 0, tags=estimated), run("a", 1, tags=busy, energy_wh=90.0)])
    found = compare(runs, Question(drop=("other_processes", "busy_cpu"), draws=0))
    assert found.scores[["n", "cost"]].to_numpy().tolist() == [[1, 20.0]]
    assert found.runs["reasons"].tolist()[1] == [
        "dropped: other processes used its GPU: 4711 python"
    ]
    with pytest.raises(WrongUse, match="drop: 'busy' is not a flag"):
        Question(drop=("busy",))


def test_several_versions_of_a_library_are_noted() -> None:
    versions = [{"pepr.version.torch": version} for version in ("2.15.0", "2.16.1")]
    found = compare(frame([run("a", i, tags=t) for i, t in enumerate(versions)]), Question(draws=0))
    assert "runs used several versions: torch 2.15.0, 2.16.1" in found.notes
    alike = compare(frame([run("a", i, tags=versions[0]) for i in (0, 1)]), Question(draws=0))
    assert not any("versions" in note for note in alike.notes)


def test_the_data_of_a_reference_without_a_digest_are_not_known() -> None:
    saved = compare(frame(THREE), Question()).reference
    of_before = {k: v for k, v in saved.origin["shared"].items() if k != "data_digest"}
    earlier = replace(saved, origin={**saved.origin, "shared": of_before})
    question = Question(normalisation="reference", reference=earlier)
    with pytest.raises(WrongUse, match="data_digest not known there, 0123456789abcdef here"):
        compare(frame(THREE), question)
    unknown = [run(m, tags={"pepr.data_digest": None}) for m in ("a", "b")]
    compare(frame(unknown), question)


def test_unlike_runs_are_scored_apart_when_stratified() -> None:
    found = compare(frame(MIXED), Question(mixed="stratify"))
    assert found.sets["comparison_set"].tolist() == [
        "derma [hardware=CPU]",
        "derma [hardware=NVIDIA H100]",
    ]
    cpu = found.scores[found.scores["comparison_set"] == "derma [hardware=CPU]"]
    assert dict(zip(cpu["model"], cpu["score"], strict=True)) == pytest.approx(
        {"small": 0.72, "large": 0.44}
    )
    gpu = found.scores[found.scores["comparison_set"] == "derma [hardware=NVIDIA H100]"]
    assert dict(zip(gpu["model"], gpu["rank"], strict=True)) == {
        "small": 1,
        "middle": 2,
        "large": 3,
    }
    assert (
        "The runs of derma differ in hardware, so that each group of alike runs is scored by itself"
        in found.notes
    )


def test_a_set_of_one_model_is_noted() -> None:
    runs = frame([*THREE, run("small", precision="bf16")])
    notes = compare(runs, Question(mixed="stratify")).notes
    assert "1 of 2 sets has a single model, whose R is 0 since there is no other" in notes


def test_unlike_runs_are_scored_together_when_allowed_and_every_row_says_so() -> None:
    found = compare(frame(MIXED), Question(mixed="allow"))
    assert set(found.scores["comparison_set"]) == {"derma [MIXED hardware]"}
    rows = found.scores.set_index(["model", "variant"])["R"]
    assert rows["small", "hardware=CPU"] == pytest.approx(30 / 70)  # a row of its own: no averaging
    assert rows["small", "hardware=NVIDIA H100"] == 0
    assert len(rows) == 5
    assert any(note.startswith("derma mixes hardware (") for note in found.notes)


def test_experiments_are_scored_apart() -> None:
    lidc = [run("small", dataset="lidc", tags={"pepr.experiment": "lidc"}, energy_wh=77.0)]
    found = compare(frame([*THREE, *lidc]), Question())
    assert found.sets["comparison_set"].tolist() == ["derma", "lidc"]
    assert found.scores.set_index("comparison_set").loc["lidc", "R"] == 0


def test_a_run_may_be_in_two_experiments() -> None:
    twice = pd.concat([frame(THREE), frame(THREE).assign(experiment="Default")], ignore_index=True)
    found = compare(twice, Question())
    assert found.sets["runs"].tolist() == [3, 3]
    assert found.runs["comparison_set"].tolist() == ["derma"] * 3 + ["Default"] * 3
    assert all(codes == [] for codes in found.scores["codes"])
    assert changed_scores(found, twice)["run_id"].is_unique


def test_a_setting_that_is_the_cost_is_not_averaged_over() -> None:
    runs = [
        run("a", image_size=size, performance=p) for size, p in ((32, 0.5), (64, 0.7), (128, 0.9))
    ]
    found = compare(frame(runs), Question(resources=("image_size",)))
    assert found.scores["n"].tolist() == [1, 1, 1]
    assert dict(zip(found.scores["variant"], found.scores["score"], strict=True)) == pytest.approx(
        {"image_size=32": 0.5, "image_size=64": 0.7 / (1 + 1 / 3), "image_size=128": 0.45}
    )


def test_fractions_do_not_mix_where_energy_counts_too() -> None:
    runs = frame([run("a", fraction=f) for f in (0.1, 1.0)])
    with pytest.raises(WrongUse, match="derma mixes fraction"):
        compare(runs, Question(resources=("E", "D")))


def test_settings_of_ones_own_code_are_no_repetitions() -> None:
    runs = [run("a", seed, performance=p) for seed, p in ((0, 0.6), (1, 0.8))]
    for one, dropout in zip(runs, ("0.1", "0.5"), strict=True):
        one["params"]["dropout"] = dropout
    found = compare(frame(runs), Question())
    assert found.scores["variant"].tolist() == ["dropout=0.5", "dropout=0.1"]
    assert found.scores["n"].tolist() == [1, 1]


def test_settings_that_are_no_numbers_are_compared_as_text() -> None:
    runs = [run("a", 0), run("a", 1)]
    for one, epochs in zip(runs, ("until 0.9", "until 0.8"), strict=True):
        one["params"]["epochs"] = epochs
    with pytest.raises(WrongUse, match=r"mixes epochs \(epochs=until 0\.[89]: 1 run"):
        compare(frame(runs), Question())


def test_strict_takes_the_older_run_where_the_newer_is_doubtful() -> None:
    doubt = {"pepr.unmeasured_s": "30"}
    runs = frame(
        [
            run("a", start=1, performance=0.7, energy_wh=19.0),
            run("a", start=2, performance=0.9, energy_wh=21.0, tags=doubt),
        ]
    )
    assert _by_model(compare(runs, Question()), "performance") == {"a": 0.9}
    assert _by_model(compare(runs, Question(strict=True)), "performance") == {"a": 0.7}


def test_training_fractions_are_the_cost_where_data_is() -> None:
    runs = [run("a", fraction=f, performance=p) for f, p in ((0.1, 0.6), (0.55, 0.7), (1.0, 0.75))]
    found = compare(frame(runs), Question(resources=("D",)))
    scores = dict(zip(found.scores["variant"], found.scores["score"], strict=True))
    assert scores == pytest.approx(
        {"fraction=0.1": 0.6, "fraction=0.55": 0.7 / 1.5, "fraction=1": 0.375}
    )


def test_other_weights_are_another_row_and_no_repetition() -> None:
    runs = [
        run("a", performance=0.6, energy_wh=10.0, tags={"pepr.weights": "in1k"}),
        run("a", performance=0.8, energy_wh=30.0, tags={"pepr.weights": "mine.safetensors"}),
        run("b", performance=0.7, energy_wh=20.0, tags={"pepr.weights": "in21k"}),
    ]
    found = compare(frame(runs), Question())
    rows = found.scores.set_index(["model", "variant"])["score"].to_dict()
    assert rows == pytest.approx(
        {
            ("a", "initial_weights=in1k"): 0.6,
            ("a", "initial_weights=mine.safetensors"): 0.4,
            ("b", "initial_weights=in21k"): 0.7 / 1.5,
        }
    )


def test_a_run_without_a_model_is_no_model() -> None:
    nameless = run("x")
    del nameless["params"]["model"]
    found = compare(frame([*THREE, nameless]), Question())
    assert len(found.used) == 3
    assert found.runs["reasons"].iloc[3] == ["it does not name its model"]


# References, carbon, foreign runs ----------------------------------------------------------------


def test_scores_by_a_reference_do_not_move_when_a_model_is_added() -> None:
    before = compare(frame(THREE), Question())
    question = Question(normalisation="reference", reference=before.reference)
    added = compare(frame([*THREE, run("huge", performance=0.9, energy_wh=100.0)]), question)
    assert _by_model(added, "score") == pytest.approx(
        {**_by_model(before, "score"), "huge": 0.45}  # type: ignore[dict-item]
    )
    assert any("1 of 4 models cost energy_wh outside the reference" in n for n in added.notes)


def test_a_reference_of_other_conditions_is_refused() -> None:
    saved = compare(frame(THREE), Question()).reference
    other = frame([run(m, precision="bf16") for m in ("a", "b")])
    question = Question(normalisation="reference", reference=saved)
    with pytest.raises(WrongUse, match="precision fp32 there, bf16 here"):
        compare(other, question)
    assert saved is not None
    for name in LATER:  # as it was saved before there were these choices
        if name != "threads":
            saved.origin["shared"].pop(name, None)
    compare(frame(THREE), question)
    with pytest.raises(WrongUse, match=r"\(launch kernels there, graph here\)"):
        compare(frame([run(m, launch="graph") for m in ("a", "b")]), question)
    with pytest.raises(WrongUse, match=r"\(weight_decay 0 there, 0.01 here\)"):
        compare(frame([run(m, weight_decay=0.01) for m in ("a", "b")]), question)
    other_cost = Question(resources=("M",), normalisation="reference", reference=saved)
    with pytest.raises(WrongUse, match="no bounds of memory_gb; valid: energy_wh"):
        compare(frame(THREE), other_cost)


def test_a_reference_of_the_same_data_under_another_name_serves() -> None:
    saved = compare(frame(THREE), Question()).reference
    moved = [{**one, "params": {**one["params"], "dataset": "/archive/skin"}} for one in THREE]
    question = Question(normalisation="reference", reference=saved, draws=0)
    assert len(compare(frame(moved), question).scores) == 3


def test_an_allowed_reference_of_other_conditions_is_marked_everywhere() -> None:
    saved = compare(frame(THREE), Question()).reference
    other = frame([run(m, precision="bf16") for m in ("a", "b")])
    found = compare(other, Question(normalisation="reference", reference=saved, mixed="allow"))
    assert set(found.scores["comparison_set"]) == {"derma [MIXED reference]"}
    assert any(
        "other conditions" in n and "precision fp32 there, bf16 here" in n for n in found.notes
    )


@pytest.mark.parametrize(
    ("performance", "cost", "message"),
    [
        ((1.4, 0.4), (1.0, 2.0), r"performance: 1.4 of run run0 \(A\) is not in \[0, 1\]"),
        ((0.4, 0.6), (-5.0, 25.0), r"seconds: -5 of run run0 \(A\) is not a cost from 0"),
    ],
)
def test_no_mean_over_seeds_hides_an_impossible_run(
    performance: tuple[float, float], cost: tuple[float, float], message: str
) -> None:
    runs = frame([_foreign("A", p, c) for p, c in zip(performance, cost, strict=True)])
    with pytest.raises(WrongUse, match=message):
        compare(runs, THEIRS)


def test_a_reference_of_mixed_runs_is_of_several_conditions() -> None:
    saved = compare(frame(MIXED), Question(mixed="allow")).reference
    assert saved.origin["shared"]["hardware"] == "several"
    with pytest.raises(WrongUse, match="hardware several there, NVIDIA H100 here"):
        compare(frame(THREE), Question(normalisation="reference", reference=saved))


def test_a_reference_of_carbon_knows_its_grid() -> None:
    def question(g_per_kwh: float, **options: object) -> Question:
        grid = Intensity(g_per_kwh, "given")
        return Question(resources=("C",), intensity=grid, **options)  # type: ignore[arg-type]

    saved = compare(frame(THREE), question(300.0)).reference
    with pytest.raises(WrongUse, match="carbon_intensity_g_per_kwh 300 there, 400 here"):
        compare(frame(THREE), question(400.0, normalisation="reference", reference=saved))


def test_the_buildings_overhead_counts_without_a_logged_intensity() -> None:
    runs = frame([run("a", energy_wh=10.0, pue=2.0), run("b", energy_wh=15.0, pue=1.0)])
    found = compare(runs, Question(resources=("C",), intensity=Intensity(100.0, "given")))
    assert _by_model(found, "cost", "C") == pytest.approx({"a": 2.0, "b": 1.5})


def test_carbon_under_one_intensity() -> None:
    runs = frame(
        [
            run("a", energy_wh=100.0, metrics={"carbon/train_gco2e": 5.0}, tags=_grid("50")),
            run("b", energy_wh=200.0, metrics={"carbon/train_gco2e": 80.0}, tags=_grid("400")),
        ]
    )
    mixed = compare(runs, Question(resources=("C",)))
    assert _by_model(mixed, "cost", "C") == {"a": 5.0, "b": 80.0}
    assert any("grid intensities from 50 to 400 g/kWh" in note for note in mixed.notes)
    one = compare(runs, Question(resources=("C",), intensity=Intensity(100.0, "given")))
    assert _by_model(one, "cost", "C") == pytest.approx({"a": 12.0, "b": 24.0})  # PUE 1.2
    assert "CO2e of all runs under 100 g/kWh (given)" in one.notes


def _grid(g_per_kwh: str) -> dict[str, str]:
    return {"pepr.carbon_intensity_g_per_kwh": g_per_kwh, "pepr.pue": "1.2"}


def _foreign(name: str, accuracy: float, seconds: float) -> dict[str, object]:
    return {
        "params": {"arch": name},
        "tags": {},
        "metrics": {"val_acc": accuracy, "seconds": seconds},
        "status": "FINISHED",
        "start": 1,
    }


THEIRS = Question(performance="val_acc", resources=("seconds",), model_param="arch")


def test_runs_of_anyone_can_be_scored() -> None:
    runs = frame([_foreign("unet", 0.8, 10.0), _foreign("deeplab", 0.9, 30.0)])
    found = compare(runs, THEIRS)
    assert _by_model(found, "score", "seconds") == pytest.approx({"unet": 0.8, "deeplab": 0.45})
    (note,) = [n for n in found.notes if "not logged by pepr" in n]
    assert note.startswith("2 of 2 runs not logged by pepr: their dataset, ")


def test_a_missing_name_is_reported_with_the_existing_ones() -> None:
    runs = frame([_foreign("unet", 0.8, 10.0)])
    with pytest.raises(WorkFailed, match=r"not named\).*--model-param names the model: arch"):
        compare(runs, Question(performance="val_acc", resources=("seconds",)))
    with pytest.raises(WorkFailed, match=r"not known\).*metrics there are: val_acc, seconds"):
        compare(runs, Question(performance="val_acc", model_param="arch"))


@pytest.mark.parametrize(
    ("question", "message"),
    [
        (Question(performance="val_ac", resources=("seconds",)), "did you mean 'val_acc'"),
        (Question(performance="val_acc", resources=("second",)), "did you mean 'seconds'"),
        (
            Question(performance="val_acc", resources=("seconds",), model_param="ach"),
            "did you mean 'arch'",
        ),
    ],
)
def test_misspelt_names_are_refused_with_the_nearest(question: Question, message: str) -> None:
    with pytest.raises(WrongUse, match=message):
        compare(frame([_foreign("unet", 0.8, 10.0)]), question)


@pytest.mark.parametrize(
    ("question", "message"),
    [
        (Question(performance="E"), "performance: no run has the metric 'E'"),
        (Question(performance="pretrained"), "no run has the metric 'pretrained'"),
        (Question(resources=("performance",)), "performance is P and no cost"),
        (Question(resources=("E", "energy_wh")), "E is energy_wh, which another names too"),
        (Question(resources=("run_name",)), "run_name: no run has such a number"),
    ],
)
def test_a_metric_that_is_no_performance_or_no_cost_is_refused(
    question: Question, message: str
) -> None:
    with pytest.raises(WrongUse, match=message):
        compare(frame(THREE), question)


def test_each_runs_own_performance_is_not_mixed_by_name() -> None:
    runs = frame([run("a"), run("b", tags={"pepr.performance": "val/auc"})])
    with pytest.raises(WrongUse, match="mixes performance_metric"):
        compare(runs, Question(performance="performance"))


def test_per_cent_and_losses_are_no_performance() -> None:
    with pytest.raises(
        WrongUse, match=r"performance: 80 of run run0 \(unet\) is not in \[0, 1\]; give a share"
    ):
        compare(frame([_foreign("unet", 80.0, 10.0)]), THEIRS)
    with pytest.raises(WrongUse, match="test/loss is no share"):
        compare(frame([run(metrics={"test/loss": 0.3})]), Question(performance="test/loss"))


GRID = {"pepr.carbon_intensity_g_per_kwh": "300"}


def _estimated(model: str, watts: float, seconds: float, constant_w: str = "20.8") -> dict:  # type: ignore[type-arg]
    tags = {
        "pepr.energy_source": "estimated",
        "pepr.energy_components": "cpu=estimated,dram=estimated",
        "pepr.energy_constant_w": constant_w,
    }
    energy_wh = watts * seconds / 3600
    return run(model, energy_wh=energy_wh, train_time_s=seconds, tags=tags)


def test_the_constant_share_of_an_estimate_is_noted() -> None:
    """20.8 W of 26 and of 25.2 W, over 100 and 300 s: 8,320 of 10,160 J."""
    found = compare(
        frame([_estimated("a", 26, 100), _estimated("b", 25.2, 300)]), Question(draws=0)
    )
    (note,) = [n for n in found.notes if "is estimated" in n]
    assert "off by up to 40% in a published comparison, and 82% of it is counted whatever" in note
    measured = compare(frame(THREE), Question(draws=0))
    assert not any("whatever the load" in n for n in measured.notes)


def test_a_constant_share_of_some_estimates_names_their_number() -> None:
    earlier = _estimated("b", 25.2, 300)
    del earlier["tags"]["pepr.energy_constant_w"]
    found = compare(frame([_estimated("a", 26, 100), earlier]), Question(draws=0))
    expected = "80% of it is counted whatever the load (known of 1 of 2 runs)"
    assert any(expected in note for note in found.notes)


def test_a_missing_pue_is_noted() -> None:
    made = [run("a", tags=GRID), run("b", tags={**GRID, "pepr.pue": "1.5"})]
    made[0]["params"].pop("pue")
    for one in made:
        one["metrics"]["carbon/train_gco2e"] = 10.0
    found = compare(frame(made), Question(resources=("C",), draws=0))
    expected = "buildings of a PUE from 1 to 1.5 (taken as 1 for 1 of 2 runs) with"
    assert any(expected in note for note in found.notes)


def test_an_estimate_that_can_only_rank_as_time_does_says_so() -> None:
    alike = frame([_estimated("a", 25.2, 100), _estimated("b", 26, 300)])
    expected = (
        "derma: the estimate gives all models between 25.2 and 26 W, so that their energy ranks "
        "them as their time does; compare by time (T), or measure"
    )
    assert expected in compare(alike, Question(draws=0)).notes
    assert not any("ranks" in n for n in compare(alike, Question(resources=("T",), draws=0)).notes)
    unlike = frame([_estimated("a", 22, 100), _estimated("b", 28, 300)])
    assert not any("ranks them" in n for n in compare(unlike, Question(draws=0)).notes)
    rows = [_estimated("a", 25.2, 100), _estimated("a", 26, 300)]  # one model in two layouts
    rows[1]["params"]["layout"] = "channels_last"
    alone = compare(frame(rows), Question(draws=0, mixed="allow"))
    assert any("ranks them" in n for n in alone.notes)
    measured = frame([run("a", energy_wh=2.0), run("b", energy_wh=2.02)])
    assert not any("ranks them" in n for n in compare(measured, Question(draws=0)).notes)


def test_estimates_of_machines_with_other_memory_do_not_mix() -> None:
    models = ("cpu 8 W, dram 20 W", "cpu 8 W, dram 10 W")
    runs = frame([run(m, tags={"pepr.energy_model": m}) for m in models])
    with pytest.raises(WrongUse, match="derma mixes energy_model"):
        compare(runs, Question())
    compare(runs, Question(resources=("T",), draws=0))


def test_estimated_energy_is_noted() -> None:
    runs = [
        run(m, energy_wh=e, tags={"pepr.energy_source": "estimated"})
        for m, e in (("a", 1.0), ("b", 2.0))
    ]
    found = compare(frame(runs), Question())
    assert set(found.scores["energy_source"]) == {"estimated"}
    assert any("2 of 2 runs is estimated" in note for note in found.notes)
    assert all(codes == ["estimated"] for codes in found.scores["codes"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resources": ()}, "resource: name one or more"),
        ({"resources": ("E", "E")}, "names one twice"),
        ({"weights": (0.5,)}, "weights: 0.5 sum to 0.5"),
        ({"resources": ("E", "M"), "weights": (1.0,)}, "weights: 1 for 2 resources"),
        ({"alpha": 0.1}, "alpha: 0.1"),
        ({"normalisation": "reference"}, "reference and the saved bounds .* go together"),
        ({"energy_error": 1.0}, "energy_error: 1 is not an error from 0 to below 1"),
        ({"estimate_error": (0.2, -1.0)}, "estimate_error: -1 is not an error"),
        ({"seed_sd": 1.0}, "seed_sd: 1 is not an error"),
        ({"test_images": 0}, "test_images: 0 is too few"),
        (
            {"mixed": "startify"},
            "mixed: 'startify' is not one of refuse, stratify, allow; did you mean 'stratify'?",
        ),
    ],
)
def test_impossible_questions_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(WrongUse, match=message):
        Question(**options)  # type: ignore[arg-type]


def test_inspecting_never_fails_on_mixed_or_unusable_runs() -> None:
    runs, notes = inspect(frame(MIXED), Question())
    assert runs["used"].all()
    assert any(note.startswith("derma mixes hardware") for note in notes)
    runs, notes = inspect(frame([run(status="FAILED")]), Question())
    assert (runs["used"].tolist(), notes) == ([False], [])
    runs, _ = inspect(frame([run()])[:0], Question())
    assert runs.empty
    with pytest.raises(WorkFailed, match="no run can be compared: 0 found, 0 left out"):
        compare(frame([run()])[:0], Question())


# What goes back to the runs ----------------------------------------------------------------------


def test_scores_go_to_the_runs_of_their_model_and_leave_with_them() -> None:
    runs = frame(THREE)
    found = compare(runs, Question())
    first = changed_scores(found, runs)
    assert dict(zip(first["run_id"], first["score"], strict=True)) == pytest.approx(
        {"run0": 0.7, "run1": 0.64, "run2": 0.45}
    )
    runs["tags.pepr.scored.E"] = runs["run_id"].map(first.set_index("run_id")["basis"])
    runs["metrics.pepr/E"] = runs["run_id"].map(first.set_index("run_id")["score"])
    assert changed_scores(found, runs).empty  # nothing changed, nothing to write
    runs.loc[2, "status"] = "FAILED"
    again = changed_scores(compare(runs, Question()), runs).set_index("run_id")
    assert again.loc["run1", "score"] == 0.4  # it sets the scale now
    assert np.isnan(again.loc["run2", "score"])
    assert again.loc["run2", "basis"].startswith("superseded: ")


def test_the_fingerprint_changes_with_runs_numbers_and_settings() -> None:
    def print_of(runs: list[dict[str, object]], **options: object) -> str:
        found = compare(frame(runs), Question(**options))  # type: ignore[arg-type]
        return str(found.sets["fingerprint"].iloc[0])

    original = print_of(THREE)
    assert original == print_of(THREE)
    changed = [*THREE[:2], run("large", performance=0.9, energy_wh=50.001)]
    others = {print_of(THREE[:2]), print_of(changed), print_of(THREE, alpha=2.0)}
    others.add(print_of(THREE, normalisation="zero"))
    others.add(print_of([run("renamed", performance=0.7, energy_wh=10.0), *THREE[1:]]))
    assert len(others | {original}) == 6


def test_means_of_any_column() -> None:
    runs = frame([run("a", 0, memory_gb=1.0), run("a", 1, memory_gb=3.0), run("b")])
    table = means(compare(runs, Question()), {"M": "memory_gb"})
    assert dict(zip(table["model"], table["M"], strict=True)) == {"a": 2.0, "b": 4.0}


def test_a_mean_of_which_a_part_is_missing_is_missing() -> None:
    runs = frame(
        [
            run("a", 0, metrics={"test/auc": np.nan}),
            run("a", 1, metrics={"test/auc": 0.9}),
            run("b", 0, metrics={"test/auc": 0.7}),
            run("b", 1),
            run("c", metrics={"test/auc": 0.8}),
        ]
    )
    table = means(compare(runs, Question()), {"auc": "metrics.test/auc"}).set_index("model")
    assert table["auc"].dropna().to_dict() == {"c": 0.8}


def test_one_definition_of_the_score() -> None:
    """The rows agree with the functions they are made of."""
    found = compare(frame(THREE), Question(alpha=3.0, normalisation="zero"))
    cost = pd.Series({"small": 10.0, "middle": 20.0, "large": 50.0})
    r = pepr.normalise(cost, pepr.bounds(cost, "zero"))
    expected = pepr.pepr(pd.Series({"small": 0.7, "middle": 0.8, "large": 0.9}), r, alpha=3.0)
    assert _by_model(found, "score") == pytest.approx(expected.to_dict())
