"""Notes and scores by people over the API."""

from __future__ import annotations

from tests.api.client import NO_ID, answer, problem
from tests.api.conftest import As
from tests.approvals import factories as make
from tests.approvals.factories import World


def test_a_note_is_written_read_changed_and_deleted(world: World, as_: As) -> None:
    run = make.make_run(world)
    operator, admin = as_("operator"), as_("admin")
    path = f"/traces/{run.id}/notes"
    note = answer(operator.post(path, {"text": "Too late", "score": 0.25}, key="once"), 201)
    assert answer(operator.post(path, {"text": "Too late", "score": 0.25}, key="once"), 201) == note
    assert (note["seq"], note["text"], note["score"], note["edited_at"]) == (None, "Too late", 0.25, None)
    assert answer(as_("viewer").get(path)) == {"items": [note], "next": None}
    assert answer(as_("viewer").get("/traces", q="human_score:<0.5 note:late"))["items"][0]["run"]["id"] == str(run.id)
    changed = answer(operator.call("PUT", f"{path}/{note['id']}", {"score": 1}))
    assert (changed["text"], changed["score"]) == ("", 1)
    assert "wrote this note" in problem(admin.call("PUT", f"{path}/{note['id']}", {"score": 0}), 403)["detail"]
    problem(as_("outsider").call("DELETE", f"{path}/{note['id']}"), 404)
    problem(as_("viewer").call("DELETE", f"{path}/{note['id']}"), 403)
    assert admin.call("DELETE", f"{path}/{note['id']}").status_code == 204
    problem(admin.call("DELETE", f"{path}/{note['id']}"), 404)
    assert answer(operator.get(path))["items"] == []


def test_a_note_that_says_nothing_is_refused_at_its_field(world: World, as_: As) -> None:
    run, caller = make.make_run(world), as_("operator")
    path = f"/traces/{run.id}/notes"
    problem(caller.post(path, {}), 422, "text")
    problem(caller.post(path, {"text": "x", "score": 2}), 422, "score")
    problem(caller.post(path, {"text": "x", "seq": 0}), 422, "seq")
    problem(caller.post(path, {"text": "x", "sore": 1}), 422, "sore")
    problem(caller.post(path, {"text": "x", "seq": 99}), 404)
    problem(caller.call("PUT", f"{path}/{NO_ID}", {"text": "x"}), 404)
    problem(caller.post(f"/traces/{NO_ID}/notes", {"text": "x"}), 404)
