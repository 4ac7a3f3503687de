"""Links to one trace over the API."""

from __future__ import annotations

from urllib.parse import urlsplit

from django.test import Client

from tests.api.client import NO_ID, answer, problem
from tests.api.conftest import As
from tests.approvals import factories as make
from tests.approvals.factories import World
from tests.traces.test_pages import sign_in


def test_a_link_is_made_listed_opened_and_revoked(world: World, as_: As) -> None:
    run = make.make_run(world)
    operator, path = as_("operator"), f"/traces/{run.id}/shares"
    made = answer(operator.post(path, {"days": 7}, key="once"), 201)
    assert answer(operator.post(path, {"days": 7}, key="once"), 201) == made
    url = made.pop("url")
    maker = world.people["operator"].username
    assert (made["trace_id"], made["created_by"], made["opened_at"]) == (str(run.id), maker, None)
    assert answer(as_("viewer").get(path)) == {"items": [made], "next": None}
    assert sign_in(world.people["viewer"]).get(urlsplit(url).path).status_code == 200
    assert sign_in(world.outsider).get(urlsplit(url).path).status_code == 404
    assert Client().get(urlsplit(url).path).status_code == 302
    assert answer(operator.get(path))["items"][0]["opened_at"] is not None
    one = f"{path}/{made['id']}"
    problem(as_("outsider").call("DELETE", one), 404)
    problem(as_("viewer").call("DELETE", one), 403)
    problem(as_("approver").call("DELETE", one), 403)  # somebody else's
    assert as_("admin").call("DELETE", one).status_code == 204
    assert operator.call("DELETE", one).status_code == 204
    assert answer(operator.get(path))["items"] == []
    assert sign_in(world.people["viewer"]).get(urlsplit(url).path).status_code == 410


def test_what_can_not_be_shared(world: World, as_: As) -> None:
    run, caller = make.make_run(world), as_("operator")
    path = f"/traces/{run.id}/shares"
    for days in (0, 2, 10**9, "soon", None):
        problem(caller.post(path, {"days": days}), 422, "days")
    problem(caller.post(path, {"days": 7, "forever": True}), 422, "forever")
    problem(caller.post(f"/traces/{NO_ID}/shares", {"days": 7}), 404)
    problem(caller.get("/traces/nonsense/shares"), 404)
    problem(caller.call("DELETE", f"{path}/{NO_ID}"), 404)
    other = make.make_run(world)
    made = answer(caller.post(path, {"days": 1}), 201)
    problem(caller.call("DELETE", f"/traces/{other.id}/shares/{made['id']}"), 404)
