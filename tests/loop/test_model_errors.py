"""The model fails, is away or is interrupted."""

from __future__ import annotations

from dataclasses import replace

import pytest

from runs.engine.deciding import reply_of
from runs.engine.fakes import calls, says
from runs.engine.ports import Interrupted, ModelError
from runs.engine.trouble import LONGEST_RETRY_S, MOST_TRIES, OPTIONAL_TRIES
from runs.engine.types import ModelReply, ModelRequest, Parked, RunStatus, Step, StepKind, StepStatus, StopReason
from tests.loop.helpers import WAITS, Answer, World, assert_sound, limits, then, use, world


def overloaded(after: float | None = None) -> ModelError:
    return ModelError("overloaded", "too busy", retryable=True, retry_after_s=after)


def refused() -> ModelError:
    return ModelError("invalid_request", "no such model", retryable=False)


# --- failing calls ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("after", [0.0, 7.5, 300.0])
def test_a_busy_model_is_asked_again_when_its_provider_says(after: float) -> None:
    done = world(says("Done."))
    done.llm.errors.append(overloaded(after))

    assert done.parked() == Parked(why="retry", retry_in_s=after)

    assert done.ended().result == "Done."
    assert done.keys() == ["model:1:failed:1", "model:1", "result"]
    failure = done.step("model:1:failed:1")
    assert (failure.kind, failure.status, failure.error) == (StepKind.MODEL, StepStatus.ERROR, "overloaded: too busy")
    assert (failure.attempt, done.step("model:1").attempt) == (1, 2)
    assert_sound(done)


def test_without_a_word_from_the_provider_each_wait_doubles_then_it_is_enough() -> None:
    done = world(says("Never."))
    done.llm.errors.extend([overloaded()] * MOST_TRIES)

    assert [done.parked().retry_in_s for _ in range(MOST_TRIES - 1)] == [1, 2, 4, 8]

    assert done.parked() == Parked(why="retry", retry_in_s=0)
    assert done.parked() == WAITS, "then a person is asked"
    assert len(done.llm.requests) == MOST_TRIES
    assert LONGEST_RETRY_S >= 8


def test_a_refusal_is_not_tried_again() -> None:
    done = world(says("Never."))
    done.llm.errors.append(refused())

    end = done.ended()

    assert (end.status, end.stop_reason) == (RunStatus.FAILED, StopReason.MODEL_ERROR)
    assert end.stop_detail == (
        "Failed: the model provider refused: no such model; untouched: the whole task, for no tool was called."
    )
    assert len(done.llm.requests) == 1


def test_each_call_has_its_own_tries() -> None:
    done = world(calls(use("look")), says("Done."))
    done.llm.errors.extend([overloaded()] * (MOST_TRIES - 1))
    for _ in range(MOST_TRIES - 1):
        done.parked()
    done.llm.turns = [done.llm.turns[0], failing_once()]

    assert done.parked().retry_in_s == 1
    assert done.ended().result == "Done."


def failing_once() -> Answer:
    errors = [overloaded()]

    def answer(request: ModelRequest) -> ModelReply:
        if errors:
            raise errors.pop()
        return says("Done.")

    return answer


def test_failed_calls_count_as_steps() -> None:
    done = world(says("Never."), limits=limits(max_steps=3))
    done.llm.errors.extend([overloaded()] * 2)
    done.parked()
    done.parked()

    assert done.ended().stop_reason is StopReason.MAX_STEPS
    assert done.journal.spent().steps == 3


# --- the wrap-up -----------------------------------------------------------------------------------------------------
def test_a_wrap_up_that_fails_is_tried_again_then_left_out() -> None:
    done = world(limits=limits(max_steps=10, max_seconds=0))
    done.llm.errors.extend([overloaded(3)] * OPTIONAL_TRIES)

    assert [done.parked().retry_in_s for _ in range(OPTIONAL_TRIES - 1)] == [3, 3]
    end = done.ended()

    assert (end.status, end.stop_reason, end.result) == (RunStatus.STOPPED, StopReason.MAX_SECONDS, "")
    assert done.step("wrap_up").status is StepStatus.ERROR


def test_a_wrap_up_that_is_refused_is_left_out() -> None:
    done = world(limits=limits(max_seconds=0))
    done.llm.errors.append(refused())

    assert (done.ended().result, len(done.llm.requests)) == ("", 1)


# --- interrupted -----------------------------------------------------------------------------------------------------
def interrupting(done: World, wish: str) -> None:
    """A person wishes while the first call is in flight."""
    wishes = iter([wish])
    done.llm.turns = [then(lambda: setattr(done.controls, "wish", next(wishes, None)), says("Done."))]


def test_cancelled_while_the_model_answers() -> None:
    done = world()
    interrupting(done, "cancel")

    end = done.ended()

    assert (end.status, end.stop_reason, end.result) == (RunStatus.CANCELLED, StopReason.CANCELLED, "")
    assert done.keys() == ["model:1:interrupted:1", "result"]


def test_a_worker_that_is_killed_while_the_model_answers_leaves_a_trace_of_the_call() -> None:
    done = world(says("Done."))
    done.run = replace(done.run, call_cut_off=True)

    assert done.ended().result == "Done."

    assert done.keys() == ["model:1:interrupted:1", "model:1", "result"]
    lost = done.step("model:1:interrupted:1")
    assert (lost.status, lost.model, lost.price.usd) == (StepStatus.ERROR, "fake", None)
    assert "may have been billed" in lost.error


def test_a_call_that_was_cut_off_is_recorded_though_a_person_cancelled_since() -> None:
    done = world(says("Done."))
    done.run = replace(done.run, call_cut_off=True)
    done.controls.wish = "cancel"

    assert done.ended().status is RunStatus.CANCELLED

    assert done.keys() == ["model:1:interrupted:1", "result"]


def test_paused_while_the_model_answers_then_asked_again() -> None:
    done = world()
    interrupting(done, "pause")

    assert done.parked() == Parked(why="paused")

    done.controls.wish = None
    assert done.ended().result == "Done."
    assert done.keys() == ["model:1:interrupted:1", "model:1", "result"]


def test_interrupted_for_no_reason_goes_on_at_once() -> None:
    done = world(says("Done."))
    done.llm.errors.append(Interrupted("a stray bell"))

    assert done.parked() == Parked(why="retry", retry_in_s=0)
    assert done.ended().result == "Done."


def test_pausing_does_not_use_up_the_tries_of_a_failing_model() -> None:
    done = world(says("Done."))
    done.llm.errors.extend([*[Interrupted("paused")] * (MOST_TRIES + 1), overloaded()])
    for _ in range(MOST_TRIES + 1):
        done.parked()

    assert done.parked() == Parked(why="retry", retry_in_s=1)
    assert done.ended().result == "Done."


def test_cancelled_while_wrapping_up_is_cancelled() -> None:
    done = world(limits=limits(max_seconds=0))
    done.llm.wrap_up = then(lambda: setattr(done.controls, "wish", "cancel"), says("wrapped up"))

    end = done.ended()

    assert (end.status, end.stop_reason) == (RunStatus.CANCELLED, StopReason.CANCELLED)
    assert done.ended() == end


def test_paused_while_wrapping_up_goes_on_wrapping_up() -> None:
    done = world(limits=limits(max_seconds=0))
    done.llm.wrap_up = then(lambda: setattr(done.controls, "wish", "pause"), says("wrapped up"))
    assert done.parked() == Parked(why="paused")
    done.controls.wish, done.llm.wrap_up = None, says("wrapped up")

    end = done.ended()

    assert (end.stop_reason, end.result) == (StopReason.MAX_SECONDS, "wrapped up")


# --- records ---------------------------------------------------------------------------------------------------------
def test_a_reply_is_recorded_as_it_came() -> None:
    reply = calls(use("look"), text="I look.")
    done = world(reply, says("Done."))

    done.ended()

    step = done.step("model:1")
    assert reply_of(step) == reply
    assert (step.summary, step.reasoning, step.price.usd) == (
        "I look.",
        "I look.",
        done.budget.price("", reply.usage).usd,
    )
    assert done.step("model:2").reasoning == ""


def test_a_reply_without_words_is_summed_up_by_its_calls() -> None:
    done = world(calls(use("look"), use("note")), says("Done."))

    done.ended()

    assert (done.step("model:1").summary, done.step("model:2").summary) == ("Calls shop.look, shop.note", "Done.")


def test_a_reply_is_read_from_text_too() -> None:
    step = Step(kind=StepKind.MODEL, title="t", output='{"content": [{"type": "text", "text": "Hi"}]}')

    assert (reply_of(step).text, reply_of(Step(kind=StepKind.MODEL, title="t")).content) == ("Hi", ())
