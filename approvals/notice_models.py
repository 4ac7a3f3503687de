"""Where people are told that something waits for them, and each single telling. Nothing here can decide anything."""

from __future__ import annotations

from enum import StrEnum

from django.conf import settings
from django.db import models
from django.db.models import Q

from accounts.ids import new_id
from accounts.models import Team
from runs.models import Batch


class ChannelKind(StrEnum):
    EMAIL = "email"
    SLACK = "slack"
    WEBHOOK = "webhook"
    BROWSER = "browser"


CHANNEL_WORDS = {
    ChannelKind.EMAIL: "E-mail",
    ChannelKind.SLACK: "Slack-compatible webhook",
    ChannelKind.WEBHOOK: "Signed webhook",
    ChannelKind.BROWSER: "Browser, while agentsite is open",
}


DIGESTS = [(0, "At once"), (15, "Every 15 minutes"), (60, "Every hour"), (240, "Every 4 hours"), (1440, "Once a day")]


class NoticeKind(StrEnum):
    """`second`: one person approved, and another one is needed. `handed`: somebody put the batch before this very
    person."""

    WAITING = "waiting"
    SECOND = "second"
    REMINDER = "reminder"
    HANDED = "handed"
    TEST = "test"


LEADS = {
    NoticeKind.SECOND.value: "One person approved, a second one is needed: ",
    NoticeKind.REMINDER.value: "Reminder: ",
    NoticeKind.HANDED.value: "Handed to you: ",
}
"""What stands before a batch's title in a message."""


class NoticeState(StrEnum):
    """`dropped`: there was nothing left to tell, for it was decided."""

    QUEUED = "queued"
    SENDING = "sending"
    SENT = "sent"
    DROPPED = "dropped"
    FAILED = "failed"


class Channel(models.Model):
    """Of a person in a team, or with `user` null of the team itself. `target` and `secret` are encrypted."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    team = models.ForeignKey(Team, on_delete=models.CASCADE, related_name="channels")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, null=True, related_name="channels")
    kind = models.CharField(max_length=8, choices=[(kind.value, words) for kind, words in CHANNEL_WORDS.items()])
    target = models.BinaryField(default=b"")  # an address or a URL; empty for a person's own e-mail, and the browser
    secret = models.BinaryField(default=b"")  # signs webhooks
    label = models.CharField(max_length=200, blank=True)  # what of the target may be shown
    origin = models.CharField(max_length=200)  # of this site, as its owner reaches it: links begin with it
    digest_minutes = models.PositiveIntegerField(default=0, choices=DIGESTS)
    quiet_from = models.TimeField(null=True)
    quiet_to = models.TimeField(null=True)
    time_zone = models.CharField(max_length=64, default="UTC")
    only_severe = models.BooleanField(default=False)  # batches with an action of high or critical risk
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["created_at", "id"]

    def __str__(self) -> str:
        return f"{self.kind} {self.label}"


class Notice(models.Model):
    """One telling on one channel. The row is claimed by a conditional UPDATE before anything is sent."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    channel = models.ForeignKey(Channel, on_delete=models.CASCADE, related_name="notices")
    batch = models.ForeignKey(Batch, on_delete=models.CASCADE, null=True, related_name="notices")
    kind = models.CharField(max_length=12, choices=[(kind.value, kind.value) for kind in NoticeKind])
    state = models.CharField(
        max_length=8, default=NoticeState.QUEUED, choices=[(each.value, each.value) for each in NoticeState]
    )
    due_at = models.DateTimeField()
    attempts = models.PositiveSmallIntegerField(default=0)
    claimed_by = models.CharField(max_length=40, blank=True)
    claimed_at = models.DateTimeField(null=True)
    ended_at = models.DateTimeField(null=True)
    error = models.CharField(max_length=300, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    team_path = "channel__team_id"

    class Meta:
        ordering = ["-created_at", "-id"]
        constraints = [
            models.UniqueConstraint(
                fields=["channel", "batch", "kind"],
                condition=Q(batch__isnull=False) & ~Q(kind="handed"),  # a batch may come back to a person
                name="told_once_per_channel",
            )
        ]
        indexes = [models.Index(fields=["due_at"], condition=Q(state="queued"), name="notice_due")]

    def __str__(self) -> str:
        return f"{self.kind} {self.state}"
