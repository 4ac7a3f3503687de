"""Putting a batch before somebody else. Who is asked changes, never who may decide: that is the role's alone."""

from __future__ import annotations

import uuid

from django.db import transaction
from django.db.models import Count, F, Q, QuerySet
from django.utils import timezone

from accounts import receipts
from accounts.access import Access, Right, access_for_user, get, holders
from accounts.models import User
from approvals import duties, notices
from approvals.models import HandOver, Verdict
from approvals.notice_models import NoticeKind
from runs import live
from runs.engine.types import WAITING_ACTIONS, ActionStatus
from runs.errors import Conflict, Invalid
from runs.models import Action, Batch, Run

NOTE_LENGTH = 1000


def candidates(access: Access) -> QuerySet[User]:
    """The people of the team who may decide, by name."""
    return holders(access.team, Right.DECIDE).order_by("first_name", "last_name", "username")


def hand_over(
    access: Access, batch_id: uuid.UUID | str, to: str, note: str = "", *, version: int | None = None
) -> HandOver:
    """`to`, a user name, is asked in the place of who hands it over; where that person was not asked by name, in the
    place of everybody. `version` is the batch's as it was shown: of two who hand it over at once, one is told of the
    other. Raises Http404, MissingRight, Invalid (`to`, `note`), Conflict.
    """
    batch = get(access, Batch.objects.select_related("run__team"), batch_id, right=Right.DECIDE)
    note = _checked(note)
    with transaction.atomic():
        run = Run.objects.select_for_update(of=("self",), no_key=True).select_related("agent_version")
        batch.run = run.get(id=batch.run_id)
        batch.refresh_from_db(fields=["status", "version", "expires_at"])
        person = candidates(access).filter(username=to).first()
        if person is None:
            raise Invalid({"to": "Choose somebody of the team who may decide."})
        _must_be_open(batch, version)
        asked = list(batch.asked.all())
        staying = [other for other in asked if other != access.user] if access.user in asked else []
        _must_make_sense(access, batch, person, asked, [*staying, person])
        batch.asked.set([*staying, person])
        Batch.objects.filter(id=batch.id).update(version=F("version") + 1)
        handed = HandOver.objects.create(
            batch=batch, by=access.user, to=person, note=note, version=batch.version + 1, at=timezone.now()
        )
        _record(access, handed)
        if person != access.user:
            notices.queue(batch, NoticeKind.HANDED, users={person.id})
        transaction.on_commit(lambda: live.ring_inbox(access.team.id), robust=True)
    return handed


def _checked(note: str) -> str:
    note = note.strip()
    if len(note) > NOTE_LENGTH:
        raise Invalid({"note": f"A note has at most {NOTE_LENGTH:,} characters; this one has {len(note):,}."})
    if "\0" in note:
        raise Invalid({"note": "A note can't contain the character NUL."})
    return note


def _must_be_open(batch: Batch, version: int | None) -> None:
    if batch.status != "open":
        raise Conflict("This batch is no longer open.", status="decided")
    if batch.expires_at <= timezone.now():
        raise Conflict("The time to decide is over.", status="expired")
    if version is None:
        return
    newer = HandOver.objects.filter(batch=batch, version__gt=version).select_related("by", "to").last()
    if newer is not None:
        raise Conflict(f"{newer.by.label} handed this to {newer.to.label} meanwhile.", status="pending")


def _must_make_sense(access: Access, batch: Batch, person: User, before: list[User], after: list[User]) -> None:
    if {each.id for each in before} == {each.id for each in after}:
        raise Invalid({"to": f"{person.label} is asked already, and nobody else."})
    if not _can_act(access, batch, person):
        raise Invalid({"to": f"{person.label} can't decide on anything that is left in this batch."})


def _can_act(access: Access, batch: Batch, person: User) -> bool:
    """Whether something waits here that this person has not approved already and is not barred from."""
    theirs = access_for_user(person, access.team.slug)
    own = Count("decisions", Q(decisions__verdict=Verdict.APPROVE, decisions__actor=person))
    waiting = Action.objects.filter(batch=batch, status__in=list(WAITING_ACTIONS)).annotate(own=own)
    return any(
        action.status != ActionStatus.PENDING or not (action.own or duties.bar(theirs, batch.run, action))
        for action in waiting
    )


def _record(access: Access, handed: HandOver) -> None:
    receipts.append(
        access.team.id,
        "batch.handed_over",
        actor=access.user,
        subject_type="batch",
        subject_id=handed.batch_id,
        payload={
            "run": str(handed.batch.run_id),
            "batch": str(handed.batch_id),
            "to": str(handed.to_id),
            "to_label": handed.to.label,
            "asked": [str(person.id) for person in handed.batch.asked.order_by("id")],
            "note": handed.note,
            "version": handed.version,
        },
    )
