"""What the receipts say of decisions, and whether rows still are what their receipts say."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from django.db.models import Q
from pydantic import JsonValue

from accounts import receipts
from accounts.models import Receipt, Team
from accounts.receipts import Problem
from approvals import grant_proof
from approvals.models import Decision
from runs import audit
from runs.models import Action, Batch

DECISION = (
    "action_id",
    "actor_id",
    "verdict",
    "reason",
    "note",
    "shown_digest",
    "shown_version",
    "channel",
    "at",
    "viewed_at",
    "opened_details",
    "decided_together",
)
VIEWED = "batch.viewed"
PRUNED = "run.pruned"
"""A receipt of this kind about a run says that its rows were taken away on purpose."""
AT_ONCE = 1000


def record_decision(decision: Decision, superseded_by: uuid.UUID | None = None) -> Receipt:
    """Of a decision that was just made, after the action it is about was changed by it."""
    team = decision.action.run.team_id
    return receipts.append_all(team, of_decisions([(decision, superseded_by)]))[0]


def of_decisions(made: Iterable[tuple[Decision, uuid.UUID | None]], **more: JsonValue) -> list[receipts.Entry]:
    """The same of many, to be appended: decisions, each with the action that took the place of its own, if one did.
    `more` is said in each."""
    return audit.entries(
        [
            audit.Event(said.action_id, f"decision.{said.verdict}", said.actor, {**_said_in(said, new), **more})
            for said, new in made
        ]
    )


def _said_in(decision: Decision, superseded_by: uuid.UUID | None) -> dict[str, JsonValue]:
    return {
        "batch": str(decision.action.batch_id),
        "shown_digest": decision.shown_digest,
        "shown_version": decision.shown_version,
        "channel": decision.channel,
        "reason": decision.reason,
        "note": decision.note,
        "superseded_by": str(superseded_by) if superseded_by else None,
        "decision": str(decision.id),
        "decision_digest": decision_digest(decision),
    }


def decision_digest(decision: Decision) -> str:
    return audit.digest_of_columns(decision, DECISION)


def verify(team: Team) -> list[Problem]:
    """What is wrong with the team's chain, and with every action, batch, decision and standing permission of it."""
    with receipts.snapshot(team.id) as now:
        problems = receipts.problems_of_chain(now)
        said = _Said()
        for receipt in Receipt.objects.filter(team=team).order_by("seq").iterator(chunk_size=AT_ONCE):
            problems += said.read(receipt)
        problems += _actions(team, said)
        problems += _decisions(team, said)
        problems += _batches(team, said)
        problems += grant_proof.problems(team)
    return sorted(problems, key=lambda problem: problem.seq)


def verify_action(action: Action) -> list[Problem]:
    """The same for one action: its row, its decisions, its batch, and each receipt of them by its own hash."""
    said = _Said()
    problems: list[Problem] = []
    for receipt in receipts_of(action):
        if not receipts.is_own_hash(receipt):
            problems.append(Problem(receipt.seq, "changed", "this receipt is not what was written"))
        problems += said.read(receipt)
    mine = str(action.id)
    proof = said.actions.get(mine)
    problems += _held_against(proof, (audit.facts_digest(action), audit.state_digest(action)), "this action")
    for decision in Decision.objects.filter(action=action):
        known = said.decisions.pop(str(decision.id), None)
        problems += _held_against(known, (decision_digest(decision),), f"the decision “{decision.verdict}”")
    problems += said.missing(said.decisions, "decision")
    for batch in Batch.objects.filter(id__in=said.batches):
        problems += _batch(batch, said, said.batches[str(batch.id)], "its batch")
    return problems


def receipts_of(action: Action) -> list[Receipt]:
    """Everything on record of one action, and of its batch being seen, oldest first."""
    of_action = Q(subject_type="action", subject_id=str(action.id))
    of_batch = Q(subject_type="batch", subject_id=str(action.batch_id))
    found = Receipt.objects.filter(of_action | of_batch, team_id=action.run.team_id).select_related("actor")
    return list(found.order_by("seq"))


@dataclass(slots=True)
class _Proof:
    """The last word of the chain on one row."""

    seq: int
    run: str
    digests: tuple[str, ...]


@dataclass(slots=True)
class _Said:
    """What the receipts say of rows, by the row's id."""

    actions: dict[str, _Proof] = field(default_factory=dict)
    decisions: dict[str, _Proof] = field(default_factory=dict)
    batches: dict[str, _Proof] = field(default_factory=dict)
    executions: dict[str, _Proof] = field(default_factory=dict)
    pruned: set[str] = field(default_factory=set)

    def read(self, receipt: Receipt) -> Iterator[Problem]:
        payload: dict[str, Any] = receipt.payload if isinstance(receipt.payload, dict) else {}
        if receipt.kind == PRUNED:
            self.pruned.add(receipt.subject_id)
        if receipt.kind == VIEWED:
            yield from self._viewed(receipt, payload)
        if receipt.subject_type != "action" or "facts" not in payload:
            return
        run = str(payload.get("run"))
        before = self.actions.get(receipt.subject_id)
        if payload.get("tampered") or (before and before.digests[0] != payload["facts"]):
            detail = f"action {receipt.subject_id} had been changed in the database before “{receipt.kind}”"
            yield Problem(receipt.seq, "changed", detail)
        self.actions[receipt.subject_id] = _Proof(receipt.seq, run, (str(payload["facts"]), str(payload.get("state"))))
        if decision := payload.get("decision"):
            self.decisions[str(decision)] = _Proof(receipt.seq, run, (str(payload.get("decision_digest")),))
        if shown := payload.get("batch_digest"):
            self.batches[str(payload.get("batch"))] = _Proof(receipt.seq, run, (str(shown),))
        if execution := payload.get("execution"):
            self.executions[str(payload.get("batch"))] = _Proof(receipt.seq, run, (str(execution),))

    def _viewed(self, receipt: Receipt, payload: dict[str, Any]) -> Iterator[Problem]:
        """What a person was shown must be what was proposed."""
        for action_id, facts in payload.get("actions", {}).items():
            known = self.actions.get(action_id)
            if known is not None and known.digests[0] != facts:
                detail = f"action {action_id} had been changed in the database when {receipt.actor_label} saw it"
                yield Problem(receipt.seq, "changed", detail)

    def missing(self, proofs: dict[str, _Proof], noun: str) -> Iterator[Problem]:
        """Of what is left once every row that exists was taken out."""
        for row_id, proof in proofs.items():
            if proof.run not in self.pruned:
                yield Problem(proof.seq, "missing", f"{noun} {row_id} is not in the database any more")


def _actions(team: Team, said: _Said) -> Iterator[Problem]:
    left = dict(said.actions)
    for row in Action.objects.filter(run__team=team).iterator(chunk_size=AT_ONCE):
        now = (audit.facts_digest(row), audit.state_digest(row))
        yield from _held_against(left.pop(str(row.id), None), now, f"action {row.id}")
    yield from said.missing(left, "action")


def _decisions(team: Team, said: _Said) -> Iterator[Problem]:
    left = dict(said.decisions)
    for row in Decision.objects.filter(action__run__team=team).iterator(chunk_size=AT_ONCE):
        yield from _held_against(left.pop(str(row.id), None), (decision_digest(row),), f"decision {row.id}")
    yield from said.missing(left, "decision")


def _batches(team: Team, said: _Said) -> Iterator[Problem]:
    left = dict(said.batches)
    for row in Batch.objects.filter(run__team=team).iterator(chunk_size=AT_ONCE):
        proof = left.pop(str(row.id), None)
        if proof is not None:  # one without actions asks for nothing
            yield from _batch(row, said, proof, f"batch {row.id}")
    yield from said.missing(left, "batch")


def _batch(row: Batch, said: _Said, proof: _Proof, what: str) -> Iterator[Problem]:
    """Its text as it was proposed, and how it is carried out as it was last decided."""
    yield from _held_against(proof, (audit.batch_digest(row),), what)
    if (chosen := said.executions.get(str(row.id))) is not None:
        yield from _held_against(chosen, (row.execution,), f"how {what} is carried out")


def _held_against(proof: _Proof | None, now: tuple[str, ...], what: str) -> Iterator[Problem]:
    if proof is None:
        yield Problem(0, "unrecorded", f"{what} is in the database, and no receipt says how it came there")
    elif proof.digests != now:
        yield Problem(proof.seq, "changed", f"{what} is not what its latest receipt says")
