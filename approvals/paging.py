"""Keyset paging of batches: the same cursors on the page and in the API. They are opaque to clients."""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import uuid
from typing import Literal

from django.db.models import Q, QuerySet

from runs.models import Batch

Status = Literal["pending", "decided", "all"]
SORT = {"pending": ("expires_at", "gt"), "decided": ("closed_at", "lt"), "all": ("created_at", "lt")}


class BadCursor(ValueError):
    """The cursor is none that a list of this kind gave out."""


def page(found: QuerySet[Batch], status: Status, limit: int, cursor: str = "") -> tuple[list[Batch], str]:
    """At most `limit` batches of `inbox.batches` in its order, and the cursor of what follows them; empty on the last
    page. Raises BadCursor."""
    page = list((_after(found, status, cursor) if cursor else found)[: limit + 1])
    return page[:limit], _cursor(page[limit - 1], status) if len(page) > limit else ""


def _cursor(batch: Batch, status: Status) -> str:
    column, _ = SORT[status]
    moment: dt.datetime = getattr(batch, column)
    return base64.urlsafe_b64encode(f"{moment.isoformat()}|{batch.id}".encode()).decode()


def _after(found: QuerySet[Batch], status: Status, cursor: str) -> QuerySet[Batch]:
    column, way = SORT[status]
    try:
        moment_text, _, id_text = base64.urlsafe_b64decode(cursor.encode()).decode().partition("|")
        moment, last = dt.datetime.fromisoformat(moment_text).astimezone(dt.UTC), uuid.UUID(id_text)
    except (ValueError, OverflowError, binascii.Error) as error:
        raise BadCursor("This cursor is not one that this list gave out.") from error
    return found.filter(Q(**{f"{column}__{way}": moment}) | Q(**{column: moment, f"id__{way}": last}))
