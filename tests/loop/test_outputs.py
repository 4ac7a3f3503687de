"""Large outputs: the head for the model, the whole for whoever reads on."""

from __future__ import annotations

from runs.engine.fakes import calls, says
from runs.engine.outputs import MOST_CHARACTERS, shown
from runs.engine.types import Mode, ToolResult
from tests.engine.test_outputs import LONG
from tests.loop.helpers import APPROVE, assert_sound, use, world


def test_a_run_stores_the_whole_and_tells_the_head() -> None:
    done = world(calls(use("look")), says("Done."))
    done.tool("look").answers.append(ToolResult(content=LONG))

    done.ended()

    assert done.step("tool:1:0").output == LONG
    assert done.contents() == [shown(done.step("tool:1:0"))]
    assert_sound(done)


def test_so_does_the_message_after_a_queue() -> None:
    done = world(calls(use("refund")), says("One waits."), says("Done."), mode=Mode.BATCH)
    done.tool("refund").answers.append(ToolResult(content=LONG))

    done.to_the_end(APPROVE)

    assert done.step("effect:1:0").output == LONG
    assert len(done.told()) < len(LONG)
    assert "effect:1:0" in done.told()


def test_and_a_call_that_a_person_changed() -> None:
    done = world(calls(use("refund")), says("Done."))
    done.parked()
    done.verdicts.edit("1:0", {"id": "2"})
    done.tool("refund").answers.append(ToolResult(content=LONG))

    done.ended()

    [content] = done.contents()
    assert content.startswith("A person changed the arguments")
    assert content.endswith("`find`.]")
    assert len(content) < MOST_CHARACTERS
