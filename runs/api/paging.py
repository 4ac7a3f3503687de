"""Keyset paging by creation. The cursor is opaque to clients."""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import uuid
from typing import Any

from django.db.models import Q, QuerySet

from runs.errors import Invalid

DEFAULT_LIMIT = 50
LARGEST_LIMIT = 200


def page(
    queryset: QuerySet[Any], limit: int, cursor: str | None, *, oldest_first: bool = False
) -> tuple[list[Any], str | None]:
    """(rows, cursor of the next page or None), newest first. Raises `Invalid` for a cursor that was never given out."""
    way, order = ("gt", ("created_at", "id")) if oldest_first else ("lt", ("-created_at", "-id"))
    if cursor:
        at, row_id = _read(cursor)
        queryset = queryset.filter(Q(**{f"created_at__{way}": at}) | Q(**{"created_at": at, f"id__{way}": row_id}))
    found = list(queryset.order_by(*order)[: limit + 1])
    if len(found) <= limit:
        return found, None
    last = found[limit - 1]
    return found[:limit], base64.urlsafe_b64encode(f"{last.created_at.isoformat()}|{last.id}".encode()).decode()


def _read(cursor: str) -> tuple[dt.datetime, uuid.UUID]:
    try:
        at, _, row_id = base64.urlsafe_b64decode(cursor.encode()).decode().partition("|")
        return dt.datetime.fromisoformat(at).astimezone(dt.UTC), uuid.UUID(row_id)
    except (ValueError, OverflowError, binascii.Error) as error:
        raise Invalid({"cursor": "This cursor was not given out by this list."}) from error
