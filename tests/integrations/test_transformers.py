"""A tiny real training with the Trainer of transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mlflow import MlflowClient
from transformers import Trainer, TrainingArguments

import pepr_mlops
from pepr_mlops.errors import WrongUse
from pepr_mlops.integrations.transformers import PeprCallback


class _Model(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(2, 2)

    def forward(self, x: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        logits = self.layer(x)
        return {"loss": torch.nn.functional.cross_entropy(logits, labels), "logits": logits}


DATA: Any = [{"x": torch.tensor([i % 2, 1.0]), "labels": i % 2} for i in range(8)]


def train(
    folder: Path,
    performance: str,
    energy: str = "off",
    evaluate_after: bool = False,
    **options: Any,
) -> str:
    found: list[float] = []

    def metrics(predicted: Any) -> dict[str, float]:
        assert np.shape(predicted.label_ids) == (8,)
        found.append(0.1 * (len(found) + 1))
        return {"accuracy": found[-1]}

    with pepr_mlops.measure("own", model="transformers", device="cpu", energy=energy) as measured:
        arguments = TrainingArguments(
            str(folder),
            num_train_epochs=2,
            per_device_train_batch_size=4,
            use_cpu=True,
            report_to=[],
            save_strategy="no",
            disable_tqdm=True,
            **options,
        )
        trainer = Trainer(
            _Model(),
            arguments,
            train_dataset=DATA,
            eval_dataset=DATA,
            compute_metrics=metrics,
            callbacks=[PeprCallback(measured, performance)],
        )
        trainer.train()
        if evaluate_after:
            trainer.evaluate()
    return measured.run_id


@pytest.mark.parametrize(
    ("options", "points"),
    [
        ({"eval_strategy": "epoch"}, [(1, 0.1), (2, 0.2)]),
        # evaluated after each of four steps, two of which are an epoch
        ({"eval_strategy": "steps", "eval_steps": 1}, [(1, 0.2), (2, 0.4)]),
        ({"eval_strategy": "steps", "eval_steps": 4}, [(1, 0.1)]),
    ],
)
def test_each_epoch_is_logged_with_its_last_p_and_evaluation_apart(
    store: str, tmp_path: Path, options: dict[str, Any], points: list[tuple[int, float]]
) -> None:
    run_id = train(tmp_path, "eval_accuracy", **options)
    client = MlflowClient()
    assert client.get_run(run_id).info.status == "FINISHED"
    for name in ("performance", "eval_accuracy"):
        history = client.get_metric_history(run_id, name)
        assert [point.step for point in history] == [step for step, _ in points]
        assert [point.value for point in history] == pytest.approx([p for _, p in points])
    for name in ("time/train_s", "time/eval_s"):
        history = client.get_metric_history(run_id, name)
        assert [point.step for point in history] == [step for step, _ in points]
        assert history[-1].value > 0


@pytest.mark.parametrize(
    ("strategy", "points"), [("epoch", [(1, 0.1), (2, 0.2)]), ("no", [(1, 0.1)])]
)
def test_an_evaluation_after_training_is_no_other_epoch(
    store: str, tmp_path: Path, strategy: str, points: list[tuple[int, float]]
) -> None:
    run_id = train(tmp_path, "eval_accuracy", evaluate_after=True, eval_strategy=strategy)
    history = MlflowClient().get_metric_history(run_id, "performance")
    assert [(point.step, pytest.approx(point.value)) for point in history] == points


def test_a_metric_that_the_evaluation_does_not_have_is_named(store: str, tmp_path: Path) -> None:
    with pytest.raises(WrongUse, match=r"has no eval_dice; it has .*eval_accuracy"):
        train(tmp_path, "eval_dice", eval_strategy="epoch")
