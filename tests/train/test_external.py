"""External sets are evaluated once at the end, and choose nothing."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from mlflow import MlflowClient
from PIL import Image
from sklearn.metrics import accuracy_score, roc_auc_score

from pepr_mlops import Question, RunSpec, cli, compare, data, load_runs, run
from pepr_mlops.errors import WrongUse

TINY = {
    "model": "test_resnet",
    "image_size": 32,
    "epochs": 2,
    "pretrained": False,
    "device": "cpu",
    "energy": "estimated",
    "batch_size": 8,
    "deterministic": True,
}


@pytest.mark.parametrize("tune", ["all", "head"])
def test_a_copy_of_the_test_images_has_the_scores_of_test(
    store: str, shapes: Path, tmp_path: Path, tune: str
) -> None:
    shutil.copytree(shapes / "test", tmp_path / "copy")
    spec = RunSpec(dataset=str(shapes), external=f"copy={tmp_path / 'copy'}", tune=tune, **TINY)
    found = run(spec).run.run_id
    metrics = MlflowClient().get_run(found).data.metrics
    copied = {
        name.removeprefix("external/copy/"): value
        for name, value in metrics.items()
        if name.startswith("external/copy/")
    }
    assert {"accuracy", "auc", "loss", "sensitivity", "brier"} <= set(copied)
    for name, value in copied.items():
        assert value == pytest.approx(metrics[f"test/{name}"], abs=1e-6), name
    with np.load(MlflowClient().download_artifacts(found, "predictions.npz")) as arrays:
        labels, chances = arrays["labels"], arrays["probabilities"]
    assert copied["accuracy"] == accuracy_score(labels, chances.argmax(axis=1))
    assert copied["auc"] == pytest.approx(roc_auc_score(labels, chances[:, 1]))


def test_it_changes_neither_training_nor_memory_and_counts_as_evaluation(
    store: str, shapes: Path, tmp_path: Path
) -> None:
    shutil.copytree(shapes / "train", tmp_path / "away")
    alone = run(RunSpec(dataset=str(shapes), **TINY))
    both = run(RunSpec(dataset=str(shapes), external=f"b={tmp_path / 'away'}", **TINY))
    client = MlflowClient()
    first, second = (client.get_run(o.run.run_id).data.metrics for o in (alone, both))
    same = ("train/loss", "val/loss", "test/loss", "performance")
    assert [first[name] for name in same] == [second[name] for name in same]
    history = client.get_metric_history(both.run.run_id, "time/eval_s")
    assert [point.step for point in history] == [1, 2, 2]
    assert history[2].value > history[1].value
    memory = client.get_metric_history(both.run.run_id, "memory/rss_gb")
    assert [point.step for point in memory] == [1, 2]


def test_an_external_set_is_shown_with_the_answer_and_cannot_be_the_performance(
    store: str, shapes: Path, tmp_path: Path
) -> None:
    shutil.copytree(shapes / "test", tmp_path / "copy")
    found = [
        run(RunSpec(dataset=str(shapes), external=f"b={tmp_path / 'copy'}", seed=seed, **TINY))
        for seed in (0, 1)
    ]
    mean = np.mean([one.result.metrics["external/b/accuracy"] for one in found])
    shown = CliRunner().invoke(cli.pepr, ["select", "--experiment", "shapes", "--margin", "0.5"])
    text = "On external sets, which decide nothing, the accuracy of test_resnet is "
    text += f"{100 * mean:.1f}% on b."
    assert text in shown.output
    question = Question(resources=("E",), performance="external/b/accuracy")
    with pytest.raises(WrongUse, match="external set, which chooses nothing"):
        compare(load_runs(["shapes"]), question)


def _labels(folder: Path, known: bool) -> str:
    """A table of 12 images with two labels each."""
    folder.mkdir()
    lines = ["file,edema,nodule,split"]
    for i in range(12):
        image = np.full((16, 16), i, dtype=np.uint8)
        image[i, i] = 255
        Image.fromarray(image).save(folder / f"{i}.png")
        labels = f"{i // 3 % 2},{i // 6}" if known else "-1,-1"
        lines.append(f"{i}.png,{labels},{('train', 'val', 'test')[i % 3]}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return str(folder / "labels.csv")


def test_an_external_set_without_a_known_label_is_refused_before_training(tmp_path: Path) -> None:
    here, there = _labels(tmp_path / "here", True), _labels(tmp_path / "there", False)
    options = {"label_columns": "edema,nodule", "uncertain": "ignore", "image_size": 16}
    spec = RunSpec(dataset=here, external=f"b={there}", **options)  # type: ignore[arg-type]
    with pytest.raises(WrongUse, match="external: b has no known label"):
        data.load(spec)
