"""What people decided against how sure the agent was, the floor of evidence, and a draft replayed on the past."""

from __future__ import annotations

import datetime as dt
from typing import Any

from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from approvals import calibration
from approvals.models import Decision, Verdict
from approvals.replay import replay
from runs.engine.types import ActionStatus, Evidence, JsonObject, Policy, ToolGrant
from runs.models import Action
from runs.schemas import AgentIn
from tests.approvals import factories as make
from tests.approvals.deciding import decide, edit
from tests.approvals.factories import World, approve, reject

REFUND, UPDATE = "shop.issue_refund", "shop.update_customer"
LIVE = AgentIn.model_validate(make.DEFINITION)


def past(world: World, status: str, confidence: float | None, tool: str = UPDATE, **fields: Any) -> Action:
    """An action of yesterday, as people (or nobody, when `needed` is 0) decided it."""
    batch = make.make_batch(world)
    args = {"customer": "C-1", "changes": {"x": 1}} if tool == UPDATE else None
    needed = fields.pop("needed", 1)
    action = make.make_action(batch, tool, args, status=status, confidence=confidence, needed=needed, **fields)
    verdict = {"rejected": Verdict.REJECT, "superseded": Verdict.EDIT}.get(status, Verdict.APPROVE)
    if needed and status not in ("pending", "expired"):
        said = {"shown_digest": action.digest, "shown_version": 1, "channel": "web", "at": timezone.now()}
        Decision.objects.create(action=action, actor=world.people["approver"], verdict=verdict, **said)
    return action


def draft(**tool: Any) -> AgentIn:
    tools = [{**line, **(tool if line["name"] == UPDATE else {})} for line in make.DEFINITION["tools"]]
    return AgentIn.model_validate({**make.DEFINITION, "tools": tools})


def grant(**fields: Any) -> ToolGrant:
    return ToolGrant(**{"name": UPDATE, "policy": Policy.CONFIDENCE, "threshold": 0.9, "evidence": 3, **fields})


# --- calibration -----------------------------------------------------------------------------------------------------


def test_buckets_hold_what_people_decided(world: World) -> None:
    decided = [("succeeded", 0.96), ("failed", 0.95), ("stale", 1.0), ("superseded", 0.97), ("rejected", 0.5)]
    for status, confidence in [*decided, ("pending", 0.99), ("expired", 0.99), ("succeeded", None)]:
        past(world, status, confidence)
    past(world, "succeeded", 0.99, needed=0)

    history = calibration.history(world.agent.id)[UPDATE]

    assert (history.alone, history.approved, history.edited, history.rejected) == (1, 4, 1, 1)
    shown = {(bucket.low, bucket.high): (bucket.approved, bucket.edited, bucket.rejected) for bucket in history.buckets}
    assert shown[(0.95, 1.0)] == (3, 1, 0)
    assert shown[(0.5, 0.6)] == (0, 0, 1)
    assert sum(bucket.decided for bucket in history.buckets) == 5  # one came without a confidence
    assert next(bucket for bucket in history.buckets if bucket.high == 1.0).agreed == 0.75


def test_decisions_in_the_inbox_count_by_themselves(world: World) -> None:
    batch, (refund, update, email) = make.make_full_batch(world)
    decide(world, "approver", batch, approve(refund), reject(update), edit(email, Verdict.APPROVE, subject="Other"))

    history = calibration.history(world.agent.id)

    assert (history[REFUND].approved, history[UPDATE].rejected, history["shop.send_email"].edited) == (1, 1, 1)
    assert history["shop.send_email"].decided == 1, "the edited action is not a second proposal of the agent"


def test_history_is_one_query(world: World) -> None:
    for tool in (REFUND, UPDATE):
        past(world, "succeeded", 0.9, tool)
    with CaptureQueriesContext(connection) as captured:
        calibration.history(world.agent.id)
    assert len(captured) == 1


def test_evidence_counts_only_what_the_threshold_would_have_let_through(world: World) -> None:
    past(world, "succeeded", 0.95)
    past(world, "rejected", 0.9)
    past(world, "succeeded", 0.89)
    past(world, "succeeded", 0.99, needed=0)
    past(world, "succeeded", 0.99, REFUND)

    assert calibration.evidence(world.agent.id, grant()) == Evidence(decided=2, agreed=1)
    assert calibration.evidence(world.agent.id, grant(policy=Policy.AUTO)) == Evidence(decided=3, agreed=2)


def test_evidence_grows_old_and_belongs_to_one_agent(world: World) -> None:
    old = past(world, "succeeded", 0.95)
    Action.objects.filter(id=old.id).update(created_at=timezone.now() - dt.timedelta(days=91))
    other = past(world, "succeeded", 0.95)
    stranger = type(world.agent).objects.create(team=world.team, slug="other", current=world.agent.current)
    type(other.run).objects.filter(id=other.run_id).update(agent=stranger)

    assert calibration.evidence(world.agent.id, grant()) == Evidence()


# --- replay ----------------------------------------------------------------------------------------------------------


def test_a_lower_threshold_is_replayed_on_what_people_decided(world: World) -> None:
    past(world, "succeeded", 0.95, needed=0)
    kept = past(world, "succeeded", 0.85)
    rejected = past(world, "rejected", 0.88)
    edited = past(world, "superseded", 0.81)
    past(world, "rejected", 0.5)

    result = replay(world.agent, LIVE, draft(threshold=0.8))

    assert (result.total, result.alone, result.newly_alone, result.newly_waiting) == (5, 4, 3, 0)
    assert (result.rejected, result.edited) == (1, 1)
    said = {line.action: line.said for line in result.regretted}
    assert said == {rejected.id: "rejected", edited.id: "changed"}
    assert kept.id not in {line.action for line in result.regretted}
    assert {line.batch for line in result.regretted} == {rejected.batch_id, edited.batch_id}


def test_a_stricter_draft_says_what_would_wait(world: World) -> None:
    alone = past(world, "succeeded", 0.95, needed=0)
    above: JsonObject = {"argument": "customer", "test": "equals", "value": "C-1", "policy": "two_person"}

    for stricter in (draft(policy="review"), draft(threshold=0.96), draft(rules=[above]), draft(evidence=5)):
        result = replay(world.agent, LIVE, stricter)
        assert (result.alone, result.newly_waiting) == (0, 1)
        assert [line.action for line in result.waiting] == [alone.id]


def test_replay_leaves_out_edits_questions_and_what_is_older(world: World) -> None:
    old = past(world, "succeeded", 0.95)
    Action.objects.filter(id=old.id).update(created_at=timezone.now() - dt.timedelta(days=31))
    past(world, "answered", 0.95, kind="question")
    batch = make.make_batch(world)
    update = make.make_update(batch)
    decide(world, "approver", batch, edit(update, changes={"y": 2}))

    assert replay(world.agent, LIVE, LIVE).total == 1


def test_a_tool_that_is_gone_waits_for_a_person(world: World) -> None:
    past(world, "succeeded", 1.0, "shop.no_more")
    gone = {"name": "R", "tools": [{"name": "shop.no_more", "policy": "auto"}]}

    result = replay(world.agent, LIVE, AgentIn.model_validate(gone))

    assert (result.alone, result.unknown_tools) == (0, ("shop.no_more",))


def test_replay_needs_the_same_queries_for_any_number(world: World) -> None:
    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            replay(world.agent, LIVE, draft(evidence=2))
        return len(captured)

    past(world, "succeeded", 0.95)
    before = queries()
    for _ in range(4):
        past(world, "rejected", 0.95)
    assert queries() == before


# --- the page, and policies that change under what waits -------------------------------------------------------------


def test_the_settings_page_says_it_with_links(world: World) -> None:
    rejected = past(world, "rejected", 0.88)
    past(world, "succeeded", 0.95, needed=0)
    client = world.client("admin")
    client.post("/agents/refund-desk/draft", {f"{UPDATE}|threshold": "80"})

    page = client.get("/agents/refund-desk/").content.decode()

    assert "2 of 2 actions would have run alone, <b>1 of them people rejected</b>" in page
    assert f'href="/approvals/{rejected.batch_id}/#action-{rejected.id}"' in page
    assert "This draft lets 1 more run alone." in page


def test_publishing_an_easier_policy_releases_nothing_that_waits(world: World) -> None:
    batch = make.make_batch(world)
    update = make.make_update(batch)
    client = world.client("admin")
    client.post("/agents/refund-desk/draft", {f"{UPDATE}|policy": "auto"})
    client.post("/agents/refund-desk/publish", {"revision": "1"})

    world.agent.refresh_from_db()
    assert world.agent.current is not None
    assert world.agent.current.number == 2
    update.refresh_from_db()
    assert (update.status, update.policy_version) == (ActionStatus.PENDING, "refund-desk@1")
    decide(world, "approver", batch, edit(update, changes={"z": 1}))
    new = Action.objects.get(supersedes=update)
    assert (new.status, new.policy_version) == (ActionStatus.PENDING, "refund-desk@1")
