"""Chooses the fastest precision, memory layout and launch by a trial of training steps in each.

The trial discards what it trained; the training that follows is of a spec that names the setting.
"""

from __future__ import annotations

import copy
import gc
import hashlib
import itertools
import json
import math
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
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
Steps = Callable[[int], float]  # trains so many steps and returns the seconds they took

# Seconds of steps timed together; in less, the clock and the device's latency weigh too much.
_BLOCK_S = 0.1
_TURNS, _ENOUGH_S = 5, 4.0  # a trial ends when both are reached, ...
_FEW_TURNS, _TOO_LONG_S = 3, 12.0  # ... or both of these, where steps are long
_TOO_SLOW = 1.5  # times the fastest: dropped from later turns
_GAIN = 0.97  # of the other setting's time; a smaller gain may be chance


def settle(
    spec: RunSpec,
    splits: Splits,
    recorder: Recorder,
    logged: Run,
    machine: str,
    note: Callable[[str], None],
) -> RunSpec:
    """Choose the setting by a trial, log it, and return the spec that names it.

    In an experiment one trial chooses for all runs of a model on one kind of `machine`
    (`device.hardware_text`). Its costs are logged apart from those of training, also when it fails.
    """
    names = [name for name in TRIED if getattr(spec, name) == AUTO]
    earlier, why = None, "the run is offline"
    if logged.run_id:
        try:
            earlier = tracking.shared_settings(logged, key(spec, splits, machine), names, note)
            why = ""
        except WorkFailed as error:
            why = str(error)
    if why:
        note(f"{spec.model}: tries settings without knowing what other runs chose ({why})")
    if earlier is not None:
        spec = replace(spec, **earlier)
        note(f"{spec.model}: {', '.join(words(spec))}, as an earlier run chose")
        return spec
    note(f"{spec.model}: tries which setting is fastest on {recorder.device}")
    try:
        with recorder.phase("trial", "trial") as tried:
            spec, report = fastest(spec, splits, recorder.device.torch_device)
    except BaseException:
        with suppress(Exception):  # server or device may be gone: show the first error
            logged.log(recorder.costs.metrics(None, 1.0), 0)
            logged.tag(recorder.closing_tags(failed=True))
        raise
    took = window_cost(tried.window)
    logged.log(recorder.costs.metrics(None, 1.0), 0)
    report += f"; took {took.time_s:.1f} s, energy {energy_text(took.energy_wh, recorder.source)}"
    note(f"{spec.model}: {', '.join(words(spec))} ({report})")
    logged.tag({**{f"pepr.{name}": getattr(spec, name) for name in names}, "pepr.tried": report})
    return spec


def fastest(spec: RunSpec, splits: Splits, device: torch.device) -> tuple[RunSpec, str]:
    """Choose what `spec` leaves to a trial: its precision, layout and launch, or some of them.

    All settings train on the first images of `splits.train` in turns, and `chosen` decides. The
    text has the time of a step in each, and the settings too noisy to decide on. Raises
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
    one = np.arange(1)
    train = splits.train.take(np.arange(images))
    few = replace(splits, train=train, val=splits.val.take(one), test=splits.test.take(one))
    running: dict[Setting, Steps] = {}
    impossible: dict[Setting, WorkFailed] = {}
    # With a pool for each setting a small GPU would run out of memory.
    pool = torch.cuda.graph_pool_handle() if device.type == "cuda" else None
    left = settings(spec, device)
    while left:
        candidate = _with(spec, setting := left.pop(0))
        try:
            running[setting] = _steps(candidate, few, copy.deepcopy(network), device, pool)
            continue
        except WorkFailed as error:
            impossible[setting] = _bare(error)
        gc.collect()
        if impossible[setting].reason == "graph_failed":  # and in every other setting
            if spec.launch == "graph":
                break
            kernels = settings(replace(spec, launch="kernels"), device)
            left = [s for s in kernels if s not in running]
        if pool is not None:  # a pool in which a recording failed takes no other
            pool = torch.cuda.graph_pool_handle()
    step_s = compare(running, impossible)
    results = {setting: f"{1000 * median(times):.3g} ms" for setting, times in step_s.items()}
    results |= {setting: error.reason for setting, error in impossible.items()}
    tried = [" ".join([*words(_with(spec, setting)), text]) for setting, text in results.items()]
    report = f"{', '.join(tried)} for {images} images"
    setting, noisy = chosen(step_s)
    if noisy:
        unsure = ", ".join(" ".join(words(_with(spec, other))) for other in noisy)
        report += f"; too noisy to decide on {unsure}"
    return _with(spec, setting), report


def key(spec: RunSpec, splits: Splits, machine: str) -> str:
    """A digest of the experiment and of what decides the time of a step, such as the `machine`
    (`device.hardware_text`): runs that share it train with one choice."""
    settings = ("model", "image_size", "batch_size", "intensities", "deterministic", *TRIED)
    shared = [machine, spec.experiment_name, splits.channels, *(getattr(spec, s) for s in settings)]
    return hashlib.sha256(json.dumps(shared).encode()).hexdigest()[:16]


def words(spec: RunSpec) -> list[str]:
    """The setting of a spec in words, without values that were fixed before there was a choice."""
    return [value for name in TRIED if (value := getattr(spec, name)) != LATER.get(name)]


def settings(spec: RunSpec, device: torch.device) -> list[Setting]:
    """The settings to try on this hardware, the plainest first.

    Where graphs are possible, only the plainest is also tried without: a graph is no slower.
    """
    graph = device.type == "cuda"
    choices = {
        "precision": _precisions(device),
        "layout": ["contiguous", "channels_last"],
        "launch": ["graph" if graph else "kernels"],
    }
    requested = {name: getattr(spec, name) for name in TRIED}
    product = itertools.product(*(choices[n] if v == AUTO else [v] for n, v in requested.items()))
    found: list[Setting] = list(product)
    if graph and spec.launch == AUTO:
        plainest = replace(_with(spec, found[0]), launch="kernels")
        found.insert(0, tuple(getattr(plainest, name) for name in TRIED))
    return found


def _with(spec: RunSpec, setting: Setting) -> RunSpec:
    fields: dict[str, Any] = dict(zip(TRIED, setting, strict=True))
    return replace(spec, **fields)


def _precisions(device: torch.device) -> list[str]:
    """Precisions that the device has instructions for: emulated ones are tens of times slower."""
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
    """Steps on one batch of all training images, warmed up; raises as `loop.fit`."""
    batch = torch.arange(len(splits.train))
    wait = Device(device).synchronize
    training: trainer.Trainer | None = None

    def steps(n: int) -> float:
        nonlocal training
        with explained(spec, 0):
            trainer.prepare(spec, device)  # fp32 operations have one precision per process
            training = training or trainer.Trainer(spec, splits, network, device, pool)
            started = time.perf_counter()
            training.train_on([batch] * n)
            wait()
        return time.perf_counter() - started

    steps(UNRECORDED + 1 if spec.launch == "graph" else 1)
    return steps


def _bare(error: WorkFailed) -> WorkFailed:
    """The error without its frames, which would keep tensors in the memory of the device."""
    return WorkFailed(str(error), reason=error.reason)


def compare(
    running: dict[Setting, Steps], impossible: dict[Setting, WorkFailed]
) -> dict[Setting, list[float]]:
    """Seconds of a step in each setting, turn by turn; slow ones are dropped from later turns.

    A setting that fails moves from `running` to `impossible`; if all fail, the first error is
    raised.
    """
    at_once: dict[Setting, int] = {}
    step_s: dict[Setting, list[float]] = {setting: [] for setting in running}
    left = list(running)
    took_s = 0.0
    for turn in itertools.count(1):
        for setting in left if turn % 2 else left[::-1]:  # so that a drift affects all alike
            try:
                if setting not in at_once:
                    at_once[setting] = max(1, math.ceil(_BLOCK_S / running[setting](1)))
                block_s = running[setting](at_once[setting])
            except WorkFailed as error:  # the others take too much memory
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
            left = [s for s in left if median(step_s[s]) <= _TOO_SLOW * best_s]
        enough = turn >= _TURNS and took_s >= _ENOUGH_S
        if enough or len(left) == 1 or (turn >= _FEW_TURNS and took_s >= _TOO_LONG_S):
            return step_s
    raise AssertionError  # counting has no end


def chosen(step_s: dict[Setting, list[float]]) -> tuple[Setting, list[Setting]]:
    """The fastest setting, and those too noisy to decide on.

    `step_s` are seconds of a step, turn by turn. A setting replaces an earlier one, the first being
    the default, if it is faster in every turn that both had and by more than 3% in the median.
    With such a median alone it is noisy.
    """

    def ratios(setting: Setting, other: Setting) -> list[float]:
        return [a / b for a, b in zip(step_s[setting], step_s[other], strict=False)]

    best, *others = step_s
    for setting in others:
        ratio = ratios(setting, best)
        if median(ratio) < _GAIN and max(ratio) < 1:
            best = setting
    return best, [s for s in step_s if s != best and median(ratios(s, best)) < _GAIN]
