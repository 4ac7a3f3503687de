"""Keeps a handful of programs running and shows their output as one stream. Knows nothing of Django.

No process is left behind: each program leads a process group, what it started is found through /proc, and a guardian
(`processes.py`) does the same when this process is killed outright.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO

from agentsite import processes

POLL_SECONDS = 0.1
FIRST_DELAY_SECONDS = 0.5
LONGEST_DELAY_SECONDS = 10.0
IMPATIENT_SECONDS = 1.0
STEADY_SECONDS = 30.0  # who ran this long starts again at the first delay
NAME_WIDTH = 9
COLOURS = ("36", "32", "35", "33", "34")


@dataclass(frozen=True)
class Program:
    name: str
    argv: Sequence[str]
    grace_seconds: float = 5.0  # between the polite signal and the last one
    last: bool = False  # stopped after the others, which still need it while they finish
    held: bool = False  # its standard input stays open until `release`
    hide: str = ""  # a pattern of lines that nobody needs to see


class Console:
    """Lines of several programs on one stream, each behind its program's name."""

    def __init__(self, stream: IO[str] | None = None) -> None:
        self._stream = stream or sys.stdout
        self._colour = self._stream.isatty() and "NO_COLOR" not in os.environ
        self._lock = threading.Lock()
        self._order: list[str] = []

    def line(self, name: str, text: str) -> None:
        self.plain(f"{self._prefix(name)} {text}")

    def plain(self, text: str) -> None:
        # A reader that went away (`make run | head`) must not stop the programs from being stopped properly.
        with self._lock, suppress(BrokenPipeError, ValueError):
            self._stream.write(text + "\n")
            self._stream.flush()

    def _prefix(self, name: str) -> str:
        label = f"{name:<{NAME_WIDTH}}|"
        if not self._colour:
            return label
        if name not in self._order:
            self._order.append(name)
        return f"\x1b[{COLOURS[self._order.index(name) % len(COLOURS)]}m{label}\x1b[0m"


@dataclass
class _Child:
    program: Program
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    start_at: float = 0.0
    delay: float = FIRST_DELAY_SECONDS
    reader: threading.Thread | None = field(default=None, repr=False)


class Supervisor:
    def __init__(self, console: Console, env: Mapping[str, str], cwd: Path) -> None:
        self._console = console
        self._env = dict(env)
        self._cwd = cwd
        self._children: list[_Child] = []
        self._stop = threading.Event()
        self._hurry = threading.Event()
        self._released = False
        self._once: set[int] = set()
        self._asked_at = 0.0
        self._not_ours = processes.orphans([])  # children that our process had before it supervised anything
        self._guardian = subprocess.Popen(  # -S and -I: no site-packages, so it weighs a few megabytes
            [sys.executable, "-I", "-S", processes.__file__], stdin=subprocess.PIPE, start_new_session=True
        )
        processes.adopt_orphans()

    @property
    def stopping(self) -> bool:
        return self._stop.is_set()

    def update_env(self, values: Mapping[str, str]) -> None:
        self._env.update(values)

    def catch_signals(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda *_: self.request_stop())

    def request_stop(self) -> None:
        """Once: stop in order. Again: at once. (make passes a signal on that we may have got already.)"""
        now = time.monotonic()
        if self._stop.is_set() and now - self._asked_at >= IMPATIENT_SECONDS:
            self._hurry.set()
        self._asked_at = now
        self._stop.set()

    def start(self, program: Program) -> None:
        child = _Child(program)
        self._children.append(child)
        self._spawn(child)

    def release(self) -> None:
        """Let the held programs go; those started from now on are not held."""
        self._released = True
        for child in self._children:
            if child.process is not None:
                let_go(child.process)

    def run_once(self, argv: Sequence[str], read: Callable[[str], None]) -> int:
        """Run a program to its end, or to the first stop, and hand over its lines. Returns its exit code."""
        process = self._popen(argv)
        self._once.add(process.pid)
        self._tell_guardian(f"+{process.pid}")
        reader = threading.Thread(target=self._read_lines, args=(process, read), daemon=True)
        reader.start()
        while process.poll() is None and not self._stop.wait(0.02):
            self.check()
        processes.kill_trees([process.pid])
        process.wait()
        reader.join(1.0)
        self._once.discard(process.pid)
        self._tell_guardian(f"-{process.pid}")
        return process.returncode

    def run(self) -> None:
        """Watch until a stop is asked for, then stop everything."""
        try:
            while not self._stop.wait(POLL_SECONDS):
                self.check()
        finally:
            self.stop()

    def check(self) -> None:
        """Note who died, and start again those whose delay is over."""
        now = time.monotonic()
        for child in self._children:
            if child.process is None:
                if now >= child.start_at:
                    self._spawn(child)
            elif (code := child.process.poll()) is not None:
                self._note_death(child, code, now)

    def stop(self) -> None:
        self._stop.set()
        self._stop_some([child for child in self._children if not child.program.last])
        self._stop_some([child for child in self._children if child.program.last])
        processes.kill_orphans(self._known())
        if self._guardian.stdin:
            with suppress(OSError):
                self._guardian.stdin.close()
        self._guardian.wait()

    def _known(self) -> set[int]:
        running = {child.process.pid for child in self._children if child.process is not None}
        return {self._guardian.pid} | self._not_ours | self._once | running

    # --- one child -------------------------------------------------------------------------------------------------
    def _spawn(self, child: _Child) -> None:
        name = child.program.name
        try:
            process = self._popen(child.program.argv, held=child.program.held and not self._released)
        except OSError as error:
            self._postpone(child, f"could not start: {error}", time.monotonic())
            return
        self._tell_guardian(f"+{process.pid}")
        child.process, child.started_at = process, time.monotonic()
        child.reader = threading.Thread(
            target=self._read_lines,
            args=(process, partial(self._show, child.program)),
            name=f"{name} output",
            daemon=True,
        )
        child.reader.start()

    def _show(self, program: Program, line: str) -> None:
        if not (program.hide and re.search(program.hide, line)):
            self._console.line(program.name, line)

    def _popen(self, argv: Sequence[str], *, held: bool = False) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            list(argv),
            cwd=self._cwd,
            env=self._env,
            stdin=subprocess.PIPE if held else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    @staticmethod
    def _read_lines(process: subprocess.Popen[bytes], read: Callable[[str], None]) -> None:
        if process.stdout is None:
            return
        with process.stdout, suppress(ValueError):
            for line in process.stdout:
                read(line.decode("utf-8", "replace").rstrip())

    def _note_death(self, child: _Child, code: int, now: float) -> None:
        if child.process is not None:
            # What it left behind would hold its port or its files.
            processes.kill_trees([child.process.pid])
            processes.kill_orphans(self._known())
            let_go(child.process)
            self._tell_guardian(f"-{child.process.pid}")
        if child.reader is not None:
            child.reader.join(1.0)  # its last words come before our line about it
        if now - child.started_at >= STEADY_SECONDS:
            child.delay = FIRST_DELAY_SECONDS
        self._postpone(child, reason(code), now)

    def _postpone(self, child: _Child, why: str, now: float) -> None:
        child.process = None
        child.start_at = now + child.delay
        self._console.line(child.program.name, f"{why}; starting it again in {child.delay:g} s")
        child.delay = min(child.delay * 2, LONGEST_DELAY_SECONDS)

    # --- the end ---------------------------------------------------------------------------------------------------
    def _stop_some(self, children: list[_Child]) -> None:
        running = [(child.program, child.process) for child in children if child.process is not None]
        for _, process in running:
            with suppress(ProcessLookupError):
                process.terminate()
        started_at = time.monotonic()
        for program, process in running:
            self._wait(process, started_at + program.grace_seconds)
            if process.poll() is None:
                self._console.line(program.name, "did not stop in time; killed")
        processes.kill_trees(process.pid for _, process in running)
        for child in children:
            if child.process is not None:
                child.process.wait()
                let_go(child.process)
                self._tell_guardian(f"-{child.process.pid}")
                child.process = None

    def _wait(self, process: subprocess.Popen[bytes], until: float) -> None:
        while process.poll() is None and time.monotonic() < until and not self._hurry.is_set():
            time.sleep(0.02)

    def _tell_guardian(self, message: str) -> None:
        if self._guardian.stdin:
            with suppress(OSError):
                self._guardian.stdin.write(f"{message}\n".encode())
                self._guardian.stdin.flush()


def let_go(process: subprocess.Popen[bytes]) -> None:
    if process.stdin is not None:
        with suppress(OSError):
            process.stdin.close()


def reason(code: int) -> str:
    """Why a program ended, in words."""
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    hint = " (somebody killed it, or memory ran out)" if -code == signal.SIGKILL else ""
    return f"was ended by {name}{hint}"
