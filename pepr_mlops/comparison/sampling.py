"""On which images the P of a run was measured, and draws of a comparison set from it. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from pepr_mlops.comparison.conditions import energy_is
from pepr_mlops.comparison.draws import DOUBTFUL, NO_SHARE, STATED, Draws, Errors, Sample, draw
from pepr_mlops.comparison.image_counts import image_count
from pepr_mlops.comparison.metrics import BIASED, METRICS, Floats, Ratios, Weighted
from pepr_mlops.comparison.predictions import Predictions
from pepr_mlops.comparison.profiles import forms_of
from pepr_mlops.comparison.question import Question
from pepr_mlops.comparison.spread import ASSUMED, Spread
from pepr_mlops.names import COMPLEMENT, LIFETIME, PERFORMANCE
from pepr_mlops.names import METRICS as LOGGED

_SHARES = ("accuracy", "top5_accuracy")  # metrics that are shares of images


@dataclass(frozen=True)
class Measured:
    """A metric that is P, in parts: `1 - test/brier` is the `complement` of `brier` on `test`.

    `split` is empty for metrics of one's own and those of another epoch than the predictions.
    """

    complement: bool
    split: str
    name: str

    @classmethod
    def parse(cls, metric: str) -> Measured:
        plain = metric.removeprefix(COMPLEMENT)
        found = re.fullmatch("(test|val)/(.+)", plain)
        split, name = found.groups() if found else ("", plain)
        return cls(plain != metric, split, name)

    def __str__(self) -> str:
        where = f"{self.split}/" if self.split else ""
        return f"{COMPLEMENT if self.complement else ''}{where}{self.name}"

    def on(self, split: str) -> Measured | None:
        """The same metric on another split, None for a metric of one's own."""
        return replace(self, split=split) if self.split else None

    def of(self, runs: pd.DataFrame) -> pd.Series[float]:
        """The values of runs, NaN where they have none."""
        name = f"metrics.{str(self).removeprefix(COMPLEMENT)}"
        values = runs[name] if name in runs else pd.Series(np.nan, runs.index)
        return 1 - values if self.complement else values

    def sample(self, predictions: Predictions) -> Sample | None:
        """How the metric depends on the images, None where predictions do not determine it."""
        split = predictions.on(self.split)
        if split is None or self.name not in METRICS or self.name in BIASED:
            return None
        metric = METRICS[self.name](predictions.of(self.split))
        if metric is None:
            return None
        if self.complement:
            metric = _complement(metric)
        return Sample(metric, split.clusters, split.test_set)


def _complement(metric: Weighted) -> Weighted:
    return metric.complement() if isinstance(metric, Ratios) else lambda w: 1 - metric(w)


@dataclass(frozen=True)
class Knowledge:
    """What is known about the error of runs: believable predictions by run id, the runs whose
    predictions are `doubtful`, and the spread of P between runs elsewhere."""

    predictions: Mapping[str, Predictions]
    doubtful: frozenset[str]
    spread: Spread

    def of(self, runs: Iterable[str]) -> list[Predictions] | None:
        """The predictions of these runs, None where one has none."""
        found = [self.predictions.get(run) for run in runs]
        known = [predictions for predictions in found if predictions is not None]
        return known if len(known) == len(found) else None


def draws_of(
    members: pd.DataFrame, costs: Sequence[str], question: Question, known: Knowledge
) -> Draws:
    """Draws of one comparison set, a row for each model and variant of `members`, sorted by them;
    P is the column `performance`, which is the metric `performance_metric`."""
    rows = members.groupby(["model", "variant"])
    parts = list(costs)
    if question.use is not None and LIFETIME in costs:  # its two parts err by themselves
        parts = [c for c in costs if c != LIFETIME]
        parts = list(dict.fromkeys([*parts, "energy_wh", question.use.column]))
    samples, sampled = {}, {}
    for run_id, metric in zip(members["run_id"], members["performance_metric"], strict=True):
        if run_id in known.predictions and isinstance(metric, str):
            sampled[run_id] = Measured.parse(metric).sample(known.predictions[run_id])
    samples = {run_id: sample for run_id, sample in sampled.items() if sample is not None}
    doubts = np.where(
        members["run_id"].isin(known.doubtful),
        DOUBTFUL,
        np.where(~members["run_id"].isin(list(samples)) & _no_shares(members), NO_SHARE, ""),
    )
    runs = pd.DataFrame(
        {
            "run_id": members["run_id"],
            "model": rows.ngroup(),
            PERFORMANCE: members[PERFORMANCE],
            **{c: members[c] for c in parts},
            "energy": np.where(energy_is(members, "estimated"), "estimated", "measured"),
            "machine": members["hardware"],
            **{f"energy {form}": members[f"{form}_energy_source"] for form in forms_of(parts)},
            **{f"machine {form}": members[f"{form}_hardware"] for form in forms_of(parts)},
            "images": _images(members, question),
            "doubt": doubts,
        }
    )
    spread = _spread(members, question, known)
    errors = Errors(question.energy_error, *question.estimate_error, spread)
    models = rows.size().index
    drawn = draw(runs, models, samples, parts, errors, draws=question.draws, seed=question.seed)
    if question.use is None or LIFETIME not in costs:
        return drawn
    return replace(drawn, costs={**drawn.costs, LIFETIME: question.use.total(drawn.costs)})


def images_of(
    members: pd.DataFrame, split: str, question: Question, known: Knowledge
) -> int | None:
    """How many images of `split` the P of the runs was measured on, None where that is not known or
    they differ."""
    found = {
        len(of_split.labels)
        for run in members["run_id"]
        if run in known.predictions and (of_split := known.predictions[run].on(split)) is not None
    } or {int(n) for n in _images(members, question) if np.isfinite(n)}
    return found.pop() if len(found) == 1 else None


def _no_share(metric: str) -> bool:
    """Whether a metric of this package is no share of images."""
    measured = Measured.parse(metric)
    ours = metric in LOGGED or measured.complement
    return ours and measured.name.removeprefix("best_val/") not in _SHARES


def _no_shares(members: pd.DataFrame) -> pd.Series[bool]:
    return members["performance_metric"].fillna("").map(_no_share).astype(bool)


def _spread(members: pd.DataFrame, question: Question, known: Knowledge) -> Spread:
    if question.seed_sd is not None:
        return Spread(question.seed_sd, float("inf"), STATED)
    if known.spread.metric is None:
        return known.spread
    # an accuracy varies alike on test and validation, but not as an AUC does
    names = {Measured.parse(m).name for m in members["performance_metric"].dropna().unique()}
    return known.spread if names == {Measured.parse(known.spread.metric).name} else ASSUMED


def _images(members: pd.DataFrame, question: Question) -> Floats:
    """How many images P of each run is a share of, NaN where it is none or that is not known."""
    found = np.full(len(members), np.nan)
    metrics = members["performance_metric"].fillna("")
    for metric in metrics.unique():
        here = (metrics == metric).to_numpy()
        measured = Measured.parse(metric)
        if _no_share(metric):
            continue
        runs: Any = members[here]
        logged = runs.get(f"{measured.split or 'test'}_images", pd.Series(np.nan, runs.index))
        if question.test_images is not None and measured.split != "val":
            logged = logged.fillna(question.test_images)
        if logged.isna().all():
            count = image_count(runs[PERFORMANCE].to_numpy(float))
            logged = logged.fillna(np.nan if count is None else count)
        found[here] = logged
    return found
