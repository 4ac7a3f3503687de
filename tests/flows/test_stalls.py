"""A stream that stops in the middle of an answer, through the real SDK: given up, recorded as perhaps billed, tried
again, and the run ends as it would have."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from accounts.access import Access
from runs import breakers
from runs.llm import AnthropicLlm
from runs.samples.simulated.reply import JsonObject, Reply
from tests.flows.conftest import Model, assert_sound, keys
from tests.flows.shop import LocalShop
from tests.running import READ, advance, launch, through_tries, tool, uses

PATIENCE_S = 0.3
STALLED = "I begin, and then nothing comes for a long time."


@pytest.fixture
def impatient(model: Model, monkeypatch: pytest.MonkeyPatch) -> Iterator[Model]:
    """The client as workers have it, with less patience than a minute."""
    client = AnthropicLlm(model.server.url, "simulated", read_timeout_s=PATIENCE_S)
    monkeypatch.setattr("runs.provider.build_llm", lambda *_: client)
    breakers.forget()
    yield model
    breakers.forget()


@pytest.mark.parametrize("after", [0, 2], ids=["at once", "in the middle"])
def test_a_stalled_answer_is_given_up_and_asked_for_again(
    crew: Access, shop: LocalShop, impatient: Model, after: int
) -> None:
    stalls = [Reply(text=STALLED, stall_after=after, stall_s=60)]

    def respond(body: JsonObject) -> Reply:
        turn = sum(message["role"] == "assistant" for message in body["messages"])
        if turn == 0:
            return uses(tool(READ, order="48213"))
        return stalls.pop() if stalls else Reply(text="Done.")

    impatient.server.respond = respond
    began = time.monotonic()
    run = advance(launch(crew))
    assert (run.status, run.due_at is not None, run.lease_owner) == ("queued", True, ""), "the worker is free"
    assert time.monotonic() - began < 10
    failed = run.steps.get(key="model:2:failed:1")
    assert failed.status == "error"
    assert "may have been billed" in failed.payload.error

    run = through_tries(run)
    assert (run.status, run.result) == ("completed", "Done.")
    assert keys(run)[-2:] == ["model:2", "result"]
    assert len(impatient.calls) == 3, "what was answered before is not asked for again"
    assert_sound(run)


def test_a_model_that_always_stalls_is_put_before_a_person(crew: Access, shop: LocalShop, impatient: Model) -> None:
    impatient.server.respond = lambda _: Reply(text=STALLED, stall_after=1, stall_s=60)
    run = through_tries(advance(launch(crew)))
    assert run.status in ("waiting", "queued"), "asked, or put off by the breaker"
    assert run.result == ""
    assert run.steps.filter(key__startswith="model:1:failed").count() >= 3
    assert_sound(run)
