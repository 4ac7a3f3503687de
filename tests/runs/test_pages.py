"""The pages of runs and agents: who may see and do what, what is shown, what a failed form keeps."""

from __future__ import annotations

import datetime as dt
import re
import uuid
from collections.abc import Callable
from decimal import Decimal

import pytest
from django.conf import settings
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from runs import live, step_rows
from runs.asked import Chosen, RunMessage
from runs.models import Run
from tests.runs.factories import HOSTILE, PLAN, World, make_action, make_agent, make_batch, make_run, make_step, text_of

UNKNOWN = "01a2081b-54fd-71f6-9650-5bc629573351"
PAGES: dict[str, Callable[[World, Run], str]] = {
    "launch": lambda world, run: "/?agent=refund-desk",
    "estimate": lambda world, run: "/launch/estimate/?agent=refund-desk&mode=batch&cost=1.50",
    "list": lambda world, run: "/runs/",
    "live": lambda world, run: f"/runs/{run.id}/",
    "step": lambda world, run: f"/runs/{run.id}/steps/1/",
    "report": lambda world, run: f"/runs/{run.id}/report/",
    "agents": lambda world, run: "/agents/",
    "agent": lambda world, run: "/agents/refund-desk/",
}
OF_ONE = ("live", "step", "report", "agent")
CHANGES = ("pause", "resume", "cancel", "steer")


@pytest.fixture
def run(world: World) -> Run:
    run = make_run(world, mode="dry_run", plan=PLAN)
    make_step(run, output={"ticket": 1})
    return run


# --- who may ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("who", ["admin", "approver", "operator", "viewer"])
def test_members_see_every_page(world: World, run: Run, page: str, who: str) -> None:
    response = world.client(who).get(PAGES[page](world, run))

    assert response.status_code == 200


@pytest.mark.parametrize("page", PAGES)
def test_who_is_not_signed_in_is_asked_to(world: World, run: Run, page: str) -> None:
    response = world.client("anonymous").get(PAGES[page](world, run))

    assert response.status_code == 302
    assert response["Location"].startswith("/accounts/login/?next=")


@pytest.mark.parametrize("page", OF_ONE)
def test_another_team_gets_not_found(world: World, run: Run, page: str) -> None:
    assert world.client("outsider").get(PAGES[page](world, run)).status_code == 404


@pytest.mark.parametrize("page", ["launch", "list", "agents"])
def test_another_teams_rows_are_not_listed(world: World, run: Run, page: str) -> None:
    shown = text_of(world.client("outsider").get(PAGES[page](world, run)))

    assert "late deliveries" not in shown
    assert "Refund desk" not in shown


@pytest.mark.parametrize("path", ["/runs/{id}/", "/runs/{id}/steps/1/", "/runs/{id}/report/", "/?again={id}"])
@pytest.mark.parametrize("run_id", [UNKNOWN, "not-an-id", "1", "%00"])
def test_unknown_ids_are_not_found(world: World, run: Run, path: str, run_id: str) -> None:
    assert world.client("admin").get(path.format(id=run_id)).status_code == 404


def test_unknown_steps_and_agents_are_not_found(world: World, run: Run) -> None:
    client = world.client("admin")

    assert client.get(f"/runs/{run.id}/steps/99/").status_code == 404
    assert client.get("/agents/nobody/").status_code == 404


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize(("who", "status"), [("viewer", 403), ("outsider", 404), ("anonymous", 302)])
def test_who_may_not_launch_changes_nothing(world: World, run: Run, change: str, who: str, status: int) -> None:
    response = world.client(who).post(f"/runs/{run.id}/{change}", {"text": "stop"})

    run.refresh_from_db()
    assert response.status_code == status
    assert (run.status, run.wish, RunMessage.objects.count()) == ("running", "", 0)


@pytest.mark.parametrize("change", CHANGES)
def test_changes_are_posted(world: World, run: Run, change: str) -> None:
    assert world.client("admin").get(f"/runs/{run.id}/{change}").status_code == 405


@pytest.mark.parametrize("who", ["operator", "approver", "admin"])
def test_operators_pause_continue_steer_and_cancel(world: World, run: Run, who: str) -> None:
    client = world.client(who)
    for change, wish in (("pause", "pause"), ("resume", ""), ("cancel", "cancel")):
        response = client.post(f"/runs/{run.id}/{change}")

        run.refresh_from_db()
        assert (response.status_code, response["Location"]) == (303, f"/runs/{run.id}/")
        assert run.wish == wish
    assert client.post(f"/runs/{run.id}/steer", {"text": "Be brief\r\nplease"}).status_code == 303
    assert RunMessage.objects.get().text == "Be brief\nplease"


def test_a_viewer_is_offered_no_button(world: World, run: Run) -> None:
    client = world.client("viewer")
    shown = text_of(client.get(f"/runs/{run.id}/"))

    assert 'form="pause-form"' not in shown
    assert 'id="steer-text"' not in shown
    assert "data-launch" not in text_of(client.get("/?agent=refund-desk"))


# --- the live page ---------------------------------------------------------------------------------------------------


def test_the_live_page_shows_the_run(world: World) -> None:
    run = make_run(
        world, plan=PLAN, max_cost_usd=Decimal("1.00"), input_tokens=1000, cache_read_tokens=500, output_tokens=30
    )
    make_step(run, "plan", cost_usd=Decimal("0.25"))
    make_step(run, "model", cost_usd=Decimal("0.60"), plan_step=0)
    make_step(run, "tool", plan_step=1, status="error")
    make_step(run, "evaluate", score=0.71, plan_step=1)
    make_step(run, "approval", key="ask:queue:1", title="Sent 2 actions to the inbox", duration_ms=0, plan_step=1)
    batch = make_batch(run, actions=2)

    shown = text_of(world.client("approver").get(f"/runs/{run.id}/"))

    assert 'aria-label="Cost: $0.85 of $1.00, 85%"' in shown
    assert 'aria-label="Tokens: 1.5k of 660k, 0%"' in shown
    assert 'aria-label="Steps: 4 of 60, 7%"' in shown
    assert "85% of the cost budget is used." in shown
    assert "2 actions wait for you" in shown
    assert shown.count(f'href="/approvals/{batch.id}/"') == 2
    assert shown.count("button--primary") == 1
    assert re.findall(r'<h3 class="timeline-title">(.*?)</h3>', shown) == ["Read the requests", "Issue refunds"]
    assert "All 5" in shown
    assert "Evaluations 1" in shown
    assert "1 batch in the inbox is withdrawn, so 2 actions will not run." in shown


def test_a_viewer_reads_that_a_person_is_needed(world: World) -> None:
    run = make_run(world, status="waiting", waiting_since=timezone.now())
    make_batch(run, actions=1)

    assert "1 action waits for a person" in text_of(world.client("viewer").get(f"/runs/{run.id}/"))


def test_the_same_row_everywhere(world: World) -> None:
    run = make_run(world, plan=PLAN)
    make_step(run, plan_step=0)
    make_step(run, "model", plan_step=1, cost_usd=None)

    alone = [step_rows.render_row(row) for row in step_rows.rows_after(run, 0)]

    shown = text_of(world.client("viewer").get(f"/runs/{run.id}/"))
    assert len(alone) == 2
    assert all(row.strip() in shown for row in alone)
    assert alone[1] == step_rows.render_row(step_rows.rows_after(run, 1)[0])
    assert "unpriced" in alone[1]


def test_a_step_opens_alone_and_as_a_page(world: World) -> None:
    run = make_run(world)
    make_step(run, input={"ticket": "T-301"}, output="x" * 9000, reasoning=HOSTILE)
    client = world.client("viewer")

    fragment = text_of(client.get(f"/runs/{run.id}/steps/1/", headers={"HX-Request": "true"}))
    page = text_of(client.get(f"/runs/{run.id}/steps/1/"))

    assert "<html" not in fragment
    assert "<html" in page
    for shown in (fragment, page):
        assert "&quot;ticket&quot;: &quot;T-301&quot;" in shown
        assert "1,000 more characters" in shown
        assert "<script>alert" not in shown


def test_text_in_flight_is_on_the_page(world: World) -> None:
    run = make_run(world)
    make_step(run)
    begun = {"key": "model:1", "kind": "model", "title": "Decide", "tool": "", "model": "m", "seq": 2, "started_at": ""}
    live.delta(run.id, begun, "I look <b>at\u202e the", 0)

    shown = text_of(world.client("viewer").get(f"/runs/{run.id}/"))

    assert 'data-length="17">I look &lt;b&gt;at\ufffd the</div>' in shown
    Run.objects.filter(id=run.id).update(status="paused")
    assert "I look" not in text_of(world.client("viewer").get(f"/runs/{run.id}/"))


def test_a_long_run_is_shown_from_its_end(world: World) -> None:
    run = make_run(world)
    for _ in range(step_rows.MOST_STEPS + 5):
        make_step(run)
    client = world.client("viewer")

    newest = text_of(client.get(f"/runs/{run.id}/"))
    earlier = text_of(client.get(f"/runs/{run.id}/?before=6"))

    assert re.findall(r'id="step-(\d+)"', newest)[0] == "6"
    assert f"/runs/{run.id}/?before=6" in newest
    assert re.findall(r'id="step-(\d+)"', earlier) == ["1", "2", "3", "4", "5"]
    assert "data-still" in earlier


ENDS = [
    ("completed", "done", "The agent finished"),
    ("stopped", "max_cost", "The cost budget does not cover more work"),
    ("failed", "model_error", "The model could not be used"),
    ("cancelled", "cancelled", "A person cancelled this run"),
    ("dry_run_ready", "done", "Nothing has changed"),
]


@pytest.mark.parametrize(("status", "reason", "title"), ENDS)
def test_an_ended_run_says_why(world: World, status: str, reason: str, title: str) -> None:
    run = make_run(
        world, status=status, stop_reason=reason, stop_detail="Failed: 401 <x>.", result="All <b>done</b>", plan=PLAN
    )
    make_action(run, status="succeeded")
    make_action(run, status="rejected")

    shown = text_of(world.client("operator").get(f"/runs/{run.id}/"))

    assert f'<h2 id="ending-title">{title}</h2>' in shown
    assert "1 action was carried out" in shown
    assert "All &lt;b&gt;done&lt;/b&gt;" in shown
    assert f'href="/?again={run.id}"' in shown
    assert 'id="steer-text"' not in shown
    if status in {"stopped", "failed"}:
        assert "401 &lt;x&gt;" in shown
        assert "1 action was rejected" in shown
        assert f'data-copy="{reason} {run.id}"' in shown


def test_a_message_that_can_not_be_sent_is_kept(world: World) -> None:
    client = world.client("operator")
    run = make_run(world)
    too_long = "x" * 20_001

    refused = client.post(f"/runs/{run.id}/steer", {"text": too_long})
    assert refused.status_code == 422
    assert f">\n{too_long}</textarea>" in text_of(refused)
    assert "At most 20,000 characters" in text_of(refused)

    over = make_run(world, status="completed")
    late = client.post(f"/runs/{over.id}/steer", {"text": "Wait, <b>stop</b>"})
    assert late.status_code == 409
    assert "Not delivered: the run has ended." in text_of(late)
    assert "Wait, &lt;b&gt;stop&lt;/b&gt;" in text_of(late)


def test_htmx_gets_the_regions_that_changed(world: World) -> None:
    run = make_run(world)
    client = world.client("operator")
    htmx = {"HX-Request": "true"}

    paused = text_of(client.post(f"/runs/{run.id}/pause", headers=htmx))
    assert 'hx-target="#run-actions"' in paused
    assert "Keep running" in paused
    again = text_of(client.post(f"/runs/{run.id}/pause", headers=htmx))
    assert "can&#x27;t be paused" in again
    steered = text_of(client.post(f"/runs/{run.id}/steer", {"text": "Be <b>brief</b>"}, headers=htmx))
    assert "Be &lt;b&gt;brief&lt;/b&gt;" in steered
    refused = client.post(f"/runs/{run.id}/steer", {"text": " "}, headers=htmx)
    assert refused.status_code == 422
    assert "Write what the agent should know." in text_of(refused)


def test_a_change_that_comes_too_late_says_so(world: World) -> None:
    run = make_run(world, status="completed")

    response = world.client("operator").post(f"/runs/{run.id}/cancel", follow=True)

    assert response.redirect_chain == [(f"/runs/{run.id}/", 303)]
    assert "The run is completed and can&#x27;t be cancelled." in text_of(response)


# --- lists, agents, report -------------------------------------------------------------------------------------------


def test_an_agent_is_read_with_its_policies(world: World) -> None:
    agent = make_agent(
        world.team,
        slug="careful",
        tools=[
            {"name": "shop.issue_refund", "policy": "two_person"},
            {"name": "gone.tool", "policy": "review", "risk": "high"},
        ],
        instructions=HOSTILE,
    )

    shown = text_of(world.client("viewer").get(f"/agents/{agent.slug}/"))

    assert "Two-person" in shown
    assert "Not offered by any server now" in shown
    assert "<script>alert" not in shown
    assert "v1 live" in shown


def test_the_report_says_that_nothing_changed(world: World) -> None:
    run = make_run(world, mode="dry_run", status="dry_run_ready")
    make_action(
        run,
        status="approved",
        needed=0,
        preview={"type": "record", "fields": [{"field": "notes", "now": "", "after": HOSTILE}], "to": "Ines"},
    )
    make_action(run)

    shown = text_of(world.client("viewer").get(f"/runs/{run.id}/report/"))

    assert "<b>Nothing has changed.</b>" in shown
    assert shown.count("data-row>") == 2
    assert "Runs at once because" in shown
    assert "Waits for a person because" in shown
    assert "<script>alert" not in shown
    assert "data-execute" not in shown, "a viewer carries out nothing"


def test_only_a_dry_run_has_a_report(world: World) -> None:
    run = make_run(world)

    assert world.client("admin").get(f"/runs/{run.id}/report/").status_code == 404


def test_a_parked_run_says_when_it_tries_again_and_can_try_now(world: World) -> None:
    run = make_run(world, status="queued", due_at=timezone.now() + dt.timedelta(hours=1))
    operator = world.client("operator")

    assert 'data-focus="try-now"' in text_of(operator.get(f"/runs/{run.id}/"))
    assert 'data-focus="try-now"' not in text_of(world.client("viewer").get(f"/runs/{run.id}/"))
    operator.post(f"/runs/{run.id}/resume")

    run.refresh_from_db()
    assert (run.status, run.due_at) == ("queued", None)
    assert 'data-focus="try-now"' not in text_of(operator.get(f"/runs/{run.id}/"))


def test_what_can_still_be_taken_back_is_not_hurried(world: World) -> None:
    begins = timezone.now() + dt.timedelta(minutes=5)
    run = make_run(world, status="queued", due_at=begins)
    make_action(run, status="approved", starts_at=begins)
    operator = world.client("operator")

    shown = text_of(operator.get(f"/runs/{run.id}/"))
    refused = text_of(operator.post(f"/runs/{run.id}/resume", follow=True))

    assert 'data-focus="try-now"' not in shown
    assert f"Begins at {begins:%H:%M:%S} UTC" in shown
    assert "The run is queued and can&#x27;t be resumed." in refused
    run.refresh_from_db()
    assert run.due_at == begins


# --- queries ---------------------------------------------------------------------------------------------------------


def queries(world: World, path: str) -> int:
    client = world.client("approver")
    with CaptureQueriesContext(
        connection,
    ) as captured:
        assert client.get(path).status_code == 200
    return len(captured)


@pytest.mark.parametrize("path", ["/", "/runs/", "/agents/", "/agents/refund-desk/"])
def test_lists_ask_as_often_for_twenty_runs_as_for_one(world: World, path: str) -> None:
    def add(slug: str) -> None:
        run = make_run(world, status="completed", simulated=settings.SIMULATED)
        make_batch(run, key=str(uuid.uuid4()), actions=2)
        make_agent(world.team, slug=slug)

    add("first")
    one = queries(world, path)
    for n in range(19):
        add(f"agent-{n}")

    assert queries(world, path) == one


def test_the_live_page_asks_as_often_for_twenty_steps_as_for_one(world: World) -> None:
    run = make_run(world, plan=PLAN)

    def add(n: int) -> None:
        make_step(run, "model", plan_step=n % 2)
        make_batch(run, key=f"queue:{n}", actions=2)
        RunMessage.objects.create(run=run, sender=world.people["operator"], text="Be brief")

    add(0)
    one = queries(world, f"/runs/{run.id}/")
    for n in range(1, 20):
        add(n)

    assert queries(world, f"/runs/{run.id}/") == one


# --- carrying out a dry run ------------------------------------------------------------------------------------------


def test_the_report_is_carried_out_by_a_form(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runs.staleness.tools_of", lambda run: {})
    run = make_run(world, mode="dry_run", status="dry_run_ready", ended_at=timezone.now())
    action = make_action(run, status="approved", needed=0)
    client = world.client("operator")
    page = text_of(client.get(f"/runs/{run.id}/report/"))
    assert "Execute 1 of 1 action" in page
    assert f'name="digest-{action.id}" value="{action.digest}"' in page

    data = {"select": [str(action.id)], f"digest-{action.id}": action.digest}
    answer = client.post(f"/runs/{run.id}/report/execute", data, follow=True)
    assert "the tool is not there any more" in text_of(answer), "checked before it is taken"
    action.refresh_from_db()
    assert (action.status, action.changed) == ("approved", "the tool is not there any more")
    assert "Plan it again" in text_of(answer)
    again = client.post(f"/runs/{run.id}/report/plan-again", {"action": [str(action.id)]}, follow=True)
    assert "can&#x27;t be planned now" in text_of(again)
    for empty in ({}, {"select": "x"}):
        assert client.post(f"/runs/{run.id}/report/execute", empty).status_code in (303, 400)
    assert "report-poll" in text_of(client.get(f"/runs/{run.id}/report/state"))


@pytest.mark.parametrize(
    ("who", "status"),
    [("admin", 303), ("operator", 303), ("viewer", 403), ("outsider", 404), ("anonymous", 302)],
)
@pytest.mark.parametrize("what", ["execute", "plan-again", "take-back"])
def test_who_carries_out_a_report(
    world: World, who: str, status: int, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runs.staleness.tools_of", lambda run: {})
    run = make_run(world, mode="dry_run", status="dry_run_ready", ended_at=timezone.now())
    assert world.client(who).post(f"/runs/{run.id}/report/{what}").status_code == status
    assert world.client(who).get(f"/runs/{run.id}/report/{what}").status_code in (405, 302)


def test_a_choice_that_has_not_begun_is_taken_back_on_the_report(world: World) -> None:
    begins = timezone.now() + dt.timedelta(seconds=60)
    run = make_run(world, mode="dry_run", status="queued", due_at=begins)
    action = make_action(run, status="approved", needed=0)
    before = {"stop_reason": "done", "stop_detail": "", "ended_at": timezone.now().isoformat()}
    Chosen.objects.create(
        run=run, number=1, by=world.people["admin"], intents=[action.intent], begins_at=begins, before=before
    )
    url = f"/runs/{run.id}/report/"
    assert "take-back" not in text_of(world.client("viewer").get(url))
    client = world.client("operator")
    page = text_of(client.get(url))
    assert "Begins at" in page
    assert f"{url}take-back" in page

    answer = text_of(client.post(f"{url}take-back", follow=True))

    assert "1 action was taken back. Nothing has run." in answer
    assert "Execute 1 of 1 action" in answer
    assert "can&#x27;t be taken back any more" in text_of(client.post(f"{url}take-back", follow=True))
