"""Energy of training and use, and from how many images on another model is the cheaper one. Pure.

A model that trains with less energy may need more for each image. The energy of a model is a line
over the number of images: training, plus so many images at the energy of one. The cheapest models
are the lower envelope of these lines.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd

from pepr_mlops.comparison.conditions import groups, listed, mixed
from pepr_mlops.comparison.good_enough import GOOD
from pepr_mlops.comparison.inference import Use
from pepr_mlops.comparison.metrics import Floats
from pepr_mlops.comparison.profiles import conditions_of, form_of, profiled, remedy
from pepr_mlops.comparison.question import Question
from pepr_mlops.comparison.sampling import Knowledge, draws_of
from pepr_mlops.errors import WrongUse
from pepr_mlops.names import ENERGY_OF, LIFETIME
from pepr_mlops.text import few

_KEYS = ["model", "variant"]
_TAILS = (0.025, 0.975)
_USUAL = Use(1.0)  # of which only the metric counts


@dataclass(frozen=True)
class Step:
    """From so many `images` a year on, with its 95% interval, `cheaper` needs less energy than
    `dearer`; `high` is infinite where that is not sure for any number."""

    images: float
    low: float
    high: float
    cheaper: str
    dearer: str


@dataclass(frozen=True)
class Lifetime:
    """Training and use of the good-enough models and the best performer of a comparison set, as far
    as they were profiled, and from how many images a year on which of them is the cheapest.

    `models` has `label`, `good` (good enough or not), `training_wh`, `wh_per_image`, `images` (as
    many as one training costs), `total_wh`, `low`, `high` and `gco2e` (of training and use,
    missing without `use` or an intensity), `training_source`, `use_source`, `n` runs; the cheapest
    by training and use first, or without `use` by training. `first` is the good-enough model of the
    least training energy, None where none was profiled. `surely` is the share of draws in which the
    cheapest good-enough model is cheaper than the next one. `missing` are the labels of good-enough
    models that were not profiled.
    """

    use: Use | None
    years: float
    models: pd.DataFrame
    first: str | None
    steps: tuple[Step, ...]
    surely: float | None
    missing: tuple[str, ...]

    @property
    def winner(self) -> str | None:
        """The good-enough model of the least energy of training and use."""
        good = self.models[self.models["good"]]
        return None if good.empty else str(good["label"].iloc[0])


def resources(question: Question) -> tuple[str, ...]:
    """What models are chosen by, the first of which is cheap."""
    return question.resources if question.use is None else (LIFETIME, *question.resources)


def with_use(used: pd.DataFrame, comparison_set: str, use: Use) -> pd.DataFrame:
    """The runs with their energy of training and use, missing where a model was not profiled.

    Raises `WrongUse` where no run of the set was, and where its profiles do not compare.
    """
    members = used[used["comparison_set"] == comparison_set]
    known = members[members[use.column].notna()] if use.column in members else members.iloc[:0]
    if known.empty:
        raise WrongUse(
            f"images_per_year: no run of {comparison_set} was profiled, so that the energy of use "
            f"is not known; {remedy(use.metric)} measures it"
        )
    differ = mixed(known, _conditions(use))
    if differ:
        raise WrongUse(
            f"images_per_year: the energies of {comparison_set} mix {', '.join(differ)} "
            f"({listed(groups(known, differ))}); profile all models under the same conditions "
            f"with `pepr profile --replace`, or keep one with --where {differ[0]}=VALUE"
        )
    return used.assign(**{LIFETIME: use.total(used)})


def _conditions(use: Use) -> list[str]:
    """What runs share whose energies of training and use are compared."""
    return [*ENERGY_OF, *conditions_of([use.metric])]


def check(table: pd.DataFrame, use: Use) -> None:
    """Raise `WrongUse` where models are good enough and none of them was profiled."""
    good = table[table["verdict"] == GOOD]
    if len(good) and good[LIFETIME].isna().all():
        raise WrongUse(
            "images_per_year: none of the good-enough models was profiled "
            f"({few(list(good['label']))}); {remedy(use.metric)} measures them"
        )


def of(
    members: pd.DataFrame, table: pd.DataFrame, best: str, question: Question, known: Knowledge
) -> Lifetime | None:
    """The lifetime of the good-enough models of `table` (`Answer.models`) and of the `best`, whose
    runs are `members`; None where none of them was profiled, or profiles do not compare."""
    use = question.use or _USUAL
    if use.column not in members or not profiled([use.metric]):
        return None
    shown = table[(table["verdict"] == GOOD) | (table["label"] == best)]
    rows = members.merge(shown[[*_KEYS, "label", "verdict"]], on=_KEYS, validate="many_to_one")
    complete = rows[use.column].notna() & rows["energy_wh"].notna()
    has = complete.groupby(rows["label"]).all()
    rows = rows[rows["label"].map(has)]
    if rows.empty or mixed(rows, _conditions(use)):
        return None
    models = _models(rows, use, question)
    good = models[models["good"]]
    lacking = [m for m in shown.loc[shown["verdict"] == GOOD, "label"] if not has[m]]
    drawn = draws_of(rows, ["energy_wh", use.column], question, known)
    at = drawn.models.get_indexer(pd.MultiIndex.from_frame(models[_KEYS]))
    training, each = (drawn.costs[c][:, at] for c in ("energy_wh", use.column))
    totals = training + use.images * each
    surely = None
    if question.use is not None:
        low, high = np.quantile(totals, _TAILS, axis=0)
        models = models.assign(low=low, high=high)
        order = models.sort_values("total_wh", kind="stable").index
        places = [i for i in order if models.at[i, "good"]]
        if len(places) > 1:
            surely = float((totals[:, places[0]] < totals[:, places[1]]).mean())
    else:
        models = models.assign(total_wh=np.nan, low=np.nan, high=np.nan, gco2e=np.nan)
        order = models.sort_values("training_wh", kind="stable").index
    steps = _steps(models, training, each, use.years)
    first = None if good.empty else str(good.loc[good["training_wh"].idxmin(), "label"])
    found = models.loc[order].drop(columns=_KEYS).reset_index(drop=True)
    return Lifetime(question.use, use.years, found, first, steps, surely, tuple(lacking))


def _models(rows: pd.DataFrame, use: Use, question: Question) -> pd.DataFrame:
    """`Lifetime.models` without intervals, in the order of their keys."""
    form = form_of(use.metric)
    by_model = rows.groupby(_KEYS)
    first = by_model.first()
    means = by_model[["energy_wh", use.column]].mean()
    total = use.total(means)
    intensity = rows["carbon_intensity_g_per_kwh"]
    if question.intensity is not None:
        intensity = pd.Series(question.intensity.g_per_kwh, rows.index)
    grams = (intensity * rows["pue"].fillna(1.0)).groupby([rows[k] for k in _KEYS])
    per_kwh = grams.mean().where(grams.count() == by_model.size())
    return pd.DataFrame(
        {
            "label": first["label"],
            "good": first["verdict"] == GOOD,
            "training_wh": means["energy_wh"],
            "wh_per_image": means[use.column],
            "images": means["energy_wh"] / means[use.column],
            "total_wh": total,
            "gco2e": total / 1000 * per_kwh,
            "training_source": first["energy_source"],
            "use_source": first[f"{form}_energy_source"],
            "n": by_model.size(),
        }
    ).reset_index()


def envelope(training: Sequence[float], each: Sequence[float]) -> list[tuple[float, int]]:
    """The cheapest lines `training` + `each` · images: from how many images on, and which."""
    places = range(len(training))
    at = min(places, key=lambda i: (training[i], each[i]))
    found = [(0.0, at)]
    while True:
        later = [
            ((training[j] - training[at]) / (each[at] - each[j]), each[j], j)
            for j in places
            if each[j] < each[at]
        ]
        if not later:
            return found
        images, _, at = min(later)
        found.append((images, at))


def _steps(models: pd.DataFrame, training: Floats, each: Floats, years: float) -> tuple[Step, ...]:
    """Where the cheapest of the good-enough models changes, with draws, [draws, models]."""
    places = np.flatnonzero(models["good"])
    if not len(places):
        return ()
    labels = list(models["label"])
    good = models.iloc[places]
    at = envelope(list(good["training_wh"]), list(good["wh_per_image"]))
    found = []
    for (_, before), (images, after) in pairwise(at):
        a, b = int(places[before]), int(places[after])
        gain = each[:, a] - each[:, b]
        crossing = (training[:, b] - training[:, a]) / np.where(gain > 0, gain, np.nan)
        drawn = np.where(gain > 0, np.maximum(crossing, 0.0), np.inf) / years
        # between two draws, of which one may be infinite, there is no number
        low = float(np.quantile(drawn, _TAILS[0], method="lower"))
        high = float(np.quantile(drawn, _TAILS[1], method="higher"))
        found.append(Step(images / years, low, high, labels[b], labels[a]))
    return tuple(found)
