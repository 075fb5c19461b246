"""Which runs cannot be compared, which are doubtful, and why, in words a person can check. Pure.

Runs are frames of `frame.tidy`, after `question.choose` has set `model`, `performance` and costs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from pepr_mlops.comparison.conditions import about_energy, comparable, conditions, mixed, own_params
from pepr_mlops.comparison.counts import counted, multiples
from pepr_mlops.comparison.reasons import Reason, Row, frame_of, reasons
from pepr_mlops.comparison.runs import MEASURED, Evidence, label
from pepr_mlops.costs.totals import BUSY, J_PER_WH, LOST, machine_text, others_text, paused_text
from pepr_mlops.names import DOUBTS, ENERGY, Doubt, memory_metric

# What no component draws; a GPU's own limit is in its run's tags.
_MOST_W = {
    "gpu": 1500.0,  # NVIDIA B300: 1,400 W
    "cpu": 1200.0,  # two packages of AMD EPYC 9005: 500 W each
    "dram": 300.0,
    "soc": 400.0,  # Apple M3 Ultra with its supply: 480 W for the whole machine
}
_OVER = 1.1  # limits hold on the average of seconds; counters are exact to a few per cent
_LEAST_W = {"gpu": 3.0, "cpu": 1.0}  # idling takes more
_UNDER_IDLE = 0.5  # share of the idle power below which a mean power is no measurement


def left_out(runs: pd.DataFrame, costs: Sequence[str]) -> pd.DataFrame:
    """Why runs cannot be compared: `run_id`, `reason` (one word), `text`; a run may have several.

    Runs that are not finished, do not name their model, have a non-finite or no value of P or of a
    cost, or were stopped by a budget.
    """
    found = [
        reasons(
            runs,
            runs["status"] != "FINISHED",
            "not_finished",
            lambda r: (
                f"its status is {r['status']}, not FINISHED"
                + ("" if pd.isna(r["reason"]) else f" ({r['reason']})")
            ),
        ),
        reasons(
            runs,
            runs["stopped"].notna(),
            "stopped",
            lambda r: f"a budget stopped it: {r['stopped']}",
        ),
        reasons(
            runs, runs["model"].isna(), "no_model", lambda r: "it does not say which model it is"
        ),
        *_values(runs, "performance", "performance"),
    ]
    for cost in costs:
        found += _values(runs, cost, "cost")
    return frame_of(found)


def _values(runs: pd.DataFrame, column: str, what: str) -> Iterator[list[Reason]]:
    values, name = runs[column], label(column)
    yield reasons(
        runs, np.isinf(values), "non_finite", lambda r: f"its {name} is not a finite number"
    )
    lost = (runs["energy_source"] == LOST) & (column in ENERGY)
    yield reasons(
        runs,
        values.isna() & lost,
        f"no_{what}",
        lambda r: f"its energy is known for a part of it only: {r['energy_missing']}",
    )
    yield reasons(runs, values.isna() & ~lost, f"no_{what}", lambda r: f"it has no {name}")


def repeated(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs that another of the same spec, seed and hardware repeats, as of `left_out`.

    The newest stays, of those that had CPUs or GPU to themselves and were not stopped if there are
    any. Runs without a
    seed are not meant: their repetitions are what seeds are. Nor are those pepr did not log, of
    which it cannot know.
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
    worse = ~by_age["alone"] & by_age["key"].map(last["alone"])
    left = by_age["run_id"] != by_age["kept"]
    return frame_of(
        [
            reasons(
                by_age,
                left & ~worse,
                "duplicate",
                lambda r: f"run {r['kept']} repeats it later",
            ),
            reasons(
                by_age,
                left & worse,
                "duplicate",
                lambda r: f"run {r['kept']} did the same undisturbed",
            ),
        ]
    )


def _on_busy_cpus(runs: pd.DataFrame) -> pd.Series[bool]:
    on_cpu = runs["memory_metric"] == memory_metric("cpu")
    return on_cpu & (runs["cpu_others"] > BUSY * _counted_on(runs))


def disturbed(runs: pd.DataFrame) -> pd.Series[bool]:
    """Whether other programs were at work on the device of a run, or it stood still while its
    sensors measured on: its costs are overstated."""
    return _on_busy_cpus(runs) | _on_a_shared_gpu(runs) | _energy_ran_on(runs)


def _with_energy_of_others(runs: pd.DataFrame) -> pd.Series[bool]:
    """Whether the energy of the CPUs, which is the whole machine's, is also that of others."""
    counts_cpu = runs["energy_components"].fillna("").str.contains("cpu=")
    others = runs["machine_cpu_others"].fillna(runs["cpu_others"])
    return counts_cpu & (others > BUSY * runs["cpu_count"]) & ~_on_busy_cpus(runs)


def _counted_on(runs: pd.DataFrame) -> pd.Series[float]:
    """CPUs that `cpu_others` is of: earlier runs counted on all of the machine."""
    return runs["cpu_others_of"].fillna(runs["cpu_count"])


def _energy_ran_on(runs: pd.DataFrame) -> pd.Series[bool]:
    """Whether sensors counted on while the process stood still."""
    return (runs["paused_s"] > 0) & runs["energy_source"].fillna("").str.contains("measured")


def _on_a_shared_gpu(runs: pd.DataFrame) -> pd.Series[bool]:
    return runs["gpu_other_processes"].fillna("none") != "none"


def flagged(
    runs: pd.DataFrame, costs: Sequence[str], evidence: Evidence | None = None
) -> pd.DataFrame:
    """What is doubtful about runs, in the columns of `left_out`: `RULES`, and what one run cannot
    show alone.

    What concerns energy is reported where a cost is made of it, and what concerns the time where
    it is a cost.
    """
    evidence = evidence or Evidence()
    concerned = {
        ALWAYS: True,
        ENERGY_COST: about_energy(costs),
        TIME_COST: "train_time_s" in costs,
        TIME_OR_ENERGY: about_energy(costs) or "train_time_s" in costs,
    }
    found = [
        reasons(runs, rule.rows(runs), rule.code, rule.text)
        for rule in RULES
        if concerned[rule.concerns]
    ]
    found += [_identical(runs, evidence.twins), *_impossible_shares(runs)]
    if about_energy(costs):
        found += [
            *_power(runs),
            _shared(runs, evidence.energies),
            *_still(runs, evidence.epochs),
        ]
    return frame_of(found)


ALWAYS, ENERGY_COST, TIME_COST, TIME_OR_ENERGY = "always", "energy", "time", "time or energy"


@dataclass(frozen=True)
class Rule:
    """A doubt about single runs: its code, the costs that it concerns, which runs have it, and the
    text for a row of them."""

    code: str
    concerns: str
    rows: Callable[[pd.DataFrame], pd.Series[bool]]
    text: Callable[[Row], str]


def _of_images(doubt: Doubt) -> Rule:
    code = doubt.code
    return Rule(code, ALWAYS, lambda runs: runs[code].notna(), lambda r: doubt.said(r[code]))


RULES = (
    Rule(
        "other_processes",
        ALWAYS,
        _on_a_shared_gpu,
        lambda r: f"other processes used its GPU: {r['gpu_other_processes']}",
    ),
    Rule(
        "busy_cpu",
        TIME_OR_ENERGY,
        _on_busy_cpus,
        lambda r: others_text(
            r["cpu_others"],
            r["cpu_count"] if np.isnan(r["cpu_others_of"]) else r["cpu_others_of"],
        ),
    ),
    Rule(
        "busy_machine",
        ENERGY_COST,
        _with_energy_of_others,
        lambda r: machine_text(
            r["cpu_others"] if np.isnan(r["machine_cpu_others"]) else r["machine_cpu_others"],
            r["cpu_count"],
        ),
    ),
    Rule(
        "interrupted",
        TIME_OR_ENERGY,
        lambda runs: runs["unmeasured_s"] > 0,
        lambda r: (
            f"it was interrupted and continued; up to {r['unmeasured_s']:,.0f} s of work are in "
            "no number"
        ),
    ),
    Rule(
        "paused",
        ENERGY_COST,
        _energy_ran_on,
        lambda r: paused_text(r["paused_s"], measured=True),
    ),
    Rule(
        "estimated_time",
        TIME_COST,
        lambda runs: runs["time_source"] == "estimated",
        lambda r: "its training time is an estimate",
    ),
    Rule(
        "estimated",
        ENERGY_COST,
        lambda runs: runs["energy_source"].fillna("").str.contains("estimated"),
        lambda r: "its energy is an estimate",
    ),
    Rule(
        "coarse_counter",
        ENERGY_COST,
        lambda runs: runs["energy_caution"].notna(),
        lambda r: str(r["energy_caution"]),
    ),
    *(_of_images(doubt) for doubt in DOUBTS if doubt.flagged),
)


FLAGS = (
    *(rule.code for rule in RULES),
    *("power", "same_energy", "same_numbers", "impossible_accuracy", "still_counter"),
)


def _power(runs: pd.DataFrame) -> Iterator[list[Reason]]:
    time_s = runs["train_time_s"].where(runs["train_time_s"] > 0)
    counted_s = time_s + runs["paused_s"].fillna(0.0)  # sensors may have counted on
    whole_j = runs["energy_wh"] * J_PER_WH
    most_w = runs["machine_power_limit_w"]
    yield _beyond(runs, whole_j / counted_s, most_w, "its machine draws at most")
    yield _below(
        runs,
        whole_j / time_s,
        runs["idle_power_w"] * _UNDER_IDLE,
        "half of what the machine drew before it began is",
    )
    for part, part_w in _MOST_W.items():
        energy_wh = runs.get(f"metrics.energy/train_{part}_wh")
        if energy_wh is None:
            continue
        most = pd.Series(part_w, runs.index)
        if part == "gpu":
            most = (runs["gpu_power_limit_w"] * _OVER).fillna(part_w)
        least = pd.Series(_LEAST_W.get(part, 0.0), runs.index)
        joules, name = energy_wh * J_PER_WH, part.upper()
        yield _beyond(runs, joules / counted_s, most, f"its {name} draws at most")
        yield _below(runs, joules / time_s, least, f"an idle {name} takes at least")


def _beyond(
    runs: pd.DataFrame, watts: pd.Series[float], most: pd.Series[float], words: str
) -> list[Reason]:
    return _implied(runs, watts, most, watts > most, words)


def _below(
    runs: pd.DataFrame, watts: pd.Series[float], least: pd.Series[float], words: str
) -> list[Reason]:
    return _implied(runs, watts, least, watts < least, words)


def _implied(
    runs: pd.DataFrame,
    watts: pd.Series[float],
    bound: pd.Series[float],
    wrong: pd.Series[bool],
    words: str,
) -> list[Reason]:
    return reasons(
        {"run_id": runs["run_id"], "watts": watts, "bound": bound},
        wrong,
        "power",
        lambda r: (
            f"its energy means {r['watts']:,.0f} W over its training time; "
            f"{words} {r['bound']:,.0f} W"
        ),
    )


def _shared(runs: pd.DataFrame, energies: pd.DataFrame | None) -> list[Reason]:
    """Energies are counted in millionths: two runs never agree to the last digit by chance."""
    columns = ["run_id", "model", "experiment", "energy_wh"]
    known = runs[columns] if energies is None else pd.concat([runs[columns], energies[columns]])
    known = known[known["energy_wh"] > 0].drop_duplicates("run_id")
    known = known[known["energy_wh"].duplicated(keep=False)]
    counts = known["energy_wh"].value_counts().to_dict()
    by_energy: dict[float, list[dict[Any, Any]]] = {}
    for row in known.groupby("energy_wh").head(2).to_dict("records"):  # one is another run
        by_energy.setdefault(row["energy_wh"], []).append(row)

    def text(run: Row) -> str:
        first = next(r for r in by_energy[run["energy_wh"]] if r["run_id"] != run["run_id"])
        others = counts[run["energy_wh"]] - 1
        more = f" and {others - 1} more" if others > 1 else ""
        return (
            f"its energy of {run['energy_wh']:.6g} Wh is to the last digit that of "
            f"{first['model']} in {first['experiment']} (run {first['run_id']}){more}"
        )

    return reasons(runs, runs["energy_wh"].isin(by_energy), "same_energy", text)


_MEASURED = dict(zip(MEASURED, ("energy", "time", "memory", "performance"), strict=True))


def _identical(runs: pd.DataFrame, twins: pd.DataFrame | None) -> list[Reason]:
    """Runs that share every measurement with another, which no two trainings do.

    Time and performance alone may have been rounded.
    """
    columns = ["run_id", "model", "experiment", *MEASURED]
    known = pd.concat([r.reindex(columns=columns) for r in (runs, twins) if r is not None])
    known = known[(known["train_time_s"] > 0) & known["metrics.performance"].notna()]
    known = known[known["energy_wh"].notna() | known["memory_gb"].notna()]
    known = known.drop_duplicates("run_id")
    known = known[known.duplicated(list(MEASURED), keep=False)]
    keys = known[list(MEASURED)].astype(object).where(known[list(MEASURED)].notna(), None)
    by_key: dict[tuple[Any, ...], list[dict[Any, Any]]] = {}
    for key, row in zip(
        keys.itertuples(index=False, name=None), known.to_dict("records"), strict=True
    ):
        by_key.setdefault(key, []).append(row)
    other = {
        row["run_id"]: next(r for r in group if r["run_id"] != row["run_id"])
        for group in by_key.values()
        for row in group
    }

    def text(run: Row) -> str:
        that = other[run["run_id"]]
        alike = [name for name in _MEASURED if not pd.isna(that[name])]
        names = ", ".join(_MEASURED[name] for name in alike[:-1])
        return (
            f"its {names} and {_MEASURED[alike[-1]]} are to the last digit those of "
            f"{that['model']} in {that['experiment']} (run {that['run_id']}): one of the two is a "
            "copy"
        )

    return reasons(runs, runs["run_id"].isin(other), "same_numbers", text)


def _impossible_shares(runs: pd.DataFrame) -> Iterator[list[Reason]]:
    """Runs whose P is a count of other images than that of the others on the same data set."""
    known = runs[np.isfinite(runs["performance"])]
    by = ["dataset", "size", "data_digest", "performance_metric"]
    for _, alike in known.groupby(by, dropna=False):
        shares = alike["performance"].to_numpy(float)
        n = counted(shares)
        if n is None:
            continue
        wrong = ~multiples(shares, n)
        rest = len(alike) - int(wrong.sum())
        yield reasons(
            alike,
            pd.Series(wrong, alike.index),
            "impossible_accuracy",
            lambda r, n=n, rest=rest: (  # type: ignore[misc]
                f"its performance of {r['performance']:.6g} is no count of {n:,} images, as that "
                f"of {rest} other runs on its data set is: it is of other images or computed in "
                "another way"
            ),
        )


def _still(runs: pd.DataFrame, epochs: pd.DataFrame | None) -> Iterator[list[Reason]]:
    zero = (runs["energy_wh"] == 0) & (runs["train_time_s"] > 0)
    yield reasons(runs, zero, "still_counter", lambda r: "its energy is zero")
    if epochs is None or epochs.empty:
        return
    known = epochs.dropna(subset=["energy_wh"])
    ordered = known.assign(run=pd.factorize(known["run_id"])[0]).sort_values(["run", "step"])
    stands = (ordered["run"].diff() == 0) & (ordered["energy_wh"].diff() <= 0)
    stood = ordered[stands].drop_duplicates("run").set_index("run_id")["step"]
    yield reasons(
        {"run_id": runs["run_id"], "stood": runs["run_id"].map(stood)},
        runs["run_id"].isin(stood.index) & ~zero,
        "still_counter",
        lambda r: f"its energy did not grow in epoch {r['stood']:.0f}: a counter stood still",
    )
