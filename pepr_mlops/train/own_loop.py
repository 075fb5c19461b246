"""Measures training code of your own, in any framework, as `pepr train` measures its jobs."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from pepr_mlops.costs.device import Device
from pepr_mlops.costs.meters import idle_tags
from pepr_mlops.costs.recorder import Recorder
from pepr_mlops.costs.totals import cautions
from pepr_mlops.errors import WrongUse
from pepr_mlops.names import PERFORMANCE, memory_metric
from pepr_mlops.spec import RunSpec, as_text
from pepr_mlops.tracking import Run


class Measured:
    """Returned by `measure`: report when an epoch ends and what is evaluation."""

    def __init__(self, run: Run, recorder: Recorder, setup_s: float) -> None:
        self.run_id = run.run_id
        self._run, self._recorder = run, recorder
        self._once = {"time/setup_s": setup_s}
        self._epoch = 0
        recorder.begin_window("train")

    def epoch(self, performance: float, metrics: Mapping[str, float] | None = None) -> None:
        """End an epoch and log the costs so far with `performance`, P of PePR, from 0 to 1.

        `metrics` are more numbers by name, such as {"val/dice": 0.8}. Everything since the last
        epoch counts as training, except what was inside `evaluation`.
        """
        own = {**(metrics or {}), PERFORMANCE: float(performance)}
        for name, value in own.items():
            if not math.isfinite(value):
                raise WrongUse(f"{name}: {value} is not finite; leave a missing metric out")
        if not 0 <= performance <= 1:
            raise WrongUse(
                f"performance: {performance} is not from 0 to 1; give a share, not per cent"
            )
        self._close()
        self._log(own)
        self._recorder.begin_window("train")

    @contextmanager
    def evaluation(self) -> Iterator[None]:
        """Code inside counts as evaluation, not as training."""
        self._close()
        self._recorder.begin_window("eval")
        try:
            yield
        finally:
            self._close()
            self._recorder.begin_window("train")

    @property
    def _where(self) -> str:
        return f"epoch {self._epoch + 1}"

    def _close(self) -> None:
        self._recorder.end_open_window(self._where)

    def _log(self, metrics: Mapping[str, float]) -> None:
        self._epoch += 1
        self._run.log({**metrics, **self._recorder.metrics(), **self._once}, self._epoch)
        self._once = {}

    def _finish(self) -> None:
        """Code after the last epoch is not counted, unless there was no epoch."""
        if self._epoch == 0:
            self._close()
            self._log({})
        else:
            self._recorder.meter.end()


@contextmanager
def measure(
    experiment: str,
    *,
    model: str,
    params: Mapping[str, object] | None = None,
    performance: str = PERFORMANCE,
    energy: str = "auto",
    device: str = "auto",
    data: str | Path | None = None,
    country: str | None = None,
    carbon_intensity: float | None = None,
    pue: float = 1.0,
) -> Iterator[Measured]:
    """Measure the training code inside the `with` and log it as `pepr train` logs its own.

    It logs to the active MLflow run, which stays open, or to a new run, active inside the `with`,
    of the MLflow experiment that was set or else of `experiment`. Either way the run is compared
    under the name `experiment`. `model` and `params` become parameters: name the fields of RunSpec
    that apply (dataset, image_size, batch_size, precision, epochs, …), since only runs that agree
    in them are compared. `data` is the file or folder of the data set, identified by its content;
    without it the data set is identified by its name. `performance` names what P is, such as
    `test/dice`. `energy`, `country`, `carbon_intensity` and `pue` are RunSpec's. At the end it
    warns of what disturbed the measurement.

    It measures all of one device, `device` (torch's first GPU by default). It waits for PyTorch's
    work; with another framework, block until the work is done before `epoch` and `evaluation`.
    Raises `WrongUse` as `pepr_mlops.run`.

    >>> from pepr_mlops import load_runs, measure
    >>> right, seen = [5, 8, 9], 10
    >>> with measure("own loop", model="mine", params={"epochs": 3}, device="cpu") as measured:
    ...     for epoch in range(3):
    ...         pass  # train, here
    ...         with measured.evaluation():
    ...             accuracy = right[epoch] / seen
    ...         measured.epoch(performance=accuracy)
    >>> load_runs("own loop")[["model", "performance"]].to_numpy().tolist()
    [['mine', 0.9]]
    """
    from pepr_mlops import tracking
    from pepr_mlops.data.digest import of_tree

    started = time.perf_counter()
    spec = RunSpec(  # which checks the values
        device=device, energy=energy, country=country, carbon_intensity=carbon_intensity, pue=pue
    )
    recorder = Recorder.open(spec, Device.resolve(device))
    if recorder.unknown_energy is not None:
        warnings.warn(f"{experiment}, {model}: {recorder.unknown_energy}", stacklevel=3)
    known = {} if data is None else {"pepr.data_digest": of_tree(Path(data))}
    opening = {**known, **recorder.opening_tags(experiment, performance)}
    own = {"model": model, **{k: as_text(v) for k, v in (params or {}).items()}}
    with tracking.active(experiment, model) as run:
        with measured_run(run, recorder, own, opening, energy, started) as code:
            yield code
        closing = {**recorder.closing_tags(), **_tags_of_the_code(recorder)}
        run.tag(closing)
    for caution in cautions({**opening, **closing}):
        warnings.warn(f"{experiment}, {model}: {caution}", stacklevel=3)


@contextmanager
def measured_run(
    run: Run,
    recorder: Recorder,
    params: Mapping[str, str],
    opening: Mapping[str, str],
    energy: str,
    started: float,
) -> Iterator[Measured]:
    """Measure the block as the training of `run`, which gets params and `opening` tags before.

    `energy` is RunSpec's, `started` when the setup began (`time.perf_counter`). A block that fails
    is logged as far as it came, with the recorder's closing tags.
    """
    run.params(params)
    run.tag({**opening, **idle_tags(recorder.meter, required=energy == "measured")})
    recorder.watch_others({})
    recorder.memory.restart()
    code = Measured(run, recorder, time.perf_counter() - started)
    try:
        yield code
    except BaseException:
        recorder.stop_watching()
        # All code up to the failure counts. Server or device may be gone: show the first error.
        with suppress(Exception):
            recorder.end_open_window(code._where)
            code._log({})
        with suppress(Exception):
            run.tag(recorder.closing_tags(failed=True))
        raise
    code._finish()


def _tags_of_the_code(recorder: Recorder) -> dict[str, str]:
    """Tags that depend on the code that was measured."""
    import torch

    found = {"pepr.threads": str(torch.get_num_threads())}
    if memory_metric(recorder.device.kind) not in recorder.metrics():
        found["pepr.memory"] = "memory/device_used_gb"  # torch did not do the work
    return found
