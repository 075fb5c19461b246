"""Which file of a folder has the weights of which model. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pepr_mlops.errors import WrongUse
from pepr_mlops.models import RENAMED

SUFFIXES = (".safetensors", ".pth", ".bin")
_LISTED = 10  # models of an error


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
            f"{', '.join(missing[:_LISTED])}{more}; put there {' or '.join(looked_for)} (alike for "
            "others), or leave these models out",
            reason="missing_weights",
        )
    for model, of in found.items():
        if len(of) > 1:
            raise WrongUse(
                f"weights_dir: {folder} has several files for {model}: {', '.join(of)}; keep one "
                "of them there"
            )
    return {model: of[0] for model, of in found.items()}
