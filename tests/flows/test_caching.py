"""What a run of twenty turns costs at $3 in and $15 out with the prompt cached, beside the same run without a cache."""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from django.test import override_settings

from accounts.access import Access
from runs.engine.types import Mode
from runs.models import Run
from runs.samples.simulated.billing import prompt_tokens
from runs.samples.simulated.reply import JsonObject, Reply, ToolCall
from runs.samples.simulated.server import FakeMessagesServer
from tests.flows.conftest import Model
from tests.flows.shop import LocalShop
from tests.running import READ, add_agent, advance, launch

PRICED = "claude-sonnet-4-5"
TURNS = 20
IN, OUT, WRITE, READ_CACHED = (Decimal(rate) / 1_000_000 for rate in ("3", "15", "3.75", "0.30"))


@pytest.fixture
def provider(crew: Access, shop: LocalShop, tmp_path: Path) -> Iterator[Model]:
    """Tools, instructions and task of about 1,600 tokens; each turn adds about 200 and writes about 20 itself."""
    shop.answers["get_order"] = {"notes": "The lamp arrived with a dent in its base. " * 15}
    instructions = "Decide each request from evidence alone, and name the section of the policy. " * 62
    add_agent(crew.team, model=PRICED, instructions=instructions, tools=[{"name": READ, "policy": "auto"}])
    with (
        FakeMessagesServer(twenty, echo_model=True) as server,
        override_settings(SIMULATED=False, ANTHROPIC_BASE_URL=server.url, ANTHROPIC_API_KEY="test"),
    ):
        yield Model(server)


def twenty(body: JsonObject) -> Reply:
    turn = sum(message["role"] == "assistant" for message in body["messages"])
    if turn == TURNS - 1:
        return Reply(text="Done.")
    call = ToolCall(id=f"t{turn}", name="shop__get_order", input={"order": f"{turn}", "reasoning": "", "confidence": 1})
    return Reply(tools=(call,))


def uncached(bodies: list[JsonObject], run: Run) -> Decimal:
    return sum(prompt_tokens(body) for body in bodies) * IN + run.output_tokens * OUT


def best(bodies: list[JsonObject], run: Run, kept: int) -> Decimal:
    """Each token written once, and read each time after; `kept` tokens were there before."""
    sizes = [prompt_tokens(body) for body in bodies]
    written = sizes[-1] - kept
    return written * WRITE + (sum(sizes) - written) * READ_CACHED + run.output_tokens * OUT


def asked(bodies: list[JsonObject]) -> Decimal:
    """What `reasoning` and `confidence` cost: each call has to give them, and the prompt keeps them."""
    plain = json.loads(json.dumps(bodies))
    for body in plain:
        for message in body["messages"]:
            for block in message["content"]:
                if block["type"] == "tool_use":
                    del block["input"]["reasoning"], block["input"]["confidence"]
    fewer = [prompt_tokens(body) - prompt_tokens(without) for body, without in zip(bodies, plain, strict=True)]
    return fewer[-1] * (OUT + WRITE) + (sum(fewer) - fewer[-1]) * READ_CACHED


def test_twenty_turns_cost_a_fifth_of_what_they_cost_uncached(crew: Access, provider: Model) -> None:
    first = advance(launch(crew, mode=Mode.INTERACTIVE, task="Go through the orders, one by one."))
    bodies = list(provider.calls)
    assert (first.status, first.model_calls) == ("completed", TURNS)
    plain = uncached(bodies, first)
    assert first.cost_usd == pytest.approx(best(bodies, first, 0), rel=Decimal("0.01"))
    assert first.cost_usd < plain * Decimal("0.23")

    second = advance(launch(crew, mode=Mode.INTERACTIVE, task="Go through the orders, all of them."))
    kept = second.steps.get(key="model:1").cache_read_tokens
    more = asked(bodies)
    print(f"without a cache ${plain:.4f}, cold ${first.cost_usd:.4f}, again ${second.cost_usd:.4f}, asked ${more:.4f}")
    # Engines that ask the model for neither need 4.6 and 4.1 cents for work that costs 22 without a cache.
    assert first.cost_usd - more <= plain * Decimal("4.6") / 22
    assert second.cost_usd - more <= plain * Decimal("4.1") / 22
    # What it costs now, in dollars: more is a prompt that grew.
    assert first.cost_usd <= Decimal("0.0468")
    assert second.cost_usd <= Decimal("0.0419")
    assert kept > 1000, "tools and instructions are still there"
    assert second.cost_usd == pytest.approx(best(provider.calls[TURNS:], second, kept), rel=Decimal("0.01"))
