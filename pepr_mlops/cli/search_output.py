"""What `pepr sweep` prints about a frugal search: progress, results, and replays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace

import numpy as np
import pandas as pd

from pepr_mlops.cli.output import energies, note, render, say, table
from pepr_mlops.comparison.words import amount, percent
from pepr_mlops.names import RESOURCES, ScoredOn
from pepr_mlops.sweep.driver import Result, Status
from pepr_mlops.sweep.observed import Objective, Verdict
from pepr_mlops.sweep.prior import Prior
from pepr_mlops.sweep.replay import Curves, Found, Recorded, outcome, recorded
from pepr_mlops.sweep.replay import replay as replay_search
from pepr_mlops.sweep.search import Search, check_budget, read_prior
from pepr_mlops.train.progress import seconds_text

_R = {"zero": "= cost / greatest cost", "minmax": "from the least cost to the greatest"}
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
        text += f"; best {best} {_score(search)} {verdict.table.loc[best, 'score']:.4f}"
    if verdict.holds is not None:
        text += f", chance {percent(verdict.holds)}"
    return text


def _score(search: Search) -> str:
    """What the search orders models by."""
    within = search.objective.within is not None
    return f"{search.decide_on} {'P' if within else f'PePR-{search.letter}'}"


def sought(search: Search) -> str:
    """What the search looks for."""
    if search.objective.within is not None:
        return _cheapest(search.letter, _score(search), search.objective.within)
    return f"top {search.objective.top} by {_score(search)}"


def summary(result: Result, search: Search, jobs: pd.DataFrame, source: str, form: str) -> None:
    """Print what a search found, what it spent and what is uncertain.

    `jobs` has `model`, `energy_wh` and `error` of every job, `source` is that of the energy.
    """
    verdict = search.verdict(result.judged, result.runs)
    ranked = verdict.table.sort_values(["score", "bound"], ascending=False, kind="stable")
    order = list(dict.fromkeys([*verdict.top, *ranked.index, *jobs["model"]]))
    rows = jobs.set_index("model")[["energy_wh", "error"]]
    rows = verdict.table.reindex(order).join(rows).rename_axis("model").reset_index()
    rows["state"] = rows["state"].fillna("failed")
    places = {model: i for i, model in enumerate(verdict.top, 1)}
    rows["answer"] = pd.array([places.get(model) for model in rows["model"]], dtype="Int64")
    rows["decided_on"] = search.decide_on
    for name in ("holds", "spent", "exhaustive"):
        rows[name] = getattr(verdict, name)
    rows["spending"] = search.spending
    rows["error"] = rows["error"].where(rows["state"] == "failed")  # others are only paused
    if form == "table":
        epochs = search.objective.epochs
        rows["bound"] = rows["bound"].where(rows["state"] != "finished")
        if search.objective.within is None:
            rows["chance"] = rows["chance"].where(rows["state"] != "finished")
        cells = rows.assign(
            epoch=["" if pd.isna(e) else f"{e:.0f}/{epochs}" for e in rows["epoch"]],
            **{c: _scores(rows, c) for c in _SCORES},
            chance=["" if pd.isna(c) else percent(c) for c in rows["chance"]],
            energy_wh=energies(rows),
        )
        columns = {"model": "model", "state": "state", "epoch": "epochs"}
        columns |= {"P": f"{search.decide_on} P", "R": "R"}
        if search.objective.within is None:
            columns |= {"score": _score(search), "bound": "at most"}
        columns |= {"chance": "chance", "energy_wh": "energy, all phases"}
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
    top, target = verdict.top, search.objective
    rows = [
        ("decided on", _DECIDED[search.decide_on]),
        ("prior", source_of(search.prior)),
        (sought(search), ", ".join(top) or "none yet"),
    ]
    if top:
        test_p = verdict.table.loc[top, "test_P"]
        rows.append((f"{'their' if target.top > 1 else 'its'} test P", _numbers(test_p)))
    if verdict.holds is not None:
        rows.append(("estimated chance that training all confirms it", percent(verdict.holds)))
        if verdict.holds < 0.8 and target.certify is None and not target.limited:
            rows.append(("to be surer", "the same command with --certify 0.8 continues"))
    if verdict.exhaustive == verdict.exhaustive and target.within is None:
        complete = top and verdict.proven == top
        proven = "all" if complete else ", ".join(verdict.proven) or "none"
        rivals = verdict.table.loc[verdict.possible, "chance"].sort_values(ascending=False)
        chances = [f"{m} ({'not known' if pd.isna(c) else percent(c)})" for m, c in rivals.items()]
        rows += [("proven of them", proven), ("could still be in it", ", ".join(chances) or "none")]
    rows.append(("spent on training", f"{_spent(verdict, search.spending)} ({source})"))
    return table(rows)


def _cheapest(letter: str, score: str, within: float) -> str:
    return f"least {RESOURCES[letter].help}, {score} at most {within:g} below the best"


def _numbers(values: pd.Series[float]) -> str:
    return ", ".join(f"{value:.4f}" for value in values)


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
        check_budget(objective, one.spending)
        target = replace(objective, epochs=one.curves.performance.shape[1])
        known = read_prior(prior, one.data, letter, one.spending, one.recipe, tracking_uri)
        outcomes = {"frugal": replay_search(one.curves, target, known)}
        if objective.within is None:
            proof = replace(target, certify=1.0, budget=None, budget_share=None)
            outcomes["proven"] = replay_search(one.curves, proof)
        outcomes["exhaustive"] = _exhaustive(one.curves, target)
        rows = pd.DataFrame([{"strategy": s, **asdict(found)} for s, found in outcomes.items()])
        rows = rows.drop(columns="finished").rename(columns={"answer": "winner"})
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


def _exhaustive(curves: Curves, objective: Objective) -> Found:
    """What training all finds, at its full expense."""
    good = curves.scores(objective).iloc[:, -1]
    if objective.within is not None:
        final = curves.performance.iloc[:, -1]
        good = -curves.cost[final >= final.max() - objective.within]
    trained = np.full(len(curves.cost), objective.epochs)
    return outcome(curves, objective, trained, float(curves.expense.sum()), str(good.idxmax()))


def _replayed(
    one: Recorded, letter: str, objective: Objective, rows: pd.DataFrame, prior: Prior | None
) -> str:
    finals = one.curves.scores(objective).iloc[:, -1].sort_values(ascending=False)
    top = min(objective.top, len(finals))
    best = ", ".join(f"{m} {s:.4f}" for m, s in finals.iloc[:top].items())
    heading = f"PePR-{letter}, α = {objective.alpha:g}, R {_R[objective.normalisation]}"
    if objective.within is not None:
        greatest = one.curves.performance.iloc[:, -1]
        best = f"{greatest.idxmax()} P {greatest.max():.4f}"
        heading = _cheapest(letter, "P", objective.within)
    cells = rows.assign(
        best=rows["best"].map({True: "yes", False: "no"}),
        hits=[f"{hits} of {top}" for hits in rows["hits"]],
        expense=[_amount(expense, one.spending) for expense in rows["expense"]],
        spent=[f"{spent:.1%}" for spent in rows["spent"]],
        holds=["" if pd.isna(one) else percent(one) for one in rows["holds"]],
        dearer=["" if pd.isna(one) else f"{one:.1f} times" for one in rows["dearer"]],
        **{c: [f"{p:.4f}" for p in rows[c]] for c in ("P", "test_P")},
    )
    columns = {"strategy": "strategy", "best": "best found", "hits": f"top {top}"}
    if objective.within is not None:
        columns = {"strategy": "strategy", "best": "within", "dearer": "cost of the cheapest"}
    columns |= {"winner": "winner"} | ({"P": "val P"} if one.decide_on == "val" else {})
    columns |= {"test_P": "test P", "holds": "chance", "expense": "spent", "spent": "of all"}
    return (
        f"{one.name}: {len(finals)} models, {objective.epochs} epochs, energy {one.energy_source}; "
        f"{heading}\n"
        f"decided on {_DECIDED[one.decide_on]}\n"
        f"prior: {source_of(prior)}\n"
        f"{'best' if objective.within is not None else f'top {top}'}: {best}\n\n"
        f"{render(cells, 'table', columns)}\n"
    )


def source_of(prior: Prior | None) -> str:
    """Which data sets a search knows, and how much each counts."""
    if prior is None:
        return "none"
    shares = [f"{name} ({share:.0%})" for name, share in prior.families.items()]
    return f"runs on {', '.join(shares)}"


def _spent(verdict: Verdict, spending: str) -> str:
    text = f"{_amount(verdict.spent, spending)} of training"
    if verdict.exhaustive > 0:  # known and not zero
        text += f", {verdict.spent / verdict.exhaustive:.1%} of about "
        text += f"{_amount(verdict.exhaustive, spending)}"
        if verdict.forecast_error is not None:
            text += f" ({' to '.join(_amount(end, spending) for end in verdict.exhaustive_range)})"
        text += " that training all takes"
    return text


def _amount(value: float, spending: str) -> str:
    return amount(value, "Wh", 4) if spending == "energy_wh" else seconds_text(value)
