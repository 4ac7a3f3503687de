"""Receipts of actions. Each carries digests of the row as it stood after the event: the chain proves the rows too.

`facts` is what never changes after the proposal; `state` is what became of it. Both are computed from a fresh read, so
what is hashed is what the database holds. Whoever changes an action calls `record` in the same transaction.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from django.db.models import Max
from pydantic import JsonValue

from accounts import receipts
from accounts.models import Receipt, User
from runs.models import Action, Batch

FORM = 1
"""Of the digests. Receipts name it, so that older ones can be read by their own form once a column was added."""
FACTS = (
    "run_id",
    "intent",
    "tool_call_id",
    "position",
    "tool",
    "tool_version",
    "args",
    "digest",
    "title",
    "reasoning",
    "confidence",
    "risk",
    "irreversible",
    "idempotent",
    "policy_version",
    "route_reason",
    "needed",
    "held",
    "plan_summary",
    "preview",
    "preview_type",
    "amount",
    "currency",
    "preconditions",
    "supersedes_id",
    "created_at",
)
STATE = (
    "kind",
    "batch_id",
    "status",
    "version",
    "note",
    "decided_by_id",
    "released_by",
    "result",
    "expires_at",
    "decided_at",
    "starts_at",
    "executed_at",
)
BATCH = ("run_id", "key", "number", "intents", "title", "why", "created_at")
"""What people are shown of a batch. Its version, status and deadline may move."""


def record(
    row: Action, kind: str, actor: User | str = "agentsite", *, tampered: bool = False, **payload: Any
) -> Receipt:
    """One receipt for one event of one action. In the transaction of the event, after its last change of the row.

    `tampered`: the event met a row that was not what its latest receipt said.
    """
    if tampered:
        payload["tampered"] = True
    fresh = Action.objects.select_related("run").get(id=row.id)
    [entry] = _entries({fresh.id: fresh}, [Event(fresh.id, kind, actor, payload)])
    return receipts.append_all(fresh.run.team_id, [entry])[0]


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to an action. `payload`: what its receipt says besides the action itself."""

    action: uuid.UUID
    kind: str
    actor: User | str
    payload: Mapping[str, JsonValue]


def entries(events: Sequence[Event]) -> list[receipts.Entry]:
    """What is to be appended of many events, in their order, after the last change of any of their rows."""
    fresh = Action.objects.in_bulk([event.action for event in events])
    return _entries(fresh, events)


def _entries(fresh: Mapping[uuid.UUID, Action], events: Iterable[Event]) -> list[receipts.Entry]:
    return [
        receipts.Entry(
            kind=event.kind,
            actor=event.actor,
            subject_type="action",
            subject_id=event.action,
            payload=_payload(fresh[event.action], event),
        )
        for event in events
    ]


def _payload(row: Action, event: Event) -> dict[str, JsonValue]:
    return {
        "run": str(row.run_id),
        "tool": row.tool,
        "digest": row.digest,
        **event.payload,
        "form": FORM,
        "facts": facts_digest(row),
        "state": state_digest(row),
    }


def is_intact(row: Action) -> bool:
    """Whether the row is what its latest receipt says, and that receipt is what was written in its place: the last look
    before an effect. Reads two receipts at most."""
    last = _latest(row)
    return last is not None and _says(last, row) and receipts.is_in_place(last)


def is_contradicted(row: Action) -> bool:
    """Whether its latest receipt says something else: the look before a decision. Without a receipt it never runs."""
    return bool(contradicted(row.run.team_id, [row]))


def contradicted(team_id: uuid.UUID, rows: Iterable[Action]) -> set[uuid.UUID]:
    """The same of many actions of a team in one query: those of which it holds."""
    by_id = {str(row.id): row for row in rows}
    of_rows = Receipt.objects.filter(team_id=team_id, subject_type="action", subject_id__in=list(by_id))
    latest = of_rows.order_by().values("subject_id").annotate(last=Max("seq")).values("last")
    found = Receipt.objects.filter(team_id=team_id, seq__in=latest)
    wrong = [last for last in found if not (_says(last, by_id[last.subject_id]) and receipts.is_own_hash(last))]
    return {by_id[last.subject_id].id for last in wrong}


def _latest(row: Action) -> Receipt | None:
    of_row = Receipt.objects.filter(team_id=row.run.team_id, subject_type="action", subject_id=str(row.id))
    return of_row.order_by("-seq").first()


def _says(receipt: Receipt, row: Action) -> bool:
    payload = receipt.payload
    return (payload.get("facts"), payload.get("state")) == (facts_digest(row), state_digest(row))


def facts_digest(row: Action) -> str:
    return digest_of_columns(row, FACTS)


def state_digest(row: Action) -> str:
    return digest_of_columns(row, STATE)


def batch_digest(batch: Batch) -> str:
    return digest_of_columns(batch, BATCH)


def digest_of_columns(row: Any, columns: Iterable[str]) -> str:
    """SHA-256 in hex over canonical JSON (RFC 8785) of the columns by name; empty when a value can't be hashed."""
    try:
        return receipts.digest_of({column: _plain(getattr(row, column)) for column in columns})
    except ValueError:
        return ""  # nothing that can't be hashed was ever written


def _plain(value: Any) -> Any:
    if isinstance(value, uuid.UUID | Decimal):
        return str(value)
    if isinstance(value, dt.datetime):
        return value.astimezone(dt.UTC).isoformat(timespec="microseconds")
    return value
