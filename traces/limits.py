"""A wall-clock bound on the database's work: no query of a person may hold a process."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
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


_FOR_SEARCHES = {
    # Compiling a search, and starting processes for it, costs more than running it.
    "jit": "off",
    "max_parallel_workers_per_gather": "0",
    # Pages that are read again and again are in memory, and disks have no arm to move: else a scan looks cheaper.
    "random_page_cost": "1.1",
}


@contextmanager
def _on_postgresql(seconds: float) -> Iterator[None]:
    """The server ends a statement that takes longer; within an outer transaction its own limits are put back."""
    wanted = {"statement_timeout": str(max(1, int(seconds * 1000))), **_FOR_SEARCHES}
    within_another = connection.in_atomic_block
    with transaction.atomic(), connection.cursor() as cursor:
        before = _settings(cursor, list(wanted)) if within_another else {}
        _set(cursor, wanted)
        yield
        if within_another:
            _set(cursor, before)


def _settings(cursor: Any, names: Sequence[str]) -> dict[str, str]:
    cursor.execute(f"SELECT {', '.join(['current_setting(%s)'] * len(names))}", names)
    return dict(zip(names, cursor.fetchone(), strict=True))


def _set(cursor: Any, values: Mapping[str, str]) -> None:
    pairs = [text for pair in values.items() for text in pair]
    cursor.execute(f"SELECT {', '.join(['set_config(%s, %s, true)'] * len(values))}", pairs)


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
