"""Runs with journals, as the reading side finds them."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

from accounts.models import Membership, Team, User
from accounts.schemas import Role
from runs import documents
from runs.models import Action, Agent, AgentVersion, Batch, Run, Step, StepPayload

T0 = dt.datetime(2026, 3, 12, 12, 10, tzinfo=dt.UTC)


def make_team(slug: str = "harborpine", name: str = "Harbor & Pine") -> Team:
    return Team.objects.create(slug=slug, name=name)


def make_user(
    team: Team, username: str = "dana", first: str = "Dana", last: str = "Okafor", role: Role = Role.ADMIN
) -> User:
    user = User.objects.create_user(username, f"{username}@harborpine.example", first_name=first, last_name=last)
    Membership.objects.create(team=team, user=user, role=role)
    return user


def make_agent(team: Team, slug: str = "refund-desk", name: str = "Refund desk") -> Agent:
    agent = Agent.objects.create(team=team, slug=slug)
    agent.current = AgentVersion.objects.create(agent=agent, number=1, definition={"name": name})
    agent.save()
    return agent


def make_run(agent: Agent, owner: User, *, created: dt.datetime = T0, seconds: float | None = 60, **fields: Any) -> Run:
    """A completed run unless told otherwise; `seconds` None leaves it running."""
    number = Run.objects.filter(team=agent.team).count() + 1
    ended = None if seconds is None else created + dt.timedelta(seconds=seconds)
    values: dict[str, Any] = {
        "team": agent.team,
        "agent": agent,
        "agent_version": agent.current,
        "owner": owner,
        "number": number,
        "task": "Work through the late deliveries",
        "mode": "batch",
        "status": "running" if ended is None else "completed",
        "stop_reason": None if ended is None else "done",
        "started_at": created,
        "ended_at": ended,
    }
    run = Run.objects.create(**{**values, **fields})
    Run.objects.filter(id=run.id).update(created_at=created)
    run.refresh_from_db()
    documents.write_run(run)
    return run


def make_step(run: Run, kind: str = "tool", *, after: float = 0, **fields: Any) -> Step:
    """The next step of a run, with its payload; keeps the run's totals as the store does."""
    payload = {name: fields.pop(name) for name in ("input", "output", "reasoning", "error") if name in fields}
    run.last_seq += 1
    begun = (run.started_at or run.created_at) + dt.timedelta(seconds=after)
    values: dict[str, Any] = {
        "kind": kind,
        "status": "ok",
        "title": "Decide" if kind == "model" else fields.get("tool") or kind,
        "key": f"{kind}:{run.last_seq}",
        "cost_usd": Decimal(0),
        "started_at": begun,
        "duration_ms": 1000,
    }
    step = Step.objects.create(run=run, seq=run.last_seq, **{**values, **fields})
    documents.write_step(run, step, StepPayload.objects.create(step=step, **payload))
    _add_to_totals(run, step)
    return step


def _add_to_totals(run: Run, step: Step) -> None:
    run.work_steps += step.kind in ("plan", "model", "tool", "evaluate", "delegate")
    run.lowest_score = min((s for s in (run.lowest_score, step.score) if s is not None), default=None)
    run.unpriced_steps += step.cost_usd is None
    run.input_tokens += step.input_tokens
    run.output_tokens += step.output_tokens
    run.cache_read_tokens += step.cache_read_tokens
    run.cache_write_tokens += step.cache_write_tokens
    run.cost_usd += step.cost_usd or Decimal(0)
    run.save()


def make_model_step(run: Run, cost: str | None = "0.05", **fields: Any) -> Step:
    values: dict[str, Any] = {
        "model": "claude-sonnet-5-5",
        "input_tokens": 2_800,
        "cache_read_tokens": 20_400,
        "cache_write_5m_tokens": 3_100,
        "output_tokens": 1_180,
        "price_id": "genai-prices/anthropic/claude-sonnet-5-5",
        "cost_usd": None if cost is None else Decimal(cost),
        "output": {"content": [{"type": "text", "text": "I will ask the carrier again."}], "stop_reason": "tool_use"},
    }
    return make_step(run, "model", **{**values, **fields})


def make_action(run: Run, *, risk: str = "high", status: str = "rejected", **fields: Any) -> Action:
    number = run.batches.count() + 1
    batch = Batch.objects.create(run=run, number=number, key=f"queue:{number}", title="1 thing", expires_at=T0)
    values: dict[str, Any] = {
        "intent": f"{number}:0",
        "tool_call_id": "call",
        "position": 1,
        "tool": "shop.issue_refund",
        "tool_version": "1",
        "args": {},
        "digest": "0" * 64,
        "title": "Refund $84.00",
        "policy_version": "1",
        "route_reason": "it needs a person",
    }
    return Action.objects.create(run=run, batch=batch, risk=risk, status=status, **{**values, **fields})
