"""`pepr score`, `select`, `stats`, `runs` and `import` as a person meets them."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from made import DIGEST, logged, run
from mlflow import MlflowClient

from pepr_mlops import cli
from pepr_mlops.comparison.predictions import OfSplit, Predictions
from pepr_mlops.tracking.read import tables

THREE = [
    run("small", performance=0.7, energy_wh=10.0, memory_gb=1.0),
    run("middle", performance=0.8, energy_wh=20.0, memory_gb=3.0),
    run("large", performance=0.9, energy_wh=50.0, memory_gb=5.0),
]


def _run(capfd: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of `pepr WORDS`."""
    with pytest.raises(SystemExit) as left:
        cli.main(list(words))
    captured = capfd.readouterr()
    return int(left.value.code or 0), captured.out, captured.err


@pytest.fixture
def derma(store: str) -> dict[str, str]:
    """Three models in the experiment derma; their run ids by model."""
    return {made["params"]["model"]: logged(store, made) for made in THREE}


def test_scores_in_a_table(capfd: pytest.CaptureFixture[str], derma: dict[str, str]) -> None:
    status, out, err = _run(capfd, "score", "--experiment", "derma")
    assert status == 0
    assert re.search(r"^derma: 3 models, 3 runs, energy measured, set [0-9a-f]{12}$", out, re.M)
    p = r"0\.\d{4}–0\.\d{4}"
    assert re.search(rf"^ +1 +small +1 +0.7000 +{p} +10 +0.0000 +0.7000 +{p} ", out, re.M)
    assert re.search(rf"^ +2 +middle +1 +0.8000 +{p} +20 +0.2500 +0.6400 +{p} ", out, re.M)
    assert "E (Wh)" in out
    assert "note: runs: 3 found, 0 left out" in err


_IMPORTS = """
import sys
from pepr_mlops import cli
try:
    cli.main(sys.argv[1:])
finally:
    print(*sorted({"mlflow", "scipy.stats"} & sys.modules.keys()), file=sys.stderr)
"""


@pytest.mark.parametrize(
    "words", ["score", "select --max energy_wh=50", "runs", "stats", "stats --models small,large"]
)
def test_a_known_database_is_read_without_mlflow(
    words: str,
    capfd: pytest.CaptureFixture[str],
    derma: dict[str, str],
    store: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It and SciPy's tests take longer to import than all else; what is printed is the same."""
    for i in range(20):
        size = {"pepr.parameters": str(10**6 * (i + 1))}
        logged(store, run(f"m{i}", performance=0.6 + i / 100, energy_wh=30.0 + i, tags=size))
    command = [*words.split(), "--experiment", "derma", "--tracking-uri", store]
    done = subprocess.run(
        [sys.executable, "-c", _IMPORTS, *command], capture_output=True, text=True, check=True
    )
    *notes, loaded = done.stderr.splitlines()
    assert loaded == ""
    monkeypatch.setattr(tables, "KNOWN_SCHEMAS", set())
    _, out, err = _run(capfd, *command)
    assert done.stdout == out
    assert [n for n in notes if n.startswith("note")] == err.splitlines()
    assert len(out.splitlines()) > 1 or words == "runs"


def test_scores_for_programs(capfd: pytest.CaptureFixture[str], derma: dict[str, str]) -> None:
    words = ["score", "--experiment", "derma", "--resource", "E,M"]
    _, out, _ = _run(capfd, *words, "--format", "json")
    rows = json.loads(out)
    assert len(rows) == 6
    first = rows[0]
    assert {
        "model",
        "n",
        "performance",
        "cost",
        "R",
        "score",
        "ci_low",
        "ci_high",
        "rank",
        "comparison_set",
        "resource",
        "energy_source",
        "flags",
    } <= first.keys()
    assert (first["model"], first["score"], first["performance_sd"]) == ("small", 0.7, None)
    _, out, _ = _run(capfd, *words, "--format", "csv")
    table = list(csv.DictReader(io.StringIO(out)))
    assert [float(r["score"]) for r in table] == pytest.approx([r["score"] for r in rows])


@pytest.mark.parametrize(
    ("form", "row"),
    [
        ("markdown", r"^\| 1 +\| small +\| 1 +\| 0\.7000 \|"),
        ("latex", r"^ 1 +& small +& 1 +& 0\.7000 &.*\\\\$"),
    ],
)
def test_scores_for_papers(
    capfd: pytest.CaptureFixture[str],
    derma: dict[str, str],
    form: str,
    row: str,
    tmp_path: Path,
) -> None:
    path = tmp_path / "table"
    words = ["score", "--experiment", "derma", "--format", form, "--out", str(path)]
    status, out, err = _run(capfd, *words)
    assert (status, out) == (0, "")
    assert f"written to {path}" in err
    assert re.search(row, path.read_text(), re.M)


@pytest.mark.parametrize("resource", ["E", "T", "M"])
def test_a_copy_from_another_experiment_is_flagged_whatever_the_cost(
    capfd: pytest.CaptureFixture[str], derma: dict[str, str], store: str, resource: str
) -> None:
    copied = run("small", performance=0.7, energy_wh=10.0, memory_gb=1.0)
    logged(store, {**copied, "tags": {**copied["tags"], "pepr.experiment": "lidc"}}, "lidc")
    words = ["--experiment", "derma", "--resource", resource, "--format", "json"]
    _, out, _ = _run(capfd, "runs", *words)
    flagged = {r["model"]: "same_numbers" in r["codes"] for r in json.loads(out)}
    assert flagged == {"small": True, "middle": False, "large": False}


def test_scores_of_some_runs_take_none_from_the_others(
    capfd: pytest.CaptureFixture[str], derma: dict[str, str], store: str
) -> None:
    logged(store, run("half", precision="bf16"))
    words = ["score", "--experiment", "derma", "--write"]
    status, out, err = _run(capfd, *words, "--where", "precision=fp32")
    assert status == 0
    assert "note: only precision=fp32: 3 of 4 runs" in err
    assert "half" not in out
    _, _, err = _run(capfd, *words, "--where", "precision=bf16")
    assert "scores written to 1 runs: metrics" in err
    tags = MlflowClient(store).get_run(derma["small"]).data.tags
    assert not tags["pepr.scored.E"].startswith("superseded")
    status, _, err = _run(capfd, "score", "--experiment", "derma", "--where", "bf16")
    assert (status, err) == (
        2,
        "pepr: where: 'bf16' is not NAME=VALUE, such as precision=bf16\n",
    )


def test_several_scores_side_by_side(
    capfd: pytest.CaptureFixture[str], derma: dict[str, str]
) -> None:
    _, out, _ = _run(capfd, "score", "--experiment", "derma", "--resource", "E,M", "--top", "1")
    heading, _, row = out.splitlines()[2:5]
    assert re.split(r"  +", heading) == [
        *("rank", "model", "n", "P", "P 95%", "E (Wh)", "R", "PePR-E", "M (GB)", "R", "PePR-M"),
    ]
    *first, _, energy, r, score, memory, r_m, score_m = row.split()
    assert first == ["1", "small", "1", "0.7000"]
    assert (energy, r, score) == ("10", "0.0000", "0.7000")
    assert (memory, r_m, score_m) == ("1", "0.0000", "0.7000")


def test_written_scores_are_sorted_by_mlflow_and_follow_new_runs(
    capfd: pytest.CaptureFixture[str], store: str, derma: dict[str, str]
) -> None:
    words = ["score", "--experiment", "derma", "--write"]
    _, _, err = _run(capfd, *words)
    assert "scores written to 3 runs" in err
    client = MlflowClient(store)
    where = client.get_experiment_by_name("derma").experiment_id

    def by_score() -> list[tuple[str, float]]:
        found = client.search_runs([where], order_by=["metrics.`pepr/E` DESC"])
        return [(r.data.params["model"], r.data.metrics["pepr/E"]) for r in found]

    assert by_score() == [("small", 0.7), ("middle", 0.64), ("large", 0.45)]
    tag = client.get_run(derma["large"]).data.tags["pepr.scored.E"]
    assert re.fullmatch(r"[0-9a-f]{12} of derma: rank 3 of 3", tag)
    assert "scores written to 0 runs" in _run(capfd, *words)[2]

    logged(store, run("huge", performance=0.9, energy_wh=90.0))
    assert "scores written to 4 runs" in _run(capfd, *words)[2]
    assert by_score()[-1] == ("huge", 0.45)
    assert dict(by_score())["large"] == pytest.approx(0.6)  # R is 0.5 now
    assert client.get_run(derma["large"]).data.tags["pepr.scored.E"].endswith("rank 3 of 4")

    client.set_terminated(derma["small"], "FAILED")
    assert "removed from 1 that left their set" in _run(capfd, *words)[2]
    tag = client.get_run(derma["small"]).data.tags["pepr.scored.E"]
    assert tag.startswith("superseded: ")


def test_scores_are_withdrawn_when_nothing_can_be_compared(
    capfd: pytest.CaptureFixture[str], store: str
) -> None:
    only = logged(store, run())
    words = ["score", "--experiment", "derma", "--write"]
    assert _run(capfd, *words)[0] == 0
    client = MlflowClient(store)
    client.set_terminated(only, "FAILED")
    status, _, err = _run(capfd, *words)
    assert status == 1
    assert "removed from 1 that left their set" in err
    assert client.get_run(only).data.tags["pepr.scored.E"].startswith("superseded: ")


def test_a_reference_is_saved_and_used(
    capfd: pytest.CaptureFixture[str], store: str, derma: dict[str, str], tmp_path: Path
) -> None:
    path = tmp_path / "derma.json"
    _, _, err = _run(capfd, "score", "--experiment", "derma", "--save-reference", str(path))
    assert f"reference written to {path}" in err
    saved = json.loads(path.read_text())
    assert saved["bounds"] == {"energy_wh": {"low": 10.0, "high": 50.0}}
    assert saved["origin"]["models"] == 3
    logged(store, run("huge", performance=0.9, energy_wh=90.0))
    words = ["--reference", str(path), "--format", "json"]
    _, out, err = _run(capfd, "score", "--experiment", "derma", *words)
    assert {r["model"]: r["score"] for r in json.loads(out)} == pytest.approx(
        {"small": 0.7, "middle": 0.64, "large": 0.45, "huge": 0.45}
    )
    assert "1 of 4 models cost energy_wh outside the reference" in err


def test_mixed_runs_are_refused_split_or_marked(
    capfd: pytest.CaptureFixture[str], store: str, derma: dict[str, str]
) -> None:
    logged(store, run("other", precision="bf16"))
    status, out, err = _run(capfd, "score", "--experiment", "derma")
    assert (status, out) == (2, "")
    assert "derma mixes precision (precision=fp32: 3 runs; precision=bf16: 1 run)" in err
    assert len(err.strip().splitlines()) == 1
    for form in ("table", "csv", "json", "latex", "markdown"):
        words = ["score", "--experiment", "derma", "--allow-mixed", "--format", form]
        _, out, _ = _run(capfd, *words)
        assert "MIXED precision" in out, form
    status, _, err = _run(capfd, "score", "--experiment", "derma", "--allow-mixed", "--write")
    assert status == 2
    assert "in MLflow mixed scores would look like any other" in err
    _, out, _ = _run(capfd, "score", "--experiment", "derma", "--stratify")
    assert "derma [precision=bf16]: 1 model, 1 run," in out
    assert "derma [precision=fp32]: 3 models" in out


def test_text_around_a_latex_table_is_a_comment(
    capfd: pytest.CaptureFixture[str], derma: dict[str, str]
) -> None:
    for words in (["score"], ["select", "--max", "E=100"]):
        _, out, _ = _run(capfd, *words, "--experiment", "derma", "--format", "latex")
        inside = False
        for line in out.splitlines():
            inside = inside or line.startswith("\\begin{tabular}")
            assert inside or not line or line.startswith("% "), line
            inside = inside and not line.startswith("\\end{tabular}")


def test_the_best_under_budgets(capfd: pytest.CaptureFixture[str], derma: dict[str, str]) -> None:
    words = ["select", "--experiment", "derma", "--max", "memory_gb=4", "--max", "energy_wh=30"]
    limits = [*words, "--min", "test/accuracy=0.6"]
    status, out, _ = _run(capfd, *limits, "--by", "performance")
    assert status == 0
    assert "derma: 2 of 3 models fit" in out
    assert "Best by performance: middle" in out
    assert re.search(r"^memory_gb ≤ 4 +1 +0 *$", out, re.M)
    assert "Pareto set of all models, test/accuracy against E (3): large, middle, small" in out
    _, out, _ = _run(capfd, *words, "--format", "json", "--by", "score")
    (answer,) = json.loads(out)
    assert answer["best"]["model"] == "small"
    assert [r["model"] for r in answer["runners_up"]] == ["middle"]
    assert [b["budget"] for b in answer["budgets"]] == ["memory_gb ≤ 4", "energy_wh ≤ 30"]
    assert {r["model"] for r in answer["pareto"]} == {"small", "middle", "large"}


def test_a_metric_that_is_nan_is_within_no_budget(
    capfd: pytest.CaptureFixture[str], store: str, derma: dict[str, str]
) -> None:
    logged(store, run("best", performance=0.95, metrics={"test/auc": float("nan")}))
    words = ["select", "--experiment", "derma", "--min", "test/auc=0.5"]
    assert "derma: 0 of 4 models fit" in _run(capfd, *words)[1]


def test_a_budget_on_the_score(capfd: pytest.CaptureFixture[str], derma: dict[str, str]) -> None:
    words = ["select", "--experiment", "derma", "--min", "score=0.6", "--min", "P=0.75"]
    assert "Best by performance: middle" in _run(capfd, *words, "--by", "performance")[1]


def test_a_budget_that_no_model_meets_fails(
    capfd: pytest.CaptureFixture[str], derma: dict[str, str]
) -> None:
    status, out, err = _run(capfd, "select", "--experiment", "derma", "--max", "E=5")
    assert status == 1
    assert "no model is within all budgets" in err
    assert "No model is within all budgets." in out
    assert re.search(r"^E ≤ 5 +3 +3 +large +50\.0000", out, re.M)


def test_stats_prints_tests_of_differences(capfd: pytest.CaptureFixture[str], store: str) -> None:
    for i in range(4):
        for pretrained in (True, False):
            made = run(
                f"m{i}",
                pretrained=pretrained,
                performance=0.7 + i / 50 + pretrained / 10 + (i % 2) * pretrained / 100,
                energy_wh=10.0 + i,
                tags={"pepr.parameters": str(10**i)},
            )
            logged(store, made)
    words = ["stats", "--experiment", "derma", "--by", "pretrained", "--format", "json"]
    status, out, _ = _run(capfd, *words)
    assert status == 0
    rows = {r["test"]: r for r in json.loads(out) if r["quantity"] == "performance"}
    assert set(rows) == {"paired t", "Wilcoxon", "t", "Mann-Whitney"}
    assert (rows["paired t"]["a"], rows["paired t"]["b"]) == ("false", "true")
    assert rows["paired t"]["difference"] == pytest.approx(-0.105)
    assert rows["Wilcoxon"]["p"] == pytest.approx(0.125)  # the least of four pairs: 2 / 2⁴
    _, out, err = _run(capfd, "stats", "--experiment", "derma", "--by", "pretrained")
    assert "false / true" in out
    assert "about a population of models on these images; --models A,B tests two models" in err
    status, _, err = _run(capfd, "stats", "--experiment", "derma", "--by", "size")
    assert status == 1
    assert "nothing to test by size" in err


def test_stats_compares_two_models_on_their_images(
    capfd: pytest.CaptureFixture[str], store: str, tmp_path: Path
) -> None:
    labels = np.arange(40) % 2
    for model, wrong in (("good", slice(0, 4)), ("bad", slice(2, 14))):
        right = np.ones(40, dtype=bool)
        right[wrong] = False
        chances = np.where(right, 0.8, 0.2)
        positive = np.where(labels == 1, chances, 1 - chances)
        both = np.stack([1 - positive, positive], axis=1)
        predicted = Predictions("binary-class", ("a", "b"), OfSplit(labels, both), None, DIGEST)
        np.savez(tmp_path / "predictions.npz", **predicted.arrays())
        run_id = logged(store, run(model, performance=float(right.mean())))
        MlflowClient(store).log_artifact(run_id, str(tmp_path / "predictions.npz"))
    words = ["stats", "--experiment", "derma", "--models", "good, bad"]
    status, out, err = _run(capfd, *words)
    assert status == 0
    assert re.search(
        r"^derma +good / bad +test/accuracy +0 +1 +40 +0\.9000 / 0\.7000 +0\.2000 +McNemar +"
        r"10 / 2 +0\.0386 +0\.0386$",
        out,
        re.M,
    )
    assert re.search(r"^derma .* 0\.2000 +-?0\.\d+ to 0\.\d+ +paired bootstrap ", out, re.M)
    assert "the row to cite is the paired bootstrap over all runs" in err
    assert "population of models" not in err
    rows = json.loads(_run(capfd, *words, "--format", "json")[1])
    assert [(r["test"], r["seed"], r["n10"]) for r in rows] == [
        *(("paired bootstrap", None, None), ("McNemar", 0, 10), ("DeLong", 0, None)),
    ]
    (_, _, first, *_) = csv.reader(io.StringIO(_run(capfd, *words, "--format", "csv")[1]))
    assert first[:6] == ["derma", "test/accuracy", "good", "bad", "0", "1"]
    for form, rule in (("markdown", "|---"), ("latex", r"\toprule")):
        assert rule in _run(capfd, *words, "--format", form)[1]


def test_stats_of_two_models_without_predictions_is_approximate(
    capfd: pytest.CaptureFixture[str], derma: dict[str, str]
) -> None:
    _, out, err = _run(capfd, "stats", "--experiment", "derma", "--models", "small,large")
    assert "unpaired binomial (approximate)" in out
    assert "no paired test is possible: 2 of 2 runs of small and large have no predictions" in err


def test_an_experiment_without_runs_has_none_to_list(
    capfd: pytest.CaptureFixture[str], store: str
) -> None:
    MlflowClient(store).create_experiment("empty")
    status, out, err = _run(capfd, "runs", "--experiment", "empty")
    assert (status, out) == (0, "every run is used, none is doubtful\n")
    assert "runs: 0 found" in err


def test_runs_say_why_they_are_left_out(
    capfd: pytest.CaptureFixture[str], store: str, derma: dict[str, str]
) -> None:
    bad = logged(store, run("bad", energy_wh=21.0, status="FAILED"))
    odd = logged(store, run("odd", energy_wh=22.0, tags={"pepr.gpu_other_processes": "9 python"}))
    status, out, err = _run(capfd, "runs", "--experiment", "derma")
    assert status == 0
    assert "5 found, 1 left out (1 failed)" in err
    assert re.search(rf"^{bad} +derma +bad +0 +2026-09-21 14:13 +no +failed$", out, re.M)
    assert re.search(
        rf"^{odd} +derma +odd .* yes +other processes used its GPU: 9 python", out, re.M
    )
    assert derma["small"] not in out
    assert derma["small"] in _run(capfd, "runs", "--experiment", "derma", "--all")[1]
    rows = json.loads(_run(capfd, "runs", "--experiment", "derma", "--format", "json")[1])
    by_id = {r["run_id"]: r for r in rows}
    assert len(rows) == 5
    assert (by_id[bad]["model"], by_id[bad]["used"]) == ("bad", False)
    assert by_id[bad]["reasons"] == ["failed"]
    assert by_id[derma["small"]]["reasons"] == []


def test_folds_are_listed_one_by_one_and_scored_together(
    capfd: pytest.CaptureFixture[str], store: str, tmp_path: Path
) -> None:
    ids = {}
    for model, folds in (("good", (1, 2, 3)), ("partial", (2,))):
        for fold in folds:
            right = np.arange(10) >= fold  # 9, 8 and 7 of 10
            both = np.stack([np.where(right, 0.9, 0.1), np.where(right, 0.1, 0.9)], axis=1)
            labels, files = np.zeros(10, int), np.array([f"{fold}-{i}" for i in range(10)])
            predicted = OfSplit(labels, both, files)
            arrays = Predictions("binary-class", ("a", "b"), predicted, None, DIGEST).arrays()
            np.savez(tmp_path / "predictions.npz", **arrays)
            p, cost = float(right.mean()), 10.0 * fold + len(model)
            made = run(model, folds=3, fold=fold, performance=p, energy_wh=cost)
            ids[model, fold] = logged(store, made)
            MlflowClient(store).log_artifact(ids[model, fold], str(tmp_path / "predictions.npz"))
    status, out, err = _run(capfd, "runs", "--experiment", "derma", "--all")
    assert status == 0
    assert "4 found, 1 left out (1 of an incomplete cross-validation)" in err
    assert "3 of 3 runs are folds" in err
    for fold in (1, 2, 3):
        assert re.search(rf"^{ids['good', fold]} +derma +good +0 +{fold} .* yes", out, re.M)
    assert "folds 1 and 3 of 3 are missing under its conditions; train with `pepr sweep" in out
    _, out, _ = _run(capfd, "score", "--experiment", "derma", "--write")
    assert "derma: 1 model, 3 runs" in out
    assert re.search(r"^ +1 +good +1 +0\.8000 .* 72 ", out, re.M)  # 24 of 30; 14 + 24 + 34 Wh
    logged_scores = [
        MlflowClient(store).get_run(ids[key]).data.metrics.get("pepr/E") for key in sorted(ids)
    ]
    assert logged_scores == [*[pytest.approx(0.8)] * 3, None]


def test_runs_that_pepr_did_not_log_are_scored(
    capfd: pytest.CaptureFixture[str], store: str
) -> None:
    for name, accuracy, seconds in (("unet", 0.8, 10.0), ("deeplab", 0.9, 30.0)):
        made = run()
        made |= {"params": {"arch": name}, "tags": {}}
        made["metrics"] = {"val_acc": accuracy, "seconds": seconds}
        logged(store, made, "theirs")
    words = ["--experiment", "theirs", "--performance", "val_acc", "--resource", "seconds"]
    status, out, err = _run(capfd, "score", *words, "--model-param", "arch", "--format", "json")
    assert status == 0
    assert {r["model"]: r["score"] for r in json.loads(out)} == {"unet": 0.8, "deeplab": 0.45}
    assert len(re.findall("not logged by pepr", err)) == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["score"], "Missing option '--experiment'"),
        (["score", "--experiment", "derm"], "did you mean 'derma'"),
        (["score", "--experiment", "derma", "--resource", "F"], "F: no run has such a number"),
        (
            ["score", "--experiment", "derma", "--resource-weights", "1,x"],
            "'x' is not a number",
        ),
        (["score", "--experiment", "derma", "--alpha", "0.5"], "alpha: 0.5 is not 1 or more"),
        (["score", "--experiment", "derma", "--country", "XYZ"], "no grid intensity for 'XYZ'"),
        (
            ["score", "--experiment", "derma", "--country", "DNK", "--carbon-intensity", "1"],
            "give either country or carbon_intensity, not both",
        ),
        (["score", "--experiment", "derma", "--reference", "no.json"], "no.json cannot be read"),
        (
            ["score", "--experiment", "derma", "--normalisation", "reference"],
            "the saved bounds (--reference FILE) go together",
        ),
        (
            ["score", "--experiment", "derma", "--stratify", "--allow-mixed"],
            "stratify: give either --stratify or --allow-mixed, not both",
        ),
        (["select", "--experiment", "derma", "--max", "memory"], "'memory' is not NAME=NUMBER"),
        (["select", "--experiment", "derma", "--max", "memry_gb=3"], "did you mean 'memory_gb'"),
        (["stats", "--experiment", "derma", "--by", "colour"], "'colour' is not a grouping"),
        (["stats", "--experiment", "derma", "--models", "smal,large"], "did you mean 'small'"),
        (["stats", "--experiment", "derma", "--models", "small"], "'small' is not two models"),
        (
            ["stats", "--experiment", "derma", "--models", "small,large", "--by", "size"],
            "give either --models or --by, not both",
        ),
        (["import", "pepr-paper", "nowhere"], "there is no all_results.csv in nowhere"),
        (["import", "kaggle", "."], "No such command 'kaggle'"),
    ],
)
def test_wrong_use_is_one_line_and_status_2(
    capfd: pytest.CaptureFixture[str], derma: dict[str, str], words: list[str], message: str
) -> None:
    status, out, err = _run(capfd, *words)
    assert (status, out) == (2, "")
    assert message in err
    assert len(err.strip().splitlines()) == 1


def test_the_paper_is_imported_once(
    capfd: pytest.CaptureFixture[str], store: str, paper_results: Path, tmp_path: Path
) -> None:
    lines = (paper_results / "all_results.csv").read_text().splitlines(keepends=True)
    (tmp_path / "all_results.csv").write_text("".join(lines[:4]))
    status, out, _ = _run(capfd, "import", "pepr-paper", str(tmp_path))
    assert (status, out) == (0, "3 runs imported, 0 existed; experiments: derma\n")
    _, out, _ = _run(capfd, "import", "pepr-paper", str(tmp_path))
    assert out == "0 runs imported, 3 existed; experiments: derma\n"
    _, out, _ = _run(capfd, "score", "--experiment", "derma", "--format", "json")
    assert {r["energy_source"] for r in json.loads(out)} == {"imported"}


def test_score_prints_table_1_of_the_paper(
    capfd: pytest.CaptureFixture[str], paper_store: str
) -> None:
    words = ["--experiment", "derma_pt", "--normalisation", "zero", "--tracking-uri", paper_store]
    _, out, err = _run(capfd, "score", *words, "--top", "5")
    found = re.findall(r"^ +(\d) +(\S+) .* (0\.\d{4})  0\.\d{4}–", out, re.M)
    assert found == [
        ("1", "ghostnet_100", "0.8027"),
        ("2", "ese_vovnet19b_dw", "0.7992"),
        ("3", "fbnetc_100", "0.7950"),
        ("4", "mobilenetv2_050", "0.7916"),
        ("5", "mnasnet_100", "0.7889"),
    ]
    assert "energy and time are imported, not measured by pepr" in err
