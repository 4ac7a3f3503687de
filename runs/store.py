"""The engine's journal, budget and controls over the ORM. One step is one transaction, and none is open while a model
or a tool works."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from decimal import Decimal
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import F, Sum
from django.utils import timezone

from runs import audit, family, filtering, lifecycle, live, pricing, rates, recording, stale
from runs.asked import RunMessage
from runs.caches import expired_tokens
from runs.engine.filters import masked
from runs.engine.ports import BudgetExceeded, JournalMismatch, LeaseLost
from runs.engine.types import (
    ActionOutcome,
    Price,
    RunStatus,
    Spent,
    Step,
    StepKind,
    StepStatus,
    StopReason,
    Usage,
)
from runs.leases import Lease
from runs.models import Action, Run, TeamMonth
from runs.models import Step as StepRow
from runs.storable import storable

TEXT_EVERY_S = 0.1


class SystemClock:
    def now(self) -> dt.datetime:
        return timezone.now()

    def monotonic(self) -> float:
        return time.monotonic()


class DbJournal:
    """The steps of one run, as the holder of its lease sees and writes them."""

    def __init__(self, run: Run, lease: Lease) -> None:
        self.run = run
        self.lease = lease
        self._filters = filtering.filters_for(run)
        rows = run.steps.select_related("payload").order_by("seq") if run.last_seq else ()
        self._steps = {row.key: _from_row(row) for row in rows}
        self._month: tuple[dt.date, Decimal] | None = None
        self._begun: dict[str, Any] | None = None
        self._text = ""
        self._sent = 0
        self._sent_at = 0.0

    def once(self, key: str, kind: str, produce: Callable[[], Step]) -> Step:
        known = self.recorded(key)
        if known is not None:
            if known.kind != kind:
                raise JournalMismatch(f"step {known.seq} of run {self.run.id} is {known.kind}, not {kind} ({key})")
            return known
        if _in_transaction():
            raise RuntimeError("a step is produced outside any transaction")
        return self._commit(_storable(replace(produce(), key=key)))

    def recorded(self, key: str) -> Step | None:
        return self._steps.get(key)

    def spent(self) -> Spent:
        run = self.run
        return Spent(
            steps=run.work_steps,
            input_tokens=run.input_tokens + run.cache_read_tokens + run.cache_write_tokens,
            output_tokens=run.output_tokens,
            cost_usd=run.cost_usd,
            lost_usd=run.lost_usd,
        )

    def in_flight(self, step: Step) -> None:
        self._begun = {
            "key": step.key,
            "kind": step.kind,
            "title": step.title,
            "tool": step.tool,
            "model": step.model,
            "seq": self.run.last_seq + 1,
            "started_at": (step.started_at or timezone.now()).isoformat(),
        }
        self._text, self._sent, self._sent_at = "", 0, 0.0
        live.in_flight(self.run.id, self._begun)

    def text(self, fragment: str) -> None:
        self._text += fragment
        if self._begun and time.monotonic() - self._sent_at >= TEXT_EVERY_S:
            shown = masked(self._text, self._filters)
            live.delta(self.run.id, self._begun, shown, self._sent)
            self._sent, self._sent_at = max(self._sent, len(shown)), time.monotonic()

    def reserved_month(self, month: dt.date, usd: Decimal) -> None:
        self._month = (month, usd)

    def _commit(self, step: Step) -> Step:
        step = replace(step, seq=self.run.last_seq + 1)
        totals = recording.totals_after(self.run, step)
        kept = filtering.kept(step, self._filters)
        changes = {**totals, **_NOTHING_RESERVED, **(step.raised or {})}
        if kept.plan is not None:
            changes["plan"] = kept.plan
        late = stale.hours_over(step.started_at or timezone.now(), self.run.created_at)
        expired = expired_tokens(step, self._last_call(step))
        more = late or self._month is not None or step.outcome is not None or step.kind is StepKind.MESSAGE
        with transaction.atomic() if more else nullcontext():
            self.lease.wishes = recording.record(self.run, self.lease.owner, changes, kept, expired)
            if self.lease.wishes is None:
                raise LeaseLost(f"run {self.run.id} is no longer held by {self.lease.owner}")
            stale.mark_hours(self.run.team_id, late)
            self._settle_month(step)
            if kept.outcome is not None:
                self._end_execution(kept.outcome, step.seq)
            if step.kind is StepKind.MESSAGE:
                RunMessage.objects.filter(id=step.key.removeprefix("message:")).update(delivered_seq=step.seq)
        for name, value in totals.items():
            setattr(self.run, name, value)
        self._steps[step.key] = step
        self._begun = None
        live.landed(self.run.id, step.seq)
        return step

    def _last_call(self, step: Step) -> Step | None:
        """The call whose prompt this one continues: what an evaluator or a planner is sent is another text."""
        if not step.model:
            return None
        calls = (one for one in reversed(self._steps.values()) if one.kind is step.kind and one.model == step.model)
        return next(calls, None)

    def _end_execution(self, outcome: ActionOutcome, seq: int) -> None:
        action = Action.objects.select_related("run").get(id=outcome.action_id)
        intact = audit.is_intact(action)
        if not lifecycle.end_execution(action.id, outcome.status, outcome.result):
            raise LeaseLost(f"action {outcome.action_id} was not executing")
        audit.record(action, f"action.{outcome.status}", seq=seq, tampered=not intact)

    def _settle_month(self, step: Step) -> None:
        if self._month is None:
            return
        month, reserved = self._month
        TeamMonth.objects.filter(team_id=self.run.team_id, month=month).update(
            reserved_usd=F("reserved_usd") - reserved,
            spent_usd=F("spent_usd") + (step.price.usd or step.price.lost_usd),
        )
        self._month = None


class DbBudget:
    """Reservation in one conditional UPDATE; settled by the journal with the step."""

    def __init__(self, run: Run, lease: Lease, journal: DbJournal) -> None:
        self.run = run
        self.lease = lease
        self.journal = journal
        self.family = family.family_of(run)
        self._terms = ""
        self._overrides = rates.of_team(run.team_id)

    def reserve(self, *, usd: Decimal, input_tokens: int, output_tokens: int) -> None:
        with transaction.atomic() if self._is_shared() else nullcontext():
            if not self.family.is_alone:
                family.hold(self.family)
            if not recording.reserve(self.run.id, self.lease.owner, usd, input_tokens, output_tokens):
                raise BudgetExceeded(StopReason.MAX_COST, "what is left of the budget does not cover another step")
            if not self.family.is_alone:
                family.check(self.family)
            self._reserve_month(usd)

    def _is_shared(self) -> bool:
        """Whether others reserve against the same limits: then more than one row has to be looked at."""
        return not self.family.is_alone or self.run.team.month_budget_usd is not None

    def _reserve_month(self, usd: Decimal) -> None:
        """Within the transaction of the run's own reservation. What the team has reserved is summed afresh from its
        running runs, so that a worker that died with a reservation holds nothing back for long."""
        limit = self.run.team.month_budget_usd
        if limit is None:
            return
        sums = TeamMonth.objects.select_for_update().get(id=self._month(timezone.now().date().replace(day=1)).id)
        running = Run.objects.filter(team_id=self.run.team_id, status=RunStatus.RUNNING)
        reserved: Decimal = running.aggregate(usd=Sum("reserved_usd"))["usd"] or Decimal(0)
        if sums.spent_usd + reserved > limit:
            raise BudgetExceeded(StopReason.MAX_COST, f"the team's budget of ${limit:.2f} for this month is used up")
        TeamMonth.objects.filter(id=sums.id).update(reserved_usd=reserved)
        self.journal.reserved_month(sums.month, usd)

    def _month(self, month: dt.date) -> TeamMonth:
        """The team's row of this month. A budget that is set in the middle of a month counts what was spent before."""
        team_id = self.run.team_id
        known = TeamMonth.objects.filter(team_id=team_id, month=month).first()
        if known is not None:
            return known
        begin = dt.datetime(month.year, month.month, 1, tzinfo=dt.UTC)
        spent = StepRow.objects.filter(run__team_id=team_id, started_at__gte=begin).aggregate(usd=Sum("cost_usd"))[
            "usd"
        ]
        defaults = {"spent_usd": spent or Decimal(0)}
        return TeamMonth.objects.get_or_create(team_id=team_id, month=month, defaults=defaults)[0]

    def price(self, model: str, usage: Usage) -> Price:
        at = timezone.now()
        if usage.terms:
            self._terms = usage.terms
        return pricing.price(model, usage, simulated=settings.SIMULATED, at=at, overrides=self._overrides)

    def worst_price(self, model: str, input_tokens: int, output_tokens: int) -> Decimal | None:
        if settings.SIMULATED:  # as the provider: a run may outlive the day without a key
            return Decimal(0)
        # Served as the call before it: what a region or the fast mode costs more is reserved too.
        return pricing.worst_price(model, input_tokens, output_tokens, terms=self._terms, overrides=self._overrides)


class DbControls:
    """What people want of the run while it runs."""

    def __init__(self, run: Run, lease: Lease) -> None:
        self.run = run
        self.lease = lease
        self._messages: list[tuple[str, str, str]] = []

    def interrupted(self) -> bool:
        return self.lease.stopped.is_set()

    def check(self) -> str | None:
        """Every write of the run's row tells what people wish at that moment: read only where none came before."""
        seen = self._afresh() if self.lease.stopped.is_set() or self.lease.wishes is None else self.lease.wishes
        self.lease.stopped.clear()
        self.lease.wishes = None
        return seen.wish or None

    def cancelled(self) -> bool:
        """Whether a person wants the run to end. Asks the database only once a wish was seen."""
        return self.interrupted() and Run.objects.filter(id=self.run.id, wish="cancel").exists()

    def messages(self) -> Sequence[tuple[str, str, str]]:
        sent = (self.lease.wishes or self._afresh()).messages
        if len(self._messages) < sent:
            rows = RunMessage.objects.filter(run_id=self.run.id).select_related("sender").order_by("created_at", "id")
            self._messages = [(str(row.id), row.sender.label, filtering.text_of(row)) for row in rows]
        return self._messages

    def _afresh(self) -> recording.Wishes:
        found = recording.wishes(self.run.id, self.lease.owner)
        if found is None:
            raise LeaseLost(f"run {self.run.id} is no longer held by {self.lease.owner}")
        return found


def _storable(step: Step) -> Step:
    """What the journal keeps is also what the engine goes on with: a resumed run sees the same."""
    texts = {name: storable(getattr(step, name)) for name in _FROM_OUTSIDE}
    outcome = step.outcome and replace(step.outcome, result=storable(step.outcome.result))
    return replace(step, outcome=outcome, **texts)


_FROM_OUTSIDE = (
    "title",
    "summary",
    "tool",
    "tool_call_id",
    "input",
    "output",
    "reasoning",
    "error",
    "model",
    "plan",
)
_NOTHING_RESERVED: dict[str, Any] = {"reserved_usd": 0, "reserved_input_tokens": 0, "reserved_output_tokens": 0}


def _in_transaction() -> bool:
    connection = transaction.get_connection()
    # A test case's own transaction is not ours.
    return any(not getattr(block, "_from_testcase", False) for block in connection.atomic_blocks)


def _from_row(row: StepRow) -> Step:
    step = Step(
        kind=StepKind(row.kind),
        title=row.title,
        key=row.key,
        seq=row.seq,
        status=StepStatus(row.status),
        summary=row.summary,
        tool=row.tool,
        tool_call_id=row.tool_call_id,
        input=row.payload.input,
        output=row.payload.output,
        reasoning=row.payload.reasoning,
        error=row.payload.error,
        confidence=row.confidence,
        score=row.score,
        model=row.model,
        usage=Usage(
            input_tokens=row.input_tokens,
            output_tokens=row.output_tokens,
            cache_read_tokens=row.cache_read_tokens,
            cache_write_5m_tokens=row.cache_write_5m_tokens,
            cache_write_1h_tokens=row.cache_write_1h_tokens,
            terms=row.price_terms,
        ),
        price=Price(usd=row.cost_usd, price_id=row.price_id),
        started_at=row.started_at,
        duration_ms=row.duration_ms,
        attempt=row.attempt,
        plan_step=row.plan_step,
        child_run=str(row.child_run_id or ""),
    )
    return filtering.opened(step, row.payload.sealed)
