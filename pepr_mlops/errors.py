"""Why a command or a job fails or ends early: one line that says what to do."""

from __future__ import annotations

import difflib
import traceback
from collections.abc import Iterable

from pepr_mlops.text import printable, without_password


class PeprError(Exception):
    """A failure with a message for people: the value, the valid choices and the remedy.

    `reason` is one word for programs, which MLflow runs have in the tag `pepr.reason`. Passwords of
    addresses are removed from the message. `logged` is the message that runs keep, where the full
    one names what may identify a patient, such as a file.
    """

    exit_status = 1
    reason = "failed"

    def __init__(
        self, message: str, *, reason: str | None = None, logged: str | None = None
    ) -> None:
        super().__init__(_clean(message))
        self.logged = _clean(message if logged is None else logged)
        if reason is not None:
            self.reason = reason


class WrongUse(PeprError):
    """The request cannot be carried out as it stands; nothing was trained. Exit status 2."""

    exit_status = 2
    reason = "wrong_use"


class WorkFailed(PeprError):
    """The request was sound and the work failed. Exit status 1."""


class Paused(PeprError):
    """A job was paused after an epoch, as requested, and can be resumed from there."""

    reason = "paused"


class Claimed(PeprError):
    """Another process does or did this job; nothing was trained here."""

    reason = "claimed"


class TimeLimit(SystemExit):
    """The time that a scheduler gives this process is over, so that it closes its run and ends."""

    reason = "time_limit"


def _clean(message: str) -> str:
    return printable(without_password(" ".join(message.split())))


def close(value: str, choices: Iterable[str]) -> list[str]:
    """The choices most like `value`, three at most, the nearest first.

    Case and blanks at the ends are ignored.
    """
    by_key = {choice.strip().casefold(): choice for choice in choices}
    found = difflib.get_close_matches(value.strip().casefold(), list(by_key), n=3, cutoff=0.6)
    return [by_key[key] for key in found]


def nearest(value: str, choices: Iterable[str]) -> str:
    """`; did you mean 'a' or 'b'?` for the choices of `close`, or nothing."""
    found = close(value, choices)
    return f"; did you mean {' or '.join(map(repr, found))}?" if found else ""


def trace() -> str:
    """The traceback of the current error, without passwords."""
    return printable(without_password(traceback.format_exc()), lines=True)


def one_line(error: BaseException) -> str:
    """Kind and first line of an error without passwords, 200 characters at most."""
    line = f"{type(error).__name__}: {error}".splitlines()[0]
    return printable(without_password(line))[:200]
