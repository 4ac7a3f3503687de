"""Queries that are made to take long: each is answered or refused, and soon."""

from __future__ import annotations

import random
import re
import time

import pytest
from django.test import Client

from accounts.models import Team, User
from runs.models import Agent
from tests.traces.factories import make_action, make_model_step, make_run, make_step
from tests.traces.test_pages import sign_in
from traces import names
from traces.query import MAX_DEPTH, MAX_TERMS

STARS = "*a" * 40 + "*b"
HARD = [
    "NOT " * (MAX_DEPTH - 2) + "refund",
    "-(" * MAX_DEPTH + "refund" + ")" * MAX_DEPTH,
    " OR ".join(f"w{number}*" for number in range(MAX_TERMS)),
    " -> ".join(["step:{kind:model}"] * 6),
    " => ".join(["step:{kind:model}", "step:{kind:tool}"] * 3),
    "count(step:{kind:model} -> step:{kind:tool}):>0",
    "count(step:{cost:>0}):>0",
    "count(step:{NOT refund}):0..90",
    "a*",
    "-a*",
    "(a+)+b",
    "output:'(.*)+$'",
    'output:"(a|aa)+$"',
    "-step:{refund} -step:{parcel} -has:error",
    "step:{output:=parcel}",
    *(f"{field}:{STARS}" for field in ("tool", "model", "type", "action", "price", "agent", "user", "team")),
    *(f"step:{{{field}:{STARS}}}" for field in ("tool", "model", "price", "approver")),
]


@pytest.fixture
def client(team: Team, agent: Agent, dana: User) -> Client:
    run = make_run(agent, dana, task_type="a" * 80)
    make_step(run, tool="a" * 120)
    make_model_step(run, model="a" * 120, price_id="a" * 120)
    make_action(run, tool="a" * 120)
    return sign_in(dana)


def test_each_is_answered_or_refused_and_takes_little(client: Client) -> None:
    for query in HARD:
        for path in ("/traces/", "/traces/new/") if STARS in query else ("/traces/",):
            began = time.thread_time()  # not by the clock: others may be using the machine
            response = client.get(path, {"q": query, "since": "2026-03-01T00:00:00+00:00"})
            assert response.status_code in (200, 422), query
            assert time.thread_time() - began < 5, query


def test_stars_stand_for_anything() -> None:
    chance = random.Random(7)
    for _ in range(2_000):
        shape = "".join(chance.choice("ab*") for _ in range(chance.randint(1, 6)))
        text = "".join(chance.choice("abB\n") for _ in range(chance.randint(0, 6)))
        meant = re.fullmatch(shape.replace("*", ".*"), text, re.DOTALL | re.IGNORECASE) is not None
        assert names._like(shape, text) is meant, (shape, text)
        if "\n" not in text:
            assert (re.search(names.pattern(shape), text, re.IGNORECASE) is not None) is meant, (shape, text)
