"""What to compare the runs by, and the columns that answer it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import pandas as pd

from pepr_mlops.comparison import pepr
from pepr_mlops.comparison.checks import FLAGS
from pepr_mlops.comparison.conditions import by_content
from pepr_mlops.comparison.draws import Errors
from pepr_mlops.comparison.inference import Use, of_models
from pepr_mlops.comparison.runs import column, label, metrics
from pepr_mlops.costs.carbon import Intensity
from pepr_mlops.errors import WrongUse, nearest
from pepr_mlops.names import COMPLEMENT, METRICS, PERFORMANCE, RESOURCES

Mixed = Literal["refuse", "stratify", "allow"]


@dataclass(frozen=True)
class Question:
    """What to compare the runs by, and how.

    `performance` is the metric that is P, or None for what each run calls its performance.
    `resources` are letters of `names.RESOURCES`, columns or metrics. Without `weights` each
    resource has a score of its own; with them, summing to 1, there is one score of all. `strict`
    leaves out every flagged run, and `drop` those with one of these flags (`checks.FLAGS`).
    `mixed` says what to do with runs that differ in what a comparison set shares. `intensity`
    replaces each run's own grid intensity. `model_param` is the parameter that names the model.
    `energy_error` and `estimate_error` are those of `draws.Errors`. `seed_sd` is the standard
    deviation of P between runs of a model where no model has several, or None to borrow that of
    other experiments. `test_images` is the number of images of runs that logged neither it nor
    predictions. `draws` are those of the bootstrap; with none the intervals are missing. With `use`
    the cheapest model is the one of the least energy of training and use. Raises `WrongUse` for
    values that cannot be.

    >>> from pepr_mlops import Question
    >>> Question(resources=("E", "M"), weights=(0.7, 0.3)).normalisation
    'minmax'
    """

    performance: str | None = None
    resources: tuple[str, ...] = ("E",)
    weights: tuple[float, ...] | None = None
    alpha: float = 1.0
    normalisation: pepr.Method = "minmax"
    quantiles: tuple[float, float] = pepr.QUANTILES
    reference: pepr.Reference | None = None
    strict: bool = False
    drop: tuple[str, ...] = ()
    mixed: Mixed = "refuse"
    intensity: Intensity | None = None
    model_param: str = "model"
    energy_error: float = Errors.measured
    estimate_error: tuple[float, float] = (Errors.common, Errors.own)
    seed_sd: float | None = None
    test_images: int | None = None
    draws: int = 2000
    seed: int = 0
    use: Use | None = None

    def __post_init__(self) -> None:
        if not self.resources:
            raise WrongUse(f"resource: name one or more of {', '.join(RESOURCES)} or a metric")
        if len(set(self.resources)) < len(self.resources):
            raise WrongUse(f"resource: {', '.join(self.resources)} names one twice")
        if (self.reference is None) == (self.normalisation == "reference"):
            raise WrongUse(
                "normalisation: reference and the saved bounds (--reference FILE) go together; "
                "give both or neither"
            )
        for name, value in (
            ("energy_error", self.energy_error),
            *(("estimate_error", part) for part in self.estimate_error),
            ("seed_sd", self.seed_sd or 0.0),
        ):
            if not 0 <= value < 1:
                raise WrongUse(f"{name}: {value:g} is not an error from 0 to below 1")
        if self.test_images is not None and self.test_images < 1:
            raise WrongUse(f"test_images: {self.test_images} is too few; give a number from 1")
        for flag in self.drop:
            if flag not in FLAGS:
                close = nearest(flag, FLAGS) or "."
                raise WrongUse(f"drop: {flag!r} is not a flag{close} Valid: {', '.join(FLAGS)}")
        ways = get_args(Mixed)
        if self.mixed not in ways:
            close = nearest(str(self.mixed), ways)
            raise WrongUse(f"mixed: {self.mixed!r} is not one of {', '.join(ways)}{close}")
        pepr.check_quantiles(self.quantiles)
        pepr.pepr(
            np.ones(1), np.zeros((1, len(self.resources))), weights=self.weights, alpha=self.alpha
        )


def choose(runs: pd.DataFrame, question: Question) -> tuple[pd.DataFrame, list[str]]:
    """The runs with the chosen `model`, `performance` and costs, and the columns of the costs.

    P is 1 less a metric that is better when lower, and its name says so. Data sets of jobs that
    hold the same have one name. Raises `WrongUse` for names no run has and for a performance that
    is no share.
    """
    chosen = by_content(runs).copy(deep=False)  # pandas copies what is written to
    if question.model_param != "model":
        name = f"params.{question.model_param}"
        if name not in runs:
            known = [str(c).removeprefix("params.") for c in runs if c.startswith("params.")]
            raise WrongUse(
                f"model_param: no run has the parameter {question.model_param!r}"
                f"{nearest(question.model_param, known) or '.'} "
                f"Valid: {', '.join(known) or 'none'}"
            )
        chosen["model"] = chosen[name]
    if (question.performance or "").startswith("external/"):
        raise WrongUse(
            f"performance: {question.performance} is of an external set, which chooses nothing; "
            "name a test/ or val/ metric"
        )
    if question.performance not in (None, PERFORMANCE):
        metric = METRICS.get(question.performance)
        if metric is not None and (metric.better is None or metric.unit != "1"):
            raise WrongUse(f"performance: {question.performance} is no share; choose another")
        if question.performance not in metrics(runs):
            raise WrongUse(
                f"performance: no run has the metric {question.performance!r}"
                f"{nearest(question.performance, metrics(runs)) or '.'} "
                f"Valid: {', '.join(metrics(runs)) or 'none'}"
            )
        complement = metric is not None and metric.better == "lower"
        values = chosen[f"metrics.{question.performance}"]
        chosen[PERFORMANCE] = 1 - values if complement else values
        chosen["performance_metric"] = f"{COMPLEMENT if complement else ''}{question.performance}"
    if question.intensity is not None:
        pue = chosen["pue"].fillna(1.0)
        chosen["carbon_gco2e"] = chosen["energy_wh"] / 1000 * question.intensity.g_per_kwh * pue
        chosen["carbon_intensity_g_per_kwh"] = question.intensity.g_per_kwh
    costs = [column(chosen, name) for name in question.resources]
    if PERFORMANCE in costs:
        raise WrongUse("resource: performance is P and no cost; name another")
    for name, cost in zip(question.resources, costs, strict=True):
        if costs.count(cost) > 1:
            raise WrongUse(f"resource: {name} is {label(cost)}, which another names too; drop one")
    return of_models(chosen), costs
