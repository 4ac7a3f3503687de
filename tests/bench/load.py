"""Rows into an empty database as fast as it takes them: COPY, or executemany; indexes of words are built afterwards."""

from __future__ import annotations

import datetime as dt
import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from importlib import import_module
from typing import Any

from django.db import connection, models
from psycopg import sql

from runs.models import SearchDocument

WORDS = import_module("runs.migrations.0002_search_documents")


class Table:
    """Collects rows of one model, in the order of its columns, with the model's own defaults."""

    def __init__(self, model: type[models.Model]) -> None:
        fields = [field for field in model._meta.concrete_fields if not isinstance(field, models.BigAutoField)]
        self.name = model._meta.db_table
        self.columns = [str(field.column) for field in fields]
        self.place = {field.attname: index for index, field in enumerate(fields)}
        self.defaults = [None if field.primary_key else field.get_default() for field in fields]
        self.json = [index for index, field in enumerate(fields) if isinstance(field, models.JSONField)]
        self.rows: list[list[Any]] = []

    def add(self, **values: Any) -> None:
        row = self.defaults.copy()
        for name, value in values.items():
            row[self.place[name]] = value
        for index in self.json:
            if row[index] is not None:
                row[index] = json.dumps(row[index])
        self.rows.append(row)

    def flush(self) -> None:
        if not self.rows:
            return
        if connection.vendor == "postgresql":
            self._copy()
        else:
            marks = ", ".join("?" * len(self.columns))
            statement = f"INSERT INTO {self.name} ({', '.join(self.columns)}) VALUES ({marks})"
            connection.connection.executemany(statement, ([_plain(value) for value in row] for row in self.rows))
        self.rows.clear()

    def _copy(self) -> None:
        statement = sql.SQL("COPY {} ({}) FROM STDIN").format(
            sql.Identifier(self.name), sql.SQL(", ").join(map(sql.Identifier, self.columns))
        )
        with connection.cursor() as cursor, cursor.cursor.copy(statement) as copy:
            for row in self.rows:
                copy.write_row(row)


def _plain(value: Any) -> Any:
    """As Django stores it in SQLite."""
    if isinstance(value, uuid.UUID):
        return value.hex
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, dt.datetime):
        return value.astimezone(dt.UTC).replace(tzinfo=None).isoformat(" ")
    return value


@contextmanager
def without_index_of_words() -> Iterator[None]:
    """Built once over all rows instead of row by row."""
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("DROP INDEX runs_searchdocument_words")
            yield
            cursor.execute("SET maintenance_work_mem = '512MB'")
            cursor.execute(WORDS.POSTGRESQL[0])
            cursor.execute("ANALYZE")
            return
        for name in ("document_put", "document_taken", "document_changed"):
            cursor.execute(f"DROP TRIGGER {name}")
        yield
        table = f"{SearchDocument._meta.db_table}_words"
        cursor.execute(f"INSERT INTO {table} ({table}) VALUES ('rebuild')")
        for statement in WORDS.SQLITE[1:]:
            cursor.execute(statement)
        cursor.execute("ANALYZE")
