"""The audit log: one hash chain a team. `verify` names every receipt that was changed, removed or moved."""

from __future__ import annotations

import datetime as dt
import hashlib
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass

import rfc8785
from django.db import IntegrityError, transaction
from django.utils import timezone
from pydantic import JsonValue

from accounts.models import Receipt, Team, User
from accounts.schemas import type_of_payload

EXPORT_PAGE = 500
LARGEST_EXACT = 2**53 - 1
"""RFC 8785 knows numbers as doubles. PostgreSQL gives 1e22 back as an integer: beyond this, both are hashed alike."""


@dataclass(frozen=True)
class Problem:
    """`kind`: changed, gap, reorder, truncated; of rows that receipts are about also missing, unrecorded.

    `seq`: the receipt where it shows; 0 when there is none.
    """

    seq: int
    kind: str
    detail: str

    def as_dict(self) -> dict[str, int | str]:
        return asdict(self)


class ChainBroken(Exception):
    """The next receipt of a team has no place, because the end of its chain was changed in the database. Nothing that
    needs a receipt happens then: an answer 503, with this text."""

    def __init__(self) -> None:
        super().__init__(
            "Nothing was changed: the audit log of this team is not as it was left, so nothing can be added to it. "
            "Whoever runs this installation should run “manage.py verify_receipts”, which names the place."
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What one receipt says. `actor` is a person, or the name of what acted without one."""

    kind: str
    actor: User | str
    subject_type: str
    subject_id: object
    payload: Mapping[str, JsonValue]


def append(
    team_id: uuid.UUID,
    kind: str,
    *,
    actor: User | str,
    subject_type: str,
    subject_id: object,
    payload: Mapping[str, JsonValue],
) -> Receipt:
    """`append_all` of one."""
    entry = Entry(kind=kind, actor=actor, subject_type=subject_type, subject_id=subject_id, payload=payload)
    return append_all(team_id, [entry])[0]


def append_all(team_id: uuid.UUID, entries: Sequence[Entry]) -> list[Receipt]:
    """In their order, within the caller's transaction, so that a receipt stands if and only if its event does. However
    many they are, these are three statements: writers of a team wait for each other at its row from here on until
    their transaction ends, so this comes last in it where it can.
    Raises ChainBroken, which must end the transaction.
    """
    if not transaction.get_connection().in_atomic_block:
        raise RuntimeError("a receipt belongs into the transaction of its event")
    if not entries:
        return []
    team = lock_team(team_id)
    made: list[Receipt] = []
    seq, last = team.receipts_seq, team.receipts_hash
    for entry in entries:
        seq += 1
        receipt = _next(team, seq, last, entry)
        last = receipt.hash
        made.append(receipt)
    try:
        Receipt.objects.bulk_create(made)
    except IntegrityError as error:
        raise ChainBroken from error
    Team.objects.filter(id=team_id).update(receipts_seq=seq, receipts_hash=last)
    return made


def _next(team: Team, seq: int, prev_hash: str, entry: Entry) -> Receipt:
    person = entry.actor if isinstance(entry.actor, User) else None
    receipt = Receipt(
        team=team,
        seq=seq,
        kind=entry.kind,
        actor=person,
        actor_label=entry.actor.label if isinstance(entry.actor, User) else entry.actor,
        subject_type=entry.subject_type,
        subject_id=str(entry.subject_id),
        at=timezone.now(),
        payload=type_of_payload.validate_python(dict(entry.payload)),
        prev_hash=prev_hash,
    )
    receipt.hash = _hash(receipt)
    return receipt


def lock_team(team_id: uuid.UUID) -> Team:
    """Holds the team's row until the transaction ends. On SQLite every transaction has the only write lock anyway."""
    return Team.objects.select_for_update(no_key=True).get(id=team_id)


def verify(team: Team) -> list[Problem]:
    """What is wrong with the team's chain, in its order; an empty list when nothing is."""
    with snapshot(team.id) as now:
        return problems_of_chain(now)


def problems_of_chain(end: Team) -> list[Problem]:
    """As `verify`, within a caller's `snapshot`."""
    problems = list(_broken_links(end))
    last = Receipt.objects.filter(team=end).order_by("-seq").first()
    found = (last.seq, last.hash) if last else (0, "")
    if found[0] < end.receipts_seq:
        detail = f"receipts {found[0] + 1} to {end.receipts_seq} are missing at the end"
        problems.append(Problem(end.receipts_seq, "truncated", detail))
    elif found != (end.receipts_seq, end.receipts_hash):
        problems.append(Problem(found[0], "changed", "the last receipt is not the one that was written last"))
    return problems


@contextmanager
def snapshot(team_id: uuid.UUID) -> Iterator[Team]:
    """One moment of the database, with the end of the team's chain in it. Writers go on meanwhile where they can.

    SQLite has one writer, so a transaction stops it; so does a caller's own transaction, which may have read before.
    """
    connection = transaction.get_connection()
    own = connection.vendor == "postgresql" and not connection.in_atomic_block
    with transaction.atomic():
        if own:
            with connection.cursor() as cursor:
                cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        yield Team.objects.get(id=team_id) if own else lock_team(team_id)


def _broken_links(team: Team) -> Iterator[Problem]:
    expected_seq, prev_hash = 1, ""
    for receipt in Receipt.objects.filter(team=team).order_by("seq").iterator(chunk_size=1000):
        if receipt.seq != expected_seq:
            yield Problem(receipt.seq, "gap", f"receipts {expected_seq} to {receipt.seq - 1} are missing")
        elif receipt.prev_hash != prev_hash:
            yield Problem(receipt.seq, "reorder", "it does not follow the receipt before it")
        if receipt.hash != _hash_or_empty(receipt):
            yield Problem(receipt.seq, "changed", "its content is not what was written")
        expected_seq, prev_hash = receipt.seq + 1, receipt.hash


def is_own_hash(receipt: Receipt) -> bool:
    """Whether the receipt is what was written, by itself: `verify` says whether it stands in its place."""
    return receipt.hash == _hash_or_empty(receipt)


def is_in_place(receipt: Receipt) -> bool:
    """The same, and whether the chain goes on from it: one that was written anew with a hash that fits does not."""
    end = Team.objects.values_list("receipts_seq", "receipts_hash").get(id=receipt.team_id)  # first: it only moves on
    following = Receipt.objects.filter(team_id=receipt.team_id, seq=receipt.seq + 1).values_list("prev_hash", flat=True)
    continued = end[1] if end[0] == receipt.seq else following.first()
    return is_own_hash(receipt) and continued == receipt.hash


def in_order(team_id: uuid.UUID, *, after: int = 0) -> Iterator[Receipt]:
    """Page by page, each read by itself: an export holds nothing open however long its reader takes."""
    while True:
        page = list(Receipt.objects.filter(team_id=team_id, seq__gt=after).order_by("seq")[:EXPORT_PAGE])
        yield from page
        if len(page) < EXPORT_PAGE:
            return
        after = page[-1].seq


def as_json(receipt: Receipt) -> str:
    """One line, canonical JSON: the very bytes of which `hash` is the SHA-256, but for `hash` itself."""
    return rfc8785.dumps({**_fields(receipt), "hash": receipt.hash}).decode()


def _hash_or_empty(receipt: Receipt) -> str:
    try:
        return _hash(receipt)
    except (ValueError, rfc8785.CanonicalizationError):
        return ""  # nothing that can't be hashed was ever written


def _hash(receipt: Receipt) -> str:
    """SHA-256 in hex over canonical JSON (RFC 8785) of every field but the hash itself."""
    return digest_of(_fields(receipt))


def _fields(receipt: Receipt) -> dict[str, JsonValue]:
    return {
        "actor": str(receipt.actor_id) if receipt.actor_id else None,
        "actor_label": receipt.actor_label,
        "at": receipt.at.astimezone(dt.UTC).isoformat(timespec="microseconds"),
        "id": str(receipt.id),
        "kind": receipt.kind,
        "payload": _as_doubles(receipt.payload),
        "prev_hash": receipt.prev_hash,
        "seq": receipt.seq,
        "subject_id": receipt.subject_id,
        "subject_type": receipt.subject_type,
        "team": str(receipt.team_id),
    }


def digest_of(value: JsonValue) -> str:
    """SHA-256 in hex over canonical JSON, the same from either database. Raises ValueError for what JSON can't say."""
    return hashlib.sha256(rfc8785.dumps(_as_doubles(value))).hexdigest()


def _as_doubles(value: JsonValue) -> JsonValue:
    if isinstance(value, dict):
        return {key: _as_doubles(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_as_doubles(item) for item in value]
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > LARGEST_EXACT:
        return float(value)
    return value
