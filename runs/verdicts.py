"""The engine's verdicts over the ORM: proposing actions, asking people, claiming before the effect."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import replace

from django.db import IntegrityError, transaction
from django.db.models import QuerySet
from django.utils import timezone

from accounts.access import Right, still_may
from runs import asking, digest, lifecycle, live, previews
from runs.asked import Chosen
from runs.audit import batch_digest, is_intact, record
from runs.catalog import catalog
from runs.engine import raising
from runs.engine.ports import LeaseLost, NotReleased
from runs.engine.types import (
    Action,
    ActionStatus,
    Call,
    DecisionNote,
    Effect,
    Evidence,
    Execution,
    JsonObject,
    Mode,
    Question,
    Risk,
    Route,
    RunStatus,
    ToolGrant,
    ToolPlan,
    ToolSpec,
)
from runs.human_side import human_side
from runs.leases import Lease
from runs.models import Action as ActionRow
from runs.models import Batch, Run
from runs.schemas import QuestionArgs
from runs.storable import storable, storable_text

MOST_REASON = 500
CHANGED = "the action differs from what was approved"


class DbVerdicts:
    def __init__(self, run: Run, lease: Lease) -> None:
        self.run = run
        self.lease = lease
        tools = run.agent_version.definition.get("tools") or ()
        self._samples: dict[str, float] = {tool["name"]: tool.get("sample") or 0.0 for tool in tools}

    def find(self, intent: str) -> Action | None:
        row = self._newest([intent]).get(intent)
        if row is None and (before := self._before({f"tool:{intent}", f"effect:{intent}"})):
            return before.find(intent)
        return to_engine(row) if row else None

    def _before(self, keys: set[str]) -> DbVerdicts | None:
        """The verdicts of the run that this one is a fork of, for what was carried out within the replayed steps."""
        run = self.run
        if run.forked_from is None:
            return None
        replayed = run.steps.filter(seq__lte=run.forked_seq, key__in=keys).exclude(
            key__startswith="tool:", kind="approval"
        )
        return DbVerdicts(run.forked_from, self.lease) if replayed.exists() else None

    def evidence(self, grant: ToolGrant) -> Evidence:
        return human_side().evidence(self.run.agent_id, grant)

    def standing(self, call: Call, tool: ToolSpec, chosen: Route) -> Route:
        with transaction.atomic():
            self._hold_lease()
            return human_side().standing(self.run, call, tool, chosen)

    def give_back(self, call: Call) -> None:
        human_side().give_back(self.run.id, call.intent)

    def propose(
        self, call: Call, tool: ToolSpec, plan: ToolPlan | None, route: Route, *, position: int, held: bool
    ) -> Action:
        asks = route.outcome == "ask"
        status = ActionStatus.PENDING if asks else ActionStatus.APPROVED
        row = new_action(self.run, call, tool, plan, route, position=position, status=status)
        row.held = held and not asks
        if route.standing:
            row.decided_by_id, row.decided_at = uuid.UUID(route.standing), timezone.now()
            row.released_by = [route.standing]
        try:
            with transaction.atomic():
                self._hold_lease()
                row.save(force_insert=True)
                record(row, "action.proposed", route=route.outcome, reason=route.reason)
                self._after_release(row, route)
        except IntegrityError:
            known = self.find(call.intent)
            if known is None:
                raise
            return known
        return to_engine(row)

    def _after_release(self, row: ActionRow, route: Route) -> None:
        """What the human side keeps of an action that nobody is asked about. A dry run does nothing to keep."""
        if route.outcome != "release" or self.run.mode == Mode.DRY_RUN:
            return
        if route.standing:
            human_side().released_in_advance(row)
        elif share := self._samples.get(row.tool):
            human_side().ran_alone(row, share)

    def queued(self) -> Sequence[Action]:
        rows = self.run.actions.filter(batch__isnull=True, status__in=[ActionStatus.PENDING, ActionStatus.APPROVED])
        return [to_engine(row) for row in rows if row.status == ActionStatus.PENDING or row.held]

    def asked(self, key: str) -> Sequence[Action] | None:
        batch = Batch.objects.filter(run_id=self.run.id, key=key).first()
        if batch is None:
            before = self._before({f"waited:{key}"})
            return before.asked(key) if before else None
        newest = self._newest(batch.intents)
        return [to_engine(newest[intent]) for intent in batch.intents]

    def ask(self, key: str, actions: Sequence[Action], why: str) -> None:
        with transaction.atomic():
            self._hold_lease()
            wants = "wants to do 1 thing" if len(actions) == 1 else f"wants to do {len(actions)} things"
            if all(action.tool == raising.TOOL.name for action in actions):
                wants = "has reached a limit"
            intents, tools = [action.intent for action in actions], [action.tool for action in actions]
            batch = asking.open_batch(self.run, key, intents, tools, why, wants)
            ids = [action.id for action in actions]
            ActionRow.objects.filter(id__in=ids).update(batch=batch, expires_at=batch.expires_at)
            shown = batch_digest(batch)
            for row in ActionRow.objects.filter(id__in=ids).order_by("position", "id"):
                record(row, "action.asked", batch=str(batch.id), batch_digest=shown)
        live.ring_inbox(self.run.team_id)

    def ask_question(self, question: Question) -> None:
        with transaction.atomic():
            self._hold_lease()
            intent = f"question:{question.key}"
            if Batch.objects.filter(run_id=self.run.id, key=question.key).exists():
                return
            batch = asking.open_batch(self.run, question.key, [intent], [], "", "needs an answer")
            row = new_question(self.run, question, intent)
            row.batch, row.expires_at = batch, batch.expires_at
            row.save(force_insert=True)
            record(row, "question.asked", title=row.title)
        live.ring_inbox(self.run.team_id)

    def claim(self, action: Action, preconditions: JsonObject | None) -> Action:
        refusal: NotReleased | None = None
        preconditions = storable(preconditions)
        with transaction.atomic():
            # The row lock makes cancelling and claiming take turns (SQLite has one writer anyway).
            run = Run.objects.select_for_update().get(id=self.run.id)
            row = ActionRow.objects.select_related("decided_by", "run").get(id=action.id)
            refusal = self._refusal(run, row, preconditions)
            if refusal is None and not lifecycle.begin_execution(row.id, row.digest):
                row.refresh_from_db()
                refusal = NotReleased(row.status, row.note or "it is no longer approved")
            if refusal is None:
                record(row, "action.executing")
        if refusal is not None:
            raise refusal
        # The row that was checked, not what was read of it before: nothing else may reach the tool.
        return replace(to_engine(row), status=ActionStatus.EXECUTING, fresh=True)

    def execution(self, key: str) -> Execution:
        chosen = Batch.objects.filter(run_id=self.run.id, key=key).values_list("execution", flat=True).first()
        return Execution(chosen or Execution.INDEPENDENT)

    def chosen(self) -> Sequence[tuple[str, Sequence[Action]]]:
        found = []
        for chosen in self._chosen().order_by("number"):
            newest = self._newest(chosen.intents)
            found.append((f"execute:{chosen.number}", [to_engine(newest[intent]) for intent in chosen.intents]))
        return found

    def proposals_left(self) -> bool:
        taken = {intent for chosen in self._chosen() for intent in chosen.intents}
        open_ones = self.run.actions.filter(status__in=[ActionStatus.PENDING, ActionStatus.APPROVED])
        return open_ones.exclude(intent__in=taken).exists()

    def _chosen(self) -> QuerySet[Chosen]:
        return Chosen.objects.filter(run_id=self.run.id, taken_back_at__isnull=True)

    def withdraw(self, action: Action, reason: str) -> None:
        reason = storable_text(reason)[:MOST_REASON]
        with transaction.atomic():
            self._hold_lease()
            row = ActionRow.objects.get(id=action.id)
            withdrawn = lifecycle.withdraw(row.id, reason)
            if withdrawn:
                record(row, "action.cancelled", reason=reason)
        if withdrawn:
            live.ring_inbox(self.run.team_id)

    def take_back(self, action: Action, note: str, undone: bool) -> None:
        with transaction.atomic():
            self._hold_lease()
            row = ActionRow.objects.get(id=action.id)
            if not undone:
                still_done = ActionRow.objects.filter(id=row.id, status=ActionStatus.SUCCEEDED)
                if still_done.exclude(note=note).update(note=note) == 1:  # a resumed run comes by here again
                    record(row, "action.undo_failed", reason=note)
            elif lifecycle.undone(row.id, note):
                record(row, "action.undone", reason=note)

    def ask_whether_it_happened(self, action: Action, why: str) -> None:
        why = storable_text(f"{why} Whether it happened is not known.")
        with transaction.atomic():
            self._hold_lease()
            title = "does not know whether 1 thing happened"
            batch = asking.open_batch(self.run, f"unknown:{action.intent}", [action.intent], [], why, title)
            row = ActionRow.objects.get(id=action.id)
            if lifecycle.lose_execution(row.id, batch):
                record(row, "action.unknown", why=why, batch=str(batch.id), batch_digest=batch_digest(batch))
        live.ring_inbox(self.run.team_id)

    # --- helpers -----------------------------------------------------------------------------------------------------

    def _refusal(self, run: Run, row: ActionRow, preconditions: JsonObject | None) -> NotReleased | None:
        """What must still hold just before the effect (invariants 1 and 3). A failed check retires the row."""
        if run.status != RunStatus.RUNNING or run.lease_owner != self.lease.owner or run.wish == "cancel":
            return NotReleased(row.status, "the run was cancelled")
        if row.starts_at is not None and row.starts_at > timezone.now():
            return NotReleased(row.status, "its approval can still be taken back")
        intact = is_intact(row)
        checks = (
            (digest_of(row) == row.digest, ActionStatus.REVOKED, CHANGED),
            (
                row.expires_at is None or row.expires_at > timezone.now(),
                ActionStatus.EXPIRED,
                "its time ran out before it ran",
            ),
            (self._is_same_tool(row), ActionStatus.STALE, "the tool has changed since this was proposed"),
            (self._approvers_may(row), ActionStatus.REVOKED, "a person who approved it may no longer approve"),
            (human_side().still_stands(row), ActionStatus.REVOKED, "the standing permission for it was taken back"),
            (
                preconditions is None or preconditions == row.preconditions,
                ActionStatus.STALE,
                what_changed(row, preconditions),
            ),
            (intact, ActionStatus.REVOKED, CHANGED),
        )
        for holds, status, reason in checks:
            if not holds:
                if lifecycle.retire(row.id, status, reason):
                    record(row, f"action.{status}", reason=reason, tampered=not intact)
                return NotReleased(status, reason)
        return None

    def _approvers_may(self, row: ActionRow) -> bool:
        people = {uuid.UUID(person) for person in row.released_by}
        return len(people) >= row.needed and all(still_may(person, self.run.team_id, Right.DECIDE) for person in people)

    def _is_same_tool(self, row: ActionRow) -> bool:
        """Whether the tool as it is known now is the one that the digest binds. One that is gone can't be called."""
        known = catalog(self.run.team).get(row.tool)
        return known is None or known.spec.version == row.tool_version

    def _hold_lease(self) -> None:
        """Invariant 8: a worker that lost its lease writes nothing."""
        held = Run.objects.filter(id=self.run.id, status=RunStatus.RUNNING, lease_owner=self.lease.owner)
        if held.update(lease_owner=self.lease.owner) != 1:
            raise LeaseLost(f"run {self.run.id} is no longer held by {self.lease.owner}")

    def _newest(self, intents: Sequence[str]) -> dict[str, ActionRow]:
        """The last of each chain of edits."""
        rows = ActionRow.objects.filter(run_id=self.run.id, intent__in=intents).select_related("decided_by")
        newest: dict[str, ActionRow] = {}
        first: dict[str, JsonObject] = {}
        for row in rows.order_by("created_at", "id"):
            newest[row.intent] = row
            row.is_edited = first.setdefault(row.intent, row.args) != row.args
        return newest


def new_action(
    run: Run, call: Call, tool: ToolSpec, plan: ToolPlan | None, route: Route, *, position: int, status: ActionStatus
) -> ActionRow:
    """An unsaved row, also for an edit by a person. Everything that the digest binds is set here."""
    row = ActionRow(
        run=run,
        status=status,
        intent=call.intent,
        tool_call_id=call.tool_call_id,
        position=position,
        tool=call.tool,
        tool_version=tool.version,
        args=call.args,
        reasoning=call.reasoning,
        confidence=call.confidence,
        risk=route.risk,
        irreversible=tool.effect is Effect.IRREVERSIBLE or not tool.can_undo,
        idempotent=tool.idempotent,
        policy_version=f"{run.agent.slug}@{run.agent_version.number}",
        route_reason=route.reason[:300],
        needed=route.needed,
        plan_summary=storable(plan.summary if plan else "")[:300],
        preview=storable(plan.preview) if plan else None,
        preconditions=storable(plan.preconditions) if plan else {},
    )
    row.digest = digest_of(row)
    previews.describe(row)
    return row


def new_question(run: Run, question: Question, intent: str) -> ActionRow:
    """An unsaved row of kind "question". Its `args` are `schemas.QuestionArgs`."""
    asked = QuestionArgs(
        title=question.title,
        question=question.text,
        options=list(question.options),
        closed=question.closed,
        tried=list(question.tried),
        call=question.args,
    )
    row = ActionRow(
        run=run,
        kind="question",
        status=ActionStatus.PENDING,
        intent=intent,
        tool_call_id="",
        position=0,
        tool=question.tool[:120],
        tool_version="",
        args=storable(asked.model_dump(mode="json")),
        risk=Risk.LOW,
        policy_version=f"{run.agent.slug}@{run.agent_version.number}",
        route_reason="the agent cannot go on by itself",
        needed=1,
    )
    row.digest = digest_of(row)
    row.title = previews.title_of(row)
    return row


def digest_of(row: ActionRow) -> str:
    return digest.action_digest(
        tool=row.tool,
        tool_version=row.tool_version,
        args=row.args,
        run=str(row.run_id),
        policy_version=row.policy_version,
    )


def to_engine(row: ActionRow) -> Action:
    decisions: tuple[DecisionNote, ...] = ()
    if row.decided_by is not None:
        decisions = (DecisionNote(by=row.decided_by.label, verdict=row.status, note=row.note),)
    return Action(
        id=str(row.id),
        intent=row.intent,
        tool_call_id=row.tool_call_id,
        tool=row.tool,
        args=row.args,
        digest=row.digest,
        status=ActionStatus(row.status),
        kind=row.kind,
        title=row.title,
        reasoning=row.reasoning,
        confidence=row.confidence,
        plan_summary=row.plan_summary,
        held=row.held,
        asked=row.batch_id is not None,
        edited=row.is_edited,
        result=row.result,
        note=row.note,
        decisions=decisions,
        starts_at=row.starts_at,
    )


def what_changed(row: ActionRow, now: JsonObject | None) -> str:
    now = now or {}
    names = sorted({*row.preconditions, *now})
    changed = [
        f"{name} was {row.preconditions.get(name)!r}, is now {now.get(name)!r}"
        for name in names
        if row.preconditions.get(name) != now.get(name)
    ]
    return ("what it was planned on has changed: " + "; ".join(changed))[:MOST_REASON]
