"""What profiles of trained models measured, as costs of their runs. Pure.

Using a model costs the same whatever seed it was trained with: what one run of a model was profiled
with holds for its other runs, too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from pepr_mlops.comparison.conditions import conditions, mixed, own_params
from pepr_mlops.comparison.profiles import (
    conditions_of,
    form_of,
    forms_of,
    is_energy,
    profiled,
    remedy,
)
from pepr_mlops.comparison.words import OFF_BY
from pepr_mlops.errors import WrongUse
from pepr_mlops.names import COMPARED, FORMS, OF_PROFILE, PERFORMANCE, PROFILED
from pepr_mlops.text import few

# By the end of its tag what is doubtful about a profile, where the tag says so.
DOUBTS: Mapping[str, str] = {
    "unstable": "values of its profile vary by more than 5% between repeats",
    "disturbed": "other programs ran while it was profiled",
    "energy_source": "its energy of use is",
}


@dataclass(frozen=True)
class Use:
    """How much a model is used after training: images a year, for so many years, each at the energy
    that a profile measured in large batches, as `metric`. Raises `WrongUse`."""

    images_per_year: float
    years: float = 1.0
    metric: str = f"{FORMS[0]}/wh_per_image"

    def __post_init__(self) -> None:
        for name in ("images_per_year", "years"):
            value = getattr(self, name)
            if not 0 < value < float("inf"):
                raise WrongUse(f"{name}: {value:g} is not a number above 0, such as 10000")

    @property
    def images(self) -> float:
        """How many images in all years."""
        return self.images_per_year * self.years

    @property
    def column(self) -> str:
        """The energy of one image in the frame of runs."""
        return f"metrics.{self.metric}"

    def total(self, costs: Mapping[Any, Any]) -> Any:
        """The energy of training and use in Wh, from the two in columns."""
        return costs["energy_wh"] + self.images * costs[self.column]


def of_models(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs, of which those that were not profiled have the mean of the other runs of their
    model under the same settings, and its conditions, where these are the same for all of them.

    The column `FORM_borrowed` says which have.
    """
    runs = runs.copy(deep=False)
    for form in FORMS:
        runs[f"{form}_borrowed"] = False
    forms = [form for form in FORMS if runs[f"{form}_values"].notna().any()]
    if not forms:
        return runs
    settings = ["experiment", "model", *COMPARED, *own_params(runs)]
    differ = mixed(runs, settings) or settings[:1]
    model = conditions(runs, differ).groupby(differ, observed=True).ngroup()
    for form in forms:
        measured = runs[f"{form}_values"].notna()
        alike = pd.Series(True, runs.index)
        for name in conditions_of([f"{form}/wh_per_image"]):
            alike &= runs[name].where(measured).groupby(model).transform("nunique") <= 1
        borrows = ~measured & alike & measured.groupby(model).transform("any")
        columns: dict[str, Any] = {
            **{f"metrics.{n}": "mean" for n in PROFILED if form_of(n) == form},
            **{f"{form}_{name}": "first" for name in OF_PROFILE},
        }
        for name, how in columns.items():
            if name in runs:
                of_model = runs[name].where(measured).groupby(model).transform(how)
                runs[name] = runs[name].where(~borrows, of_model)
        runs[f"{form}_borrowed"] = borrows
    return runs


def notes(
    found: pd.DataFrame, used: pd.DataFrame, costs: Sequence[str], use: Use | None
) -> list[str]:
    """What a reader must know about costs of profiles and about energies of `use`: which runs were
    profiled, which models are left out without, and which energies are estimates."""
    texts = []
    energies = [] if use is None else [use.column]
    for form in forms_of([*costs, *energies]):
        own = [name for name in profiled(costs) if form_of(name) == form]
        borrowed = int(used[f"{form}_borrowed"].sum())
        if borrowed:
            texts.append(
                f"{form}: {len(used) - borrowed} of {len(used)} runs were profiled; each of the "
                "others has the mean of the profiled runs of its model"
            )
        texts += _without(found, used, own) if own else []
        estimated = doubtful(used, form, "energy_source")
        if estimated.any() and any(is_energy(name) for name in (*own, *energies)):
            texts.append(
                f"the energy of use of {estimated.sum()} of {len(used)} runs is estimated, off by "
                f"{OFF_BY}"
            )
    return texts


def _without(found: pd.DataFrame, used: pd.DataFrame, names: Sequence[str]) -> list[str]:
    """Which models are not compared since they were not profiled: they may be the best."""
    runs = found[(found["status"] == "FINISHED") & found[PERFORMANCE].notna()]
    runs = runs[runs[[f"metrics.{n}" for n in names]].isna().any(axis=1)]
    runs = runs[~runs["model"].isin(used["model"])]
    if runs.empty:
        return []
    by_model = runs.groupby("model")[PERFORMANCE].mean().sort_values(ascending=False)
    n, best = len(by_model), f"{by_model.index[0]} with P {by_model.iloc[0]:.4f}"
    return [
        f"{n} model{'s' * (n != 1)} without {' and '.join(names)} are left out ("
        f"{few(list(by_model.index))}), the best of them {best}; {remedy(names[0])} measures it"
    ]


def doubtful(runs: pd.DataFrame, form: str, name: str) -> pd.Series[bool]:
    """Which runs one of `DOUBTS` is about."""
    texts = runs[f"{form}_{name}"].fillna("none")
    return texts.str.contains("estimated") if name == "energy_source" else texts != "none"


def text_of(form: str, name: str) -> Callable[[Any], str]:
    """The sentence of a doubt about a run."""
    return lambda run: f"{DOUBTS[name]}: {run[f'{form}_{name}']}"
