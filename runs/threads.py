"""Threads that are used again. None is waited for when the process ends, unlike those of `concurrent.futures`."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable


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
