"""Losses, optimizers, learning rates and patience: numbers of torch, scikit-learn and by hand."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight

from pepr_mlops import RunSpec, data, load_runs, run
from pepr_mlops.cli.train import summary
from pepr_mlops.comparison import Question, inspect
from pepr_mlops.costs.device import Device
from pepr_mlops.costs.meters import Meter
from pepr_mlops.costs.recorder import Recorder
from pepr_mlops.data.splits import Split, Splits, check, check_external, per_class
from pepr_mlops.errors import Paused, WrongUse
from pepr_mlops.names import MULTI_LABEL
from pepr_mlops.sweep import search
from pepr_mlops.train import checkpoint, loop, models, recipe, trainer
from pepr_mlops.train.checkpoint import Checkpoint, Saved
from pepr_mlops.train.patience import Patience
from pepr_mlops.train.progress import Silent

CPU = torch.device("cpu")
TINY = {"model": "test_resnet", "dataset": "digits", "image_size": 32, "pretrained": False}


def _spec(**fields: Any) -> RunSpec:
    defaults = {**TINY, "fraction": 0.1, "device": "cpu", "deterministic": True, "epochs": 3}
    return RunSpec(**{**defaults, **fields})


def _network(spec: RunSpec, splits: Splits) -> torch.nn.Module:
    trainer.prepare(spec, CPU)
    return models.build(
        spec.model,
        classes=len(splits.classes),
        channels=splits.channels,
        image_size=spec.image_size,
        pretrained=False,
    )


def _trainer(spec: RunSpec, splits: Splits | None = None) -> trainer.Trainer:
    splits = splits or data.load(spec)
    return trainer.Trainer(spec, splits, _network(spec, splits), CPU)


def _fit(
    spec: RunSpec, folder: Path | None = None, saved: Saved | None = None, until: int | None = None
) -> tuple[loop.Result, list[dict[str, float]]]:
    splits = data.load(spec)
    recorder = Recorder(Device(CPU), Meter(lambda: None, {}), None, 1.0)
    if saved is not None:
        recorder.resume(saved.recorded)
    log: list[dict[str, float]] = []
    result = loop.fit(
        *(spec, splits, _network(spec, splits), recorder, lambda m, _: log.append(dict(m))),
        *(Silent(spec, "none"), time.perf_counter()),
        checkpoint=None if folder is None else Checkpoint(folder, "run7", "a card", "job"),
        saved=saved,
        pause=lambda epoch, _: epoch == until,
    )
    return result, log


# The learning rate ------------------------------------------------------------------------------


def test_the_rate_rises_from_0_and_then_falls_as_torchs_cosine() -> None:
    spec = _spec(epochs=5, warmup=2, schedule="cosine", lr=0.1)
    steps = 7
    found = [0.1 * recipe.rate(spec, step, steps) for step in range(5 * steps)]
    assert found[:15] == pytest.approx([0.1 * step / 14 for step in range(14)] + [0.1])
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=3 * steps)
    for rate in found[2 * steps :]:
        assert rate == pytest.approx(optimiser.param_groups[0]["lr"], abs=1e-12)
        optimiser.step()
        cosine.step()
    assert optimiser.param_groups[0]["lr"] == pytest.approx(0)


def test_each_step_has_its_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    training = _trainer(spec := _spec(epochs=2, warmup=1, schedule="cosine", lr=0.01))
    rates: list[float] = []
    step = training._step
    monkeypatch.setattr(
        *(training, "_step"),
        lambda x, y: rates.append(training._optimiser.param_groups[0]["lr"]) or step(x, y),
    )
    recorder = Recorder(Device(CPU), Meter(lambda: None, {}), None, 1.0)
    for epoch in (1, 2):
        with recorder.phase("train", "epoch"):
            training.epoch(epoch, Silent(spec, "none"), recorder, first=False)
    n = training.steps
    assert len(rates) == 2 * n
    assert rates[:n] == pytest.approx([0.01 * i / n for i in range(n)])
    cosine = [0.005 * (1 + np.cos(np.pi * i / n)) for i in range(n)]
    assert rates[n:] == pytest.approx(cosine)


def test_a_recorded_rate_is_a_tensor_that_changes_in_place() -> None:
    weights = [torch.nn.Parameter(torch.ones(1))]
    spec = _spec(schedule="cosine", lr=0.25)
    optimiser = recipe.optimiser(spec, weights, CPU, graphs=True)
    rate = optimiser.param_groups[0]["lr"]
    assert isinstance(rate, torch.Tensor)
    recipe.set_rate(optimiser, 0.125)
    assert optimiser.param_groups[0]["lr"] is rate
    assert rate == 0.125
    constant = recipe.optimiser(_spec(lr=0.25), weights, CPU, graphs=True)
    assert constant.param_groups[0]["lr"] == 0.25  # as before there were schedules


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_weight_decay_is_that_of_torchs_optimizers(name: str) -> None:
    """AdamW shrinks a weight by lr · decay, Adam adds decay · weight to the gradient."""
    weight = torch.nn.Parameter(torch.full((1,), 2.0))
    spec = _spec(optimizer=name, weight_decay=0.5, lr=0.1)
    optimiser = recipe.optimiser(spec, [weight], CPU, graphs=False)
    weight.grad = torch.zeros(1)
    optimiser.step()
    expected = {"adam": 2.0 - 0.1, "adamw": 2.0 * (1 - 0.1 * 0.5)}  # Adam's first step is lr
    assert float(weight.detach()) == pytest.approx(expected[name], abs=1e-6)


# Losses -----------------------------------------------------------------------------------------


def test_balanced_weights_are_those_of_scikit_learn() -> None:
    labels = np.array([0] * 12 + [1] * 3 + [2] * 5)
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    found = recipe.balance(torch.from_numpy(labels), 3)
    assert found.numpy() == pytest.approx(expected)
    assert found.tolist() == pytest.approx([20 / 36, 20 / 9, 20 / 15])


def _several(labels: np.ndarray) -> Splits:
    """Three labels; each split has the same four images."""
    images = np.arange(4 * 32 * 32, dtype=np.uint8).reshape(4, 32, 32)
    part = Split(images, labels)
    return Splits("made", "", MULTI_LABEL, ("a", "b", "c"), 1, part, part, part)


LABELS = np.array([[1, 0, 0], [0, 1, -1], [0, -1, 1], [0, 0, -1]])


def test_balanced_labels_count_negative_over_positive_images() -> None:
    found = recipe.balance_of_labels(torch.from_numpy(LABELS), ("a", "b", "c"))
    assert found.tolist() == [3.0, 2.0, 1.0]
    with pytest.raises(WrongUse, match="none is without b; use class_weights=none"):
        recipe.balance_of_labels(torch.tensor([[1, 1], [0, -1]]), ("a", "b"))


def test_the_loss_of_several_labels_leaves_out_those_that_are_not_known() -> None:
    logits = torch.tensor(np.random.default_rng(0).normal(size=(4, 3)), requires_grad=True)
    labels = torch.from_numpy(LABELS).double()
    spec = _spec(class_weights="balanced")
    train, plain = recipe.losses(spec, _several(LABELS), CPU)
    known = LABELS >= 0
    chance = logits.sigmoid().detach().numpy()
    by_entry = -np.where(LABELS == 1, np.log(chance), np.log(1 - chance))
    assert float(plain(logits.detach(), labels)) == pytest.approx(by_entry[known].mean())
    weighted = by_entry * np.where(LABELS == 1, [3.0, 2.0, 1.0], 1.0)
    loss = train(logits, labels)
    assert float(loss.detach()) == pytest.approx(weighted[known].mean())
    loss.backward()
    assert ((logits.grad != 0).numpy() == known).all()
    assert float(plain(logits.detach(), torch.full((4, 3), -1.0).double())) == 0.0
    plain_train, _ = recipe.losses(_spec(), _several(abs(LABELS)), CPU)
    assert type(plain_train) is torch.nn.BCEWithLogitsLoss


def test_unknown_labels_of_an_external_set_alone_are_left_out_of_its_loss() -> None:
    splits = _several(abs(LABELS))
    known = Split(splits.test.images, LABELS)
    training = _trainer(_spec(batch_size=3), replace(splits, external={"b": known}))
    found = training.evaluate_external(replace(splits, external={"b": known}), 1)["b"]
    chosen = np.where(LABELS == 1, found.probabilities, 1 - found.probabilities)
    assert found.scores["loss"] == pytest.approx(-np.log(chosen[LABELS >= 0]).mean(), rel=1e-5)


def test_an_external_set_without_a_known_label_is_refused_before_training() -> None:
    splits = _several(LABELS)
    check_external(replace(splits, external={"b": splits.test}))
    unlabelled = Split(splits.test.images, np.full_like(LABELS, -1))
    with pytest.raises(WrongUse, match="external: b has no known label; add some, leave the set"):
        check_external(replace(splits, external={"b": unlabelled}))


def test_the_loss_of_bf16_counts_all_known_labels() -> None:
    """bf16 counts no further than 256, and of 1,001 labels it makes 1,000."""
    labels = torch.ones(1001, 1)
    labels[1001 // 2 :] = 0
    logits = torch.linspace(-2, 2, 1001)[:, None].to(torch.bfloat16)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits.float(), labels)
    found = recipe.KnownLabels()(logits, labels)
    assert found.dtype == torch.float32
    assert float(found) == pytest.approx(float(expected), rel=1e-6)


def test_training_and_evaluation_leave_out_labels_that_are_not_known() -> None:
    """What is predicted for an unknown label changes neither the loss nor a score."""
    splits = _several(LABELS)
    assert per_class(LABELS, 3).tolist() == [1, 1, 1]
    check(splits)
    training = _trainer(_spec(batch_size=2), splits)
    found = training.evaluate(training.val, 0, "val")
    known, right = LABELS >= 0, (found.probabilities > 0.5) == (LABELS == 1)
    assert found.labels.tolist() == LABELS.tolist()
    assert found.scores["accuracy"] == pytest.approx(right[known].mean())
    chosen = np.where(LABELS == 1, found.probabilities, 1 - found.probabilities)
    # batches of 5 and 4 known labels, each a mean
    assert found.scores["loss"] == pytest.approx(-np.log(chosen[known]).mean(), rel=1e-5)
    unlabelled = replace(splits, test=Split(splits.test.images, np.full_like(LABELS, -1)))
    with pytest.raises(WrongUse, match="made has no known label in its test split"):
        check(unlabelled)


def test_class_weights_change_the_training_and_not_how_it_is_evaluated() -> None:
    plain, weighted = (_trainer(_spec(class_weights=w)) for w in ("none", "balanced"))
    first, second = (t.evaluate(t.val, 0, "val") for t in (plain, weighted))
    assert first.scores == second.scores
    labels = data.load(_spec()).train.labels
    expected = compute_class_weight("balanced", classes=np.arange(10), y=labels)
    assert weighted._criterion.weight.numpy() == pytest.approx(expected, rel=1e-6)


# Resuming ---------------------------------------------------------------------------------------

LEARNED = ("train/loss", "val/loss", "test/loss", "test/auc")


@pytest.mark.parametrize(
    "fields",
    [
        {"schedule": "cosine", "warmup": 1, "optimizer": "adamw", "weight_decay": 0.01},
        {"augment": "standard", "class_weights": "balanced"},
        {"augment": "flips", "tune": "head"},
        {"tune": "head", "schedule": "cosine"},
    ],
)
def test_a_training_that_resumes_has_the_same_numbers(
    tmp_path: Path, fields: dict[str, Any]
) -> None:
    spec = _spec(**fields)
    result, log = _fit(spec)
    with pytest.raises(Paused):
        _fit(spec, tmp_path / "c", until=2)
    saved = checkpoint.load(tmp_path / "c")
    assert saved is not None
    again, rest = _fit(spec, tmp_path / "c", saved)
    assert [rest[0][name] for name in LEARNED] == [log[-1][name] for name in LEARNED]
    assert np.array_equal(again.test.probabilities, result.test.probabilities)


# Patience ---------------------------------------------------------------------------------------


def test_patience_counts_epochs_since_the_lowest_loss() -> None:
    patience, found = Patience(2), []
    for epoch, loss in enumerate([1.0, 0.8, 0.9, 0.8, 0.7, 0.7, 0.9], 1):
        patience.add(loss)
        found.append(patience.ended(epoch, 20))
    assert [why is not None for why in found] == [False] * 3 + [True] + [False, False, True]
    assert found[-1] == "validation loss did not fall for 2 epochs: 7 of 20 epochs trained"
    assert patience.ended(7, 7) is None  # it was the last anyway
    assert Patience(None, since=100).ended(3, 20) is None


def _losses(monkeypatch: pytest.MonkeyPatch, by_epoch: list[float]) -> None:
    """Replace the validation loss of each epoch."""
    evaluate = trainer.Trainer.evaluate

    def made(self: trainer.Trainer, batches: Any, epoch: int, name: str) -> trainer.Evaluation:
        found = evaluate(self, batches, epoch, name)
        return replace(found, scores={**found.scores, "loss": by_epoch[epoch - 1]})

    monkeypatch.setattr(trainer.Trainer, "evaluate", made)


def test_training_ends_where_the_validation_loss_no_longer_falls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _losses(monkeypatch, [0.5, 0.4, 0.6, 0.4, 0.3, 0.1])
    spec = _spec(epochs=6, patience=2)
    result, log = _fit(spec)
    assert (result.epoch, len(log), result.stopped) == (4, 4, None)
    assert result.patience == "validation loss did not fall for 2 epochs: 4 of 6 epochs trained"
    with pytest.raises(Paused):  # after one epoch without a lower loss
        _fit(spec, tmp_path / "c", until=3)
    saved = checkpoint.load(tmp_path / "c")
    again, rest = _fit(spec, tmp_path / "c", saved)
    assert (again.epoch, len(rest), again.patience) == (4, 1, result.patience)
    last = checkpoint.load(tmp_path / "c")  # saved after the last epoch, and not yet discarded
    ended, none = _fit(spec, tmp_path / "c", last)
    assert (ended.epoch, none, ended.patience) == (4, [], result.patience)
    assert np.array_equal(ended.test.probabilities, result.test.probabilities)


def test_a_run_that_ends_early_is_finished_and_compared(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _losses(monkeypatch, [0.5, 0.6, 0.1])
    uri = f"sqlite:///{tmp_path}/runs.db"
    outcome = run(_spec(patience=1, energy="estimated"), tracking_uri=uri)
    assert outcome.result.epoch == 2
    runs = load_runs("digits", tracking_uri=uri)
    assert runs["status"].tolist() == ["FINISHED"]
    text = "validation loss did not fall for 1 epoch: 2 of 3 epochs trained"
    assert runs["early_stop"].tolist() == [text]
    assert runs["stopped"].isna().all()
    assert text in " ".join(summary(outcome).split())
    judged, notes = inspect(runs, Question())
    assert judged["used"].all()
    assert any(note.startswith("1 of 1 runs ended early by their patience") for note in notes)


# What excludes each other -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"warmup": 3}, "warmup: 3 of 3 epochs leave none"),
        ({"tune": "head", "compile": True}, "tune: a head is too small for compile"),
        ({"tune": "head", "launch": "graph"}, "with launch=kernels"),
        ({"tune": "head", "precision": "auto"}, "name precision and layout"),
    ],
)
def test_settings_that_exclude_each_other_are_refused(fields: Any, problem: str) -> None:
    with pytest.raises(WrongUse, match=problem):
        _spec(**fields)


def test_a_frugal_search_refuses_patience() -> None:
    specs = [data.identify(_spec(patience=3))]
    with pytest.raises(WrongUse, match="patience: a frugal search compares models after all"):
        search.check(specs, "E")
