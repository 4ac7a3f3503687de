"""What the reading side keeps beside the journal: summaries that can be made again from it."""

from __future__ import annotations

from django.db import models

from accounts.models import Team


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
