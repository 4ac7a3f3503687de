"""CONTRACT's shapes of `GET /approvals` and `POST /approvals/{batch}/decisions`, for whoever mounts them."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import Field

from accounts.access import Access, get, rows
from approvals import across, escalation, handover, inbox, paging, undo
from approvals.inbox import Line, Outcome
from approvals.models import Decision, Verdict
from approvals.paging import Status
from runs.api.paging import page
from runs.engine.types import Execution
from runs.models import Action, Batch, Run
from runs.schemas import Strict

DEFAULT_LIMIT = 50
LARGEST_LIMIT = 200


class DecisionIn(Strict):
    action: uuid.UUID
    digest: Annotated[str, Field(min_length=1, max_length=64)]
    verdict: Literal["approve", "reject", "answer", "happened", "did_not_happen"]
    args: dict[str, Any] | None = None
    note: Annotated[str, Field(max_length=inbox.NOTE_LENGTH)] | None = None
    answer: Annotated[str, Field(max_length=inbox.NOTE_LENGTH)] | None = None


class DecisionsIn(Strict):
    version: Annotated[int, Field(ge=1, le=2**31 - 1)]
    decisions: Annotated[list[DecisionIn], Field(min_length=1, max_length=1000)]
    execution: Execution | None = None


class TakenIn(Strict):
    id: uuid.UUID
    digest: Annotated[str, Field(min_length=1, max_length=64)]


class RevokeIn(Strict):
    actions: Annotated[list[TakenIn], Field(min_length=1, max_length=1000)]


class HandOverIn(Strict):
    """`to`: a user name. `version`: the batch's as it was shown, to be told when somebody else was quicker."""

    to: Annotated[str, Field(min_length=1, max_length=150)]
    note: Annotated[str, Field(max_length=handover.NOTE_LENGTH)] | None = None
    version: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = None


def list_batches(
    access: Access, status: Status = "pending", *, limit: int = DEFAULT_LIMIT, cursor: str | None = None
) -> dict[str, Any]:
    """`{items: [Batch], next}`; `next` is null on the last page. Raises BadCursor."""
    limit = max(1, min(limit, LARGEST_LIMIT))
    found, following = paging.page(inbox.batches(access, status), status, limit, cursor or "")
    return {"items": [batch_json(batch) for batch in found], "next": following or None}


def list_actions(access: Access, run_id: str, *, limit: int, cursor: str | None) -> dict[str, Any]:
    """`{items: [Action], next}` of a run, in the order they were proposed: those that ran alone, and those that a dry
    run proposes, are in no batch. Raises Http404 and Invalid."""
    run = get(access, Run, run_id)
    actions = inbox.with_decisions(rows(access, Action).filter(run=run))
    found, following = page(actions, limit, cursor, oldest_first=True)
    return {"items": [action_json(action) for action in found], "next": following}


def decide_json(access: Access, batch_id: uuid.UUID | str, payload: DecisionsIn) -> dict[str, Any]:
    """`{results: [...]}`, one a decision, in their order. Raises Http404 and MissingRight."""
    lines = [
        Line(
            action=decision.action,
            digest=decision.digest,
            verdict=Verdict(decision.verdict),
            args=decision.args,
            note=decision.note or "",
            answer=decision.answer or "",
        )
        for decision in payload.decisions
    ]
    outcomes = inbox.decide(access, batch_id, payload.version, lines, channel="api", execution=payload.execution)
    return {"results": [outcome_json(outcome) for outcome in outcomes]}


def revoke_json(access: Access, batch_id: uuid.UUID | str, payload: RevokeIn) -> dict[str, Any]:
    """Takes approvals back whose actions have not begun. `{results: [...]}`, as `decide_json`."""
    lines = [undo.Taken(each.id, each.digest) for each in payload.actions]
    outcomes = undo.revoke(access, batch_id, lines, channel="api")
    return {"results": [outcome_json(outcome) for outcome in outcomes]}


def take_back_json(access: Access, payload: RevokeIn) -> dict[str, Any]:
    """The same across batches, each by itself. What is none of the team's actions is `invalid`. Raises MissingRight."""
    lines = [undo.Taken(each.id, each.digest) for each in payload.actions]
    return {"results": [outcome_json(outcome) for outcome in across.take_back(access, lines, channel="api")]}


def extend_json(access: Access, batch_id: uuid.UUID | str) -> dict[str, Any]:
    """As much time again, once: the batch. Raises Conflict when it can't be."""
    batch = escalation.extend(access, batch_id)
    return batch_json(get(access, inbox.with_actions(Batch.objects.all()), batch.id))


def hand_over_json(access: Access, batch_id: uuid.UUID | str, payload: HandOverIn) -> dict[str, Any]:
    """Puts the batch before somebody else: the batch. Raises Invalid and Conflict."""
    handover.hand_over(access, batch_id, payload.to, payload.note or "", version=payload.version)
    return batch_json(get(access, inbox.with_actions(Batch.objects.all()), batch_id))


def batch_json(batch: Batch) -> dict[str, Any]:
    """Of a batch read through `inbox.with_actions`."""
    return {
        "id": str(batch.id),
        "version": batch.version,
        "run": str(batch.run_id),
        "agent": batch.run.agent.slug,
        "title": batch.title,
        "why": batch.why,
        "status": "pending" if batch.status == "open" else "decided",
        "execution": batch.execution,
        "expires_at": rfc3339(batch.expires_at),
        "asked": sorted(person.username for person in batch.asked.all()),
        "actions": [action_json(action) for action in batch.actions.all()],
    }


def action_json(action: Action) -> dict[str, Any]:
    return {
        "id": str(action.id),
        "digest": action.digest,
        "kind": action.kind,
        "tool": action.tool,
        "args": action.args,
        "risk": action.risk,
        "confidence": action.confidence,
        "route_reason": action.route_reason,
        "preview": action.preview or {"type": "arguments"},
        "status": action.status,
        "needed": action.needed,
        "decisions": [decision_json(decision) for decision in _said_of(action)],
        "supersedes": str(action.supersedes_id) if action.supersedes_id else None,
        "result": action.result,
        "note": action.note,
        "expires_at": rfc3339(action.expires_at),
        "starts_at": rfc3339(action.starts_at),
    }


def decision_json(decision: Decision) -> dict[str, Any]:
    return {
        "by": decision.actor.username,
        "verdict": decision.verdict,
        "note": decision.note,
        "at": rfc3339(decision.at),
    }


def outcome_json(outcome: Outcome) -> dict[str, Any]:
    """`by`, `at` and `superseded_by` are there only when they say something."""
    shown: dict[str, Any] = {
        "action": str(outcome.action),
        "outcome": outcome.result.value,
        "detail": outcome.detail,
    }
    if outcome.by is not None:
        shown["by"] = outcome.by.username
    if outcome.at is not None:
        shown["at"] = rfc3339(outcome.at)
    if outcome.superseded_by is not None:
        shown["superseded_by"] = str(outcome.superseded_by)
    return shown


def rfc3339(moment: dt.datetime | None) -> str | None:
    return moment.astimezone(dt.UTC).isoformat().replace("+00:00", "Z") if moment else None


def _said_of(action: Action) -> Iterable[Decision]:
    """Its decisions; those of the action it replaced come first, because the edit is one of them."""
    earlier: Iterable[Decision] = action.supersedes.decisions.all() if action.supersedes else ()
    return [*(said for said in earlier if said.verdict == Verdict.EDIT), *action.decisions.all()]
