"""P of a command that was measured: from a JSON file that it writes, or from its output."""

from __future__ import annotations

import math
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from pepr_mlops.errors import WrongUse
from pepr_mlops.files import read_json

_LINE_END = re.compile(rb"[\r\n]")  # progress bars return to the start of their line
_LONGEST = 1 << 16  # bytes of a line that are kept
_DRAIN_S = 2.0  # for the output of a command that has ended, while others hold its end open


class Source:
    """Where P is from; this one has none."""

    def begin(self) -> None:
        """Call it before the command begins."""

    @contextmanager
    def copied(self) -> Iterator[dict[str, int]]:
        """The streams for `subprocess.Popen` of the command, which ends within."""
        yield {}

    def value(self) -> float | None:
        """P in [0, 1], or None without one. Raises `WrongUse` where it is not there."""
        return None


class File(Source):
    """A number in a JSON file, such as `summary.json:foreground_mean.Dice`; the key of a list's
    element is its index."""

    def __init__(self, text: str) -> None:
        path, _, self._key = text.rpartition(":")
        if not path or not self._key:
            raise WrongUse(
                f"performance_from: {text!r} names no key; write FILE:KEY, such as "
                "results.json:test.accuracy"
            )
        self._path = Path(path)
        self._before: tuple[int, int, int] | None = None

    def begin(self) -> None:
        self._before = self._identity()

    def value(self) -> float:
        if self._identity() is None:
            raise WrongUse(f"performance_from: the command wrote no {self._path}")
        if self._identity() == self._before:
            raise WrongUse(
                f"performance_from: the command did not write {self._path}; the file is from before"
            )
        try:
            value = read_json(self._path, "performance_from")
        except OSError as error:
            raise WrongUse(
                f"performance_from: {self._path} cannot be read ({error.strerror})"
            ) from error
        for i, part in enumerate(parts := self._key.split(".")):
            try:
                value = value[int(part)] if isinstance(value, list) else value[part]
            except (KeyError, IndexError, TypeError, ValueError) as error:
                have = ", ".join(map(str, value)) if isinstance(value, dict) else value
                raise WrongUse(
                    f"performance_from: {self._path} has no {'.'.join(parts[: i + 1])}; there it "
                    f"has {str(have)[:100]}"
                ) from error
        return share(value, "performance_from")

    def _identity(self) -> tuple[int, int, int] | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino


class Output(Source):
    """The last match of a regular expression in what the command writes on both streams.

    The command's output passes through this process, by a terminal of its own where there is one,
    so that the command writes the same.
    """

    def __init__(self, pattern: str) -> None:
        try:
            self._pattern = re.compile(pattern)
        except re.error as error:
            raise WrongUse(f"performance_regex: {pattern!r} is wrong ({error})") from error
        if self._pattern.groups > 1:
            raise WrongUse(
                f"performance_regex: {pattern!r} has {self._pattern.groups} groups; put one around "
                "the number, and write the others as (?:…)"
            )
        self._last: str | None = None

    @contextmanager
    def copied(self) -> Iterator[dict[str, int]]:
        streams, readers = {}, []
        with ExitStack() as ends:
            for name, target in (("stdout", 1), ("stderr", 2)):
                source, end = _terminal() if os.isatty(target) else os.pipe()
                streams[name] = end
                ends.callback(os.close, end)
                reader = threading.Thread(target=self._copy, args=(source, target), daemon=True)
                reader.start()
                readers.append(reader)
            yield streams
        for reader in readers:
            reader.join(_DRAIN_S)

    def value(self) -> float:
        if self._last is None:
            raise WrongUse(
                f"performance_regex: {self._pattern.pattern!r} matches no line of the output"
            )
        try:
            return share(self._last, "performance_regex")
        except WrongUse as error:
            if self._pattern.groups:
                raise
            text = f"{error}; put brackets around the number, as in 'x ([0-9.]+)'"
            raise WrongUse(text) from None

    def _copy(self, source: int, target: int) -> None:
        line = b""
        with suppress(OSError):  # the end of a terminal is one
            while piece := os.read(source, 1 << 16):
                with suppress(OSError):  # no reader, or a full disk; the command must not wait
                    _write(target, piece)
                *complete, line = _LINE_END.split(line + piece)
                for one in complete:
                    self._search(one)
                line = line[-_LONGEST:]
        self._search(line)

    def _search(self, line: bytes) -> None:
        for match in self._pattern.finditer(line.decode(errors="replace")):
            self._last = match[self._pattern.groups]


def share(value: Any, name: str) -> float:
    """A number from 0 to 1, or a text of one, also in per cent (`83.1%`); else `WrongUse`."""
    try:
        text = str(value).strip()
        number = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        number = math.nan
    if isinstance(value, bool) or not 0 <= number <= 1:
        raise WrongUse(f"{name}: {value!r} is no number from 0 to 1; give a share, not per cent")
    return number


def _write(target: int, piece: bytes) -> None:
    while piece:
        piece = piece[os.write(target, piece) :]


def _terminal() -> tuple[int, int]:
    """Both ends of a terminal of the size of ours, which passes on what is written as it is."""
    try:
        import pty
        import termios
        import tty
    except ImportError:  # Windows
        return os.pipe()
    source, end = pty.openpty()
    tty.setraw(end)
    with suppress(OSError, termios.error):
        termios.tcsetwinsize(end, termios.tcgetwinsize(sys.__stderr__ or 2))
    return source, end


SOURCES: dict[str, Callable[[str], Source]] = {
    "performance_from": File,
    "performance_regex": Output,
}
