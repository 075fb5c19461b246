"""What `pepr sweep` prints of a frugal search: how far it is, what it found, and replays of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace

import pandas as pd

from pepr_mlops.cli.output import say, text
from pepr_mlops.cli.table import table
from pepr_mlops.sweep.driver import Ended, Status
from pepr_mlops.sweep.frugal import Objective, Verdict, requests
from pepr_mlops.sweep.replay import Found
from pepr_mlops.sweep.replay import replay as search_again
from pepr_mlops.sweep.search import Search
from pepr_mlops.sweep.sweep import Recorded, recorded
from pepr_mlops.train.progress import seconds_text


def line(search: Search, now: Status) -> str:
    """How far a search is, in a line."""
    found = search.verdict(now.jobs, now.runs)
    measured = int(found.table["cost"].notna().sum())
    if measured < len(found.table):
        return f"cost known of {measured} of {len(found.table)} models"
    counts = found.table["state"].value_counts()
    words = ", ".join(f"{n} {state}" for state, n in counts.items())
    words += f"; {_spent(found, search.spending)}"
    if found.top:
        best = found.top[0]
        words += f"; best {best} PePR-{search.letter} {found.table.loc[best, 'score']:.4f}"
    return words


def summary(ended: Ended, search: Search, jobs: pd.DataFrame, source: str, form: str) -> None:
    """Print what a search found, what it spent and what is uncertain.

    `jobs` has `model`, `energy_wh` and `error` of every job, `source` is that of the energy.
    """
    given_up = ended.jobs.index.isin(ended.given_up)  # no candidates, but what they took counts
    judged = ended.jobs.assign(state=ended.jobs["state"].mask(given_up, "failed"))
    found = search.verdict(judged, ended.runs)
    ranked = found.table.sort_values(["score", "bound"], ascending=False, kind="stable")
    order = [*found.top, *(m for m in ranked.index if m not in found.top)]
    order += [m for m in jobs["model"] if m not in found.table.index]
    rows = jobs.set_index("model")[["energy_wh", "error"]]
    rows = found.table.reindex(order).join(rows).rename_axis("model").reset_index()
    rows["state"] = rows["state"].fillna("failed")
    rows["error"] = rows["error"].where(rows["state"] == "failed")  # others only rest
    if form != "table":
        say(text(rows, form))
    else:
        cells = [
            (
                row["model"],
                row["state"],
                "" if pd.isna(row["epoch"]) else f"{row['epoch']:.0f}/{search.objective.epochs}",
                *(_digits(row[c]) for c in ("P", "R", "score", "bound")),
                "" if pd.isna(row["chance"]) else f"{row['chance']:.0%}",
                "" if pd.isna(row["energy_wh"]) else f"{row['energy_wh']:.4g} Wh",
                "" if pd.isna(row["error"]) else row["error"],
            )
            for _, row in rows.iterrows()
        ]
        score = f"PePR-{search.letter}"
        head = ("model", "state", "epochs", "P", "R", score, "at most", "chance", "energy", "why")
        say(table(cells, head) + "\n")
    say(_conclusion(found, search, source), err=form != "table")


def _conclusion(found: Verdict, search: Search, source: str) -> str:
    top = search.objective.top
    named = ", ".join(found.top) or "none yet"
    rows = [(f"top {top} by PePR-{search.letter}", named)]
    if found.exhaustive == found.exhaustive:
        known = ", ".join(found.proven) or "none"
        every = found.top and found.proven == found.top
        rows.append(("proven of them", "all" if every else known))
        rivals = found.table.loc[found.possible, "chance"].sort_values(ascending=False)
        of = [f"{m} ({'not known' if pd.isna(c) else f'{c:.0%}'})" for m, c in rivals.items()]
        rows.append(("could still be in it", ", ".join(of) or "none"))
    rows.append(("spent on training", f"{_spent(found, search.spending)} ({source})"))
    return table(rows)


def replay(
    experiments: Sequence[str],
    letter: str,
    objective: Objective,
    form: str,
    tracking_uri: str | None,
) -> int:
    """Print what a search would have found among the recorded runs of each comparison set."""
    tables = []
    for of in recorded(experiments, letter, tracking_uri):
        here = replace(objective, epochs=of.curves.performance.shape[1])
        names = [str(name) for name in of.curves.cost.index]
        outcomes = {
            "frugal": search_again(of.curves, requests, here),
            "certified": search_again(of.curves, requests, replace(here, certify=True)),
            "exhaustive": Found(names, True, min(objective.top, len(names)), 1.0),
        }
        rows = pd.DataFrame([{"strategy": s, **asdict(found)} for s, found in outcomes.items()])
        rows = rows.drop(columns="finished")
        rows["expense"] = rows["spent"] * float(of.curves.expense.sum())
        tables.append(rows.assign(experiment=of.name, spending=of.spending))
        if form == "table":
            say(_replayed(of, letter, here, rows))
    if form != "table":
        say(text(pd.concat(tables), form))
    return 0


def _replayed(of: Recorded, letter: str, objective: Objective, rows: pd.DataFrame) -> str:
    finals = of.curves.scores(objective.alpha).iloc[:, -1].sort_values(ascending=False)
    top = min(objective.top, len(finals))
    best = ", ".join(f"{m} {s:.4f}" for m, s in finals.iloc[:top].items())
    cells = [
        (
            row["strategy"],
            "yes" if row["best"] else "no",
            f"{row['hits']} of {top}",
            _amount(row["expense"], of.spending),
            f"{row['spent']:.1%}",
        )
        for _, row in rows.iterrows()
    ]
    return "\n".join(
        (
            f"{of.name}: {len(finals)} models, {objective.epochs} epochs, energy "
            f"{of.energy_source}; PePR-{letter}, α = {objective.alpha:g}, R = cost / greatest cost",
            f"top {top}: {best}",
            "",
            table(cells, ("strategy", "best found", f"top {top}", "spent", "of all")) + "\n",
        )
    )


def _spent(found: Verdict, spending: str) -> str:
    words = f"{_amount(found.spent, spending)} of training"
    if found.exhaustive > 0:  # known, and anything
        words += f", {found.spent / found.exhaustive:.1%} of about "
        words += f"{_amount(found.exhaustive, spending)} that training all takes"
    return words


def _amount(value: float, spending: str) -> str:
    return f"{value:.4g} Wh" if spending == "energy_wh" else seconds_text(value)


def _digits(value: float) -> str:
    return "" if pd.isna(value) else f"{value:.4f}"
