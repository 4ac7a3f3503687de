"""Standing grants with their uses, and what is looked at later. Imported by `approvals.models`."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import F, Q

from accounts.ids import new_id
from accounts.models import Team
from runs.models import Action, Agent, Run


class StandingGrant(models.Model):
    """A decision for a few more calls like one that was approved: `approvals.grants` says which. `matchers` is a list
    of `schemas.MatcherIn`. `value_*` limit the sum of one numeric argument over all uses."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    team = models.ForeignKey(Team, on_delete=models.CASCADE, related_name="+")
    agent = models.ForeignKey(Agent, on_delete=models.CASCADE, related_name="+")
    tool = models.CharField(max_length=120)
    tool_version = models.CharField(max_length=80)
    matchers = models.JSONField()
    max_risk = models.CharField(max_length=12)
    uses_most = models.PositiveIntegerField()
    uses_left = models.PositiveIntegerField()
    value_argument = models.CharField(max_length=200, blank=True)
    value_most = models.DecimalField(max_digits=18, decimal_places=6, null=True)
    value_left = models.DecimalField(max_digits=18, decimal_places=6, null=True)
    born_of = models.ForeignKey(Action, on_delete=models.SET_NULL, null=True, related_name="+")
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField()
    revoked_at = models.DateTimeField(null=True)
    revoked_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, related_name="+")

    class Meta:
        constraints = [
            models.CheckConstraint(condition=Q(uses_left__lte=F("uses_most")), name="no_more_uses_than_given"),
            models.CheckConstraint(
                condition=Q(value_left__isnull=True) | Q(value_left__gte=0), name="value_not_negative"
            ),
        ]
        indexes = [models.Index(fields=["agent", "tool", "expires_at"], name="grant_standing")]

    def __str__(self) -> str:
        return f"{self.tool} {self.uses_left}/{self.uses_most}"


class GrantUse(models.Model):
    """One use of a grant, taken for one call of one run; `action` once that exists. Never changed otherwise."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    grant = models.ForeignKey(StandingGrant, on_delete=models.CASCADE, related_name="uses")
    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="+")
    intent = models.CharField(max_length=120)
    value = models.DecimalField(max_digits=18, decimal_places=6)
    action = models.OneToOneField(Action, on_delete=models.SET_NULL, null=True, related_name="grant_use")
    at = models.DateTimeField()

    team_path = "grant__team_id"

    class Meta:
        constraints = [models.UniqueConstraint(fields=["run", "intent"], name="one_grant_use_per_call")]

    def __str__(self) -> str:
        return f"{self.grant_id} {self.intent}"


class LaterLook(models.Model):
    """An action that ran alone and was drawn to be looked at afterwards. `verdict` is "" until a person did."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    action = models.OneToOneField(Action, on_delete=models.CASCADE, related_name="later_look")
    verdict = models.CharField(max_length=12, blank=True, choices=[("agree", "agree"), ("overturn", "overturn")])
    note = models.TextField(blank=True)
    reviewed_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, related_name="+")
    reviewed_at = models.DateTimeField(null=True)
    created_at = models.DateTimeField(auto_now_add=True)

    team_path = "action__run__team_id"

    class Meta:
        indexes = [models.Index(fields=["verdict", "created_at"], name="later_look_open")]

    def __str__(self) -> str:
        return f"{self.action_id} {self.verdict}"
