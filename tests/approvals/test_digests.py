"""What an approval is bound to: the same arguments however they are written, and no others. What can't be written down
in one way only is refused where it comes in."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.urls import reverse

from accounts.schemas import Scope
from accounts.tokens import create_token
from approvals.inbox import Result
from approvals.models import Verdict
from runs.digest import action_digest
from runs.models import Action
from tests.approvals import factories as make
from tests.approvals.deciding import assert_untouched, decide
from tests.approvals.factories import World, approve, line

COMPOSED, DECOMPOSED = "caf\u00e9", "cafe\u0301"


def digest(args: Any, **bound: str) -> str:
    others = {"tool": "t", "tool_version": "1", "run": "r", "policy_version": "p@1"}
    return action_digest(args=args, **{**others, **bound})


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"n": 1}, {"n": 1.0}),
        ({"n": 0}, {"n": -0.0}),
        ({"n": 100.0}, {"n": 1e2}),
        ({"a": 1, "b": {"c": 2, "d": 3}}, {"b": {"d": 3, "c": 2}, "a": 1}),
    ],
    ids=["1 and 1.0", "0 and -0.0", "100.0 and 1e2", "order of keys"],
)
def test_one_value_written_in_two_ways_is_one_digest(one: Any, other: Any) -> None:
    assert digest(one) == digest(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"n": 1}, {"n": "1"}),
        ({"n": 1}, {"n": True}),
        ({"n": 0}, {"n": False}),
        ({"n": None}, {}),
        ({"n": 1}, {"n": 1.0000000000000002}),
        ({"n": [1, 2]}, {"n": [2, 1]}),
        ({"n": ""}, {"n": None}),
        ({"n": "1"}, {"n": "\uff11"}),
        ({"n": "a"}, {"n": "a\u200b"}),
        ({"n": COMPOSED}, {"n": DECOMPOSED}),
        ({COMPOSED: 1}, {DECOMPOSED: 1}),
        ({"a": {"b": 1}}, {"a.b": 1}),
    ],
    ids=repr,
)
def test_two_values_are_two_digests(one: Any, other: Any) -> None:
    assert digest(one) != digest(other)


@pytest.mark.parametrize("bound", ["tool", "tool_version", "run", "policy_version"])
def test_everything_else_that_is_bound_counts(bound: str) -> None:
    assert digest({"n": 1}) != digest({"n": 1}, **{bound: "another"})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 2**53, "\ud800"], ids=repr)
def test_what_canonical_json_cannot_say_has_no_digest(value: Any) -> None:
    with pytest.raises(ValueError, match=r"."):
        digest({"n": value})


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("before", "after", "same"),
    [
        ({"n": 1}, {"n": 1.0}, True),
        ({"n": 1}, {"n": "1"}, False),
        ({"n": 1}, {"n": True}, False),
        ({"n": COMPOSED}, {"n": DECOMPOSED}, False),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, True),
    ],
    ids=["1 1.0", "1 '1'", "1 true", "NFC NFD", "order"],
)
def test_the_database_gives_back_what_was_bound(world: World, before: Any, after: Any, same: bool) -> None:
    """Either database's own idea of numbers, keys and texts does not blur it."""
    batch = make.make_batch(world)
    update = make.make_update(batch)
    bound = make.make_action(batch, "shop.update_customer", {"customer": "C-1", "changes": before})
    Action.objects.filter(id=bound.id).update(args={"customer": "C-1", "changes": after})

    first, second = decide(world, "approver", batch, approve(bound), approve(update))

    assert first.result is (Result.APPLIED if same else Result.INVALID)
    assert second.result is Result.APPLIED


@pytest.mark.parametrize("verdict", [Verdict.EDIT, Verdict.APPROVE])
@pytest.mark.parametrize(
    "changes",
    [
        {"n": 2**60},
        {"n": float("nan")},
        {"n": "a\0b"},
        {"n": "\ud800"},
        {"a\0b": 1},
        {"n": [[[[]]]]} | {"deep": json.loads("[" * 200 + "]" * 200)},
    ],
    ids=["huge", "NaN", "NUL", "half a pair", "NUL in a key", "deep"],
)
def test_hostile_arguments_of_an_edit_change_nothing(world: World, verdict: Verdict, changes: Any) -> None:
    batch = make.make_batch(world)
    update = make.make_update(batch)

    (outcome,) = decide(world, "approver", batch, line(update, verdict, args={**update.args, "changes": changes}))

    assert outcome.result is Result.INVALID
    assert outcome.errors
    assert_untouched(update)


def test_a_schema_that_refers_elsewhere_is_not_followed(world: World) -> None:
    """Not even to a server that would answer: whoever wrote the schema does not choose what this machine asks for."""
    schema = {"type": "object", "properties": {"changes": {"$ref": "http://127.0.0.1:9/schema.json"}}}
    world.server.tools = [{**tool, "input_schema": schema} for tool in make.TOOLS]
    world.server.save()
    batch = make.make_batch(world)
    update = make.make_update(batch)

    (outcome,) = decide(world, "approver", batch, line(update, Verdict.EDIT, args={"customer": "C-1", "changes": {}}))

    assert outcome.result is Result.INVALID
    assert "http://127.0.0.1:9/schema.json" in outcome.errors[0][1]
    assert_untouched(update)


DEEP = "[" * 5000 + "]" * 5000


@pytest.mark.parametrize(
    "typed",
    ['{"a": 1, "a": 2}', '{"a": NaN}', '{"a": "\\u0000"}', '{"a": "\\ud800"}', DEEP, f'{{"a": {DEEP[4900:5100]}}}'],
    ids=["twice", "NaN", "NUL", "half a pair", "endless", "deep"],
)
def test_hostile_json_typed_into_the_form_is_422_and_kept(world: World, typed: str) -> None:
    batch = make.make_batch(world)
    update = make.make_update(batch)
    form = {"digest": update.digest, "version": "1", "arg-customer": "C-1", "arg-changes": typed}

    response = world.client("approver").post(reverse("approvals:edit", args=[batch.id, update.id]), form)

    assert response.status_code == 422
    assert typed[:60].replace('"', "&quot;") in response.content.decode()
    assert_untouched(update)


@pytest.mark.parametrize("name", ["amount", "args"])
def test_a_name_that_stands_twice_in_a_decision_decides_nothing(world: World, name: str) -> None:
    """One reader would take the first, another the last."""
    batch = make.make_batch(world)
    refund = make.make_refund(batch)
    args = '{"order": "48213", "amount": 1, "amount": 999, "reason": "x"}' if name == "amount" else "{}"
    twice = ', "args": {"order": "48213", "amount": 999, "reason": "x"}' if name == "args" else ""
    body = (
        f'{{"version": 1, "decisions": [{{"action": "{refund.id}", "digest": "{refund.digest}", "verdict": "approve",'
        f' "args": {args}{twice}}}]}}'
    )
    token = create_token(world.people["approver"], world.team, name="t", scopes=[Scope.APPROVALS])[1]

    response = world.client("anonymous").post(
        f"/api/v1/approvals/{batch.id}/decisions",
        body,
        content_type="application/json",
        headers={"Authorization": f"Bearer {token}"},
    )

    assert response.status_code == 400
    assert f"'{name}' stands twice" in response.json()["detail"]
    assert_untouched(refund)


def test_a_token_that_only_launches_cannot_decide(world: World) -> None:
    """What a program that works with the agent would hold."""
    batch = make.make_batch(world)
    refund = make.make_refund(batch)
    token = create_token(world.people["admin"], world.team, name="t", scopes=[Scope.RUNS, Scope.READ, Scope.AGENTS])[1]
    body = {"version": 1, "decisions": [{"action": str(refund.id), "digest": refund.digest, "verdict": "approve"}]}

    response = world.client("anonymous").post(
        f"/api/v1/approvals/{batch.id}/decisions",
        json.dumps(body),
        content_type="application/json",
        headers={"Authorization": f"Bearer {token}"},
    )

    assert response.status_code == 403
    assert_untouched(refund)
