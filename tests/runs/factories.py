"""Rows for the tests of the run pages: a team with its people, an agent with tools, runs with steps."""

from __future__ import annotations

import datetime as dt
import itertools
import uuid
from decimal import Decimal
from typing import Any, NamedTuple

from django.test import Client
from django.utils import timezone

from accounts.access import Access, access_for_user
from accounts.models import Membership, Team, User
from accounts.schemas import Role
from runs import documents
from runs.engine.types import ActionStatus, JsonObject, Risk
from runs.models import Action, Agent, AgentVersion, Batch, Run, Step, StepPayload, ToolServer
from runs.verdicts import digest_of

numbers = itertools.count(1)
PEOPLE: dict[str, tuple[str, str, str, Role]] = {
    "admin": ("dana", "Dana", "Okafor", Role.ADMIN),
    "approver": ("marco", "Marco", "Ruiz", Role.APPROVER),
    "operator": ("ana", "Ana", "Lind", Role.OPERATOR),
    "viewer": ("noor", "Noor", "Haddad", Role.VIEWER),
}
HOSTILE = '<script>alert(1)</script>\u202e & "quotes"'
WORK = ("plan", "model", "tool", "evaluate", "delegate")
TOOLS: list[JsonObject] = [
    {"name": "issue_refund", "effect": "irreversible", "risk": "critical", "version": "1"},
    {"name": "update_customer", "effect": "write", "risk": "medium", "version": "1"},
    {"name": "read_ticket", "effect": "read", "risk": "low", "version": "1"},
    {"name": "get_order", "effect": "read", "risk": "low", "version": "1"},
]
DEFINITION: JsonObject = {
    "name": "Refund desk",
    "purpose": "Works through refund requests.",
    "instructions": "Read the policy first.\nRefund to the original card.",
    "planning": True,
    "default_mode": "batch",
    "tools": [
        {"name": "shop.read_ticket", "policy": "auto"},
        {"name": "shop.update_customer", "policy": "confidence", "threshold": 0.9},
        {"name": "shop.issue_refund", "policy": "review"},
        {"name": "shop.get_order", "policy": "auto"},
    ],
}
PLAN: JsonObject = {
    "steps": [
        {
            "title": "Read the requests",
            "status": "done",
            "needs_person": False,
            "assumptions": [{"text": "The policy names a window", "check": "", "status": "held"}],
        },
        {"title": "Issue refunds", "status": "running", "needs_person": True, "assumptions": []},
    ]
}


class World(NamedTuple):
    team: Team
    people: dict[str, User]
    outsider: User
    agent: Agent

    def access(self, who: str) -> Access:
        return access_for_user(self.people[who])

    def client(self, who: str) -> Client:
        client = Client()
        if who != "anonymous":
            user = self.outsider if who == "outsider" else self.people[who]
            client.force_login(user, backend="django.contrib.auth.backends.ModelBackend")
        return client


def make_world(**definition: Any) -> World:
    number = next(numbers)
    team = Team.objects.create(slug=f"harborpine-{number}", name="Harbor & Pine")
    other = Team.objects.create(slug=f"elsewhere-{number}", name="Elsewhere")
    people = {
        key: _person(team, f"{name}{number}", first, last, role) for key, (name, first, last, role) in PEOPLE.items()
    }
    ToolServer.objects.create(
        team=team, slug="shop", transport="stdio", config=b"", tools=TOOLS, checked_at=timezone.now()
    )
    return World(
        team, people, _person(other, f"otto{number}", "Otto", "Brand", Role.ADMIN), make_agent(team, **definition)
    )


def text_of(response: Any) -> str:
    return str(response.content.decode())


def _person(team: Team, username: str, first: str, last: str, role: Role) -> User:
    user = User.objects.create_user(username, f"{username}@harborpine.example", first_name=first, last_name=last)
    Membership.objects.create(team=team, user=user, role=role)
    return user


def make_agent(
    team: Team, slug: str = "refund-desk", sample_task: str = "Work through today's requests.", **definition: Any
) -> Agent:
    agent = Agent.objects.create(team=team, slug=slug, sample_task=sample_task)
    agent.current = AgentVersion.objects.create(agent=agent, number=1, definition={**DEFINITION, **definition})
    agent.save()
    return agent


def make_run(world: World, **fields: Any) -> Run:
    """A running run unless told otherwise; ended ones get the time and reason they need."""
    now = timezone.now()
    values: dict[str, Any] = {
        "team": world.team,
        "agent": world.agent,
        "agent_version": world.agent.current,
        "owner": world.people["operator"],
        "number": Run.objects.filter(team=world.team).count() + 1,
        "task": "Work through the late deliveries",
        "mode": "batch",
        "status": "running",
        "started_at": now - dt.timedelta(minutes=5),
        "max_cost_usd": Decimal("1.50"),
        "max_steps": 60,
        "max_input_tokens": 600_000,
        "max_output_tokens": 60_000,
        **fields,
    }
    if values["status"] in {"completed", "stopped", "failed", "cancelled", "dry_run_ready"}:
        values = {"stop_reason": "done", "ended_at": now, **values}
    run = Run.objects.create(**values)
    documents.write_run(run)
    return run


def make_step(run: Run, kind: str = "tool", **fields: Any) -> Step:
    """The next step of a run with its payload, and the run's totals as the store keeps them."""
    payload = {name: fields.pop(name) for name in ("input", "output", "reasoning", "error") if name in fields}
    run.last_seq += 1
    values: dict[str, Any] = {
        "kind": kind,
        "status": "ok",
        "title": "shop.read_ticket" if kind == "tool" else kind.capitalize(),
        "summary": f"What step {run.last_seq} found",
        "key": f"{kind}:{run.last_seq}",
        "cost_usd": Decimal(0),
        "started_at": timezone.now(),
        "duration_ms": 1200,
        **fields,
    }
    step = Step.objects.create(run=run, seq=run.last_seq, **values)
    documents.write_step(run, step, StepPayload.objects.create(step=step, **payload))
    run.work_steps += kind in WORK
    run.cost_usd += step.cost_usd or Decimal(0)
    Run.objects.filter(id=run.id).update(last_seq=run.last_seq, work_steps=run.work_steps, cost_usd=run.cost_usd)
    return step


def make_batch(run: Run, key: str = "queue:1", actions: int = 1, **fields: Any) -> Batch:
    batch = Batch.objects.create(
        run=run,
        key=key,
        number=run.batches.count() + 1,
        title=f"Refund desk wants to do {actions} things",
        expires_at=timezone.now() + dt.timedelta(minutes=30),
        **fields,
    )
    for _ in range(actions):
        make_action(run, batch)
    return batch


def make_action(run: Run, batch: Batch | None = None, **fields: Any) -> Action:
    number = next(numbers)
    values: dict[str, Any] = {
        "kind": "action",
        "intent": f"{number}:0",
        "tool_call_id": f"call_{number}",
        "position": number,
        "tool": "shop.issue_refund",
        "tool_version": "1",
        "args": {"order": "48213", "amount": 84.0},
        "title": "Refund $84.00 to Ines Carvalho",
        "risk": Risk.CRITICAL,
        "irreversible": True,
        "policy_version": "refund-desk@1",
        "route_reason": "this tool always needs a person",
        "needed": 1,
        "status": ActionStatus.PENDING,
        "expires_at": batch.expires_at if batch else None,
        **fields,
    }
    action = Action(id=uuid.uuid4(), run=run, batch=batch, **values)
    action.digest = digest_of(action)
    action.save(force_insert=True)
    return action
