"""Which arithmetic, memory layout and launch is fastest: a trial of some training steps in each.

What is trained in the trial is thrown away, so that the training afterwards is the one that the
same setting would have been if it had been asked for by name.
"""

from __future__ import annotations

import copy
import gc
import hashlib
import itertools
import json
import math
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from pepr_mlops import tracking
from pepr_mlops.costs.device import Device
from pepr_mlops.costs.forecast import window_cost
from pepr_mlops.costs.recorder import Recorder
from pepr_mlops.data.splits import Splits
from pepr_mlops.errors import WorkFailed
from pepr_mlops.spec import AUTO, LATER, TRIED, RunSpec
from pepr_mlops.train import models, trainer
from pepr_mlops.train.cuda_graphs import UNRECORDED
from pepr_mlops.train.failures import explained
from pepr_mlops.train.progress import energy_text

if TYPE_CHECKING:
    from pepr_mlops.tracking import Run
    from pepr_mlops.train.cuda_graphs import Pool

Setting = tuple[str, ...]  # what each field of TRIED is
Steps = Callable[[int], float]  # trains so many steps and says how many seconds they took

_BLOCK_S = 0.1  # of steps in a row, or the clock and the waiting for the device weigh too much
_TURNS, _ENOUGH_S = 5, 4.0  # both are reached, ...
_FEW_TURNS, _TOO_LONG_S = 3, 12.0  # ... or both of these, where steps are long
_OUT_OF_REACH = 1.5  # times as slow as the fastest: not tried further
_GAIN = 0.97  # of the first setting's time, for what may be chance below that


@dataclass(frozen=True)
class Trial:
    """The spec with the fastest setting, and in words what a step took in each and what could not
    be decided."""

    spec: RunSpec
    report: str


def settle(
    spec: RunSpec,
    splits: Splits,
    recorder: Recorder,
    logged: Run,
    machine: str,
    note: Callable[[str], None],
) -> RunSpec:
    """The spec with the setting that a trial chooses, which is logged.

    The trial is made once for a model on one kind of `machine` (`device.hardware_text`) in an
    experiment: other runs use what it chose. What it takes is logged apart from the costs of
    training, also when it fails.
    """
    names = [name for name in TRIED if getattr(spec, name) == AUTO]
    found = _chosen_before(spec, names, splits, logged, machine, note)
    if found is not None:
        spec = replace(spec, **found)
        note(f"{spec.model}: {', '.join(words(spec))}, as an earlier run chose")
        return spec
    note(f"{spec.model}: tries which setting is fastest on {recorder.device}")
    try:
        with recorder.phase("trial", "trial") as tried:
            trial = fastest(spec, splits, recorder.device.torch_device)
    except BaseException:
        with suppress(Exception):  # server or device may be gone; the first error is shown
            logged.log(recorder.costs.metrics(None, 1.0), 0)
            logged.tag(recorder.closing_tags(failed=True))
        raise
    took = window_cost(tried.window)
    logged.log(recorder.costs.metrics(None, 1.0), 0)
    energy = energy_text(took.energy_wh, recorder.source)
    report = f"{trial.report}; took {took.time_s:.1f} s, energy {energy}"
    note(f"{spec.model}: {', '.join(words(trial.spec))} ({report})")
    chosen = {f"pepr.{name}": getattr(trial.spec, name) for name in names}
    logged.tag({**chosen, "pepr.tried": report})
    return trial.spec


def _chosen_before(
    spec: RunSpec,
    names: Sequence[str],
    splits: Splits,
    logged: Run,
    machine: str,
    note: Callable[[str], None],
) -> dict[str, Any] | None:
    """What another run has chosen for these fields; None where this one has to try."""
    why = "the run is offline"
    if logged.run_id:
        digest = key(spec, splits, machine)
        try:
            return tracking.choice_of_others(logged, digest, names, note)
        except WorkFailed as error:
            why = str(error)
    note(f"{spec.model}: tries settings without knowing what other runs chose ({why})")
    return None


def fastest(spec: RunSpec, splits: Splits, device: torch.device) -> Trial:
    """Settle what `spec` leaves to a trial: its precision, layout and launch, or some of them.

    All settings train on the first images of `splits.train`, in turns, and `chosen` decides. Raises
    `WrongUse` as `models.build`, and `WorkFailed` as `loop.fit` where no setting can be trained.
    """
    network = models.build(
        spec.model,
        classes=len(splits.classes),
        channels=splits.channels,
        image_size=spec.image_size,
        pretrained=False,
    )
    images = min(spec.batch_size, len(splits.train))
    few = replace(
        splits,
        train=splits.train.take(np.arange(images)),
        val=splits.val.take(np.arange(1)),
        test=splits.test.take(np.arange(1)),
    )
    running: dict[Setting, Steps] = {}
    impossible: dict[Setting, WorkFailed] = {}
    # Memory of their own for each would leave too little for the others on a small GPU.
    pool = torch.cuda.graph_pool_handle() if device.type == "cuda" else None
    left = settings(spec, device)
    while left:
        asked = _with(spec, setting := left.pop(0))
        try:
            running[setting] = _steps(asked, few, copy.deepcopy(network), device, pool)
            continue
        except WorkFailed as error:
            impossible[setting] = _bare(error)
        gc.collect()
        if impossible[setting].reason == "graph_failed":  # in no other setting will it be one
            if spec.launch == "graph":
                break
            kernels = settings(replace(spec, launch="kernels"), device)
            left = [s for s in kernels if s not in running]
        if pool is not None:  # memory in which a recording broke off takes no other
            pool = torch.cuda.graph_pool_handle()
    step_s = compare(running, impossible)
    found = [
        *((setting, f"{1000 * median(times):.3g} ms") for setting, times in step_s.items()),
        *((setting, error.reason) for setting, error in impossible.items()),
    ]
    tried = [" ".join([*words(_with(spec, setting)), came_to]) for setting, came_to in found]
    report = f"{', '.join(tried)} for {images} images"
    setting, noisy = chosen(step_s)
    if noisy:
        unsure = ", ".join(" ".join(words(_with(spec, other))) for other in noisy)
        report += f"; too noisy to decide on {unsure}"
    return Trial(_with(spec, setting), report)


def key(spec: RunSpec, splits: Splits, machine: str) -> str:
    """What runs must share to train with one choice: a digest of the experiment, the model, the
    `machine` (`device.hardware_text`) and what else decides how long a step takes."""
    settings = ("model", "image_size", "batch_size", "intensities", "deterministic", *TRIED)
    shared = [machine, spec.experiment_name, splits.channels, *(getattr(spec, s) for s in settings)]
    return hashlib.sha256(json.dumps(shared).encode()).hexdigest()[:16]


def words(spec: RunSpec) -> list[str]:
    """The setting of a spec as people read it: what jobs did before there was a choice is left
    out."""
    return [value for name in TRIED if (value := getattr(spec, name)) != LATER.get(name)]


def settings(spec: RunSpec, device: torch.device) -> list[Setting]:
    """What there is to try, the plainest first: arithmetic and graphs that the hardware has.

    Of what can be tried with and without graphs only the plainest is without: a graph is no slower.
    """
    graph = device.type == "cuda"
    choices = {
        "precision": _precisions(device),
        "layout": ["contiguous", "channels_last"],
        "launch": ["graph" if graph else "kernels"],
    }
    asked = {name: getattr(spec, name) for name in TRIED}
    found = list(itertools.product(*(choices[n] if v == AUTO else [v] for n, v in asked.items())))
    if graph and spec.launch == AUTO:
        found.insert(0, _setting(replace(_with(spec, found[0]), launch="kernels")))
    return found


def _setting(spec: RunSpec) -> Setting:
    return tuple(getattr(spec, name) for name in TRIED)


def _with(spec: RunSpec, setting: Setting) -> RunSpec:
    fields: dict[str, Any] = dict(zip(TRIED, setting, strict=True))
    return replace(spec, **fields)


def _precisions(device: torch.device) -> list[str]:
    """Without instructions of its own a precision is emulated, tens of times as slow."""
    if device.type == "cuda":
        ampere = torch.cuda.get_device_capability(device) >= (8, 0)
        return ["fp32", "tf32", "bf16"] if ampere else ["fp32", "fp16"]
    one_dnn = torch.backends.mkldnn.is_available()
    if device.type == "cpu" and one_dnn and torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return ["fp32", "bf16"]
    return ["fp32"]


def _steps(
    spec: RunSpec,
    splits: Splits,
    network: torch.nn.Module,
    device: torch.device,
    pool: Pool | None,
) -> Steps:
    """Steps on all training images of `splits` at once, warmed up; raises as `loop.fit`."""
    batch = torch.arange(len(splits.train))
    wait = Device(device).synchronize
    training: trainer.Trainer | None = None

    def steps(n: int) -> float:
        nonlocal training
        with explained(spec, 0):
            trainer.prepare(spec, device)  # the precision of fp32 operations is the process's
            training = training or trainer.Trainer(spec, splits, network, device, pool)
            started = time.perf_counter()
            training.steps_of([batch] * n)
            wait()
        return time.perf_counter() - started

    steps(UNRECORDED + 1 if spec.launch == "graph" else 1)
    return steps


def _bare(error: WorkFailed) -> WorkFailed:
    """Without its frames, which would keep what failed in the memory of the device."""
    return WorkFailed(str(error), reason=error.reason)


def compare(
    running: dict[Setting, Steps], impossible: dict[Setting, WorkFailed]
) -> dict[Setting, list[float]]:
    """Seconds of a step in each setting, turn by turn; those far behind miss the later turns.

    One that cannot go on moves from `running` to `impossible`. Raises its error if none is left.
    """
    at_once: dict[Setting, int] = {}
    step_s: dict[Setting, list[float]] = {setting: [] for setting in running}
    left = list(running)
    took_s = 0.0
    for turn in itertools.count(1):
        for setting in left if turn % 2 else left[::-1]:  # a drift weighs on all alike
            try:
                if setting not in at_once:
                    at_once[setting] = max(1, math.ceil(_BLOCK_S / running[setting](1)))
                block_s = running[setting](at_once[setting])
            except WorkFailed as error:  # the others have too much of the memory for it
                impossible[setting] = _bare(error)
                del running[setting], step_s[setting]
                continue
            step_s[setting].append(block_s / at_once[setting])
            took_s += block_s
        left = [setting for setting in left if setting in running]
        if not left:
            raise next(iter(impossible.values()))
        if turn >= _FEW_TURNS:
            best_s = min(median(step_s[setting]) for setting in left)
            left = [s for s in left if median(step_s[s]) <= _OUT_OF_REACH * best_s]
        if (
            len(left) == 1
            or (turn >= _TURNS and took_s >= _ENOUGH_S)
            or (turn >= _FEW_TURNS and took_s >= _TOO_LONG_S)
        ):
            return step_s
    raise AssertionError  # counting has no end


def chosen(step_s: dict[Setting, list[float]]) -> tuple[Setting, list[Setting]]:
    """The fastest setting, and those that are too noisy to tell.

    `step_s` are seconds of a step, turn by turn. A setting takes the place of one before it, and so
    of the default, which is the first, where it is faster in every turn that both had and by more
    than 3 % in the median. One that only has such a median may be faster or not.
    """
    best, *others = step_s
    for setting in others:
        if _faster(step_s[setting], step_s[best]) and _always(step_s[setting], step_s[best]):
            best = setting
    noisy = [s for s in step_s if s != best and _faster(step_s[s], step_s[best])]
    return best, noisy


def _faster(these: list[float], those: list[float]) -> bool:
    return median(a / b for a, b in zip(these, those, strict=False)) < _GAIN


def _always(these: list[float], those: list[float]) -> bool:
    return all(a < b for a, b in zip(these, those, strict=False))
