"""`/runs`: launching, reading, steps, steering, and the controls with their conflicts."""

from __future__ import annotations

import datetime as dt
import uuid
from decimal import Decimal

import pytest
from django.utils import timezone

from runs.asked import RunMessage
from runs.engine.types import ENDED, ActionStatus, RunStatus
from runs.models import Action, Run
from tests.api.client import answer, problem, words
from tests.api.conftest import As
from tests.approvals import factories as make
from tests.approvals.factories import World
from tests.traces.factories import make_model_step, make_step

# As CONTRACT lists them; the fields below the line are more than it promises.
RUN = words(
    "id agent agent_version task task_type mode status stop_reason stop_detail result plan limits totals parent"
    " forked_from owner created_at started_at ended_at"
) | {"number", "simulated", "metadata", "due_at"}
LIMITS = {"max_steps", "max_input_tokens", "max_output_tokens", "max_cost_usd", "max_seconds"}
TOTALS = words(
    "steps model_calls tool_calls input_tokens output_tokens cache_read_tokens cache_write_tokens cost_usd duration_ms"
    " wait_ms"
) | {"unpriced_steps", "sub_agents", "lowest_score"}
STEP = words(
    "seq kind title tool tool_call_id status input output reasoning confidence score model input_tokens output_tokens"
    " cache_read_tokens cache_write_tokens cost_usd duration_ms started_at error attempt child_run"
) | {"summary"}
LAUNCH = {"agent": "refund-desk", "task": "Sort the tickets."}
STATES = [status.value for status in RunStatus]


def in_status(world: World, status: str, **fields: object) -> Run:
    ended = status in ENDED
    return make.make_run(
        world,
        status=status,
        stop_reason="done" if ended else None,
        ended_at=timezone.now() if ended else None,
        waiting_since=timezone.now() if status in ("waiting", "paused") else None,
        lease_owner="elsewhere:1:1" if status == "running" else "",
        **fields,
    )


def test_a_launched_run_has_the_shape_of_the_contract(world: World, as_: As) -> None:
    run = answer(as_("operator").post("/runs", LAUNCH), 201)
    assert set(run) == RUN
    assert set(run["limits"]) == LIMITS
    assert set(run["totals"]) == TOTALS
    assert uuid.UUID(run["id"]).version == 7
    expected = {
        "agent": "refund-desk",
        "agent_version": 1,
        "task": "Sort the tickets.",
        "task_type": "",
        "mode": "interactive",
        "status": "queued",
        "stop_reason": None,
        "result": "",
        "plan": {"steps": []},
        "parent": None,
        "forked_from": None,
        "owner": "ana",
        "started_at": None,
        "ended_at": None,
        "metadata": {},
    }
    assert {name: run[name] for name in expected} == expected
    assert run["limits"]["max_cost_usd"] == "1.50"
    assert run["totals"]["cost_usd"] == "0.00"
    assert run["created_at"].endswith("Z")
    assert dt.datetime.fromisoformat(run["created_at"]).tzinfo == dt.UTC


def test_everything_that_can_be_asked_for(world: World, as_: As) -> None:
    limits = {"max_steps": 7, "max_cost_usd": "0.123456789", "max_seconds": None}
    wanted = {**LAUNCH, "mode": "dry_run", "limits": limits, "task_type": "refunds", "metadata": {"ticket": [48213]}}
    run = answer(as_("operator").post("/runs", wanted), 201)
    assert (run["mode"], run["task_type"], run["metadata"]) == ("dry_run", "refunds", {"ticket": [48213]})
    assert run["limits"] == {
        "max_steps": 7,
        "max_input_tokens": 600_000,
        "max_output_tokens": 60_000,
        "max_cost_usd": "0.123456789",
        "max_seconds": None,
    }
    assert answer(as_("viewer").get(f"/runs/{run['id']}")) == run


def test_a_launch_rings_a_worker(
    world: World, as_: As, monkeypatch: pytest.MonkeyPatch, django_capture_on_commit_callbacks: object
) -> None:
    rung: list[object] = []
    monkeypatch.setattr("runs.doorbell.current_app.send_task", lambda name, args: rung.append((name, args)))
    with django_capture_on_commit_callbacks(execute=True):  # type: ignore[operator]
        run = answer(as_("operator").post("/runs", LAUNCH), 201)
    assert rung == [("runs.advance", [run["id"]])]


def test_a_run_with_a_past(world: World, as_: As) -> None:
    run = in_status(
        world,
        "completed",
        started_at=timezone.now() - dt.timedelta(seconds=10),
        cost_usd=Decimal("0.0421"),
        wait_ms=4_000,
        result="Both refunds are done.",
        plan={"steps": [{"title": "Read", "status": "done", "needs_person": False, "assumptions": []}]},
    )
    shown = answer(as_("viewer").get(f"/runs/{run.id}"))
    assert shown["totals"]["cost_usd"] == "0.0421"
    assert (shown["totals"]["wait_ms"], shown["result"]) == (4_000, "Both refunds are done.")
    assert 9_500 < shown["totals"]["duration_ms"] < 12_000
    assert shown["plan"]["steps"][0]["title"] == "Read"


def test_a_run_that_waits_to_try_again_says_until_when(world: World, as_: As) -> None:
    due = timezone.now().replace(microsecond=0) + dt.timedelta(hours=1)
    waits, went_on = in_status(world, "queued", due_at=due), in_status(world, "completed", due_at=due)
    assert answer(as_("viewer").get(f"/runs/{waits.id}"))["due_at"] == f"{due:%Y-%m-%dT%H:%M:%S}.000Z"
    assert answer(as_("viewer").get(f"/runs/{went_on.id}"))["due_at"] is None


def test_lists_filter_by_status_and_agent(world: World, as_: As) -> None:
    queued, waiting = in_status(world, "queued"), in_status(world, "waiting")
    viewer = as_("viewer")

    def ids(**query: str) -> set[str]:
        return {run["id"] for run in answer(viewer.get("/runs", **query))["items"]}

    assert ids() == {str(queued.id), str(waiting.id)}
    assert ids(status="waiting") == {str(waiting.id)}
    assert ids(agent="refund-desk") == ids()
    assert ids(agent="nobody") == set()
    assert ids(status="waiting", agent="refund-desk") == {str(waiting.id)}
    problem(viewer.get("/runs", status="sleeping"), 422, "status")


def test_steps_page_by_seq(world: World, as_: As) -> None:
    run = in_status(world, "completed", started_at=timezone.now())
    make_model_step(run, cost="0.0123", reasoning="The photo shows a dent.")
    make_step(run, tool="shop.get_order", tool_call_id="toolu_1", input={"order": "48213"}, output={"total": "129.00"})
    make_model_step(run, cost=None)
    viewer = as_("viewer")
    page = answer(viewer.get(f"/runs/{run.id}/steps"))
    assert set(page) == {"items", "next"}
    assert page["next"] is None
    model, tool, unpriced = page["items"]
    assert [set(step) for step in page["items"]] == [STEP] * 3
    assert [step["seq"] for step in page["items"]] == [1, 2, 3]
    assert (model["cost_usd"], tool["cost_usd"], unpriced["cost_usd"]) == ("0.0123", "0.00", None)
    assert (model["kind"], model["tool"], model["reasoning"]) == ("model", None, "The photo shows a dent.")
    assert (model["cache_read_tokens"], model["cache_write_tokens"]) == (20_400, 3_100)
    assert (tool["tool"], tool["input"], tool["output"]) == ("shop.get_order", {"order": "48213"}, {"total": "129.00"})
    assert (tool["error"], tool["child_run"], tool["attempt"]) == (None, None, 1)

    first = answer(viewer.get(f"/runs/{run.id}/steps", limit=2))
    assert ([step["seq"] for step in first["items"]], first["next"]) == ([1, 2], 2)
    rest = answer(viewer.get(f"/runs/{run.id}/steps", limit=2, after=first["next"]))
    assert ([step["seq"] for step in rest["items"]], rest["next"]) == ([3], None)
    assert answer(viewer.get(f"/runs/{run.id}/steps", after=2**31 - 1)) == {"items": [], "next": None}
    problem(viewer.get(f"/runs/{run.id}/steps", after=-1), 422, "after")
    problem(viewer.get(f"/runs/{run.id}/steps", after="two"), 422, "after")
    problem(viewer.get(f"/runs/{run.id}/steps", after=2**80), 422, "after")


# --- people's wishes -------------------------------------------------------------------------------------------------


def test_a_message_is_kept_for_the_next_model_call(world: World, as_: As) -> None:
    run = in_status(world, "running")
    told = answer(as_("operator").post(f"/runs/{run.id}/messages", {"text": "  Skip the toaster.  "}), 202)
    assert set(told) == {"id", "text", "created_at"}
    message = RunMessage.objects.get()
    assert (message.text, message.sender, message.run_id) == ("Skip the toaster.", world.people["operator"], run.id)


@pytest.mark.parametrize("text", ["", "   ", "x" * 20_001, "a\x00b", "\ud800"])
def test_a_message_that_says_nothing_usable(world: World, as_: As, text: str) -> None:
    run = in_status(world, "running")
    problem(as_("operator").post(f"/runs/{run.id}/messages", {"text": text}), 422, "text")
    assert not RunMessage.objects.exists()


PAUSED = {"queued": "paused", "running": "running"}
RESUMED = {"paused": "queued"}
CANCELLED = {"queued": "cancelled", "waiting": "cancelled", "paused": "cancelled", "running": "running"}


@pytest.mark.parametrize("status", STATES)
@pytest.mark.parametrize(
    ("verb", "possible"),
    [("pause", PAUSED), ("resume", RESUMED), ("cancel", CANCELLED)],
    ids=lambda value: str(value)[:6],
)
def test_controls_in_every_status(world: World, as_: As, status: str, verb: str, possible: dict[str, str]) -> None:
    run = in_status(world, status)
    response = as_("operator").post(f"/runs/{run.id}/{verb}")
    if status in possible:
        shown = answer(response)
        assert set(shown) == RUN
        assert shown["status"] == possible[status]
        return
    refused = problem(response, 409)
    assert refused["current_status"] == status
    assert status in refused["detail"]
    run.refresh_from_db()
    assert (run.status, run.wish) == (status, "")


@pytest.mark.parametrize("status", sorted(ENDED))
def test_an_ended_run_hears_no_message(world: World, as_: As, status: str) -> None:
    run = in_status(world, status)
    refused = problem(as_("operator").post(f"/runs/{run.id}/messages", {"text": "One more thing."}), 409)
    assert refused["current_status"] == status
    assert not RunMessage.objects.exists()


def test_a_wish_to_pause_is_taken_back(world: World, as_: As) -> None:
    run = in_status(world, "running")
    operator = as_("operator")
    answer(operator.post(f"/runs/{run.id}/pause"))
    problem(operator.post(f"/runs/{run.id}/pause"), 409)
    answer(operator.post(f"/runs/{run.id}/resume"))
    run.refresh_from_db()
    assert run.wish == ""


def test_cancelling_a_waiting_run_withdraws_what_it_asked(world: World, as_: As) -> None:
    batch, actions = make.make_full_batch(world)
    shown = answer(as_("operator").post(f"/runs/{batch.run_id}/cancel"))
    assert (shown["status"], shown["stop_reason"]) == ("cancelled", "cancelled")
    assert shown["ended_at"]
    batch.refresh_from_db()
    assert batch.status == "closed"
    assert {action.status for action in Action.objects.filter(batch=batch)} == {ActionStatus.CANCELLED}
    assert len(actions) == 3


@pytest.mark.parametrize("verb", ["stop", "restart", "Pause", "delete"])
def test_a_verb_that_is_not_there(world: World, as_: As, verb: str) -> None:
    run = in_status(world, "running")
    problem(as_("operator").post(f"/runs/{run.id}/{verb}"), 404)
