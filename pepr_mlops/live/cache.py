"""Caches what all pages show of one tracking server: a control recomputes only what it changes.

Reading is slow, sorting is faster, scoring is fastest; the newest results of each step are cached.
Checking a server that has nothing new takes one small request.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import replace
from threading import Lock
from typing import Generic, TypeVar

from pepr_mlops.comparison import Prepared, Question
from pepr_mlops.errors import PeprError, WorkFailed, one_line, trace
from pepr_mlops.live import view_state
from pepr_mlops.live.view_state import View
from pepr_mlops.report import sources
from pepr_mlops.report.dashboards import Companion
from pepr_mlops.report.material import Material
from pepr_mlops.tracking import read

V = TypeVar("V")
Experiments = tuple[str, ...]

DRAWS = 2000  # of the intervals, as `pepr score`
_SOURCES = 8  # choices of experiments that are cached
_log = logging.getLogger(__name__)


class Recent(Generic[V]):
    """The newest results by what they were made from."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._known: OrderedDict[Hashable, V] = OrderedDict()
        self._lock = Lock()

    def get(self, key: Hashable, make: Callable[[], V]) -> V:
        found = self.known(key)
        if found is None:
            found = make()  # outside the lock: a slow one must not keep the others waiting
            with self._lock:
                self._known[key] = found
                while len(self._known) > self._size:
                    self._known.popitem(last=False)
        return found

    def known(self, key: Hashable) -> V | None:
        with self._lock:
            if key in self._known:
                self._known.move_to_end(key)
            return self._known.get(key)


class Cache:
    """Reads, sorts and scores for any number of pages at once.

    `names` are the experiments of the server when it was last read.
    """

    def __init__(
        self, tracking_uri: str | None = None, companions: Mapping[str, Companion] | None = None
    ) -> None:
        self._uri = tracking_uri
        self._companions = companions or {}
        self._reading = Lock()
        self._stamp = ""
        self._naming = Lock()
        self._named = ("", 0.0, 0.0)  # stamp, time and duration in s of the last reading of `names`
        self._sources: dict[Experiments, tuple[str, sources.Source]] = {}
        self._troubles: dict[Experiments, str] = {}
        self._prepared: Recent[tuple[dict[str, Prepared], list[str]]] = Recent(8)
        self._material: Recent[tuple[Material, list[str]]] = Recent(16)
        self.names: list[str] = []

    def check(self, experiments: Experiments) -> None:
        """Read what is new on the server; never raises.

        Returns at once while another page checks: all pages share what it reads.
        """
        for lock, step in ((self._reading, self._read), (self._naming, self._name)):
            if lock.acquire(blocking=False):
                try:
                    _safely(step, experiments)
                except PeprError as error:
                    self._troubles[experiments] = str(error)
                    return
                finally:
                    lock.release()

    def trouble(self, experiments: Experiments) -> str:
        """Why the last check failed, one line; empty where it did not."""
        return self._troubles.get(experiments, "")

    def version(self, experiments: Experiments) -> str:
        """Changes whenever the experiments are read again; empty before the first time."""
        known = self._sources.get(experiments)
        return "" if known is None else known[0]

    def source(self, experiments: Experiments) -> sources.Source:
        """The runs of the experiments; the first call reads them. Raises `PeprError`."""
        known = self._sources.get(experiments)
        if known is None:
            with self._reading:
                _safely(self._read, experiments)
                known = self._sources[experiments]
        return known[1]

    def _read(self, experiments: Experiments) -> None:
        stamp = read.stamp(tracking_uri=self._uri)
        if experiments and self.version(experiments) != stamp:
            source = sources.read(experiments, list(self._companions), tracking_uri=self._uri)
            self._sources[experiments] = (stamp, source)
            if len(self._sources) > _SOURCES:
                del self._sources[next(iter(self._sources))]
        self._stamp = stamp
        self._troubles.pop(experiments, None)

    def _name(self, _: Experiments) -> None:
        """Read the names again if there is anything new.

        A server with many runs takes long to find them, so this takes a tenth of the time at most.
        """
        stamp, checked_s, took = self._named
        now = time.monotonic()
        if stamp == self._stamp or now - checked_s < 10 * took:
            return
        stamp = self._stamp
        self.names = read.names(tracking_uri=self._uri)
        self._named = (stamp, now, time.monotonic() - now)

    def material(self, view: View, *, thorough: bool = True) -> tuple[Material, list[str]]:
        """What a view shows, and notes. Raises `PeprError`.

        Without `thorough` it is fast: it leaves out companions and intervals.
        """
        source = self.source(view.experiments)
        question = view_state.question(view, DRAWS)
        key = (view.experiments, self.version(view.experiments), question)
        known = self._material.known((*key, True))
        if known is not None:
            return known
        return self._material.get(
            (*key, thorough), lambda: self._scored(source, view, question, thorough)
        )

    def _scored(
        self, source: sources.Source, view: View, question: Question, thorough: bool
    ) -> tuple[Material, list[str]]:
        prepared, notes = self._sorted(source, view, question, main=True)
        if not thorough:
            return sources.material(source, prepared, replace(question, draws=0)), notes
        companions, more = self._sorted(source, view, question, main=False)
        return sources.material(source, {**prepared, **companions}, question), [*notes, *more]

    def _sorted(
        self, source: sources.Source, view: View, question: Question, *, main: bool
    ) -> tuple[dict[str, Prepared], list[str]]:
        """The runs of the requested experiments, or of their companions."""
        runs = {name: rows for name, rows in source.runs.items() if (name in source.main) == main}
        part = replace(source, runs=runs, missing=() if main else source.missing)
        key = (view.experiments, self.version(view.experiments), main,
               question.resources, question.strict, question.mixed,
               None if main else question.normalisation)  # fmt: skip
        return self._prepared.get(key, lambda: sources.sort(part, question, self._companions))


def _safely(step: Callable[[Experiments], None], experiments: Experiments) -> None:
    """Turn every error of a server into a `PeprError`, which a page outlives."""
    try:
        step(experiments)
    except PeprError:
        raise
    except Exception as error:
        _log.error("the tracking server could not be read\n%s", trace())
        raise WorkFailed(f"the server could not be read ({one_line(error)})") from error
