"""Which runs cannot be compared, and why, in words a person can check. Pure.

Runs are frames of `frame.tidy`, after `question.choose` has set `model`, `performance` and costs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pandas as pd

from pepr_mlops.comparison.conditions import comparable, conditions, mixed, own_params
from pepr_mlops.comparison.flags import disturbed
from pepr_mlops.comparison.reasons import Row, frame_of, reasons
from pepr_mlops.comparison.runs import label
from pepr_mlops.costs.totals import LOST
from pepr_mlops.names import ENERGY

_Case = tuple["pd.Series[bool]", str, Callable[[Row], str]]  # which runs, one word, the text


def left_out(runs: pd.DataFrame, costs: Sequence[str]) -> pd.DataFrame:
    """Why runs cannot be compared: `run_id`, `reason` (one word), `text`; a run may have several.

    Runs that are not finished, do not name their model, have a non-finite or no value of P or of a
    cost, or were stopped by a budget.
    """
    cases = [
        (runs["status"] != "FINISHED", "not_finished", _status),
        (runs["stopped"].notna(), "stopped", lambda r: f"a budget stopped it: {r['stopped']}"),
        (runs["model"].isna(), "no_model", lambda r: "it does not say which model it is"),
        *_values(runs, "performance", "performance"),
        *(case for cost in costs for case in _values(runs, cost, "cost")),
    ]
    return frame_of(reasons(runs, *case) for case in cases)


def _status(run: Row) -> str:
    why = "" if pd.isna(run["reason"]) else f" ({run['reason']})"
    return f"its status is {run['status']}, not FINISHED{why}"


def _values(runs: pd.DataFrame, column: str, what: str) -> Iterator[_Case]:
    values, name = runs[column], label(column)
    lost = (runs["energy_source"] == LOST) & (column in ENERGY)
    yield np.isinf(values), "non_finite", lambda r: f"its {name} is not a finite number"
    yield (
        values.isna() & lost,
        f"no_{what}",
        lambda r: f"its energy is known for a part of it only: {r['energy_missing']}",
    )
    yield values.isna() & ~lost, f"no_{what}", lambda r: f"it has no {name}"


def repeated(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs that another of the same spec, seed and hardware repeats, as of `left_out`.

    The newest stays, of those that had CPUs or GPU to themselves and were not stopped if there are
    any. Runs without a seed are not meant: their repetitions are what seeds are. Nor are those pepr
    did not log, of which it cannot know.
    """
    rest = runs[runs["seed"].notna() & runs["logged_by_pepr"]]
    spec = ["seed", "initial_weights", *comparable(), *own_params(rest)]
    unknown = rest["data_digest"].isna()
    for name in ("params.dataset", "params.data_root"):
        if name in rest:  # of a version that logged where data lay and not what
            rest = rest.assign(**{name: rest[name].where(unknown)})
            spec.append(name)
    same = ["model", *mixed(rest, spec)]
    keys = conditions(rest, same).groupby(same, sort=False).ngroup()
    by_age = rest[["run_id", "start_time"]].assign(key=keys, alone=~disturbed(rest))
    by_age = by_age.sort_values("start_time", kind="stable", na_position="first")
    last = by_age.sort_values("alone", kind="stable").drop_duplicates("key", keep="last")
    last = last.set_index("key")
    by_age["kept"] = by_age["key"].map(last["run_id"])
    by_age["worse"] = ~by_age["alone"] & by_age["key"].map(last["alone"])
    how = {True: "did the same undisturbed", False: "repeats it later"}
    left = by_age["run_id"] != by_age["kept"]
    return frame_of(
        [reasons(by_age, left, "duplicate", lambda r: f"run {r['kept']} {how[r['worse']]}")]
    )
