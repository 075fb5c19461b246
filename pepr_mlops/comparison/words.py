"""Metrics, costs, conditions and doubts in sentences, and numbers as exact as their error. Pure."""

from __future__ import annotations

import math
from contextlib import suppress
from decimal import ROUND_HALF_UP, Decimal
from typing import TypedDict

from pepr_mlops.comparison.runs import label
from pepr_mlops.comparison.table import cost_unit
from pepr_mlops.names import COMPLEMENT, FORMS, LIFETIME, METRICS, PERFORMANCE, RESOURCES
from pepr_mlops.text import number

# By how much estimated energies were off: R. Fischer 2025 (arXiv:2509.22092) compared them with
# external measurements. Nothing bounds the error on another machine.
OFF_BY = "up to 40% in a published comparison"
_METRICS = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "top5_accuracy": "top-5 accuracy",
    "macro_f1": "macro F1",
    "auc": "AUC",
    "average_precision": "average precision",
    "sensitivity_at_90_specificity": "sensitivity at 90% specificity",
    "brier": "Brier score",
    "ece": "calibration error",
    PERFORMANCE: "performance",
}
_SPLITS = {"test": "the test set", "val": "validation", "best_val": "the test set"}
_OF_USE = {
    "gmacs": "computation per image",
    "ms_per_image": "time per image",
    "ms_p50": "median time per image",
    "ms_p95": "95th percentile of the time per image",
    "images_per_s": "images per second",
    "wh_per_image": "energy per image",
    "wh_per_image_b1": "energy of an image alone",
    "load_s": "loading time",
    "memory_gb": "memory in use",
}
_COSTS = {
    "E": "training energy",
    "C": "training CO2e",
    "M": "memory",
    "T": "training time",
    "D": "training data",
    LIFETIME: "energy of training and use",
    **{
        f"{form}/{name}": words if form == FORMS[0] else f"{words} as ONNX"
        for form in FORMS
        for name, words in _OF_USE.items()
    },
}
# Metrics that are shares of images, which people read in per cent.
_SHARES = {"accuracy", "top5_accuracy"}
# From which value on a unit is written in another one, by what it is divided, and its name, the
# greatest first; as `SCALES` in words.js.
_SCALES = {
    "Wh": ((1e6, 1e6, "MWh"), (1e3, 1e3, "kWh"), (0.1, 1.0, "Wh"), (0.0, 1e-3, "mWh")),
    "s": ((7200.0, 3600.0, "h"), (120.0, 60.0, "min"), (0.0, 1.0, "s")),
    "g": ((1e6, 1e6, "t"), (1e3, 1e3, "kg"), (0.0, 1.0, "g")),
    "GB": ((1.0, 1.0, "GB"), (0.0, 1e-3, "MB")),
}

NOT_FINISHED = "not_finished"
# What is doubtful about runs, or why they are left out, by the codes of `checks` and `folds`.
CODES = {
    "other_processes": "other programs used the GPU",
    "busy_cpu": "other programs used the CPUs",
    "busy_machine": "energy that includes other programs",
    "shared_node": "energy of a node that Slurm shared out",
    "left_running": "processes that ran on uncounted",
    "interrupted": "interrupted and continued",
    "paused": "suspended during training",
    "estimated_time": "estimated training time",
    "estimated": "estimated energy",
    "coarse_counter": "coarse energy counter",
    "doubtful_import": "imported energy that is doubtful",
    "data_leak": "test images in the training set",
    "data_patients": "patients in two splits",
    "data_conflict": "identical images with different labels",
    "data_few": "classes with too few test images",
    "inference_unstable": "profile that varies between repeats",
    "inference_disturbed": "other programs ran during the profile",
    "inference_estimated": "estimated energy of use",
    "inference_onnx_unstable": "profile as ONNX that varies between repeats",
    "inference_onnx_disturbed": "other programs ran during the profile as ONNX",
    "inference_onnx_estimated": "estimated energy of use as ONNX",
    "same_numbers": "numbers copied from another run",
    "impossible_accuracy": "performance on different test images from other models",
    "predictions": "predictions that contradict the performance",
    "one_class": "nothing learnt: one class for every image",
    "power": "energy that means an impossible power",
    "same_energy": "energy equal to another run's to the last digit",
    "still_counter": "energy counter that stood still",
    "fewer_seeds": "fewer seeds than other models",
    "stopped": "stopped by a budget",
    "no_model": "model not named",
    "non_finite": "number not finite",
    "no_performance": "performance not known",
    "no_cost": "cost not known",
    "duplicate": "repeated by another run",
    "missing_folds": "of an incomplete cross-validation",
    "fold_predictions": "predictions of folds that do not belong together",
}

# Conditions in which runs may differ, as `names.COMPARED`.
CONDITIONS = {
    "dataset": "data set",
    "size": "stored image size",
    "data_digest": "content of the data set",
    "fraction": "share of the training data",
    "image_size": "image size",
    "channels": "colour channels",
    "batch_size": "batch size",
    "lr": "learning rate",
    "weight_decay": "weight decay",
    "class_weights": "class weights",
    "augment": "augmentation",
    "tune": "trained layers",
    "layout": "memory layout",
    "pretrained": "pretraining",
    "cpus": "number of CPUs",
    "threads": "number of threads",
    "gpu_mig": "part of the GPU",
    "gpu_power_limit_w": "power limit of the GPU",
    "gpu_clocks_mhz": "clocks of the GPU",
    "performance_metric": "performance metric",
    "energy_components": "components of the energy",
    "energy_model": "model of the estimated energy",
    "energy_cpu": "CPU whose energy counts",
    "memory_metric": "kind of memory",
}
_PHRASES = {
    "dataset": "{}",
    "hardware": "{}",
    "image_size": "images of {0}×{0} pixels",
    "gpu_power_limit_w": "GPU limited to {} W",
    "gpu_clocks_mhz": "GPU clocks of {} MHz",
}
_COUNTED = {"epochs": "epoch", "cpus": "CPU", "threads": "thread"}
_STARTS = {"true": "pretrained", "false": "from scratch"}


# Reasons that say by themselves how a run ended.
_ENDS = ("killed", "paused", "probed", "claimed")


def status_words(status: str, reason: str | None) -> str:
    """MLflow's status of a run, with why it failed: `running`, `killed`, `failed: out of memory`.

    `reason` is the tag `pepr.reason`, None or empty without one.
    """
    if not reason or status in ("FINISHED", "RUNNING", "SCHEDULED"):
        return status.lower()
    return reason if reason in _ENDS else f"{status.lower()}: {reason.replace('_', ' ')}"


def left_out_words(code: str, text: str) -> str:
    """Why a run is left out, by the code and the text of `checks.left_out`."""
    return text if code == NOT_FINISHED else CODES.get(code, code)


class MetricWords(TypedDict):
    """A metric such as `test/accuracy`: its `name` in a sentence, the data it is `on`, its `key`,
    and whether it is a `share` of images."""

    key: str
    name: str
    on: str | None
    share: bool


def metric_words(name: str) -> MetricWords:
    """A metric such as `test/accuracy` or `1 - test/brier` in words."""
    split = name.removeprefix(COMPLEMENT).rpartition("/")[0]
    return {"key": name, "name": metric_name(name), "on": _SPLITS.get(split), "share": share(name)}


def metric_name(name: str) -> str:
    """A metric in a sentence: `accuracy` of `test/accuracy`."""
    own = name.removeprefix(COMPLEMENT).rpartition("/")[2]
    words = _METRICS.get(own, own.replace("_", " "))
    return f"1 \N{MINUS SIGN} {words}" if name.startswith(COMPLEMENT) else words


def share(name: str) -> bool:
    """Whether a metric is a share of images."""
    return not name.startswith(COMPLEMENT) and name.rpartition("/")[2] in _SHARES


def cost_words(name: str) -> dict[str, str]:
    """A resource, or several joined by +: its `name` in a sentence."""
    return {"name": " and ".join(_cost(part) for part in name.split("+"))}


def _cost(name: str) -> str:
    known = RESOURCES[name].letter if name in RESOURCES else label(name)
    return _COSTS.get(known) or (METRICS[known].help if known in METRICS else known)


def cost_title(name: str) -> str:
    """A resource as the title of an axis: `training energy (Wh)`."""
    title, unit = cost_words(name)["name"], cost_unit(name)
    return f"{title} ({unit})" if unit else title


def sentence(words: str) -> str:
    """Words that begin a sentence."""
    return words[:1].upper() + words[1:]


def value_text(metric: str, value: float, low: float = math.nan, high: float = math.nan) -> str:
    """A value of a metric, `85.8%` or `0.858`, to the digit that its interval justifies."""
    return _in_units(metric, value, decimals_of(low, high))


def decimals_of(low: float, high: float) -> int:
    """Decimals of a metric that an interval this wide justifies, three without one."""
    half = (high - low) / 2
    return 2 if half >= 0.03 else 4 if half < 0.003 else 3


def _in_units(metric: str, value: float, decimals: int) -> str:
    """Per cent of a share, else the metric's own unit."""
    share = metric_words(metric)["share"]
    return f"{_rounded(100 * value, decimals - 2)}%" if share else _rounded(value, decimals)


def _rounded(value: float, decimals: int) -> str:
    """Half away from zero, as browsers round: 62.5 is 63."""
    exact = Decimal(value)
    return (
        str(exact.quantize(Decimal(1).scaleb(-decimals), ROUND_HALF_UP))
        if value == value
        else "nan"
    )


def difference_text(metric: str, value: float, decimals: int = 3) -> str:
    """A difference between two values of a metric, `0.8 points` of per cent or `0.008`, to so many
    decimals of the metric."""
    return _points(metric, _in_units(metric, value, decimals))


def margin_text(metric: str, margin: float) -> str:
    """A margin in all its digits: `3 points` or `0.03`."""
    share = metric_words(metric)["share"]
    return _points(metric, f"{100 * margin:g}%" if share else f"{margin:g}")


def _points(metric: str, text: str) -> str:
    if not metric_words(metric)["share"]:
        return text
    points = text.removesuffix("%")
    return f"{points} point{'s' * (float(points) != 1)}"


def cost_text(
    name: str, value: float, low: float = math.nan, high: float = math.nan, *, kind: bool = True
) -> str:
    """A cost, such as `20 Wh of training energy`, or without its `kind` `20 Wh`; to two digits
    where the interval from `low` to `high` is wider than a tenth of it, else to three."""
    text = amount(value, cost_unit(name), 2 if high - low > 0.1 * abs(value) else 3)
    of = "training and use" if name == LIFETIME else cost_words(name)["name"]
    return f"{text} of {of}" if kind else text


def condition_name(name: str) -> str:
    """A condition in a sentence: `pretraining`."""
    return CONDITIONS.get(name, name.replace("_", " "))


def amount(value: float, unit: str, digits: int = 3) -> str:
    """A value to so many digits with its unit, a small or great one in another: `12.3 mWh`."""
    value = _significant(value, digits)
    scales = _SCALES.get(unit, ()) if value else ()
    by, name = next(((by, of) for least, by, of in scales if abs(value) >= least), (1.0, unit))
    return f"{number(value / by, digits)} {name}".rstrip()


def percent(probability: float) -> str:
    """A probability in whole per cent; only what is certain is 0% or 100%."""
    if 0 < probability < 0.005:
        return "<1%"
    return ">99%" if 0.995 <= probability < 1 else f"{probability:.0%}"


def _significant(value: float, digits: int) -> float:
    """Rounded to so many digits, half away from zero, as browsers round."""
    if not math.isfinite(value) or value == 0:
        return value
    exact = Decimal(value)
    return float(exact.quantize(Decimal(1).scaleb(exact.adjusted() - digits + 1), ROUND_HALF_UP))


def condition_words(name: str, value: str) -> str:
    """A condition and its value, `from scratch` or `batch size 32`."""
    if name == "pretrained" and value in _STARTS:
        return _STARTS[value]
    if name == "fraction":
        with suppress(ValueError):
            return f"{float(value) * 100:g}% of the training data"
    if name in _COUNTED:
        return f"{value} {_COUNTED[name]}{'s' * (value != '1')}"
    usual = f"{condition_name(name)} {{}}"
    return _PHRASES.get(name, usual).format(value)


def all_of(words: list[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def count(n: int, word: str) -> str:
    """`1 model`, `2 models`."""
    return f"{n:,} {word}{'s' * (n != 1)}"
