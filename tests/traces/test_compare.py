from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accounts.access import access_for_user
from accounts.models import User
from runs.models import Agent, Run
from tests.traces.factories import make_agent, make_model_step, make_run, make_step, make_team, make_user
from traces.alignment import Key, align
from traces.compare import compare, find_run


def keys(text: str) -> list[Key]:
    """One letter a step: what it does; a digit behind it its arguments."""
    return [Key(word[0], word[1:]) for word in text.split()]


def drawn(left: str, right: str) -> str:
    sides = left.split(), right.split()
    pairs = align(keys(left), keys(right))
    return " ".join(f"{'-' if a is None else sides[0][a]}/{'-' if b is None else sides[1][b]}" for a, b in pairs)


@pytest.mark.parametrize(
    ("left", "right", "pairs"),
    [
        ("a b c", "a b c", "a/a b/b c/c"),
        ("a b c", "a x b c", "a/a -/x b/b c/c"),  # what is put in shifts nothing
        ("a x b c", "a b c", "a/a x/- b/b c/c"),
        ("m a1 m b1", "m a2 m b1", "m/m a1/a2 m/m b1/b1"),  # other arguments of the same tool
        ("a1 a2", "a2", "a1/- a2/a2"),  # of two alike the one with the same arguments
        ("", "a", "-/a"),
        ("a b", "c d", "a/- b/- -/c -/d"),
    ],
)
def test_steps_stand_beside_those_they_are(left: str, right: str, pairs: str) -> None:
    assert drawn(left, right) == pairs


_letters = st.lists(st.sampled_from(["a", "a1", "b", "b1", "c"]), max_size=12).map(" ".join)


@settings(max_examples=200, deadline=None)
@given(_letters, _letters)
def test_every_step_is_shown_once_and_in_order(left: str, right: str) -> None:
    pairs = align(keys(left), keys(right))
    assert [a for a, _ in pairs if a is not None] == list(range(len(left.split())))
    assert [b for _, b in pairs if b is not None] == list(range(len(right.split())))
    assert all(a is None or b is None or keys(left)[a].act == keys(right)[b].act for a, b in pairs)


def test_long_runs_are_aligned_too() -> None:
    left = [Key(index % 7, index) for index in range(2_000)]
    right = [*left[:900], Key("new", 0), *left[900:1_800]]
    pairs = align(left[::-1], right[::-1])
    assert sum(a is not None and b is not None for a, b in pairs) == 1_800


@pytest.fixture
def two(agent: Agent, dana: User) -> tuple[Run, Run]:
    runs = make_run(agent, dana), make_run(agent, dana, seconds=90)
    for run, amount in zip(runs, (84, 48), strict=True):
        make_model_step(run, "0.05", reasoning="The order is late.", score=0.9 if amount == 84 else 0.6)
        if amount == 48:
            make_step(run, tool="shop.get_order", input={"order": 1})
        make_step(run, tool="shop.issue_refund", input={"amount": amount}, output="done")
        make_model_step(run, "0.05" if amount == 84 else "0.07", reasoning=f"It was ${amount}.")
    return runs


def test_two_runs_and_where_they_first_differ(two: tuple[Run, Run], dana: User) -> None:
    found = compare(access_for_user(dana), *two)
    assert [row.state for row in found.rows] == ["same", "right", "arguments", "same"]
    assert found.first == 1
    assert found.cost_change == Decimal("0.02")
    assert found.duration_change_ms == 30_000
    assert found.score == (0.9, 0.6)
    assert found.rows[0].score_change == pytest.approx(-0.3)
    assert found.rows[0].reasoning is None
    assert found.rows[3].reasoning == ("It was $84.", "It was $48.")
    assert found.rows[3].cost_change == Decimal("0.02")


def test_a_run_against_itself_has_no_divergence(two: tuple[Run, Run], dana: User) -> None:
    assert compare(access_for_user(dana), two[0], two[0]).first is None


def test_another_outcome_of_the_same_call_is_a_divergence(two: tuple[Run, Run], agent: Agent, dana: User) -> None:
    other = make_run(agent, dana)
    make_model_step(other, "0.05", reasoning="The order is late.")
    make_step(other, tool="shop.issue_refund", input={"amount": 84}, status="error", output="refused")
    rows = compare(access_for_user(dana), two[0], other).rows
    assert [row.state for row in rows] == ["same", "outcome", "left"]


def test_runs_are_named_as_people_do_and_stay_in_their_team(two: tuple[Run, Run], dana: User) -> None:
    access = access_for_user(dana)
    for text in ("R-1", " r-1 ", "1", str(two[0].id)):
        assert find_run(access, text) == two[0]
    for text in ("", "R-9", "x", "9" * 40, "\0", str(two[0].id)[:-1]):
        assert find_run(access, text) is None
    other = make_team("elsewhere", "Elsewhere")
    otto = make_user(other, "otto", "Otto", "Brand")
    make_agent(other)
    assert find_run(access_for_user(otto), str(two[0].id)) is None
