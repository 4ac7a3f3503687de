"""Process trees, standard library only. Run as a program it is the guardian that outlives a killed `up`.

The guardian reads lines `+PID` and `-PID` on its standard input. When that pipe closes, `up` is gone, and whatever is
still listed is killed with all it started. A process group alone would not do: tool servers lead groups of their own.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

PROC = Path("/proc")
PR_SET_CHILD_SUBREAPER = 36


def _parents() -> dict[int, int]:
    """pid -> parent's pid of every process; empty where there is no /proc."""
    found = {}
    for entry in PROC.iterdir() if PROC.is_dir() else []:
        if not entry.name.isdigit():
            continue
        with suppress(OSError, ValueError, IndexError):
            # The command name is in brackets and may hold anything, so the fields are counted from the last bracket.
            found[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    return found


def adopt_orphans() -> None:
    """Become the parent of what a dead child leaves behind (Linux), so that `orphans` can find it."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def orphans(known: Iterable[int]) -> set[int]:
    """Children of this process other than the `known` ones: what dead children left behind."""
    me = os.getpid()
    return {pid for pid, parent in _parents().items() if parent == me} - set(known)


def descendants(pids: Iterable[int]) -> set[int]:
    """The processes below `pids`, without `pids` themselves."""
    parents = _parents()
    tops = set(pids)
    below: set[int] = set()
    while more := {pid for pid, parent in parents.items() if parent in tops | below} - below - tops:
        below |= more
    return below


def kill_trees(pids: Iterable[int]) -> None:
    """Kill each process group led by one of `pids`, and everything started below it."""
    tops = set(pids)
    below = descendants(tops)
    for pid in tops:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
    for pid in below:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


def kill_orphans(known: Iterable[int]) -> None:
    for pid in orphans(known):
        kill_trees([pid])
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)  # it may lead no group
        with suppress(ChildProcessError):
            os.waitpid(pid, 0)


def guard() -> None:
    listed: set[int] = set()
    for line in sys.stdin:
        change, pid = line[0], int(line[1:])
        if change == "+":
            listed.add(pid)
        else:
            listed.discard(pid)
    kill_trees(listed)


if __name__ == "__main__":
    guard()
