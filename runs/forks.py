"""Forks: a run that goes on from a step of another one, with another prompt, agent, model or tool output.

What comes before is replayed from copies of its steps, which cost nothing again; nothing is executed again. Effects
that were carried out stay the other run's: their actions are looked up there, never copied (`verdicts.py`).
"""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass, field
from typing import Any, Final

from django.db import transaction

from accounts.access import Access, Right, get, rows
from accounts.ids import new_id
from runs import documents, filtering, live, starting
from runs.asked import RunMessage
from runs.doorbell import ring
from runs.engine.context import as_text
from runs.engine.forking import Entry, replayed
from runs.engine.types import StepKind, StepStatus
from runs.errors import Invalid
from runs.models import Agent, Run, SearchDocument, Step, StepPayload
from runs.schemas import TASK_BYTES, LimitsIn
from runs.storable import storable

SAME: Final = object()
LARGEST_OUTPUT = 1_000_000  # bytes of JSON
WITH_OUTPUT = (StepKind.TOOL,)
_PAYLOAD = ("input", "output", "reasoning", "error", "sealed")
_COPIED = (
    *("kind", "status", "title", "summary", "tool", "tool_call_id"),
    *("confidence", "score", "attempt", "plan_step", "child_run_id"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fork:
    """`from_seq` is the first step that is made anew; with `replace_output` the one whose output is another."""

    from_seq: int
    agent: str = ""
    task: str = ""
    model: str = ""
    replace_output: Any = field(default=SAME)


def fork(access: Access, run_id: uuid.UUID | str, wanted: Fork) -> Run:
    """Raises `Invalid` with every field that is wrong."""
    access.require(Right.LAUNCH)
    origin = get(access, Run.objects.select_related("agent", "agent_version", "team"), run_id, right=Right.LAUNCH)
    agent = _agent(access, origin, wanted)
    steps = list(origin.steps.select_related("payload").order_by("seq"))
    replaces = wanted.replace_output is not SAME
    errors = _errors(origin, steps, wanted) | ({} if agent else {"agent": f"There is no agent “{wanted.agent[:80]}”."})
    entries = [Entry(step.seq, step.key, StepKind(step.kind)) for step in steps]
    kept = {entry.seq for entry in replayed(entries, wanted.from_seq if replaces else wanted.from_seq - 1)}
    if replaces and not errors and wanted.from_seq not in kept:
        errors["from_seq"] = "This step is part of a question to people or of the end: fork from an earlier one."
    if errors or agent is None:
        raise Invalid(errors)
    with transaction.atomic():
        made = starting.create(
            origin.team,
            agent,
            access.user,
            LimitsIn(**{name: getattr(origin, name) for name in LimitsIn.model_fields if hasattr(origin, name)}),
            access.user,
            "run.forked",
            forked_from=origin,
            forked_seq=len(kept),
            last_seq=len(kept),
            lowest_score=min((s.score for s in steps if s.seq in kept and s.score is not None), default=None),
            task=wanted.task.strip() or filtering.task_of(origin),
            task_type=origin.task_type,
            mode=origin.mode,
            model=wanted.model.strip() or (origin.model if not wanted.agent else ""),
            metadata=origin.metadata,
            plan=origin.plan if any(step.key == "plan" and step.seq in kept for step in steps) else None,
        )
        _copy(made, [step for step in steps if step.seq in kept], wanted)
        transaction.on_commit(lambda: _announce(made), robust=True)
    return made


def _copy(made: Run, steps: list[Step], wanted: Fork) -> None:
    """The steps under numbers of their own. Nothing of them is done or paid again: no cost, and no time."""
    messages = _copy_messages(made, steps)
    copies, payloads = [], []
    for number, step in enumerate(steps, 1):
        copy = Step(
            run=made,
            seq=number,
            key=messages.get(step.key, step.key),
            model=step.model,
            started_at=made.created_at,
            cost_usd=0,
            price_id="replayed",
            **{name: getattr(step, name) for name in _COPIED},
        )
        payload = StepPayload(step=copy, **{name: getattr(step.payload, name) for name in _PAYLOAD})
        if step.seq == wanted.from_seq and wanted.replace_output is not SAME:
            payload.output, payload.sealed = storable(wanted.replace_output), None
            copy.status, payload.error = StepStatus.OK, ""
            copy.summary = " ".join(as_text(payload.output).split())[:300]
        copies.append(copy)
        payloads.append(payload)
    Step.objects.bulk_create(copies)
    StepPayload.objects.bulk_create(payloads)
    SearchDocument.objects.bulk_create(
        [documents.step_document(made, copy, payload) for copy, payload in zip(copies, payloads, strict=True)]
    )


def _copy_messages(made: Run, steps: list[Step]) -> dict[str, str]:
    """What people told the other run within those steps. Returns the copies' keys by the keys of what they copy."""
    keys = {step.key.removeprefix("message:"): step for step in steps if step.kind == StepKind.MESSAGE}
    found = {}
    for message in RunMessage.objects.filter(id__in=keys):
        copy = RunMessage(id=new_id(), run=made, sender_id=message.sender_id, text=message.text, sealed=message.sealed)
        copy.delivered_seq = next(n for n, step in enumerate(steps, 1) if step is keys[str(message.id)])
        copy.save(force_insert=True)
        found[f"message:{message.id}"] = f"message:{copy.id}"
    return found


def _agent(access: Access, origin: Run, wanted: Fork) -> Agent | None:
    slug = wanted.agent or origin.agent.slug
    return rows(access, Agent).select_related("current").filter(slug=slug, current__isnull=False).first()


def _errors(origin: Run, steps: list[Step], wanted: Fork) -> dict[str, str]:
    errors = {}
    if not 1 <= wanted.from_seq <= max(1, origin.last_seq):
        errors["from_seq"] = f"A step from 1 to {max(1, origin.last_seq)}."
    if len(wanted.task.encode("utf-8", "surrogatepass")) > TASK_BYTES:
        errors["task"] = f"At most {TASK_BYTES // 1000} kB are allowed."
    elif "\x00" in wanted.task:
        errors["task"] = "The task contains a NUL character."
    if len(wanted.model) > 120:
        errors["model"] = "At most 120 characters."
    if wanted.replace_output is SAME:
        return errors
    if not any(step.seq == wanted.from_seq and step.kind in WITH_OUTPUT for step in steps):
        errors["replace_output"] = "Only the output of a tool's step can be replaced."
    elif len(json.dumps(storable(wanted.replace_output), ensure_ascii=False).encode()) > LARGEST_OUTPUT:
        errors["replace_output"] = f"At most {LARGEST_OUTPUT // 1000:,} kB."
    return errors


def _announce(run: Run) -> None:
    ring(run.id)
    live.ring(run.id, run.last_seq)
    live.ring_inbox(run.team_id)
