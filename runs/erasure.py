"""A person's data: found, and erased. Actions, decisions and receipts stay as they are: the audit log proves them, and
names of people stand there as evidence of who decided. Everything else that says who they are or what they wrote goes.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from allauth.account.models import EmailAddress
from django.db import transaction
from django.db.models import Q

from accounts import receipts
from accounts.models import ApiToken, Membership, Receipt, SignInLink, User
from runs.asked import MetaNumber, Note, RunMessage
from runs.models import Run, SearchDocument, Step, StepPayload

ERASED = "[erased]"


class NotYet(Exception):
    """The text says what has to be done first."""


@dataclass(frozen=True, slots=True)
class Found:
    """What is there of a person. `receipts` are kept."""

    runs: int
    live_runs: int
    messages: int
    notes: int
    tokens: int
    memberships: int
    receipts: int


def find(user: User) -> Found:
    runs = Run.objects.filter(owner=user)
    return Found(
        runs=runs.count(),
        live_runs=runs.filter(ended_at__isnull=True).count(),
        messages=RunMessage.objects.filter(sender=user).count(),
        notes=Note.objects.filter(author=user).count(),
        tokens=ApiToken.objects.filter(user=user).count(),
        memberships=Membership.objects.filter(user=user).count(),
        receipts=Receipt.objects.filter(actor=user).count(),
    )


def erase(user: User, *, by: User | str) -> Found:
    """In one transaction: all of it, or nothing. What it cost stays, under nobody's name. Raises NotYet."""
    found = find(user)
    if found.live_runs:
        raise NotYet(f"{found.live_runs} of their runs have not ended: cancel them, or wait.")
    with transaction.atomic():
        teams = {*Run.objects.filter(owner=user).values_list("team_id", flat=True)}
        teams |= {*Membership.objects.filter(user=user).values_list("team_id", flat=True)}
        _erase_texts(user)
        _erase_account(user)
        for team_id in sorted(teams):
            _receipt(team_id, user, by, found)
    return found


def _erase_texts(user: User) -> None:
    runs = Run.objects.filter(owner=user)
    steps = Step.objects.filter(run__in=runs)
    SearchDocument.objects.filter(run__in=runs).delete()
    MetaNumber.objects.filter(run__in=runs).delete()
    StepPayload.objects.filter(step__in=steps).update(input=None, output=None, reasoning="", error="", sealed=None)
    steps.update(title=ERASED, summary="")
    runs.update(task=ERASED, result="", stop_detail="", plan=None, metadata={}, sealed=None)
    RunMessage.objects.filter(sender=user).update(text=ERASED, sealed=None)
    Note.objects.filter(Q(author=user) | Q(run__in=runs)).exclude(text="").update(text=ERASED, words="")
    told = Step.objects.filter(kind="message", key__in=[f"message:{each}" for each in _message_ids(user)])
    StepPayload.objects.filter(step__in=told).update(input=None, output=None, sealed=None)
    told.update(title=ERASED, summary="")


def _message_ids(user: User) -> list[uuid.UUID]:
    return list(RunMessage.objects.filter(sender=user).values_list("id", flat=True))


def _erase_account(user: User) -> None:
    ApiToken.objects.filter(user=user).delete()
    SignInLink.objects.filter(user=user).delete()
    EmailAddress.objects.filter(user=user).delete()
    Membership.objects.filter(user=user).delete()
    user.username = f"erased-{user.id.hex[-12:]}"
    user.first_name = user.last_name = user.email = ""
    user.is_active = False
    user.set_unusable_password()
    user.save()


def _receipt(team_id: uuid.UUID, user: User, by: User | str, found: Found) -> None:
    receipts.append(
        team_id,
        "person.erased",
        actor=by,
        subject_type="user",
        subject_id=user.id,
        payload={"runs": found.runs, "messages": found.messages, "tokens": found.tokens},
    )
