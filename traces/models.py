"""What the reading side keeps beside the journal: summaries that can be made again from it."""

from __future__ import annotations

from django.conf import settings
from django.db import models

from accounts.ids import new_id
from accounts.models import Team, User
from runs.models import Run


class Rollup(models.Model):
    """How far a team's costs are summed up: every hour before `rolled_to` that no StaleHour names. Hours before
    `kept_from` outlive their steps, which were pruned, and are never made again. `worker` has it `until` then."""

    team = models.OneToOneField(Team, on_delete=models.CASCADE, primary_key=True, related_name="rollup")
    rolled_to = models.DateTimeField()
    kept_from = models.DateTimeField(null=True)
    worker = models.CharField(max_length=40, blank=True)
    until = models.DateTimeField(null=True)

    def __str__(self) -> str:
        return f"{self.team_id} {self.rolled_to:%Y-%m-%dT%H}"


class Usage(models.Model):
    """Costs and tokens of the steps that began in an hour or a day, and the runs created in it, under one key.

    `by` says what `key` is: task_type, agent, model, user (an id), tool, nothing (all of the team), or agent+task_type
    with the task type in `sub`. Money is in billionths of a dollar. `costs` is a `traces.distribution.Distribution`.
    """

    HOUR, DAY = "h", "d"

    team = models.ForeignKey(Team, on_delete=models.CASCADE, related_name="+")
    grain = models.CharField(max_length=1)
    start = models.DateTimeField()
    by = models.CharField(max_length=16)
    key = models.CharField(max_length=120)
    sub = models.CharField(max_length=80, blank=True)
    runs = models.PositiveIntegerField(default=0)
    simulated_runs = models.PositiveIntegerField(default=0)
    steps = models.PositiveIntegerField(default=0)
    calls = models.PositiveIntegerField(default=0)
    unpriced_steps = models.PositiveIntegerField(default=0)
    input_tokens = models.PositiveBigIntegerField(default=0)
    output_tokens = models.PositiveBigIntegerField(default=0)
    cache_read_tokens = models.PositiveBigIntegerField(default=0)
    cache_write_5m_tokens = models.PositiveBigIntegerField(default=0)
    cache_write_1h_tokens = models.PositiveBigIntegerField(default=0)
    cost = models.BigIntegerField(default=0)
    saved_by_reads = models.BigIntegerField(default=0)
    paid_for_writes = models.BigIntegerField(default=0)
    lost_to_expiry = models.BigIntegerField(default=0)
    unknown_savings = models.PositiveIntegerField(default=0)  # steps that used the cache of a model without a price
    costs = models.BinaryField(default=b"")

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["team", "grain", "by", "start", "key", "sub"], name="usage_once_per_hour_and_key"
            )
        ]

    def __str__(self) -> str:
        return f"{self.start:%Y-%m-%dT%H} {self.by} {self.key}"


class Measure(models.TextChoices):
    RUN = "run", "one run"
    DAY = "day", "a day"
    WEEK = "week", "a week"
    MONTH = "month", "a month"


class Alert(models.Model):
    """A threshold. `query` narrows it to the runs of a search; `per` watches each agent or each person by itself.
    Exactly one of `limit_usd` and `budget_share` (of the team's month) is set. `webhook` is encrypted."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    team = models.ForeignKey(Team, on_delete=models.CASCADE, related_name="cost_alerts")
    name = models.CharField(max_length=120)
    measure = models.CharField(max_length=8, choices=Measure.choices)
    per = models.CharField(max_length=8, blank=True, choices=[("agent", "each agent"), ("user", "each person")])
    query = models.CharField(max_length=500, blank=True)
    limit_usd = models.DecimalField(max_digits=18, decimal_places=9, null=True)
    budget_share = models.DecimalField(max_digits=5, decimal_places=2, null=True)
    email = models.CharField(max_length=254, blank=True)
    webhook = models.BinaryField(default=b"")
    webhook_host = models.CharField(max_length=200, blank=True)
    secret = models.BinaryField(default=b"")  # signs the webhook; encrypted, empty in alerts of before
    origin = models.CharField(max_length=200)  # of this site, as its maker reaches it: links begin with it
    snoozed_until = models.DateTimeField(null=True)
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["created_at", "id"]
        constraints = [
            models.CheckConstraint(
                condition=models.Q(limit_usd__isnull=True, budget_share__isnull=False)
                | models.Q(limit_usd__isnull=False, budget_share__isnull=True),
                name="alert_has_one_limit",
            )
        ]

    def __str__(self) -> str:
        return self.name


class AlertEvent(models.Model):
    """A threshold that was passed: by what (a run, an agent's slug, a person's id, or nothing) and in which stretch of
    time. Once each, so that nobody is told twice. `told_at` is when all ways out had it; `due_at` the next try."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    alert = models.ForeignKey(Alert, on_delete=models.CASCADE, related_name="events")
    subject = models.CharField(max_length=80, blank=True)
    label = models.CharField(max_length=200, blank=True)
    window = models.DateTimeField()
    value_usd = models.DecimalField(max_digits=18, decimal_places=9)
    limit_usd = models.DecimalField(max_digits=18, decimal_places=9)
    fired_at = models.DateTimeField()
    resolved_at = models.DateTimeField(null=True)
    due_at = models.DateTimeField(null=True)  # null: nobody is to be told (any more)
    mailed_at = models.DateTimeField(null=True)
    posted_at = models.DateTimeField(null=True)
    told_at = models.DateTimeField(null=True)
    attempts = models.PositiveSmallIntegerField(default=0)
    error = models.CharField(max_length=300, blank=True)

    team_path = "alert__team_id"

    class Meta:
        ordering = ["-fired_at", "-id"]
        constraints = [
            models.UniqueConstraint(fields=["alert", "subject", "window"], name="alert_fires_once_per_window")
        ]
        indexes = [models.Index(fields=["due_at"], condition=models.Q(due_at__isnull=False), name="alert_event_due")]

    def __str__(self) -> str:
        return f"{self.alert_id} {self.subject}"


class SavedSearch(models.Model):
    """A query under a name: its owner's own, or with `shared` the whole team's."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    team = models.ForeignKey(Team, on_delete=models.CASCADE, related_name="saved_searches")
    owner = models.ForeignKey(User, on_delete=models.CASCADE, related_name="saved_searches")
    name = models.CharField(max_length=80)
    query = models.CharField(max_length=2_000)
    shared = models.BooleanField(default=False)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["team", "owner", "name"], name="saved_once_per_name")]

    def __str__(self) -> str:
        return self.name


class Share(models.Model):
    """A link to one trace, for signed-in members of its team. The token exists only in the link."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    team = models.ForeignKey(Team, on_delete=models.CASCADE, related_name="+")
    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="shares")
    digest = models.CharField(max_length=64, unique=True)
    created_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField()
    revoked_at = models.DateTimeField(null=True)
    opened_at = models.DateTimeField(null=True)  # the last time, to a minute

    def __str__(self) -> str:
        return f"{self.run_id} until {self.expires_at:%Y-%m-%d}"


class SpanExport(models.Model):
    """Whether an ended run was sent to the collector. `due_at` is the next try; null when it is done or given up."""

    run = models.OneToOneField(Run, on_delete=models.CASCADE, related_name="span_export")
    due_at = models.DateTimeField(null=True)
    sent_at = models.DateTimeField(null=True)
    attempts = models.PositiveSmallIntegerField(default=0)

    class Meta:
        indexes = [models.Index(fields=["due_at"], condition=models.Q(due_at__isnull=False), name="span_export_due")]

    def __str__(self) -> str:
        return str(self.run_id)
