"""Where a prompt is marked for the provider's cache, held against the simulated provider's own bill."""

from __future__ import annotations

import json

import pytest

from runs.engine.types import JsonObject
from runs.llm import request_body
from runs.samples.simulated.billing import PrefixCache, prompt_tokens
from tests.adapters.test_llm import simple


def turn_of(number: int, calls: int) -> list[JsonObject]:
    uses = [{"type": "tool_use", "id": f"{number}-{n}", "name": "t", "input": {}} for n in range(calls)]
    results = [{"type": "tool_result", "tool_use_id": use["id"], "content": "found"} for use in uses]
    return [{"role": "assistant", "content": uses}, {"role": "user", "content": results}]


TASK = {"role": "user", "content": [{"type": "text", "text": "Look everywhere."}]}


@pytest.mark.parametrize("goes_on", [True, False])
@pytest.mark.parametrize("calls", [1, 9, 10, 25])
def test_what_an_earlier_prompt_wrote_is_read_after_any_number_of_calls(calls: int, goes_on: bool) -> None:
    """A provider looks 20 blocks back from a mark; a turn of many calls has more."""
    cache = PrefixCache()
    first = request_body(simple(messages=(TASK, *turn_of(1, 1))))
    second = request_body(simple(messages=(TASK, *turn_of(1, 1), *turn_of(2, calls)), goes_on=goes_on))
    cache.bill(first)

    billed = cache.bill(second)

    new = prompt_tokens(second) - prompt_tokens(first)
    assert billed["cache_read_input_tokens"] == prompt_tokens(first)
    assert billed["cache_creation_input_tokens"] == (new if goes_on else 0)
    assert json.dumps(second).count("cache_control") <= 4, "more marks are refused"


def test_a_prompt_that_is_not_gone_on_with_writes_nothing_but_what_others_share() -> None:
    body = request_body(simple(messages=(TASK, *turn_of(1, 30)), goes_on=False, tool_choice={"type": "none"}))

    assert [block.get("cache_control") for block in body["system"]] == [{"type": "ephemeral"}]
    assert "cache_control" not in body
    assert "cache_control" not in json.dumps(body["messages"])
