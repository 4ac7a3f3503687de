"""The journal and what stands round it. Status columns are written by `lifecycle.py` alone.

What is filtered or summed is a column; JSON columns are shown, never queried, and have a type in `schemas.py`.
"""

from __future__ import annotations

import re
from decimal import Decimal
from enum import StrEnum

from django.conf import settings
from django.db import models
from django.db.models import Q

from accounts.ids import new_id
from accounts.models import Team
from runs.asked import Chosen, MetaNumber, Note, Rung, RunMessage  # noqa: F401  (Django finds an app's models here)
from runs.engine.breakers import State
from runs.engine.types import ActionStatus, Execution, Mode, Risk, RunStatus, StepKind, StepStatus, StopReason

TITLE_LENGTH = 72


def choices(values: type[StrEnum]) -> list[tuple[str, str]]:
    return [(value.value, value.value.replace("_", " ")) for value in values]


class UsdField(models.DecimalField):  # type: ignore[type-arg]  # not subscriptable at run time
    """US dollars to a billionth, so that a sum of token prices is exact."""

    def __init__(self, **kwargs: object) -> None:
        super().__init__(**{"max_digits": 18, "decimal_places": 9, **kwargs})  # type: ignore[arg-type]


class Agent(models.Model):
    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    team = models.ForeignKey(Team, on_delete=models.CASCADE, related_name="agents")
    slug = models.SlugField(max_length=80)
    current = models.ForeignKey("AgentVersion", on_delete=models.PROTECT, null=True, related_name="+")
    sample_task = models.TextField(blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["team", "slug"], name="agent_slug_once_per_team")]

    def __str__(self) -> str:
        return self.slug


class AgentVersion(models.Model):
    """A definition is never changed: editing an agent adds a version. `definition` is `schemas.AgentIn`."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    agent = models.ForeignKey(Agent, on_delete=models.CASCADE, related_name="versions")
    number = models.PositiveIntegerField()
    definition = models.JSONField()
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)

    team_path = "agent__team_id"

    class Meta:
        constraints = [models.UniqueConstraint(fields=["agent", "number"], name="version_number_once_per_agent")]

    def __str__(self) -> str:
        return f"v{self.number}"


class AgentDraft(models.Model):
    """What an admin is changing and nobody runs yet. `base` is the version it was begun from; `definition` as there."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    agent = models.OneToOneField(Agent, on_delete=models.CASCADE, related_name="draft")
    base = models.ForeignKey(AgentVersion, on_delete=models.CASCADE, related_name="+")
    definition = models.JSONField()
    revision = models.PositiveIntegerField(default=1)
    updated_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, related_name="+")
    updated_at = models.DateTimeField()

    team_path = "agent__team_id"

    def __str__(self) -> str:
        return f"{self.agent_id} r{self.revision}"


class ToolServer(models.Model):
    """An MCP server. `config` is an encrypted `schemas.ServerConfig`; `tools` is a list of `schemas.FoundTool`."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    team = models.ForeignKey(Team, on_delete=models.CASCADE, related_name="tool_servers")
    slug = models.SlugField(max_length=40)
    transport = models.CharField(max_length=8)
    config = models.BinaryField()
    tools = models.JSONField(default=list)
    checked_at = models.DateTimeField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["team", "slug"], name="tool_server_slug_once_per_team")]

    def __str__(self) -> str:
        return self.slug


class Run(models.Model):
    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    team = models.ForeignKey(Team, on_delete=models.CASCADE, related_name="runs")
    number = models.PositiveIntegerField()
    agent = models.ForeignKey(Agent, on_delete=models.PROTECT, related_name="runs")
    agent_version = models.ForeignKey(AgentVersion, on_delete=models.PROTECT, related_name="runs")
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="runs")
    parent = models.ForeignKey("self", on_delete=models.CASCADE, null=True, related_name="children")
    parent_intent = models.CharField(max_length=120, blank=True)  # the call of the parent that this run answers
    forked_from = models.ForeignKey("self", on_delete=models.SET_NULL, null=True, related_name="forks")
    forked_seq = models.PositiveIntegerField(default=0)  # steps up to here were replayed from that run
    model = models.CharField(max_length=120, blank=True)  # in place of the agent's, for this run alone
    task = models.TextField()
    sealed = models.BinaryField(null=True)  # the task before content filters, encrypted, where they took something out
    task_type = models.CharField(max_length=80, blank=True)
    mode = models.CharField(max_length=12, choices=choices(Mode))
    simulated = models.BooleanField(default=False)
    metadata = models.JSONField(default=dict)

    status = models.CharField(max_length=16, choices=choices(RunStatus), default=RunStatus.QUEUED)
    stop_reason = models.CharField(max_length=24, choices=choices(StopReason), null=True)
    stop_detail = models.TextField(blank=True)
    result = models.TextField(blank=True)
    plan = models.JSONField(null=True)

    max_steps = models.PositiveIntegerField(null=True)
    max_input_tokens = models.PositiveBigIntegerField(null=True)
    max_output_tokens = models.PositiveBigIntegerField(null=True)
    max_cost_usd = UsdField(null=True)
    max_seconds = models.PositiveIntegerField(null=True)

    last_seq = models.PositiveIntegerField(default=0)
    work_steps = models.PositiveIntegerField(default=0)
    model_calls = models.PositiveIntegerField(default=0)
    tool_calls = models.PositiveIntegerField(default=0)
    unpriced_steps = models.PositiveIntegerField(default=0)
    lowest_score = models.FloatField(null=True)
    input_tokens = models.PositiveBigIntegerField(default=0)
    output_tokens = models.PositiveBigIntegerField(default=0)
    cache_read_tokens = models.PositiveBigIntegerField(default=0)
    cache_write_tokens = models.PositiveBigIntegerField(default=0)
    cost_usd = UsdField(default=Decimal(0))
    lost_usd = UsdField(default=Decimal(0))  # of replies that were lost, as far as they came: bounds budgets only
    reserved_usd = UsdField(default=Decimal(0))
    reserved_input_tokens = models.PositiveBigIntegerField(default=0)
    reserved_output_tokens = models.PositiveBigIntegerField(default=0)
    # What no run below may use, so that this one can still answer once they have ended.
    kept_usd = UsdField(default=Decimal(0))
    kept_input_tokens = models.PositiveBigIntegerField(default=0)
    kept_output_tokens = models.PositiveBigIntegerField(default=0)

    created_at = models.DateTimeField(auto_now_add=True)
    started_at = models.DateTimeField(null=True)
    ended_at = models.DateTimeField(null=True)
    waiting_since = models.DateTimeField(null=True)
    wait_ms = models.PositiveBigIntegerField(default=0)

    wish = models.CharField(max_length=8, blank=True)  # "cancel" or "pause": asked for, read by the worker
    paused_with = models.UUIDField(null=True)  # the run above with which it was paused; resumed with that one
    due_at = models.DateTimeField(null=True)  # a queued run is not taken before this time
    rung_at = models.DateTimeField(null=True)
    lease_owner = models.CharField(max_length=120, blank=True)
    lease_until = models.DateTimeField(null=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["team", "number"], name="run_number_once_per_team"),
            models.UniqueConstraint(
                fields=["parent", "parent_intent"], condition=~Q(parent_intent=""), name="child_run_once_per_call"
            ),
            models.CheckConstraint(
                condition=Q(stop_reason__isnull=False)
                | ~Q(status__in=["completed", "stopped", "failed", "cancelled", "dry_run_ready"]),
                name="ended_run_has_a_stop_reason",
            ),
        ]
        indexes = [
            models.Index(fields=["team", "-created_at", "-id"], name="run_newest"),
            # With what a status is most often asked together, so that they are counted without reading the rows.
            models.Index(fields=["team", "status", "-created_at", "-id", "task_type", "agent"], name="run_by_status"),
            models.Index(fields=["team", "agent", "-created_at", "-id"], name="run_by_agent"),
            models.Index(fields=["team", "task_type", "-created_at", "-id"], name="run_by_type"),
            models.Index(fields=["team", "owner", "-created_at", "-id"], name="run_by_owner"),
            models.Index(
                fields=["status", "due_at"],
                name="run_to_sweep",
                condition=Q(status__in=["queued", "running", "waiting"]),
            ),
        ]

    def __str__(self) -> str:
        return f"R-{self.number}"

    @property
    def short_id(self) -> str:
        return f"R-{self.number}"

    @property
    def title(self) -> str:
        """The first sentence of the task, shortened: what people call the run."""
        line = self.task.strip().splitlines()[0] if self.task.strip() else "Untitled"
        sentence = re.split(r"(?<=[.!?])\s", line, maxsplit=1)[0].rstrip(".")
        return sentence if len(sentence) <= TITLE_LENGTH else sentence[: TITLE_LENGTH - 1].rstrip() + "…"

    @property
    def is_ended(self) -> bool:
        return self.status in {"completed", "stopped", "failed", "cancelled", "dry_run_ready"}


class Step(models.Model):
    """Narrow: one row a step, what lists, filters and sums need. The texts are in `StepPayload`."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="steps")
    seq = models.PositiveIntegerField()
    key = models.CharField(max_length=120)
    kind = models.CharField(max_length=12, choices=choices(StepKind))
    status = models.CharField(max_length=12, choices=choices(StepStatus))
    title = models.CharField(max_length=200)
    summary = models.CharField(max_length=300, blank=True)
    tool = models.CharField(max_length=120, blank=True)
    tool_call_id = models.CharField(max_length=120, blank=True)
    confidence = models.FloatField(null=True)
    score = models.FloatField(null=True)
    model = models.CharField(max_length=120, blank=True)
    input_tokens = models.PositiveIntegerField(default=0)
    output_tokens = models.PositiveIntegerField(default=0)
    cache_read_tokens = models.PositiveIntegerField(default=0)
    cache_write_5m_tokens = models.PositiveIntegerField(default=0)
    cache_write_1h_tokens = models.PositiveIntegerField(default=0)
    cache_expired_tokens = models.PositiveIntegerField(default=0)  # of those written: were there until too late
    cost_usd = UsdField(null=True)
    price_id = models.CharField(max_length=120, blank=True)
    price_terms = models.CharField(max_length=40, blank=True)  # `Usage.terms`
    started_at = models.DateTimeField()
    duration_ms = models.PositiveBigIntegerField(default=0)
    attempt = models.PositiveSmallIntegerField(default=1)
    plan_step = models.PositiveSmallIntegerField(null=True)
    child_run = models.ForeignKey(Run, on_delete=models.SET_NULL, null=True, related_name="+")

    team_path = "run__team_id"

    class Meta:
        ordering = ["run", "seq"]
        constraints = [
            models.UniqueConstraint(fields=["run", "seq"], name="step_seq_once_per_run"),
            models.UniqueConstraint(fields=["run", "key"], name="step_key_once_per_run"),
        ]
        indexes = [models.Index(fields=["-started_at", "id"], name="step_newest")]

    def __str__(self) -> str:
        return f"{self.seq} {self.title}"

    @property
    def cache_write_tokens(self) -> int:
        return self.cache_write_5m_tokens + self.cache_write_1h_tokens


class StepPayload(models.Model):
    """Fat: loaded when a step is opened, and when a run resumes. `input` and `output` are any JSON value."""

    step = models.OneToOneField(Step, on_delete=models.CASCADE, primary_key=True, related_name="payload")
    input = models.JSONField(null=True)
    output = models.JSONField(null=True)
    reasoning = models.TextField(blank=True)
    error = models.TextField(blank=True)
    sealed = models.BinaryField(null=True)  # what content filters took out of the texts, encrypted

    team_path = "step__run__team_id"

    def __str__(self) -> str:
        return str(self.step_id)


class SearchDocument(models.Model):
    """What is searched of one step, or with number 0 of what its run was asked: words in the spelling of `words.py`,
    and copies of the columns that a search begins with. Written by `documents.py`. The key rises with time: it is the
    row's number in SQLite's full-text index, whose newest entries are read first."""

    id = models.BigAutoField(primary_key=True)
    team = models.ForeignKey(Team, on_delete=models.CASCADE, related_name="+", db_index=False)
    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="documents", db_index=False)
    step = models.OneToOneField(Step, on_delete=models.CASCADE, null=True, related_name="document")
    seq = models.PositiveIntegerField()
    started_at = models.DateTimeField()
    kind = models.CharField(max_length=12, blank=True)
    status = models.CharField(max_length=12, blank=True)
    tool = models.CharField(max_length=120, blank=True)
    model = models.CharField(max_length=120, blank=True)
    score = models.FloatField(null=True)
    about = models.TextField(blank=True)  # title, summary and tool; of a run its metadata
    error = models.TextField(blank=True)
    reasoning = models.TextField(blank=True)
    output = models.TextField(blank=True)
    input = models.TextField(blank=True)  # of a run its task
    cut = models.BooleanField(default=False)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["run", "seq"], name="document_once_per_step")]
        indexes = [
            models.Index(fields=["team", "tool", "run"], name="document_of_tool"),
            models.Index(fields=["team", "model", "run"], name="document_of_model"),
            models.Index(fields=["team", "status", "run"], name="document_of_status"),
            models.Index(fields=["team", "kind", "run"], name="document_of_kind"),
            models.Index(fields=["team", "run"], name="document_cut", condition=Q(cut=True)),
        ]

    def __str__(self) -> str:
        return f"{self.run_id} {self.seq}"


class Batch(models.Model):
    """What one run asks of people at once. `version` rises with every change that an approver should see."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="batches")
    key = models.CharField(max_length=120)  # names the question within the run, so that asking again asks once
    number = models.PositiveIntegerField()
    intents = models.JSONField(default=list)  # of the actions, in order: an action may move to another batch later
    title = models.CharField(max_length=200)
    why = models.TextField(blank=True)
    status = models.CharField(max_length=12, default="open", choices=[("open", "open"), ("closed", "closed")])
    execution = models.CharField(max_length=16, choices=choices(Execution), default=Execution.INDEPENDENT)
    version = models.PositiveIntegerField(default=1)
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField()
    extended_at = models.DateTimeField(null=True)
    extended_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, related_name="+")
    closed_at = models.DateTimeField(null=True)
    asked = models.ManyToManyField(settings.AUTH_USER_MODEL, related_name="+")  # nobody named: all who may decide

    team_path = "run__team_id"

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["run", "key"], name="batch_asked_once_per_key"),
            models.UniqueConstraint(fields=["run", "number"], name="batch_number_once_per_run"),
        ]
        indexes = [models.Index(fields=["status", "expires_at"], name="batch_open_soonest")]

    def __str__(self) -> str:
        return self.title


class Action(models.Model):
    """An effect that was proposed. Immutable after insert but for status, version, result, note and batch."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="actions")
    batch = models.ForeignKey(Batch, on_delete=models.SET_NULL, null=True, related_name="actions")
    kind = models.CharField(max_length=12, default="action")  # action | question | unknown
    intent = models.CharField(max_length=120)
    tool_call_id = models.CharField(max_length=120)
    position = models.PositiveIntegerField()
    tool = models.CharField(max_length=120)
    tool_version = models.CharField(max_length=80)
    args = models.JSONField()
    digest = models.CharField(max_length=64)
    title = models.CharField(max_length=200)
    reasoning = models.TextField(blank=True)
    confidence = models.FloatField(null=True)
    risk = models.CharField(max_length=12, choices=choices(Risk))
    irreversible = models.BooleanField(default=False)
    idempotent = models.BooleanField(default=False)
    policy_version = models.CharField(max_length=80)
    route_reason = models.CharField(max_length=300)
    needed = models.PositiveSmallIntegerField(default=0)
    held = models.BooleanField(default=False)
    plan_summary = models.CharField(max_length=300, blank=True)
    preview = models.JSONField(null=True)
    preview_type = models.CharField(max_length=12, blank=True)
    amount = models.DecimalField(max_digits=20, decimal_places=6, null=True)  # of money that moves, in `currency`
    currency = models.CharField(max_length=12, blank=True)
    preconditions = models.JSONField(default=dict)
    supersedes = models.OneToOneField("self", on_delete=models.SET_NULL, null=True, related_name="superseded_by")
    status = models.CharField(max_length=12, choices=choices(ActionStatus))
    version = models.PositiveIntegerField(default=1)
    note = models.TextField(blank=True)
    decided_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, related_name="+")
    released_by = models.JSONField(default=list)  # ids of the people whose approvals released it
    result = models.JSONField(null=True)
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField(null=True)
    decided_at = models.DateTimeField(null=True)
    starts_at = models.DateTimeField(null=True)  # an approved action is not begun before; null is at once
    checked_at = models.DateTimeField(null=True)  # of a dry run: when what it was planned on was last looked at
    changed = models.TextField(blank=True)  # and what of it had changed then, in words
    executed_at = models.DateTimeField(null=True)

    team_path = "run__team_id"
    is_edited = False  # set where a whole chain of edits is read

    class Meta:
        ordering = ["run", "position", "created_at"]
        constraints = [
            models.UniqueConstraint(
                fields=["run", "intent"], condition=Q(supersedes__isnull=True), name="first_proposal_once_per_intent"
            ),
        ]
        indexes = [
            models.Index(
                fields=["status", "expires_at"], name="action_waiting", condition=Q(status__in=["pending", "unknown"])
            ),
        ]

    def __str__(self) -> str:
        return self.title


class TeamMonth(models.Model):
    """The running sum of a team with a monthly budget: the row that a reservation is made against."""

    team = models.ForeignKey(Team, on_delete=models.CASCADE, related_name="months")
    month = models.DateField()
    spent_usd = UsdField(default=Decimal(0))
    reserved_usd = UsdField(default=Decimal(0))

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["team", "month"], name="one_row_per_team_and_month"),
            models.CheckConstraint(condition=Q(reserved_usd__gte=0), name="reserved_not_negative"),
        ]

    def __str__(self) -> str:
        return f"{self.team_id} {self.month:%Y-%m}"


class Breaker(models.Model):
    """A circuit breaker of all workers: `engine.breakers.Breaker` under a key. Swapped by version, never just set."""

    key = models.CharField(max_length=240, primary_key=True)
    state = models.CharField(max_length=12, choices=choices(State), default=State.CLOSED)
    failures = models.PositiveIntegerField(default=0)
    opened = models.PositiveIntegerField(default=0)
    until = models.DateTimeField(null=True)
    reason = models.CharField(max_length=300, blank=True)
    version = models.PositiveIntegerField(default=0)
    changed_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return f"{self.key} {self.state}"


class WorkerHeartbeat(models.Model):
    worker = models.CharField(max_length=120, primary_key=True)
    at = models.DateTimeField()

    def __str__(self) -> str:
        return self.worker


class StaleHour(models.Model):
    """An hour of a team whose cost summary a later write has changed. One row each time: writers never wait for one."""

    team = models.ForeignKey(Team, on_delete=models.CASCADE, related_name="+")
    hour = models.DateTimeField()

    class Meta:
        indexes = [models.Index(fields=["team", "hour"], name="stale_hour_of_team")]

    def __str__(self) -> str:
        return f"{self.team_id} {self.hour:%Y-%m-%dT%H}"


class PriceOverride(models.Model):
    """What a team pays instead of the list price, from a day on. Never changed, because a step's `price_id` names it: a
    new rate is a new row. Either `factor`, of the list price, or five rates in dollars for a million tokens."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    team = models.ForeignKey(Team, on_delete=models.CASCADE, related_name="price_overrides")
    model = models.CharField(max_length=120)  # a name, in which * stands for anything
    geo = models.CharField(max_length=12, blank=True)  # only calls served there; with it, `factor` replaces our own
    starts_on = models.DateField()
    ends_on = models.DateField(null=True)  # the first day on which it no longer holds
    factor = models.DecimalField(max_digits=9, decimal_places=6, null=True)
    input = UsdField(null=True)
    output = UsdField(null=True)
    cache_read = UsdField(null=True)
    cache_write_5m = UsdField(null=True)
    cache_write_1h = UsdField(null=True)
    note = models.CharField(max_length=200, blank=True)
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["model", "-starts_on", "-created_at"]
        constraints = [
            models.CheckConstraint(
                condition=Q(factor__isnull=False, input__isnull=True) | Q(factor__isnull=True, input__isnull=False),
                name="a_factor_or_rates",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.model} from {self.starts_on}"
