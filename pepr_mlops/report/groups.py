"""What the script of the page knows of each comparison set: the facts behind its first screen, its
table and its what-if. Pure.

The script answers every setting from these facts, so the page and the live page show the same.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from dataclasses import Field, fields
from pathlib import PurePath
from typing import Any

import pandas as pd

from pepr_mlops.comparison import lifetime
from pepr_mlops.comparison.answer import KEYS, Answer
from pepr_mlops.comparison.conditions import NOT_KNOWN
from pepr_mlops.comparison.inference import Use, doubtful
from pepr_mlops.comparison.profiles import form_of
from pepr_mlops.comparison.table import cost_unit
from pepr_mlops.comparison.words import cost_words, metric_words
from pepr_mlops.data.medmnist import FLAG_OF
from pepr_mlops.errors import WrongUse
from pepr_mlops.names import PERFORMANCE
from pepr_mlops.report.material import Material
from pepr_mlops.spec import RunSpec, convert

_MOST_STEPS = 20  # of a sparkline
_ROW = (  # of `Answer.models`
    *(
        "decided",
        "decided_low",
        "decided_high",
        "behind",
        "at_least",
        "at_most",
        "likely",
        "more_images",
        "more_runs",
    ),
    *("no_interval", "p_low", "p_high", "score", "rank_low", "rank_high", "n", "energy_source"),
)
_MODEL = ("ci_low", "ci_high", "kind", "parameters", "run_id")
_USE = Use(1.0)
# Data sets as their authors spell them, without the end that all share.
_MEDMNIST = {"organa": "OrganA", "organc": "OrganC", "organs": "OrganS", "oct": "OCT"}
_PRETRAINED = {"true": True, "false": False}


def groups(material: Material) -> list[dict[str, Any]]:
    """The facts of each requested comparison set, in the order of `Material.main_sets`.

    Numbers are finite or None. Raises as `Material.answers`.
    """
    return [_group(material, name, answer) for name, answer in material.answers.items()]


def _group(material: Material, name: str, answer: Answer) -> dict[str, Any]:
    question = material.question(name)
    costs = [c for c in answer.models if f"{c}_noise" in answer.models]
    weights = question.weights or [1.0]
    row = material.sets.set_index("comparison_set").loc[name]
    bounds = {c: material.bounds(name, c) for c in material.resources(name)}
    imported = material.imported(name)
    return {
        "name": name,
        "experiment": row["experiment"],
        "dataset": data_words(row["shared"].get("dataset", NOT_KNOWN)),
        "pretrained": _PRETRAINED.get(row["shared"].get("pretrained")),
        "title": material.title(name),
        "differs": list(material.differs(name)),
        "command": None if imported else _command(row),
        "imported": imported,
        "metric": metric_words(answer.metric),
        "decided_by": metric_words(answer.decided_by),
        "split": answer.split,
        "images": answer.images,
        "margin": answer.terms.margin,
        "level": answer.terms.level,
        "by": answer.resource,
        "costs": {c: {**cost_words(c), "unit": cost_unit(c)} for c in costs},
        "scored_by": answer.scored_by,
        "alpha": question.alpha,
        "weights": dict(zip(question.resources, weights, strict=False)),
        "bounds": {c: [b.low, b.high] for c, b in bounds.items() if b is not None},
        "given_bounds": question.reference is not None,
        "savings": {c: vars(saving) for c, saving in answer.savings.items()},
        "energy": row["energy_source"],
        "mixed": bool(row["mixed"]),
        "gco2e_per_kwh": _intensity(material, name),
        "images_per_year": question.use and question.use.images_per_year,
        "years": question.use.years if question.use else _USE.years,
        "rows": _rows(material, name, answer, costs),
    }


def _command(row: pd.Series[Any]) -> str | None:
    """What trains another model under the conditions of the set, where its data set has a name."""
    shared = row["shared"]
    if data_words(shared.get("dataset", NOT_KNOWN)) is None:
        return None
    words = ["pepr", "train", "--experiment", row["experiment"]]
    for field in fields(RunSpec):
        text = shared.get(field.name, NOT_KNOWN)
        if field.name == "dataset" or _differs(text, field):
            flag = field.name.replace("_", "-")
            words += {"true": [f"--{flag}"], "false": [f"--no-{flag}"]}.get(
                text, [f"--{flag}", text]
            )
    return shlex.join([*words, "--model", "MODEL"])


def _differs(text: str, field: Field[Any]) -> bool:
    """Whether a condition is known and not the default of `pepr train`."""
    if text in (NOT_KNOWN, "several"):
        return False
    try:
        return bool(convert(field.name, text) != field.default)
    except WrongUse:  # a value of other programs
        return False


def data_words(name: str) -> str | None:
    """A data set as its authors spell it, or the last part of a path; None for none or several."""
    if name in (NOT_KNOWN, "several", "none"):
        return None
    flag = FLAG_OF.get(name)
    if flag is not None:
        own = flag.removesuffix("mnist")
        return f"{_MEDMNIST.get(own, own.capitalize())}MNIST"
    return PurePath(name).name


def _rows(material: Material, name: str, answer: Answer, costs: list[str]) -> list[dict[str, Any]]:
    """The models, best by score first."""
    models = material.models_of(name).set_index(KEYS).to_dict("index")
    resources = material.resources(name)
    curves = _curves(material, name)
    use = _of_use(material, name)
    found = []
    for row in answer.models.sort_values("score", ascending=False).to_dict("records"):
        key = (row["model"], row["variant"])
        model, (wh, guessed) = models[key], use.get(key, (None, False))
        found.append(
            {
                "label": row["label"],
                "p": _number(row[PERFORMANCE]),
                **{k: _value(row[k]) for k in _ROW},
                **{k: _value(model[k]) for k in _MODEL},
                "codes": list(row["codes"]),
                "costs": {c: _number(row[c]) for c in costs},
                "low": {c: _number(row[f"{c}_low"]) for c in costs},
                "high": {c: _number(row[f"{c}_high"]) for c in costs},
                "noise": {c: _number(row[f"{c}_noise"]) for c in costs},
                "R": {c: _number(model[f"R {c}"]) for c in resources},
                "wh_per_image": wh,
                "use_estimated": guessed,
                "curve": curves.get(key, []),
            }
        )
    return found


def _curves(material: Material, name: str) -> dict[Any, list[float | None]]:
    """P after each epoch, the mean over the runs of a model; some epochs of a long training."""
    runs = material.runs_of(name)[["run_id", *KEYS]]
    epochs = material.epochs
    if PERFORMANCE not in epochs:
        return {}
    joined = epochs[["run_id", "step", PERFORMANCE]].merge(runs, on="run_id").dropna()
    means = joined.groupby([*KEYS, "step"])[PERFORMANCE].mean()
    found = {}
    for key, curve in means.groupby(KEYS):
        points = [_number(v) for v in curve]
        every = math.ceil(len(points) / _MOST_STEPS)
        found[key] = points[:-1:every] + points[-1:]
    return found


def _of_use(material: Material, name: str) -> Mapping[Any, tuple[float | None, bool]]:
    """The energy to classify an image and whether it is estimated, of models of which all runs have
    it; of none where profiles do not compare."""
    runs, use = material.runs_of(name), material.question(name).use or _USE
    try:
        lifetime.with_use(runs, name, use)
    except WrongUse:
        return {}
    doubts = doubtful(runs, form_of(use.metric), "energy_source")
    estimated = doubts.groupby([runs[key] for key in KEYS]).any()
    known = runs.groupby(KEYS)[use.column].agg(lambda wh: wh.mean(skipna=False)).dropna()
    return {key: (_number(wh), bool(estimated[key])) for key, wh in known.items()}


def _intensity(material: Material, name: str) -> float | None:
    """CO2e of a kWh in g with the losses of the data centre, where it is the same for all runs."""
    question, runs = material.question(name), material.runs_of(name)
    pue = runs["pue"].fillna(1.0)
    grams = runs["carbon_intensity_g_per_kwh"]
    if question.intensity is not None:
        grams = pd.Series(question.intensity.g_per_kwh, runs.index)
    product = (grams * pue).unique()
    return _number(product[0]) if len(product) == 1 else None


def _value(value: Any) -> Any:
    if isinstance(value, str | bool) or value is None:
        return value
    return None if pd.isna(value) else _number(value)


def _number(value: Any) -> float | None:
    """Seven digits: more would only be weight."""
    return float(f"{value:.7g}") if math.isfinite(value) else None
