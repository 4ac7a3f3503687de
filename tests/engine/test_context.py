"""What the model is sent: the same prefix always, then only ever more."""

from __future__ import annotations

import json

import pytest

from runs.engine.context import Conversation, as_text, system_prompt, tool_definitions
from runs.engine.fakes import FakeTool, calls, says
from runs.engine.types import AgentSpec, Mode, Policy
from tests.engine.helpers import assert_grows, assert_sound, use, world

AGENT = AgentSpec(slug="desk", name="Desk", version=1, model="fake", purpose="Helps.", instructions="Be kind.")


def texts(content: list[dict[str, str]]) -> list[str]:
    return [block.get("text") or block["content"] for block in content]


# --- the conversation ------------------------------------------------------------------------------------------------
def test_what_is_said_between_two_turns_is_one_message_with_the_results_first() -> None:
    talk = Conversation("Help Ana")
    talk.reply(calls(use("look")).content)
    talk.say("A message.")
    talk.give_results([("c1", {"ok": True}, False), ("c2", "no", True)])
    talk.say("Another.")

    messages = talk.messages()

    assert [message["role"] for message in messages] == ["user", "assistant", "user"]
    assert messages[2]["content"][:2] == [
        {"type": "tool_result", "tool_use_id": "c1", "content": '{"ok":true}'},
        {"type": "tool_result", "tool_use_id": "c2", "content": "no", "is_error": True},
    ]
    assert texts(messages[2]["content"][2:]) == ["A message.", "Another."]


def test_what_was_sent_never_changes() -> None:
    talk = Conversation("Help Ana")
    first = talk.messages()
    kept = json.dumps(first)
    talk.say("One more thing.")
    second = talk.messages()
    talk.reply(says("Hm.").content)
    third = talk.messages()

    assert json.dumps(first) == kept
    assert texts(second[0]["content"]) == ["Help Ana", "One more thing."]
    assert_grows(first, second)
    assert_grows(second, third)


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


def test_each_request_of_a_run_begins_like_the_one_before() -> None:
    turns = [calls(use("look"), use("refund")), says("Half", stop_reason="max_tokens"), calls(use("note"))]
    done = world(*turns, says("All."), says("Done."), mode=Mode.BATCH, planning=True, evaluation="every_step")
    done.controls.said.append(("m1", "Ana", "Hello."))

    done.to_the_end()

    assert len(done.llm.conversations()) == 5
    assert_sound(done)
    own = [request for request in done.llm.requests if request.output_schema is None]
    assert len({request.system for request in own}) == 1
    assert len({json.dumps(request.tools) for request in own}) == 1


# --- the prefix ------------------------------------------------------------------------------------------------------
def test_the_system_prompt_is_the_agent_and_its_mode() -> None:
    prompts = {mode: system_prompt(AGENT, mode) for mode in Mode}

    assert len(set(prompts.values())) == 3
    for prompt in prompts.values():
        assert prompt.startswith("You are Desk.\n\nHelps.\n\nBe kind.\n\n")
        assert "`confidence` (0 to 1, that it is right)" in prompt
    assert "queued for approval" in prompts[Mode.BATCH]
    assert "dry run" in prompts[Mode.DRY_RUN]


def test_who_never_waits_for_a_person_is_not_told_of_it() -> None:
    def system(**policies: Policy) -> str:
        done = world(says("Done."), policies={f"shop.{name}": policy for name, policy in policies.items()})
        done.ended()
        return done.llm.requests[0].system

    assert "may wait for a person" not in system(look=Policy.AUTO)
    assert "may wait for a person" in system(look=Policy.REVIEW)
    assert "may wait for a person" in system(look=Policy.AUTO, note=Policy.AUTO)


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
