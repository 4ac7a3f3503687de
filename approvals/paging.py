"""Keyset paging of batches, and of actions that wait: the same cursors on the page and in the API. They are opaque to
clients."""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import uuid
from typing import Literal, TypeVar

from django.db.models import Q, QuerySet

from runs.models import Action, Batch

Status = Literal["pending", "decided", "all"]
Paged = TypeVar("Paged", Batch, Action)
SORT = {"pending": ("expires_at", "gt"), "decided": ("closed_at", "lt"), "all": ("created_at", "lt")}


class BadCursor(ValueError):
    """The cursor is none that a list of this kind gave out."""


def page(found: QuerySet[Paged], status: Status, limit: int, cursor: str = "") -> tuple[list[Paged], str]:
    """At most `limit` batches of `inbox.batches` in its order, and the cursor of what follows them; empty on the last
    page. Raises BadCursor."""
    page = list((after(found, status, cursor) if cursor else found)[: limit + 1])
    return page[:limit], _cursor(page[limit - 1], status) if len(page) > limit else ""


def _cursor(row: Batch | Action, status: Status) -> str:
    column, _ = SORT[status]
    moment: dt.datetime = getattr(row, column)
    return base64.urlsafe_b64encode(f"{moment.isoformat()}|{row.id}".encode()).decode()


def after(found: QuerySet[Paged], status: Status, cursor: str) -> QuerySet[Paged]:
    """What follows a cursor. Raises BadCursor."""
    column, way = SORT[status]
    try:
        moment_text, _, id_text = base64.urlsafe_b64decode(cursor.encode()).decode().partition("|")
        moment, last = dt.datetime.fromisoformat(moment_text).astimezone(dt.UTC), uuid.UUID(id_text)
    except (ValueError, OverflowError, binascii.Error) as error:
        raise BadCursor("This cursor is not one that this list gave out.") from error
    return found.filter(Q(**{f"{column}__{way}": moment}) | Q(**{column: moment, f"id__{way}": last}))
