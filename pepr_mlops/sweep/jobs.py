"""The jobs of a sweep, made from models, data sets and settings, and their downloads."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pepr_mlops.errors import WrongUse
from pepr_mlops.spec import Job, RunSpec
from pepr_mlops.sweep.plan import expand
from pepr_mlops.train.models import RENAMED

SUFFIXES = (".safetensors", ".pth", ".bin")
_CATEGORIES = {
    "small": ("size", "small"),
    "large": ("size", "large"),
    "efficient": ("efficient", True),
    "inefficient": ("efficient", False),
    "cnn": ("kind", "CNN"),
    "other": ("kind", "Other"),
}
_LISTED = 10  # models in an error
_BYTES_PER_WEIGHT = 4


def jobs(grid: Mapping[str, Any]) -> list[Job]:
    """The jobs of a grid as `plan.expand`, each once. Its models may be selectors as in `models`.

    The grid may also have `weights_dir`, a folder with the file of each model, as in
    `choose_weights`. Raises `WrongUse` also for models and countries that do not exist, and as
    `data.identify`.
    """
    from pepr_mlops.costs import carbon
    from pepr_mlops.data import check_name as check_data
    from pepr_mlops.data import identify_all
    from pepr_mlops.paper_models import paper_models
    from pepr_mlops.train.models import check_name

    selectors = grid.get("model", RunSpec.model)
    names = models(map(str, selectors if isinstance(selectors, list) else [selectors]))
    settings = {key: value for key, value in grid.items() if key != "weights_dir"}
    specs = expand({**settings, "model": names})
    for dataset in dict.fromkeys(spec.dataset for spec in specs):
        check_data(dataset)
    for grid_of_country in dict.fromkeys((s.country, s.carbon_intensity) for s in specs):
        carbon.resolve(*grid_of_country)
    known = {m.model for m in paper_models()}  # timm has them all, and takes seconds to import
    for name in names:
        if name not in known:
            check_name(name)
    if "weights_dir" in grid:
        specs = _with_weights(specs, grid["weights_dir"])
    unique: dict[str, Job] = {}
    for job in identify_all(map(_absolute, specs)):
        unique.setdefault(job.fingerprint, job)
    return list(unique.values())


def _absolute(spec: RunSpec) -> RunSpec:
    """The same job wherever its worker runs: `./images` of two projects are two data sets."""
    from pepr_mlops.data import NAMES

    files = {
        name: os.path.abspath(path)
        for name in ("dataset", "images", "weights")
        if (path := getattr(spec, name)) is not None and path not in NAMES
    }
    external = spec.external
    if external is not None:
        from pepr_mlops.data.own.external import paths

        own = {name: os.path.abspath(path) for name, path in paths(external).items()}
        external = ",".join(f"{name}={path}" for name, path in own.items())
    return replace(spec, **files, external=external)


def models(selectors: Iterable[str]) -> list[str]:
    """Names of models from names, globs over timm's, and the paper's table, each once.

    `paper` selects all 131 models of the paper, and `paper:small+efficient` those in all named
    categories (small, large, efficient, inefficient, cnn, other, or a glob). Raises `WrongUse` for
    a selector that matches nothing.
    """
    names: list[str] = []
    for selector in selectors:
        kind, _, categories = selector.partition(":")
        if kind == "paper":
            matching = _of_the_paper(list(filter(None, categories.split("+"))))
        elif _is_glob(selector):
            import timm

            matching = fnmatch.filter(timm.list_models(), selector)
        else:
            matching = [selector]
        if not matching:
            raise WrongUse(
                f"model: {selector!r} matches no model; `pepr models` lists the paper's, "
                "timm.list_models() all"
            )
        names += matching
    return list(dict.fromkeys(names))


def _is_glob(text: str) -> bool:
    return any(c in text for c in "*?[")


def _of_the_paper(categories: Sequence[str]) -> list[str]:
    from pepr_mlops.paper_models import select

    conditions: dict[str, Any] = {}
    for category in categories:
        key, value = _CATEGORIES.get(category.lower(), ("name", category))
        if key == "name" and not _is_glob(category):
            raise WrongUse(
                f"model: paper:{category} is not one of {', '.join(_CATEGORIES)} or a glob"
            )
        if conditions.setdefault(key, value) != value:
            return []
    return [m.model for m in select(**conditions)]


def _with_weights(specs: Sequence[RunSpec], folder: Any) -> list[RunSpec]:
    """The same jobs, where the pretrained ones have the file of their model in the folder."""
    pretrained = list(dict.fromkeys(spec.model for spec in specs if spec.pretrained))
    if not pretrained:
        raise WrongUse(
            "weights_dir: training from scratch takes no weights; give either weights_dir or "
            "pretrained=false"
        )
    if any(spec.weights is not None for spec in specs):
        raise WrongUse("weights_dir: give either weights_dir or weights, not both")
    try:
        names = os.listdir(folder)
    except (OSError, TypeError) as error:
        why = getattr(error, "strerror", None) or "it is not a path"
        raise WrongUse(
            f"weights_dir: {folder} cannot be listed ({why}); give the folder with the files of "
            "weights",
            reason="missing_weights",
        ) from error
    files = choose_weights(pretrained, names, os.path.abspath(folder))
    return [
        replace(spec, weights=os.path.join(folder, files[spec.model])) if spec.pretrained else spec
        for spec in specs
    ]


def choose_weights(models: Sequence[str], names: Iterable[str], folder: str) -> dict[str, str]:
    """The file of each model among the `names` of files in `folder`.

    A file is named after its model, with one of `SUFFIXES`. For a model without a tag, the file may
    have any tag (`resnet18d.ra2_in1k.safetensors`); for a model that timm has renamed since the
    paper, it may have the new name. Raises `WrongUse` for models with no file, or with several.
    """
    by_stem: dict[str, list[str]] = {}
    for name in sorted(names):
        stem, suffix = os.path.splitext(name)
        if suffix in SUFFIXES:
            for model in {stem, stem.partition(".")[0]}:
                by_stem.setdefault(model, []).append(name)
    by_stem.pop("", None)  # hidden files, such as those that macOS adds
    files = {
        model: [*by_stem.get(model, []), *by_stem.get(RENAMED.get(model, ""), [])]
        for model in models
    }
    missing = [model for model, own in files.items() if not own]
    if missing:
        more = f" and {len(missing) - _LISTED} more" if len(missing) > _LISTED else ""
        first = missing[0]
        valid = [f"{first}{suffix}" for suffix in SUFFIXES]
        if "." not in first:
            valid.append(f"{first}.TAG{SUFFIXES[0]}")
        raise WrongUse(
            f"weights_dir: {folder} has no file for {len(missing)} of {len(files)} models: "
            f"{', '.join(missing[:_LISTED])}{more}; add {' or '.join(valid)} (and the same "
            "for the others), or leave these models out",
            reason="missing_weights",
        )
    for model, own in files.items():
        if len(own) > 1:
            raise WrongUse(
                f"weights_dir: {folder} has several files for {model}: {', '.join(own)}; keep one "
                "of them there"
            )
    return {model: own[0] for model, own in files.items()}


def parameters(specs: Sequence[Job]) -> dict[str, int]:
    """Number of weights of the models, from the paper's table or counted without making them."""
    from pepr_mlops.paper_models import paper_models
    from pepr_mlops.train.models import count_parameters

    known = {m.model: m.parameters for m in paper_models()}
    return {
        name: known[name] if name in known else count_parameters(name)
        for name in dict.fromkeys(spec.model for spec in specs)
    }


def weights_gb(specs: Iterable[Job], sizes: Mapping[str, int]) -> float:
    """GB of the weights that the runs of these jobs may keep: two files where they keep `both`.
    `sizes` are `parameters`."""
    files = {"none": 0, "both": 2}
    return sum(sizes[s.model] * _BYTES_PER_WEIGHT * files.get(s.keep, 1) for s in specs) / 1e9


def downloads(specs: Sequence[Job]) -> str:
    """The downloads that these jobs need first: weights by size, data sets by name."""
    from pepr_mlops.data import missing
    from pepr_mlops.train.models import cached_models

    parts = []
    names = {s.model for s in specs if s.pretrained and s.weights is None} - cached_models()
    if names:
        sizes = parameters(specs)
        size_gb = sum(sizes[name] for name in names) * _BYTES_PER_WEIGHT / 1e9
        parts.append(f"weights of {len(names)} models, about {size_gb:.2g} GB")
    parts += dict.fromkeys(name for spec in specs if (name := missing(spec)) is not None)
    return "; ".join(parts) or "nothing"
