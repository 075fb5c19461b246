"""How far training is, on standard error: a bar where someone watches, and a line per epoch."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from pepr_mlops.spec import RunSpec
from pepr_mlops.text import printable


class Silent:
    """Shows nothing. `Printed` and progress of your own have its methods.

    `source` says how the energy is known.
    """

    def __init__(self, spec: RunSpec, source: str) -> None:
        self._spec, self._source = spec, source

    def note(self, text: str) -> None: ...

    def start_epoch(self, epoch: int, steps: int) -> None: ...

    def step(self, done: int, loss: float, images_per_s: float) -> None: ...

    def end_epoch(self, metrics: Mapping[str, float]) -> None:
        """`metrics` are those of the epoch, with a forecast of all epochs unless it is the last."""


class Printed(Silent):
    """Shows epoch, loss, images/s, training energy so far and, after the first epoch, a forecast of
    the energy and time of all epochs."""

    _epoch = _done = 0
    _cost = ""  # of the epochs before
    _bar: Any = None

    def note(self, text: str) -> None:
        with suppress(OSError):  # the reader is gone or the disk is full: train on
            # One write, since another thread may print as well.
            print(f"{printable(text)}\n", end="", file=sys.stderr, flush=True)

    def start_epoch(self, epoch: int, steps: int) -> None:
        self._epoch, self._done = epoch, 0
        if _watched():
            from tqdm.auto import tqdm

            self._bar = tqdm(total=steps, leave=False, dynamic_ncols=True, unit="step")
            self._bar.set_description(f"epoch {epoch}/{self._spec.epochs}")

    def step(self, done: int, loss: float, images_per_s: float) -> None:
        if self._bar is None:
            return
        self._bar.set_postfix_str(f"loss {loss:.4f}, {images_per_s:.0f} images/s{self._cost}")
        self._bar.update(done - self._done)
        self._done = done

    def end_epoch(self, metrics: Mapping[str, float]) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        energy_wh = metrics.get("energy/train_wh")
        so_far = "" if energy_wh is None else " so far"
        self._cost = f", training energy {energy_text(energy_wh, self._source)}{so_far}"
        if "forecast/train_s" in metrics:
            train_s = metrics["forecast/train_s"]
            wh = metrics.get("forecast/train_wh")
            at_most = "" if self._spec.patience is None else "at most "
            self._cost += (
                f"; forecast of {at_most}{self._spec.epochs} epochs: training "
                f"{'' if wh is None else f'{wh:.3g} Wh, '}{seconds_text(train_s)}, "
                f"with evaluation {seconds_text(train_s + metrics['forecast/eval_s'])}"
            )
        self.note(
            f"epoch {self._epoch}/{self._spec.epochs}: loss {metrics['train/loss']:.4f}, "
            f"val accuracy {metrics['val/accuracy']:.4f}, "
            f"{metrics['time/images_per_s']:.0f} images/s{self._cost}"
        )


def where_watched(spec: RunSpec, source: str) -> Silent:
    """`Printed` on a terminal and in a notebook, else `Silent`, as in scripts and tests."""
    return Printed(spec, source) if _watched() else Silent(spec, source)


def _watched() -> bool:
    """Whether a person sees standard error: on a terminal, or in the kernel of a notebook."""
    if sys.stderr is not None and sys.stderr.isatty():
        return True
    python = sys.modules.get("IPython")
    shell = None if python is None else python.get_ipython()
    return shell is not None and "IPKernelApp" in shell.config


def energy_text(energy_wh: float | None, source: str) -> str:
    """Energy and its source: never a number without it."""
    return "not known" if energy_wh is None else f"{energy_wh:.4g} Wh ({source})"


def seconds_text(seconds: float) -> str:
    """In seconds, minutes or hours, whichever reads best."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    if seconds < 7200:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:.1f} h"
