"""What the live page of a run shows, region by region. The view and the socket build the same values and the same HTML.

Each region is a frozen value: what differs from the value that was sent before is sent again, and nothing else.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from django.db.models import Count, Max, Min, Q, Sum
from django.template.loader import render_to_string
from django.utils import timezone

from accounts.access import Access, Right, get, rows
from runs import beneath, lifecycle, presenters
from runs.asked import RunMessage
from runs.beneath import Beneath
from runs.ending import Ending, ending_of
from runs.engine.types import WAITING_ACTIONS, ActionStatus, Mode, RunStatus
from runs.family import Below
from runs.models import Batch, Run
from runs.step_rows import counts_by_filter

WARN_FROM = 0.8
STARTABLE = frozenset({RunStatus.QUEUED, RunStatus.RUNNING})


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    status: str
    label: str
    started_at: dt.datetime | None
    ended_at: dt.datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Actions:
    """Which buttons there are. `pausing` and `cancelling`: asked for, and the worker has not come to it yet."""

    run_id: uuid.UUID
    can_pause: bool
    can_resume: bool
    can_try_now: bool
    can_cancel: bool
    pausing: bool
    cancelling: bool
    can_launch_again: bool
    has_report: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Meters:
    cost_usd: Decimal
    max_cost_usd: Decimal | None
    tokens: int
    max_tokens: int | None
    steps: int
    max_steps: int | None
    unpriced_steps: int
    below: Below

    @property
    def warnings(self) -> list[tuple[str, float]]:
        used = (
            ("cost", self.cost_usd, self.max_cost_usd),
            ("token", self.tokens, self.max_tokens),
            ("step", self.steps, self.max_steps),
        )
        shares = [(name, float(value) / float(limit)) for name, value, limit in used if limit]
        return [(name, share) for name, share in shares if share >= WARN_FROM]


@dataclass(frozen=True, slots=True, kw_only=True)
class Waits:
    """What waits for people; `questions` of the actions are such. `for_you`: the reader may decide."""

    actions: int
    questions: int
    batch_id: uuid.UUID
    expires_at: dt.datetime
    for_you: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanStep:
    title: str
    state: str  # done, running, waiting, paused, changed, open
    first: int | None
    last: int | None
    cost_usd: Decimal | None
    assumptions: tuple[tuple[str, str], ...]  # (text, held | did_not_hold | not_checked)
    actual: str  # what was found when it was done, or why it was changed


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """`expected`: the agent makes one, and has not yet."""

    steps: tuple[PlanStep, ...]
    expected: bool

    @property
    def done(self) -> int:
        return sum(step.state == "done" for step in self.steps)

    @property
    def current(self) -> tuple[int, str] | None:
        still_open = (n for n, step in enumerate(self.steps, 1) if step.state not in ("done", "changed"))
        return next(((n, self.steps[n - 1].title) for n in still_open), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    all: int
    model: int
    tools: int
    evaluations: int
    guardrails: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Steer:
    run_id: uuid.UUID
    may: bool
    is_ended: bool
    queued: tuple[tuple[str, str], ...]  # (text, who)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancel:
    """What the dialog says before a person cancels."""

    batches: int
    waiting: int
    executed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LivePage:
    status: Status
    actions: Actions
    meters: Meters
    beneath: Beneath
    waits: Waits | None
    notice: Ending | tuple[tuple[str, float], ...]
    plan: Plan
    filters: Filters
    steer: Steer
    cancel: Cancel
    may_ask_for_more: bool

    @property
    def ending(self) -> Ending | None:
        return self.notice if isinstance(self.notice, Ending) else None

    @property
    def warnings(self) -> Sequence[tuple[str, float]]:
        return () if isinstance(self.notice, Ending) else self.notice


# region -> the field it shows. The template is runs/_region.html, its id run-region.
REGIONS = ("status", "actions", "dock", "meters", "beneath", "waits", "notice", "plan", "filters", "steer", "cancel")
FIELD_OF = {"dock": "actions"}


def load(access: Access, run_id: uuid.UUID | str, right: Right = Right.VIEW) -> Run:
    return get(access, Run.objects.select_related("agent", "agent_version", "owner"), run_id, right=right)


def live_page(access: Access, run: Run) -> LivePage:
    """A constant number of queries, whatever the run has done."""
    by_status = dict(run.actions.values_list("status").annotate(count=Count("id")).order_by("status"))
    batches = _open_batches(access, run)
    groups = list(
        run.steps.values("plan_step", "kind")
        .annotate(count=Count("id"), first=Min("seq"), last=Max("seq"), cost=Sum("cost_usd"))
        .order_by("plan_step", "kind")
    )
    below = beneath.beneath(access, run)
    meters = _meters(run, below.sums)
    plan = _plan(run, groups)
    waits = _waits(access, batches)
    delegates = bool(below.at_work) and all(batch.run_id != run.id for batch in batches)
    is_parked = _is_parked(run)
    return LivePage(
        status=_status(run, waits, delegates, is_parked),
        actions=_actions(access, run, is_parked),
        meters=meters,
        beneath=below,
        waits=waits,
        notice=ending_of(run, by_status) if run.is_ended else tuple(meters.warnings),
        plan=plan,
        filters=Filters(**counts_by_filter((group["kind"], group["count"]) for group in groups)),
        steer=_steer(access, run),
        cancel=Cancel(
            batches=len(batches),
            waiting=sum(by_status.get(status, 0) for status in WAITING_ACTIONS),
            executed=by_status.get(ActionStatus.SUCCEEDED, 0),
        ),
        may_ask_for_more=bool(run.agent_version.definition.get("raise_limits")),
    )


def render_region(name: str, page: LivePage, **typed: str) -> str:
    """`typed`: what a person wrote into the region and what is wrong with it."""
    return render_to_string(f"runs/_{name}.html", {"page": page, **typed})


def changed(now: LivePage, before: LivePage | None) -> list[str]:
    """The regions in which two moments differ; all of them when there is no earlier one."""
    if before is None:
        return list(REGIONS)
    return [name for name in REGIONS if _field(now, name) != _field(before, name)]


def _field(page: LivePage, region: str) -> object:
    return getattr(page, FIELD_OF.get(region, region))


# --- regions ---------------------------------------------------------------------------------------------------------


def _status(run: Run, waits: Waits | None, delegates: bool, is_parked: bool) -> Status:
    status, label = beneath.shown_status(run.status, delegates), _label(run, waits, is_parked)
    if status == RunStatus.WAITING and not label and waits and waits.questions == waits.actions:
        label = "Needs an answer"
    return Status(status=status, label=label, started_at=run.started_at, ended_at=run.ended_at)


def _label(run: Run, waits: Waits | None, is_parked: bool) -> str:
    if run.is_ended:
        return ""
    if run.wish == "cancel":
        return "Cancelling"
    if run.wish == "pause":
        return "Pausing after this step" if run.status == RunStatus.RUNNING else "Pauses after the decision"
    if run.status == RunStatus.PAUSED and run.paused_with is not None:
        return "Paused with the run above it"
    if run.status == RunStatus.QUEUED and run.due_at and run.due_at > timezone.now():
        if not is_parked:
            return f"Begins at {run.due_at.astimezone(dt.UTC):%H:%M:%S} UTC"
        is_long = (run.due_at - timezone.now()).total_seconds() > 60
        return f"Tries again at {run.due_at.astimezone(dt.UTC):%H:%M} UTC" if is_long else "Waiting to try again"
    if run.status == RunStatus.RUNNING and waits:
        return f"Running, {waits.actions} to approve"
    return ""


def _is_parked(run: Run) -> bool:
    return run.status == RunStatus.QUEUED and run.due_at is not None and lifecycle.parked(run.id).exists()


def _actions(access: Access, run: Run, is_parked: bool) -> Actions:
    may = access.may(Right.LAUNCH)
    pausing, cancelling = run.wish == "pause", run.wish == "cancel"
    alive = may and not run.is_ended and not cancelling
    return Actions(
        run_id=run.id,
        can_pause=alive and not pausing and _can_pause(run),
        can_resume=alive and (pausing or run.status == RunStatus.PAUSED),
        can_try_now=alive and is_parked,
        can_cancel=alive,
        pausing=pausing,
        cancelling=cancelling and not run.is_ended,
        can_launch_again=may and run.is_ended,
        has_report=run.mode == Mode.DRY_RUN,
    )


def _can_pause(run: Run) -> bool:
    return run.status in STARTABLE or (run.status == RunStatus.WAITING and lifecycle.works_below(run.id))


def _meters(run: Run, below: Below) -> Meters:
    """Limits of money and tokens bind a run together with those below it, so both are counted."""
    limits = (run.max_input_tokens, run.max_output_tokens)
    totals = presenters.totals_json(run)
    kinds = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens")
    return Meters(
        cost_usd=run.cost_usd + below.cost_usd,
        max_cost_usd=run.max_cost_usd,
        tokens=sum(totals[kind] for kind in kinds) + below.tokens,
        max_tokens=None if None in limits else sum(limit or 0 for limit in limits),
        steps=run.work_steps,
        max_steps=run.max_steps,
        unpriced_steps=run.unpriced_steps + below.unpriced_steps,
        below=below,
    )


def _open_batches(access: Access, run: Run) -> list[Batch]:
    waiting = Count("actions", filter=Q(actions__status__in=list(WAITING_ACTIONS)))
    questions = Count("actions", filter=Q(actions__status=ActionStatus.PENDING, actions__kind="question"))
    found = beneath.open_batches(access, run.id).annotate(waiting=waiting, questions=questions)
    return list(found.order_by("expires_at", "id"))


def _waits(access: Access, batches: Sequence[Any]) -> Waits | None:
    if not batches:
        return None
    return Waits(
        actions=sum(batch.waiting for batch in batches),
        questions=sum(batch.questions for batch in batches),
        batch_id=batches[0].id,
        expires_at=batches[0].expires_at,
        for_you=access.may(Right.DECIDE),
    )


def _plan(run: Run, groups: Sequence[Mapping[str, Any]]) -> Plan:
    definition = run.agent_version.definition
    planned = any(group["kind"] == "plan" for group in groups)
    steps = (run.plan or {}).get("steps", [])
    return Plan(
        steps=tuple(_plan_step(run, index, step, groups) for index, step in enumerate(steps)),
        expected=bool(definition.get("planning")) and not planned and not run.is_ended,
    )


def _plan_step(run: Run, index: int, step: Mapping[str, Any], groups: Sequence[Mapping[str, Any]]) -> PlanStep:
    own = [group for group in groups if group["plan_step"] == index]
    assumptions = step.get("assumptions", [])
    return PlanStep(
        title=str(step.get("title", "")),
        state=_plan_state(run, str(step.get("status", ""))),
        first=min((group["first"] for group in own), default=None),
        last=max((group["last"] for group in own), default=None),
        cost_usd=sum((group["cost"] or Decimal(0) for group in own), Decimal(0)) if own else None,
        assumptions=tuple((str(item.get("text", "")), str(item.get("status", ""))) for item in assumptions),
        actual=str(step.get("actual", "")),
    )


def _plan_state(run: Run, stored: str) -> str:
    """The plan is marked when a step is judged; between two judgements the run's own status is newer."""
    if stored not in {"running", "waiting"}:
        return stored if stored in {"done", "changed"} else "open"
    if run.is_ended:
        return "open"
    return {"waiting": "waiting", "paused": "paused"}.get(run.status, "running")


def _steer(access: Access, run: Run) -> Steer:
    queued: list[tuple[str, str]] = []
    if not run.is_ended:
        found = rows(access, RunMessage).filter(run=run, delivered_seq__isnull=True).select_related("sender")
        queued = [(message.text, message.sender.label) for message in found.order_by("created_at", "id")]
    return Steer(run_id=run.id, may=access.may(Right.LAUNCH), is_ended=run.is_ended, queued=tuple(queued))
