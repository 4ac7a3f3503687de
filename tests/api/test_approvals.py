"""`/approvals` and decisions through the API."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from accounts.schemas import Scope
from approvals.models import Decision
from runs.models import Action, Batch
from tests.api.client import answer, fields_of, problem, words
from tests.api.conftest import As
from tests.approvals import factories as make
from tests.approvals.factories import World

BATCH = {"id", "version", "run", "agent", "title", "why", "status", "expires_at", "actions", "execution", "asked"}
ACTION = words(
    "id digest kind tool args risk confidence route_reason preview status needed decisions supersedes result expires_at"
    " starts_at note"
)


def line(action: Action, verdict: str = "approve", **more: Any) -> dict[str, Any]:
    return {"action": str(action.id), "digest": action.digest, "verdict": verdict, **more}


def decisions(*lines: dict[str, Any], version: int = 1, **more: Any) -> dict[str, Any]:
    return {"version": version, "decisions": list(lines), **more}


def test_a_batch_has_the_shape_of_the_contract(world: World, as_: As) -> None:
    batch, (refund, update, email) = make.make_full_batch(world)
    listed = answer(as_("viewer").get("/approvals"))
    assert set(listed) == {"items", "next"}
    (shown,) = listed["items"]
    assert set(shown) == BATCH
    assert (shown["id"], shown["version"], shown["run"]) == (str(batch.id), 1, str(batch.run_id))
    assert (shown["agent"], shown["status"]) == ("refund-desk", "pending")
    assert [set(action) for action in shown["actions"]] == [ACTION] * 3
    assert [action["id"] for action in shown["actions"]] == [str(each.id) for each in (refund, update, email)]
    first = shown["actions"][0]
    assert (first["digest"], first["args"], first["tool"]) == (refund.digest, refund.args, "shop.issue_refund")
    assert (first["preview"]["type"], first["status"], first["decisions"]) == ("amount", "pending", [])
    assert shown["expires_at"].endswith("Z")


def test_what_was_decided_is_told_and_listed(world: World, as_: As) -> None:
    batch, (refund, update, email) = make.make_full_batch(world)
    approver = as_("approver")
    body = decisions(
        line(refund), line(update, "reject", note="Wrong customer."), line(email, args={**email.args, "to": 7})
    )
    results = answer(approver.post(f"/approvals/{batch.id}/decisions", body))["results"]
    assert [result["outcome"] for result in results] == ["applied", "applied", "invalid"]
    assert all({"action", "outcome", "detail"} <= set(result) for result in results)
    assert (results[0]["action"], results[0]["by"]) == (str(refund.id), "marco")
    assert results[0]["at"].endswith("Z")

    again = answer(as_("admin").post(f"/approvals/{batch.id}/decisions", body))["results"]
    assert [result["outcome"] for result in again] == ["already_decided", "already_decided", "invalid"]
    assert again[0]["by"] == "marco"

    last = answer(approver.post(f"/approvals/{batch.id}/decisions", decisions(line(email))))["results"]
    assert [result["outcome"] for result in last] == ["applied"]
    assert answer(approver.get("/approvals"))["items"] == []
    (closed,) = answer(approver.get("/approvals", status="decided"))["items"]
    assert closed["status"] == "decided"
    assert [action["status"] for action in closed["actions"]] == ["approved", "rejected", "approved"]
    (said,) = closed["actions"][1]["decisions"]
    assert (said["by"], said["verdict"], said["note"]) == ("marco", "reject", "Wrong customer.")
    assert len(answer(approver.get("/approvals", status="all"))["items"]) == 1


def test_an_edit_supersedes(world: World, as_: As) -> None:
    batch = make.make_batch(world)
    refund = make.make_refund(batch)
    body = decisions(line(refund, args={**refund.args, "amount": 60.0}))
    (result,) = answer(as_("approver").post(f"/approvals/{batch.id}/decisions", body))["results"]
    assert result["outcome"] == "applied"
    new = Action.objects.get(id=result["superseded_by"])
    assert (new.args["amount"], new.supersedes_id, new.status) == (60.0, refund.id, "approved")


def test_what_was_not_shown_is_stale(world: World, as_: As) -> None:
    batch = make.make_batch(world)
    refund = make.make_refund(batch)
    body = decisions({**line(refund), "digest": "0" * 64})
    (result,) = answer(as_("approver").post(f"/approvals/{batch.id}/decisions", body))["results"]
    assert result["outcome"] == "stale"
    assert not Decision.objects.exists()


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"version": 0}, "version"),
        ({"version": "first"}, "version"),
        ({"version": None}, "version"),
        ({"decisions": []}, "decisions"),
        ({"decisions": [{}]}, "decisions.0.action"),
        ({"decisions": "all"}, "decisions"),
        ({"execution": "some"}, "execution"),
        ({"exec": "independent"}, "exec"),
    ],
)
def test_a_body_that_says_nothing_usable(world: World, as_: As, change: dict[str, Any], field: str) -> None:
    batch = make.make_batch(world)
    refund = make.make_refund(batch)
    response = as_("approver").post(f"/approvals/{batch.id}/decisions", {**decisions(line(refund)), **change})
    fields = fields_of(response)
    assert field in fields
    problem(response, 422, *fields)
    assert not Decision.objects.exists()


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"verdict": "maybe"}, "verdict"),
        ({"action": "7"}, "action"),
        ({"digest": ""}, "digest"),
        ({"args": [1]}, "args"),
        ({"note": "x" * 5000}, "note"),
        ({"note": "a\x00b"}, "note"),
        ({"args": {"order": "\ud800"}}, "args.order"),
        ({"notes": "typing mistake"}, "notes"),
    ],
)
def test_a_line_that_says_nothing_usable(world: World, as_: As, change: dict[str, Any], field: str) -> None:
    batch = make.make_batch(world)
    refund = make.make_refund(batch)
    body = decisions({**line(refund), **change})
    problem(as_("approver").post(f"/approvals/{batch.id}/decisions", body), 422, f"decisions.0.{field}")
    assert not Decision.objects.exists()


def test_a_status_that_is_none(world: World, as_: As) -> None:
    problem(as_("viewer").get("/approvals", status="soon"), 422, "status")


def test_a_constant_number_of_queries(world: World, as_: As) -> None:
    viewer = as_("viewer")
    make.make_full_batch(world)
    answer(viewer.get("/approvals"))

    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            answer(viewer.get("/approvals"))
        return len(captured)

    before = queries()
    for _ in range(4):
        make.make_full_batch(world)
    assert queries() == before
    assert Batch.objects.count() == 5


def test_what_a_run_did_or_proposes_is_listed_in_its_order(world: World, as_: As) -> None:
    """Also what is in no batch, which is how a dry run's proposals are found to be carried out; what an edit replaced
    is not there."""
    batch, (refund, update, email) = make.make_full_batch(world)
    Action.objects.filter(id__in=[refund.id, update.id]).update(batch=None)
    Action.objects.filter(id=update.id).update(status="stale", note="Its version was 1, is now 2.")
    make.make_full_batch(world)
    edit = decisions(line(email, args={**email.args, "to": "a@b.example"}))
    answer(as_("approver").post(f"/approvals/{batch.id}/decisions", edit))
    viewer = as_("viewer")
    listed = answer(viewer.get(f"/runs/{batch.run_id}/actions"))
    assert listed["next"] is None
    assert [set(action) for action in listed["items"]] == [ACTION] * 3
    first, second, third = listed["items"]
    assert (first["id"], first["digest"]) == (str(refund.id), refund.digest)
    assert (second["status"], second["note"]) == ("stale", "Its version was 1, is now 2.")
    assert (third["supersedes"], third["args"]["to"]) == (str(email.id), "a@b.example")

    page = answer(viewer.get(f"/runs/{batch.run_id}/actions", limit=2))
    rest = answer(viewer.get(f"/runs/{batch.run_id}/actions", limit=2, cursor=page["next"]))
    assert [*page["items"], *rest["items"]] == listed["items"]
    assert rest["next"] is None
    problem(viewer.get(f"/runs/{batch.run_id}/actions", cursor="nonsense"), 422, "cursor")


def test_what_was_approved_in_many_batches_is_taken_back_at_once(world: World, as_: As) -> None:
    approved, begun, foreign = (make.make_full_batch(world) for _ in range(3))
    for batch, (refund, *_) in (approved, begun):
        answer(as_("approver").post(f"/approvals/{batch.id}/decisions", decisions(line(refund))))
    Action.objects.filter(id=begun[1][0].id).update(status="executing")
    wanted = [approved[1][0], begun[1][0], foreign[1][0]]
    body = {"actions": [{"id": str(each.id), "digest": each.digest} for each in wanted]}
    body["actions"].append({"id": str(make.missing_id()), "digest": "x"})

    told = answer(as_("approver").post("/approvals/revoke", body, key="once"))

    results = told["results"]
    assert [each["outcome"] for each in results] == ["applied", "already_decided", "already_decided", "invalid"]
    assert [each["action"] for each in results] == [each["id"] for each in body["actions"]]
    assert Action.objects.get(id=results[0]["superseded_by"]).status == "pending", "the question comes back"
    assert answer(as_("approver").post("/approvals/revoke", body, key="once")) == told


def test_who_takes_back_across_batches(world: World, as_: As) -> None:
    batch, (refund, *_) = make.make_full_batch(world)
    answer(as_("approver").post(f"/approvals/{batch.id}/decisions", decisions(line(refund))))
    body = {"actions": [{"id": str(refund.id), "digest": refund.digest}]}

    problem(as_("nobody").post("/approvals/revoke", body), 401)
    problem(as_("operator").post("/approvals/revoke", body), 403)
    problem(as_("approver", Scope.READ).post("/approvals/revoke", body), 403)
    [said] = answer(as_("outsider").post("/approvals/revoke", body))["results"]
    assert (said["outcome"], said["detail"]) == ("invalid", "There is no such action.")
    problem(as_("approver").post("/approvals/revoke", {"actions": []}), 422, "actions")
    problem(as_("approver").get("/approvals/revoke"), 405)
    refund.refresh_from_db()
    assert refund.status == "approved"


def test_a_batch_is_handed_over(world: World, as_: As) -> None:
    batch, _ = make.make_full_batch(world)
    path = f"/approvals/{batch.id}/hand_over"
    shown = answer(as_("approver").post(path, {"to": "lea", "note": "Away.", "version": 1}, key="once"))
    assert (shown["asked"], shown["version"]) == (["lea"], 2)
    assert answer(as_("approver").post(path, {"to": "lea", "note": "Away.", "version": 1}, key="once")) == shown
    problem(as_("admin").post(path, {"to": "marco", "version": 1}), 409)
    problem(as_("admin").post(path, {"to": "noor"}), 422, "to")
    problem(as_("admin").post(path, {}), 422, "to")
    problem(as_("admin").post(path, {"to": "marco", "note": "x" * 1001}), 422, "note")
