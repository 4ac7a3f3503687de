"""What the model is sent: the same prefix always, then only ever more."""

from __future__ import annotations

import json

from runs.engine.context import Conversation
from runs.engine.fakes import calls, says
from runs.engine.types import Mode, Policy
from tests.engine.test_context import texts
from tests.loop.helpers import assert_grows, assert_sound, use, world


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


def test_who_never_waits_for_a_person_is_not_told_of_it() -> None:
    def system(**policies: Policy) -> str:
        done = world(says("Done."), policies={f"shop.{name}": policy for name, policy in policies.items()})
        done.ended()
        return done.llm.requests[0].system

    assert "may wait for a person" not in system(look=Policy.AUTO)
    assert "may wait for a person" in system(look=Policy.REVIEW)
    assert "may wait for a person" in system(look=Policy.AUTO, note=Policy.AUTO)
