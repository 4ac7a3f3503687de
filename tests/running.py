"""What tests of whole runs need: a team with the sample shop, a scripted model behind the real SDK, a worker's work."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import transaction
from django.test import override_settings

from accounts.access import Access, access_for_user
from accounts.models import Membership, Team, User
from runs import audit, breakers, commands, lifecycle, tasks
from runs.agents import save_agent, save_server
from runs.engine.types import ActionStatus, Mode
from runs.first_run import shop_tools
from runs.models import Action, Batch, Breaker, Run
from runs.samples.shop.store import Store
from runs.samples.simulated.reply import JsonObject, Reply, ToolCall
from runs.samples.simulated.server import FakeMessagesServer
from runs.schemas import AgentIn, ServerConfig

READ, NOTE, REFUND = "shop.get_order", "shop.update_customer", "shop.issue_refund"
GRANTS = [
    {"name": READ, "policy": "auto"},
    {"name": NOTE, "policy": "confidence", "threshold": 0.9},
    {"name": REFUND, "policy": "review"},
]
Respond = Callable[[JsonObject], Reply]


def team_with_admin(slug: str = "crew", username: str = "dana") -> Access:
    team, _ = Team.objects.get_or_create(slug=slug, defaults={"name": slug.title()})
    user, _ = User.objects.get_or_create(username=username, defaults={"first_name": username.title()})
    Membership.objects.get_or_create(team=team, user=user, defaults={"role": "admin"})
    return access_for_user(user, slug)


def add_shop(team: Team, data: Path) -> None:
    """The sample shop, as a first start adds it."""
    config = ServerConfig(
        transport="stdio",
        command=[sys.executable, "-m", "runs.samples.shop", "--data", str(data)],
        env={"PYTHONPATH": str(settings.BASE_DIR)},
    )
    save_server(team, "shop", config, shop_tools(), by=None)


def add_agent(team: Team, slug: str = "desk", **changes: Any) -> None:
    wanted = {"name": "Refund desk", "tools": GRANTS, "model": "claude-sonnet-5-5", **changes}
    save_agent(team, slug, AgentIn.model_validate(wanted), by=None)


@contextmanager
def model(respond: Respond, tmp_path: Path) -> Iterator[FakeMessagesServer]:
    """The product's simulated provider, answering as told."""
    port_file = tmp_path / "model.port"
    with FakeMessagesServer(respond, pace=0) as server:
        port_file.write_text(str(server.port))
        with override_settings(SIMULATED=True, SIMULATED_MODEL_PORT_FILE=port_file):
            yield server


def turns(*replies: Reply | str) -> Respond:
    """The nth reply in the nth turn of the conversation, so that a repeated call gets the same answer again."""

    def respond(body: JsonObject) -> Reply:
        turn = sum(message["role"] == "assistant" for message in body["messages"])
        reply = replies[min(turn, len(replies) - 1)]
        return Reply(text=reply) if isinstance(reply, str) else reply

    return respond


def tool(name: str, *, confidence: float = 0.95, **args: Any) -> ToolCall:
    asked = {**args, "reasoning": "the ticket asks for it", "confidence": confidence}
    return ToolCall(name=name.replace(".", "__"), input=asked)


def uses(*calls: ToolCall) -> Reply:
    return Reply(tools=calls)


def launch(access: Access, mode: Mode = Mode.BATCH, task: str = "Work through the requests.", **wanted: Any) -> Run:
    return commands.launch(access, commands.Launch(agent=wanted.pop("agent", "desk"), task=task, mode=mode, **wanted))


def advance(run: Run) -> Run:
    """What a worker does when it is rung."""
    tasks.advance_run(str(run.id))
    run.refresh_from_db()
    return run


def on(run: Run) -> Run:
    """What a worker does when the run's time has come again, without the wait for it."""
    Run.objects.filter(id=run.id).update(due_at=None)
    return advance(run)


def without_breakers() -> None:
    """As if everything answered again."""
    Breaker.objects.all().delete()
    breakers.forget()


def through_tries(run: Run, most: int = 20) -> Run:
    """As far as it goes without people."""
    while run.status == "queued" and most:
        run, most = on(run), most - 1
    return run


def open_batch(run: Run) -> Batch:
    return Batch.objects.get(run=run, status="open")


def decide_all(run: Run, by: User, verdict: ActionStatus = ActionStatus.APPROVED, note: str = "") -> None:
    """Says the same to everything the run asks, and wakes it."""
    batch = open_batch(run)
    for action in Action.objects.filter(batch=batch, status=ActionStatus.PENDING):
        released = [str(by.id)] if verdict is ActionStatus.APPROVED else []
        with transaction.atomic():
            assert lifecycle.decide({action.id: action.digest}, verdict, by=by, note=note, released_by=released)
            audit.record(action, f"action.{verdict}", by)
    assert lifecycle.close_batch(batch.id)
    assert lifecycle.wake(run.id)


def effects(data: Path) -> Sequence[dict[str, Any]]:
    """The shop's own ledger of what really happened."""
    return [dict(entry) for entry in Store(data).ledger()]


def results_sent(body: JsonObject) -> list[JsonObject]:
    """The lines of the results message of a batch run, from a request to the model."""
    texts = [b["text"] for m in body["messages"] if m["role"] == "user" for b in m["content"] if b["type"] == "text"]
    found = [text.splitlines()[1:] for text in texts if text.startswith("Results of the queued actions")]
    lines = [line for block in found for line in block]
    return [json.loads(line) for line in lines]
