"""How many of a worker process's runs are at work at the same time. Most of those it holds wait for a model or a tool.

A run holds a slot while it works, and gives it back while it waits: five hundred runs at once are then a few threads
that want the interpreter and a few connections to the database, not five hundred of each. A thread that waits for the
interpreter wakes up every five milliseconds to ask for it, and hundreds of them leave it no time for anything else.
Those at work share it, so they end together and their models answer together: few slots, and runs spread out. A slot
is a connection, with all that its server has planned: Celery would close a thread's own after each task.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from queue import SimpleQueue

from django.db import DEFAULT_DB_ALIAS, connections
from django.db.backends.base.base import BaseDatabaseWrapper

AT_WORK = 6
LOOKED_AT_EVERY_S = 10.0


class Slots:
    """Given out in the order in which they were asked for, but to whom a person wants to stop first."""

    def __init__(self, number: int) -> None:
        self._lock = threading.Lock()
        self.free = [_Slot() for _ in range(number)]
        self.waiting: deque[_Turn] = deque()
        self._mine = threading.local()
        self.runs = 0

    @contextmanager
    def held(self) -> Iterator[None]:
        """Around a run's work in this thread. Waits for a slot."""
        with self._lock:
            self.runs += 1
        try:
            self._begin()
            try:
                yield
            finally:
                self._end()
        finally:
            with self._lock:
                self.runs -= 1

    @contextmanager
    def released(self) -> Iterator[None]:
        """Around a wait for something else than the database, within `held`; anywhere else it does nothing. Who leaves
        it by an exception, as an interrupted call does, need not wait for those who came before."""
        if getattr(self._mine, "slot", None) is None:
            yield
            return
        if self._mine.slot.connection.in_atomic_block:
            raise RuntimeError("a transaction is open: nothing is waited for inside it")
        self._end()
        try:
            yield
        except BaseException:
            self._begin(first=True)
            raise
        self._begin()

    def hurry(self, thread: int) -> None:
        """The thread of that ident is the next to get a slot, if it waits for one."""
        with self._lock:
            for turn in self.waiting:
                if turn.thread == thread:
                    self.waiting.remove(turn)
                    self.waiting.appendleft(turn)
                    return

    def _begin(self, *, first: bool = False) -> None:
        slot = self._take(first)
        slot.refresh()
        own = connections[DEFAULT_DB_ALIAS]
        own.close()  # open if something was asked of the database during the wait
        connections[DEFAULT_DB_ALIAS] = slot.connection
        self._mine.slot, self._mine.own = slot, own

    def _end(self) -> None:
        slot, self._mine.slot = self._mine.slot, None
        if slot.connection.in_atomic_block or slot.connection.errors_occurred:
            slot.connection.close()
        connections[DEFAULT_DB_ALIAS] = self._mine.own
        self._give(slot)

    def _take(self, first: bool) -> _Slot:
        with self._lock:
            if self.free:
                return self.free.pop()
            turn = _Turn()
            (self.waiting.appendleft if first else self.waiting.append)(turn)
        return turn.slot.get()

    def _give(self, slot: _Slot) -> None:
        with self._lock:
            if not self.waiting:
                self.free.append(slot)
                return
            turn = self.waiting.popleft()
        turn.slot.put(slot)


class _Turn:
    """A thread that waits, and where its slot will lie."""

    def __init__(self) -> None:
        self.thread = threading.get_ident()
        self.slot: SimpleQueue[_Slot] = SimpleQueue()


class _Slot:
    def __init__(self) -> None:
        self.connection: BaseDatabaseWrapper = connections.create_connection(DEFAULT_DB_ALIAS)
        self.connection.inc_thread_sharing()
        self._looked_at = 0.0

    def refresh(self) -> None:
        """As Django does between requests: a connection that is too old is closed, one that broke is found out."""
        if time.monotonic() - self._looked_at > LOOKED_AT_EVERY_S:
            self._looked_at = time.monotonic()
            self.connection.close_if_unusable_or_obsolete()


_of_this_process: list[Slots] = []


def use_slots(number: int = AT_WORK) -> None:
    """From now on the runs of this process share so many. Without it, as in a test, each works in its own thread's
    connection and never waits."""
    _of_this_process.append(Slots(number))


def held() -> AbstractContextManager[None]:
    return _of_this_process[-1].held() if _of_this_process else nullcontext()


def released() -> AbstractContextManager[None]:
    return _of_this_process[-1].released() if _of_this_process else nullcontext()


def runs_here() -> int:
    """How many runs this process holds: at work, waiting for a slot, or for a model or a tool."""
    return _of_this_process[-1].runs if _of_this_process else 0


def hurry(thread: int) -> None:
    if _of_this_process:
        _of_this_process[-1].hurry(thread)
