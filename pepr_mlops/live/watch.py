"""Follows one tracking server for all open pages.

One thread reads, compares and draws, so that a request never waits for a server and nothing is done
twice. Checking a server that has nothing new takes two small requests.
"""

from __future__ import annotations

import hashlib
import logging
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from threading import Event, Lock, RLock, Thread
from typing import Any

import pandas as pd

from pepr_mlops.comparison.words import count
from pepr_mlops.errors import PeprError, WrongUse, one_line, trace
from pepr_mlops.live import states
from pepr_mlops.live.under_way import under_way
from pepr_mlops.live.view import View
from pepr_mlops.report import page, sources
from pepr_mlops.report.dashboards import Dashboard
from pepr_mlops.report.material import Material
from pepr_mlops.report.page import Content
from pepr_mlops.report.templates import made_now
from pepr_mlops.text import address
from pepr_mlops.tracking import read
from pepr_mlops.tracking.read.tables import NO_STORE
from pepr_mlops.tracking.server import resolved

TICK_S = 3.0
_OPEN_S = 30.0  # a page that has requested no news for so long is closed or hidden
_MOST_VIEWS = 16  # that are remembered
_WAITING = "Waiting for the server"
_NO_EXPERIMENTS = pd.DataFrame(columns=["name", "runs", "newest"])
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Shown:
    """What a page shows: its content, made when the server had this `stamp`. `finished` is the
    number of runs of its experiments that have finished, None where they were not read. `version`
    changes with the content."""

    stamp: str
    content: Content
    finished: int | None = None

    @cached_property
    def version(self) -> str:
        text = f"{self.content.main}{page.as_json(self.content.data)}"
        return hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).hexdigest()


@dataclass(frozen=True)
class Trouble:
    """Why a page has no news, in one line, and since when, in ms since 1970."""

    text: str
    since: int


@dataclass(frozen=True)
class News:
    """What there is for a page: `shown` is None while the first content is made, which `doing`
    describes; `running` as `under_way` returns it."""

    shown: Shown | None
    doing: str
    trouble: Trouble | None
    running: Sequence[dict[str, Any]]


class Watch:
    """The server and all that pages show of it. `experiments` are as `read.overview` returned them
    when the server was last read."""

    def __init__(self, board: Dashboard, tracking_uri: str | None = None) -> None:
        self.experiments = _NO_EXPERIMENTS
        self._board, self._uri = board, tracking_uri
        self._opening = Lock()  # of `_open`
        self._open: OrderedDict[View, float] = OrderedDict()  # when a page last showed a view, in s
        self._wake = Event()
        self._work = RLock()  # held by whoever reads, compares or draws
        self._doing = _WAITING  # the step
        self._drawing: View | None = None  # the view that waits for it
        self._shown: dict[View, Shown] = {}
        self._checked: dict[View, float] = {}  # when it was last as on the server, in s
        self._troubles: dict[View, Trouble] = {}
        self._sources: dict[tuple[str, ...], tuple[str, sources.Source]] = {}
        self._named = ("", 0.0, 0.0)  # stamp, time and duration in s of reading `experiments`
        self._running = pd.DataFrame()

    def start(self) -> None:
        """Follow the server in a thread as long as pages are open, until the process ends."""
        Thread(target=self._follow, daemon=True, name="pepr-live").start()

    def _follow(self) -> None:
        while True:
            self._wake.wait(TICK_S)
            self._wake.clear()
            self.round()

    def news(self, view: View) -> News:
        """What there is for a page that shows `view`; returns at once."""
        with self._opening:
            last_s = self._open.get(view, -math.inf)
            self._open[view] = time.monotonic()
            self._open.move_to_end(view)
        if time.monotonic() - last_s > _OPEN_S:
            self._wake.set()
        trouble, now = self._troubles.get(view), pd.Timestamp.now("UTC")
        known = time.monotonic() - self._checked.get(view, -math.inf) < _OPEN_S
        shown = self._shown.get(view) if known or trouble else None  # else it may be out of date
        running = under_way(self._running, view.experiments, now) if len(self._running) else []
        doing = self._doing if self._drawing == view else _WAITING
        return News(shown, "" if shown else doing, trouble, running)

    def round(self) -> None:
        """Read what is new on the server and draw what open pages show of it; never raises."""
        views = self._views()
        if not views:
            return
        with self._work:
            stamp = self._safely(views, self._check, states.unreachable)
            if stamp is None:
                return
            for view in views:
                shown = self._shown.get(view)
                if shown is None or shown.stamp != stamp:
                    self._drawing, self._doing = view, _WAITING
                    found = self._safely([view], lambda v=view: self._drawn(v, stamp))  # type: ignore[misc]
                    if found is None:
                        continue
                    self._shown[view] = found
                self._checked[view] = time.monotonic()
            self._drawing = None

    def _views(self) -> list[View]:
        """What open pages show; forgets what none has shown for long."""
        now = time.monotonic()
        with self._opening:
            for view in list(self._open)[:-_MOST_VIEWS]:
                del self._open[view]
            still = set(self._open)
            views = [view for view, last_s in self._open.items() if now - last_s < _OPEN_S]
        for known in (self._shown, self._checked, self._troubles):
            for view in set(known) - still:  # even of one that was forgotten while it was drawn
                del known[view]
        return views[::-1]

    def _safely(
        self,
        views: Sequence[View],
        step: Callable[[], Any],
        state: Callable[[str], states.State] | None = None,
    ) -> Any:
        """What `step` returns. Where it fails, the trouble of the views, which keep what they show;
        a view that shows nothing gets the first screen `state` of a server's error."""
        try:
            found = step()
        except Exception as error:
            ours = isinstance(error, PeprError)
            if not ours:
                _log.error("the live page could not follow the server\n%s", trace())
            text = str(error) if ours else one_line(error)
            make = state or (states.unreachable if ours else states.broken)
            for view in views:
                since = self._troubles.get(view) or Trouble("", int(time.time() * 1000))
                self._troubles[view] = Trouble(text, since.since)
                if view not in self._shown or not self._shown[view].stamp:
                    self._shown[view] = Shown("", make(text).content(_title(view)))
            return None
        for view in views:
            self._troubles.pop(view, None)
        return found

    def _check(self) -> str:
        """The stamp of the server, with what is cheap to read; `NO_STORE` of a SQLite file that
        nobody has made yet."""
        try:
            stamp = read.stamp(tracking_uri=self._uri)
        except WrongUse as error:
            if error.reason == NO_STORE and not self._named[0]:
                return NO_STORE
            raise  # a store that was there is away
        self._running = read.running(tracking_uri=self._uri)
        before, at_s, took_s = self._named
        now = time.monotonic()
        if stamp != before and now - at_s >= 10 * took_s:  # at most a tenth of the time
            self.experiments = read.overview(tracking_uri=self._uri)
            self._named = (stamp, now, time.monotonic() - now)
        return stamp

    def _drawn(self, view: View, stamp: str) -> Shown:
        """What a page shows of a view. Raises `PeprError` where the server cannot be read."""
        server = address(resolved(self._uri))
        title, command = _title(view), states.first_command(view.experiments, server)
        if stamp == NO_STORE:
            return Shown(stamp, states.no_store(server, command).content(title))
        if not view.experiments:
            return Shown(stamp, states.choice(self.experiments, command).content(title))
        try:
            source = self._source(view.experiments, stamp)
        except WrongUse:
            known = set(self.experiments["name"])
            missing = [name for name in view.experiments if name not in known]
            if not missing:
                raise
            return Shown(stamp, states.unknown(missing, self.experiments, command).content(title))
        runs = pd.concat([source.runs[name] for name in source.main], ignore_index=True)
        finished = int((runs.drop_duplicates("run_id")["status"] == "FINISHED").sum())
        try:
            found, notes = self._compared(source, view)
            return Shown(stamp, self._content(found, notes, view), finished)
        except PeprError as error:
            running = under_way(self._running, view.experiments, pd.Timestamp.now("UTC"))
            state = (
                states.refused(str(error))
                if finished
                else states.nothing_finished(runs, len(running), str(error), command)
            )
            return Shown(stamp, state.content(title), finished)

    def _source(self, experiments: tuple[str, ...], stamp: str) -> sources.Source:
        known = self._sources.get(experiments)
        if known is None or known[0] != stamp:
            self._doing = f"Reading the runs of {', '.join(experiments)}"
            source = sources.read(
                experiments, list(self._board.experiments), tracking_uri=self._uri
            )
            known = self._sources[experiments] = (stamp, source)
            if len(self._sources) > _MOST_VIEWS:
                del self._sources[next(iter(self._sources))]
        return known[1]

    def _compared(self, source: sources.Source, view: View) -> tuple[Material, list[str]]:
        """What the view shows, and notes. Raises `PeprError` where no experiment can be shown."""
        runs = sum(len(source.runs[name]) for name in source.main)
        self._doing = f"Comparing {count(runs, 'run')}"
        question = view.question(self._board)
        prepared, notes = sources.sort(source, question, self._board.experiments)
        return sources.material(source, prepared, question, terms=view.terms), notes

    def _content(self, found: Material, notes: Sequence[str], view: View) -> Content:
        self._doing = f"Drawing {count(len(found.models), 'model')}"
        labels = sources.energy_labels(found, self._uri)
        return page.content(found, self._board, notes, labels, price=view.price)

    def report(self, view: View, command: str) -> str:
        """The static page of a view. Raises `PeprError` where there is no result to show."""
        if not view.experiments:
            raise WrongUse("experiment: choose one first")
        with self._work:
            source = self._source(view.experiments, read.stamp(tracking_uri=self._uri))
            found, notes = self._compared(source, view)
            labels = sources.energy_labels(found, self._uri)
        return page.html(
            *(found, self._board, notes, labels),
            command=command,
            made=made_now(),
            price=view.price,
        )


def _title(view: View) -> str:
    return ", ".join(view.experiments) or "PePR"
