"""Forks on the database: earlier steps are replayed and nothing is executed again."""

from __future__ import annotations

from typing import Any

import pytest
from django.http import Http404

from accounts.access import Access, MissingRight
from runs.engine.types import Mode
from runs.errors import Invalid
from runs.forks import Fork, fork
from runs.models import Action, Batch, Run
from tests.flows.conftest import Model, applied, decide, keys, member, told, tool_results
from tests.flows.shop import LocalShop
from tests.running import NOTE, READ, REFUND, add_agent, advance, launch, team_with_admin, tool, uses

READS = tool(READ, order="48213")
REFUNDS = tool(REFUND, order="48213", amount=84.0, reason="dented in transit")
NOTES = tool(NOTE, customer="C-20871", changes={"notes": "left for a person"})


@pytest.fixture
def done(crew: Access, shop: LocalShop, model: Model) -> Run:
    """model:1, tool:1:0 (read), model:2, tool:2:0 (an effect that ran alone), model:3, result"""
    model.says(uses(READS), uses(NOTES), "Done.")
    run = advance(launch(crew, Mode.INTERACTIVE))
    assert keys(run) == ["model:1", "tool:1:0", "model:2", "tool:2:0", "model:3", "result"]
    return run


def forked(crew: Access, run: Run, from_seq: int, **how: Any) -> Run:
    return fork(crew, run.id, Fork(from_seq=from_seq, **how))


def test_earlier_steps_are_replayed_and_nothing_is_executed_again(
    crew: Access, shop: LocalShop, model: Model, done: Run, rings: list[str]
) -> None:
    executed, calls = list(shop.executed), len(model.calls)
    model.says("never said", "never said", "Another end.")
    made = forked(crew, done, 5)
    assert (made.forked_from, made.forked_seq, made.status, rings[-1]) == (done, 4, "queued", str(made.id))
    made = advance(made)

    assert (made.status, made.result) == ("completed", "Another end.")
    assert keys(made) == keys(done)
    assert shop.executed == executed
    assert len(model.calls) == calls + 1
    assert tool_results(model.calls[-1]) == tool_results(model.calls[-2])
    assert not Action.objects.filter(run=made).exists()
    assert made.cost_usd == sum(step.cost_usd or 0 for step in made.steps.filter(seq__gt=4))
    assert (made.model_calls, made.tool_calls, made.work_steps) == (1, 0, 1)
    done.refresh_from_db()
    assert done.result == "Done."


def test_with_another_output_of_a_tool(crew: Access, shop: LocalShop, model: Model, done: Run) -> None:
    executed = list(shop.executed)
    model.says("never said", "The order is not there.")
    made = advance(forked(crew, done, 2, replace_output={"error": "no such order"}))
    assert made.result == "The order is not there."
    assert "no such order" in told(model.calls[-1])
    assert shop.executed == executed
    assert made.steps.get(seq=2).summary == '{"error":"no such order"}'


def test_with_another_prompt_agent_and_model(crew: Access, shop: LocalShop, model: Model, done: Run) -> None:
    add_agent(crew.team, "other", name="Other desk")
    model.says("Quite different.")
    made = advance(forked(crew, done, 1, task="Look again.", agent="other", model="claude-opus-5-5"))
    assert (made.task, made.agent.slug, made.result) == ("Look again.", "other", "Quite different.")
    assert model.calls[-1]["model"] == "claude-opus-5-5"
    assert model.calls[-1]["messages"][0]["content"][0]["text"] == "Look again."


def test_an_effect_that_is_made_anew_is_asked_for_anew(crew: Access, shop: LocalShop, model: Model) -> None:
    model.says(uses(tool(REFUND, order="48213", amount=10.0, reason="dented in transit")), "Done.")
    run = advance(launch(crew, Mode.INTERACTIVE))
    assert applied(decide(crew, run))
    run = advance(run)
    assert shop.effects() == ["issue_refund"]
    first_effect = next(step.seq for step in run.steps.order_by("seq") if step.kind == "tool")

    made = advance(forked(crew, run, first_effect))
    assert made.status == "waiting", "an approval of another run releases nothing here"
    assert Batch.objects.filter(run=made, status="open").count() == 1
    assert shop.effects() == ["issue_refund"]


def test_a_settled_queue_is_replayed_with_what_people_said(crew: Access, shop: LocalShop, model: Model) -> None:
    model.says(uses(REFUNDS), "One waits.", "The refund is done.")
    run = advance(launch(crew))
    assert applied(decide(crew, run))
    run = advance(run)
    last = next(step.seq for step in run.steps.order_by("seq") if step.key == "model:3")

    model.says("never said", "never said", "Told differently.")
    made = advance(forked(crew, run, last))
    assert (made.status, made.result) == ("completed", "Told differently.")
    assert '"outcome": "succeeded"' in told(model.calls[-1])
    assert not made.actions.exists()
    assert shop.effects() == ["issue_refund"]

    again = advance(forked(crew, made, last))
    assert again.status == "completed", "a fork of a fork"


def test_a_queue_that_was_not_settled_is_asked_for_in_the_fork(crew: Access, shop: LocalShop, model: Model) -> None:
    model.says(uses(REFUNDS), "One waits.", "Done.")
    run = advance(launch(crew))
    assert run.status == "waiting"
    made = advance(forked(crew, run, 3))
    assert made.status == "waiting"
    assert made.actions.get().status == "pending"
    assert applied(decide(crew, made))
    made = advance(made)
    assert made.status == "completed"
    assert shop.effects() == ["issue_refund"]
    run.refresh_from_db()
    assert (run.status, run.actions.get().status) == ("waiting", "pending")


def test_what_people_said_goes_with_it(crew: Access, shop: LocalShop, model: Model) -> None:
    from runs import commands

    model.says(uses(READS), "Done.")
    run = launch(crew, Mode.INTERACTIVE)
    commands.steer(crew, run.id, "Leave 51377 alone.")
    run = advance(run)
    made = advance(forked(crew, run, run.last_seq - 1))
    assert made.status == "completed"
    assert told(model.calls[-1]).count("Leave 51377 alone.") == 1


@pytest.mark.parametrize(
    ("how", "field"),
    [
        ({"from_seq": 99}, "from_seq"),
        ({"from_seq": 2, "agent": "nobody"}, "agent"),
        ({"from_seq": 2, "task": "x" * 300_000}, "task"),
        ({"from_seq": 1, "replace_output": "x"}, "replace_output"),
        ({"from_seq": 2, "replace_output": "x" * 2_000_000}, "replace_output"),
    ],
)
def test_what_cannot_be_forked_is_said(crew: Access, done: Run, how: dict[str, Any], field: str) -> None:
    with pytest.raises(Invalid) as refused:
        fork(crew, done.id, Fork(**how))
    assert list(refused.value.errors) == [field]
    assert Run.objects.count() == 1


def test_who_may_fork(crew: Access, done: Run) -> None:
    with pytest.raises(MissingRight):
        fork(member(crew, "vera", "viewer"), done.id, Fork(from_seq=2))
    with pytest.raises(Http404):
        fork(team_with_admin("others", "otto"), done.id, Fork(from_seq=2))
    with pytest.raises(Http404):
        fork(crew, "no-such-run", Fork(from_seq=2))
    assert fork(member(crew, "olga", "operator"), done.id, Fork(from_seq=2)).owner.username == "olga"
