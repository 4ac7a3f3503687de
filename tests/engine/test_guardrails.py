"""Loops of calls: told once, then stopped."""

from __future__ import annotations

import pytest

from runs.engine.guardrails import STOP_AT, TELL_AT, Loop, LoopGuard, fingerprint
from runs.engine.types import Step, StepKind


def call(name: str, result: object = "same", **args: object) -> Step:
    return Step(kind=StepKind.TOOL, title=name, tool=name, input=args, output=result)


def fed(*turns: list[Step], repeatable: frozenset[str] = frozenset()) -> list[Loop | None]:
    guard = LoopGuard()
    return [guard.after(turn, repeatable) for turn in turns]


def said(found: list[Loop | None]) -> list[str]:
    return ["" if loop is None else "stop" if loop.stops else "tell" for loop in found]


# --- the guard alone -------------------------------------------------------------------------------------------------
def test_the_same_call_with_the_same_result() -> None:
    found = fed(*[[call("a", id=1)]] * 5)

    assert said(found) == ["", "", "tell", "stop", "stop"]
    assert found[2] == Loop(("a",), TELL_AT[1], stops=False)
    assert found[3] == Loop(("a",), STOP_AT[1], stops=True)


def test_a_cycle_of_two_and_of_three() -> None:
    assert said(fed(*[[call("a")], [call("b")]] * 3)) == ["", "", "", "tell", "", "stop"]
    assert said(fed(*[[call("a")], [call("b")], [call("c")]] * 3)) == [*[""] * 5, "tell", "", "", "stop"]


def test_a_cycle_of_four_is_none() -> None:
    assert set(said(fed(*[[call(name)] for name in "abcd"] * 4))) == {""}


@pytest.mark.parametrize(
    "turns",
    [
        [[call("a", id=n)] for n in range(6)],
        [[call("a", result=n)] for n in range(6)],
        [[call(f"tool{n}")] for n in range(6)],
        [[call("a")], [call("a")], [call("b")], [call("a")], [call("a")]],
    ],
    ids=["arguments", "result", "tool", "interrupted"],
)
def test_what_differs_is_no_loop(turns: list[list[Step]]) -> None:
    assert set(said(fed(*turns))) == {""}


def test_the_order_of_keys_makes_no_difference() -> None:
    one, other = call("a", x=1, y={"b": 1, "c": 2}), call("a", y={"c": 2, "b": 1}, x=1)

    assert fingerprint(one) == fingerprint(other)
    assert said(fed([one], [other], [one])) == ["", "", "tell"]


@pytest.mark.parametrize(("one", "other"), [(1, "1"), (True, 1), (None, "null")])
def test_values_of_other_types_are_other_values(one: object, other: object) -> None:
    assert fingerprint(call("a", x=one)) != fingerprint(call("a", x=other))


def test_the_same_call_side_by_side_counts_once() -> None:
    assert said(fed([call("a")] * 4, [call("a")] * 4)) == ["", ""]


def test_two_side_by_side_again_and_again_are_a_cycle() -> None:
    assert said(fed(*[[call("a"), call("b")]] * 3)) == ["", "tell", "stop"]


def test_who_polls_may_repeat() -> None:
    assert set(said(fed(*[[call("poll")]] * 9, repeatable=frozenset({"poll"})))) == {""}


def test_the_same_cycle_side_by_side_is_told_once() -> None:
    """One turn may complete a cycle in more than one of its orders."""
    a, b = call("a"), call("b")

    assert said(fed([a], [b], [a], [b, a])) == ["", "", "", "tell"]


def test_a_loop_that_was_left_may_be_told_again_only_by_stopping() -> None:
    """Once told is enough, however much lies between."""
    again = [[call("a")]] * 4
    assert said(fed(*[[call("a")]] * 3, [call("b")], *again)) == ["", "", "tell", "", "", "", "", "stop"]
