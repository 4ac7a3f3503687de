"""What people do to runs. Each change is stored first and rung for after its commit, so a lost ring loses nothing."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pydantic
from django.db import transaction

from accounts import receipts
from accounts.access import Access, Right, get, rows
from runs import breakers, filtering, lifecycle, live, settled, starting, tree
from runs.asked import RunMessage
from runs.doorbell import ring
from runs.engine.types import Mode
from runs.errors import Conflict, Invalid
from runs.models import Agent, Run
from runs.schemas import TASK_BYTES, AgentIn, LimitsIn

MOST_MESSAGE_CHARACTERS = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """What a person asks for. `limits` names only what differs from the agent's own."""

    agent: str
    task: str
    mode: Mode | None = None
    limits: dict[str, Any] | None = None
    task_type: str = ""
    metadata: dict[str, Any] | None = None


def launch(access: Access, wanted: Launch) -> Run:
    """A queued run, rung for on commit. Raises `Invalid` with every field that is wrong."""
    access.require(Right.LAUNCH)
    agent = rows(access, Agent).select_related("current").filter(slug=wanted.agent, current__isnull=False).first()
    definition = AgentIn.model_validate(agent.current.definition) if agent and agent.current else AgentIn(name="none")
    limits, errors = _limits(definition, wanted.limits)
    filters = filtering.filters_of(access.team, definition)
    errors |= _task_errors(wanted, definition)
    if "task" not in errors and (refused := filtering.refused(wanted.task, filters)):
        errors["task"] = refused
    if agent is None:
        raise Invalid({"agent": f"There is no agent “{wanted.agent[:80]}” in this team.", **errors})
    if errors:
        raise Invalid(errors)
    with transaction.atomic():
        run = starting.create(
            access.team,
            agent,
            access.user,
            limits,
            access.user,
            "run.launched",
            task=wanted.task.strip(),
            task_type=wanted.task_type or (definition.task_types[0] if definition.task_types else ""),
            mode=wanted.mode or definition.default_mode,
            metadata=wanted.metadata or {},
        )
        transaction.on_commit(lambda: _changed(run))
    return run


def pause(access: Access, run_id: uuid.UUID | str) -> Run:
    """With everything that works below it."""
    return _change(access, run_id, tree.pause, "run.pause", "paused")


def resume(access: Access, run_id: uuid.UUID | str) -> Run:
    """With everything that was paused with it. One that waits until a model or a tool may be tried again tries now,
    whatever their breakers wait for."""
    run = get(access, Run, run_id, right=Right.LAUNCH)
    if not lifecycle.parked(run.id).exists():
        return _change(access, run_id, tree.resume, "run.resume", "resumed")
    for each in breakers.connections(run.team_id, AgentIn.model_validate(run.agent_version.definition)):
        if each.unavailable:
            breakers.try_now(run.team_id, each.name)
    return _change(access, run_id, lambda parked: [] if lifecycle.hurry(parked) else None, "run.resume", "resumed")


def cancel(access: Access, run_id: uuid.UUID | str) -> Run:
    run = get(access, Run, run_id, right=Right.LAUNCH)
    if settled.cancel_idle(run.id, access.user) is None:
        raise _conflict(run, "cancelled")
    _announce(run)
    run.refresh_from_db()
    return run


def steer(access: Access, run_id: uuid.UUID | str, text: str) -> RunMessage:
    """Told to the agent before its next model call."""
    run = get(access, Run, run_id, right=Right.LAUNCH)
    text = text.strip()
    if not text:
        raise Invalid({"text": "Write what the agent should know."})
    if len(text) > MOST_MESSAGE_CHARACTERS:
        raise Invalid({"text": f"At most {MOST_MESSAGE_CHARACTERS:,} characters; this has {len(text):,}."})
    if run.is_ended:
        raise _conflict(run, "steered")
    message = RunMessage(run=run, sender=access.user)
    filtering.keep_message(message, text, filtering.filters_for(run))
    message.save(force_insert=True)
    live.ring(run.id, run.last_seq)
    return message


# --- helpers ---------------------------------------------------------------------------------------------------------


def _limits(definition: AgentIn, wanted: dict[str, Any] | None) -> tuple[LimitsIn, dict[str, str]]:
    """The agent's limits with those the person changed, and what is wrong with these. People may raise them for a run;
    the cap that they can't raise is the team's month."""
    try:
        return LimitsIn.model_validate({**definition.limits.model_dump(), **(wanted or {})}), {}
    except pydantic.ValidationError as error:
        return definition.limits, {".".join(("limits", *map(str, e["loc"]))): e["msg"] for e in error.errors()}


def _task_errors(wanted: Launch, definition: AgentIn) -> dict[str, str]:
    errors: dict[str, str] = {}
    size = len(wanted.task.encode("utf-8", "surrogatepass"))
    if not wanted.task.strip():
        errors["task"] = "Write what the agent should do."
    elif size > TASK_BYTES:
        errors["task"] = f"The task is {size // 1000:,} kB long; at most {TASK_BYTES // 1000} kB are allowed."
    elif "\x00" in wanted.task:
        errors["task"] = "The task contains a NUL character."
    if wanted.task_type and definition.task_types and wanted.task_type not in definition.task_types:
        errors["task_type"] = f"One of: {', '.join(definition.task_types)}."
    return errors


def _change(
    access: Access,
    run_id: uuid.UUID | str,
    change: Callable[[uuid.UUID], list[uuid.UUID] | None],
    kind: str,
    done: str,
) -> Run:
    run = get(access, Run, run_id, right=Right.LAUNCH)
    with transaction.atomic():
        # Held, so that the worker can't park it between the two states that the change looks at.
        Run.objects.select_for_update().get(id=run.id)
        changed = change(run.id)
        if changed is None:
            raise _conflict(run, done)
        _receipt(run, kind, access)
    run.refresh_from_db()
    for each in (run, *Run.objects.filter(id__in=changed)):
        _changed(each)
    return run


def _changed(run: Run) -> None:
    if run.status == "queued":
        ring(run.id)
    _announce(run)


def _announce(run: Run) -> None:
    live.ring(run.id, run.last_seq)
    live.ring_inbox(run.team_id)


def _conflict(run: Run, what: str) -> Conflict:
    run.refresh_from_db(fields=["status"])
    return Conflict(f"The run is {run.status} and can't be {what}.", status=run.status)


def _receipt(run: Run, kind: str, access: Access) -> None:
    receipts.append(
        run.team_id,
        kind,
        actor=access.user,
        subject_type="run",
        subject_id=run.id,
        payload={"agent": run.agent.slug, "mode": str(run.mode)},
    )
