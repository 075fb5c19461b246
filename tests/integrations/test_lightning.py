"""A tiny real training with Lightning."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from mlflow import MlflowClient
from torch.utils.data import DataLoader, TensorDataset

import pepr_mlops
from pepr_mlops.errors import WrongUse
from pepr_mlops.integrations.lightning import PeprCallback


class _Module(LightningModule):
    """Its validation accuracy is 0.25, 0.5, …, a quarter for each epoch before it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)

    def training_step(self, batch: list[torch.Tensor], i: int) -> torch.Tensor:
        return self.layer(batch[0]).square().mean()

    def validation_step(self, batch: list[torch.Tensor], i: int) -> None:
        self.log("val_accuracy", (1 + self.current_epoch) / 4)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(
    folder: Path, performance: str, every: int = 1, energy: str = "off", epochs: int = 2
) -> str:
    data = DataLoader(TensorDataset(torch.ones(8, 2)), batch_size=4)
    with pepr_mlops.measure("own", model="lightning", device="cpu", energy=energy) as measured:
        trainer = Trainer(
            max_epochs=epochs,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            check_val_every_n_epoch=every,
            callbacks=[PeprCallback(measured, performance)],
            default_root_dir=folder,
        )
        trainer.fit(_Module(), data, data)
    return measured.run_id


@pytest.mark.parametrize(
    ("every", "epochs", "points"),
    [(1, 2, [(1, 0.25), (2, 0.5)]), (2, 2, [(1, 0.5)]), (2, 3, [(1, 0.5)])],
)
def test_each_epoch_is_logged_with_its_p_and_validation_apart(
    store: str, tmp_path: Path, every: int, epochs: int, points: list[tuple[int, float]]
) -> None:
    run_id = fit(tmp_path, "val_accuracy", every, epochs=epochs)
    client = MlflowClient()
    assert client.get_run(run_id).info.status == "FINISHED"
    for name in ("performance", "val_accuracy"):
        history = client.get_metric_history(run_id, name)
        assert [(point.step, point.value) for point in history] == points
    for name in ("time/train_s", "time/eval_s"):
        history = client.get_metric_history(run_id, name)
        assert [point.step for point in history] == [step for step, _ in points]
        assert history[-1].value > 0


def test_a_metric_that_the_module_does_not_log_is_named(store: str, tmp_path: Path) -> None:
    with pytest.raises(WrongUse, match=r"logs no val_dice; it logs val_accuracy"):
        fit(tmp_path, "val_dice")
    (run,) = MlflowClient().search_runs(
        [e.experiment_id for e in MlflowClient().search_experiments()]
    )
    assert run.info.status == "FAILED"
    assert run.data.metrics["time/train_s"] > 0  # the cost so far
