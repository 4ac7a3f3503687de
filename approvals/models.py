"""What people said of actions. A decision is a fact of the past: it is added, never changed and never taken away."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, NoReturn

from django.conf import settings
from django.db import models
from django.db.models import Q

from accounts.ids import new_id
from approvals.grant_models import GrantUse, LaterLook, StandingGrant
from approvals.notice_models import Channel, Notice
from runs.models import Action, Batch

__all__ = [
    "GRANT_CHANNEL",
    "Channel",
    "Decision",
    "GrantUse",
    "HandOver",
    "LaterLook",
    "Notice",
    "Reason",
    "StandingGrant",
    "Verdict",
    "Viewing",
]

GRANT_CHANNEL = "grant"
"""Of a decision that a standing grant made in its giver's name: not a person's word on this very action."""


class Verdict(StrEnum):
    APPROVE = "approve"
    REJECT = "reject"
    ANSWER = "answer"
    EDIT = "edit"
    REVOKE = "revoke"
    HAPPENED = "happened"
    DID_NOT_HAPPEN = "did_not_happen"


class Reason(StrEnum):
    """Why a person said no, from a short list, so that it can be counted. The words are in `REASON_WORDS`."""

    UNTRUE = "untrue"
    TONE = "tone"
    NOT_NEEDED = "not_needed"
    OTHER = "other"


REASON_WORDS = {
    Reason.UNTRUE: "Says something that is not true",
    Reason.TONE: "Wrong tone",
    Reason.NOT_NEEDED: "Not needed",
    Reason.OTHER: "Something else",
}


class Viewing(models.Model):
    """The first time a person saw a batch in one of its versions, while it was open."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    batch = models.ForeignKey(Batch, on_delete=models.CASCADE, related_name="viewings")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+")
    version = models.PositiveIntegerField()
    at = models.DateTimeField()

    team_path = "batch__run__team_id"

    class Meta:
        ordering = ["at", "id"]
        constraints = [models.UniqueConstraint(fields=["batch", "user", "version"], name="first_view_once_per_version")]

    def __str__(self) -> str:
        return f"{self.user_id} {self.batch_id}"


class HandOver(models.Model):
    """That a batch was put before somebody else. `version` is the batch's from then on."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    batch = models.ForeignKey(Batch, on_delete=models.CASCADE, related_name="hand_overs")
    by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+")
    to = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+")
    note = models.TextField(blank=True)
    version = models.PositiveIntegerField()
    at = models.DateTimeField()

    team_path = "batch__run__team_id"

    class Meta:
        ordering = ["at", "id"]
        constraints = [models.UniqueConstraint(fields=["batch", "version"], name="handed_over_once_per_version")]

    def __str__(self) -> str:
        return f"{self.batch_id} to {self.to_id}"


class AppendOnly(models.QuerySet["Decision"]):
    """Rows go when their run is pruned, by the cascade; nothing else takes them away."""

    def update(self, **kwargs: Any) -> NoReturn:
        raise TypeError("a decision is never changed")

    def delete(self) -> NoReturn:
        raise TypeError("a decision is never deleted by itself")


class Decision(models.Model):
    """One person's word on one action, with the digest of what that person was shown.

    A vote is not a release: an action that needs two people has two approvals before `Action.status` moves.
    """

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    action = models.ForeignKey(Action, on_delete=models.CASCADE, related_name="decisions")
    actor = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+")
    verdict = models.CharField(max_length=16, choices=[(verdict.value, verdict.value) for verdict in Verdict])
    reason = models.CharField(
        max_length=16, blank=True, choices=[(reason.value, words) for reason, words in REASON_WORDS.items()]
    )
    note = models.TextField(blank=True)
    shown_digest = models.CharField(max_length=64)
    shown_version = models.PositiveIntegerField()
    channel = models.CharField(max_length=8)  # web | api | grant
    # How the person worked, for `measures`. Null: not known, as for decisions over the API.
    viewed_at = models.DateTimeField(null=True)
    opened_details = models.BooleanField(null=True)
    decided_together = models.PositiveIntegerField(default=1)  # actions in the same request
    at = models.DateTimeField()

    team_path = "action__run__team_id"

    objects = AppendOnly.as_manager()

    class Meta:
        ordering = ["at", "id"]
        constraints = [
            models.UniqueConstraint(
                fields=["action", "actor"], condition=Q(verdict="approve"), name="one_approval_per_person_and_action"
            ),
            models.UniqueConstraint(
                fields=["action"], condition=Q(verdict__in=["reject", "answer", "edit"]), name="one_ending_per_action"
            ),
            models.UniqueConstraint(
                fields=["action"],
                condition=Q(verdict__in=["happened", "did_not_happen"]),
                name="one_settlement_per_action",
            ),
        ]
        indexes = [models.Index(fields=["-at"], name="decision_newest")]

    def __str__(self) -> str:
        return f"{self.verdict} {self.action_id}"

    def save(self, *args: Any, **kwargs: Any) -> None:
        if not self._state.adding:
            raise TypeError("a decision is never changed")
        super().save(*args, **kwargs)

    def delete(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise TypeError("a decision is never deleted by itself")


class Shown(models.Model):
    """That the whole payload of an action was put before a person, as it was then: what its digest names."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    action = models.ForeignKey(Action, on_delete=models.CASCADE, related_name="shown")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+")
    digest = models.CharField(max_length=64)
    at = models.DateTimeField(auto_now_add=True)

    team_path = "action__run__team_id"

    class Meta:
        constraints = [models.UniqueConstraint(fields=["action", "user", "digest"], name="shown_once")]

    def __str__(self) -> str:
        return f"{self.action_id} to {self.user_id}"
