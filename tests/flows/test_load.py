"""Twenty people decide on everything at once over HTTP, then workers who were rung twice carry it out: each action is
decided once, each effect is in the shop's ledger once, every answer is true. `LOAD_ACTIONS=1000` is the size that is
judged; `python -m tests.bench deciding` runs that against the web process of the product and prints the figures."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
import urllib.request
from collections import Counter, defaultdict
from collections.abc import Iterator
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.db import connection
from pytest_django.live_server_helper import LiveServer

from accounts.access import Access
from accounts.models import Receipt
from accounts.schemas import Scope
from accounts.tokens import create_token
from approvals import evidence
from approvals.models import Decision
from runs import tasks
from runs.models import Action, Batch, Run
from tests.accounts.together import racing
from tests.flows.conftest import Model, member
from tests.flows.shop import LocalShop
from tests.running import add_agent, advance, launch, tool, uses
from tests.up import ROOT, eventually, free_port

MEASURED = "LOAD_ACTIONS" in os.environ
ACTIONS = int(os.environ.get("LOAD_ACTIONS", "60"))
PEOPLE, WORKERS, PER_BATCH = 20, 4, 10
Answer = dict[str, Any]


def email(number: int) -> Any:
    to = f"customer{number}@example.com"
    return tool("shop.send_email", to=to, subject=f"Case {number}", body="It is on its way.")


@pytest.fixture
def runs(crew: Access, shop: LocalShop, model: Model) -> list[Run]:
    """Each waits with a batch of ten e-mails."""
    add_agent(crew.team, tools=[{"name": "shop.send_email", "policy": "review"}])
    model.says(uses(*[email(number) for number in range(PER_BATCH)]), "They wait.", "Done.")
    return [advance(launch(crew, task=f"Post {number}")) for number in range(ACTIONS // PER_BATCH)]


@pytest.fixture
def address(live_server: LiveServer) -> Iterator[str]:
    """Of the web server: the tests' own, and when it is measured the product's, in a process of its own."""
    if not MEASURED:
        yield str(live_server.url)
        return
    given, name = os.environ.get("DATABASE_URL", "sqlite://"), connection.settings_dict["NAME"]
    database = f"sqlite:///{name}" if given.startswith("sqlite") else urlsplit(given)._replace(path=f"/{name}").geturl()
    port = free_port()
    options = ("--port", str(port), "--lifespan", "off", "--log-level", "warning", "--no-access-log")
    web = subprocess.Popen(
        [sys.executable, "-m", "uvicorn", "agentsite.asgi:application", *options],
        cwd=ROOT,
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "agentsite.settings", "DATABASE_URL": database},
    )
    try:
        eventually(lambda: answers(f"http://127.0.0.1:{port}/healthz"))
        yield f"http://127.0.0.1:{port}"
    finally:
        web.terminate()
        web.wait()


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


@pytest.mark.timeout(900)
def test_twenty_people_decide_everything_at_once(crew: Access, runs: list[Run], shop: LocalShop, address: str) -> None:
    people = [member(crew, f"person{number}") for number in range(PEOPLE)]
    tokens = [create_token(each.user, crew.team, name="load", scopes=[Scope.APPROVALS])[1] for each in people]
    lines = {batch: list(Action.objects.filter(batch=batch).order_by("position")) for batch in Batch.objects.all()}
    times: list[float] = []

    def decide_all(place: int) -> list[tuple[str, Answer]]:
        """In an order of one's own; those at odd places approve, the others reject."""
        said: list[tuple[str, Answer]] = []
        verdict = "approve" if place % 2 else "reject"
        for batch in random.Random(place).sample(list(lines), len(lines)):
            decisions = [{"action": str(a.id), "digest": a.digest, "verdict": verdict} for a in lines[batch]]
            began = time.perf_counter()
            results = post(f"{address}/api/v1/approvals/{batch.id}/decisions", tokens[place], decisions)
            times.append(time.perf_counter() - began)
            said += [(people[place].user.username, {**result, "verdict": verdict}) for result in results]
        return said

    with racing(PEOPLE, 600) as race:
        began = time.perf_counter()
        answers = race(*[partial(decide_all, place) for place in range(PEOPLE)])
        decided = time.perf_counter() - began
    with racing(WORKERS, 600) as race:
        began = time.perf_counter()
        failures = race(*[partial(carry_out, runs, place) for place in range(WORKERS)])
        executed = time.perf_counter() - began
    print(
        f"{len(runs) * PER_BATCH:,} actions: {PEOPLE} people and {len(times):,} requests in {decided:.1f} s"
        f" (median {at(times, 0.5):.0f} ms, p95 {at(times, 0.95):.0f} ms, slowest {at(times, 1):.0f} ms);"
        f" carried out in {executed:.1f} s"
    )

    assert failures == [None] * WORKERS
    assert_answers_are_true([each for said in answers for each in said])
    approved = {str(action.id) for action in Action.objects.filter(status="succeeded")}
    ledger = Counter(entry["key"] for entry in shop.store.ledger())
    assert ledger == dict.fromkeys(approved, 1), "each effect once, and no other"
    assert approved
    assert not Batch.objects.filter(status="open").exists()
    assert {run.status for run in Run.objects.all()} == {"completed"}
    assert evidence.verify(crew.team) == []


def at(times: list[float], share: float) -> float:
    """The percentile in milliseconds."""
    return 1000 * sorted(times)[min(len(times) - 1, int(share * len(times)))]


def carry_out(runs: list[Run], place: int) -> None:
    """Every worker is rung for every run."""
    for run in random.Random(place).sample(runs, len(runs)):
        tasks.advance_run(str(run.id))


def post(url: str, token: str, decisions: list[dict[str, str]]) -> list[Answer]:
    request = urllib.request.Request(
        url,
        json.dumps({"version": 1, "decisions": decisions}).encode(),
        {"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=300) as answer:
        results: list[Answer] = json.load(answer)["results"]
    return results


def assert_answers_are_true(answers: list[tuple[str, Answer]]) -> None:
    """Of each action: one was first, all others were told who and when, and the row says the same."""
    by_action: dict[str, list[tuple[str, Answer]]] = defaultdict(list)
    for who, answer in answers:
        by_action[answer["action"]].append((who, answer))
    actions = Action.objects.select_related("decided_by")
    assert len(by_action) == actions.count() == Decision.objects.count()
    assert Receipt.objects.filter(kind__startswith="decision.").count() == len(by_action)
    for action in actions:
        said = by_action[str(action.id)]
        assert Counter(answer["outcome"] for _, answer in said) == {"applied": 1, "already_decided": PEOPLE - 1}
        [(winner, won)] = [(who, answer) for who, answer in said if answer["outcome"] == "applied"]
        assert action.decided_by is not None
        assert action.decided_by.username == winner
        assert action.status == {"approve": "succeeded", "reject": "rejected"}[won["verdict"]]
        assert {answer["by"] for _, answer in said} == {winner}
        assert len({answer["at"] for _, answer in said}) == 1
