"""`POST /runs/{id}/fork`."""

from __future__ import annotations

import pytest

from runs.models import Step
from tests.api.client import answer, problem
from tests.api.conftest import As
from tests.approvals import factories as make
from tests.approvals.factories import World
from tests.traces.factories import make_step


def test_a_fork_is_a_run_of_its_own(world: World, as_: As) -> None:
    run = make.make_run(world, status="completed", stop_reason="done")
    step = make_step(run, kind="tool")
    Step.objects.filter(id=step.id).update(key="tool:1:0")
    run.refresh_from_db()
    made = answer(as_("operator").post(f"/runs/{run.id}/fork", {"from_seq": step.seq, "replace_output": None}), 201)
    assert (made["forked_from"], made["status"], made["task"]) == (str(run.id), "queued", run.task)
    (copy,) = answer(as_("operator").get(f"/runs/{made['id']}/steps"), 200)["items"]
    assert (copy["output"], copy["cost_usd"]) == (None, "0.00")


@pytest.mark.parametrize(("who", "status"), [("viewer", 403), ("outsider", 404)])
def test_who_may_not(world: World, as_: As, who: str, status: int) -> None:
    run = make.make_run(world)
    problem(as_(who).post(f"/runs/{run.id}/fork", {"from_seq": 1}), status)


def test_what_is_wrong_is_named(world: World, as_: As) -> None:
    run = make.make_run(world)
    wrong = as_("operator").post(f"/runs/{run.id}/fork", {"from_seq": 99, "agent": "nobody"})
    problem(wrong, 422, "from_seq", "agent")
    problem(as_("operator").post(f"/runs/{run.id}/fork", {"from_seq": 1, "task": ""}), 422, "task")
