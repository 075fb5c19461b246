"""What a run is asked to do, what it reports, and what each name means: the one place for both.

`RunSpec` is the request. Its fields are the options of `pepr train`, the parameters of the
MLproject and the parameters logged to MLflow. `METRICS` lists everything a run reports.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import MISSING, Field, asdict, dataclass, field, fields
from typing import Any, Literal, get_args, get_type_hints

from pepr_mlops.errors import WrongUse, nearest

NONE = "none"  # how an absent optional value is written where only text is possible
_NO_VALUE = ("", NONE)
AUTO = "auto"  # of a field in TRIED: a trial decides
TRIED = ("precision", "layout", "launch")
# Options that came later, and what jobs did before there was the choice: such a job is the same.
LATER = {"launch": "kernels"}
SIZES = (28, 64, 128, 224)  # pixels per side of the files that MedMNIST publishes


def _option(
    default: object,
    help: str,
    *,
    choices: tuple[object, ...] | None = None,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
) -> Any:
    """A RunSpec field: its default, help and valid range (`low`, `high` inclusive, `above` not)."""
    return field(
        default=default,
        metadata={"help": help, "choices": choices, "low": low, "high": high, "above": above},
    )


@dataclass(frozen=True, kw_only=True)
class RunSpec:
    """One training job. The defaults are the protocol of the PePR paper on `derma`.

    Raises `WrongUse` on construction when a value is impossible, naming the valid ones.
    """

    model: str = _option("resnet18d", "timm model; `pepr models` lists the paper's 131")
    dataset: str = _option(
        "derma",
        "digits, derma, pneumonia, lidc, any 2-D MedMNIST name, or DIR/{train,val,test}/CLASS/*",
    )
    size: int = _option(
        224,
        "resolution of the MedMNIST file; other data sets come in one",
        choices=SIZES,
    )
    image_size: int = _option(256, "pixels per side the model sees", low=8, high=4096)
    channels: str = _option(
        "native",
        "colour of the images: as they are, grey or RGB",
        choices=("native", "grey", "rgb"),
    )
    intensities: str = _option(
        "unit",
        "images in [0, 1], or normalised as the pretrained weights expect",
        choices=("unit", "pretrained"),
    )
    fraction: float = _option(
        1.0, "share of the training set, drawn by class with the seed", above=0, high=1
    )
    epochs: int = _option(10, "passes over the training set", low=1)
    batch_size: int = _option(32, "images per step", low=2)
    lr: float = _option(5e-4, "learning rate of Adam", above=0)
    seed: int = _option(0, "seed of weights, order and drawn subsets", low=0, high=2**32 - 1)
    precision: str = _option(
        "fp32",
        "arithmetic of the training; auto tries which is fastest here",
        choices=("fp32", "tf32", "bf16", "fp16", AUTO),
    )
    layout: str = _option(
        "contiguous",
        "memory layout of the images; auto tries which is faster here",
        choices=("contiguous", "channels_last", AUTO),
    )
    launch: str = _option(
        "kernels",
        "give a GPU its work kernel by kernel, or each step as one CUDA graph; auto tries which "
        "is faster here",
        choices=("kernels", "graph", AUTO),
    )
    compile: bool = _option(False, "compile the model with torch.compile")
    deterministic: bool = _option(False, "use deterministic algorithms only")
    pretrained: bool = _option(True, "start from pretrained weights")
    weights: str | None = _option(
        None, "local file of pretrained weights instead of timm's hub (safetensors or state dict)"
    )
    device: str = _option("auto", "auto, cuda, cuda:INDEX, mps or cpu")
    data_root: str | None = _option(None, "folder of the data sets; MedMNIST's own if none")
    energy: str = _option(
        "auto",
        "auto: measure, or estimate a CPU machine without sensors; measured: refuse without a "
        "sensor; estimated; off",
        choices=("auto", "measured", "estimated", "off"),
    )
    country: str | None = _option(None, "ISO code of the grid's country, for CO2e")
    carbon_intensity: float | None = _option(None, "gCO2e per kWh, instead of a country", low=0)
    pue: float = _option(1.0, "power usage effectiveness of the building", low=1)
    budget_wh: float | None = _option(
        None, "stop after the step at which training energy reaches this", above=0
    )
    budget_s: float | None = _option(
        None, "stop after the step at which training time reaches this", above=0
    )
    experiment: str | None = _option(None, "name runs are compared under; the data set's if none")

    def __post_init__(self) -> None:
        for f in fields(self):
            value = getattr(self, f.name)
            _check(f, value)
            if value_type(f) is float and value is not None:
                # 1 and 1.0, 0.0 and -0.0 are the same, so their job has one fingerprint
                object.__setattr__(self, f.name, float(value) + 0.0)
        if self.weights is not None and not self.pretrained:
            raise WrongUse("weights: a file of weights excludes training from scratch; drop one")
        if self.compile and self.untried:
            raise WrongUse(
                "compile: a trial of precision, layout or launch would change what is compiled "
                "after it; name all three, or train without compile"
            )
        if self.country is not None and self.carbon_intensity is not None:
            raise WrongUse("country: carbon_intensity says the same; give one of them")
        if self.budget_wh is not None and self.energy == "off":
            raise WrongUse("budget_wh: energy=off cannot watch a budget; choose another energy")
        kind, _, index = self.device.partition(":")
        if kind not in ("auto", "cuda", "mps", "cpu") or (
            ":" in self.device and not (kind == "cuda" and index.isdecimal())
        ):
            raise WrongUse(
                f"device: {self.device!r} is not one of auto, cuda, cuda:INDEX, mps, cpu"
            )

    @property
    def untried(self) -> bool:
        """Whether a trial is still to decide a field."""
        return any(getattr(self, name) == AUTO for name in TRIED)

    @property
    def dataset_name(self) -> str:
        """The data set's name; of a folder its own, wherever it lies."""
        return os.path.basename(os.path.abspath(self.dataset))

    @property
    def experiment_name(self) -> str:
        """The experiment asked for, or the data set's name."""
        return self.experiment or self.dataset_name

    @property
    def fingerprint(self) -> str:
        """What tells this job from any other: a digest of every field but where the data lie."""
        asked = {
            key: value
            for key, value in self.as_params().items()
            if key != "data_root" and LATER.get(key) != value
        }
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]

    @classmethod
    def parse(cls, raw: Mapping[str, str]) -> RunSpec:
        """A spec from text, as a command line or an MLflow Project gives it.

        Absent keys keep their defaults; `none` and the empty string mean no value. Raises
        `WrongUse` naming the key, the value, what is valid and, for a misspelt key, its match.
        """
        known = {f.name: f for f in fields(cls)}
        for key in raw:
            if key not in known:
                close = nearest(key, known) or "."
                raise WrongUse(f"{key}: no such parameter{close} Valid: {', '.join(known)}")
        values: dict[str, Any] = {key: _convert(known[key], text) for key, text in raw.items()}
        return cls(**values)

    def as_params(self) -> dict[str, str]:
        """Every field as text, the inverse of `parse`."""
        return {key: as_text(value) for key, value in asdict(self).items()}


def as_text(value: object) -> str:
    """A value as MLflow parameters write it: `true`, `none`, the shortest exact number."""
    if value is None:
        return NONE
    return str(value).lower() if isinstance(value, bool) else str(value)


def is_optional(f: Field[Any]) -> bool:
    """Whether a RunSpec field may be absent."""
    return type(None) in get_args(_HINTS[f.name])


def value_type(f: Field[Any]) -> type:
    """The type of a RunSpec field when it has a value: str, int, float or bool."""
    hint = _HINTS[f.name]
    kinds = [k for k in get_args(hint) if k is not type(None)] or [hint]
    kind = kinds[0]
    assert isinstance(kind, type)
    return kind


def convert(name: str, text: str) -> Any:
    """The value of one RunSpec field from text; raises `WrongUse` for what it cannot be."""
    f = next(f for f in fields(RunSpec) if f.name == name)
    value = _convert(f, text)
    _check(f, value)
    return value


def truth(name: str, text: str) -> bool:
    """True or false from text; raises `WrongUse` for anything else."""
    words = {"true": True, "false": False, "1": True, "0": False, "yes": True, "no": False}
    if text.strip().lower() not in words:
        raise WrongUse(f"{name}: {text!r} is not true or false")
    return words[text.strip().lower()]


def _convert(f: Field[Any], text: str) -> object:
    if text.strip().lower() in _NO_VALUE:
        if is_optional(f):
            return None
        raise WrongUse(f"{f.name}: needs a value ({_valid(f)}; default {as_text(f.default)})")
    kind = value_type(f)
    if kind is bool:
        return truth(f.name, text)
    try:
        return kind(text)
    except ValueError:
        raise WrongUse(f"{f.name}: {text!r} is not {_valid(f)}") from None


def _check(f: Field[Any], value: object) -> None:
    if value is None and is_optional(f):
        return
    kind = value_type(f)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind in (int, float):
        right_type = number and (kind is float or isinstance(value, int))
    else:
        right_type = isinstance(value, kind)
    if not right_type:
        raise WrongUse(f"{f.name}: {value!r} is not {_valid(f)}")
    meta = f.metadata
    if meta["choices"] is not None and value not in meta["choices"]:
        close = nearest(str(value), [str(c) for c in meta["choices"]])
        raise WrongUse(f"{f.name}: {value!r} is not {_valid(f)}{close}")
    if number:
        assert isinstance(value, int | float)
        low, high, above = meta["low"], meta["high"], meta["above"]
        if (
            not abs(value) <= sys.float_info.max  # whole numbers have no limit in Python
            or (low is not None and value < low)
            or (high is not None and value > high)
            or (above is not None and value <= above)
        ):
            raise WrongUse(f"{f.name}: {value} is not {_valid(f)}")
    if kind is str and not _storable(str(value)):
        raise WrongUse(f"{f.name}: {value!r} has a character that cannot be stored; name another")
    if kind is str and str(value).strip().lower() in _NO_VALUE:
        raise WrongUse(f"{f.name}: needs a value (default {as_text(f.default)})")


def _storable(text: str) -> bool:
    """Whether every tracking server takes it: names of files may hold bytes that are no text."""
    try:
        return b"\0" not in text.encode()
    except UnicodeEncodeError:
        return False


def _valid(f: Field[Any]) -> str:
    """What a field accepts, in words."""
    meta = f.metadata
    if meta["choices"] is not None:
        return "one of " + ", ".join(map(str, meta["choices"]))
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
    text = words[value_type(f)]
    if meta["above"] is not None:
        text += f" above {meta['above']:g}"
    if meta["low"] is not None:
        text += f" from {meta['low']:g}"
    if meta["high"] is not None:
        text += f" up to {meta['high']:g}"
    return text


# What the jobs of a sweep may differ in: a budget ends a run early, and such do not compare.
SWEPT = tuple(f.name for f in fields(RunSpec) if f.name not in ("budget_wh", "budget_s"))

_HINTS = get_type_hints(RunSpec)
assert all(f.default is not MISSING for f in fields(RunSpec))


# What runs report; GB are 1e9 bytes ----------------------------------------------------------

COMPONENTS = ("gpu", "cpu", "dram", "soc")  # what energy is read from; the zones never overlap
PHASES = ("train", "eval", "trial")  # what a run measures apart; a trial of settings comes first
Source = Literal["measured", "estimated", "imported"]  # a component without one was not read

Direction = Literal["higher", "lower"]

PERFORMANCE = "performance"  # P of PePR: what the tag `pepr.performance` names


@dataclass(frozen=True)
class Metric:
    """One logged quantity. `better` is None for what describes a run without ranking it."""

    name: str
    unit: str
    better: Direction | None
    help: str


_SCORES = {
    "accuracy": "share of images classified correctly (MedMNIST's ACC)",
    "balanced_accuracy": "mean recall over the classes",
    "macro_f1": "mean F1 score over the classes",
    "auc": "area under the ROC curve, one class against the rest, mean over classes (MedMNIST's)",
}

_EVALUATED: tuple[tuple[str, str, Direction, str], ...] = (
    ("loss", "nat", "lower", "mean loss over the whole split"),
    *((score, "1", "higher", text) for score, text in _SCORES.items()),
)

METRICS: dict[str, Metric] = {
    m.name: m
    for m in (
        Metric(PERFORMANCE, "1", "higher", "P of PePR: the metric that pepr.performance names"),
        Metric("train/loss", "nat", "lower", "mean loss over the images of the epoch"),
        *(
            Metric(f"{split}/{name}", unit, better, text)
            for split in ("val", "test")
            for name, unit, better, text in _EVALUATED
        ),
        *(
            Metric(
                f"best_val/{name}",
                "1",
                "higher",
                f"test {name} after the epoch of highest validation accuracy so far",
            )
            for name in _SCORES
        ),
        *(
            Metric(f"energy/{phase}_wh", "Wh", "lower", f"energy of {phase} so far, all components")
            for phase in PHASES
        ),
        *(
            Metric(f"energy/{phase}_{part}_wh", "Wh", "lower", f"energy of {phase} so far, {part}")
            for phase in PHASES
            for part in COMPONENTS
        ),
        Metric("time/trial_s", "s", "lower", "wall time of the trial of settings"),
        Metric("time/train_s", "s", "lower", "wall time of training so far"),
        Metric("time/eval_s", "s", "lower", "wall time of evaluation so far"),
        Metric("time/setup_s", "s", None, "wall time before training"),
        Metric("time/last_epoch_s", "s", None, "last epoch with its evaluation, of imported runs"),
        Metric("time/images_per_s", "1/s", "higher", "training images per second of this epoch"),
        Metric("memory/allocated_gb", "GB", "lower", "peak allocated on the GPU so far"),
        Metric("memory/reserved_gb", "GB", "lower", "peak reserved on the GPU so far"),
        Metric("memory/device_used_gb", "GB", "lower", "highest use of the whole GPU seen so far"),
        Metric("memory/rss_gb", "GB", "lower", "peak resident set of the process so far"),
        Metric("memory/data_gb", "GB", None, "images kept on the device, part of the peaks above"),
        Metric(
            "forecast/train_wh",
            "Wh",
            "lower",
            "training energy of all epochs, after the first or a probe",
        ),
        Metric(
            "forecast/train_s",
            "s",
            "lower",
            "training time of all epochs, after the first or a probe",
        ),
        Metric("forecast/eval_s", "s", "lower", "evaluation time of all epochs, after the first"),
        Metric("test/top5_accuracy", "1", "higher", "share with the class among the first five"),
        Metric("inference/ms_per_image", "ms", "lower", "time to classify one image of a batch"),
        Metric("training/ms_per_image", "ms", "lower", "time to train on one image of a batch"),
        Metric("inference/gmacs", "GMAC", "lower", "multiply-accumulates to classify an image"),
        Metric("carbon/train_gco2e", "g", "lower", "training energy times intensity times PUE"),
    )
}


def memory_metric(device_type: str) -> str:
    """The metric that is M on this kind of device: peak reserved on a GPU, else peak RSS."""
    return "memory/reserved_gb" if device_type == "cuda" else "memory/rss_gb"


# Tags: what a run is compared by, how its numbers came about and how it ended.
TAGS: dict[str, str] = {
    "pepr.experiment": "name the run is compared under",
    "pepr.performance": "the metric that `performance` repeats",
    "pepr.memory": "the metric that is M",
    "pepr.energy_source": "measured, estimated or none; lost: known for a part of the run only",
    "pepr.energy_components": "source of each component, such as gpu=measured,cpu=measured",
    "pepr.energy_method": "what read or estimated the energy",
    "pepr.energy_missing": "why components have no energy, or lost it during the run",
    "pepr.weights": "pretrained weights: timm's name of them, or the file",
    "pepr.energy_caution": "why a measured energy is less exact than usual",
    "pepr.idle_power_w": "power before the run in W, all components; never subtracted",
    "pepr.carbon_intensity_g_per_kwh": "grid intensity used",
    "pepr.carbon_source": "where the intensity is from",
    "pepr.pue": "power usage effectiveness of the building",
    "pepr.reason": "one word for how the run failed",
    "pepr.error": "the line the run failed with",
    "pepr.spec": "digest of what was asked for: runs that share it are attempts at one job",
    "pepr.claim": "wanted or held: who may do a job that others may want to do as well",
    "pepr.process": "machine and process that do the job",
    "pepr.heartbeat": "last sign of life of that process, ms since 1970",
    "pepr.journal": "journal the run was begun with; a run that was made twice is known by it",
    "pepr.attempts": "how often the training was begun or continued",
    "pepr.unmeasured_s": "seconds of interrupted attempts whose cost is in no number, at most",
    "pepr.probe": "steps it trained to forecast the cost; not a training",
    "pepr.stopped": "the budget that ended the run early, and where",
    "pepr.precision": "arithmetic that `precision=auto` came to",
    "pepr.layout": "memory layout that `layout=auto` came to",
    "pepr.launch": "how the GPU was given its work that `launch=auto` came to",
    "pepr.tried": "ms a step took in each setting tried, and what trying took",
    "pepr.parameters": "trainable and fixed weights of the model",
    "pepr.device": "torch device used",
    "pepr.hardware": "GPU, or the CPU where none is used",
    "pepr.cpu": "CPU model and its widest vector instructions",
    "pepr.cpu_count": "logical CPUs",
    "pepr.cpu_others": "CPUs that other processes kept busy in the busiest attempt, on average",
    "pepr.ram_gb": "memory of the machine (1e9 bytes)",
    "pepr.os": "operating system",
    "pepr.gpu": "GPU model",
    "pepr.gpu_uuid": "GPU as NVML names it",
    "pepr.gpu_driver": "GPU driver version",
    "pepr.gpu_power_limit_w": "enforced power limit of the GPU in W",
    "pepr.gpu_nvml": "why the driver told nothing",
    "pepr.gpu_other_processes": "other processes on the GPU, or none",
    "pepr.machine_power_limit_w": "most the whole machine can draw in W, of imported runs",
    "pepr.time_source": "estimated where the training time was not measured as such",
    "pepr.imported_from": "file or publication an imported run was read from",
    "pepr.import_key": "identity of an imported run within that source",
    "pepr.scored.*": "how the metric pepr/* came about: the comparison set and the settings",
    "pepr.git_commit": "commit of pepr_mlops, with + where files were changed",
    "pepr.version.*": "version of Python and of each library",
}


# What runs are scored by and compared on -----------------------------------------------------


@dataclass(frozen=True)
class Resource:
    """A cost of PePR: its letter in the paper, the column of the frame of runs and the metric."""

    letter: str
    column: str
    unit: str
    metric: str | None
    help: str


RESOURCES: dict[str, Resource] = {
    r.letter: r
    for r in (
        Resource("E", "energy_wh", "Wh", "energy/train_wh", "energy of training"),
        Resource("C", "carbon_gco2e", "g", "carbon/train_gco2e", "CO2e of training"),
        Resource("M", "memory_gb", "GB", None, "peak memory"),
        Resource("T", "train_time_s", "s", "time/train_s", "wall time of training"),
        Resource("D", "fraction", "1", None, "share of the training set"),
    )
}

ENERGY = ("energy_wh", "carbon_gco2e")  # the costs that are only as good as the energy

# What runs of one comparison set share; anything of it changes cost or performance.
COMPARED = (
    "dataset",
    "size",
    "fraction",
    "image_size",
    "channels",
    "intensities",
    "epochs",
    "batch_size",
    "lr",
    "precision",
    "layout",
    "launch",
    "compile",
    "deterministic",
    "pretrained",
    "hardware",
    "performance_metric",
)


@dataclass(frozen=True)
class FinishedRun:
    """A run that others measured, ready to be logged. `points` are metric, value and step.

    `key` is its identity within its source: importing it again finds it by `source` and `key`.
    """

    experiment: str
    name: str
    source: str
    key: str
    params: Mapping[str, str]
    tags: Mapping[str, str]
    points: tuple[tuple[str, float, int], ...]
