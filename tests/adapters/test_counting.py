"""The provider's own count of a prompt, through the real SDK."""

from __future__ import annotations

import pytest

from runs.engine.types import ModelRequest
from runs.llm import AnthropicLlm
from runs.samples.simulated.reply import Reply
from runs.samples.simulated.server import FakeMessagesServer

REQUEST = ModelRequest(
    model="claude-sonnet-5-5",
    system="You are Desk.",
    messages=({"role": "user", "content": [{"type": "text", "text": "Help Ana. " * 100}]},),
    tools=({"name": "look", "description": "Looks.", "input_schema": {"type": "object"}},),
)


def test_the_provider_counts_what_it_would_bill() -> None:
    with FakeMessagesServer(lambda body: Reply(text="Done."), pace=0) as server:
        llm = AnthropicLlm(server.url, "key")
        counted = llm.count_tokens(REQUEST)
        billed = llm.complete(REQUEST, on_text=lambda text: None, interrupted=lambda: False).usage.prompt_tokens
    assert counted == billed > 200


@pytest.mark.parametrize("messages", [(), ({"role": "robot", "content": "x"},)])
def test_a_refused_count_is_none(messages: tuple[dict[str, object], ...]) -> None:
    with FakeMessagesServer(lambda body: Reply(text="Done."), pace=0) as server:
        request = ModelRequest(model="claude-sonnet-5-5", system="", messages=messages)
        assert AnthropicLlm(server.url, "key").count_tokens(request) is None


def test_a_provider_that_is_away_counts_nothing() -> None:
    assert AnthropicLlm("http://127.0.0.1:9", "key").count_tokens(REQUEST) is None
