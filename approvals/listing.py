"""The list of batches that wait: filtered and counted by the database, so that figures hold for all of its pages."""

from __future__ import annotations

import datetime as dt
import uuid
from dataclasses import dataclass
from enum import StrEnum

from django.db.models import Count, Exists, OuterRef, Q, QuerySet
from django.utils import timezone

from accounts.access import Access, Right, rows
from approvals import inbox
from approvals.paging import page
from runs.engine.types import WAITING_ACTIONS
from runs.models import Action, Batch
from runs.previews import counted

PAGE = 50
EXPIRING = dt.timedelta(minutes=30)


class Show(StrEnum):
    ALL = ""
    MINE = "mine"
    TWO_PERSON = "two_person"
    EXPIRING = "expiring"


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """The figures of the page head and its filter chips, of all that waits. `mine` is also the frame's."""

    batches: int = 0
    actions: int = 0
    mine: int = 0
    two_person: int = 0
    expiring: int = 0

    @property
    def chips(self) -> tuple[tuple[Show, int], ...]:
        return (Show.MINE, self.mine), (Show.TWO_PERSON, self.two_person), (Show.EXPIRING, self.expiring)

    @property
    def words(self) -> str:
        if not self.batches:
            return ""
        return f"{counted(self.actions, 'action', 'actions')} in {counted(self.batches, 'batch', 'batches')}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """A page of the list. `following`: the cursor of the next one, or empty."""

    batches: list[Batch]
    following: str


def read_show(text: str) -> Show:
    """What the address asks for; anything unknown shows all."""
    return Show(text) if text in list(Show) else Show.ALL


def listed(access: Access, show: Show, cursor: str = "", *, without: uuid.UUID | None = None) -> Listed:
    """Soonest deadline first. `without`: a batch that stands above the list already. Raises BadCursor."""
    found = inbox.batches(access, rows_only=True).exclude(id__in=[without] if without else [])
    match show:
        case Show.MINE:
            found = found.filter(id__in=_mine(access).values("id"))
        case Show.TWO_PERSON:
            waiting = Action.objects.filter(batch=OuterRef("pk"), status__in=list(WAITING_ACTIONS))
            found = found.filter(Exists(waiting.filter(needed__gt=1)))
        case Show.EXPIRING:
            found = found.filter(_expires_soon())
    batches, following = page(found, "pending", PAGE, cursor)
    return Listed(batches=batches, following=following)


def counts(access: Access) -> Counts:
    waits = Q(actions__status__in=list(WAITING_ACTIONS))
    figures = (
        rows(access, Batch)
        .filter(status="open")
        .aggregate(
            batches=Count("id", distinct=True),
            waiting=Count("actions", filter=waits),
            two_person=Count("id", distinct=True, filter=waits & Q(actions__needed__gt=1)),
            expiring=Count("id", distinct=True, filter=_expires_soon()),
        )
    )
    return Counts(actions=figures.pop("waiting"), mine=inbox.open_count(access), **figures)


def newest(access: Access) -> uuid.UUID:
    """Of all that wait, whichever page they are on: what is newer came after this moment."""
    found = rows(access, Batch).filter(status="open").order_by("-id").values_list("id", flat=True)
    return found.first() or uuid.UUID(int=0)


def _mine(access: Access) -> QuerySet[Batch]:
    return inbox.for_me(access) if access.may(Right.DECIDE) else Batch.objects.none()


def _expires_soon() -> Q:
    return Q(expires_at__lt=timezone.now() + EXPIRING)
