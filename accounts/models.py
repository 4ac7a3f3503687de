"""People, teams, and what proves who did what. JSON columns have their types in `schemas.py`."""

from __future__ import annotations

from django.contrib.auth.models import AbstractUser
from django.db import models
from django.db.models import Q
from django.db.models.functions import Lower

from accounts.ids import new_id
from accounts.schemas import Role, Separation


class User(AbstractUser):
    """A person. Never deleted, only made inactive: receipts and runs name them."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    shortcuts = models.BooleanField(default=True)  # single-key shortcuts; WCAG 2.1.4 wants them to be switched off

    class Meta:
        constraints = [
            models.UniqueConstraint(Lower("username"), name="username_once_whatever_its_case"),
            models.UniqueConstraint(Lower("email"), condition=~Q(email=""), name="email_once_whatever_its_case"),
        ]

    @property
    def label(self) -> str:
        return self.get_full_name() or self.username

    @property
    def initials(self) -> str:
        words = self.label.split()
        return ("".join(word[0] for word in (words[0], words[-1])) if len(words) > 1 else self.label[:2]).upper()


class Team(models.Model):
    """Owns every other row. `receipts_*` is the end of its receipt chain, so that a cut-off end is seen."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    slug = models.SlugField(max_length=40, unique=True)
    name = models.CharField(max_length=80)
    separation = models.CharField(
        max_length=4, default=Separation.AUTO, choices=[(each.value, each.value) for each in Separation]
    )
    content_filters = models.JSONField(default=dict, blank=True)  # `runs.schemas.FiltersIn`; empty: the defaults
    month_budget_usd = models.DecimalField(max_digits=18, decimal_places=9, null=True, blank=True)
    retention_days = models.PositiveIntegerField(null=True, blank=True)  # null: runs are kept for ever
    receipts_seq = models.PositiveBigIntegerField(default=0)
    receipts_hash = models.CharField(max_length=64, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    team_path = "id"

    def __str__(self) -> str:
        return self.name


class Membership(models.Model):
    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    team = models.ForeignKey(Team, on_delete=models.CASCADE, related_name="memberships")
    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="memberships")
    role = models.CharField(max_length=12, choices=[(role.value, role.value) for role in Role])
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["team", "user"], name="member_once_per_team")]

    def __str__(self) -> str:
        return f"{self.user_id} {self.role}"


class ApiToken(models.Model):
    """The raw token is shown once and never stored; `prefix` is its beginning, for people to tell tokens apart."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    team = models.ForeignKey(Team, on_delete=models.CASCADE, related_name="tokens")
    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="tokens")
    name = models.CharField(max_length=80)
    digest = models.CharField(max_length=64, unique=True)
    prefix = models.CharField(max_length=16)
    scopes = models.JSONField(default=list)
    created_at = models.DateTimeField(auto_now_add=True)
    last_used_at = models.DateTimeField(null=True)
    expires_at = models.DateTimeField(null=True)
    revoked_at = models.DateTimeField(null=True)

    def __str__(self) -> str:
        return f"{self.prefix}… {self.name}"


class SignInLink(models.Model):
    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    digest = models.CharField(max_length=64, unique=True)
    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField()
    used_at = models.DateTimeField(null=True)

    def __str__(self) -> str:
        return str(self.user_id)


class Receipt(models.Model):
    """One line of the audit log of a team. Written by `receipts.append` only, never changed."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    team = models.ForeignKey(Team, on_delete=models.CASCADE, related_name="receipts")
    seq = models.PositiveBigIntegerField()
    kind = models.CharField(max_length=40)
    actor_label = models.CharField(max_length=200)
    actor = models.ForeignKey(User, on_delete=models.PROTECT, null=True, related_name="+")
    subject_type = models.CharField(max_length=40)
    subject_id = models.CharField(max_length=120)
    at = models.DateTimeField()
    payload = models.JSONField(default=dict)
    prev_hash = models.CharField(max_length=64, blank=True)
    hash = models.CharField(max_length=64)

    class Meta:
        ordering = ["team", "seq"]
        constraints = [models.UniqueConstraint(fields=["team", "seq"], name="receipt_seq_once_per_team")]
        indexes = [models.Index(fields=["team", "subject_type", "subject_id"], name="receipt_by_subject")]

    def __str__(self) -> str:
        return f"{self.seq} {self.kind}"


class IdempotentRequest(models.Model):
    """A POST that was sent with an Idempotency-Key. `status_code` is null while it is being worked on."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    team = models.ForeignKey(Team, on_delete=models.CASCADE, related_name="+")
    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="+")
    key = models.CharField(max_length=255)
    route = models.CharField(max_length=200)
    body_digest = models.CharField(max_length=64)
    status_code = models.PositiveSmallIntegerField(null=True)
    response = models.JSONField(null=True)
    created_at = models.DateTimeField(auto_now_add=True)
    claimed_at = models.DateTimeField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["team", "user", "key"], name="idempotency_key_once_per_user")]
        indexes = [models.Index(fields=["created_at"], name="idempotent_request_oldest")]

    def __str__(self) -> str:
        return self.key
