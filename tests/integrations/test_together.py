"""Runs of Lightning, transformers, a command and CodeCarbon in one experiment."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pandas as pd
import pytest
from codecarbon import OfflineEmissionsTracker
from mlflow import MlflowClient
from test_lightning import fit
from test_transformers import train

from pepr_mlops.cli import main


def _pepr(capfd: pytest.CaptureFixture[str], *words: str) -> str:
    capfd.readouterr()
    with pytest.raises(SystemExit) as left:
        main(list(words))
    out, err = capfd.readouterr()
    assert left.value.code == 0, err
    return out


def test_they_are_scored_flagged_and_reported_together(
    store: str, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    fit(tmp_path, "val_accuracy", energy="estimated")  # P 0.5
    train(tmp_path, "eval_accuracy", energy="estimated", eval_strategy="epoch")  # P 0.2
    measured = ["measure", "--experiment", "own", "--model", "shell", "--energy", "estimated"]
    script = "import time; time.sleep(0.2); print('P 0.9')"
    words = ["--performance-regex", r"P (\S+)", "--", sys.executable, "-c", script]
    _pepr(capfd, *measured, *words)
    tracker = OfflineEmissionsTracker(
        project_name="svm", country_iso_code="DNK", output_dir=str(tmp_path), log_level="critical"
    )
    with tracker:
        sum(range(10**6))
    _pepr(capfd, "import", "codecarbon", f"{tmp_path}/emissions.csv", "--experiment", "own")
    client = MlflowClient()
    (experiment,) = [e.experiment_id for e in client.search_experiments() if e.name == "own"]
    (imported,) = [
        run.info.run_id for run in client.search_runs([experiment]) if run.info.run_name == "svm"
    ]
    _pepr(capfd, "log", imported, "performance=0.7")

    words = ["--experiment", "own", "--allow-mixed"]
    scores = pd.DataFrame(json.loads(_pepr(capfd, "score", *words, "--format", "json")))
    p = {"lightning": 0.5, "transformers": 0.2, "shell": 0.9, "svm": 0.7}
    assert dict(zip(scores["model"], scores["performance"], strict=True)) == pytest.approx(p)
    r = (scores["cost"] - scores["cost"].min()) / (scores["cost"].max() - scores["cost"].min())
    assert list(scores["score"]) == pytest.approx(list(scores["performance"] / (1 + r)))
    assert all("estimated" in codes for codes in scores["codes"])
    _pepr(capfd, "report", *words, "--out", str(tmp_path / "page.html"))
    text = (tmp_path / "page.html").read_text()
    assert all(model in text for model in p)
