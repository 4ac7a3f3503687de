"""Text in documents: the condition that decides, and the databases' indexes that only narrow what it is put to.

Which way is quicker depends on how common the words are. Of rare ones the index gives every document at once; with
common ones it would give far too many, while a walk through the newest runs meets enough of them soon. So the choice is
made here, from what is known of the words, and not by a planner that sees neither LIMIT nor order together with them.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import reduce
from operator import or_
from typing import Any

from django.db import connection
from django.db.models import F, Q, QuerySet, Value
from django.db.models.functions import StrIndex
from django.db.models.lookups import GreaterThan

from runs.models import SearchDocument
from traces.tree import Op, Term, Text

COLUMNS = ("about", "error", "reasoning", "output", "input")
MOST = 5_000
"""Documents: what the index finds is taken whole up to this many."""
MANY = 40_000
"""Entries of an index by a column that are gone through where that answers without the documents themselves."""

Requirement = tuple[Text, ...]
"""Texts of which a document must hold one."""

_STATISTICS_S = 60.0


def needle(text: Text) -> str:
    """The text as it stands in a column."""
    return " " + " ".join(text.words) + ("" if text.prefix else " ")


def holds(text: Text, columns: Sequence[str] = COLUMNS) -> Q:
    """On documents."""
    wanted = Value(needle(text))
    return reduce(or_, (Q(GreaterThan(StrIndex(F(column), wanted), 0)) for column in columns))


def of_term(term: Term, columns: Sequence[str]) -> Q:
    if term.op == Op.ANY:
        return reduce(or_, (~Q(**{column: ""}) for column in columns))
    if term.op == Op.EXACT:
        return reduce(or_, (Q(**{column: needle(text)}) for column in columns for text in term.texts))
    return reduce(or_, (holds(text, columns) for text in term.texts))


def narrowed(documents: QuerySet[SearchDocument], required: Sequence[Requirement]) -> QuerySet[SearchDocument] | None:
    """Those documents that the index has under the words of every requirement; None when these are too many."""
    if not required:
        return None
    return _on_postgresql(documents, required) if connection.vendor == "postgresql" else _on_sqlite(documents, required)


def are_few(rows: QuerySet[Any], most: int | None = None) -> bool:
    most = MOST if most is None else most
    return rows[: most + 1].count() <= most


# --- PostgreSQL ------------------------------------------------------------------------------------------------------


_TABLE = "runs_searchdocument"
_WORDS = "array_to_tsvector(array_remove(string_to_array({}, ' '), ''))".format(
    " || ".join(f"{_TABLE}.{column}" for column in COLUMNS)
)


def _on_postgresql(
    documents: QuerySet[SearchDocument], required: Sequence[Requirement]
) -> QuerySet[SearchDocument] | None:
    if min(sum(_statistics.documents(text) for text in texts) for texts in required) > MOST:
        return None
    wanted = " & ".join(f"({' | '.join(_tsquery(text) for text in texts)})" for texts in required)
    return documents.extra(where=[f"{_WORDS} @@ %s::tsquery"], params=[wanted])  # noqa: S610  (our own constants)


def _tsquery(text: Text) -> str:
    lexemes = [f"'{word}'" for word in text.words]  # words hold neither quotes nor backslashes
    if text.prefix:
        lexemes[-1] += ":*"
    return f"({' & '.join(lexemes)})"


class _Statistics:
    """How many documents hold a word, at most: from what ANALYZE keeps of the commonest."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        self.read_at = float("-inf")
        self.rows = 0.0
        self.shares: dict[str, float] = {}

    def documents(self, text: Text) -> float:
        if time.monotonic() - self.read_at > _STATISTICS_S:
            self._read()
        whole = text.words[:-1] if text.prefix else text.words
        counts = [self.rows * self.shares.get(word, 0.0) for word in whole]
        if text.prefix:
            counts.append(
                self.rows * sum(share for word, share in self.shares.items() if word.startswith(text.words[-1]))
            )
        return min(counts)

    def _read(self) -> None:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT (SELECT reltuples FROM pg_class WHERE oid = %s::regclass), most_common_elems::text::text[], "
                "most_common_elem_freqs FROM pg_stats WHERE schemaname = current_schema() AND tablename = %s",
                [_TABLE, f"{_TABLE}_words"],
            )
            rows, words, shares = cursor.fetchone() or (0, None, None)
        self.read_at = time.monotonic()
        self.rows = max(0.0, rows)
        # After the shares of the words come the least and the greatest of them.
        self.shares = dict(zip(words or (), shares or (), strict=False))


_statistics = _Statistics()


def forget() -> None:
    """The next search reads the statistics anew."""
    _statistics.forget()


# --- SQLite ----------------------------------------------------------------------------------------------------------


def _on_sqlite(documents: QuerySet[SearchDocument], required: Sequence[Requirement]) -> QuerySet[SearchDocument] | None:
    wanted = " AND ".join(f"({' OR '.join(_match(text) for text in texts)})" for texts in required)
    found = f"SELECT rowid FROM {_TABLE}_words WHERE {_TABLE}_words MATCH %s"  # noqa: S608  (our own constant)
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT count(*) FROM ({found} LIMIT {MOST + 1})", [wanted])  # noqa: S608
        if cursor.fetchone()[0] > MOST:
            return None
    return documents.extra(where=[f"{_TABLE}.id IN ({found})"], params=[wanted])  # noqa: S610


def _match(text: Text) -> str:
    return f'"{" ".join(text.words)}"' + (" *" if text.prefix else "")
