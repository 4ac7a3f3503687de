"""Budgets: steps, tokens, dollars and seconds. A total never passes its limit, and a stopped run still answers."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest

from runs.engine.budget import WRAP_UP_TOKENS, PromptBound, fit, request_bytes
from runs.engine.context import SHORTENED, Conversation
from runs.engine.fakes import FakeBudget, calls, says
from runs.engine.ports import BudgetExceeded
from runs.engine.types import (
    Limits,
    Mode,
    ModelReply,
    ModelRequest,
    RunStatus,
    Spent,
    StepKind,
    StopReason,
    ToolResult,
    Usage,
)
from tests.loop.helpers import UNLIMITED, WAITS, Workshop, World, assert_sound, limits, then, use, world


def busy(**also: object) -> World:
    """A model that never stops calling tools."""
    return world(*[calls(use("look"), use("note"))] * 40, **also)  # type: ignore[arg-type]


# --- steps -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("most", [1, 2, 3, 4, 5, 6, 9])
def test_steps_never_pass_their_limit_and_the_last_one_is_the_answer(most: int) -> None:
    done = busy(limits=limits(max_steps=most), planning=True, evaluation="every_step")

    end = done.ended()

    assert (end.status, end.stop_reason) == (RunStatus.STOPPED, StopReason.MAX_STEPS)
    assert end.stop_detail.startswith(f"Stopped: the limit of {most} steps is reached;")
    assert end.result == "wrapped up"
    assert done.journal.spent().steps <= most
    assert done.steps()[-2].key == "wrap_up"
    assert_sound(done)


@pytest.mark.parametrize("most", [1, 3, 4, 8])
@pytest.mark.parametrize("mode", list(Mode))
def test_many_actions_of_one_turn_do_not_pass_the_limit_together(most: int, mode: Mode) -> None:
    """Actions are proposed first and take their step later: each must have its place by then."""
    turn = calls(*[use("refund"), use("note"), use("mail")] * 3)
    done = world(turn, says("That is all."), says("Done."), mode=mode, limits=limits(max_steps=most))

    done.to_the_end()

    assert done.journal.spent().steps <= most
    assert_sound(done)


def test_the_queue_of_a_batch_keeps_its_places() -> None:
    """Two queued effects, the call after them and the wrap-up: with six steps there is room for one more read."""
    turns = (calls(use("refund"), use("refund")), *[calls(use("look"))] * 5)
    done = world(*turns, mode=Mode.BATCH, limits=limits(max_steps=7))

    end = done.ended()

    assert end.stop_reason is StopReason.MAX_STEPS
    assert "untouched: 2 proposed actions" in end.stop_detail, "what was only queued is not finished"
    assert done.journal.spent().steps <= 7 - 2
    assert done.effects() == []


@pytest.mark.parametrize(("mode", "needed"), [(Mode.INTERACTIVE, 8), (Mode.BATCH, 9), (Mode.DRY_RUN, 8)])
def test_with_just_enough_steps_the_work_is_finished(mode: Mode, needed: int) -> None:
    """One more than the work takes, which the wrap-up keeps; the places of actions are given back as they are taken."""

    def ending(most: int) -> StopReason:
        turns = (calls(use("note"), use("refund")), calls(use("note"), use("look")), says("All."), says("Done."))
        return world(*turns, mode=mode, limits=limits(max_steps=most)).to_the_end().stop_reason

    assert ending(needed) is StopReason.DONE
    assert ending(needed - 1) is StopReason.MAX_STEPS


def test_what_people_and_bookkeeping_do_eats_no_steps() -> None:
    done = world(calls(use("refund")), says("Done."), limits=limits(max_steps=4))
    done.controls.said.append(("m1", "Ana", "Be kind."))

    assert done.to_the_end().stop_reason is StopReason.DONE
    assert len(done.steps()) == 7
    assert done.journal.spent().steps == 3


def test_a_run_that_may_do_nothing_says_nothing() -> None:
    done = world(limits=limits(max_steps=0))

    end = done.ended()

    assert (end.status, end.result) == (RunStatus.STOPPED, "")
    assert done.llm.requests == []


def test_the_wrap_up_offers_no_tools_and_says_why() -> None:
    done = busy(limits=limits(max_steps=4))

    done.ended()

    request = done.llm.requests[-1]
    assert (request.tool_choice, request.max_tokens) == ({"type": "none"}, WRAP_UP_TOKENS)
    assert not request.goes_on, "nothing reads it from the cache any more"
    assert request.tools == done.llm.requests[0].tools
    assert "because the limit of 4 steps is reached" in done.told()
    assert done.step("wrap_up").kind is StepKind.MODEL
    assert_sound(done)


def test_an_agent_without_tools_wraps_up_without_a_tool_choice() -> None:
    done = world(limits=limits(max_steps=1), policies={})

    assert done.ended().result == "wrapped up"
    assert done.llm.requests[0].tool_choice is None


# --- tokens ----------------------------------------------------------------------------------------------------------
def greedy(request: ModelRequest) -> ModelReply:
    """Uses every token it may: a prompt of a token for each byte, and all of `max_tokens`."""
    usage = Usage(input_tokens=request_bytes(request), output_tokens=request.max_tokens)
    if request.tool_choice is None:
        return replace(calls(use("look")), usage=usage)
    return says("wrapped up", usage=usage)


def greedy_world(bounds: Limits) -> World:
    done = world(*[greedy] * 60, limits=bounds)
    done.tools["shop.look"] = Workshop("shop.look", repeatable=True)
    done.llm.wrap_up = greedy
    return done


@pytest.mark.parametrize("most", [1024, 1300, 5_000, 20_000, 33_333])
def test_output_tokens_never_pass_their_limit(most: int) -> None:
    done = greedy_world(limits(max_output_tokens=most))

    end = done.ended()

    assert (end.stop_reason, end.result) == (StopReason.MAX_TOKENS, "wrapped up")
    assert f"{most:,} output tokens" in end.stop_detail
    assert done.journal.spent().output_tokens <= most
    assert_sound(done)


def test_too_few_output_tokens_for_any_use_are_not_used() -> None:
    done = greedy_world(limits(max_output_tokens=200))

    assert (done.ended().result, done.llm.requests) == ("", [])


@pytest.mark.parametrize("most", [4_000, 15_000, 50_000, 90_000])
def test_input_tokens_never_pass_their_limit(most: int) -> None:
    done = greedy_world(limits(max_input_tokens=most))

    end = done.ended()

    assert end.stop_reason is StopReason.MAX_TOKENS
    assert f"{most:,} input tokens" in end.stop_detail
    assert done.journal.spent().input_tokens <= most
    assert_sound(done)


def test_after_the_first_call_the_providers_count_is_taken() -> None:
    done = world(calls(use("look")), says("Done."), limits=limits(max_input_tokens=100_000))
    bound = PromptBound()

    done.ended()

    first, second = done.llm.requests
    assert bound.of(first) == request_bytes(first)
    bound.learn(first, Usage(input_tokens=10))
    since = request_bytes(second) - request_bytes(first)
    assert since <= bound.of(second) - 10 <= since + len("[]")
    known = bound.of(second)
    bound.learn(second, Usage())
    assert bound.of(second) == known


def test_what_was_left_out_since_is_not_taken_off_the_bound() -> None:
    """A token may stand for many bytes: four thousand bytes less can be a thousand tokens less, and as many new bytes
    four thousand more."""
    long, short = "a" * 4000, "\N{SNOWMAN}"
    first = ModelRequest(model="fake", system="", messages=({"role": "user", "content": long},))
    second = replace(first, messages=({"role": "user", "content": short},))
    bound = PromptBound()
    bound.learn(first, Usage(input_tokens=1000))

    assert bound.of(second) == min(1000 + len(short.encode()), request_bytes(second))


def test_what_stays_after_clearing_is_not_counted_twice() -> None:
    """One old result of many is cleared: its mark is all that is new."""
    talk = Conversation("Help Ana")
    for number in range(10):
        talk.reply(calls(use("look", id=str(number))).content)
        talk.give_results([(f"c{number}", f"{number} " + "found " * 200, False)])
    before = ModelRequest(model="fake", system="", messages=talk.messages())
    bound = PromptBound()
    bound.learn(before, Usage(input_tokens=4_000))
    talk.clear_results(3)
    after = replace(before, messages=talk.messages())

    assert 4_000 < bound.of(after) < 5_000
    assert request_bytes(after) > 10_000


def test_after_a_summary_the_bound_is_at_most_a_token_for_each_byte() -> None:
    before = ModelRequest(model="fake", system="", messages=({"role": "user", "content": "a" * 90_000},))
    bound = PromptBound()
    bound.learn(before, Usage(input_tokens=30_000))
    after = replace(before, messages=({"role": "user", "content": "In short: nothing."},))

    assert bound.of(after) == request_bytes(after)


# --- dollars ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("most", ["1.5", "8", "20", "31.75"])
def test_the_cost_never_passes_its_limit(most: str) -> None:
    done = greedy_world(limits(max_cost_usd=Decimal(most)))

    end = done.ended()

    assert end.stop_reason is StopReason.MAX_COST
    assert done.journal.spent().cost_usd <= Decimal(most)
    assert_sound(done)


def test_enough_money_is_kept_back_for_the_wrap_up() -> None:
    done = greedy_world(limits(max_cost_usd=Decimal(60)))

    assert done.ended().result == "wrapped up"
    assert done.journal.spent().steps > 3


def test_a_budget_beyond_the_run_can_be_used_up_too() -> None:
    """The team's month, for one."""
    done = world(says("Never asked."), limits=limits(max_cost_usd=Decimal(1000)))
    done.budget.usd = Decimal("0.01")

    end = done.ended()

    assert end.stop_reason is StopReason.MAX_COST
    assert end.stop_detail.startswith("Stopped: the budget is used up; ")
    assert done.llm.requests == []


class Unpriced(FakeBudget):
    def worst_price(self, model: str, input_tokens: int, output_tokens: int) -> Decimal | None:
        return None


def test_an_unknown_price_cannot_be_bounded() -> None:
    done = world(says("Done."), limits=limits(max_cost_usd=Decimal("0.01")))
    done.budget = Unpriced()

    assert done.ended().stop_reason is StopReason.DONE


REQUEST = ModelRequest(model="fake", system="", messages=(), max_tokens=8000)


def fitted(bounds: Limits, *, spent: Spent = Spent(), keep: bool = True, bound: int = 100) -> int:  # noqa: B008 frozen
    return fit(REQUEST, bound, limits=bounds, spent=spent, budget=FakeBudget(), keep_wrap_up=keep).max_tokens


@pytest.mark.parametrize(
    ("bounds", "keep", "tokens"),
    [
        (UNLIMITED, True, 8000),
        (limits(max_output_tokens=9024), True, 8000),
        (limits(max_output_tokens=9023), True, 7999),
        (limits(max_output_tokens=1280), True, 256),
        (limits(max_output_tokens=256), False, 256),
        (limits(max_cost_usd=Decimal("8.1")), False, 8000),
        (limits(max_cost_usd=Decimal("8.0")), False, 4000),
        (limits(max_cost_usd=Decimal("0.6")), False, 500),
        (limits(max_input_tokens=100), False, 8000),
        (limits(max_input_tokens=8711), True, 7999),
        (limits(max_input_tokens=968), True, 256),
    ],
)
def test_the_answer_is_cut_to_what_is_left(bounds: Limits, keep: bool, tokens: int) -> None:
    assert fitted(bounds, keep=keep) == tokens


@pytest.mark.parametrize(
    ("bounds", "keep", "reason"),
    [
        (limits(max_output_tokens=1279), True, StopReason.MAX_TOKENS),
        (limits(max_output_tokens=255), False, StopReason.MAX_TOKENS),
        (limits(max_input_tokens=99), False, StopReason.MAX_TOKENS),
        (limits(max_input_tokens=967), True, StopReason.MAX_TOKENS),
        (limits(max_cost_usd=Decimal("0.1")), False, StopReason.MAX_COST),
        (limits(max_cost_usd=Decimal("1.5")), True, StopReason.MAX_COST),
    ],
)
def test_without_enough_left_there_is_no_call(bounds: Limits, keep: bool, reason: StopReason) -> None:
    with pytest.raises(BudgetExceeded) as caught:
        fitted(bounds, keep=keep)

    assert caught.value.limit == reason


def test_a_last_call_that_does_not_fit_whole_has_its_results_cut() -> None:
    """What tools gave back is the most of a prompt, and the least of what a summing up needs."""
    done = world(calls(use("look")), says("Never reached."), limits=limits(max_input_tokens=7_000))
    done.tool("look").answers.append(ToolResult(content="Found it. " * 1_000))

    end = done.ended()

    assert (end.stop_reason, end.result) == (StopReason.MAX_TOKENS, "wrapped up")
    assert SHORTENED.format(count="8,000") in done.contents()[0]
    assert_sound(done)


# --- seconds ---------------------------------------------------------------------------------------------------------
def test_time_is_up_before_the_next_step() -> None:
    done = busy(limits=limits(max_seconds=60))
    done.tool("note").watch = lambda key: done.clock.pass_seconds(61)

    end = done.ended()

    assert (end.stop_reason, end.result) == (StopReason.MAX_SECONDS, "wrapped up")
    assert len(done.tool("note").keys) == 1
    assert_sound(done)


def test_time_is_up_while_the_model_answers() -> None:
    done = world(limits=limits(max_seconds=60))
    done.llm.turns = [then(lambda: done.clock.pass_seconds(61), says("too late"))]

    end = done.ended()

    assert (end.stop_reason, end.result) == (StopReason.MAX_SECONDS, "wrapped up")
    assert done.keys() == ["model:1:interrupted:1", "stopped", "wrap_up", "result"]


def test_waiting_for_people_takes_no_time() -> None:
    done = world(calls(use("refund")), says("Done."), limits=limits(max_seconds=60))
    assert done.parked() == WAITS
    done.clock.pass_seconds(3600)
    done.run = replace(done.run, waited_ms=3_600_000)

    assert done.to_the_end().stop_reason is StopReason.DONE
