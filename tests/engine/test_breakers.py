"""Circuit breakers as values."""

from __future__ import annotations

import datetime as dt

import pytest

from runs.engine.breakers import (
    ASK_AGAIN_S,
    COOLDOWN_S,
    FAILURES,
    LONGEST_COOLDOWN_S,
    PROBE_S,
    Breaker,
    NeverOpen,
    State,
    Unavailable,
    entered,
    failed,
    ready,
    refusal,
    worked,
)

NOW = dt.datetime(2026, 3, 12, 14, 0, tzinfo=dt.UTC)


def after(seconds: float) -> dt.datetime:
    return NOW + dt.timedelta(seconds=seconds)


def opened(times: int = 1) -> Breaker:
    """Open since NOW, for the given time in a row."""
    breaker = Breaker()
    for _ in range(FAILURES):
        breaker = failed(breaker, NOW, "late")
    for _ in range(times - 1):
        breaker = failed(entered(breaker, NOW), NOW, "late")
    return breaker


def test_closed_lets_calls_through_and_counts_failures_in_a_row() -> None:
    breaker = Breaker()
    for count in range(1, FAILURES):
        breaker = failed(breaker, NOW, "late")
        assert (breaker.state, breaker.failures, refusal(breaker, NOW)) == (State.CLOSED, count, None)
    assert entered(breaker, NOW) is breaker
    assert worked(breaker) == Breaker()
    assert worked(Breaker()) == Breaker()


def test_enough_failures_open_it_until_a_time() -> None:
    breaker = opened()

    assert (breaker.state, breaker.until) == (State.OPEN, after(COOLDOWN_S))
    said = refusal(breaker, NOW)
    assert said == Unavailable(until=after(COOLDOWN_S), reason=f"the last {FAILURES} calls failed: late")
    assert said.words == f"unavailable until 14:00:30 UTC (the last {FAILURES} calls failed: late)"
    assert Unavailable(until=NOW, reason="").words == "unavailable until 14:00:00 UTC"
    assert refusal(breaker, after(COOLDOWN_S)) is None


def test_half_open_lets_one_call_through() -> None:
    now = after(COOLDOWN_S)
    probed = entered(opened(), now)

    assert probed.state is State.HALF_OPEN
    said = refusal(probed, now)
    assert said is not None
    assert said.until == now + dt.timedelta(seconds=ASK_AGAIN_S)
    assert worked(probed) == Breaker()


def test_a_probe_whose_worker_died_does_not_hold_others_back_for_ever() -> None:
    probed = entered(opened(), NOW)

    assert refusal(probed, after(PROBE_S - 1)) == Unavailable(until=after(PROBE_S), reason=probed.reason)
    assert refusal(probed, after(PROBE_S)) is None


@pytest.mark.parametrize(
    ("times", "cooldown"), [(1, 30), (2, 60), (3, 120), (5, 480), (6, 600), (9, LONGEST_COOLDOWN_S)]
)
def test_each_failed_probe_opens_it_for_twice_as_long(times: int, cooldown: float) -> None:
    breaker = opened(times)

    assert (breaker.state, breaker.opened, breaker.until) == (State.OPEN, times, after(cooldown))


def test_a_late_failure_of_an_open_one_changes_no_time() -> None:
    breaker = opened()

    late = failed(breaker, after(9), "later")

    assert (late.until, late.opened, late.failures) == (breaker.until, 1, FAILURES + 1)


def test_the_other_sides_own_word_opens_it_at_once() -> None:
    breaker = failed(Breaker(), NOW, "too many requests", 3600)

    assert (breaker.state, breaker.until) == (State.OPEN, after(3600))
    assert breaker.reason == "the last call failed: too many requests"
    for short in (0.0, 9.0):
        assert failed(Breaker(), NOW, "busy", short).state is State.CLOSED


def test_a_person_need_not_wait() -> None:
    for breaker in (opened(3), entered(opened(), NOW)):
        assert refusal(ready(breaker, NOW), NOW) is None
        assert failed(entered(ready(breaker, NOW), NOW), NOW, "late").opened == breaker.opened + 1
    assert ready(Breaker(), NOW) == Breaker()


def test_without_breakers_everything_goes() -> None:
    never = NeverOpen()
    never.failed("x", "late")
    never.worked("x")

    assert (never.peek("x"), never.enter("x")) == (None, None)
