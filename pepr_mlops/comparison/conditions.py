"""In which conditions runs differ, and what groups of runs are called. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import fields

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pepr_mlops.comparison import profiles
from pepr_mlops.comparison.runs import label
from pepr_mlops.errors import WrongUse, nearest
from pepr_mlops.names import COMPARED, ENERGY, ENERGY_OF, LIFETIME
from pepr_mlops.spec import LATER, NONE, RunSpec, convert

NOT_KNOWN = "not known"


def own_params(runs: pd.DataFrame) -> list[str]:
    """The columns of parameters that are no settings of jobs: those of one's own code."""
    known = {f"params.{f.name}" for f in fields(RunSpec)}
    params = [c for c in runs if c.startswith(("params.", "own.")) and c not in known]
    return [c for c in params if not c.startswith("params.pepr.")]


def about_energy(costs: Sequence[str]) -> bool:
    """Whether a cost is made of energy."""
    return any(
        c in (*ENERGY, LIFETIME) or label(c).startswith(("energy/", "carbon/")) for c in costs
    )


def energy_is(runs: pd.DataFrame, source: str) -> pd.Series[bool]:
    """Which runs have an energy that is `measured` or `estimated`, at least in part."""
    return runs["energy_source"].fillna("").str.contains(source)


def places(runs: pd.DataFrame) -> list[str]:
    """Where the data sets of runs were, if logged: DATA_ROOT/NAME or the folder."""
    names = [c for c in ("params.data_root", "params.dataset") if c in runs]
    rows = runs[names].drop_duplicates().to_numpy().tolist()
    return sorted({"/".join(t for t in row if isinstance(t, str) and t != NONE) for row in rows})


def comparable(costs: Sequence[str] = ()) -> list[str]:
    """The columns that runs of one comparison set share, which depend on the costs.

    With an energy they contain what it is made of, with memory its kind, and with a cost of use how
    it was profiled. Settings that are themselves all the cost, as the training fraction, may
    differ.
    """
    exempt = set(costs) if set(costs) <= set(COMPARED) else set()
    shared = [c for c in COMPARED if c not in exempt]
    if about_energy(costs):
        shared += ENERGY_OF
    if "memory_gb" in costs:
        shared.append("memory_metric")
    shared += profiles.conditions_of(costs)
    return shared


def mixed(runs: pd.DataFrame, shared: Sequence[str]) -> list[str]:
    """The columns of `shared` in which the runs differ; not known is a value of its own."""
    return [c for c in shared if len(_texts(runs, c)[1]) > 1]


def by_content(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs with one name and size for each data set: jobs that used the same files get those of
    the first job, whatever the files were called.

    Runs of one's own code keep theirs, which may name a part of a data set.
    """
    of_jobs = runs["data_digest"].where(runs["compile"].notna())  # a job logs all options there are
    named = {c: runs.groupby(of_jobs)[c].transform("first") for c in ("dataset", "size")}
    return runs.assign(**{c: values.where(of_jobs.notna(), runs[c]) for c, values in named.items()})


def of_folds(runs: pd.DataFrame) -> pd.Series[bool]:
    """Which runs trained one fold of a cross-validation: jobs, and no runs of one's own code that
    have parameters of these names."""
    folds = runs["folds"].notna() & runs["fold"].notna()
    return folds & runs["logged_by_pepr"] & runs["compile"].notna()


def where(runs: pd.DataFrame, values: Iterable[tuple[str, str]]) -> pd.DataFrame:
    """The runs whose columns have these values, as text or as a command takes them (`lr=5e-4`).

    An option that came later also names the parameter that runs of one's own code have. Raises
    `WrongUse` for what no run has, and for one fold of a cross-validation.
    """
    known = ("model", "seed", *COMPARED)
    options = [f.name for f in fields(RunSpec)]
    for name, value in values:
        if name not in runs:
            close = nearest(name, known) or "."
            raise WrongUse(f"where: no run has {name!r}{close} Valid: {', '.join(known)}")
        if name in options:
            with suppress(WrongUse):
                converted = convert(name, value)
                value = NONE if converted is None else _text(converted)
        texts = conditions(runs, [name])[name].astype("str")
        if f"own.{name}" in runs:
            texts = runs[f"own.{name}"].fillna(texts)
        if not (texts == value).any():
            found = ", ".join(sorted(texts.unique())[:10])
            raise WrongUse(f"where: no run has {name}={value}; there are: {found}")
        runs = runs[texts == value]
        if name == "fold" and of_folds(runs).any():
            raise WrongUse(
                f"where: the folds of a cross-validation count together, so that fold={value} "
                "cannot be chosen alone; leave it out, or choose by folds"
            )
    return runs


def in_common(runs: pd.DataFrame, columns: Sequence[str]) -> dict[str, str]:
    """The text of each of the columns, `several` where the runs differ in it."""
    texts = {name: _texts(runs, name)[1] for name in columns}
    return {name: str(t[0]) if len(t) == 1 else "several" for name, t in texts.items()}


def conditions(runs: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """Values as text, which distinguish runs and name groups; each column is a categorical.

    A parameter that has no value of its type, as `epochs` of `all`, is its own text.
    """
    texts = {name: pd.Categorical.from_codes(*_texts(runs, name)) for name in columns}
    return pd.DataFrame(texts, index=runs.index)


def groups(runs: pd.DataFrame, by: Sequence[str]) -> pd.Series[str]:
    """For each run the name of its group, such as `hardware=A100, epochs=10`."""
    values = conditions(runs, by)
    # quoted where one value could be read as two
    texts = {c: values[c].map(lambda v: repr(v) if ", " in v else v).astype("str") for c in values}
    names = {c: c.removeprefix("own." if c.startswith("own.") else "params.") for c in texts}
    words = [f"{names[c]}=" + text for c, text in texts.items()]
    return pd.concat(words, axis=1).agg(", ".join, axis=1)


def listed(names: pd.Series[str]) -> str:
    """Groups and how many runs each has, the largest first."""
    counts = names.value_counts().items()
    return "; ".join(f"{name}: {n} run{'s' * (n != 1)}" for name, n in counts)


def _texts(runs: pd.DataFrame, name: str) -> tuple[NDArray[np.intp], NDArray[np.object_]]:
    """A column of `conditions`: for each run the index of its text, and the different texts."""
    values = runs[name]
    logged = runs.get(f"params.{name}") if name != "threads" else None  # there the requested number
    if f"own.{name}" in runs:  # of one's own code, and no condition
        logged = runs[f"params.{name}"].where(runs[f"own.{name}"].isna())
    if logged is not None and values.isna().any():
        values = values.astype(object).where(values.notna(), logged)
    of_run, different = pd.factorize(values, use_na_sentinel=False)
    texts = [_text(value) for value in different]
    places = {text: i for i, text in enumerate(dict.fromkeys(texts))}
    of_value = np.array([places[text] for text in texts], dtype=np.intp)
    return of_value[of_run], np.array(list(places), dtype=object)


def of_earlier_jobs() -> dict[str, str]:
    """The text of each condition that came later, for jobs that did not log it."""
    names = [name for name in COMPARED if name in LATER and name != "threads"]
    values = {name: convert(name, LATER[name]) for name in names}
    return {name: NONE if value is None else _text(value) for name, value in values.items()}


def _text(value: object) -> str:
    if value is None or value is pd.NA or value != value:
        return NOT_KNOWN
    if isinstance(value, bool | np.bool_):
        return str(bool(value)).lower()
    if isinstance(value, float):
        return np.format_float_positional(value, trim="-")  # every digit: 1, 0.0005
    return str(value)
