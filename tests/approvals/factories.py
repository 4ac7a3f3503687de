"""Rows for the tests of the inbox: a team with its people, an agent, a run that waits, a batch with actions."""

from __future__ import annotations

import datetime as dt
import itertools
import uuid
from typing import Any, NamedTuple

from django.test import Client
from django.utils import timezone

from accounts.access import Access, access_for_user
from accounts.models import Membership, Team, User
from accounts.schemas import Role
from approvals.inbox import Line
from approvals.models import Verdict
from runs import previews
from runs.engine.types import ActionStatus, JsonObject, Mode, Risk, RunStatus
from runs.models import Action, Agent, AgentVersion, Batch, Run, ToolServer
from runs.verdicts import digest_of

numbers = itertools.count(1)

PEOPLE = {
    "admin": ("dana", "Dana", "Okafor", Role.ADMIN),
    "approver": ("marco", "Marco", "Ruiz", Role.APPROVER),
    "second": ("lea", "Lea", "Moreau", Role.APPROVER),
    "operator": ("ana", "Ana", "Lind", Role.OPERATOR),
    "viewer": ("noor", "Noor", "Haddad", Role.VIEWER),
}

REFUND_SCHEMA: JsonObject = {
    "type": "object",
    "properties": {
        "order": {"type": "string"},
        "amount": {"type": "number", "exclusiveMinimum": 0, "maximum": 1000},
        "reason": {"type": "string"},
    },
    "required": ["order", "amount", "reason"],
    "additionalProperties": False,
}
EMAIL_SCHEMA: JsonObject = {
    "type": "object",
    "properties": {
        "to": {"type": "string"},
        "subject": {"type": "string", "maxLength": 200},
        "body": {"type": "string", "maxLength": 20000},
    },
    "required": ["to", "subject", "body"],
    "additionalProperties": False,
}
UPDATE_SCHEMA: JsonObject = {
    "type": "object",
    "properties": {"customer": {"type": "string"}, "changes": {"type": "object", "minProperties": 1}},
    "required": ["customer", "changes"],
}
TOOLS: list[JsonObject] = [
    {
        "name": "issue_refund",
        "input_schema": REFUND_SCHEMA,
        "effect": "irreversible",
        "risk": "critical",
        "version": "1",
    },
    {"name": "send_email", "input_schema": EMAIL_SCHEMA, "effect": "irreversible", "risk": "high", "version": "1"},
    {"name": "update_customer", "input_schema": UPDATE_SCHEMA, "effect": "write", "risk": "medium", "version": "1"},
]
DEFINITION: JsonObject = {
    "name": "Refund desk",
    "tools": [
        {"name": "shop.issue_refund", "policy": "review", "risk": "critical"},
        {"name": "shop.send_email", "policy": "review", "risk": "high"},
        {"name": "shop.update_customer", "policy": "confidence", "threshold": 0.9, "risk": "medium"},
    ],
}


class World(NamedTuple):
    team: Team
    people: dict[str, User]
    outsider: User
    agent: Agent
    server: ToolServer

    def access(self, who: str) -> Access:
        return access_for_user(self.outsider if who == "outsider" else self.people[who])

    def client(self, who: str) -> Client:
        client = Client()
        if who != "anonymous":
            user = self.outsider if who == "outsider" else self.people[who]
            client.force_login(user, backend="django.contrib.auth.backends.ModelBackend")
        return client


def make_world(definition: JsonObject | None = None) -> World:
    team = Team.objects.create(slug="harborpine", name="Harbor & Pine")
    people = {name: make_person(team, *details) for name, details in PEOPLE.items()}
    outsider = make_person(Team.objects.create(slug="elsewhere", name="Elsewhere"), "otto", "Otto", "Brand", Role.ADMIN)
    agent = Agent.objects.create(team=team, slug="refund-desk")
    agent.current = AgentVersion.objects.create(agent=agent, number=1, definition=definition or DEFINITION)
    agent.save()
    server = ToolServer.objects.create(
        team=team, slug="shop", transport="stdio", config=b"", tools=TOOLS, checked_at=timezone.now()
    )
    return World(team, people, outsider, agent, server)


def define(world: World, definition: JsonObject) -> None:
    """Another policy for the world's agent."""
    AgentVersion.objects.filter(agent=world.agent).update(definition=definition)


def make_person(team: Team, username: str, first: str, last: str, role: Role) -> User:
    user = User.objects.create_user(username, f"{username}@harborpine.example", first_name=first, last_name=last)
    Membership.objects.create(team=team, user=user, role=role)
    return user


def make_run(world: World, **fields: Any) -> Run:
    """A run parked until people decide."""
    return Run.objects.create(
        **{
            "team": world.team,
            "number": next(numbers),
            "agent": world.agent,
            "agent_version": world.agent.current,
            "owner": world.people["operator"],
            "task": "Work through the open requests tagged damaged-in-transit.",
            "mode": Mode.BATCH,
            "status": RunStatus.WAITING,
            "waiting_since": timezone.now(),
            **fields,
        }
    )


def make_batch(world: World, run: Run | None = None, **fields: Any) -> Batch:
    return make_batch_of(run or make_run(world), **fields)


def make_batch_of(run: Run, *, minutes: float = 60, **fields: Any) -> Batch:
    number = next(numbers)
    return Batch.objects.create(
        **{
            "run": run,
            "key": f"queue:{number}",
            "number": number,
            "title": "Refund desk wants to do 3 things",
            "why": "Both photos show a dented body and the carrier logged a drop at the depot.",
            "expires_at": timezone.now() + dt.timedelta(minutes=minutes),
            **fields,
        }
    )


def make_action(batch: Batch, tool: str = "shop.issue_refund", args: JsonObject | None = None, **fields: Any) -> Action:
    number = next(numbers)
    action = Action(
        **{
            "run": batch.run,
            "batch": batch,
            "intent": f"{number}:0",
            "tool_call_id": f"toolu_{number}",
            "position": number,
            "tool": tool,
            "tool_version": "1",
            "args": {"order": "48213", "amount": 84.0, "reason": "Dented in transit"} if args is None else args,
            "risk": Risk.CRITICAL,
            "policy_version": "refund-desk@1",
            "route_reason": "this tool always needs a person",
            "reasoning": "The kettle line of the order is $84.00.",
            "confidence": 0.96,
            "irreversible": True,
            "needed": 1,
            "status": ActionStatus.PENDING,
            "expires_at": batch.expires_at,
            **fields,
        }
    )
    action.digest = fields.get("digest") or digest_of(action)
    if "title" not in fields:
        previews.describe(action)
    action.save(force_insert=True)
    return action


def make_refund(
    batch: Batch, amount: float = 84.0, to: str = "Ines Carvalho", order: str = "48213", **fields: Any
) -> Action:
    preview = {
        "type": "amount",
        "amount": f"{amount:.2f}",
        "currency": "USD",
        "to": to,
        "method": "Visa ending 4412",
        "method_note": "the card used for the order",
        "lines": [
            {"label": f"Order #{order}", "amount": "129.00"},
            {"label": "Refunded before", "amount": "0.00"},
            {"label": "This refund", "amount": f"{amount:.2f}"},
            {"label": "Stays paid", "amount": f"{129 - amount:.2f}"},
        ],
    }
    args = {"order": order, "amount": amount, "reason": "Dented in transit"}
    return make_action(
        batch,
        args=args,
        preview=preview,
        plan_summary=f"Refund ${amount:.2f} to {to}",
        preconditions={"order": order, "refunded": "0.00"},
        **fields,
    )


def make_email(batch: Batch, to: str = "ines.carvalho@example.com", body: str = "", **fields: Any) -> Action:
    body = body or (
        "Hello Ines,\n\nI am sorry your kettle reached you dented. Your photos show it clearly, so there is nothing"
        " more you need to send us.\n\nWe have refunded $84.00 to your Visa ending 4412.\n\n"
        "Kind regards,\nHarbor & Pine customer care"
    )
    args = {"to": to, "subject": "Your refund for order 48213", "body": body}
    preview = {"type": "email", "from": "care@harborpine.example", "outside": True, **args}
    return make_action(
        batch,
        "shop.send_email",
        args,
        preview=preview,
        plan_summary="Email Ines Carvalho",
        risk=Risk.HIGH,
        confidence=0.93,
        **fields,
    )


def make_update(batch: Batch, **fields: Any) -> Action:
    args = {"customer": "C-20917", "changes": {"damage_claims_12m": 1, "preferred_contact": "email"}}
    preview = {
        "type": "record",
        "record": "customer C-20917",
        "fields": [
            {"field": "damage_claims_12m", "now": 0, "after": 1},
            {"field": "preferred_contact", "now": "phone", "after": "email"},
        ],
    }
    return make_action(
        batch,
        "shop.update_customer",
        args,
        preview=preview,
        plan_summary="Change 2 fields on customer C-20917",
        risk=Risk.MEDIUM,
        confidence=0.86,
        irreversible=False,
        route_reason="confidence is 86%, below the 90% this tool needs to run alone",
        **fields,
    )


def make_full_batch(world: World, **fields: Any) -> tuple[Batch, list[Action]]:
    """The batch of the pictures: a refund, a record change, an e-mail."""
    batch = make_batch(world, **fields)
    return batch, [make_refund(batch), make_update(batch), make_email(batch)]


def approve(action: Action, **fields: Any) -> Line:
    return line(action, Verdict.APPROVE, **fields)


def reject(action: Action, **fields: Any) -> Line:
    return line(action, Verdict.REJECT, **fields)


def line(action: Action, verdict: Verdict, **fields: Any) -> Line:
    return Line(**{"action": action.id, "digest": action.digest, "verdict": verdict, **fields})


def missing_id() -> uuid.UUID:
    return uuid.UUID("00000000-0000-7000-8000-000000000000")


def form_for(batch: Batch, actions: list[Action], /, **more: Any) -> dict[str, Any]:
    """The fields that the page's form posts when everything is selected."""
    batch.refresh_from_db()
    ids = [str(action.id) for action in actions]
    return {
        "version": str(batch.version),
        "action": ids,
        "select": ids,
        "submit": "approve",
        **{f"digest-{action.id}": action.digest for action in actions},
        **{f"kind-{action.id}": action.kind for action in actions},
        **more,
    }
