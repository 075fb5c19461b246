"""Which runs may be compared, which are doubtful, and why, in words a person can check. Pure.

Runs are frames of `frame.tidy`, after `comparison` has set `model`, `performance` and the costs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import chain
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pepr_mlops.costs import J_PER_WH, LOST
from pepr_mlops.frame import label
from pepr_mlops.names import COMPARED, ENERGY, memory_metric
from pepr_mlops.spec import RunSpec

# What no component draws; a GPU's own limit is in its run's tags.
_MOST_W = {
    "gpu": 1500.0,  # NVIDIA B300: 1,400 W
    "cpu": 1200.0,  # two packages of AMD EPYC 9005: 500 W each
    "dram": 300.0,
    "soc": 400.0,  # Apple M3 Ultra with its supply: 480 W for the whole machine
}
_OVER = 1.1  # limits hold on the average of seconds; counters are exact to a few per cent
_LEAST_W = {"gpu": 3.0, "cpu": 1.0}  # idling takes more
_BUSY = 0.1  # share of the CPUs
_UNDER_IDLE = 0.5  # share of the idle power below which a mean power is no measurement

NOT_KNOWN = "not known"

_Reason = tuple[str, str, str]  # a row of `left_out`


@dataclass(frozen=True)
class Evidence:
    """What lies outside the runs at hand.

    `energies` are all runs of the server with an energy: `run_id`, `model`, `experiment`,
    `energy_wh`. `epochs` has `run_id`, `step` and `energy_wh`, the energy so far.
    """

    energies: pd.DataFrame | None = None
    epochs: pd.DataFrame | None = None


def left_out(runs: pd.DataFrame, costs: Sequence[str]) -> pd.DataFrame:
    """Why runs cannot be compared: `run_id`, `reason` (one word), `text`; a run may have several.

    Runs that are not finished, do not name their model, have a non-finite or no value of P or of a
    cost, or were stopped by a budget.
    """
    found = [
        _reasons(
            runs,
            runs["status"] != "FINISHED",
            "not_finished",
            lambda r: (
                f"its status is {r['status']}, not FINISHED"
                + ("" if pd.isna(r["reason"]) else f" ({r['reason']})")
            ),
        ),
        _reasons(
            runs,
            runs["stopped"].notna(),
            "stopped",
            lambda r: f"a budget stopped it: {r['stopped']}",
        ),
        _reasons(
            runs, runs["model"].isna(), "no_model", lambda r: "it does not say which model it is"
        ),
        *_values(runs, "performance", "performance"),
    ]
    for cost in costs:
        found += _values(runs, cost, "cost")
    return _frame(found)


def _values(runs: pd.DataFrame, column: str, what: str) -> Iterator[list[_Reason]]:
    values, name = runs[column], label(column)
    yield _reasons(
        runs, np.isinf(values), "non_finite", lambda r: f"its {name} is not a finite number"
    )
    lost = (runs["energy_source"] == LOST) & (column in ENERGY)
    yield _reasons(
        runs,
        values.isna() & lost,
        f"no_{what}",
        lambda r: f"its energy is known for a part of it only: {r['energy_missing']}",
    )
    yield _reasons(runs, values.isna() & ~lost, f"no_{what}", lambda r: f"it has no {name}")


def repeated(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs that another of the same spec, seed and hardware repeats, as of `left_out`.

    The newest stays, of those that had CPUs or GPU to themselves if there are any. Runs without a
    seed are not meant: their repetitions are what seeds are. Nor are those pepr did not log, of
    which it cannot know.
    """
    rest = runs[runs["seed"].notna() & runs["logged_by_pepr"]]
    spec = ["seed", "initial_weights", *comparable(rest), *own_params(rest)]
    same = ["model", *mixed(rest, spec)]
    keys = conditions(rest, same).groupby(same, sort=False).ngroup()
    by_age = rest[["run_id", "start_time"]].assign(
        key=keys, alone=~(_on_busy_cpus(rest) | _on_a_shared_gpu(rest))
    )
    by_age = by_age.sort_values("start_time", kind="stable", na_position="first")
    last = by_age.sort_values("alone", kind="stable").drop_duplicates("key", keep="last")
    last = last.set_index("key")
    by_age["kept"] = by_age["key"].map(last["run_id"])
    disturbed = ~by_age["alone"] & by_age["key"].map(last["alone"])
    left = by_age["run_id"] != by_age["kept"]
    return _frame(
        [
            _reasons(
                by_age,
                left & ~disturbed,
                "duplicate",
                lambda r: f"run {r['kept']} repeats it later",
            ),
            _reasons(
                by_age,
                left & disturbed,
                "duplicate",
                lambda r: f"run {r['kept']} did the same with nobody else at work there",
            ),
        ]
    )


def _on_busy_cpus(runs: pd.DataFrame) -> pd.Series[bool]:
    on_cpu = runs["memory_metric"] == memory_metric("cpu")
    return on_cpu & (runs["cpu_others"] > _BUSY * runs["cpu_count"])


def _on_a_shared_gpu(runs: pd.DataFrame) -> pd.Series[bool]:
    return runs["gpu_other_processes"].fillna("none") != "none"


def own_params(runs: pd.DataFrame) -> list[str]:
    """The columns of parameters that are no fields of RunSpec: what one's own code was set to."""
    known = {f"params.{f.name}" for f in fields(RunSpec)}
    return [
        c
        for c in runs
        if c.startswith("params.") and not c.startswith("params.pepr.") and c not in known
    ]


def flagged(
    runs: pd.DataFrame, costs: Sequence[str], evidence: Evidence | None = None
) -> pd.DataFrame:
    """What is doubtful about runs, in the columns of `left_out`.

    The mean power that energy and time imply is beyond the hardware; the energy is exactly another
    run's, also of another experiment; a counter stood still; the counter is coarse for so short a
    run; energy or time is an estimate; a part of it was not measured since the process vanished;
    other processes used the GPU, or the CPUs where those did the work. What concerns the energy is
    told where a cost is made of it, and what concerns the time where it is a cost.
    """
    evidence = evidence or Evidence()
    found = [
        _reasons(
            runs,
            _on_a_shared_gpu(runs),
            "other_processes",
            lambda r: f"other processes used its GPU: {r['gpu_other_processes']}",
        )
    ]
    if about_energy(costs) or "train_time_s" in costs:
        found.append(
            _reasons(
                runs,
                _on_busy_cpus(runs),
                "busy_cpu",
                lambda r: (
                    f"other processes kept {r['cpu_others']:.1f} of its {r['cpu_count']:.0f} CPUs "
                    "busy, which its time and energy contain"
                ),
            )
        )
        found.append(
            _reasons(
                runs,
                runs["unmeasured_s"] > 0,
                "interrupted",
                lambda r: (
                    f"it was interrupted and continued; up to {r['unmeasured_s']:,.0f} s of work "
                    "are in no number"
                ),
            )
        )
    if "train_time_s" in costs:
        found.append(
            _reasons(
                runs,
                runs["time_source"] == "estimated",
                "estimated_time",
                lambda r: "its training time is an estimate",
            )
        )
    if about_energy(costs):
        found += [
            _reasons(
                runs,
                runs["energy_source"].fillna("").str.contains("estimated"),
                "estimated",
                lambda r: "its energy is an estimate",
            ),
            _reasons(
                runs,
                runs["energy_caution"].notna(),
                "coarse_counter",
                lambda r: str(r["energy_caution"]),
            ),
            *_power(runs),
            _shared(runs, evidence.energies),
            *_still(runs, evidence.epochs),
        ]
    return _frame(found)


def about_energy(costs: Sequence[str]) -> bool:
    """Whether a cost is made of energy."""
    return any(c in ENERGY or label(c).startswith(("energy/", "carbon/")) for c in costs)


def _power(runs: pd.DataFrame) -> Iterator[list[_Reason]]:
    time_s = runs["train_time_s"].where(runs["train_time_s"] > 0)
    whole = runs["energy_wh"] * J_PER_WH / time_s
    yield _beyond(runs, whole, runs["machine_power_limit_w"], "its machine draws at most")
    yield _below(
        runs,
        whole,
        runs["idle_power_w"] * _UNDER_IDLE,
        "half of what the machine drew before it began is",
    )
    for part, most_w in _MOST_W.items():
        energy_wh = runs.get(f"metrics.energy/train_{part}_wh")
        if energy_wh is None:
            continue
        most = pd.Series(most_w, runs.index)
        if part == "gpu":
            most = (runs["gpu_power_limit_w"] * _OVER).fillna(most_w)
        least = pd.Series(_LEAST_W.get(part, 0.0), runs.index)
        watts = energy_wh * J_PER_WH / time_s
        yield _beyond(runs, watts, most, f"its {part.upper()} draws at most")
        yield _below(runs, watts, least, f"an idle {part.upper()} takes at least")


def _beyond(
    runs: pd.DataFrame, watts: pd.Series[float], most: pd.Series[float], words: str
) -> list[_Reason]:
    return _implied(runs, watts, most, watts > most, words)


def _below(
    runs: pd.DataFrame, watts: pd.Series[float], least: pd.Series[float], words: str
) -> list[_Reason]:
    return _implied(runs, watts, least, watts < least, words)


def _implied(
    runs: pd.DataFrame,
    watts: pd.Series[float],
    bound: pd.Series[float],
    wrong: pd.Series[bool],
    words: str,
) -> list[_Reason]:
    return _reasons(
        {"run_id": runs["run_id"], "watts": watts, "bound": bound},
        wrong,
        "power",
        lambda r: (
            f"its energy means {r['watts']:,.0f} W over its training time; "
            f"{words} {r['bound']:,.0f} W"
        ),
    )


def _shared(runs: pd.DataFrame, energies: pd.DataFrame | None) -> list[_Reason]:
    """Energies are counted in millionths: two runs never agree to the last digit by chance."""
    columns = ["run_id", "model", "experiment", "energy_wh"]
    known = runs[columns] if energies is None else pd.concat([runs[columns], energies[columns]])
    known = known[known["energy_wh"] > 0].drop_duplicates("run_id")
    known = known[known["energy_wh"].duplicated(keep=False)]
    counts = known["energy_wh"].value_counts().to_dict()
    by_energy: dict[float, list[dict[Any, Any]]] = {}
    for row in known.groupby("energy_wh").head(2).to_dict("records"):  # one is another run
        by_energy.setdefault(row["energy_wh"], []).append(row)

    def text(run: _Row) -> str:
        first = next(r for r in by_energy[run["energy_wh"]] if r["run_id"] != run["run_id"])
        others = counts[run["energy_wh"]] - 1
        more = f" and {others - 1} more" if others > 1 else ""
        return (
            f"its energy of {run['energy_wh']:.6g} Wh is to the last digit that of "
            f"{first['model']} in {first['experiment']} (run {first['run_id']}){more}"
        )

    return _reasons(runs, runs["energy_wh"].isin(by_energy), "same_energy", text)


def _still(runs: pd.DataFrame, epochs: pd.DataFrame | None) -> Iterator[list[_Reason]]:
    zero = (runs["energy_wh"] == 0) & (runs["train_time_s"] > 0)
    yield _reasons(runs, zero, "still_counter", lambda r: "its energy is zero")
    if epochs is None or epochs.empty:
        return
    known = epochs.dropna(subset=["energy_wh"])
    ordered = known.assign(run=pd.factorize(known["run_id"])[0]).sort_values(["run", "step"])
    stands = (ordered["run"].diff() == 0) & (ordered["energy_wh"].diff() <= 0)
    stood = ordered[stands].drop_duplicates("run").set_index("run_id")["step"]
    yield _reasons(
        {"run_id": runs["run_id"], "stood": runs["run_id"].map(stood)},
        runs["run_id"].isin(stood.index) & ~zero,
        "still_counter",
        lambda r: f"its energy did not grow in epoch {r['stood']:.0f}: a counter stood still",
    )


def _reasons(
    runs: pd.DataFrame | Mapping[str, Any],
    rows: pd.Series[bool],
    reason: str,
    text: Callable[[_Row], str],
) -> list[_Reason]:
    """Run, reason and text of the rows that are true."""
    places = np.flatnonzero(rows.to_numpy(bool, na_value=False))
    values = _Columns(runs, places)
    return [(values["run_id"][i], reason, text(_Row(values, i))) for i in range(len(places))]


def _frame(found: Iterable[list[_Reason]]) -> pd.DataFrame:
    return pd.DataFrame(chain(*found), columns=["run_id", "reason", "text"], dtype="str")


class _Columns(dict[str, list[Any]]):
    """The columns of some rows of a frame as lists, each made when it is first asked for."""

    def __init__(self, runs: pd.DataFrame | Mapping[str, Any], places: NDArray[np.intp]) -> None:
        self._runs = runs
        self._places = places

    def __missing__(self, name: str) -> list[Any]:
        found: list[Any] = self._runs[name].iloc[self._places].tolist()
        self[name] = found
        return found


@dataclass(frozen=True)
class _Row:
    """A row by its columns' names: a text needs few of hundreds, all of which `iterrows` makes."""

    columns: _Columns
    place: int

    def __getitem__(self, name: str) -> Any:
        return self.columns[name][self.place]


# Comparison sets -------------------------------------------------------------------------------


def comparable(runs: pd.DataFrame, costs: Sequence[str] = ()) -> list[str]:
    """The columns that runs of one comparison set share where these are the costs.

    What energy is made of where it counts, and of what kind memory is where that counts. Settings
    that are themselves all the cost, as the training fraction, may differ.
    """
    exempt = set(costs) if set(costs) <= set(COMPARED) else set()
    shared = [c for c in COMPARED if c not in exempt]
    if about_energy(costs):
        shared.append("energy_components")
    if "memory_gb" in costs:
        shared.append("memory_metric")
    return shared


def mixed(runs: pd.DataFrame, shared: Sequence[str]) -> list[str]:
    """Those of the columns `shared` in which the runs differ; not known is a value of its own."""
    return [c for c in shared if len(_texts(runs, c)[1]) > 1]


def in_common(runs: pd.DataFrame, columns: Sequence[str]) -> dict[str, str]:
    """The text of each of the columns, `several` where the runs differ in it."""
    texts = {name: _texts(runs, name)[1] for name in columns}
    return {name: str(of[0]) if len(of) == 1 else "several" for name, of in texts.items()}


def conditions(runs: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """Values as text, to tell runs apart and to name groups by; each column is a categorical.

    A parameter that has no value of its type, as `epochs` of `all`, is what it says.
    """
    texts = {name: pd.Categorical.from_codes(*_texts(runs, name)) for name in columns}
    return pd.DataFrame(texts, index=runs.index)


def groups(runs: pd.DataFrame, by: Sequence[str]) -> pd.Series[str]:
    """For each run the name of its group, such as `hardware=A100, epochs=10`."""
    values = conditions(runs, by)
    words = [c.removeprefix("params.") + "=" + values[c].map(_quoted).astype("str") for c in values]
    return pd.concat(words, axis=1).agg(", ".join, axis=1)


def _quoted(text: str) -> str:
    """So that no value can be taken for two."""
    return repr(text) if ", " in text else text


def listed(names: pd.Series[str]) -> str:
    """Groups and how many runs each has, the largest first."""
    counts: Mapping[str, int] = names.value_counts().to_dict()
    return "; ".join(f"{name}: {n} run{'s' * (n != 1)}" for name, n in counts.items())


def _texts(runs: pd.DataFrame, name: str) -> tuple[NDArray[np.intp], NDArray[np.object_]]:
    """A column of `conditions`: for each run the place of its text among the different ones."""
    values, said = runs[name], runs.get(f"params.{name}")
    if said is not None and values.isna().any():
        values = values.astype(object).where(values.notna(), said)
    of_run, different = pd.factorize(values, use_na_sentinel=False)
    of_value, texts = pd.factorize(np.array([_text(v) for v in different], dtype=object))
    return of_value[of_run], texts


def _text(value: object) -> str:
    if value is None or value is pd.NA or value != value:
        return NOT_KNOWN
    if isinstance(value, bool | np.bool_):
        return str(bool(value)).lower()
    if isinstance(value, float):
        return np.format_float_positional(value, trim="-")  # every digit: 1, 0.0005
    return str(value)
