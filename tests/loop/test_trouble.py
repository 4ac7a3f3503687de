"""A model that fails: fallback models, breakers, people, and replies that were lost."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest

from runs.engine import trouble
from runs.engine.breakers import FAILURES as MOST
from runs.engine.breakers import NeverOpen, State, Unavailable
from runs.engine.budget import request_bytes
from runs.engine.fakes import FakeBreakers, calls, says
from runs.engine.fallback import Models
from runs.engine.halting import Stop
from runs.engine.ports import Interrupted, ModelError
from runs.engine.trouble import MOST_TRIES, OPTIONAL_TRIES, TRIES_BEFORE_FALLBACK, Failure, models_left
from runs.engine.types import (
    ActionStatus,
    ModelReply,
    ModelRequest,
    Parked,
    RunStatus,
    Step,
    StepKind,
    StopReason,
    Usage,
)
from tests.loop.helpers import WAITS, World, assert_sound, limits, then, use, world

AT_ONCE = Parked(why="retry", retry_in_s=0)


def busy(after: float | None = None) -> ModelError:
    return ModelError("overloaded_error", "too busy", retryable=True, retry_after_s=after)


def refused(code: str = "not_found_error") -> ModelError:
    return ModelError(code, "no such model", retryable=False)


def lost(usage: Usage | None = None) -> ModelError:
    error = ModelError("connection_error", "cut", retryable=True)
    error.may_be_billed, error.usage = True, usage or Usage()
    return error


# --- the rules alone -------------------------------------------------------------------------------------------------
def failure(model: str = "a", *, retryable: bool = True, retry_in_s: float = 1.0, code: str = "overloaded") -> Failure:
    return Failure(model=model, code=code, detail="busy", retryable=retryable, retry_in_s=retry_in_s)


@pytest.mark.parametrize(
    ("failures", "left"),
    [
        ([], ["a", "b"]),
        ([failure()], ["a", "b"]),
        ([failure()] * TRIES_BEFORE_FALLBACK, ["b"]),
        ([failure(retry_in_s=3600)], ["b"]),
        ([failure(retryable=False)], ["b"]),
        ([failure(code="authentication_error", retryable=False)], []),
        ([failure(code=trouble.NOT_ASKED)] * 9, ["a", "b"]),
        ([failure()] * 2 + [failure("b")] * (MOST_TRIES - 1), ["b"]),
        ([failure()] * 2 + [failure("b")] * MOST_TRIES, []),
        ([failure(retryable=False), failure("b", retryable=False)], []),
        ([failure()] * 2 + [failure("b", retry_in_s=3600)], ["b"]),
    ],
)
def test_which_models_are_left(failures: list[Failure], left: list[str]) -> None:
    assert models_left(["a", "b"], failures) == left


def test_a_step_of_before_is_read_as_a_failure_all_the_same() -> None:
    step = Step(kind=StepKind.MODEL, title="t", model="a", error="overloaded: busy")

    assert trouble.failure_of(step) == Failure(
        model="a", code="", detail="overloaded: busy", retryable=True, retry_in_s=0.0
    )


def test_the_question_says_what_was_tried() -> None:
    question = trouble.question("k", ["a", "b", "c"], [failure(), failure(), failure("b")], "a is unavailable")

    assert question.tried == (
        "a: 2 tries, the last ended with overloaded: busy",
        "b: 1 try, the last ended with overloaded: busy",
        "a is unavailable",
    )
    assert (question.options, question.unanswered) == ((trouble.TRY_AGAIN,), StopReason.MODEL_ERROR)
    assert "a is away" in trouble.question("k", ["a"], [], "a is away").text


# --- fallback models -------------------------------------------------------------------------------------------------
def chained(*turns: ModelReply, **also: object) -> World:
    return world(*turns, fallback_models=("spare", "last"), effort="high", **also)  # type: ignore[arg-type]


def models(done: World) -> list[tuple[str, str | None]]:
    return [(request.model, request.effort) for request in done.llm.requests]


def test_after_two_tries_the_next_model_is_asked_at_once() -> None:
    done = chained(says("Done."))
    done.llm.errors.extend([busy()] * 2)

    assert [done.parked().retry_in_s, done.parked().retry_in_s] == [1, 0]
    assert done.ended().result == "Done."

    assert models(done) == [("fake", "high"), ("fake", "high"), ("spare", None)]
    note = done.step("model:1:model:spare")
    assert (note.kind, note.title) == (StepKind.GUARDRAIL, "Went on with another model")
    assert note.summary == "fake can't be used (overloaded_error: too busy); spare is asked instead."
    assert_sound(done)


@pytest.mark.parametrize("error", [busy(3600), refused()])
def test_nobody_waits_an_hour_while_another_model_is_there(error: ModelError) -> None:
    done = chained(says("Done."))
    done.llm.errors.append(error)

    assert done.parked() == AT_ONCE
    assert done.ended().result == "Done."
    assert models(done)[-1] == ("spare", None)


def test_without_another_model_the_run_is_parked_for_the_hour() -> None:
    done = world(says("Done."), limits=limits(max_seconds=900))
    done.llm.errors.append(busy(3600))

    assert done.parked() == Parked(why="retry", retry_in_s=3600)
    done.clock.pass_seconds(3600)

    assert done.ended().result == "Done.", "a wait that the provider asked for is no working time"


def test_each_call_begins_with_the_first_model_again() -> None:
    done = chained(calls(use("look")), says("Done."))
    done.llm.errors.append(refused())
    done.parked()

    done.ended()

    assert [model for model, _ in models(done)] == ["fake", "spare", "fake"]


def test_a_wrong_key_is_no_matter_of_models() -> None:
    done = chained(says("Never."))
    done.llm.errors.append(refused("authentication_error"))

    end = done.ended()

    assert (end.status, end.stop_reason) == (RunStatus.FAILED, StopReason.MODEL_ERROR)
    assert len(done.llm.requests) == 1


def test_a_refusal_of_every_model_ends_the_run() -> None:
    done = chained(says("Never."))
    done.llm.errors.extend([refused()] * 3)

    assert [done.parked(), done.parked()] == [AT_ONCE] * 2
    end = done.ended()

    said = "Failed: the model provider refused: no such model; untouched: the whole task, for no tool was called."
    assert (end.status, end.stop_detail) == (RunStatus.FAILED, said)
    assert [model for model, _ in models(done)] == ["fake", "spare", "last"]


def test_a_crash_between_the_tries_changes_nothing() -> None:
    for fuse in range(1, 9):
        done = chained(says("Done."))
        done.llm.errors.extend([busy()] * 2)
        done.fuse.left = fuse
        assert done.to_the_end().result == "Done."
        assert (
            done.keys("model:1:failed") == ["model:1:failed:1", "model:1:failed:2"][: len(done.keys("model:1:failed"))]
        )


def test_plans_and_judgements_have_other_models_too_and_fail_no_run() -> None:
    done = chained(says("Done."), planning=True)
    done.llm.errors.extend([busy()] * OPTIONAL_TRIES)

    assert done.to_the_end().result == "Done."
    assert [model for model, _ in models(done)][:3] == ["fake", "fake", "spare"]
    assert done.step("plan").kind is StepKind.PLAN


def test_a_refused_plan_is_asked_of_the_next_model() -> None:
    done = chained(says("Done."), planning=True)
    done.llm.errors.extend([refused()] * 3)

    assert done.to_the_end().result == "Done."
    assert [model for model, _ in models(done)] == ["fake", "spare", "last", "fake"]


# --- people ----------------------------------------------------------------------------------------------------------
def exhausted() -> tuple[World, str]:
    done = world(says("Done."))
    done.llm.errors.extend([busy()] * MOST_TRIES)
    for _ in range(MOST_TRIES):
        assert done.parked().why == "retry"
    assert done.parked() == WAITS
    return done, f"trouble:model:1:{MOST_TRIES}"


def test_a_person_wants_another_round() -> None:
    done, key = exhausted()
    done.verdicts.answer(key, trouble.TRY_AGAIN)

    assert done.ended().result == "Done."

    assert done.step("model:1").attempt == 1
    assert_sound(done)


def test_a_further_round_is_as_long_as_the_first_then_asks_again() -> None:
    done, key = exhausted()
    done.verdicts.answer(key, trouble.TRY_AGAIN)
    done.llm.errors.extend([busy()] * MOST_TRIES)
    for _ in range(MOST_TRIES):
        assert done.parked().why == "retry"

    assert done.parked() == WAITS
    assert set(done.verdicts.questions) == {key, f"trouble:model:1:{2 * MOST_TRIES}"}


@pytest.mark.parametrize(
    ("verdict", "status", "reason"),
    [
        (ActionStatus.REJECTED, RunStatus.STOPPED, StopReason.ESCALATION_DECLINED),
        (ActionStatus.EXPIRED, RunStatus.FAILED, StopReason.MODEL_ERROR),
    ],
)
def test_a_person_or_nobody_ends_the_run(verdict: ActionStatus, status: RunStatus, reason: StopReason) -> None:
    done, key = exhausted()
    done.verdicts.decide(verdict, f"question:{key}")

    end = done.ended()

    assert (end.status, end.stop_reason) == (status, reason)
    assert done.ended() == end


def test_who_has_nobody_to_ask_ends() -> None:
    done = world()
    own = Models(done.run.agent, done.journal, done.clock, NeverOpen())
    request = ModelRequest(model="fake", system="", messages=())

    with pytest.raises(Stop) as stopped:
        own.choose("model:1", request, ["fake"], [failure("fake")] * MOST_TRIES, optional=False)

    assert stopped.value.reason is StopReason.MODEL_ERROR
    assert own.choose("plan", request, ["fake"], [failure("fake")] * MOST_TRIES, optional=True) is request
    with pytest.raises(Stop, match="refused: busy"):
        own.choose("model:1", request, ["fake"], [failure("fake", retryable=False)], optional=False)


def test_a_breaker_that_closes_meanwhile_is_not_waited_for() -> None:
    done, breakers = guarded(says("Done."))
    said = iter([breakers_closed(done)])
    breakers.peek = lambda name: next(said, None)  # type: ignore[method-assign]

    assert done.ended().result == "Done."


def breakers_closed(done: World) -> Unavailable:
    return Unavailable(until=done.clock.time, reason="busy")


# --- breakers --------------------------------------------------------------------------------------------------------
def guarded(*turns: ModelReply, **agent: object) -> tuple[World, FakeBreakers]:
    done = world(*turns, **agent)  # type: ignore[arg-type]
    breakers = FakeBreakers(done.clock)
    done.breakers = breakers
    return done, breakers


def test_trouble_seen_by_others_is_waited_for_without_a_call() -> None:
    done, breakers = guarded(says("Done."))
    for _ in range(MOST):
        breakers.failed("model:fake", "overloaded_error: too busy")

    parked = done.parked()

    assert parked.why == "retry"
    assert 29 < (parked.retry_in_s or 0) <= 30
    assert done.llm.requests == []
    assert done.step("model:1:waits").summary.startswith("fake is unavailable until 14:21:30 UTC")
    done.clock.pass_seconds(31)
    assert done.ended().result == "Done."
    assert breakers.known["model:fake"].state is State.CLOSED


def test_with_another_model_nobody_waits() -> None:
    done, breakers = guarded(says("Done."), fallback_models=("spare",))
    for _ in range(MOST):
        breakers.failed("model:fake", "busy")

    assert done.ended().result == "Done."
    assert [model for model, _ in models(done)] == ["spare"]
    assert "fake can't be used now" in done.step("model:1:model:spare").summary


def test_an_hour_that_the_provider_asks_for_holds_for_every_run() -> None:
    done, breakers = guarded(says("Done."))
    done.llm.errors.append(busy(3600))
    done.parked()

    other = world(says("Done."))
    other.breakers, other.clock = breakers, done.clock
    parked = other.parked()

    assert (parked.retry_in_s or 0) > 3500
    assert other.llm.requests == []


def test_what_a_provider_refuses_opens_nothing() -> None:
    done, breakers = guarded(says("Never."))
    done.llm.errors.append(refused())

    done.ended()

    assert breakers.known["model:fake"].failures == 0


def test_after_a_long_time_of_waiting_a_person_is_asked() -> None:
    done, breakers = guarded(says("Done."))
    for _ in range(MOST):
        breakers.failed("model:fake", "busy", 7200)
    assert done.parked().why == "retry"
    done.clock.pass_seconds(trouble.ASK_AFTER_S + 1)

    assert done.parked() == WAITS
    [question] = done.verdicts.questions.values()
    assert "fake is unavailable" in question.text
    done.verdicts.answer(question.key, trouble.TRY_AGAIN)
    assert done.parked().why == "retry", "asked once, then it waits on"
    done.clock.pass_seconds(7200)
    assert done.ended().result == "Done."


def test_waiting_for_a_breaker_is_no_working_time() -> None:
    done, breakers = guarded(calls(use("look")), says("Done."), limits=limits(max_seconds=900))
    for _ in range(MOST):
        breakers.failed("model:fake", "busy", 800)
    done.parked()
    done.clock.pass_seconds(801)
    done.llm.turns = [calls(use("look")), says("Done.")]
    done.clock.pass_seconds(200)

    assert done.ended().result == "Done."


def test_beside_a_probe_a_call_waits_and_uses_up_no_try() -> None:
    done, breakers = guarded(says("Done."))
    for _ in range(MOST):
        breakers.failed("model:fake", "busy")
    done.clock.pass_seconds(31)
    peek, breakers.peek = breakers.peek, lambda name: None  # type: ignore[method-assign]
    breakers.known["model:fake"] = replace(breakers.known["model:fake"], state=State.HALF_OPEN)
    breakers.known["model:fake"] = replace(breakers.known["model:fake"], until=done.clock.time.replace(hour=15))
    breakers.enter = peek  # type: ignore[method-assign]

    for _ in range(MOST_TRIES + 2):
        assert done.parked().retry_in_s == pytest.approx(5, abs=0.1)
    assert done.llm.requests == []


def test_a_wait_that_a_person_ended_is_no_longer_than_it_was() -> None:
    """Else an hour that was worked would count as waited for the provider."""

    def work() -> None:
        done.clock.pass_seconds(901)

    done = world(then(work, calls(use("look"))), says("Never."), limits=limits(max_seconds=900))
    done.llm.errors.append(busy(3600))
    done.parked()
    done.clock.pass_seconds(100)

    assert done.ended().stop_reason is StopReason.MAX_SECONDS


# --- replies that were lost ------------------------------------------------------------------------------------------
def test_a_reply_that_was_lost_but_may_have_been_billed_says_so() -> None:
    done = world(says("Done."))
    done.llm.errors.append(lost(Usage(input_tokens=120, output_tokens=1)))

    done.parked()

    step = done.step("model:1:failed:1")
    assert step.price.usd is None
    assert step.usage.input_tokens == 120
    assert (step.price.lost_usd, done.journal.spent().lost_usd) == (Decimal("0.121"), Decimal("0.121"))
    assert step.summary == "connection_error: cut. The reply was lost; it may have been billed."
    assert step.input["may_be_billed"] is True
    assert done.ended().result == "Done."


def test_a_lost_reply_counts_against_budgets_as_far_as_it_came() -> None:
    done = world(says("Done."))
    error = lost(Usage(input_tokens=120, output_tokens=1))
    error.streamed_bytes = 400
    done.llm.errors += [error, lost()]

    done.parked()
    done.parked()

    assert done.step("model:1:failed:1").price.lost_usd == Decimal("0.520")
    nothing_came = done.step("model:1:failed:2").price.lost_usd
    assert nothing_came * 1000 == request_bytes(done.llm.requests[-1])  # its prompt, at most
    spent = done.journal.spent()
    assert (spent.cost_usd, spent.bound_usd) == (Decimal(0), Decimal("0.520") + nothing_came)


def test_a_reply_of_no_use_that_came_to_its_end_has_its_price() -> None:
    done = world(says("Done."))
    error = lost(Usage(input_tokens=120, output_tokens=40))
    error.usage_is_final = True
    done.llm.errors.append(error)

    done.parked()

    step = done.step("model:1:failed:1")
    assert step.price.usd == done.journal.spent().cost_usd > 0
    assert step.summary == "connection_error: cut. The reply came to its end and is billed."


def test_a_call_that_never_went_out_costs_nothing() -> None:
    done = world(says("Done."))
    done.llm.errors.append(busy())

    done.parked()

    assert done.step("model:1:failed:1").price.usd == 0


def test_an_interrupted_reply_may_be_billed_too() -> None:
    done = world(says("Done."))
    stopped = Interrupted("paused")
    stopped.may_be_billed, stopped.usage = True, Usage(input_tokens=9)
    done.llm.errors.append(stopped)

    done.parked()

    assert (done.step("model:1:interrupted:1").price.usd, done.journal.spent().input_tokens) == (None, 9)


def test_what_costs_nothing_is_not_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    done = world(says("Done."))
    monkeypatch.setattr(done.budget, "worst_price", lambda *_: 0)
    done.llm.errors.append(lost())

    done.parked()

    assert done.step("model:1:failed:1").price.usd == 0


def test_requests_are_whole_after_a_change_of_model() -> None:
    done = chained(says("Done."))
    done.llm.errors.append(refused())
    done.parked()
    done.ended()

    first, second = done.llm.requests
    assert isinstance(second, ModelRequest)
    assert replace(second, model=first.model, effort=first.effort) == first
