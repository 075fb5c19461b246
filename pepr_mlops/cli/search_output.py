"""What `pepr sweep` prints about a frugal search: progress, results, and replays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial

import pandas as pd

from pepr_mlops.cli.output import energies, note, render, say, table
from pepr_mlops.comparison.words import amount
from pepr_mlops.names import ScoredOn
from pepr_mlops.sweep.driver import Result, Status
from pepr_mlops.sweep.frugal import Objective, Verdict, requests
from pepr_mlops.sweep.prior import Prior
from pepr_mlops.sweep.replay import Found, Recorded, recorded
from pepr_mlops.sweep.replay import replay as replay_search
from pepr_mlops.sweep.search import Search, read_prior
from pepr_mlops.train.progress import seconds_text

_SCORES = ("P", "R", "score", "bound", "test_P")
_DECIDED: dict[ScoredOn, str] = {
    "val": "validation",
    "test": "test: the winner was chosen by it, so the winner's test P is optimistic",
}


def line(search: Search, now: Status) -> str:
    """The progress of a search in a line."""
    verdict = search.verdict(now.jobs, now.runs)
    measured = int(verdict.table["cost"].notna().sum())
    if measured < len(verdict.table):
        return f"cost known of {measured} of {len(verdict.table)} models"
    counts = verdict.table["state"].value_counts()
    text = ", ".join(f"{n} {state}" for state, n in counts.items())
    text += f"; {_spent(verdict, search.spending)}"
    if verdict.top:
        best = verdict.top[0]
        text += f"; best {best} {search.decide_on} PePR-{search.letter} "
        text += f"{verdict.table.loc[best, 'score']:.4f}"
    return text


def summary(result: Result, search: Search, jobs: pd.DataFrame, source: str, form: str) -> None:
    """Print what a search found, what it spent and what is uncertain.

    `jobs` has `model`, `energy_wh` and `error` of every job, `source` is that of the energy.
    """
    given_up = result.jobs.index.isin(result.given_up)  # no candidates, but their costs count
    judged = result.jobs.assign(state=result.jobs["state"].mask(given_up, "failed"))
    verdict = search.verdict(judged, result.runs)
    ranked = verdict.table.sort_values(["score", "bound"], ascending=False, kind="stable")
    order = list(dict.fromkeys([*verdict.top, *ranked.index, *jobs["model"]]))
    rows = jobs.set_index("model")[["energy_wh", "error"]]
    rows = verdict.table.reindex(order).join(rows).rename_axis("model").reset_index()
    rows["state"] = rows["state"].fillna("failed")
    rows["decided_on"] = search.decide_on
    rows["error"] = rows["error"].where(rows["state"] == "failed")  # others are only paused
    if form == "table":
        epochs = search.objective.epochs
        cells = rows.assign(
            epoch=["" if pd.isna(e) else f"{e:.0f}/{epochs}" for e in rows["epoch"]],
            **{c: _scores(rows, c) for c in _SCORES},
            chance=["" if pd.isna(c) else f"{c:.0%}" for c in rows["chance"]],
            energy_wh=energies(rows),
        )
        columns = {"model": "model", "state": "state", "epoch": "epochs"}
        columns |= {"P": f"{search.decide_on} P", "R": "R"}
        columns |= {"score": f"{search.decide_on} PePR-{search.letter}", "bound": "at most"}
        columns |= {"chance": "chance", "energy_wh": "energy"}
        columns |= {"test_P": "test P"} if search.decide_on == "val" else {}
        say(render(cells, form, columns | {"error": "why"}) + "\n")
    else:
        say(render(rows, form))
    say(_conclusion(verdict, search, source), err=form != "table")


def _scores(rows: pd.DataFrame, name: str) -> list[str]:
    """Scores as text; those that follow from a forecast of the cost are marked."""
    marks = [
        "~" if guessed is True and name in ("R", "bound") else "" for guessed in rows["forecast"]
    ]
    return ["" if pd.isna(v) else f"{m}{v:.4f}" for m, v in zip(marks, rows[name], strict=True)]


def _conclusion(verdict: Verdict, search: Search, source: str) -> str:
    top = ", ".join(verdict.top) or "none yet"
    score = f"{search.decide_on} PePR-{search.letter}"
    rows = [
        ("decided on", _DECIDED[search.decide_on]),
        ("prior", _source(search.prior)),
        (f"top {search.objective.top} by {score}", top),
    ]
    if verdict.top:
        test_p = verdict.table.loc[verdict.top, "test_P"]
        rows.append(("their test P", ", ".join(f"{p:.4f}" for p in test_p)))
    if verdict.exhaustive == verdict.exhaustive:
        complete = verdict.top and verdict.proven == verdict.top
        proven = "all" if complete else ", ".join(verdict.proven) or "none"
        rivals = verdict.table.loc[verdict.possible, "chance"].sort_values(ascending=False)
        chances = [f"{m} ({'not known' if pd.isna(c) else f'{c:.0%}'})" for m, c in rivals.items()]
        rows += [("proven of them", proven), ("could still be in it", ", ".join(chances) or "none")]
    rows.append(("spent on training", f"{_spent(verdict, search.spending)} ({source})"))
    return table(rows)


def replay(
    experiments: Sequence[str],
    letter: str,
    objective: Objective,
    decide_on: ScoredOn | None,
    prior: str,
    form: str,
    tracking_uri: str | None,
) -> int:
    """Print what a search would have found among the recorded runs of each comparison set.

    `decide_on` is that of `recorded`, and `prior` the source of `read_prior`.
    """
    tables = []
    for one in recorded(experiments, letter, tracking_uri, decide_on):
        if one.decide_on != (decide_on or "val"):
            note(f"{one.name}: not all runs have P on validation, so their P on test decides")
        target = replace(objective, epochs=one.curves.performance.shape[1])
        names = [str(name) for name in one.curves.cost.index]
        known = read_prior(prior, one.dataset, letter, one.spending)
        outcomes = {
            "frugal": replay_search(one.curves, partial(requests, prior=known), target),
            "certified": replay_search(one.curves, requests, replace(target, certify=True)),
            "exhaustive": Found(names, True, min(objective.top, len(names)), 1.0, 0.0),
        }
        rows = pd.DataFrame([{"strategy": s, **asdict(found)} for s, found in outcomes.items()])
        final = one.curves.scores(objective.alpha).iloc[:, -1]
        rows["winner"] = [final[found].idxmax() for found in rows.pop("finished")]
        rows["P"] = rows["winner"].map(one.curves.performance.iloc[:, -1])
        rows["test_P"] = rows["winner"].map(one.test_p)
        rows["expense"] = rows["spent"] * float(one.curves.expense.sum())
        tables.append(
            rows.assign(experiment=one.name, spending=one.spending, decided_on=one.decide_on)
        )
        if form == "table":
            say(_replayed(one, letter, target, rows, known))
    if form != "table":
        say(render(pd.concat(tables), form))
    return 0


def _replayed(
    one: Recorded, letter: str, objective: Objective, rows: pd.DataFrame, prior: Prior | None
) -> str:
    finals = one.curves.scores(objective.alpha).iloc[:, -1].sort_values(ascending=False)
    top = min(objective.top, len(finals))
    best = ", ".join(f"{m} {s:.4f}" for m, s in finals.iloc[:top].items())
    cells = rows.assign(
        best=rows["best"].map({True: "yes", False: "no"}),
        hits=[f"{hits} of {top}" for hits in rows["hits"]],
        expense=[_amount(expense, one.spending) for expense in rows["expense"]],
        spent=[f"{spent:.1%}" for spent in rows["spent"]],
        **{c: [f"{p:.4f}" for p in rows[c]] for c in ("P", "test_P")},
    )
    columns = {"strategy": "strategy", "best": "best found", "hits": f"top {top}"}
    columns |= {"winner": "winner"} | ({"P": "val P"} if one.decide_on == "val" else {})
    columns |= {"test_P": "test P", "expense": "spent", "spent": "of all"}
    return (
        f"{one.name}: {len(finals)} models, {objective.epochs} epochs, energy {one.energy_source}; "
        f"PePR-{letter}, α = {objective.alpha:g}, R = cost / greatest cost\n"
        f"decided on {_DECIDED[one.decide_on]}\n"
        f"prior: {_source(prior)}\n"
        f"top {top}: {best}\n\n"
        f"{render(cells, 'table', columns)}\n"
    )


def _source(prior: Prior | None) -> str:
    """Which data sets a search knows."""
    return "none" if prior is None else f"runs on {', '.join(prior.families)}"


def _spent(verdict: Verdict, spending: str) -> str:
    text = f"{_amount(verdict.spent, spending)} of training"
    if verdict.exhaustive > 0:  # known and not zero
        text += f", {verdict.spent / verdict.exhaustive:.1%} of about "
        text += f"{_amount(verdict.exhaustive, spending)} that training all takes"
    return text


def _amount(value: float, spending: str) -> str:
    return amount(value, "Wh", 4) if spending == "energy_wh" else seconds_text(value)
