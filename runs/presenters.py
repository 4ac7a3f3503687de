"""The JSON shapes of CONTRACT: run, step, agent, tool. Money as decimal strings, times as RFC 3339 in UTC."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from django.db.models import QuerySet
from django.utils import timezone

from accounts.models import User
from runs import family
from runs.asked import Note
from runs.catalog import CatalogEntry
from runs.engine.types import RunStatus
from runs.family import Below
from runs.models import Agent, AgentVersion, Run, Step, ToolServer
from runs.schemas import AgentIn


def time(value: dt.datetime | None) -> str | None:
    return value.astimezone(dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z") if value else None


def money(value: Decimal | None) -> str | None:
    """Plain digits, no exponent; cents at least, more only where they are not zero."""
    if value is None:
        return None
    if not value:
        return "0.00"
    text = f"{value:.9f}".rstrip("0")
    whole, _, cents = text.partition(".")
    return f"{whole}.{cents.ljust(2, '0')}"


_NAMED = (
    ("agent", Agent, {"id", "slug"}),
    ("agent_version", AgentVersion, {"id", "number", "agent"}),
    ("owner", User, {"id", "username", "first_name", "last_name"}),
)
_NOT_SHOWN = [
    f"{relation}__{field.name}"
    for relation, model, shown in _NAMED
    for field in model._meta.concrete_fields
    if field.name not in shown
]


def named(runs: QuerySet[Run]) -> QuerySet[Run]:
    """With what `runs_json` says of agent, version and owner and nothing else of them: a list would read an agent's
    whole definition, with its prompt, once for each row."""
    return runs.select_related(*(relation for relation, _, _ in _NAMED)).defer(*_NOT_SHOWN)


def run_json(run: Run) -> dict[str, Any]:
    """Needs agent, agent_version and owner selected, as `named` does."""
    return runs_json([run])[0]


def runs_json(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """As `run_json`, with few queries whatever their number."""
    below = family.below([run.id for run in runs])
    return [_run_json(run, below[run.id]) for run in runs]


def _run_json(run: Run, below: Below) -> dict[str, Any]:
    return {
        "id": str(run.id),
        "number": run.number,
        "agent": run.agent.slug,
        "agent_version": run.agent_version.number,
        "task": run.task,
        "task_type": run.task_type,
        "mode": run.mode,
        "simulated": run.simulated,
        "status": run.status,
        "stop_reason": run.stop_reason,
        "stop_detail": run.stop_detail,
        "result": run.result,
        "plan": run.plan or {"steps": []},
        "limits": {
            "max_steps": run.max_steps,
            "max_input_tokens": run.max_input_tokens,
            "max_output_tokens": run.max_output_tokens,
            "max_cost_usd": money(run.max_cost_usd),
            "max_seconds": run.max_seconds,
        },
        "totals": {**totals_json(run), "sub_agents": _below_json(below)},
        "metadata": run.metadata,
        "parent": str(run.parent_id) if run.parent_id else None,
        "forked_from": str(run.forked_from_id) if run.forked_from_id else None,
        "owner": run.owner.username,
        "created_at": time(run.created_at),
        "started_at": time(run.started_at),
        "due_at": time(run.due_at) if run.status == RunStatus.QUEUED else None,
        "ended_at": time(run.ended_at),
    }


def _below_json(below: Below) -> dict[str, Any]:
    """Beside a run's own totals, not in them: so the sum over a list of runs counts everything once."""
    return {**{name: getattr(below, name) for name in _BELOW}, "cost_usd": money(below.cost_usd)}


_BELOW = tuple(field.name for field in dataclasses.fields(Below))


def totals_json(run: Run) -> dict[str, Any]:
    """The run's own."""
    return {
        "steps": run.work_steps,
        "model_calls": run.model_calls,
        "tool_calls": run.tool_calls,
        "input_tokens": run.input_tokens,
        "output_tokens": run.output_tokens,
        "cache_read_tokens": run.cache_read_tokens,
        "cache_write_tokens": run.cache_write_tokens,
        "cost_usd": money(run.cost_usd),
        "unpriced_steps": run.unpriced_steps,
        "lowest_score": run.lowest_score,
        "duration_ms": duration_ms(run),
        "wait_ms": waited_ms(run),
    }


def duration_ms(run: Run) -> int:
    """From the first claim to the end, or to now."""
    if run.started_at is None:
        return 0
    return max(0, round(((run.ended_at or timezone.now()) - run.started_at).total_seconds() * 1000))


def waited_ms(run: Run) -> int:
    """Time spent waiting for people, the wait that still goes on included."""
    since = run.waiting_since
    return run.wait_ms + (round((timezone.now() - since).total_seconds() * 1000) if since else 0)


def step_json(step: Step) -> dict[str, Any]:
    """Needs the payload selected."""
    return {
        "seq": step.seq,
        "kind": step.kind,
        "title": step.title,
        "summary": step.summary,
        "tool": step.tool or None,
        "tool_call_id": step.tool_call_id or None,
        "status": step.status,
        "input": step.payload.input,
        "output": step.payload.output,
        "reasoning": step.payload.reasoning,
        "confidence": step.confidence,
        "score": step.score,
        "model": step.model or None,
        "input_tokens": step.input_tokens,
        "output_tokens": step.output_tokens,
        "cache_read_tokens": step.cache_read_tokens,
        "cache_write_tokens": step.cache_write_tokens,
        "cost_usd": money(step.cost_usd),
        "duration_ms": step.duration_ms,
        "started_at": time(step.started_at),
        "error": step.payload.error or None,
        "attempt": step.attempt,
        "child_run": str(step.child_run_id) if step.child_run_id else None,
    }


def note_json(note: Note) -> dict[str, Any]:
    """Needs author and step selected. `seq` is null for a note on the run as a whole."""
    return {
        "id": str(note.id),
        "seq": note.step.seq if note.step else None,
        "text": note.text,
        "score": note.score,
        "author": note.author.username,
        "created_at": time(note.created_at),
        "edited_at": time(note.edited_at),
    }


def agent_json(agent: Agent, version: AgentVersion | None) -> dict[str, Any]:
    """An agent has a version from its first save on."""
    if version is None:
        raise ValueError(f"agent {agent.slug} was never saved")
    definition = AgentIn.model_validate(version.definition).model_dump(mode="json")
    limits = definition["limits"]
    limits["max_cost_usd"] = money(Decimal(limits["max_cost_usd"])) if limits["max_cost_usd"] is not None else None
    definition["tools"] = [_stated(tool) for tool in definition["tools"]]
    return {
        "slug": agent.slug,
        "version": version.number,
        **definition,
        "created_at": time(agent.created_at),
        "updated_at": time(version.created_at),
    }


def _stated(tool: dict[str, Any]) -> dict[str, Any]:
    """A tool's line; of the optional parts of a policy only those that it has."""
    always = ("name", "policy", "threshold", "risk", "timeout_s")
    return {name: value for name, value in tool.items() if name in always or value not in (None, [])}


def tool_json(entry: CatalogEntry) -> dict[str, Any]:
    spec = entry.spec
    return {
        "name": spec.name,
        "description": spec.description,
        "input_schema": spec.input_schema,
        "effect": spec.effect.value,
        "risk": spec.risk.value,
        "idempotent": spec.idempotent,
        "can_plan": spec.can_plan,
        "can_undo": spec.can_undo,
        "server": spec.server or None,
        "version": spec.version,
    }


def server_json(server: ToolServer) -> dict[str, Any]:
    """Never its configuration: that holds secrets."""
    return {
        "slug": server.slug,
        "transport": server.transport,
        "checked_at": time(server.checked_at),
        "tools": [
            {
                "name": f"{server.slug}.{tool['name']}",
                "description": tool["description"],
                "hints": {"effect": tool["effect"], "idempotent": tool["idempotent"], "risk": tool["risk"]},
                "twins": {name: tool[name] for name in ("plan", "reconcile", "undo") if tool[name]},
            }
            for tool in server.tools
        ],
    }
