"""Profiles of runs: their model is fetched, profiled in PyTorch or as ONNX, and the run gets the
values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from pepr_mlops.comparison.lifetime_text import one_training
from pepr_mlops.costs.device import Device, use_threads
from pepr_mlops.costs.recorder import Recorder
from pepr_mlops.errors import WrongUse
from pepr_mlops.names import FORMS, LOST
from pepr_mlops.spec import RunSpec
from pepr_mlops.tracking import finished
from pepr_mlops.tracking.read.weights import Fetched
from pepr_mlops.train import trainer
from pepr_mlops.train.use import description, export, load
from pepr_mlops.train.use.description import Description
from pepr_mlops.train.use.model import Model, open_folder
from pepr_mlops.train.use.onnx_session import ONNX, OnnxModel, check_packages
from pepr_mlops.train.use.profile import Profile, Subject, conditions, profile, refuse_others


@dataclass(frozen=True)
class Settings:
    """How to profile: `device`, `energy` and `threads` as of `RunSpec`, images of a large `batch`,
    and whether as ONNX on the CPU. With `replace` values of other conditions are lost."""

    device: str = "auto"
    energy: str = "auto"
    threads: int | None = None
    batch: int = 32
    onnx: bool = False
    replace: bool = False

    def __post_init__(self) -> None:
        if self.batch < 2:
            raise WrongUse(f"batch: {self.batch} is no large batch; give 2 or more, such as 32")
        if self.onnx and self.device not in ("auto", "cpu"):
            raise WrongUse(f"device: ONNX is profiled on the CPU, not on {self.device}; drop one")

    @property
    def form(self) -> str:
        return FORMS[1] if self.onnx else FORMS[0]

    def precision(self, found: Description) -> str:
        """What the model computes in: as in its training, or as it is exported."""
        return "fp32" if self.onnx else found.precision


@dataclass(frozen=True)
class Profiled:
    """The profile of a run, the name of its model and how many images a training of it equals, as a
    sentence, or None where an energy is not known."""

    run_id: str
    model: str
    profile: Profile
    one_training: str | None


def check(fetched: Fetched, settings: Settings) -> Recorder:
    """What would measure the run. Raises `WrongUse` where it cannot be profiled, or was profiled in
    other conditions."""
    if settings.onnx:
        check_packages()
    device = Device.resolve("cpu" if settings.onnx else settings.device)
    use_threads(settings.threads)
    recorder = Recorder.open(RunSpec(energy=settings.energy), device)
    if not settings.replace:
        found = description.read(fetched.folder)
        here = conditions(found, settings.precision(found), recorder, settings.batch)
        refuse_others(fetched.run_id, fetched.tags, settings.form, here)
    return recorder


def profile_run(
    fetched: Fetched,
    settings: Settings,
    *,
    tracking_uri: str | None = None,
    shown: Callable[[str], None] = lambda text: None,
) -> Profiled:
    """Profile the model of a run on this device and add the values to the run.

    `shown` gets a line before each repeat. Raises `WrongUse` as `check`, and `WorkFailed` where the
    server does not answer.
    """
    recorder = check(fetched, settings)
    recorder.memory.restart()
    device = recorder.device.torch_device
    loaded = load.of_folder(fetched, None, str(device))
    name, precision = loaded.description.model, settings.precision(loaded.description)
    spec = RunSpec(model=name, precision=precision)
    trainer.check_device(spec, device)
    trainer.prepare(spec, device)
    with TemporaryDirectory() as folder:
        if settings.onnx:
            subject = _as_onnx(loaded, Path(folder) / "model", fetched.run_id)
        else:
            subject = _in_torch(fetched, loaded, precision)
        found = profile(subject, recorder, settings.batch, shown)
    finished.write(fetched.run_id, found.metrics(), found.tags(), tracking_uri)
    return Profiled(fetched.run_id, name, found, _one_training(fetched, name, found))


def _in_torch(fetched: Fetched, loaded: Model, precision: str) -> Subject:
    return Subject(
        form=FORMS[0],
        description=loaded.description,
        precision=precision,
        predict=loaded.of_batch,
        load=lambda: open_folder(fetched.folder, None, loaded.device),
        versions={},
    )


def _as_onnx(loaded: Model, folder: Path, run_id: str) -> Subject:
    export.write_onnx(loaded, folder, run_id)
    found = description.read(folder)
    threads = torch.get_num_threads()
    model = OnnxModel(folder / ONNX, found, found.chosen(), threads)
    versions = {"onnxruntime": metadata.version("onnxruntime")}
    return Subject(FORMS[1], found, "fp32", model.of_batch, model.opened, versions)


def _one_training(fetched: Fetched, name: str, found: Profile) -> str | None:
    training_wh, source = (
        fetched.metrics.get("energy/train_wh"),
        fetched.tags.get("pepr.energy_source"),
    )
    use = found.values.get("wh_per_image")
    if training_wh is None or source in (None, LOST) or use is None:
        return None
    return one_training(name, training_wh, str(source), use.mean, found.conditions["energy_source"])
