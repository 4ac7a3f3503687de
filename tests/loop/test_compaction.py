"""A context that grows too large: what goes, what stays, and that a resumed run is sent the very same."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from runs.engine.budget import request_bytes
from runs.engine.context import CLEARED, NOTICE, Conversation
from runs.engine.fakes import calls, says
from runs.engine.ports import ModelError
from runs.engine.types import JsonObject, ModelReply, ModelRequest, StepKind, StopReason, ToolResult, Usage
from tests.loop.helpers import World, assert_each_call_has_one_result, limits, use, world

LONG = "Found it. " * 200


def billed(reply: ModelReply) -> Any:
    """A prompt of a token for four bytes, as a provider counts it."""

    def answer(request: ModelRequest) -> ModelReply:
        return replace(reply, usage=Usage(input_tokens=request_bytes(request) // 4, output_tokens=20))

    return answer


class ByTurn:
    """The nth turn of the run, told by what its tools were asked: a compacted conversation has fewer turns."""

    def __init__(self, turns: int, text: str = "") -> None:
        self.replies = [billed(calls(use("look", id=str(n)), text=text)) for n in range(turns)]

    def __call__(self, request: ModelRequest) -> ModelReply:
        if "Write what is needed to go on without it" in json.dumps(request.messages[-1]):
            reply: ModelReply = billed(says("Ana asked; orders 0 to 9 were found."))(request)
            return reply
        blocks = [block for message in request.messages for block in message["content"]]
        seen = max([-1, *(int(block["input"]["id"]) for block in blocks if block["type"] == "tool_use")])
        done: ModelReply = (self.replies[seen + 1] if seen + 1 < len(self.replies) else billed(says("Done.")))(request)
        return done


def grown(turns: int, result: str = LONG, text: str = "", **agent: Any) -> World:
    done = world(*[ByTurn(turns, text)] * 60, **agent)
    done.tool("look").answers.extend([ToolResult(content=result)] * 100)
    return done


def sent(done: World) -> list[list[JsonObject]]:
    return done.llm.conversations()


def test_old_results_are_cleared_first_and_that_is_a_step() -> None:
    done = grown(9, context_tokens=4_000)

    assert done.ended().stop_reason is StopReason.DONE

    [key] = done.keys("cleared")
    step = done.step(key)
    assert (step.kind, step.title) == (StepKind.GUARDRAIL, "Cleared old tool results")
    assert step.summary == "4 old tool results, 8,000 characters. They stay in the trace."
    assert done.keys("summary") == []
    last = json.dumps(sent(done)[-1])
    assert last.count(CLEARED.format(count="2,000")) == 4
    assert last.count(LONG) == 5
    for messages in sent(done):
        assert_each_call_has_one_result(messages)
    assert "Help Ana" in last


def test_before_that_nothing_that_was_sent_changes() -> None:
    done = grown(6, context_tokens=100_000)
    done.ended()
    assert (done.keys("cleared"), done.keys("summary")) == ([], [])


def test_the_prompt_stays_below_the_limit_however_long_the_run() -> None:
    done = grown(40, context_tokens=5_000)

    assert done.ended().stop_reason is StopReason.DONE

    sizes = [step.usage.input_tokens for key, step in done.journal.steps.items() if key.startswith("model:")]
    assert len(sizes) == 41
    assert max(sizes) < 5_000 + len(LONG) // 4 + 200
    assert len(done.keys("cleared")) < 15, "late and thoroughly, for each costs the cache"


def test_where_clearing_is_not_enough_the_work_is_summarised() -> None:
    """What the model itself wrote can't be cleared."""
    done = grown(12, result="ok", text="I think. " * 250, context_tokens=5_000)

    assert done.ended().stop_reason is StopReason.DONE

    key = done.keys("summary")[0]
    step = done.step(key)
    assert (step.kind, step.title) == (StepKind.MODEL, "Summarise the work so far")
    messages = sent(done)[-1]
    first = [block["text"] for block in messages[0]["content"]]
    assert first[0] == "Help Ana"
    assert first[1].startswith(NOTICE)
    assert "orders 0 to 9 were found" in first[1]
    assert messages[1]["role"] == "assistant"
    for each in sent(done):
        assert_each_call_has_one_result(each)
    asking = next(r for r in done.llm.requests if "Write what is needed" in json.dumps(r.messages[-1]))
    before = done.llm.requests[0]
    assert (asking.tools, asking.tool_choice) == (before.tools, before.tool_choice), "or nothing is read from the cache"
    assert (before.goes_on, asking.goes_on) == (True, False), "what is not read again is not written to the cache"


@pytest.mark.parametrize("alone", [says("Ana asked; orders were found."), calls(use("look"))], ids=["text", "calls"])
def test_a_model_that_calls_a_tool_instead_of_summing_up_is_asked_once_more_without_tools(alone: ModelReply) -> None:
    done = grown(12, result="ok", text="I think. " * 250, context_tokens=5_000)
    turns = done.llm.turns[0]

    def stubborn(request: ModelRequest) -> ModelReply:
        if "Write what is needed" in json.dumps(request.messages[-1]):
            return alone if request.tool_choice == {"type": "none"} else calls(use("look"))
        reply: ModelReply = turns(request)  # type: ignore[operator]
        return reply

    done.llm.turns = [stubborn] * 60

    assert done.ended().stop_reason is StopReason.DONE
    assert done.keys("summary")[1] == f"{done.keys('summary')[0]}:alone"
    shortened = "orders were found" in json.dumps(sent(done)[-1][0])
    assert shortened == bool(alone.text)
    assert len(done.keys("tool")) == 12, "what a summary calls is not done"


def test_a_summary_that_fails_or_has_no_room_leaves_the_conversation_as_it_is() -> None:
    done = grown(6, result="ok", text="I think. " * 250, context_tokens=5_000)
    turns = done.llm.turns[0]

    def failing(request: ModelRequest) -> ModelReply:
        if "Write what is needed" in json.dumps(request.messages[-1]):
            raise ModelError("invalid_request", "no", retryable=False)
        reply: ModelReply = turns(request)  # type: ignore[operator]
        return reply

    done.llm.turns = [failing] * 60

    assert done.ended().stop_reason is StopReason.DONE
    assert len(sent(done)[-1]) == 13


@pytest.mark.parametrize(
    ("turns", "also"),
    [(9, {"context_tokens": 4_000}), (12, {"result": "ok", "text": "I think. " * 250, "context_tokens": 5_000})],
)
@pytest.mark.parametrize("burn", range(5, 60, 6))
def test_a_resumed_run_is_sent_the_very_same(turns: int, also: dict[str, Any], burn: int) -> None:
    whole = grown(turns, **also)
    whole.ended()
    done = grown(turns, **also)
    done.fuse.left = burn

    done.to_the_end()

    assert done.keys() == whole.keys()
    assert _without_ids(sent(done)[-1]) == _without_ids(sent(whole)[-1])


def test_the_limits_hold_with_a_compacted_context() -> None:
    done = grown(40, context_tokens=5_000, limits=limits(max_input_tokens=60_000))
    done.llm.wrap_up = billed(says("wrapped up"))
    done.llm.counts = lambda request: request_bytes(request) // 4

    end = done.ended()

    assert (end.stop_reason, end.result) == (StopReason.MAX_TOKENS, "wrapped up")
    assert done.journal.spent().input_tokens <= 60_000
    assert "the context grew too large" in end.stop_detail


def test_a_conversation_is_cut_only_where_a_turn_begins() -> None:
    talk = Conversation("Help Ana")
    talk.reply(calls(use("look")).content)
    talk.give_results([("c1", "x", False)])
    talk.flush()
    with pytest.raises(ValueError, match="where a turn of the model begins"):
        talk.replace_before(2, "A summary.")


def _without_ids(messages: list[JsonObject]) -> str:
    for message in messages:
        for block in message["content"]:
            block.pop("id", None)
            block.pop("tool_use_id", None)
    return json.dumps(messages)
