"""What using a trained model costs on this device: time, energy and memory.

Images are random pixels of a fixed seed in the size that the network takes: what they show does not
matter to the costs. A call takes them from an array on the host to probabilities on the host, with
preprocessing and transfers. The power of an idle machine is a part of the energy, as in training.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pepr_mlops.comparison.metrics import Floats
from pepr_mlops.costs.device import versions
from pepr_mlops.costs.recorder import Recorder
from pepr_mlops.costs.totals import J_PER_WH, Window, cautions, paused_text
from pepr_mlops.data.splits import Pixels
from pepr_mlops.errors import WrongUse
from pepr_mlops.names import FORMS, HARDWARE, LOST, PROFILED_BY, memory_metric
from pepr_mlops.train.use.description import Description

REPEATS = 5
UNSTABLE = 0.05  # coefficient of variation above which a value is marked
_LEAST_S, _LEAST_TICKS = 3.0, 20
_WARM_S, _WARM_CALLS = 1.0, 3
_ENERGY = ("energy_source", "energy_components", "energy_model", "energy_method")
_VERSIONS = ("pepr_mlops", "torch", "timm", "zeus", "codecarbon", "python")


@dataclass(frozen=True)
class Subject:
    """A model to profile: `predict` takes images to probabilities, `load` makes it from its file,
    and `precision` is what it computes in. `form` is one of `names.FORMS`. `versions` are those of
    what executes it, besides the usual ones."""

    form: str
    description: Description
    precision: str
    predict: Callable[[Pixels], Floats]
    load: Callable[[], object]
    versions: Mapping[str, str]


@dataclass(frozen=True)
class Value:
    """The mean of the repeats, and their coefficient of variation, None of a single one."""

    mean: float
    cv: float | None

    @classmethod
    def of(cls, repeats: Sequence[float]) -> Value:
        mean = float(np.mean(repeats))
        known = len(repeats) > 1 and mean > 0
        return cls(mean, float(np.std(repeats, ddof=1)) / mean if known else None)

    @property
    def unstable(self) -> bool:
        return self.cv is not None and self.cv > UNSTABLE


@dataclass(frozen=True)
class Profile:
    """`values` by the names of `names.PROFILED` and `conditions` by those of `names.OF_PROFILE`,
    both without the form."""

    form: str
    values: Mapping[str, Value]
    conditions: Mapping[str, str]

    def metrics(self) -> dict[str, float]:
        """The values and their coefficients of variation as metrics."""
        found = {f"{self.form}/{name}": value.mean for name, value in self.values.items()}
        return found | {
            f"{self.form}/{name}_cv": value.cv
            for name, value in self.values.items()
            if value.cv is not None
        }

    def tags(self) -> dict[str, str]:
        """The conditions as tags."""
        return {f"pepr.{self.form}_{name}": text for name, text in self.conditions.items()}


def window_s(tick_s: float) -> float:
    """How long a window lasts at least whose slowest counter moves every `tick_s`."""
    return max(_LEAST_S, _LEAST_TICKS * tick_s)


def conditions(
    description: Description, precision: str, recorder: Recorder, batch: int
) -> dict[str, str]:
    """What the values of a profile hold for, known before anything is measured."""
    opening = recorder.opening_tags("", "")
    size, colour = description.image_size, description.colour
    logged = {name: opening.get(f"pepr.{name}") for name in (*HARDWARE, *_ENERGY)}
    return {
        "batch": str(batch),
        "precision": precision,
        "image_size": str(size),
        "images": f"random pixels of seed 0, {size}x{size} {colour}, as uint8 on the host",
        **{name: text for name, text in logged.items() if text is not None},
    }


def refuse_others(run: str, tags: Mapping[str, str], form: str, here: Mapping[str, str]) -> None:
    """Raise `WrongUse` where a run, whose tags these are, was profiled in other conditions."""
    before = {name: tags.get(f"pepr.{form}_{name}") for name in PROFILED_BY}
    if f"pepr.{form}_values" not in tags:
        return
    differ = [name for name, text in before.items() if text != here.get(name)]
    if differ:
        texts = ", ".join(f"{n} {before[n] or 'none'}, here {here.get(n, 'none')}" for n in differ)
        raise WrongUse(
            f"run {run} was profiled in other conditions ({texts}); give --replace to lose these "
            "values, or profile another run of the model"
        )


def profile(
    subject: Subject, recorder: Recorder, batch: int, shown: Callable[[str], None]
) -> Profile:
    """Measure in `REPEATS` windows for one image at a time, and as many for batches.

    `shown` gets a line before each. A value that is not known is missing.
    """
    found = conditions(subject.description, subject.precision, recorder, batch)
    images = _images(subject.description, batch)
    alone = images[:1]
    for one in (alone, images):
        _warm_up(subject.predict, one)
    recorder.watch_others({})
    singles, batches = [], []
    for i in range(1, REPEATS + 1):
        shown(f"repeat {i} of {REPEATS}")
        singles.append(_window(recorder, subject.predict, alone, f"repeat {i}, one image"))
        batches.append(_window(recorder, subject.predict, images, f"repeat {i}, batches"))
    repeats: dict[str, list[float] | None] = {
        "ms_p50": [float(np.median(calls)) * 1e3 for _, calls in singles],
        "ms_p95": [float(np.quantile(calls, 0.95)) * 1e3 for _, calls in singles],
        "images_per_s": [len(calls) * batch / window.time_s for window, calls in batches],
        "wh_per_image": _wh_per_image(batches, batch, recorder),
        "wh_per_image_b1": _wh_per_image(singles, 1, recorder),
    }
    peak = recorder.memory.metrics().get(memory_metric(recorder.device.kind))
    closing = recorder.closing_tags()
    if subject.form == FORMS[0] and peak is not None:  # PyTorch exports ONNX in this process
        repeats["memory_gb"] = [peak]
    repeats["load_s"] = [_seconds(subject.load, recorder) for _ in range(REPEATS)]
    values = {name: Value.of(each) for name, each in repeats.items() if each is not None}
    if recorder.meter.sources and "wh_per_image" not in values:
        found["energy_source"] = LOST
    why = closing.get("pepr.energy_missing")
    others = cautions({**recorder.opening_tags("", ""), **closing})
    paused_s = sum(window.paused_s for window, _ in (*singles, *batches))
    if paused_s:
        others.append(paused_text(paused_s, "measured" in recorder.source))
    unstable = [f"{n} {v.cv:.1%}" for n, v in values.items() if v.unstable]
    installed = {name: text for name, text in versions().items() if name in _VERSIONS}
    installed |= subject.versions
    found |= {
        "versions": ", ".join(f"{name} {version}" for name, version in installed.items()),
        "values": ",".join(values),
        "when": time.strftime("%Y-%m-%d %H:%M", time.gmtime()),
        "energy_missing": why or "none",
        "unstable": ", ".join(unstable) or "none",
        "disturbed": "; ".join(others) or "none",
    }
    return Profile(subject.form, values, found)


def _images(description: Description, batch: int) -> Pixels:
    size = description.image_size
    shape = (batch, size, size) if description.colour == "grey" else (batch, size, size, 3)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def _warm_up(predict: Callable[[Pixels], Floats], images: Pixels) -> None:
    """The first calls choose kernels and take memory."""
    began, calls = time.perf_counter(), 0
    while calls < _WARM_CALLS or time.perf_counter() - began < _WARM_S:
        predict(images)
        calls += 1


def _window(
    recorder: Recorder, predict: Callable[[Pixels], Floats], images: Pixels, where: str
) -> tuple[Window, list[float]]:
    """A window of calls, and the seconds of each."""
    least_s, seconds = window_s(recorder.meter.tick_s), list[float]()
    with recorder.phase("eval", where) as phase:
        while not seconds or recorder.meter.elapsed_s() < least_s:
            began = time.perf_counter()
            predict(images)
            seconds.append(time.perf_counter() - began)
    return phase.window, seconds


def _wh_per_image(
    windows: Sequence[tuple[Window, list[float]]], batch: int, recorder: Recorder
) -> list[float] | None:
    """The energy of an image in each window, None where one of them missed a component."""
    sources = recorder.meter.sources
    if not sources or any(window.joules.keys() != sources.keys() for window, _ in windows):
        return None
    return [
        sum(window.joules.values()) / J_PER_WH / (len(calls) * batch) for window, calls in windows
    ]


def _seconds(load: Callable[[], object], recorder: Recorder) -> float:
    began = time.perf_counter()
    load()
    recorder.device.synchronize()
    return time.perf_counter() - began
