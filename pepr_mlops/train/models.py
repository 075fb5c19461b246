"""Building any timm model for a data set."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pepr_mlops.errors import WorkFailed, WrongUse, nearest, one_line
from pepr_mlops.paper_models import paper_models

if TYPE_CHECKING:
    import torch

# Models that timm has renamed since the paper; the tag selects the weights the paper fine-tuned,
# except of xception65, whose Gluon weights timm no longer has.
RENAMED = {
    "adv_inception_v3": "inception_v3.tf_adv_in1k",
    "gluon_inception_v3": "inception_v3.gluon_in1k",
    "gluon_resnet152_v1b": "resnet152.gluon_in1k",
    "gluon_resnet34_v1b": "resnet34.gluon_in1k",
    "gluon_resnext101_32x4d": "resnext101_32x4d.gluon_in1k",
    "gluon_seresnext101_32x4d": "seresnext101_32x4d.gluon_in1k",
    "gluon_seresnext50_32x4d": "seresnext50_32x4d.gluon_in1k",
    "gluon_xception65": "xception65",
}

_HUB_TIMEOUT_S = 5.0


def timm_name(model: str) -> str:
    """Today's timm name of a model."""
    return RENAMED.get(model, model)


def check_name(model: str) -> None:
    """Raise `WrongUse` with the nearest names unless timm can build `model`."""
    import timm

    if not timm.is_model(timm_name(model)):
        raise WrongUse(
            f"model: timm has no {model!r}{nearest(model, [*timm.list_models(), *RENAMED]) or '.'} "
            "`pepr models` lists the paper's 131, timm.list_models() all"
        )


def weights_name(model: str, pretrained: bool, weights: str | None) -> str:
    """Which weights training starts from: the file, timm's tag of its weights, or `none`."""
    import timm

    if not pretrained:
        return "none"
    source: Any = timm.get_pretrained_cfg(timm_name(model))
    return os.path.basename(weights) if weights is not None else str(source.tag or "default")


def cached_models() -> set[str]:
    """The paper's models whose pretrained weights are in the cache of Hugging Face or torch."""
    from huggingface_hub import constants, try_to_load_from_cache
    from torch.hub import get_dir

    checkpoints = Path(get_dir()) / "checkpoints"
    if not os.path.isdir(constants.HF_HUB_CACHE) and not checkpoints.is_dir():
        return set()  # before importing timm, which takes seconds
    import timm

    found = set()
    for row in paper_models():
        source: Any = timm.get_pretrained_cfg(timm_name(row.model))
        hub, files = source.hf_hub_id, ("model.safetensors", "pytorch_model.bin")
        in_hub_cache = hub and any(isinstance(try_to_load_from_cache(hub, f), str) for f in files)
        if in_hub_cache or (source.url and (checkpoints / os.path.basename(source.url)).is_file()):
            found.add(row.model)
    return found


def count_parameters(model: str) -> int:
    """Weights of any timm model with its own head, counted without allocating them."""
    import timm
    import torch

    with warnings.catch_warnings(action="ignore"), torch.device("meta"):
        network = timm.create_model(timm_name(model), pretrained=False)
    return sum(p.numel() for p in network.parameters())


def build(
    model: str,
    *,
    classes: int,
    channels: int,
    image_size: int,
    pretrained: bool,
    weights: str | None = None,
) -> torch.nn.Module:
    """A timm model on the CPU with `classes` outputs for square images of `image_size` pixels.

    The head is new, and timm adapts the first layer to `channels`. Pretrained weights come from
    timm's hub, or from the file `weights`. The network is run once to check that it takes the size;
    one that is made for a fixed size is built for this one where timm can do that. Raises
    `WrongUse` for an unknown name, a size the model cannot take and weights that do not fit, and
    `WorkFailed` when the hub cannot be reached: it never trains from scratch instead.
    """
    import timm
    import torch

    check_name(model)
    refusal: Exception | None = None
    for size in ({}, {"img_size": image_size}):
        options: dict[str, Any] = {"num_classes": classes, "in_chans": channels, **size}
        try:
            with warnings.catch_warnings(action="ignore"):
                if pretrained:
                    network = _pretrained(model, weights, options)
                else:
                    network = timm.create_model(timm_name(model), pretrained=False, **options)
                network.eval()
                with torch.inference_mode():
                    network(torch.zeros(1, channels, image_size, image_size))
            return network.train()
        except (AssertionError, RuntimeError, TypeError, ValueError) as error:
            if "allocate memory" in str(error):
                raise
            refusal = refusal or error
    source: Any = timm.get_pretrained_cfg(timm_name(model), allow_unregistered=True)
    raise WrongUse(
        f"model: {model} does not take images of {image_size} pixels square; choose another "
        f"image_size, such as the {source.input_size[-1]} it was made for ({refusal or 'refused'})"
    ) from refusal


def _pretrained(model: str, weights: str | None, options: dict[str, Any]) -> torch.nn.Module:
    """A timm model with weights that are in all its layers but the head."""
    import timm
    from huggingface_hub import constants

    name = timm_name(model)
    away = None
    if weights is not None:
        _check_readable(weights)
        options = {**options, "pretrained_cfg_overlay": {"file": weights}}
    elif not timm.is_model_pretrained(name):
        raise WrongUse(
            f"model: timm has no pretrained weights for {model}; train it from scratch "
            "(--no-pretrained, -P pretrained=false) or give a file (--weights PATH)"
        )
    else:
        away = _hub_error()
    file = weights or f"the hub's file for {name}"
    cache_only = constants.HF_HUB_OFFLINE or away is not None
    with _recorded_loads() as loads, _replaced(constants, "HF_HUB_OFFLINE", cache_only):
        try:
            network: torch.nn.Module = timm.create_model(name, pretrained=True, **options)
        except Exception as error:
            if weights is None and isinstance(error, OSError):
                raise _unreachable(name, away or error) from error
            if isinstance(error, RuntimeError | KeyError):
                raise _misfit(file, model, str(error)) from error
            raise
    described: Any = network.pretrained_cfg
    heads = described.get("classifier") or ()
    replaced = tuple(f"{head}." for head in ([heads] if isinstance(heads, str) else heads))
    lost = [k for missing, _ in loads for k in missing if not k.startswith(replaced)]
    if weights is not None:  # a deeper network's file has entries this model lacks; timm's own may
        lost += [k for _, unknown in loads for k in unknown if not k.startswith((*replaced, "Aux"))]
    if lost:
        detail = f"{len(lost)} entries of the model and of the file do not match, first {lost[0]}"
        raise _misfit(file, model, detail)
    return network


@contextmanager
def _recorded_loads() -> Iterator[list[tuple[list[str], list[str]]]]:
    """Collect the missing and unexpected keys of load_state_dict, which timm only logs.

    timm loads a file with another head non-strictly: weights of another network would load as
    nothing at all, and the model would train from scratch.
    """
    import torch

    original = torch.nn.Module.load_state_dict
    loads: list[tuple[list[str], list[str]]] = []

    def recording(self: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
        result = original(self, *args, **kwargs)
        loads.append((result.missing_keys, result.unexpected_keys))
        return result

    with _replaced(torch.nn.Module, "load_state_dict", recording):
        yield loads


@contextmanager
def _replaced(owner: object, name: str, value: object) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


def _check_readable(weights: str) -> None:
    from timm.models import load_state_dict

    from pepr_mlops.data import check_file

    check_file(weights)
    try:
        state = load_state_dict(weights)
    except Exception as error:
        raise WrongUse(
            f"weights: {weights} is no readable safetensors file or state dict of tensors "
            f"({one_line(error)[:120]}); fetch it again or convert it to safetensors",
            reason="missing_weights",
        ) from error
    if not state:
        raise WrongUse(
            f"weights: {weights} holds no tensors; fetch it again", reason="missing_weights"
        )


def _misfit(weights: str, model: str, detail: str) -> WrongUse:
    first = detail.strip().splitlines()[-1 if "\n" in detail else 0].strip()
    return WrongUse(
        f"weights: {weights} does not fit {model}: {first[:200]}; give this model's own weights "
        "or train from scratch (--no-pretrained, -P pretrained=false)",
        reason="missing_weights",
    )


def _hub_error() -> Exception | None:
    """Why the hub cannot be reached, after one request: its library retries each file for a
    minute."""
    from huggingface_hub import constants, get_session

    if not constants.is_offline_mode():
        try:
            get_session().head(constants.ENDPOINT, timeout=_HUB_TIMEOUT_S)
        except Exception as error:  # of whichever HTTP library the hub uses
            return error
    return None


def _unreachable(name: str, error: Exception) -> WorkFailed:
    import timm

    cause: BaseException = error  # the hub's own sentence hides why
    while cause.__cause__ is not None:
        cause = cause.__cause__
    source: Any = timm.get_pretrained_cfg(name)
    hub = f"https://huggingface.co/{source.hf_hub_id}/resolve/main/model.safetensors"
    return WorkFailed(
        f"weights: the pretrained weights of {name} could not be fetched "
        f"({one_line(cause)[:120]}); offline: fetch {hub if source.hf_hub_id else source.url} "
        "elsewhere and pass --weights PATH (-P weights=PATH), or train from scratch "
        "(--no-pretrained, -P pretrained=false)",
        reason="missing_weights",
    )
