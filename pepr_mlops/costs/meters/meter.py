"""What all meters have in common; by itself a meter of time alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pepr_mlops.costs.meters.stopwatch import Stopwatch
from pepr_mlops.costs.totals import Window
from pepr_mlops.names import Source


class Meter:
    """Measures one block of work at a time, a window: this one its time, others energy too.

    `sources` names the components that count towards energy and how each is known, `method` says
    how in words, `notes` why other components are not read; `details` are tags of its own.
    `tick_s` is how often its slowest counter moves, 0 without counters.
    `synchronize` waits for the work of the device.
    """

    sources: Mapping[str, Source] = {}
    method = "none"
    details: Mapping[str, str] = {}
    tick_s = 0.0
    _watch: Stopwatch | None = None  # of the window that is open

    def __init__(self, synchronize: Callable[[], None], notes: Mapping[str, str]) -> None:
        self._synchronize, self.notes = synchronize, notes

    def begin(self, name: str) -> None:
        """Open the window `name` once the device has finished the work given to it."""
        self._synchronize()
        self._open(name)
        if self._watch is not None:  # a window that an error left open
            self._watch.stop()
        self._watch = Stopwatch()

    def end(self) -> Window:
        """Close it once the device has finished the work given to it."""
        self._synchronize()
        time_s, paused_s = self._stop()
        joules, missing = self._close(time_s, paused_s)
        return Window(time_s, joules, missing, paused_s)

    def elapsed_s(self) -> float:
        """Seconds since `begin`, as `Stopwatch.elapsed_s`."""
        assert self._watch is not None
        return self._watch.elapsed_s()

    def spent_j(self) -> float | None:
        """Joules of all components since `begin`, or None if not known. Does not wait."""
        return None

    def _open(self, name: str) -> None:
        """Begin to read the energy."""

    def _close(self, time_s: float, paused_s: float) -> tuple[dict[str, float], dict[str, str]]:
        """Joules of each component since `_open`, and why others have none."""
        return {}, {}

    def _stop(self) -> tuple[float, float]:
        assert self._watch is not None
        times_s, self._watch = self._watch.stop(), None
        return times_s
