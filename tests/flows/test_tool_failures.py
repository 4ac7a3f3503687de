"""Tools that fail in whole runs: tries, breakers, large outputs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.test import Client
from django.utils import timezone

from accounts.access import Access
from runs import breakers
from runs.breakers import DbBreakers
from runs.engine.breakers import FAILURES
from runs.engine.context import as_text
from runs.engine.ports import ToolTimeout, ToolUnavailable
from runs.models import Breaker
from tests.flows.conftest import Model, applied, assert_sound, decide, keys, tool_results
from tests.flows.shop import LocalShop
from tests.running import READ, REFUND, add_agent, advance, launch, on, tool, uses

READS = tool(READ, order="48213")
REFUNDS = tool(REFUND, order="48213", amount=84.0, reason="dented in transit")


@pytest.fixture(autouse=True)
def another_process() -> Iterator[None]:
    breakers.forget()
    yield
    breakers.forget()


def test_a_read_is_tried_again_and_its_worker_is_free(crew: Access, shop: LocalShop, model: Model) -> None:
    shop.after["get_order"] += [ToolTimeout("no answer within 30 s"), ToolUnavailable("down")]
    model.says(uses(READS), "Done.")

    run = advance(launch(crew))
    assert (run.status, run.lease_owner) == ("queued", "")
    assert run.due_at is not None
    assert run.due_at > timezone.now()
    run = on(on(run))

    assert run.status == "completed"
    assert [key for key in keys(run) if key.startswith("tool:")] == [
        "tool:1:0:failed:1",
        "tool:1:0:failed:2",
        "tool:1:0",
    ]
    assert_sound(run)


def test_a_server_that_is_away_is_told_to_every_run_of_the_team(crew: Access, shop: LocalShop, model: Model) -> None:
    here = DbBreakers(crew.team.id)
    for _ in range(FAILURES):
        here.failed("tool:shop", "no answer within 30 s")
    model.says(uses(READS, REFUNDS), "Done.")

    run = advance(launch(crew))

    assert run.status == "completed"
    assert shop.executed == []
    contents = [str(result["content"]) for result in tool_results(model.calls[-1])]
    assert all("shop is unavailable until" in content for content in contents)
    assert (
        list(run.steps.filter(key__startswith="tool:").values_list("kind", "status")) == [("guardrail", "denied")] * 2
    )
    assert_sound(run)


def test_what_was_approved_waits_until_its_server_is_back(crew: Access, shop: LocalShop, model: Model) -> None:
    model.says(uses(REFUNDS), "One waits.", "Done.")
    run = advance(launch(crew))
    assert applied(decide(crew, run))
    here = DbBreakers(crew.team.id)
    for _ in range(FAILURES):
        here.failed("tool:shop", "late")

    run = advance(run)
    assert (run.status, shop.effects()) == ("queued", [])
    assert run.steps.get(key__startswith="effect:1:0:waits").title == "Waits for shop"
    Breaker.objects.update(until=timezone.now())
    breakers.forget()
    run = on(run)

    assert (run.status, shop.effects()) == ("completed", ["issue_refund"])
    assert Breaker.objects.get().state == "closed"
    assert_sound(run)


def test_a_large_output_is_read_on_from_its_step(crew: Access, shop: LocalShop, model: Model, client: Client) -> None:
    shop.answers["get_order"] = {"log": "".join(f"line {number}; " for number in range(9000))}
    model.says(
        uses(READS),
        uses(tool("output.read", handle="tool:1:0", offset=12000)),
        uses(tool("output.read", handle="tool:1:0", find="line 8765;")),
        uses(tool("output.read", handle="tool:9:9")),
        "Done.",
    )

    run = advance(launch(crew))

    assert run.status == "completed"
    assert run.steps.select_related("payload").get(key="tool:1:0").payload.output == shop.answers["get_order"]
    head, more, found, nothing = (str(result["content"]) for result in tool_results(model.calls[-1]))
    assert "[The first 12,000 of" in head
    assert '"offset":12000' in more
    assert "line 8765" in found
    assert "There is no output under" in nothing
    assert all(len(content) < 20_000 for content in (head, more, found))
    assert_sound(run)
    client.force_login(crew.user, backend="django.contrib.auth.backends.ModelBackend")
    size = f"the first 12,000 of {len(as_text(shop.answers['get_order'])):,}"
    for path in (f"/runs/{run.id}/steps/2/", f"/traces/{run.id}/steps/2/"):
        page = client.get(path).content.decode()
        assert size in page
        assert '<span class="mono">tool:1:0</span>' in page, "the handle"


def test_an_agent_without_a_server_is_not_offered_the_reader(crew: Access, model: Model) -> None:
    add_agent(crew.team, tools=[{"name": "time.now", "policy": "auto"}])
    model.says(uses(tool("time.now")), "Done.")

    run = advance(launch(crew))

    assert run.status == "completed"
    assert [each["name"] for each in model.calls[0]["tools"]] == ["time__now"]
