"""`Idempotency-Key`: a POST that is sent again happens once."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import pytest
from django.db import connection

from accounts.models import IdempotentRequest
from runs import commands
from runs.asked import RunMessage
from runs.models import Run
from tests.accounts.together import REPETITIONS, racing, together
from tests.api.client import answer, problem
from tests.api.conftest import As, caller_for
from tests.approvals import factories as make
from tests.approvals.factories import World

LAUNCH: dict[str, Any] = {"agent": "refund-desk", "task": "Sort the tickets."}

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def world(shared_world: World) -> World:
    """Committed rows: a claim is a transaction of its own."""
    return shared_world


def test_the_same_key_and_body_give_the_same_answer(world: World, as_: As) -> None:
    operator = as_("operator")
    first = answer(operator.post("/runs", LAUNCH, key="order-1"), 201)
    commands.cancel(world.access("operator"), first["id"])
    again = answer(operator.post("/runs", LAUNCH, key="order-1"), 201)
    assert again == first, "the first answer, not the run as it is now"
    assert json.dumps(again) == json.dumps(first), "field by field in the same order"
    written_anew = json.dumps(dict(reversed(LAUNCH.items())), indent=2).encode()
    assert answer(operator.post("/runs", written_anew, key="order-1"), 201) == first
    assert Run.objects.count() == 1


def test_another_body_or_route_is_refused(world: World, as_: As) -> None:
    operator = as_("operator")
    run = answer(operator.post("/runs", LAUNCH, key="order-1"), 201)
    problem(operator.post("/runs", {**LAUNCH, "task": "Something else."}, key="order-1"), 409)
    problem(operator.post(f"/runs/{run['id']}/cancel", LAUNCH, key="order-1"), 409)
    assert [run.status for run in Run.objects.all()] == ["queued"]


def test_another_person_has_keys_of_their_own(world: World, as_: As) -> None:
    first = answer(as_("operator").post("/runs", LAUNCH, key="order-1"), 201)
    second = answer(as_("admin").post("/runs", LAUNCH, key="order-1"), 201)
    assert first["id"] != second["id"]


@pytest.mark.parametrize(
    ("body", "status", "fields"),
    [({**LAUNCH, "task": ""}, 422, ["task"]), ({**LAUNCH, "limits": {"max_steps": 0}}, 422, ["limits.max_steps"])],
)
def test_a_refused_call_leaves_its_key_free(
    world: World, as_: As, body: dict[str, Any], status: int, fields: list[str]
) -> None:
    operator = as_("operator")
    problem(operator.post("/runs", body, key="order-1"), status, *fields)
    assert not IdempotentRequest.objects.exists()
    answer(operator.post("/runs", LAUNCH, key="order-1"), 201)


def test_a_missing_right_leaves_its_key_free(world: World, as_: As) -> None:
    problem(as_("viewer").post("/runs", LAUNCH, key="order-1"), 403)
    assert not IdempotentRequest.objects.exists()


@pytest.mark.parametrize("key", ["", "x" * 256, "a\tb"])
def test_a_key_that_is_none(world: World, as_: As, key: str) -> None:
    problem(as_("operator").post("/runs", LAUNCH, key=key), 422, "Idempotency-Key")
    assert not Run.objects.exists()


def test_controls_and_messages_take_keys(world: World, as_: As) -> None:
    operator = as_("operator")
    run = make.make_run(world, status="queued", waiting_since=None)
    for _ in range(2):
        answer(operator.post(f"/runs/{run.id}/messages", {"text": "Be brief."}, key="m"), 202)
        assert answer(operator.post(f"/runs/{run.id}/pause", key="p"))["status"] == "paused"
    assert RunMessage.objects.count() == 1


def test_decisions_take_keys(world: World, as_: As) -> None:
    batch = make.make_batch(world)
    refund = make.make_refund(batch)
    body = {"version": 1, "decisions": [{"action": str(refund.id), "digest": refund.digest, "verdict": "approve"}]}
    answers = [answer(as_("approver").post(f"/approvals/{batch.id}/decisions", body, key="d")) for _ in range(2)]
    assert answers[0] == answers[1]
    assert answers[0]["results"][0]["outcome"] == "applied"


def test_the_same_call_from_many_threads_launches_once(world: World) -> None:
    caller = caller_for(world, "operator")

    def call(key: str) -> tuple[int, Any]:
        response = caller.post("/runs", LAUNCH, key=key)
        return response.status_code, json.loads(response.content)

    with racing(3) as race:
        for number in range(1, REPETITIONS + 1):
            answers = race(*[partial(call, f"order-{number}")] * 3)

            assert not [each for each in answers if isinstance(each, Exception)]
            assert {status for status, _ in answers} <= {201, 409}
            assert Run.objects.count() == number
            made = [body["id"] for status, body in answers if status == 201]
            assert made
            assert set(made) == {str(Run.objects.latest("created_at").id)}
    connection.close()


def test_many_launches_at_once_get_a_number_each(world: World) -> None:
    caller = caller_for(world, "operator")
    answers = together([lambda: caller.post("/runs", LAUNCH).status_code] * 6)
    assert answers == [201] * 6
    assert sorted(Run.objects.values_list("number", flat=True)) == list(range(1, 7))
