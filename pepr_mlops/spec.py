"""What a run is asked to do.

The fields of `RunSpec` are the options of `pepr train`, the parameters of the MLproject and the
parameters logged to MLflow. What a run reports is in `names`.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Any, get_args, get_type_hints

from pepr_mlops.errors import WrongUse, nearest

NONE = "none"  # how an absent optional value is written where only text is possible
_NO_VALUE = ("", NONE)
AUTO = "auto"  # of a field in TRIED: a trial decides
TRIED = ("precision", "layout", "launch")
# Options that came later, and what jobs did before there was the choice: such a job is the same.
LATER = {"launch": "kernels", "threads": NONE}
SIZES = (28, 64, 128, 224)  # pixels per side of the files that MedMNIST publishes


def _option(
    default: object,
    help: str,
    heading: str,
    *,
    choices: tuple[object, ...] | None = None,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
) -> Any:
    """A RunSpec field: its default, its help with the heading it is under, and its valid range
    (`low`, `high` inclusive, `above` not)."""
    limits = {"choices": choices, "low": low, "high": high, "above": above}
    return field(default=default, metadata={"help": help, "heading": heading, **limits})


@dataclass(frozen=True, kw_only=True)
class RunSpec:
    """One training job. The defaults are the protocol of the PePR paper on `derma`.

    Raises `WrongUse` on construction when a value is impossible, naming the valid ones.

    >>> from pepr_mlops import RunSpec
    >>> spec = RunSpec(model="mobilenetv2_050", dataset="digits", image_size=32, pretrained=False)
    >>> spec.experiment_name, spec.epochs, spec.lr
    ('digits', 10, 0.0005)
    """

    model: str = _option(
        "resnet18d", "timm model; `pepr models` lists the paper's 131", "Essentials"
    )
    dataset: str = _option(
        "derma",
        "digits, derma, pneumonia, lidc, any 2-D MedMNIST name, or DIR/{train,val,test}/CLASS/*",
        "Essentials",
    )
    size: int = _option(
        224,
        "resolution of the MedMNIST file; other data sets come in one",
        "Data",
        choices=SIZES,
    )
    image_size: int = _option(256, "pixels per side the model sees", "Essentials", low=8, high=4096)
    channels: str = _option(
        "native",
        "colour of the images: as they are, grey or RGB",
        "Data",
        choices=("native", "grey", "rgb"),
    )
    intensities: str = _option(
        "unit",
        "images in [0, 1], or normalised as the pretrained weights expect",
        "Data",
        choices=("unit", "pretrained"),
    )
    fraction: float = _option(
        1.0, "share of the training set, drawn by class with the seed", "Data", above=0, high=1
    )
    epochs: int = _option(10, "passes over the training set", "Essentials", low=1)
    batch_size: int = _option(32, "images per step", "Recipe", low=2)
    lr: float = _option(5e-4, "learning rate of Adam", "Recipe", above=0)
    seed: int = _option(
        0, "seed of weights, order and drawn subsets", "Essentials", low=0, high=2**32 - 1
    )
    precision: str = _option(
        "fp32",
        "arithmetic of the training; auto tries which is fastest here",
        "Machine",
        choices=("fp32", "tf32", "bf16", "fp16", AUTO),
    )
    layout: str = _option(
        "contiguous",
        "memory layout of the images; auto tries which is faster here",
        "Machine",
        choices=("contiguous", "channels_last", AUTO),
    )
    launch: str = _option(
        "kernels",
        "give a GPU its work kernel by kernel, or each step as one CUDA graph; auto tries which "
        "is faster here",
        "Machine",
        choices=("kernels", "graph", AUTO),
    )
    threads: int | None = _option(
        None,
        "CPU threads of PyTorch; its own choice if none, one for each core as a rule",
        "Machine",
        low=1,
    )
    compile: bool = _option(False, "compile the model with torch.compile", "Machine")
    deterministic: bool = _option(False, "use deterministic algorithms only", "Recipe")
    pretrained: bool = _option(True, "start from pretrained weights", "Model")
    weights: str | None = _option(
        None,
        "local file of pretrained weights instead of timm's hub (safetensors or state dict)",
        "Model",
    )
    device: str = _option("auto", "auto, cuda, cuda:INDEX, mps or cpu", "Machine")
    data_root: str | None = _option(None, "folder of the data sets; MedMNIST's own if none", "Data")
    energy: str = _option(
        "auto",
        "auto: measure, or estimate a CPU machine without sensors; measured: refuse without a "
        "sensor; estimated; off",
        "Measuring",
        choices=("auto", "measured", "estimated", "off"),
    )
    country: str | None = _option(None, "ISO code of the grid's country, for CO2e", "Measuring")
    carbon_intensity: float | None = _option(
        None, "gCO2e per kWh, instead of a country", "Measuring", low=0
    )
    pue: float = _option(1.0, "power usage effectiveness of the building", "Measuring", low=1)
    budget_wh: float | None = _option(
        None, "stop after the step at which training energy reaches this", "Measuring", above=0
    )
    budget_s: float | None = _option(
        None, "stop after the step at which training time reaches this", "Measuring", above=0
    )
    experiment: str | None = _option(
        None, "name runs are compared under; the data set's if none", "Essentials"
    )

    def __post_init__(self) -> None:
        for f in fields(RunSpec):
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
    def earlier_fingerprint(self) -> str:
        """What runs carry as `pepr.spec` that do not say what their data set held: a digest of
        every field but where the data lie."""
        return _digest(self._telling("data_root"))

    @classmethod
    def parse(cls, raw: Mapping[str, str]) -> RunSpec:
        """A spec from text, as a command line or an MLflow Project gives it.

        Absent keys keep their defaults; `none` and the empty string mean no value. Raises
        `WrongUse` naming the key, the value, what is valid and, for a misspelt key, its match.
        """
        known = {f.name: f for f in fields(RunSpec)}
        for key in raw:
            if key not in known:
                close = nearest(key, known) or "."
                raise WrongUse(f"{key}: no such parameter{close} Valid: {', '.join(known)}")
        values: dict[str, Any] = {key: _convert(known[key], text) for key, text in raw.items()}
        return cls(**values)

    def values(self) -> dict[str, Any]:
        """Every field of `RunSpec` by its name."""
        return {f.name: getattr(self, f.name) for f in fields(RunSpec)}

    def as_params(self) -> dict[str, str]:
        """Every field as text, the inverse of `parse`."""
        return {key: as_text(value) for key, value in self.values().items()}

    def _telling(self, *without: str) -> dict[str, str]:
        """The fields that tell jobs apart, as text, but for those named."""
        return {
            key: value
            for key, value in self.as_params().items()
            if key not in without and LATER.get(key) != value
        }


# What of a spec names files, which a `Job` knows by what they hold.
FILES = ("dataset", "size", "data_root", "weights")


@dataclass(frozen=True, kw_only=True)
class Job(RunSpec):
    """A `RunSpec` whose files were read: one job, wherever they lie and whatever they are called.

    The digests are those of `data.identify`: of the data set as it is stored, before anything is
    drawn with the seed, and of the file `weights`, None without one.
    """

    data_digest: str
    weights_digest: str | None = None

    @property
    def fingerprint(self) -> str:
        """What tells this job from any other: a digest of the settings, the name that its runs are
        compared under and what its files hold."""
        settings = self._telling(*FILES, "experiment")
        files = {"data": self.data_digest, "weights": as_text(self.weights_digest)}
        return _digest({**settings, "experiment": self.experiment_name, **files})


def _digest(texts: Mapping[str, str]) -> str:
    return hashlib.sha256(json.dumps(texts, sort_keys=True).encode()).hexdigest()[:16]


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
