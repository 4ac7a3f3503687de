from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from django.db import connection

T = TypeVar("T")


def together(calls: list[Callable[[], T]]) -> list[T | Exception]:
    """Calls all at the same moment, each in a thread with a connection of its own. Results or errors, in order."""
    barrier = threading.Barrier(len(calls))
    results: list[T | Exception | None] = [None] * len(calls)

    def run(place: int, call: Callable[[], T]) -> None:
        try:
            barrier.wait(10)
            results[place] = call()
        except Exception as error:  # noqa: BLE001  (handed to the test)
            results[place] = error
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=item) for item in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return [result for result in results if result is not None]
