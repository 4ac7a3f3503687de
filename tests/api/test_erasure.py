"""A person's data over the API: found and erased by admins alone."""

from __future__ import annotations

import datetime as dt

from django.utils import timezone

from accounts.models import Membership, Receipt, User
from accounts.schemas import Role
from runs.models import Run
from tests.api.client import NO_ID, answer, problem
from tests.api.conftest import As
from tests.approvals import factories as make
from tests.approvals.factories import World
from tests.traces.factories import make_step


def ended(world: World) -> Run:
    now = timezone.now()
    over = {"status": "completed", "stop_reason": "done", "started_at": now - dt.timedelta(seconds=9), "ended_at": now}
    run = make.make_run(world, waiting_since=None, **over)
    make_step(run, output={"to": "Ana Lima"})
    return run


def test_a_text_is_found_and_erased(world: World, as_: As) -> None:
    run, admin = ended(world), as_("admin")
    found = answer(admin.post("/erasure/search", {"text": "ana-lima"}))
    assert found["people"] == []
    assert (found["texts"]["runs"], found["texts"]["steps"]) == (1, 1)
    problem(admin.post("/erasure/texts", {"text": "Ana Lima", "again": "Ana"}), 422, "again")
    assert run.steps.get().payload.output == {"to": "Ana Lima"}
    assert answer(admin.post("/erasure/texts", {"text": "Ana Lima", "again": "Ana Lima"})) == found["texts"]
    assert run.steps.get().payload.output == {"to": "[erased]"}
    assert answer(admin.post("/erasure/search", {"text": "Ana Lima"}))["texts"]["steps"] == 0
    (receipt,) = Receipt.objects.filter(kind="text.erased")
    assert "Lima" not in str(receipt.payload)
    for text in ("", "a", "{}"):
        problem(admin.post("/erasure/search", {"text": text}), 422, "text")


def test_another_teams_rows_are_neither_found_nor_erased(world: World, as_: As) -> None:
    run = ended(world)
    other = as_("outsider")
    assert answer(other.post("/erasure/search", {"text": "Ana Lima"}))["texts"]["steps"] == 0
    answer(other.post("/erasure/texts", {"text": "Ana Lima", "again": "Ana Lima"}))
    assert run.steps.get().payload.output == {"to": "Ana Lima"}


def test_a_person_is_erased_by_their_username(world: World, as_: As) -> None:
    admin = as_("admin")
    olga = User.objects.create_user("olga", "olga@harborpine.example", first_name="Olga", last_name="Mirza")
    Membership.objects.create(team=world.team, user=olga, role=Role.VIEWER)
    (person,) = answer(admin.post("/erasure/search", {"text": "olga@harborpine.example"}))["people"]
    assert (person["id"], person["username"], person["refusal"]) == (str(olga.id), "olga", None)
    path = f"/erasure/people/{olga.id}"
    problem(admin.post(path, {"username": "marco"}), 422, "username")
    problem(as_("approver").post(path, {"username": "olga"}), 403)
    problem(as_("outsider").post(path, {"username": "olga"}), 404)
    for nobody in (NO_ID, "nonsense"):
        problem(admin.post(f"/erasure/people/{nobody}", {"username": "olga"}), 404)
    assert answer(admin.post(path, {"username": "olga"}))["memberships"] == 1
    olga.refresh_from_db()
    assert not olga.is_active
    assert "Olga" not in olga.first_name


def test_nobody_erases_themselves(world: World, as_: As) -> None:
    admin = world.people["admin"]
    refused = problem(as_("admin").post(f"/erasure/people/{admin.id}", {"username": admin.username}), 409)
    assert "This is you" in refused["detail"]
