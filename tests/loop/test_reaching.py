"""Tools that fail: tried again where that does no harm, told as unavailable where it is known."""

from __future__ import annotations

import pytest

from runs.engine.breakers import FAILURES as MOST
from runs.engine.breakers import State
from runs.engine.fakes import Crash, FakeBreakers, calls, says
from runs.engine.ports import PlanRefused, ToolConnectionLost, ToolTimeout, ToolUnavailable
from runs.engine.reaching import WAITS_S, words_of
from runs.engine.types import (
    ActionStatus,
    Effect,
    Mode,
    ModelReply,
    Parked,
    RunStatus,
    StepKind,
    StepStatus,
    StopReason,
    ToolResult,
)
from tests.loop.helpers import APPROVE, WAITS, Workshop, World, assert_sound, limits, use, world

DOWN = ToolUnavailable("down")
FAILURES = [ToolTimeout("late"), DOWN, ToolConnectionLost("cut")]


# --- tries -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: type(failure).__name__)
def test_a_read_is_tried_again_while_its_worker_is_free(failure: Exception) -> None:
    done = world(calls(use("look")), says("Done."))
    done.tool("look").answers += [failure, failure, ToolResult(content="found")]

    assert [done.parked(), done.parked()] == [Parked(why="retry", retry_in_s=wait) for wait in WAITS_S]
    done.ended()

    assert done.keys("tool:") == ["tool:1:0:failed:1", "tool:1:0:failed:2", "tool:1:0"]
    assert [done.step(key).attempt for key in done.keys("tool:")] == [1, 2, 3]
    expected = StepStatus.TIMEOUT if isinstance(failure, ToolTimeout) else StepStatus.ERROR
    assert done.step("tool:1:0:failed:1").status is expected
    assert done.contents() == ["found"]
    assert_sound(done)


def test_an_error_of_the_tool_itself_is_its_answer() -> None:
    done = world(calls(use("look")), says("Done."))
    done.tool("look").answers.append(ToolResult(content="no such order", is_error=True))

    done.ended()

    assert len(done.tool("look").keys) == 1


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: type(failure).__name__)
def test_a_keyed_effect_is_tried_again_under_its_key_and_happens_once(failure: Exception) -> None:
    done = world(calls(use("note")), says("Done."))
    done.tool("note").answers += [failure, failure]

    assert done.to_the_end().stop_reason is StopReason.DONE

    assert done.effects() == ["shop.note(1)"]
    assert len(set(done.tool("note").keys)) == 1
    assert done.status("1:0") is ActionStatus.SUCCEEDED
    assert done.verdicts.batches == {}
    assert_sound(done)


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: type(failure).__name__)
def test_an_effect_without_a_key_is_never_tried_again(failure: Exception) -> None:
    done = world(calls(use("mail")), says("Done."))
    done.tool("mail").lost.append(failure)

    done.to_the_end()

    assert len(done.tool("mail").keys) == 1
    assert done.keys("tool:1:0:failed") == []


def test_that_nothing_was_reached_is_known_across_tries() -> None:
    done = world(calls(use("note")), says("Done."))
    done.tool("note").answers += [DOWN] * 3

    done.to_the_end()

    assert done.status("1:0") is ActionStatus.FAILED
    assert done.keys("tool:1:0:again") == ["tool:1:0:again:1", "tool:1:0:again:2"]
    assert done.step("tool:1:0:again:1").kind is StepKind.GUARDRAIL


def test_a_worker_that_dies_in_a_further_try_leaves_doubt() -> None:
    """The try may have reached the tool: what fails afterwards is no proof that nothing happened."""
    done = world(calls(use("note")), says("Done."))
    done.tool("note").answers += [DOWN, Crash(), DOWN, DOWN]
    done.parked()
    with pytest.raises(Crash):
        done.advance()

    assert done.parked().why == "retry"
    assert done.parked() == Parked(why="retry", retry_in_s=10)
    assert done.status("1:0") is ActionStatus.EXECUTING
    done.to_the_end()
    assert done.effects() == ["shop.note(1)"]
    assert done.status("1:0") is ActionStatus.SUCCEEDED


def test_tries_count_as_steps() -> None:
    done = world(calls(use("look")), says("Done."), limits=limits(max_steps=3))
    done.tool("look").answers += [DOWN] * 3

    end = done.to_the_end()

    assert end.stop_reason is StopReason.MAX_STEPS
    assert done.journal.spent().steps <= 3
    assert_sound(done)


def test_cancelled_between_two_tries() -> None:
    done = world(calls(use("look")), says("Done."))
    done.tool("look").answers += [DOWN] * 3
    done.parked()
    done.controls.wish = "cancel"

    assert done.ended().status is RunStatus.CANCELLED


@pytest.mark.parametrize(
    ("failure", "tries", "words"),
    [
        (ToolTimeout(""), 1, "The tool did not answer in time"),
        (DOWN, 1, "The tool is unavailable: down"),
        (ToolConnectionLost("It was cut."), 3, "The tool is unavailable: It was cut (tried 3 times)"),
    ],
)
def test_words(failure: ToolUnavailable, tries: int, words: str) -> None:
    assert words_of(failure, tries) == words


# --- the breaker of its server ---------------------------------------------------------------------------------------
def served(*turns: object, **also: object) -> World:
    """The shop's tools on a server with a breaker."""
    done = world(*turns, **also)  # type: ignore[arg-type]
    done.breakers = FakeBreakers(done.clock)
    done.tools = {name: on_server(tool) for name, tool in done.tools.items()}
    return done


def on_server(tool: Workshop) -> Workshop:
    spec = tool.spec
    return Workshop(
        spec.name, spec.effect, idempotent=spec.idempotent, can_plan=spec.can_plan, risk=spec.risk, server="shop"
    )


def breaker_of(done: World) -> FakeBreakers:
    assert isinstance(done.breakers, FakeBreakers)
    return done.breakers


def break_it(done: World) -> None:
    for _ in range(MOST):
        breaker_of(done).failed("tool:shop", "late")


@pytest.mark.parametrize("name", ["look", "note", "refund"])
def test_an_open_breaker_is_told_not_tried(name: str) -> None:
    done = served(calls(use(name)), says("I see."))
    break_it(done)

    assert done.ended().stop_reason is StopReason.DONE

    step = done.step("tool:1:0")
    assert (step.kind, step.status) == (StepKind.GUARDRAIL, StepStatus.DENIED)
    assert done.contents()[0].startswith("Not called: shop is unavailable until 14:21:30 UTC (the last 5 calls failed")
    assert (done.tool(name).keys, done.tool(name).planned) == ([], 0)
    assert done.verdicts.actions == {}
    assert_sound(done)


def test_failures_of_whoever_open_it_for_everybody_and_a_probe_closes_it() -> None:
    done = served(calls(use("look")), calls(use("look")), calls(use("look")), says("Done."))
    done.tool("look").answers += [DOWN] * 3
    for _ in range(MOST - 3):
        breaker_of(done).failed("tool:shop", "seen by another run")

    done.parked()
    done.parked()
    assert breaker_of(done).known["tool:shop"].state is State.CLOSED
    done.llm.turns = [done.llm.turns[0], done.llm.turns[1], lambda request: wait_and_look(done), says("Done.")]
    done.ended()

    assert [done.step(f"tool:{turn}:0").status for turn in (1, 2, 3)] == [
        StepStatus.ERROR,
        StepStatus.DENIED,
        StepStatus.OK,
    ]
    assert breaker_of(done).known["tool:shop"].state is State.CLOSED


def wait_and_look(done: World) -> ModelReply:
    done.clock.pass_seconds(60)
    return calls(use("look"))


def test_a_tool_that_refuses_is_there() -> None:
    done = served(calls(use("refund")), says("I see."))
    breaker_of(done).failed("tool:shop", "late")
    done.tool("refund").refuses_to_plan = PlanRefused("no such order")

    done.ended()

    assert breaker_of(done).known["tool:shop"].failures == 0


def test_what_a_person_approved_waits_for_its_server() -> None:
    """It neither fails nor goes stale because the server is away for a while."""
    done = served(calls(use("refund")), says("One waits."), says("Done."), mode=Mode.BATCH)
    assert done.parked() == WAITS
    done.verdicts.decide(APPROVE)
    break_it(done)

    parked = done.parked()
    assert parked.why == "retry"
    assert 29 < (parked.retry_in_s or 0) <= 30
    done.parked()
    [waits] = done.keys("effect:1:0:waits")
    assert done.step(waits).title == "Waits for shop"
    assert done.status("1:0") is ActionStatus.APPROVED

    done.clock.pass_seconds(31)
    assert done.ended().stop_reason is StopReason.DONE
    assert done.effects() == ["shop.refund(1)"]
    assert_sound(done)


def test_beside_a_probe_nothing_is_called() -> None:
    done = served(calls(use("look")), says("Done."))
    break_it(done)
    done.clock.pass_seconds(31)
    breaker = breaker_of(done)
    peek, breaker.peek = breaker.peek, lambda name: None  # type: ignore[method-assign]
    assert breaker.enter("tool:shop") is None
    breaker.enter = peek  # type: ignore[method-assign]

    assert done.parked().why == "retry"
    assert done.tool("look").keys == []


def test_tools_without_a_server_have_no_breaker() -> None:
    done = world(calls(use("look")), says("Done."))
    done.breakers = FakeBreakers(done.clock)
    done.tools["shop.look"] = Workshop("shop.look", Effect.READ)

    done.ended()

    assert set(breaker_of(done).known) == {"model:fake"}
