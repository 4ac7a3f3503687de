"""Writers of a process in the order in which they came, where the database has none of its own.

SQLite has one writer, and whoever comes second asks again every so often: of twenty that write at once one may be
overtaken for seconds. In line they all wait equally long. Other processes still wait as SQLite lets them.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from django.db import transaction

_turn = threading.Lock()


@contextmanager
def in_line() -> Iterator[None]:
    """Around a transaction that writes and is contended. Within one already: its writer has its turn."""
    connection = transaction.get_connection()
    if connection.vendor != "sqlite" or connection.in_atomic_block:
        yield
        return
    with _turn:
        yield
