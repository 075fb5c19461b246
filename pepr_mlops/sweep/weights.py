"""Which file of a folder has the weights of which model."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from pepr_mlops.errors import WrongUse
from pepr_mlops.spec import RunSpec
from pepr_mlops.train.models import RENAMED

SUFFIXES = (".safetensors", ".pth", ".bin")
_LISTED = 10  # models of an error


def in_folder(specs: Sequence[RunSpec], folder: Any) -> list[RunSpec]:
    """The same jobs, those that are pretrained with the file of their model in the folder."""
    wanted = list(dict.fromkeys(spec.model for spec in specs if spec.pretrained))
    if not wanted:
        raise WrongUse(
            "weights_dir: training from scratch takes no weights; give either weights_dir or "
            "pretrained=false"
        )
    if any(spec.weights is not None for spec in specs):
        raise WrongUse("weights_dir: give either weights_dir or weights, not both")
    try:
        names = os.listdir(folder)
    except (OSError, TypeError) as error:
        why = getattr(error, "strerror", None) or "it is no path"
        raise WrongUse(
            f"weights_dir: {folder} cannot be listed ({why}); give the folder with the files of "
            "weights",
            reason="missing_weights",
        ) from error
    files = choose(wanted, names, os.path.abspath(folder))
    return [
        replace(spec, weights=os.path.join(folder, files[spec.model])) if spec.pretrained else spec
        for spec in specs
    ]


def choose(models: Sequence[str], names: Iterable[str], folder: str) -> dict[str, str]:
    """The file of each model among the `names` of files in `folder`.

    It is called by the model and one of `SUFFIXES`; of a model that is named without timm's tag it
    may have any tag (`resnet18d.ra2_in1k.safetensors`), and of one that timm has renamed since the
    paper its name of today. Raises `WrongUse` for models without a file, or with several.
    """
    files: dict[str, list[str]] = {}
    for name in sorted(names):
        stem = next((name.removesuffix(s) for s in SUFFIXES if name.endswith(s)), None)
        if stem is not None:
            for called in {stem, stem.partition(".")[0]}:
                files.setdefault(called, []).append(name)
    found = {
        model: [*files.get(model, []), *files.get(RENAMED.get(model, ""), [])] for model in models
    }
    missing = [model for model, of in found.items() if not of]
    if missing:
        more = f" and {len(missing) - _LISTED} more" if len(missing) > _LISTED else ""
        first = missing[0]
        looked_for = [f"{first}{suffix}" for suffix in SUFFIXES]
        if "." not in first:
            looked_for.append(f"{first}.TAG{SUFFIXES[0]}")
        raise WrongUse(
            f"weights_dir: {folder} has no file for {len(missing)} of {len(found)} models: "
            f"{', '.join(missing[:_LISTED])}{more}; add {' or '.join(looked_for)} (and the same "
            "for the others), or leave these models out",
            reason="missing_weights",
        )
    for model, of in found.items():
        if len(of) > 1:
            raise WrongUse(
                f"weights_dir: {folder} has several files for {model}: {', '.join(of)}; keep one "
                "of them there"
            )
    return {model: of[0] for model, of in found.items()}
