"""Clients of one endpoint, each with few connections. A client looks through all of its connections twice a call: with
five hundred of them that took as long as the rest of the call."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

CALLS_EACH = 16
Client = TypeVar("Client")


class Pools(Generic[Client]):
    """The first client that has room is used, so that few calls at a time share few connections."""

    def __init__(self, make: Callable[[], Client]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._clients: list[Client] = []
        self._calls: list[int] = []

    @contextmanager
    def client(self) -> Iterator[Client]:
        """For one call, until its last byte."""
        with self._lock:
            place = next((at for at, calls in enumerate(self._calls) if calls < CALLS_EACH), len(self._calls))
            if place == len(self._clients):
                self._clients.append(self._make())
                self._calls.append(0)
            self._calls[place] += 1
        try:
            yield self._clients[place]
        finally:
            with self._lock:
                self._calls[place] -= 1
