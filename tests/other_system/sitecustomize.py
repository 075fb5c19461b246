"""Takes from pepr_mlops what Windows lacks, in this process and in those that it spawns.

Python imports this module before all others if its folder is in PYTHONPATH. Other libraries keep
what they have: they support these systems by themselves.
"""

from __future__ import annotations

import builtins
import multiprocessing
import os
import platform
import signal
import sys
import time
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType
from typing import Any

PACKAGE = "pepr_mlops"
NO_MODULES = {"fcntl", "grp", "pwd", "resource", "termios", "multiprocessing.forkserver"}
NO_FOLDERS = ("/proc", "/sys")


def _end(pid: int, number: int) -> None:
    """On Windows `os.kill` ends a process at once, whatever the signal."""
    os.kill(pid, signal.SIGKILL)


def _spawned(method: str | None = None) -> Any:
    if method not in (None, "spawn"):
        raise ValueError(f"cannot find context for {method!r}")
    return multiprocessing.get_context("spawn")


class Without(ModuleType):
    """A module without some of its names, and with others replaced."""

    def __init__(self, module: ModuleType, lacks: set[str], **others: object) -> None:
        super().__init__(module.__name__)
        self.__dict__.update(_module=module, _lacks=lacks, **others)

    def __getattr__(self, name: str) -> Any:
        if name in self._lacks:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        return getattr(self._module, name)

    def __setattr__(self, name: str, value: object) -> None:
        setattr(self._module, name, value)


MODULES = {
    "os": Without(
        os,
        {
            *("fchmod", "fchown", "fork", "forkpty", "geteuid", "getgid", "getpgid", "getuid"),
            *("killpg", "pread", "preadv", "pwrite", "pwritev", "register_at_fork"),
            *("sched_getaffinity", "sched_setaffinity", "setsid", "statvfs", "uname"),
        },
        kill=_end,
    ),
    "signal": Without(
        signal,
        {
            *("SIGALRM", "SIGCHLD", "SIGHUP", "SIGKILL", "SIGSTOP", "SIGUSR1", "SIGUSR2"),
            *("pthread_kill", "alarm", "setitimer", "sigwait"),
        },
    ),
    "multiprocessing": Without(multiprocessing, {"forkserver"}, get_context=_spawned),
    "multiprocessing.context": Without(
        sys.modules["multiprocessing.context"],
        {"ForkContext", "ForkProcess", "ForkServerContext", "ForkServerProcess"},
    ),
    "platform": Without(platform, set(), libc_ver=lambda: ("", "")),
    "sys": Without(sys, set(), platform="win32"),
    "time": Without(time, {"CLOCK_BOOTTIME", "CLOCK_MONOTONIC", "clock_gettime"}),
}


def _import(
    name: str, scope: Any = None, local: Any = None, names: Sequence[str] = (), level: int = 0
) -> Any:
    if level == 0 and name in NO_MODULES:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    if level == 0 and NO_MODULES & {f"{name}.{part}" for part in names or ()}:
        raise ImportError(f"cannot import {names} from {name!r}")
    found = builtins.__import__(name, scope, local, names, level)
    return MODULES.get(name if names else name.partition(".")[0], found) if level == 0 else found


class _Limited(SourceFileLoader):
    def exec_module(self, module: ModuleType) -> None:
        module.__dict__["__builtins__"] = {**vars(builtins), "__import__": _import}
        super().exec_module(module)


class _Finder(MetaPathFinder):
    def find_spec(self, name: str, path: Any, target: ModuleType | None = None) -> Any:
        if name.partition(".")[0] != PACKAGE:
            return None
        spec: ModuleSpec | None = PathFinder.find_spec(name, path, target)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Limited(spec.loader.name, spec.loader.path)
        return spec


def _refuse(event: str, given: tuple[Any, ...]) -> None:
    """Files of Linux are absent for the package, also through `pathlib`."""
    if event != "open" or not str(given[0]).startswith(NO_FOLDERS):
        return
    frame: Any = sys._getframe(1)
    while frame is not None and "pathlib" in frame.f_code.co_filename:
        frame = frame.f_back
    if frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] == PACKAGE:
        raise FileNotFoundError(2, "No such file or directory", given[0])


sys.meta_path.insert(0, _Finder())
sys.addaudithook(_refuse)
