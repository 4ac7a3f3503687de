"""The launch page: what it offers, what a launch stores, and what a refused one keeps."""

from __future__ import annotations

import html
import re
from decimal import Decimal

import pytest
from django.conf import settings

from runs.agents import save_agent
from runs.models import Run
from runs.schemas import AgentIn
from tests.runs.factories import HOSTILE, World, make_run, make_step, text_of

FORM = {
    "agent": "refund-desk",
    "task": "Refund the kettle",
    "mode": "interactive",
    "cost": "0.75",
    "tokens": "330,000",
    "steps": "12",
}


def test_launching_by_a_plain_post(world: World) -> None:
    response = world.client("operator").post("/", FORM)

    run = Run.objects.get()
    assert (response.status_code, response["Location"]) == (303, f"/runs/{run.id}/")
    assert (run.task, run.mode, run.status, run.owner) == (
        "Refund the kettle",
        "interactive",
        "queued",
        world.people["operator"],
    )
    assert (run.max_cost_usd, run.max_steps) == (Decimal("0.75"), 12)
    assert (run.max_input_tokens, run.max_output_tokens) == (300_000, 30_000)


def test_a_form_that_goes_by_script_is_told_where_the_run_is(world: World) -> None:
    response = world.client("operator").post("/", FORM, headers={"HX-Request": "true"})

    assert (response.status_code, response["HX-Redirect"]) == (200, f"/runs/{Run.objects.get().id}/")


def test_a_script_that_sends_bad_input_is_told_no_place_to_go_to(world: World) -> None:
    response = world.client("operator").post("/", {**FORM, "cost": "-4"}, headers={"HX-Request": "true"})

    assert (response.status_code, response.get("HX-Redirect")) == (422, None)
    assert not Run.objects.exists()


def test_an_untouched_token_budget_keeps_the_agents_two_limits(world: World) -> None:
    world.client("operator").post("/", {**FORM, "tokens": "660,000"})

    run = Run.objects.get()
    assert (run.max_input_tokens, run.max_output_tokens) == (600_000, 60_000)


def test_without_budget_fields_the_agents_limits_hold(world: World) -> None:
    world.client("operator").post("/", {"agent": "refund-desk", "task": "Refund the kettle"})

    run = Run.objects.get()
    assert (run.mode, run.max_cost_usd, run.max_steps) == ("batch", Decimal("1.50"), 60)


WRONG = [
    ({"agent": "nobody"}, "There is no agent “nobody”"),
    ({"task": "   "}, "Write what the agent should do."),
    ({"task": "x" * 1_000_000}, "at most 200 kB are allowed"),
    ({"task": "a\x00b"}, "NUL"),
    ({"mode": "yolo"}, "Choose one of the three modes."),
    ({"cost": "-2"}, "Must be above 0."),
    ({"cost": "a lot"}, "is not a number"),
    ({"cost": "NaN"}, "is out of range"),
    ({"cost": ""}, "Write a number above 0."),
    ({"cost": "0.0000000001"}, "can&#x27;t be used"),
    ({"tokens": "0"}, "Must be above 0."),
    ({"tokens": "1e30"}, "is out of range"),
    ({"tokens": "12.5"}, "Must be a whole number."),
    ({"steps": "2.5"}, "Must be a whole number."),
    ({"steps": "100001"}, "At most 100,000."),
]


@pytest.mark.parametrize(("wrong", "message"), WRONG, ids=[str(wrong)[:30] for wrong, _ in WRONG])
def test_a_refused_launch_keeps_what_was_typed(world: World, wrong: dict[str, str], message: str) -> None:
    typed = {**FORM, "task": "Refund the dented kettle", **wrong}

    response = world.client("operator").post("/", typed)

    shown = text_of(response)
    assert response.status_code == 422
    assert message in shown
    assert not Run.objects.exists()
    assert f">\n{html.escape(typed['task'])}</textarea>" in shown
    for name in ("cost", "tokens", "steps"):
        assert re.search(rf'name="{name}"[^>]* value="{re.escape(html.escape(typed[name]))}"', shown)
    if typed["mode"] == "interactive":
        assert re.search(r'value="interactive" checked', shown)


def test_several_mistakes_are_all_named(world: World) -> None:
    shown = text_of(world.client("operator").post("/", {**FORM, "cost": "-1", "steps": "many"}))

    assert 'id="cost-error"' in shown
    assert 'id="steps-error"' in shown


@pytest.mark.parametrize(("who", "status"), [("viewer", 403), ("outsider", 422), ("anonymous", 302)])
def test_who_may_not_launches_nothing(world: World, who: str, status: int) -> None:
    assert world.client(who).post("/", FORM).status_code == status
    assert not Run.objects.exists()


def test_hostile_text_is_only_text(world: World) -> None:
    world.client("operator").post("/", {**FORM, "task": HOSTILE})
    run = Run.objects.get()
    make_step(run, "model", title=HOSTILE, summary=HOSTILE, output=HOSTILE, reasoning=HOSTILE)
    client = world.client("operator")

    for path in ("/", "/runs/", f"/runs/{run.id}/", f"/runs/{run.id}/steps/1/", f"/?again={run.id}"):
        shown = text_of(client.get(path))
        assert "<script>alert" not in shown
        assert "&lt;script&gt;alert" in shown
    assert "U+202E" in text_of(client.get(f"/runs/{run.id}/"))


def test_launching_again_starts_from_the_run(world: World) -> None:
    run = make_run(
        world, task="Check order 48213", mode="interactive", max_cost_usd=Decimal("0.40"), status="completed"
    )

    shown = text_of(world.client("operator").get(f"/?again={run.id}"))

    assert ">\nCheck order 48213</textarea>" in shown
    assert 'value="interactive" checked' in shown
    assert 'value="0.40"' in shown


def test_the_first_page_offers_the_demo_until_there_is_a_run(world: World) -> None:
    client = world.client("operator")

    first = text_of(client.get("/"))
    assert first.count("button--primary") == 1
    assert "Start the demo run" in first
    make_run(world)
    assert "Start the demo run" not in text_of(client.get("/"))


def test_the_page_says_what_will_wait(world: World) -> None:
    client = world.client("operator")
    shown = text_of(client.get("/?agent=refund-desk"))

    assert re.search(r"<b>Every</b>\s*<span class=\"mono\">shop.issue_refund</span>", shown)
    assert "below 90% confidence" in shown
    assert "2 people can approve" in shown
    risks = re.findall(r'<span class="mono clip">([\w.]+)</span>', shown)
    assert risks == ["shop.issue_refund", "shop.update_customer"]
    assert "2 read-only tools" in shown
    rail = text_of(client.get("/launch/estimate/?agent=refund-desk&mode=dry_run&cost=1.50"))
    assert "Nothing waits." in rail


@pytest.mark.parametrize(
    ("runs", "words"), [(0, "nothing to estimate from"), (3, "shown from 20 runs on"), (20, "Typical (p50)")]
)
def test_the_estimate_knows_how_much_it_knows(world: World, runs: int, words: str) -> None:
    for n in range(runs):
        make_run(world, status="completed", simulated=settings.SIMULATED, cost_usd=Decimal("0.10") * (n + 1))

    shown = text_of(world.client("operator").get("/launch/estimate/?agent=refund-desk&mode=batch&cost=1.00"))

    assert words in shown
    if runs == 20:
        assert "covers 50%" in shown
        assert "50% of past runs would stop early" in shown
        assert 'data-use-cost="1.90"' in shown


def test_agents_that_work_for_another_are_not_offered_unless_chosen(world: World) -> None:
    for slug, below in (("searcher", []), ("editor", ["searcher"])):
        wanted = AgentIn.model_validate({"name": slug.title(), "subagents": below})
        save_agent(world.team, slug, wanted, by=None)
    client = world.client("operator")

    def offered(address: str) -> list[str]:
        return re.findall(r'name="agent" value="([a-z-]+)"', client.get(address).content.decode())

    assert "editor" in offered("/?agent=editor")
    assert "searcher" not in offered("/?agent=editor")
    assert "1 more works for these" in text_of(client.get("/?agent=editor"))
    assert "searcher" in offered("/?agent=searcher")
