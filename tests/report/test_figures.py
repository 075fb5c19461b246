"""Figures of one comparison set: the numbers they draw."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from made import material, run, worse_in

from pepr_mlops.comparison import Question, selection
from pepr_mlops.costs.carbon import Intensity
from pepr_mlops.report import theme
from pepr_mlops.report.figures import (
    clinical,
    curves,
    energy,
    plane,
    ranking,
    reliability,
    sensitivity,
    subgroups,
)
from pepr_mlops.report.figures.common import log_ticks
from pepr_mlops.report.material import Material, NothingToDraw

HOSTILE = "<script>alert(1)</script>"
RUNS = [
    run("a", performance=0.60, energy_wh=10.0, memory_gb=2.0),
    run("b", performance=0.80, energy_wh=20.0, memory_gb=4.0),
    run("c", performance=0.70, energy_wh=30.0, memory_gb=3.0),
    run(HOSTILE, performance=0.90, energy_wh=50.0, memory_gb=6.0),
]


def _history(total_only: bool = False) -> pd.DataFrame:
    """Two epochs of each run: half the energy and 0.1 less P after the first."""
    rows = []
    for i, made in enumerate(RUNS):
        for step in (1, 2):
            rows.append(
                {
                    "run_id": f"run{i}",
                    "step": step,
                    "performance": made["metrics"]["performance"] - (0.1 if step == 1 else 0),
                    "energy/train_wh": np.nan
                    if total_only and step == 1
                    else made["metrics"]["energy/train_wh"] * step / 2,
                }
            )
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def shown() -> Material:
    return material(RUNS, epochs=_history(), run_page="http://127.0.0.1:5000/#/runs/")


# The plane -------------------------------------------------------------------------------------


def test_plane_has_the_pareto_set_and_the_knee(shown: Material) -> None:
    points = plane.data(shown, "derma").set_index("label")
    assert points["R"].to_dict() == pytest.approx({"a": 0, "b": 0.25, "c": 0.5, HOSTILE: 1})
    assert points["pareto"].to_dict() == {"a": True, "b": True, "c": False, HOSTILE: True}
    assert points.index[points["knee"]].tolist() == ["b"]
    frame = points.reset_index()
    assert selection.knee(frame, "P", "cost") == frame.index[frame["label"] == "b"][0]


def test_plane_draws_every_model_once_with_its_run_and_as_text(shown: Material) -> None:
    figure = plane.panel(shown, plane.Options(), "derma").figure
    by_name = {t.name: t for t in figure.data}
    drawn = [*by_name["models"].text, *by_name["Pareto set"].text]
    assert sorted(drawn) == sorted(["a", "b", "c", "&lt;script&gt;alert(1)&lt;/script&gt;"])
    assert list(by_name["models"].ids) == ["run2"]
    notes = {note.text: note.font.color for note in figure.layout.annotations}
    assert notes["<b>b</b><br>best score, knee"] is None  # 0.8 / 1.25 = 0.64
    best = "<b>&lt;script&gt;alert(1)&lt;/script&gt;</b><br>good enough, best performance"
    assert notes[best] == theme.CHOICE
    assert "epochs" not in by_name
    assert "<script" not in figure.to_json().replace("\\u003c", "<")


def test_an_isoline_of_the_plane_is_the_score(shown: Material) -> None:
    contour = plane.panel(shown, plane.Options(), "derma").figure.data[0]
    r, p = np.array(contour.x), np.array(contour.y)
    assert np.allclose(contour.z, p[:, None] / (1 + r))


@pytest.mark.parametrize(
    ("axis", "front", "title"),
    [("R", [0, 0.25, 1], "normalised training energy (R)"),
     ("cost", [10, 20, 50], "training energy (Wh)")],
)  # fmt: skip
def test_the_axis_is_r_or_the_cost_itself(
    shown: Material, axis: Any, front: list[float], title: str
) -> None:
    figure = plane.panel(shown, plane.Options(axis=axis), "derma").figure
    by_name = {t.name: t for t in figure.data}
    assert list(by_name["Pareto set"].x) == pytest.approx(front)
    lines = by_name["equal score"].x
    assert (lines[0], lines[-1]) == pytest.approx((front[0], front[-1]))  # R = 0 and R = 1
    assert figure.layout.xaxis.title.text == title
    assert figure.layout.xaxis.type is None


def test_costs_over_more_than_a_decade_have_a_logarithmic_axis() -> None:
    runs = [run(m, performance=p, energy_wh=e) for m, p, e in (("a", 0.6, 2.0), ("b", 0.8, 100.0))]
    figure = plane.panel(material(runs), plane.Options(axis="cost"), "derma").figure
    axis = figure.layout.xaxis
    assert axis.type == "log"
    assert list(axis.tickvals) == [2, 10, 50]  # a phone has no room for more
    assert list(axis.ticktext)[:2] == ["2 Wh", "10 Wh"]
    assert axis.range == pytest.approx((np.log10(2 / 1.2), np.log10(100 * 1.2)))


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [(1.7, 120, [2, 5, 10, 20, 50, 100]), (9.4, 14.6, [10, 12, 14]), (5.6, 8.75, [6, 7, 8])],
)
def test_a_logarithmic_axis_has_round_ticks_however_narrow_it_is(
    low: float, high: float, ticks: list[float]
) -> None:
    axis = log_ticks(low, high, scale=10.0, upright=True)
    assert axis["tickvals"] == ticks
    assert axis["ticktext"][:2] == [f"{ticks[0] / 10:g}", f"{ticks[1] / 10:g}"]


def test_the_same_model_has_the_same_colour_in_all_figures() -> None:
    found = worse_in("f")
    options = {
        "plane": plane, "ranking": ranking, "subgroups": subgroups, "clinical": clinical,
        "reliability": reliability, "sensitivity": sensitivity,
    }  # fmt: skip
    colours: dict[str, set[str]] = {"small": set(), "large": set()}
    for module in options.values():
        for trace in module.panel(found, module.Options(), "derma").figure.data:
            name = trace.text[0] if module is ranking else trace.name
            if name in colours:
                colours[name].add(trace.marker.color)
    assert colours == {"small": {theme.CHOICE}, "large": {theme.BEST}}


def test_paths_end_at_their_models(shown: Material) -> None:
    path = plane.paths(shown, "derma").set_index(["label", "step"])
    assert path.loc[("b", 2), ["R", "P"]].tolist() == pytest.approx([0.25, 0.8])
    assert path.loc[(HOSTILE, 1), ["cost", "P"]].tolist() == pytest.approx([25, 0.8])


# Curves ----------------------------------------------------------------------------------------


def test_curves_start_at_no_cost_and_peak_where_the_score_is_greatest(shown: Material) -> None:
    points = curves.data(shown, "derma", "E").set_index(["label", "step"])
    assert points.loc[("b", 1), "R"] == pytest.approx(10 / 50)
    assert points.loc[("b", 1), "score"] == pytest.approx(0.7 / 1.2)
    assert points.loc[("b", 2), "score"] == pytest.approx(0.8 / 1.4)
    assert not points["estimated"].any()
    tops = curves.peaks(points.reset_index()).set_index("label")
    assert tops.loc["b", ["R", "P"]].tolist() == pytest.approx([0.2, 0.7])
    assert tops.loc["b", "score"] == pytest.approx(0.7 / 1.2)


def test_returns_diminish_beyond_the_greatest_score(shown: Material) -> None:
    """As in the paper's Fig. 2b."""
    points = curves.data(shown, "derma", "E")
    b = points[points["label"] == "b"]
    figure = curves.draw(
        b,
        curves.peaks(b),
        resource="E",
        performance="test/accuracy",
        colours={"b": theme.style(0)},
    )
    star, beyond = figure.data[1], figure.data[2]
    assert star.x[0] == beyond.x[0] == pytest.approx(0.2)
    assert beyond.line.width > 5
    assert list(beyond.x) == b.loc[b["R"] >= 0.2 - 1e-9, "R"].tolist()


def test_a_cost_known_only_for_the_full_run_is_spread_and_marked() -> None:
    found = material(RUNS, epochs=_history(total_only=True))
    points = curves.data(found, "derma", "E").set_index(["label", "step"])
    assert points["estimated"].all()
    assert points.loc[("b", 1), "cost"] == 10
    panel = curves.panel(found, curves.Options(), "derma")
    assert "Dotted lines are estimated" in panel.reading
    assert panel.figure.layout.xaxis.title.text.endswith("dotted: estimated")
    with pytest.raises(NothingToDraw, match="only the energy of full runs"):
        energy.panel(found, energy.Options(), "derma")


def test_memory_has_no_curve_and_no_history_no_figure(shown: Material) -> None:
    with pytest.raises(NothingToDraw, match="M does not add up over epochs"):
        curves.panel(shown, curves.Options(resource="M"), "derma")
    with pytest.raises(NothingToDraw, match="no history"):
        curves.panel(material(RUNS), curves.Options(), "derma")
    with pytest.raises(NothingToDraw, match="none of zzz"):
        curves.panel(shown, curves.Options(models=("zzz",)), "derma")


def test_a_named_model_without_a_history_is_left_out() -> None:
    epochs = _history().query("run_id == 'run0'")
    found = material(RUNS, epochs=epochs)
    for module in (curves, energy):
        panel = module.panel(found, module.Options(models=("b", "a")), "derma")
        assert set(panel.table["label"]) == {"a"}
    with pytest.raises(NothingToDraw, match=r"none of b, .* has a history of epochs"):
        curves.panel(found, curves.Options(models=("b",)), "derma")
    with pytest.raises(NothingToDraw, match="none of b, which the option models names, has known"):
        energy.panel(found, energy.Options(models=("b",)), "derma")


def test_runs_of_a_model_are_averaged_epoch_by_epoch() -> None:
    runs = [run("a", seed=s, energy_wh=e) for s, e in ((0, 10.0), (1, 30.0))]
    epochs = pd.DataFrame(
        {
            "run_id": ["run0", "run0", "run1", "run1"],
            "step": [1, 2, 1, 2],
            "performance": [0.5, 0.6, 0.7, 0.8],
            "energy/train_wh": [5.0, 10.0, 15.0, 30.0],
        }
    )
    points = curves.data(material([*runs, run("b")], epochs=epochs), "derma", "E")
    assert points["cost"].tolist() == [10, 20]
    assert points["P"].tolist() == pytest.approx([0.6, 0.7])


# Ranking ---------------------------------------------------------------------------------------


def test_ranking_has_table_1s_columns_and_the_best_by_performance(shown: Material) -> None:
    table = ranking.data(shown, "derma")
    assert table["model"].tolist() == ["b", "a", "c", HOSTILE]
    assert table["score"].tolist() == pytest.approx([0.64, 0.6, 0.7 / 1.5, 0.45])
    assert table.loc[0, ["cost E", "cost M", "P"]].tolist() == [20, 4, 0.8]
    assert table.loc[0, "parameters_m"] == pytest.approx(11.708744)
    assert ranking.listed(table, 2)["model"].tolist() == ["b", "a", HOSTILE]


def test_the_rankings_caption_claims_no_more_than_is_known(shown: Material) -> None:
    caption = ranking.panel(shown, ranking.Options(), "derma").caption
    assert "(95% interval 0." in caption
    assert "could rank first" in caption or "no other model ranks first" in caption
    unknown = run("a", tags={"pepr.test_images": None})
    alone = material([unknown], question=Question(resources=("M",), draws=50))
    caption = ranking.panel(alone, ranking.Options(), "derma").caption
    why = "(no interval: unknown number of test images)"
    assert caption == f"a scores 0.800 {why}."


def test_ranking_draws_the_intervals_of_the_scores(shown: Material) -> None:
    figure = ranking.panel(shown, ranking.Options(top=2), "derma").figure
    rows = shown.models.set_index("run_id")
    drawn = [
        (run_id, row, x + more, x - less)
        for t in figure.data
        for run_id, row, x, more, less in zip(
            t.ids, t.y, t.x, t.error_x.array, t.error_x.arrayminus, strict=True
        )
    ]
    assert [run_id for run_id, row, *_ in sorted(drawn, key=lambda one: one[1])] == [
        "run1", "run0", "run3"
    ]  # fmt: skip
    for run_id, _, high, low in drawn:
        expected = rows.loc[run_id, ["ci_high", "ci_low"]].to_numpy(float)
        assert (high, low) == pytest.approx(tuple(expected))
    assert figure.layout.yaxis.ticktext[2] == "&lt;script&gt;alert(1)&lt;/script&gt;"


# Sensitivity -----------------------------------------------------------------------------------


def test_large_alpha_ranks_by_performance_and_weights_by_the_other_resource(
    shown: Material,
) -> None:
    table = sensitivity.data(shown, "derma", ("E", "M"))
    at = table.set_index(["setting", "value", "label"])
    assert at.loc[("alpha", 1.0, "b"), "score"] == pytest.approx(0.64)
    assert at.loc[("alpha", 100.0, HOSTILE), "rank"] == 1
    assert at.loc[("alpha", 100.0, "a"), "score"] == pytest.approx(0.6)
    # M alone: a 0.6, b 0.8/1.5, c 0.7/1.25, the last 0.45
    ranks = at.loc["weight"].loc[1.0, "rank"].to_dict()
    assert ranks == {"a": 1, "c": 2, "b": 3, HOSTILE: 4}
    half = 0.8 / (1 + 0.5 * 0.25 + 0.5 * 0.5)
    assert at.loc[("weight", 0.5, "b"), "score"] == pytest.approx(half)


# Energy ----------------------------------------------------------------------------------------


def test_energy_bought_performance_epoch_by_epoch(shown: Material) -> None:
    points = energy.history(shown, "derma").set_index(["label", "step"])
    assert points.loc[("b", 2), "gain_per_wh"] == pytest.approx(0.1 / 10)
    assert np.isnan(points.loc[("b", 1), "gain"])  # P before training is not known


def test_energy_is_split_by_component_and_phase_where_all_runs_have_it() -> None:
    def metrics(gpu: float, cpu: float | None) -> dict[str, float | None]:
        return {"energy/train_gpu_wh": gpu, "energy/train_cpu_wh": cpu, "energy/eval_gpu_wh": 1.0}

    runs = [
        run("a", seed=0, metrics=metrics(8.0, 2.0)),
        run("a", seed=1, metrics=metrics(10.0, 4.0)),
        run("b", seed=0, metrics=metrics(8.0, 2.0)),
        run("b", seed=1, metrics=metrics(8.0, None)),
    ]
    parts = energy.split(material(runs), "derma").set_index(["label", "phase", "component"])
    assert parts["energy_wh"].to_dict() == {
        ("a", "train", "gpu"): 9,
        ("a", "train", "cpu"): 3,
        ("a", "eval", "gpu"): 1,
        ("b", "train", "total"): 20,  # its CPU is not known of one run
        ("b", "eval", "gpu"): 1,
    }
    assert set(parts["source"].dropna()) == {"measured"}
    panel = energy.panel(material(runs), energy.Options(show="split"), "derma")
    assert panel.caption == "Training energy by component, for 1 of 2 models: GPU 75%, CPU 25%."
    assert (
        "used 6% of the energy of training and evaluation of the 2 of 2 models" in panel.reading
    )  # 2 Wh of 12 + 20 + 2


def test_a_trial_has_its_own_bar_and_no_part_in_the_share_of_evaluation() -> None:
    costs = {"energy/eval_wh": 5.0, "energy/trial_wh": 2.0}
    found = material([run("a", energy_wh=15.0, metrics=costs), run("b", energy_wh=20.0)])
    parts = energy.split(found, "derma").set_index(["label", "phase"])["energy_wh"]
    assert parts.loc["a"].to_dict() == {"trial": 2.0, "train": 15.0, "eval": 5.0}
    shown = energy.panel(found, energy.Options(show="split"), "derma")
    assert "used 25% of the energy of training and evaluation of the 1 of 2 models" in shown.reading
    assert shown.caption.startswith("a used the most energy of these models, 22 Wh")
    assert {bar.name for bar in shown.figure.data} == {
        "trial of settings, all components",
        "training, all components",
        "evaluation, all components",
    }


def test_without_components_the_split_is_the_sum() -> None:
    parts = energy.split(material(RUNS), "derma")
    assert set(parts["component"]) == {"total"}
    assert parts.set_index("label")["energy_wh"].to_dict()["c"] == 30


def test_without_energy_there_is_nothing_to_split() -> None:
    runs = [run(m, energy_wh=None) for m in ("a", "b")]
    with pytest.raises(NothingToDraw, match="no run has its energy"):
        energy.split(material(runs, question=Question(resources=("T",), draws=50)), "derma")


# What was requested ----------------------------------------------------------------------------


def test_another_performance_is_drawn_from_its_own_history() -> None:
    runs = [
        run(m, performance=p, energy_wh=e, metrics={"test/auc": auc})
        for m, p, e, auc in (("a", 0.9, 10.0, 0.5), ("b", 0.8, 20.0, 0.6), ("c", 0.7, 40.0, 0.7))
    ]
    question = Question(performance="test/auc", draws=20)
    epochs = _history().query("run_id != 'run3'")
    with pytest.raises(NothingToDraw, match="no history"):
        curves.panel(material(runs, epochs=epochs, question=question), curves.Options(), "derma")
    epochs = epochs.assign(**{"test/auc": [0.4, 0.5, 0.5, 0.6, 0.6, 0.7]})
    found = material(runs, epochs=epochs, question=question)
    path = plane.paths(found, "derma").set_index(["label", "step"])
    assert path["P"].xs(2, level="step").to_dict() == pytest.approx({"a": 0.5, "b": 0.6, "c": 0.7})


def test_carbon_so_far_is_under_the_requested_intensity() -> None:
    question = Question(resources=("C",), intensity=Intensity(100.0, "given"), draws=20)
    epochs = _history().assign(**{"carbon/train_gco2e": 7.0})
    found = material(RUNS, epochs=epochs, question=question)
    ends = curves.data(found, "derma", "C").groupby("label").last()
    costs = found.models.set_index("label")["cost C"]
    assert ends["cost"].to_dict() == pytest.approx(costs.to_dict())
    assert costs["c"] == pytest.approx(3.0)


@pytest.mark.parametrize("quantiles", [(0.0, 1.0), (0.3, 0.6)])
def test_the_cost_axis_has_r_where_the_scores_have_it(quantiles: tuple[float, float]) -> None:
    question = Question(normalisation="robust", quantiles=quantiles, draws=20)
    options = plane.Options(axis="cost")
    lines = plane.panel(material(RUNS, question=question), options, "derma").figure.data[0]
    expected = np.quantile([10, 20, 30, 50], quantiles)
    assert (lines.x[0], lines.x[-1]) == pytest.approx(tuple(expected))
    p = np.array(lines.y)
    assert np.array(lines.z)[:, 0] == pytest.approx(p)  # R = 0
    assert np.array(lines.z)[:, -1] == pytest.approx(p / 2)  # R = 1


def test_energy_that_is_no_shared_cost_still_has_a_history() -> None:
    runs = [*RUNS[:3], run("d", energy_wh=None)]
    found = material(runs, epochs=_history(), question=Question(resources=("M",), draws=20))
    points = energy.history(found, "derma").set_index(["label", "step"])
    assert points.loc[("b", 2), "energy_wh"] == 20
    with pytest.raises(NothingToDraw, match="not every model has a cost E"):
        curves.data(found, "derma", "E")


def test_runs_are_averaged_over_the_epochs_they_all_have() -> None:
    runs = [run("a", seed=s, energy_wh=e) for s, e in ((0, 10.0), (1, 30.0))]
    epochs = pd.DataFrame(
        {
            "run_id": ["run0", "run0", "run1"],
            "step": [1, 2, 1],
            "performance": [0.6, 0.9, 0.8],
            "energy/train_wh": [5.0, 10.0, 15.0],
        }
    )
    points = curves.so_far(material(runs, epochs=epochs), "derma", "E")
    assert points[["step", "P"]].to_numpy().tolist() == [[1, pytest.approx(0.7)]]


def test_energy_lost_during_a_run_is_not_spread_over_all_of_it() -> None:
    epochs = _history()
    lost = (epochs["run_id"] == "run1") & (epochs["step"] == 2)
    epochs.loc[lost, "energy/train_wh"] = np.nan  # 10 Wh of the first epoch are all that is known
    found = material(RUNS, epochs=epochs, question=Question(resources=("M",), draws=20))
    assert set(energy.history(found, "derma")["label"]) == {"a", "c", HOSTILE}


# Subgroups --------------------------------------------------------------------------------------


def test_subgroups_are_drawn_as_text_with_their_numbers() -> None:
    found = subgroups.panel(worse_in(HOSTILE), subgroups.Options(), "derma")
    small, large = found.figure.data
    assert (small.name, large.name) == ("small", "large")
    assert list(large.x) == [pytest.approx(0.9)] * 2
    assert list(small.x) == [pytest.approx(0.7), pytest.approx(0.9)]
    ticks = found.figure.layout.yaxis.ticktext
    assert ticks == ("sex &lt;script&gt;alert(1)&lt;/<br>script&gt; (100)", "sex other (3,900)")
    assert "small is worse than large by more than the margin" in found.caption
    assert len(found.table) == 4


def test_runs_without_subgroups_have_no_such_figure(shown: Material) -> None:
    with pytest.raises(NothingToDraw, match="logged no subgroups of the test images"):
        subgroups.panel(shown, subgroups.Options(), "derma")
    undrawn = material(RUNS, question=Question(draws=0))
    with pytest.raises(NothingToDraw, match="not drawn yet"):
        subgroups.panel(undrawn, subgroups.Options(), "derma")


# Clinical metrics -------------------------------------------------------------------------------


def test_clinical_metrics_are_those_of_the_models_that_matter() -> None:
    found = clinical.panel(worse_in("f"), clinical.Options(), "derma")
    table = found.table.set_index(["metric", "model"])
    assert list(dict.fromkeys(found.table["model"])) == ["small", "large"]  # small is best by PePR
    assert table.loc[("balanced_accuracy", "small"), "value"] == pytest.approx(0.895)
    assert found.caption.startswith("Balanced accuracy: small 0.895 (95% 0.")
    assert "Not known: AUC, average precision" in found.reading
    assert "no validation predictions" in found.reading
    names = {trace.name for trace in found.figure.data}
    assert names == {"small", "large"}


def test_reliability_has_a_curve_for_each_model_and_its_images() -> None:
    found = reliability.panel(worse_in("f"), reliability.Options(), "derma")
    by = found.table.round(6).set_index(["model", "confidence"])
    assert by["images"].groupby("model").sum().to_dict() == {"small": 4000, "large": 4000}
    assert by["accuracy"].to_dict() == {
        ("small", 0.8): 0, ("small", 0.9): 1, ("large", 0.8): 0, ("large", 0.9): 1
    }  # fmt: skip
    # 0.9 of 3,580 and 0.8 of 420 images is 0.8895 on average, of which small has 0.895 right
    assert found.caption == (
        "On average small is underconfident by 0.5 points and large is underconfident by 1.0 "
        "points."
    )


@pytest.mark.parametrize("figure", [clinical, reliability])
def test_runs_without_predictions_have_no_clinical_figures(shown: Material, figure: Any) -> None:
    with pytest.raises(NothingToDraw, match="logged no predictions"):
        figure.panel(shown, figure.Options(), "derma")
