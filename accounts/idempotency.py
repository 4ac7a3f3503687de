"""A POST sent again under the same Idempotency-Key gets the first answer, and nothing happens twice."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Callable

from django.db import IntegrityError, transaction
from django.db.models import QuerySet
from django.utils import timezone
from pydantic import JsonValue

from accounts.access import Access
from accounts.models import IdempotentRequest
from accounts.schemas import type_of_response

CLAIM_LASTS = dt.timedelta(seconds=60)
"""After this a claim without an answer counts as crashed, and its request may be sent again."""

KEY_LENGTH = 255

Answer = tuple[int, JsonValue]


class UnusableKey(ValueError):
    """Not a key. A type of its own, because what `produce` raises may be a ValueError too."""


class IdempotencyConflict(Exception):
    """The key was used with another body or another route: an answer 409."""


class IdempotencyInProgress(IdempotencyConflict):
    """The first request with this key is being worked on: an answer 409, try again in a moment."""


def replay_or_run(
    access: Access, key: str, route: str, body: bytes | JsonValue, produce: Callable[[], Answer]
) -> tuple[int, JsonValue, bool]:
    """(status, response, replayed). `produce` runs outside any transaction; if it raises, the key is free again.

    Raises IdempotencyConflict, and UnusableKey for a key that is empty, too long or unprintable.
    """
    if not (0 < len(key) <= KEY_LENGTH and key.isprintable()):
        raise UnusableKey(f"An Idempotency-Key has 1 to {KEY_LENGTH} printable characters.")
    claim = _claim(access, key, route, _digest(body))
    if claim.status_code is not None:
        return claim.status_code, type_of_response.validate_json(str(claim.response)), True
    try:
        status, response = produce()
    except BaseException:
        _held(claim).delete()
        raise
    # A claim that was taken over meanwhile belongs to the other; this answer then goes to this caller only.
    # Kept as text, because PostgreSQL would put the fields of an object into an order of its own.
    _held(claim).update(status_code=status, response=json.dumps(response))
    return status, response, False


def _claim(access: Access, key: str, route: str, digest: str) -> IdempotentRequest:
    """A new claim, one taken over from a crash, or a finished request. Committed before this returns."""
    now = timezone.now()
    owner = {"team": access.team, "user": access.user, "key": key}
    try:
        with transaction.atomic(durable=True):
            return IdempotentRequest.objects.create(**owner, route=route, body_digest=digest, claimed_at=now)
    except IntegrityError:
        row = IdempotentRequest.objects.filter(**owner).first()
    if row is None:
        raise IdempotencyInProgress("The first request with this Idempotency-Key has just failed. Send it again.")
    if (row.route, row.body_digest) != (route, digest):
        raise IdempotencyConflict("This Idempotency-Key was used for another request. Use a new one.")
    if row.status_code is None:
        _take_over(row, now)
    return row


def _take_over(row: IdempotentRequest, now: dt.datetime) -> None:
    crashed = row.claimed_at < now - CLAIM_LASTS
    if not crashed or _held(row).update(claimed_at=now) != 1:
        raise IdempotencyInProgress("The first request with this Idempotency-Key is still being worked on.")
    row.claimed_at = now


def _held(claim: IdempotentRequest) -> QuerySet[IdempotentRequest]:
    return IdempotentRequest.objects.filter(id=claim.id, claimed_at=claim.claimed_at, status_code__isnull=True)


def _digest(body: bytes | JsonValue) -> str:
    if not isinstance(body, bytes):
        body = json.dumps(body, sort_keys=True, separators=(",", ":")).encode()
    return hashlib.sha256(body).hexdigest()
