from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from django.db import connection

from accounts.access import Access, access_for_user
from accounts.models import Membership, User
from approvals import evidence, inbox
from approvals.inbox import Line, Outcome, Result
from approvals.models import Verdict
from runs.engine.types import ActionStatus
from runs.models import Action, Batch, Run
from runs.samples.simulated.reply import JsonObject, Reply
from runs.samples.simulated.server import FakeMessagesServer
from tests import running
from tests.accounts.together import Race, racing
from tests.flows.shop import LocalShop

Respond = Callable[[JsonObject], Reply]


@pytest.fixture(autouse=True)
def rings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ids of the runs that a worker was rung for. Nobody answers: tests advance runs themselves."""
    rung: list[str] = []
    monkeypatch.setattr("runs.doorbell.current_app.send_task", lambda _name, args: rung.append(args[0]))
    return rung


@pytest.fixture
def race(transactional_db: None) -> Iterator[Race]:
    """For up to four at the same moment, as often as one likes."""
    with racing(4) as race:
        yield race


@pytest.fixture
def crew(transactional_db: None) -> Access:
    """An admin's access to a team of their own."""
    return running.team_with_admin()


@pytest.fixture
def shop(crew: Access, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalShop:
    """The team's shop and an agent `desk` that may work with it."""
    here = LocalShop(tmp_path / "shop.sqlite3")
    monkeypatch.setattr("runs.toolbox.tools_for", here.tools_for)
    running.add_shop(crew.team, tmp_path / "shop.sqlite3")
    running.add_agent(crew.team)
    return here


class Model:
    """The scripted provider: `respond` can be set at any time; `calls` are the bodies it was sent."""

    def __init__(self, server: FakeMessagesServer) -> None:
        self.server = server

    def says(self, *replies: Reply | str) -> None:
        self.server.respond = running.turns(*replies)

    def meanwhile(self, turn: int, work: Callable[[], object]) -> None:
        """Does something once, while the answer of the given turn (from 1) is on its way."""
        respond = self.server.respond
        done: list[bool] = []

        def also(body: JsonObject) -> Reply:
            if not done and sum(message["role"] == "assistant" for message in body["messages"]) == turn - 1:
                done.append(True)
                with own_connection():
                    work()
            return respond(body)

        self.server.respond = also

    @property
    def calls(self) -> list[JsonObject]:
        return [call.body for call in self.server.calls]


@contextmanager
def own_connection() -> Iterator[None]:
    """For work in a thread that is not the test's."""
    try:
        yield
    finally:
        connection.close()


@pytest.fixture
def model(tmp_path: Path) -> Iterator[Model]:
    with running.model(running.turns("Done."), tmp_path) as server:
        yield Model(server)


def member(access: Access, username: str, role: str = "approver") -> Access:
    user = User.objects.create_user(username, first_name=username.title())
    Membership.objects.create(team=access.team, user=user, role=role)
    return access_for_user(user, access.team.slug)


def decide(access: Access, run: Run, verdict: Verdict = Verdict.APPROVE, **more: Any) -> list[Outcome]:
    """The same verdict on everything that waits in the run's open batch, as the inbox gives it."""
    batch = running.open_batch(run)
    return decide_on(access, batch, waiting(batch), verdict, **more)


def waiting(batch: Batch) -> list[Action]:
    statuses = (ActionStatus.PENDING, ActionStatus.UNKNOWN)
    return list(Action.objects.filter(batch=batch, status__in=statuses).order_by("position"))


def decide_on(
    access: Access, batch: Batch, actions: Sequence[Action], verdict: Verdict = Verdict.APPROVE, **more: Any
) -> list[Outcome]:
    batch.refresh_from_db()
    lines = [Line(action=action.id, digest=action.digest, verdict=verdict, **more) for action in actions]
    return inbox.decide(access, batch.id, batch.version, lines, channel="api")


def applied(outcomes: Sequence[Outcome]) -> bool:
    return bool(outcomes) and all(outcome.result is Result.APPLIED for outcome in outcomes)


def keys(run: Run) -> list[str]:
    return list(run.steps.order_by("seq").values_list("key", flat=True))


def tool_results(body: JsonObject) -> list[JsonObject]:
    """The tool results in a request, oldest first."""
    blocks = [block for message in body["messages"] if message["role"] == "user" for block in message["content"]]
    return [block for block in blocks if block["type"] == "tool_result"]


def told(body: JsonObject) -> str:
    """Everything that the user side of a request says."""
    blocks = [block for message in body["messages"] if message["role"] == "user" for block in message["content"]]
    return "\n".join(str(block.get("text") or block.get("content")) for block in blocks)


def assert_sound(run: Run, *, tampered: bool = False) -> None:
    """What holds of every run: steps without gaps, totals that are their sums, one result for each tool call, rows that
    are what their receipts say. `tampered`: the test itself changed rows, which has to be found."""
    run.refresh_from_db()
    assert bool(evidence.verify(run.team)) is tampered
    steps = list(run.steps.order_by("seq"))
    assert [step.seq for step in steps] == list(range(1, run.last_seq + 1))
    for name in ("input_tokens", "output_tokens", "cache_read_tokens"):
        assert getattr(run, name) == sum(getattr(step, name) for step in steps), name
    assert run.cache_write_tokens == sum(step.cache_write_tokens for step in steps)
    assert run.cost_usd == sum(step.cost_usd or 0 for step in steps)
    assert run.unpriced_steps == sum(step.cost_usd is None for step in steps)
    assert run.tool_calls == sum(step.kind == "tool" for step in steps)
    assert run.model_calls == sum(step.kind in ("model", "plan", "evaluate") for step in steps)
    assert run.work_steps == sum(step.kind in ("model", "plan", "evaluate", "tool", "delegate") for step in steps)
    if run.is_ended:
        assert run.stop_reason
        assert run.ended_at
        assert (run.lease_owner, run.reserved_usd, run.wish) == ("", 0, "")
        assert not Batch.objects.filter(run=run, status="open").exists()
        if run.status != "dry_run_ready":
            left = run.actions.filter(status__in=["pending", "approved", "executing"])
            assert not left.exists()
