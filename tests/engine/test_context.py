"""What the model is sent: the same prefix always, then only ever more."""

from __future__ import annotations

import json

import pytest

from runs.engine.context import Conversation, as_text, system_prompt, tool_definitions
from runs.engine.fakes import FakeTool
from runs.engine.types import AgentSpec, Mode

AGENT = AgentSpec(slug="desk", name="Desk", version=1, model="fake", purpose="Helps.", instructions="Be kind.")


def texts(content: list[dict[str, str]]) -> list[str]:
    return [block.get("text") or block["content"] for block in content]


def test_asking_for_the_messages_changes_nothing() -> None:
    talk = Conversation("Help Ana")

    assert talk.messages() == talk.messages()


def test_a_reply_is_sent_back_as_it_came() -> None:
    thinking = {"type": "thinking", "thinking": "hm", "signature": "xyz"}
    talk = Conversation("Help Ana")
    talk.reply((thinking, {"type": "text", "text": "Hi"}))

    assert talk.messages()[1]["content"] == [thinking, {"type": "text", "text": "Hi"}]


@pytest.mark.parametrize("content", [(), ({"type": "text", "text": ""},)])
def test_an_empty_turn_leaves_no_empty_message(content: tuple[dict[str, str], ...]) -> None:
    talk = Conversation("Help Ana")
    talk.reply(content)
    talk.say("Go on.")

    [message] = talk.messages()
    assert texts(message["content"]) == ["Help Ana", "Go on."]


# --- the prefix ------------------------------------------------------------------------------------------------------
def test_the_system_prompt_is_the_agent_and_its_mode() -> None:
    prompts = {mode: system_prompt(AGENT, mode) for mode in Mode}

    assert len(set(prompts.values())) == 3
    for prompt in prompts.values():
        assert prompt.startswith("You are Desk.\n\nHelps.\n\nBe kind.\n\n")
        assert "`confidence` (that it is right)" in prompt
    assert "queued for approval" in prompts[Mode.BATCH]
    assert "dry run" in prompts[Mode.DRY_RUN]


def test_parts_that_are_missing_leave_no_hole() -> None:
    bare = AgentSpec(slug="desk", name="Desk", version=1, model="fake")

    assert "\n\n\n" not in system_prompt(bare, Mode.INTERACTIVE)


def test_a_tool_without_a_description_is_described_by_its_name() -> None:
    [definition] = tool_definitions([FakeTool("shop.look")])

    assert (definition["name"], definition["description"]) == ("shop__look", "shop.look")


@pytest.mark.parametrize(
    ("content", "text"),
    [("as it is", "as it is"), ({"á": [1, None]}, '{"á":[1,null]}'), (None, "null"), (1.5, "1.5"), ("", "")],
)
def test_a_result_is_text(content: object, text: str) -> None:
    assert as_text(content) == text


def test_the_order_of_keys_does_not_change_what_is_sent() -> None:
    """PostgreSQL gives them back in an order of its own."""
    block = {"type": "tool_use", "id": "t1", "name": "get", "input": {"order": "1", "by": {"b": 1, "a": 2}}}
    turned = {"input": {"by": {"a": 2, "b": 1}, "order": "1"}, "name": "get", "id": "t1", "type": "tool_use"}
    sent = []
    for reply, output in ((block, {"total": 1, "item": "x"}), (turned, {"item": "x", "total": 1})):
        conversation = Conversation("task")
        conversation.reply([reply])
        conversation.give_results([("t1", output, False)])
        sent.append(json.dumps(conversation.messages()))

    assert sent[0] == sent[1]
