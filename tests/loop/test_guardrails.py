"""Loops of calls: told once, then stopped."""

from __future__ import annotations

from runs.engine.fakes import calls, says
from runs.engine.types import Effect, RunStatus, StepKind, StepStatus, StopReason, ToolResult
from tests.loop.helpers import REJECT, Workshop, World, assert_sound, use, world


# --- in a run --------------------------------------------------------------------------------------------------------
def looking(times: int) -> World:
    return world(*[calls(use("look"))] * times, says("Done."))


def test_a_model_that_is_told_and_changes_its_way_goes_on() -> None:
    done = looking(3)

    assert done.ended().stop_reason is StopReason.DONE

    step = done.step("loop:3")
    assert (step.kind, step.status) == (StepKind.GUARDRAIL, StepStatus.OK)
    assert "shop.look was called 3 times" in step.summary
    assert "Note from agentsite: shop.look was called 3 times" in done.told()
    assert_sound(done)


def test_a_model_that_goes_on_is_stopped_and_still_answers() -> None:
    done = looking(9)

    end = done.ended()

    assert (end.status, end.stop_reason, end.result) == (RunStatus.STOPPED, StopReason.LOOP, "wrapped up")
    assert "shop.look was called 4 times with the same arguments and the same result" in end.stop_detail
    assert len(done.tool("look").keys) == 4
    assert_sound(done)


def test_a_rejected_proposal_made_again_and_again_is_a_loop() -> None:
    done = world(*[calls(use("refund"))] * 6, says("Done."))

    assert done.to_the_end(REJECT).stop_reason is StopReason.LOOP
    assert done.effects() == []


def test_a_polling_tool_is_let_be() -> None:
    done = looking(9)
    done.tools["shop.look"] = Workshop("shop.look", Effect.READ, repeatable=True)

    assert done.ended().stop_reason is StopReason.DONE


def test_a_changing_result_is_no_loop() -> None:
    done = looking(9)
    done.tool("look").answers.extend(ToolResult(content=number) for number in range(9))

    assert done.ended().stop_reason is StopReason.DONE
    assert done.keys("loop:") == []


def test_a_crash_tells_once() -> None:
    done = looking(3)
    done.fuse.left = 13
    end = done.to_the_end()

    assert end.stop_reason is StopReason.DONE
    assert done.keys("loop:") == ["loop:3"]
    assert done.told().count("Note from agentsite") == 1
