"""Threads that are used again. None is waited for when the process ends, unlike those of `concurrent.futures`."""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Threads:
    """As many as work at the same time; work never waits for a thread. What a piece of work raises ends its thread."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._forget()
        os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        """A process that was forked has none of the threads that its parent had."""
        self._work: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self.idle = 0

    def start(self, work: Callable[[], object]) -> None:
        with self._lock:
            is_one_free = self.idle > 0
            self.idle -= is_one_free
        self._work.put(work)
        if not is_one_free:
            threading.Thread(target=self._serve, name=self._name, daemon=True).start()

    def _serve(self) -> None:
        while True:
            self._work.get()()
            with self._lock:
                self.idle += 1


class Watch:
    """Looks after all that goes on from one thread. If each of hundreds of threads that wait woke up for itself several
    times a second, they would take the interpreter from those that have something to do."""

    def __init__(self, threads: Threads, every_s: float) -> None:
        self._threads = threads
        self._every_s = every_s
        self._forget()
        os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._looks: set[Callable[[], None]] = set()
        self._is_looking = False

    @contextmanager
    def over(self, look: Callable[[], None]) -> Iterator[None]:
        """`look` is called every so often, and must not raise."""
        with self._lock:
            self._looks.add(look)
            begins, self._is_looking = not self._is_looking, True
        if begins:
            self._threads.start(self._look)
        try:
            yield
        finally:
            with self._lock:
                self._looks.discard(look)

    def _look(self) -> None:
        while True:
            time.sleep(self._every_s)
            with self._lock:
                looks = list(self._looks)
                self._is_looking = bool(looks)
            if not looks:
                return
            for look in looks:
                look()
