"""A wall-clock bound on the database's work: no query of a person may hold a process."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.db import OperationalError, connection, transaction

SECONDS = 5.0
_SQLITE_STEPS = 20_000  # virtual machine instructions between two looks at the clock: well under a millisecond


class TookTooLong(Exception):
    """The database was stopped. The text says what can be done about it."""

    def __init__(self) -> None:
        super().__init__(
            f"This was stopped after {SECONDS:g} seconds. Narrow it, for example with since:7d, an agent or a status."
        )


@contextmanager
def bounded(seconds: float = SECONDS) -> Iterator[None]:
    """Everything read inside ends in about `seconds`, or TookTooLong is raised. Results must be fetched inside."""
    deadline = time.monotonic() + seconds

    def in_time(execute: Callable[..., Any], *args: Any) -> Any:
        if time.monotonic() >= deadline:
            raise TookTooLong
        return execute(*args)

    with _on_postgresql(seconds) if connection.vendor == "postgresql" else _on_sqlite(deadline):
        try:
            with connection.execute_wrapper(in_time):
                yield
        except OperationalError as error:
            if _was_stopped(error):
                raise TookTooLong from error
            raise


def _was_stopped(error: OperationalError) -> bool:
    text = str(error).lower()
    return "interrupted" in text or "statement timeout" in text


@contextmanager
def _on_postgresql(seconds: float) -> Iterator[None]:
    """The server ends a statement that takes longer; within an outer transaction its own limit is put back."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT current_setting('statement_timeout')")
        before = cursor.fetchone()[0]
        # Compiling a search costs more than running it.
        cursor.execute(
            "SELECT set_config('statement_timeout', %s, true), set_config('jit', 'off', true)",
            [str(max(1, int(seconds * 1000)))],
        )
        yield
        cursor.execute("SELECT set_config('statement_timeout', %s, true)", [before])


@contextmanager
def _on_sqlite(deadline: float) -> Iterator[None]:
    """No transaction: ours begin IMMEDIATE, and a search must not hold up the writers."""
    connection.ensure_connection()
    raw = connection.connection
    raw.set_progress_handler(lambda: time.monotonic() >= deadline, _SQLITE_STEPS)
    try:
        yield
    finally:
        raw.set_progress_handler(None, 0)
