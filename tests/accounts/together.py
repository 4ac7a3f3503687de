from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Protocol

from django.db import connection

REPETITIONS = 100
"""Of a race: a window of a few statements is met now and then, not every time."""
PATIENCE_S = 30


class Race(Protocol):
    def __call__(self, *calls: Callable[[], Any]) -> list[Any]: ...


@contextmanager
def racing(most: int, patience_s: float = PATIENCE_S) -> Iterator[Race]:
    """Calls all at the same moment, each in a thread with a connection of its own; results or errors, in order. Threads
    and connections stay, so that what a repetition costs is the race."""
    with ThreadPoolExecutor(most) as pool:

        def race(*calls: Callable[[], Any]) -> list[Any]:
            barrier = threading.Barrier(len(calls))
            running = [pool.submit(_start, barrier, call) for call in calls]
            return [each.result(patience_s) for each in running]

        try:
            yield race
        finally:
            race(*[_hang_up] * most)


def together(calls: Sequence[Callable[[], Any]]) -> list[Any]:
    """One such race."""
    with racing(len(calls)) as race:
        return race(*calls)


def _hang_up() -> None:
    """`connection` is each thread's own."""
    connection.close()


def _start(barrier: threading.Barrier, call: Callable[[], Any]) -> Any:
    try:
        barrier.wait(10)
        return call()
    except Exception as error:  # noqa: BLE001  (handed to the test)
        return error
