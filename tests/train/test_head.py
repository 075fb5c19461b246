"""Training the classifier on top of a frozen network."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import timm
import torch

from pepr_mlops import RunSpec, data, run
from pepr_mlops.costs.device import Device
from pepr_mlops.costs.meters import Meter
from pepr_mlops.costs.recorder import Recorder
from pepr_mlops.costs.totals import Window
from pepr_mlops.errors import WrongUse
from pepr_mlops.train import head, loop, models, trainer
from pepr_mlops.train.progress import Silent

CPU = torch.device("cpu")
EXAMPLE = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def _spec(**fields: Any) -> RunSpec:
    defaults = {"model": "test_resnet", "dataset": "digits", "image_size": 32, "fraction": 0.1}
    defaults |= {"pretrained": False, "device": "cpu", "epochs": 3, "tune": "head", "lr": 0.01}
    return RunSpec(**{**defaults, **fields})


def _fit(
    spec: RunSpec,
) -> tuple[torch.nn.Module, dict[str, torch.Tensor], loop.Result, list[dict[str, float]], int]:
    """The trained network, its weights before, the result, the log, and how many images went
    through it."""
    splits = data.load(spec)
    trainer.prepare(spec, CPU)
    network = models.build(
        spec.model, classes=10, channels=splits.channels, image_size=32, pretrained=False
    )
    before = {name: value.clone() for name, value in network.state_dict().items()}
    images = 0

    def count(module: torch.nn.Module, given: tuple[torch.Tensor]) -> None:
        nonlocal images
        images += len(given[0])

    first = next(m for m in network.modules() if isinstance(m, torch.nn.Conv2d))
    log: list[dict[str, float]] = []
    with first.register_forward_pre_hook(count):
        result = loop.fit(
            *(spec, splits, network, Recorder(Device(CPU), Meter(lambda: None, {}), None, 1.0)),
            *(lambda m, _: log.append(dict(m)), Silent(spec, "none"), time.perf_counter()),
        )
    return network, before, result, log, images


def test_the_classifier_alone_is_trained_and_the_full_network_predicts_the_same() -> None:
    spec = _spec()
    network, before, result, log, _ = _fit(spec)
    after = network.state_dict()
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert changed == {"fc.weight", "fc.bias"}  # no weight, no statistics of a batch norm
    assert log[-1]["train/loss"] < log[0]["train/loss"]
    splits = data.load(spec)
    test = trainer.Trainer(_spec(tune="all"), splits, network, CPU)
    full = test.evaluate(test.test, 0, "test")
    assert full.probabilities == pytest.approx(result.test.probabilities, abs=1e-6)
    assert full.scores["accuracy"] == result.metrics["test/accuracy"]


def test_each_image_goes_through_the_network_once() -> None:
    splits = data.load(spec := _spec())
    sizes = [len(part) for part in (splits.train, splits.val, splits.test)]
    *_, images = _fit(spec)
    checked = 2 + 2  # images that show that the network can be split, once with its head
    assert images == sum(sizes) + checked
    *_, changing = _fit(_spec(augment="flips"))
    assert changing == 3 * sizes[0] + sum(sizes[1:]) + checked


def test_stored_features_train_as_those_of_each_batch() -> None:
    """An augmentation that changes nothing is like none."""
    _, _, stored, _, _ = _fit(_spec(deterministic=True))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("pepr_mlops.train.augment.Augmentation.__call__", lambda _, x: x)
        _, _, each, _, _ = _fit(_spec(deterministic=True, augment="flips"))
    assert each.test.probabilities == pytest.approx(stored.test.probabilities, abs=1e-5)


@pytest.mark.parametrize("model", ["test_resnet", "test_vit", "test_convnext", "test_mambaout"])
def test_networks_of_several_kinds_are_split(model: str) -> None:
    size = {} if model != "test_vit" else {"img_size": 32}
    network: Any = timm.create_model(model, pretrained=False, num_classes=4, **size)
    classifier = head.split(network, model, EXAMPLE)
    trained = {name for name, weight in network.named_parameters() if weight.requires_grad}
    own = {id(weight) for weight in classifier.parameters()}
    assert {id(network.get_parameter(name)) for name in trained} == own
    with torch.inference_mode():
        logits = classifier(head.features(network, EXAMPLE))
        assert torch.allclose(logits, network(EXAMPLE), atol=1e-5)


def test_a_network_that_cannot_be_split_is_refused() -> None:
    class Scaled(torch.nn.Module):
        """Its output is not that of its classifier."""

        def __init__(self) -> None:
            super().__init__()
            self.fc = torch.nn.Linear(3, 2)

        def get_classifier(self) -> torch.nn.Module:
            return self.fc

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * self.fc(x.mean(dim=(-2, -1)))

    for network in (Scaled(), torch.nn.Flatten()):
        with pytest.raises(WrongUse, match="classifier of mine cannot be trained apart from its"):
            head.split(network, "mine", EXAMPLE)


class _Meter:
    """2 s and 36 J for every window."""

    sources = {"gpu": "measured"}  # noqa: RUF012
    method = "fake"
    notes: Mapping[str, str] = {}

    def begin(self, name: str) -> None: ...

    def end(self) -> Window:
        return Window(2.0, {"gpu": 36.0}, {})

    def elapsed_s(self) -> float:
        return 10.0


def test_a_probe_forecasts_the_features_once_and_the_steps_of_all_epochs() -> None:
    splits = data.load(_spec())
    spec = _spec(epochs=50, batch_size=len(splits.train))  # so that a step is an epoch
    trainer.prepare(spec, CPU)
    network = models.build(spec.model, classes=10, channels=1, image_size=32, pretrained=False)
    meter: Any = _Meter()
    recorder = Recorder(Device(CPU), meter, None, 1.0)
    metrics, text = loop.probe(spec, splits, network, recorder, Silent(spec, "measured"))
    assert text == "4 + 10 steps, of which an epoch has 1"
    assert metrics["time/train_s"] == 6.0  # features, warm-up and steps
    assert metrics["forecast/train_s"] == pytest.approx(2.0 + 50 * 2.0 / 10)
    assert metrics["forecast/train_wh"] == pytest.approx((36 + 50 * 36 / 10) / 3600)


def test_a_probe_of_changing_images_has_no_features_to_store() -> None:
    spec = _spec(augment="flips", batch_size=1000)
    splits = data.load(spec)
    trainer.prepare(spec, CPU)
    network = models.build(spec.model, classes=10, channels=1, image_size=32, pretrained=False)
    meter: Any = _Meter()
    recorder = Recorder(Device(CPU), meter, None, 1.0)
    metrics, _ = loop.probe(spec, splits, network, recorder, Silent(spec, "measured"))
    assert metrics["time/train_s"] == 4.0  # warm-up and steps
    assert metrics["forecast/train_s"] == pytest.approx(3 * 2.0 / 10)


def test_a_training_forecasts_the_features_once_after_its_first_epoch() -> None:
    """Of an epoch of two steps, in which nothing but the first window shows what they cost."""
    spec = _spec(epochs=50)
    splits = data.load(spec)
    spec = _spec(epochs=50, patience=1, batch_size=len(splits.train) // 2 + 1)
    trainer.prepare(spec, CPU)
    network = models.build(spec.model, classes=10, channels=1, image_size=32, pretrained=False)
    meter: Any = _Meter()
    log: list[dict[str, float]] = []
    loop.fit(
        *(spec, splits, network, Recorder(Device(CPU), meter, None, 1.0)),
        *(lambda m, _: log.append(dict(m)), Silent(spec, "measured"), 0.0),
    )
    assert log[0]["time/train_s"] == 2.0 + 2.0  # features, and the epoch
    assert log[1]["time/train_s"] == 2.0 + 2 * 2.0
    assert log[0]["forecast/train_s"] == pytest.approx(2.0 + 50 * 2.0)
    assert log[0]["forecast/train_wh"] == pytest.approx((36 + 50 * 36) / 3600)
    assert log[0]["time/images_per_s"] == len(splits.train) / 2.0


def test_a_run_says_that_its_head_is_trained_on_random_weights(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/runs.db"
    outcome = run(_spec(epochs=1, energy="off"), tracking_uri=uri)
    text = "tune: the head is trained on top of random weights, since pretrained is false"
    assert text in outcome.cautions
