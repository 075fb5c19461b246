"""Why runs are left out or flagged, in words a person can check. Pure.

A run that cannot be compared is left out, by `left_out` and `repeated`. A run whose numbers are
doubtful is compared and flagged, by the rules of `RULES`. Both are frames of `run_id`, `reason`
(one word, of a flag its name) and `text`. Runs are frames of `runs.tidy`, after `question.choose`
has set `model`, `performance` and costs.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pepr_mlops.comparison import inference, profiles
from pepr_mlops.comparison.conditions import (
    about_energy,
    comparable,
    conditions,
    energy_is,
    mixed,
    of_folds,
    own_params,
)
from pepr_mlops.comparison.image_counts import image_count, is_count_of
from pepr_mlops.comparison.prediction_checks import contradictions, one_class
from pepr_mlops.comparison.runs import Evidence, label
from pepr_mlops.comparison.words import NOT_FINISHED, status_words
from pepr_mlops.costs.totals import BUSY, J_PER_WH, machine_text, others_text, paused_text
from pepr_mlops.names import DOUBTS, ENERGY, FORMS, LOST, PROFILED, Doubt, memory_metric

# What no component draws; a GPU's own limit is in its run's tags.
_MOST_W = {
    "gpu": 1500.0,  # NVIDIA B300: 1,400 W
    "cpu": 1200.0,  # two packages of AMD EPYC 9005: 500 W each
    "dram": 300.0,
    "soc": 400.0,  # Apple M3 Ultra with its supply: 480 W for the full machine
}
_OVER = 1.1  # limits hold on the average of seconds; counters are exact to a few per cent
_LEAST_W = {"gpu": 3.0, "cpu": 1.0}  # idling takes more
_UNDER_IDLE = 0.5  # share of the idle power below which a mean power is no measurement
# The measurements of a run that no other has by chance, whatever P is compared by.
_MEASURED = {
    "energy_wh": "energy",
    "train_time_s": "time",
    "memory_gb": "memory",
    "metrics.performance": "performance",
}


class Row:
    """The current row of some rows of a frame, by column.

    A text needs few of hundreds of columns, all of which `iterrows` would make; here each becomes a
    list when it is first used.
    """

    def __init__(self, runs: pd.DataFrame | Mapping[str, Any], rows: NDArray[np.intp]) -> None:
        self._runs, self._rows = runs, rows
        self._lists: dict[str, list[Any]] = {}
        self.place = 0

    def __getitem__(self, name: str) -> Any:
        if name not in self._lists:
            self._lists[name] = self._runs[name].iloc[self._rows].tolist()
        return self._lists[name][self.place]


# Columns, the rows of them that are concerned, and the text for each of these.
Case = tuple[pd.DataFrame | Mapping[str, Any], "pd.Series[bool]", Callable[[Row], str]]


def _table(cases: Iterable[tuple[str, Case]]) -> pd.DataFrame:
    found = []
    for reason, (runs, chosen, text) in cases:
        rows = np.flatnonzero(chosen.to_numpy(bool, na_value=False))
        row = Row(runs, rows)
        for row.place in range(len(rows)):
            found.append((row["run_id"], reason, text(row)))
    return pd.DataFrame(found, columns=["run_id", "reason", "text"], dtype="str")


# Runs that are left out -------------------------------------------------------------------------


def left_out(runs: pd.DataFrame, costs: Sequence[str]) -> pd.DataFrame:
    """Why runs cannot be compared; a run may have several reasons.

    Runs that are not finished, do not name their model, have a non-finite or no value of P or of a
    cost, or were stopped by a budget. P of folds is that of all of them (`folds`).
    """
    stopped = runs["stopped"]
    return _table(
        [
            (NOT_FINISHED, (runs, runs["status"] != "FINISHED", _status)),
            ("stopped", (runs, stopped.notna(), lambda r: f"a budget stopped it: {r['stopped']}")),
            ("no_model", (runs, runs["model"].isna(), lambda r: "it does not name its model")),
            *_without_value(runs[~of_folds(runs)], "performance", "performance"),
            *(case for cost in costs for case in _without_value(runs, cost, "cost")),
        ]
    )


def _status(run: Row) -> str:
    return status_words(run["status"], None if pd.isna(run["reason"]) else run["reason"])


def _without_value(runs: pd.DataFrame, column: str, what: str) -> Iterator[tuple[str, Case]]:
    values, name = runs[column], label(column)
    lost = (runs["energy_source"] == LOST) & (column in ENERGY)
    infinite, missing = np.isinf(values), values.isna()
    yield "non_finite", (runs, infinite, lambda r: f"its {name} is not a finite number")
    part = "its energy is known for a part of it only"
    yield f"no_{what}", (runs, missing & lost, lambda r: f"{part}: {r['energy_missing']}")
    remedy = f"; {profiles.remedy(name)} measures it" if name in PROFILED else ""
    yield f"no_{what}", (runs, missing & ~lost, lambda r: f"it has no {name}{remedy}")


def repeated(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs that another of the same spec, seed, fold and hardware repeats.

    The newest stays; the newest that had CPUs or GPU to itself and was not stopped, if there is
    one. Runs without a seed do not count: their repetitions stand for seeds. Nor do runs that pepr
    did not log, since it does not know their spec.
    """
    rest = runs[runs["seed"].notna() & runs["logged_by_pepr"]]
    spec = ["seed", "fold", "initial_weights", *comparable(), *own_params(rest)]
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
    by_age["stays"] = by_age["key"].map(last["run_id"])
    by_age["worse"] = ~by_age["alone"] & by_age["key"].map(last["alone"])
    how = {True: "did the same undisturbed", False: "repeats it later"}
    rows = by_age["run_id"] != by_age["stays"]
    case = (by_age, rows, lambda r: f"run {r['stays']} {how[r['worse']]}")
    return _table([("duplicate", case)])


# Runs that are flagged --------------------------------------------------------------------------


def _on_busy_cpus(runs: pd.DataFrame) -> pd.Series[bool]:
    # earlier runs counted on all CPUs of the machine
    counted = runs["cpu_others_of"].fillna(runs["cpu_count"])
    return (runs["memory_metric"] == memory_metric("cpu")) & (runs["cpu_others"] > BUSY * counted)


def _on_shared_gpu(runs: pd.DataFrame) -> pd.Series[bool]:
    return runs["gpu_other_processes"].fillna("none") != "none"


def _measured_while_paused(runs: pd.DataFrame) -> pd.Series[bool]:
    """Whether the sensors counted while the process was paused."""
    return (runs["paused_s"] > 0) & energy_is(runs, "measured")


def disturbed(runs: pd.DataFrame) -> pd.Series[bool]:
    """Whether other programs used the device of a run, or its sensors counted while it was paused:
    its costs are overstated."""
    return _on_busy_cpus(runs) | _on_shared_gpu(runs) | _measured_while_paused(runs)


def _with_energy_of_others(runs: pd.DataFrame) -> pd.Series[bool]:
    """Whether other programs used a part of the CPU energy, which is that of the full machine."""
    counts_cpu = runs["energy_components"].fillna("").str.contains("cpu=")
    others = runs["machine_cpu_others"].fillna(runs["cpu_others"])
    return counts_cpu & (others > BUSY * runs["cpu_count"]) & ~_on_busy_cpus(runs)


def _known(row: Row, name: str, otherwise: str) -> Any:
    """The number in one column or, where it is missing, in another."""
    return row[otherwise] if np.isnan(row[name]) else row[name]


def _power(runs: pd.DataFrame, _: Evidence) -> Iterator[Case]:
    """Energies that mean more power than a part can draw, or less than it takes to idle."""
    time_s = runs["train_time_s"].where(runs["train_time_s"] > 0)
    counted_s = time_s + runs["paused_s"].fillna(0.0)  # in which sensors may have counted
    joules, most = runs["energy_wh"] * J_PER_WH, runs["machine_power_limit_w"]
    idle_w = runs["idle_power_w"] * _UNDER_IDLE
    bounds = [
        (joules / counted_s, operator.gt, most, "its machine draws at most"),
        (joules / time_s, operator.lt, idle_w, "half of what the machine drew before it began is"),
    ]
    for part, part_w in _MOST_W.items():
        energy_wh = runs.get(f"metrics.energy/train_{part}_wh")
        if energy_wh is None:
            continue
        most = pd.Series(part_w, runs.index)
        if part == "gpu":
            most = (runs["gpu_power_limit_w"] * _OVER).fillna(part_w) * runs["gpu_count"].fillna(1)
        least = pd.Series(_LEAST_W.get(part, 0.0), runs.index)
        joules, name = energy_wh * J_PER_WH, part.upper()
        bounds += [
            (joules / counted_s, operator.gt, most, f"its {name} draws at most"),
            (joules / time_s, operator.lt, least, f"an idle {name} takes at least"),
        ]
    for watts, beyond, bound, words in bounds:
        yield (
            {"run_id": runs["run_id"], "watts": watts, "bound": bound},
            beyond(watts, bound),
            lambda r, words=words: (  # type: ignore[misc]
                f"its energy means {r['watts']:,.0f} W over its training time; "
                f"{words} {r['bound']:,.0f} W"
            ),
        )


def _alike(known: pd.DataFrame, columns: Sequence[str]) -> dict[str, tuple[dict[Any, Any], int]]:
    """For each run that equals others in all columns: the first of them, and how many there are."""
    known = known.drop_duplicates("run_id")
    known = known[known.duplicated(list(columns), keep=False)]
    groups: dict[int, list[dict[Any, Any]]] = {}
    places = known.groupby(list(columns), dropna=False).ngroup()
    for place, row in zip(places, known.to_dict("records"), strict=True):
        groups.setdefault(place, []).append(row)
    return {
        row["run_id"]: (group[1] if row is group[0] else group[0], len(group) - 1)
        for group in groups.values()
        for row in group
    }


def _same_energy(runs: pd.DataFrame, evidence: Evidence) -> Iterator[Case]:
    """Energies are counted in millionths: two runs never agree to the last digit by chance."""
    columns = ["run_id", "model", "experiment", "energy_wh"]
    known = pd.concat([r[columns] for r in (runs, evidence.energies) if r is not None])
    others = _alike(known[known["energy_wh"] > 0], ["energy_wh"])

    def text(run: Row) -> str:
        first, count = others[run["run_id"]]
        return (
            f"its energy of {run['energy_wh']:.6g} Wh is to the last digit that of "
            f"{first['model']} in {first['experiment']} (run {first['run_id']})"
            + (f" and {count - 1} more" if count > 1 else "")
        )

    yield runs, runs["run_id"].isin(others), text


def _same_numbers(runs: pd.DataFrame, evidence: Evidence) -> Iterator[Case]:
    """Runs that share every measurement with another, which no two trainings do.

    Time and performance alone may have been rounded.
    """
    columns = ["run_id", "model", "experiment", *_MEASURED]
    known = pd.concat([r.reindex(columns=columns) for r in (runs, evidence.twins) if r is not None])
    known = known[(known["train_time_s"] > 0) & known["metrics.performance"].notna()]
    known = known[known["energy_wh"].notna() | known["memory_gb"].notna()]
    others = _alike(known, list(_MEASURED))

    def text(run: Row) -> str:
        that, _ = others[run["run_id"]]
        *names, last = [name for column, name in _MEASURED.items() if not pd.isna(that[column])]
        return (
            f"its {', '.join(names)} and {last} are to the last digit those of {that['model']} in "
            f"{that['experiment']} (run {that['run_id']}): one of the two is a copy"
        )

    yield runs, runs["run_id"].isin(others), text


def _impossible_accuracy(runs: pd.DataFrame, _: Evidence) -> Iterator[Case]:
    """Runs whose P is no count of the images that the other runs on their data set counted."""
    known = runs[np.isfinite(runs["performance"])]
    by = ["dataset", "size", "data_digest", "folds", "fold", "performance_metric"]
    for _, alike in known.groupby(by, dropna=False):
        shares = alike["performance"].to_numpy(float)
        if (n := image_count(shares)) is None:
            continue
        wrong = ~is_count_of(shares, n)
        rest = len(alike) - int(wrong.sum())
        yield (
            alike,
            pd.Series(wrong, alike.index),
            lambda r, n=n, rest=rest: (  # type: ignore[misc]
                f"its performance of {r['performance']:.6g} is no count of {n:,} images, as that "
                f"of {rest} other runs on its data set is: it is of other images or computed in "
                "another way"
            ),
        )


def _still_counter(runs: pd.DataFrame, evidence: Evidence) -> Iterator[Case]:
    """Counters that stood still, in all or in an epoch."""
    zero = (runs["energy_wh"] == 0) & (runs["train_time_s"] > 0)
    yield runs, zero, lambda r: "its energy is zero"
    if evidence.epochs is None or evidence.epochs.empty:
        return
    known = evidence.epochs.dropna(subset=["energy_wh"])
    ordered = known.assign(run=pd.factorize(known["run_id"])[0]).sort_values(["run", "step"])
    stands = (ordered["run"].diff() == 0) & (ordered["energy_wh"].diff() <= 0)
    stood = ordered[stands].drop_duplicates("run").set_index("run_id")["step"]
    yield (
        {"run_id": runs["run_id"], "stood": runs["run_id"].map(stood)},
        runs["run_id"].isin(stood.index) & ~zero,
        lambda r: f"its energy did not grow in epoch {r['stood']:.0f}: a counter stood still",
    )


ALWAYS, ENERGY_COST, TIME_COST, TIME_OR_ENERGY = "always", "energy", "time", "time or energy"


@dataclass(frozen=True)
class Rule:
    """A flag, the costs that it concerns, and the cases of it."""

    code: str
    concerns: str
    cases: Callable[[pd.DataFrame, Evidence], Iterable[Case]]


def _of_run(
    code: str,
    concerns: str,
    rows: Callable[[pd.DataFrame], pd.Series[bool]],
    text: Callable[[Row], str],
) -> Rule:
    """A rule that needs no evidence besides the run."""
    return Rule(code, concerns, lambda runs, _: [(runs, rows(runs), text)])


def _of_tag(code: str, concerns: str, column: str) -> Rule:
    """A rule for runs with a tag whose text says what is doubtful."""
    return _of_run(code, concerns, lambda runs: runs[column].notna(), lambda r: str(r[column]))


def _of_predictions(code: str, find: Callable[[pd.DataFrame, Evidence], Mapping[str, str]]) -> Rule:
    """A rule that finds texts by run id in what runs predicted."""

    def cases(runs: pd.DataFrame, evidence: Evidence) -> Iterator[Case]:
        texts = find(runs, evidence)
        yield runs, runs["run_id"].isin(texts), lambda r: texts[r["run_id"]]

    return Rule(code, ALWAYS, cases)


def _of_images(doubt: Doubt) -> Rule:
    code = doubt.code
    return _of_run(code, ALWAYS, lambda runs: runs[code].notna(), lambda r: doubt.text(r[code]))


def _of_profile(form: str) -> Iterator[Rule]:
    for name in inference.DOUBTS:
        concerns = f"{form} energy" if name == "energy_source" else form
        yield _of_run(
            f"{form}_estimated" if name == "energy_source" else f"{form}_{name}",
            concerns,
            lambda runs, name=name: inference.doubtful(runs, form, name),  # type: ignore[misc]
            inference.text_of(form, name),
        )


RULES = (
    _of_run(
        "other_processes",
        ALWAYS,
        _on_shared_gpu,
        lambda r: f"other processes used its GPU: {r['gpu_other_processes']}",
    ),
    _of_run(
        "busy_cpu",
        TIME_OR_ENERGY,
        _on_busy_cpus,
        lambda r: others_text(r["cpu_others"], _known(r, "cpu_others_of", "cpu_count")),
    ),
    _of_run(
        "busy_machine",
        ENERGY_COST,
        _with_energy_of_others,
        lambda r: machine_text(_known(r, "machine_cpu_others", "cpu_others"), r["cpu_count"]),
    ),
    _of_run(
        "interrupted",
        TIME_OR_ENERGY,
        lambda runs: runs["unmeasured_s"] > 0,
        lambda r: (
            f"it was interrupted and continued; up to {r['unmeasured_s']:,.0f} s of work are in "
            "no number"
        ),
    ),
    _of_run(
        "paused",
        ENERGY_COST,
        _measured_while_paused,
        lambda r: paused_text(r["paused_s"], measured=True),
    ),
    _of_run(
        "estimated_time",
        TIME_COST,
        lambda runs: runs["time_source"] == "estimated",
        lambda r: "its training time is an estimate",
    ),
    _of_run(
        "estimated",
        ENERGY_COST,
        lambda runs: energy_is(runs, "estimated") & runs["energy_wh"].notna(),
        lambda r: "its energy is an estimate",
    ),
    _of_tag("coarse_counter", ENERGY_COST, "energy_caution"),
    _of_tag("shared_node", ENERGY_COST, "node_share"),
    _of_tag("left_running", TIME_OR_ENERGY, "left_running"),
    _of_tag("doubtful_import", ENERGY_COST, "import_doubt"),
    *(_of_images(doubt) for doubt in DOUBTS if doubt.flagged),
    *(rule for form in FORMS for rule in _of_profile(form)),
    Rule("same_numbers", ALWAYS, _same_numbers),
    Rule("impossible_accuracy", ALWAYS, _impossible_accuracy),
    _of_predictions("predictions", contradictions),
    # Networks that have learnt nothing: of such equals each is as good as the best.
    _of_predictions("one_class", lambda _, evidence: one_class(evidence)),
    Rule("power", ENERGY_COST, _power),
    Rule("same_energy", ENERGY_COST, _same_energy),
    Rule("still_counter", ENERGY_COST, _still_counter),
)
FLAGS = tuple(rule.code for rule in RULES)


def flagged(
    runs: pd.DataFrame, costs: Sequence[str], evidence: Evidence | None = None
) -> pd.DataFrame:
    """The flags of runs by `RULES`.

    What concerns energy is flagged where a cost is made of it, and what concerns the time where it
    is a cost.
    """
    energy, time = about_energy(costs), "train_time_s" in costs
    concerned = {ALWAYS: True, ENERGY_COST: energy, TIME_COST: time, TIME_OR_ENERGY: energy or time}
    for form in FORMS:
        of_form = [c for c in costs if form in profiles.forms_of([c])]
        concerned[form] = bool(of_form)
        concerned[f"{form} energy"] = any(map(profiles.is_energy, of_form))
    return _table(
        (rule.code, case)
        for rule in RULES
        if concerned[rule.concerns]
        for case in rule.cases(runs, evidence or Evidence())
    )
