"""The form for a fork: who may, what it shows, and that nothing typed is lost."""

from __future__ import annotations

import pytest

from runs.models import Run, Step
from tests.runs.factories import HOSTILE, World, make_run, make_step, text_of

UNKNOWN = "01a2081b-54fd-71f6-9650-5bc629573351"


@pytest.fixture
def run(world: World) -> Run:
    run = make_run(world, status="completed", stop_reason="done")
    step = make_step(run, kind="tool", output={"ticket": 1})
    Step.objects.filter(id=step.id).update(key="tool:1:0")
    run.refresh_from_db()
    return run


@pytest.mark.parametrize(("who", "status"), [("admin", 200), ("operator", 200), ("viewer", 403), ("outsider", 404)])
def test_who_may_see_the_form(world: World, run: Run, who: str, status: int) -> None:
    assert world.client(who).get(f"/runs/{run.id}/fork/?from=1").status_code == status


@pytest.mark.parametrize("run_id", [UNKNOWN, "no-run"])
def test_a_run_that_is_not_there(world: World, run_id: str) -> None:
    assert world.client("operator").get(f"/runs/{run_id}/fork/").status_code == 404


def test_it_begins_with_what_the_run_had(world: World, run: Run) -> None:
    shown = text_of(world.client("operator").get(f"/runs/{run.id}/fork/?from=1"))
    assert run.task in shown
    assert "&quot;ticket&quot;: 1" in shown


def test_a_fork_is_made_and_shown(world: World, run: Run) -> None:
    answer = world.client("operator").post(
        f"/runs/{run.id}/fork/",
        {"from_seq": "1", "task": "Try again.", "agent": run.agent.slug, "output_of": "1", "output": '{"ticket": 2}'},
    )
    made = Run.objects.get(forked_from=run)
    assert (answer.status_code, answer["Location"]) == (303, f"/runs/{made.id}/")
    assert (made.task, made.forked_seq) == ("Try again.", 1)
    assert made.steps.get().payload.output == {"ticket": 2}


def test_what_was_typed_stays_when_it_is_refused(world: World, run: Run) -> None:
    answer = world.client("operator").post(
        f"/runs/{run.id}/fork/", {"from_seq": "7", "task": HOSTILE, "agent": run.agent.slug, "model": "m" * 20}
    )
    assert answer.status_code == 422
    shown = text_of(answer)
    assert "Nothing was forked." in shown
    assert "m" * 20 in shown
    assert "<script>" not in shown
    assert not Run.objects.filter(forked_from=run).exists()


def test_a_viewer_forks_nothing(world: World, run: Run) -> None:
    assert world.client("viewer").post(f"/runs/{run.id}/fork/", {"from_seq": "1"}).status_code == 403
    assert Run.objects.count() == 1


def test_the_step_leads_to_it_for_those_who_may(world: World, run: Run) -> None:
    path = f"/runs/{run.id}/steps/1/"
    assert f"/runs/{run.id}/fork/?from=1" in text_of(world.client("operator").get(path))
    assert "/fork/" not in text_of(world.client("viewer").get(path))


# --- the output ------------------------------------------------------------------------------------------------------

SHOWN = '{\r\n  "ticket": 1\r\n}'


def post(world: World, run: Run, **typed: str) -> tuple[int, str]:
    wanted = {"from_seq": "1", "task": run.task, "agent": run.agent.slug, **typed}
    answer = world.client("operator").post(f"/runs/{run.id}/fork/", wanted)
    return answer.status_code, "" if answer.status_code == 303 else text_of(answer)


def test_an_output_that_is_left_alone_is_not_replaced(world: World, run: Run) -> None:
    """Nor is a task: what is shown may be redacted, and the run goes on with the real one."""
    status, _ = post(world, run, output_of="1", output=SHOWN)
    assert status == 303
    made = Run.objects.get(forked_from=run)
    assert (made.task, made.forked_seq) == (run.task, 0), "the step itself is made anew"


def test_another_step_is_shown_without_losing_what_was_typed(world: World, run: Run) -> None:
    make_step(run, kind="model")
    status, shown = post(world, run, from_seq="2", show="1", output_of="1", output=SHOWN, task="Be brief.")
    assert status == 200
    assert "Be brief." in shown
    assert "Step 2 of 2" in shown
    assert "&quot;ticket&quot;" not in shown
    assert not Run.objects.filter(forked_from=run).exists()


@pytest.mark.parametrize("show", [{}, {"show": "1"}], ids=["fork", "show"])
def test_a_changed_output_of_another_step_is_no_secret(world: World, run: Run, show: dict[str, str]) -> None:
    make_step(run, kind="model")
    status, shown = post(world, run, from_seq="2", output_of="1", output="mine", **show)
    assert status == 422
    assert "You changed the output of step 1" in shown
    assert "mine" in shown
    assert not Run.objects.filter(forked_from=run).exists()


def test_an_empty_task_is_refused(world: World, run: Run) -> None:
    status, shown = post(world, run, task=" ")
    assert status == 422
    assert "Write what the agent should do." in shown
