"""The first screen where there is no result to show: what is the matter, and what to do. Pure."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

import pandas as pd

from pepr_mlops.comparison.words import status_words
from pepr_mlops.errors import close
from pepr_mlops.report.page import Content
from pepr_mlops.report.templates import TEMPLATES
from pepr_mlops.text import printable

_FIRST = "pepr train --model resnet18d --dataset digits --image-size 32 --no-pretrained"
_AGAIN = "Start the same command again; finished runs stay as they are."
# By the reason that runs logged; other errors say themselves what to do.
_REMEDIES = {
    "killed": f"Somebody or the system ended training. {_AGAIN}",
    "lost": f"Their process ended without a word, as when a machine is switched off. {_AGAIN}",
    "paused": f"They were paused after an epoch. {_AGAIN}",
    "crashed": f"The error is one of the code that was trained. Correct it. {_AGAIN}",
}
_ONE_OR_BOTH = {1: "The only run", 2: "Both runs"}
_MOST_NAMES = 3


@dataclass(frozen=True)
class Link:
    """An experiment to open, and what is known about it."""

    name: str
    about: str = ""

    @property
    def address(self) -> str:
        return "?" + urlencode({"experiment": self.name})

    @property
    def text(self) -> str:
        return printable(self.name)


@dataclass(frozen=True)
class State:
    """A first screen; `quoted` is what a run or server said, `command` one to copy. `doubt`: it
    tells of a trouble."""

    eyebrow: str
    title: str
    sentence: str
    quoted: str = ""
    command: str = ""
    links: tuple[Link, ...] = ()
    doubt: bool = False

    def content(self, title: str) -> Content:
        """The page of this state under a title."""
        main = TEMPLATES.get_template("assets/state.html").render(state=self)
        return Content(main, {"title": title, "groups": [], "figures": []})


def reading(experiments: Sequence[str]) -> State:
    """Before the first answer of the server."""
    what = f"runs of {_listed(experiments)}" if experiments else "the experiments of the server"
    return State(
        "One moment",
        f"Reading {what} …",
        "The page fills by itself as soon as the server has answered.",
    )


def first_command(experiments: Sequence[str], server: str) -> str:
    """The command line of a first training, which logs to the server that the page follows."""
    named = [word for name in experiments[:1] for word in ("--experiment", name)]
    return printable(f"{_FIRST} {shlex.join([*named, '--tracking-uri', server])}")


def no_store(server: str, command: str) -> State:
    """The SQLite file of `server` does not exist: nobody has logged a run to it yet."""
    return State(
        "No runs yet",
        "There are no experiments yet",
        f"The first run creates {server}, and appears here as soon as it begins:",
        command=command,
    )


def choice(experiments: pd.DataFrame, command: str) -> State:
    """No experiment is chosen; `experiments` are as `tracking.read.overview` returns them, and
    `command` trains a first model."""
    links = links_to(experiments)
    if not links:
        return State(
            "No runs yet",
            "There are no experiments yet",
            "Nothing has been logged to this server. Runs appear here as soon as they begin:",
            command=command,
        )
    return State(
        "Experiments",
        "Which experiment?",
        "Choose one. The experiment with the newest run comes first.",
        links=links,
    )


def links_to(experiments: pd.DataFrame) -> tuple[Link, ...]:
    """The experiments that have runs, or may have."""
    return tuple(
        Link(row.name, _about(row.runs, row.newest))
        for row in experiments.itertuples(index=False, name="Experiment")
        if pd.isna(row.runs) or row.runs > 0
    )


def _about(runs: int, newest: pd.Timestamp) -> str:
    words = [] if pd.isna(runs) else [f"{runs:,} run{'s' if runs != 1 else ''}"]
    words += [] if pd.isna(newest) else [f"latest {newest:%Y-%m-%d}"]
    return ", ".join(words)


def unknown(missing: Sequence[str], experiments: pd.DataFrame, command: str) -> State:
    """Experiments that the server does not have; `command` trains a first model of one."""
    found = links_to(experiments)
    names = [name for one in missing for name in close(one, [link.name for link in found])]
    near = tuple(link for link in found if link.name in names)
    return State(
        "Not found",
        f"There is no experiment {_listed(missing)}",
        "Did you mean one of these?"
        if near
        else "It appears here as soon as its first run begins."
        + " The server has these:" * bool(found),
        command="" if found else command,
        links=near or found,
        doubt=True,
    )


def nothing_finished(runs: pd.DataFrame, under_way: int, error: str, command: str) -> State:
    """No run of the experiments can be compared, as `error` says; `under_way` are still trained,
    and `command` trains a first model."""
    if runs.empty:
        return State(
            "No runs yet",
            "This experiment is empty",
            "Runs appear here as soon as they begin:",
            command=command,
        )
    ended = runs[runs["status"].isin(["FAILED", "KILLED"])]
    reasons = ended["reason"].fillna("")
    how = Counter(status_words(*row) for row in zip(ended["status"], reasons, strict=True))
    counts = "; ".join(f"{n} {words}" for words, n in how.most_common())
    if under_way:
        listed = f"{under_way} running" + (f"; {counts}" if counts else "")
        return State("So far", "No model has finished yet", f"{listed}.")
    if len(ended) < len(runs):
        return State("Cannot compare", "No run can be compared", "", quoted=error, doubt=True)
    reason = str(reasons.value_counts().index[0])
    errors = ended.loc[reasons == reason, "error"].dropna()
    return State(
        "Nothing finished",
        f"{_ONE_OR_BOTH.get(len(runs), f'All {len(runs)} runs')} ended without a result",
        f"{counts}. {_REMEDIES.get(reason, '')}".strip(),
        quoted=errors.value_counts().index[0] if len(errors) else "",
        doubt=True,
    )


def refused(error: str) -> State:
    """The runs cannot be compared in this way."""
    return State(
        "Cannot show this", "These runs cannot be compared like this", "", quoted=error, doubt=True
    )


def unreachable(error: str) -> State:
    """The tracking server has not answered since the page was opened."""
    return State(
        "No connection",
        "The tracking server does not answer",
        "The page tries again every few seconds.",
        quoted=error,
        doubt=True,
    )


def broken(error: str) -> State:
    """An error of ours."""
    return State(
        "Something went wrong",
        "This page could not be made",
        "The terminal of pepr dashboard shows the details. The page tries again.",
        quoted=error,
        doubt=True,
    )


def _listed(names: Sequence[str]) -> str:
    shown = [printable(name) for name in names[:_MOST_NAMES]]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")
