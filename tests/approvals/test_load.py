"""Twenty people decide on everything at once over HTTP. `LOAD_ACTIONS=1000` makes it the size that is judged."""

from __future__ import annotations

import json
import os
import random
import threading
import time
import urllib.request
from collections import Counter, defaultdict
from functools import partial
from typing import Any

import pytest
from django.db import connection
from pytest_django.live_server_helper import LiveServer

from accounts.models import Receipt
from accounts.schemas import Role, Scope
from accounts.tokens import create_token
from approvals.models import Decision
from runs import lifecycle
from runs.engine.types import ActionStatus
from runs.models import Action, Batch
from tests.accounts.together import together
from tests.approvals import factories as make
from tests.approvals.factories import World

ACTIONS = int(os.environ.get("LOAD_ACTIONS", "100"))
PEOPLE = 20
PER_BATCH = 10


@pytest.mark.timeout(600)
def test_twenty_people_decide_everything_at_once(shared_world: World, live_server: LiveServer) -> None:
    world = shared_world
    batches = [make.make_batch(world) for _ in range(ACTIONS // PER_BATCH)]
    bodies = {batch.id: [make.make_update(batch) for _ in range(PER_BATCH)] for batch in batches}
    people = [make.make_person(world.team, f"person{n}", f"Person{n}", "Lind", Role.APPROVER) for n in range(PEOPLE)]
    tokens = [create_token(person, world.team, name="load", scopes=[Scope.APPROVALS])[1] for person in people]
    answers: list[tuple[str, dict[str, Any]]] = []
    lock = threading.Lock()

    def decide_all(place: int) -> None:
        mine = random.Random(place).sample(batches, len(batches))
        for batch in mine:
            verdict = "approve" if place % 2 else "reject"
            lines = [{"action": str(a.id), "digest": a.digest, "verdict": verdict} for a in bodies[batch.id]]
            results = post(live_server.url, tokens[place], f"/approvals/{batch.id}/decisions", lines)
            with lock:
                answers.extend((people[place].username, {**result, "verdict": verdict}) for result in results)

    began = time.perf_counter()
    failures = [each for each in together([partial(decide_all, n) for n in range(PEOPLE)]) if each is not None]
    took = time.perf_counter() - began
    print(f"{ACTIONS} actions, {PEOPLE} people, {PEOPLE * len(batches)} requests: {took:.1f} s")

    assert failures == []
    assert len(answers) == ACTIONS * PEOPLE
    by_action: dict[str, list[tuple[str, dict[str, Any]]]] = defaultdict(list)
    for who, answer in answers:
        by_action[answer["action"]].append((who, answer))
    for action in Action.objects.select_related("decided_by"):
        said = by_action[str(action.id)]
        assert Counter(answer["outcome"] for _, answer in said) == {"applied": 1, "already_decided": PEOPLE - 1}
        [(winner, won)] = [(who, answer) for who, answer in said if answer["outcome"] == "applied"]
        assert action.decided_by is not None
        assert action.decided_by.username == winner
        assert action.status == {"approve": "approved", "reject": "rejected"}[won["verdict"]]
        assert {answer["by"] for _, answer in said} == {winner}, "every loser is told who was first"
        assert len({answer["at"] for _, answer in said}) == 1, "and when"
    assert Decision.objects.count() == ACTIONS
    assert Receipt.objects.filter(kind__startswith="decision.").count() == ACTIONS
    assert not Batch.objects.filter(status="open").exists()
    assert_each_effect_once()


def post(url: str, token: str, path: str, decisions: list[dict[str, str]]) -> list[dict[str, Any]]:
    request = urllib.request.Request(
        f"{url}/api/v1{path}",
        json.dumps({"version": 1, "decisions": decisions}).encode(),
        {"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=120) as answer:
        results: list[dict[str, Any]] = json.load(answer)["results"]
    return results


def assert_each_effect_once() -> None:
    """Four workers claim everything that was approved: each is begun by exactly one."""
    approved = list(Action.objects.filter(status=ActionStatus.APPROVED).values_list("id", "digest"))
    begun: list[int] = []

    def claim() -> None:
        begun.append(sum(lifecycle.begin_execution(action, digest) for action, digest in approved))
        connection.close()

    together([claim] * 4)
    assert sum(begun) == len(approved)
