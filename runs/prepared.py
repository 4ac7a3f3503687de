"""Statements that PostgreSQL keeps parsed and planned, for the few that every step makes.

Django binds values into the text of each statement, so that the server plans it anew every time: for one of ninety
values that is as much work as doing it. Here they are sent beside it, all as text, so that one plan fits every row.
"""

from __future__ import annotations

import datetime as dt
import json
import uuid
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from functools import cache
from itertools import count
from typing import Any

from django.db import connection, models

Value = str | None


def execute(statement: str, values: Sequence[Value]) -> tuple[int, tuple[Any, ...] | None]:
    """How many rows it changed or found, and the first of them if it returns any. `statement` has %s for each value.

    It belongs to the open transaction, or is one by itself. Raises what Django raises of a database."""
    from psycopg import RawCursor  # noqa: PLC0415  (loaded only where it is used)

    connection.ensure_connection()
    with connection.wrap_database_errors, RawCursor(connection.connection) as cursor:
        cursor.execute(_numbered(statement), values, prepare=True)
        return cursor.rowcount, cursor.fetchone() if cursor.description else None


def texts(fields: Iterable[models.Field[Any, Any]], values: Iterable[Any]) -> list[Value]:
    """What is stored in these columns, as PostgreSQL reads it."""
    return [_text(field, value) for field, value in zip(fields, values, strict=True)]


def _text(field: models.Field[Any, Any], value: Any) -> Value:
    if value is None:
        return None
    if isinstance(field, models.JSONField):
        return json.dumps(value, cls=field.encoder)
    written = _WRITTEN.get(type(value))
    return written(value) if written else str(field.get_prep_value(value))


_WRITTEN: dict[type, Callable[[Any], str]] = {
    str: str,
    int: str,
    float: repr,
    bool: str,
    Decimal: str,
    uuid.UUID: str,
    dt.datetime: dt.datetime.isoformat,
    dt.date: dt.date.isoformat,
    bytes: lambda value: f"\\x{value.hex()}",
    memoryview: lambda value: f"\\x{value.hex()}",
}


@cache
def _numbered(statement: str) -> str:
    numbers = count(1)
    first, *rest = statement.split("%s")
    return first + "".join(f"${next(numbers)}{part}" for part in rest)
