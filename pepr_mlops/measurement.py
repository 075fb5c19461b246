"""The measurement of a training job around anyone's own training code, in any framework."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from pepr_mlops import carbon
from pepr_mlops.costs import Costs
from pepr_mlops.errors import WrongUse
from pepr_mlops.memory import Memory
from pepr_mlops.meter import Meter, idle_tags, open_meter, source_tags
from pepr_mlops.schema import PERFORMANCE, as_text, memory_metric
from pepr_mlops.tracking import Run


class Measured:
    """Handed out by `measure`: say when an epoch ends and what is evaluation."""

    def __init__(
        self,
        run: Run,
        meter: Meter,
        memory: Memory,
        intensity: carbon.Intensity | None,
        pue: float,
        setup_s: float,
    ) -> None:
        self.run_id = run.run_id
        self.costs = Costs(meter.sources)
        self._run, self._meter, self._memory = run, meter, memory
        self._intensity, self._pue = intensity, pue
        self._once = {"time/setup_s": setup_s}
        self._epoch = 0
        meter.begin("train")

    def epoch(self, performance: float, metrics: Mapping[str, float] | None = None) -> None:
        """End an epoch and log its costs so far with `performance`, P of PePR, from 0 to 1.

        `metrics` are more numbers by name, such as {"val/dice": 0.8}. Everything since the epoch
        before counts as training, but for what was inside `evaluation`.
        """
        own = {PERFORMANCE: float(performance), **(metrics or {})}
        for name, value in own.items():
            if not math.isfinite(value):
                raise WrongUse(f"{name}: {value} is not finite; leave a missing metric out")
        if not 0 <= performance <= 1:
            raise WrongUse(
                f"performance: {performance} is not from 0 to 1; give a share, not per cent"
            )
        self._close("train")
        self._log(own)
        self._meter.begin("train")

    @contextmanager
    def evaluation(self) -> Iterator[None]:
        """What runs inside counts as evaluation and not as training."""
        self._close("train")
        self._meter.begin("eval")
        try:
            yield
        finally:
            self._close("eval")
            self._meter.begin("train")

    def _close(self, phase: str) -> None:
        self.costs.add(phase, self._meter.end(), f"epoch {self._epoch + 1}")

    def _log(self, metrics: Mapping[str, float]) -> None:
        self._epoch += 1
        costs = self.costs.metrics(self._intensity, self._pue) | self._memory.metrics()
        self._run.log({**metrics, **costs, **self._once}, self._epoch)
        self._once = {}

    def _finish(self, failed: bool) -> None:
        """Close the last window. What follows the last epoch is no training and is not logged,
        unless no epoch was ever ended or the code failed: then it is all there is."""
        self._close("train")
        if failed or self._epoch == 0:
            self._log({})


@contextmanager
def measure(
    experiment: str,
    *,
    model: str,
    params: Mapping[str, object] | None = None,
    performance: str = PERFORMANCE,
    energy: str = "auto",
    device: str = "auto",
    country: str | None = None,
    carbon_intensity: float | None = None,
    pue: float = 1.0,
) -> Iterator[Measured]:
    """Measure the training code inside the `with` and log it as `pepr train` logs its own.

    It goes to the active MLflow run, which stays open, or to a new run of the MLflow experiment
    `experiment`, which is active meanwhile. `model` and `params` become parameters: name the
    fields of RunSpec that apply (dataset, image_size, batch_size, precision, epochs, …), since
    runs are compared where those agree. `performance` names what P is, such as `test/dice`.
    `energy`, `country`, `carbon_intensity` and `pue` are RunSpec's.

    One device is measured, `device` (torch's first GPU by default), and the whole of it. Raises
    `WrongUse` as `pepr_mlops.run` does.
    """
    from pepr_mlops import hardware, tracking

    started = time.perf_counter()
    if energy not in ("auto", "measured", "estimated", "off"):
        raise WrongUse(f"energy: {energy!r} is not one of auto, measured, estimated, off")
    intensity = carbon.resolve(country, carbon_intensity)
    used = hardware.resolve_device(device)
    meter = open_meter(energy, used.type, *hardware.gpu_of(used))
    with tracking.active(experiment, model) as run:
        run.params({"model": model, **{k: as_text(v) for k, v in (params or {}).items()}})
        run.tag(
            {
                "pepr.experiment": experiment,
                "pepr.performance": performance,
                "pepr.memory": memory_metric(used.type),
                **source_tags(meter),
                **carbon.tags(intensity, pue),
                **hardware.describe(used),
                **idle_tags(meter, required=energy == "measured"),
            }
        )
        others = hardware.other_gpu_processes(used)
        memory = Memory(used)
        measured = Measured(run, meter, memory, intensity, pue, time.perf_counter() - started)
        failed = True
        try:
            yield measured
            failed = False
        finally:
            measured._finish(failed)
            run.tag(
                {
                    **measured.costs.tags(meter.notes),
                    **hardware.other_processes_tag(others, hardware.other_gpu_processes(used)),
                }
            )
