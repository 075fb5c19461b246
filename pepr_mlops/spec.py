"""The settings of one training job.

The fields of `RunSpec` are the options of `pepr train`, the parameters of the MLproject and the
parameters logged to MLflow. What a run reports is in `names`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_type_hints

from pepr_mlops.errors import WrongUse
from pepr_mlops.files import dataset_name
from pepr_mlops.validation import check_fold, check_recipe, checked, refuse_unknown, window_bounds

if TYPE_CHECKING:
    from pydantic import TypeAdapter

NONE = "none"  # how an absent optional value is written where only text is possible
_NO_VALUE = ("", NONE)
_MOST = 2**63 - 1  # of a whole number, as TOML has it
AUTO = "auto"  # of a field in TRIED: a trial decides
TRIED = ("precision", "layout", "launch")
# Options added later, and what jobs did before: with that value a job is the same as then.
LATER = {
    **{"launch": "kernels", "threads": NONE, "images": NONE, "image_column": NONE},
    **{"label_columns": NONE, "patient_column": NONE, "split_column": NONE, "group_columns": NONE},
    **{"uncertain": "refuse", "missing": "refuse", "frames": "first", "window": AUTO, "axis": "2"},
    **{"every": "1", "fit": "stretch", "folds": NONE, "fold": NONE, "allow_leak": "false"},
    **{"external": NONE, "class_weights": NONE, "augment": NONE, "schedule": "constant"},
    **{"warmup": "0", "optimizer": "adam", "weight_decay": "0.0", "patience": NONE, "tune": "all"},
}
# The fields that only images of one's own have: folders and tables.
OF_TABLES = (  # how tables are read
    *("images", "image_column", "label_columns", "patient_column", "split_column"),
    *("group_columns", "uncertain", "missing"),
)
OF_FILES = (*OF_TABLES, "frames", "window", "axis", "every", "fit")
OWN = (*OF_FILES, "allow_leak")
# The fields whose value may contain commas: a sweep does not split it into several.
UNSPLIT = ("label_columns", "group_columns", "window", "external")
SIZES = (28, 64, 128, 224)  # pixels per side of the files that MedMNIST publishes


def _option(
    default: object,
    help: str,
    heading: str,
    *,
    choices: tuple[object, ...] | None = None,
    **limits: float,
) -> Any:
    """A RunSpec field: its default, its help with the heading it is under, and what is valid:
    `choices`, or the limits `ge` (least), `le` (most) and `gt` (above) of a number."""
    metadata = {"help": help, "heading": heading, "choices": choices, "limits": limits}
    return field(default=default, metadata=metadata)


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
        "digits, derma, pneumonia, lidc, any 2-D MedMNIST name, a table of images and labels "
        "(LABELS.csv), or a folder of classes (DIR/CLASS/*, DIR/{train,val,test}/CLASS/*)",
        "Essentials",
    )
    size: int = _option(
        224,
        "resolution of the MedMNIST file; other data sets come in one",
        "Data",
        choices=SIZES,
    )
    image_size: int = _option(256, "pixels per side the model sees", "Essentials", ge=8, le=4096)
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
        1.0, "share of the training set, drawn by class with the seed", "Data", gt=0, le=1
    )
    images: str | None = _option(
        None, "folder that the files of a table are in; the table's own if none", "Images"
    )
    image_column: str | None = _option(
        None, "column of a table with the file of each image; guessed if none", "Images"
    )
    label_columns: str | None = _option(
        None, "column of a table with the class, or several of 0 and 1; guessed if none", "Images"
    )
    patient_column: str | None = _option(
        None, "column of a table with the patient; guessed if none", "Images"
    )
    split_column: str | None = _option(
        None, "column of a table with train, val or test; guessed if none", "Images"
    )
    group_columns: str | None = _option(
        None, "columns of a table to make subgroups of; all others if none", "Images"
    )
    uncertain: str = _option(
        "refuse",
        "what labels that are -1 or blank count as",
        "Images",
        choices=("refuse", "ignore", "negative", "positive"),
    )
    missing: str = _option(
        "refuse",
        "what to do where files and rows of a table do not match",
        "Images",
        choices=("refuse", "skip"),
    )
    frames: str = _option(
        "first",
        "images of a DICOM file with several frames",
        "Images",
        choices=("first", "middle", "all"),
    )
    window: str = _option(
        AUTO,
        "grey values shown from black to white: CENTER,WIDTH; dicom: the file's own; percentile: "
        "0.5 to 99.5% of the training images; auto: the file's own, else percentile",
        "Images",
    )
    axis: int = _option(
        2, "axis of a volume (NIfTI) that slices are taken along", "Images", choices=(0, 1, 2)
    )
    every: int = _option(1, "take every n-th slice of a volume", "Images", ge=1)
    fit: str = _option(
        "stretch",
        "how an image becomes square: stretched, padded with black or cropped in the centre",
        "Images",
        choices=("stretch", "pad", "crop"),
    )
    allow_leak: bool = _option(
        False, "train although patients are in two splits; the run is flagged", "Images"
    )
    external: str | None = _option(
        None,
        "NAME=PATH of a folder or table to evaluate at the end, never to choose by; several "
        "between commas",
        "Images",
    )
    folds: int | None = _option(
        None, "cross-validation: the number of parts that are test in turn", "Data", ge=3, le=100
    )
    fold: int | None = _option(None, "the part that is test here, from 1 to folds", "Data", ge=1)
    epochs: int = _option(10, "passes over the training set", "Essentials", ge=1)
    batch_size: int = _option(32, "images per step", "Recipe", ge=2)
    lr: float = _option(5e-4, "learning rate of the optimizer", "Recipe", gt=0)
    optimizer: str = _option("adam", "how weights are updated", "Recipe", choices=("adam", "adamw"))
    weight_decay: float = _option(0.0, "weight decay of the optimizer", "Recipe", ge=0)
    schedule: str = _option(
        "constant",
        "learning rate over the epochs: constant, or a cosine to 0",
        "Recipe",
        choices=("constant", "cosine"),
    )
    warmup: int = _option(
        0, "epochs in which the learning rate rises from 0, before the schedule", "Recipe", ge=0
    )
    class_weights: str = _option(
        NONE,
        "weights of the classes in the loss; balanced: a rare class counts as much as a common one",
        "Recipe",
        choices=(NONE, "balanced"),
    )
    augment: str = _option(
        NONE,
        "random changes of training images; standard: flips, rotations, crops and brightness",
        "Recipe",
        choices=(NONE, "flips", "standard"),
    )
    patience: int | None = _option(
        None, "stop after this many epochs without a lower validation loss", "Recipe", ge=1
    )
    tune: str = _option(
        "all",
        "which weights are trained: all, or the head on top of a frozen backbone",
        "Recipe",
        choices=("all", "head"),
    )
    seed: int = _option(
        0, "seed of weights, order and drawn subsets", "Essentials", ge=0, le=2**32 - 1
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
        ge=1,
    )
    compile: bool = _option(False, "compile the model with torch.compile", "Machine")
    deterministic: bool = _option(False, "use deterministic algorithms only", "Recipe")
    pretrained: bool = _option(True, "start from pretrained weights", "Model")
    weights: str | None = _option(
        None,
        "local file of pretrained weights instead of timm's hub (safetensors or state dict)",
        "Model",
    )
    keep: str = _option(
        "last",
        "weights that the run keeps: of the last epoch, which P is of, and of the best on val",
        "Model",
        choices=("last", "best", "both", NONE),
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
        None, "gCO2e per kWh, instead of a country", "Measuring", ge=0
    )
    pue: float = _option(1.0, "power usage effectiveness of the building", "Measuring", ge=1)
    budget_wh: float | None = _option(
        None, "stop after the step at which training energy reaches this", "Measuring", gt=0
    )
    budget_s: float | None = _option(
        None, "stop after the step at which training time reaches this", "Measuring", gt=0
    )
    experiment: str | None = _option(
        None, "name runs are compared under; the data set's if none", "Essentials"
    )

    def __post_init__(self) -> None:
        for name, value in checked(_types(), self.values(), strict=True):
            # 1 and 1.0, 0.0 and -0.0 are the same, so their job has one fingerprint
            object.__setattr__(self, name, value + 0.0 if isinstance(value, float) else value)
        if self.weights is not None and not self.pretrained:
            raise WrongUse("weights: a file of weights excludes training from scratch; drop one")
        if self.compile and self.untried:
            raise WrongUse(
                "compile: a trial of precision, layout or launch would change what is compiled "
                "after it; name all three, or train without compile"
            )
        check_fold(self.folds, self.fold)
        window_bounds(self.window)
        check_recipe(self)
        if self.country is not None and self.carbon_intensity is not None:
            raise WrongUse("country: give either country or carbon_intensity, not both")
        if self.budget_wh is not None and self.energy == "off":
            raise WrongUse("budget_wh: energy=off cannot watch a budget; choose another energy")
        if not re.fullmatch(r"auto|mps|cpu|cuda(:\d+)?", self.device):
            raise WrongUse(
                f"device: {self.device!r} is not one of auto, cuda, cuda:INDEX, mps, cpu"
            )

    @property
    def untried(self) -> bool:
        """Whether a trial is still to decide a field."""
        return any(getattr(self, name) == AUTO for name in TRIED)

    @property
    def dataset_name(self) -> str:
        """The data set's name; of a folder or a table its own, wherever it is."""
        return dataset_name(self.dataset)

    @property
    def experiment_name(self) -> str:
        """The requested experiment, or the data set's name."""
        return self.experiment or self.dataset_name

    @property
    def earlier_fingerprint(self) -> str:
        """The `pepr.spec` of runs without a digest of their data: a digest of every field but the
        folder of the data."""
        return _digest(self._identity("data_root"))

    @classmethod
    def parse(cls, raw: Mapping[str, str]) -> RunSpec:
        """A spec from text, as a command line or an MLflow Project gives it.

        Absent keys keep their defaults; `none` and the empty string mean no value. Raises
        `WrongUse` naming the key, the value, what is valid and, for a misspelt key, its match.
        """
        return cls(**_from_text(raw))

    def values(self) -> dict[str, Any]:
        """Every field of `RunSpec` by its name."""
        return {f.name: getattr(self, f.name) for f in fields(RunSpec)}

    def as_params(self) -> dict[str, str]:
        """Every field as text, the inverse of `parse`."""
        return {key: as_text(value) for key, value in self.values().items()}

    def _identity(self, *without: str) -> dict[str, str]:
        """The fields that distinguish jobs, as text, without those named."""
        return {
            key: value
            for key, value in self.as_params().items()
            if key not in (*without, "keep") and LATER.get(key) != value
        }


# The fields that name files, which a `Job` identifies by their content.
FILES = ("dataset", "size", "data_root", "weights", "images", "external")


@dataclass(frozen=True, kw_only=True)
class Job(RunSpec):
    """A `RunSpec` with digests of its files: one job wherever they are.

    The digests are those of `data.identify`: of the data set as it is stored, before anything is
    drawn with the seed, and of the file `weights` and the `external` sets, None without any.
    """

    data_digest: str
    weights_digest: str | None = None
    external_digest: str | None = None

    @property
    def fingerprint(self) -> str:
        """A digest of what distinguishes this job: its settings, the name that its runs are
        compared under and the content of its files."""
        settings = self._identity(*FILES, "experiment")
        files = {"data": self.data_digest, "weights": as_text(self.weights_digest)}
        if self.external_digest is not None:
            files["external"] = self.external_digest
        return _digest({**settings, "experiment": self.experiment_name, **files})


def _digest(texts: Mapping[str, str]) -> str:
    return hashlib.sha256(json.dumps(texts, sort_keys=True).encode()).hexdigest()[:16]


def as_text(value: object) -> str:
    """A value as MLflow parameters write it: `true`, `none`, the shortest exact number."""
    if value is None:
        return NONE
    return str(value).lower() if isinstance(value, bool) else str(value)


def value_type(f: Field[Any]) -> type:
    """The type of a RunSpec field when it has a value: str, int, float or bool."""
    hint = _HINTS[f.name]
    kind: type = next((k for k in get_args(hint) if k is not type(None)), hint)
    return kind


def convert(name: str, text: str) -> Any:
    """The value of one RunSpec field from text, whatever the others are; None where it has none.

    Raises `WrongUse` for what it cannot be.
    """
    return _from_text({name: text}).get(name)


def _from_text(raw: Mapping[str, str]) -> dict[str, Any]:
    """The fields that have a value, by name, each checked by itself."""
    known = {f.name: f for f in fields(RunSpec)}
    refuse_unknown(raw, known, "parameter")
    values: dict[str, Any] = {}
    for key, text in raw.items():
        f, plain = known[key], text.strip()
        if f.default is None and plain.lower() in _NO_VALUE:
            continue
        choices = {str(choice): choice for choice in f.metadata["choices"] or ()}
        values[key] = choices.get(plain, text if value_type(f) is str else plain)
    found = checked(_types(), values)
    return {key: getattr(found, key) for key in values}


@cache
def _types() -> TypeAdapter[Any]:
    """The fields of `RunSpec` with their types, choices and limits, as pydantic checks them."""
    from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, create_model

    types: dict[str, Any] = {}
    for f in fields(RunSpec):
        kind: Any = value_type(f)
        if f.metadata["choices"]:
            kind = Literal[f.metadata["choices"]]
        elif kind is str:
            kind = Annotated[str, AfterValidator(_storable)]
        else:
            most = {"le": _MOST} if kind is int else {}  # integers have no limit in Python
            kind = Annotated[kind, Field(**{**most, **f.metadata["limits"]})]
        types[f.name] = (kind if f.default is not None else kind | None, f.default)
    model = create_model("RunSpec", __config__=ConfigDict(allow_inf_nan=False), **types)
    return TypeAdapter(model)


def _storable(text: str) -> str:
    """The text, if every tracking server can store it and it does not stand for no value."""
    from pydantic_core import PydanticCustomError

    try:
        stored = b"\0" not in text.encode()
    except UnicodeEncodeError:  # names of files may hold bytes that are no text
        stored = False
    if not stored:
        raise PydanticCustomError("text", "It has a character that cannot be stored; name another")
    if text.strip().lower() in _NO_VALUE:
        raise PydanticCustomError("text", "It stands for no value; give one")
    return text


# The fields that the jobs of a sweep may differ in: runs that a budget ends do not compare.
SWEEPABLE = tuple(f.name for f in fields(RunSpec) if f.name not in ("budget_wh", "budget_s"))

_HINTS = get_type_hints(RunSpec)
assert all(f.default is not MISSING for f in fields(RunSpec))
