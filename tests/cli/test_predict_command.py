"""`pepr predict` as a person meets it."""

from __future__ import annotations

import csv
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from made_dicom import dicom_file
from made_model import model_folder
from mlflow import MlflowClient
from PIL import Image

from pepr_mlops import RunSpec, cli
from pepr_mlops import run as train
from pepr_mlops.tracking.read import weights

TINY = {
    "model": "test_resnet",
    "image_size": 32,
    "epochs": 2,
    "pretrained": False,
    "device": "cpu",
    "energy": "estimated",
    "batch_size": 8,
}


def _run(capfd: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of `pepr predict WORDS`."""
    with pytest.raises(SystemExit) as left:
        cli.main(["predict", *map(str, words), "--device", "cpu"])
    captured = capfd.readouterr()
    return int(left.value.code or 0), captured.out, captured.err


def _rows(path: str | Path) -> list[dict[str, str]]:
    with Path(path).open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_run_its_folder_and_best_predict_its_test_images_as_its_training_did(
    store: str, shapes: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run_id = train(RunSpec(dataset=str(shapes), seed=1, **TINY)).run.run_id
    run = MlflowClient().get_run(run_id)
    shutil.copytree(weights.fetch(run_id).folder, tmp_path / "folder")
    best = ["best", shapes / "test", "--experiment", "shapes", "--by", "performance"]
    outputs = [
        _run(capfd, *words, "--out", f"{i}.csv", "--tracking-uri", uri)
        for i, (words, uri) in enumerate(
            [
                ([run_id, shapes / "test"], store),
                ([tmp_path / "folder", shapes / "test"], "http://127.0.0.1:9"),
                (best, store),
            ]
        )
    ]
    assert [status for status, *_ in outputs] == [0, 0, 0]
    assert f"note: best is test_resnet: run {run_id}, seed 1" in outputs[2][2]
    assert _rows("0.csv") == _rows("1.csv") == _rows("2.csv")
    metrics = run.data.metrics
    for _, out, _ in outputs:
        assert "16 images predicted, in" in out
        for name in ("accuracy", "balanced_accuracy", "auc", "sensitivity", "specificity"):
            assert re.search(rf"^{name} +{metrics[f'test/{name}']:.4f} ", out, re.M), name
    with np.load(MlflowClient().download_artifacts(run_id, "predictions.npz")) as arrays:
        logged, labels = arrays["probabilities"], arrays["labels"]
    # both sort images by class; within it, by name
    rows = _rows("0.csv")
    assert [row["file"].split("/")[0] for row in rows] == [("dark", "light")[i] for i in labels]
    found = [[float(row[f"probability of {name}"]) for name in ("dark", "light")] for row in rows]
    assert np.array(found) == pytest.approx(logged, abs=1e-6)


def test_damaged_files_are_listed_and_the_exit_status_is_1(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model_folder(tmp_path / "model", thresholds=(0.25,))
    (tmp_path / "new" / "series").mkdir(parents=True)
    Image.new("L", (40, 30), 90).save("new/a.png")
    (tmp_path / "new" / "b.jpg").write_bytes(b"no picture")
    dicom_file(
        tmp_path / "new" / "series" / "IM1",
        np.full((9, 9), 500, np.uint16),
        12,
        WindowCenter=500,
        WindowWidth=100,
    )
    status, out, err = _run(capfd, "model", "new")
    assert status == 1
    assert [row["file"] for row in _rows("predictions.csv")] == ["a.png", "series/IM1"]
    assert "2 images predicted, in predictions.csv" in out
    assert "positive: light from a probability of 0.25 (chosen on validation): " in out
    assert (
        "pepr: predict: 1 of 3 files gave no prediction, as predictions.errors.csv says: b.jpg "
        "cannot be read" in err
    )
    assert "note: the predictions are not evaluated: no folder has the name of a class" in err
    for name in ("predictions.csv", "predictions.model.json", "predictions.errors.csv"):
        assert "PLANTED" not in Path(name).read_text()
    assert "PLANTED" not in out + err
    (tmp_path / "new" / "b.jpg").unlink()
    status, out, _ = _run(capfd, "model", "new")
    assert status == 0
    assert "2 images predicted, in predictions.csv; done before: 1 files" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["model", "gone"], "data: there is no file, folder or data set gone; correct the path"),
        (["model", "empty"], "data: there is no image below empty (it is empty); name the folder"),
        (["gone/model", "empty"], "model: there is no folder gone/model; name a folder that"),
        (["best", "empty"], "best: of which runs? Give --experiment NAME, or name a run"),
        (["model", "digits", "--images", "empty"], "images: it is of folders and tables of images"),
        (["model", "empty", "--threshold", "40"], "threshold: 40 is no probability"),
        (["model", "empty", "--which", "best"], "weights: the best ones of test_resnet were not"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_written(
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    model_folder(tmp_path / "model")
    (tmp_path / "empty").mkdir()
    status, out, err = _run(capfd, *words)
    assert (status, out) == (2, "")
    assert f"pepr: {message}" in err
    assert len(err.splitlines()) == 1
    assert not Path("predictions.csv").exists()
