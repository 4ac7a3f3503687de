from __future__ import annotations

import datetime as dt
import itertools
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from traces.axis import make_axis, span_label
from traces.timeline import Nested, RunFacts, Span, Timeline, place
from traces.timeline import timeline as made

T0 = dt.datetime(2026, 3, 12, 12, 10, tzinfo=dt.UTC)


def at(seconds: float) -> dt.datetime:
    return T0 + dt.timedelta(seconds=seconds)


def span(seq: int, kind: str, start: float, seconds: float, **also: Any) -> Span:
    return Span(
        seq=seq,
        kind=kind,
        started_at=at(start),
        duration_ms=round(seconds * 1000),
        **{"status": "ok", "title": kind, **also},
    )


def facts(end: float | None, **also: Any) -> RunFacts:
    values: dict[str, Any] = {"status": "completed", "now": at(10_000), "ended_at": None if end is None else at(end)}
    return RunFacts(agent="Refund desk", started_at=T0, **{**values, **also})


def timeline(run: RunFacts, spans: list[Span], *, fold: bool = True) -> Timeline:
    """With every row placed, as if all of them were shown."""
    found = made(run, spans, fold=fold)
    for row in found.rows:
        place(row, found.axis)
    return found


def outline(found: Timeline) -> list[tuple[int, str, str]]:
    return [(row.depth, row.kind, row.title) for row in found.rows]


WITH_A_WAIT = [
    span(1, "model", 0, 10, cost=Decimal("0.05"), costs=True),
    span(2, "approval", 10, 0, title="Sent 2 actions to the inbox"),
    span(3, "approval", 10, 372, title="Wait for a person", summary="2 approved"),
    span(4, "tool", 382, 5, tool="shop.issue_refund", title="shop.issue_refund"),
    span(5, "model", 387, 13, cost=Decimal("0.07"), costs=True),
]


def test_steps_of_a_plan_step_stand_under_its_title() -> None:
    found = timeline(
        facts(60, plan_titles=("Look up orders", "Decide")),
        [
            span(1, "plan", 0, 6, title="Plan", plan_step=None, cost=Decimal("0.05"), costs=True),
            span(2, "model", 6, 3, title="Decide", plan_step=0, cost=Decimal("0.01"), costs=True),
            span(3, "tool", 9, 1, tool="orders.lookup", plan_step=0),
            span(4, "tool", 11, 2, tool="policy.search", plan_step=1),
            span(5, "result", 13, 0, title="Answer", plan_step=1),
        ],
    )
    assert outline(found) == [
        (0, "run", "Refund desk"),
        (1, "plan", "Plan"),
        (1, "group", "Look up orders"),
        (2, "model", "Decide"),
        (2, "tool", "orders.lookup"),
        (1, "group", "Decide"),
        (2, "tool", "policy.search"),
        (1, "result", "Answer"),
    ]
    group = found.rows[2]
    assert (group.duration_ms, group.cost, group.children) == (4_000, Decimal("0.01"), 2)
    assert [row.parent for row in found.rows[2:5]] == ["run", group.id, group.id]
    assert found.rows[0].cost == Decimal("0.06")


def test_a_plan_step_that_is_taken_up_again_says_so() -> None:
    steps = [span(n, "tool", n, 1, tool=f"t{n}", plan_step=index) for n, index in enumerate([0, 1, 0], start=1)]
    found = timeline(facts(60, plan_titles=("One", "Two")), steps)
    assert [(row.title, row.note) for row in found.rows if row.kind == "group"] == [
        ("One", ""),
        ("Two", ""),
        ("One", "again"),
    ]


def test_without_a_plan_calls_stand_under_the_turn_that_made_them() -> None:
    found = timeline(facts(400), WITH_A_WAIT)
    assert outline(found) == [
        (0, "run", "Refund desk"),
        (1, "model", "model"),
        (2, "approval", "Sent 2 actions to the inbox"),
        (1, "waiting", "Wait for a person"),
        (1, "tool", "shop.issue_refund"),
        (1, "model", "model"),
    ]


def test_calls_of_one_tool_in_a_row_become_one_row_that_opens() -> None:
    calls = [span(n, "tool", n, 0.5, tool="orders.lookup") for n in range(2, 7)]
    found = timeline(
        facts(20), [span(1, "model", 0, 1), *calls, span(7, "tool", 8, 1, tool="orders.lookup", status="timeout")]
    )
    merged = [row for row in found.rows if row.kind == "calls"]
    assert [(row.title, row.note, row.children, row.collapsed) for row in merged] == [
        ("orders.lookup", "5 calls", 5, True)
    ]
    assert merged[0].duration_ms == 4_500
    assert [row.seq for row in found.rows if row.parent == merged[0].id] == [2, 3, 4, 5, 6]
    assert found.rows[-1].problem == "Timed out"


def test_a_wait_above_a_minute_is_folded_and_is_a_band_of_its_own() -> None:
    found = timeline(facts(400), WITH_A_WAIT)
    wait = next(row for row in found.rows if row.kind == "waiting")
    assert len(found.axis.folds) == 1
    assert found.axis.folds[0].x == wait.x + "0" * (len(found.axis.folds[0].x) - len(wait.x)) or float(wait.x) == float(
        found.axis.folds[0].x
    )
    assert float(wait.width) == pytest.approx(7.0)
    assert (found.took_ms, found.waited_ms) == (400_000, 372_000)
    unfolded = timeline(facts(400), WITH_A_WAIT, fold=False)
    wait = next(row for row in unfolded.rows if row.kind == "waiting")
    assert unfolded.axis.folds == ()
    assert float(wait.width) == pytest.approx(93.0)


def test_a_wait_of_less_than_a_minute_is_in_proportion() -> None:
    found = timeline(
        facts(100),
        [span(1, "model", 0, 50), span(2, "approval", 50, 40, title="Wait for a person"), span(3, "tool", 90, 10)],
    )
    assert found.axis.folds == ()
    assert float(found.rows[2].width) == pytest.approx(40.0)


def test_while_a_person_is_awaited_the_band_ends_now() -> None:
    running = timeline(
        facts(None, status="waiting", now=at(130), waiting_since=at(10)),
        [span(1, "model", 0, 10), span(2, "approval", 10, 0, title="Sent 1 action to the inbox")],
    )
    wait = running.rows[-1]
    assert (wait.kind, wait.seq, wait.duration_ms) == ("waiting", None, 120_000)
    assert running.waited_ms == 120_000
    assert running.took_ms == 130_000
    assert float(wait.x) + float(wait.width) == pytest.approx(100, abs=0.01)


def test_problems_are_failures_low_scores_guardrails_and_rejections_in_order() -> None:
    found = timeline(
        facts(60),
        [
            span(1, "tool", 0, 1, status="timeout"),
            span(2, "tool", 1, 1, status="error"),
            span(3, "evaluate", 2, 1, score=0.21),
            span(4, "evaluate", 3, 1, score=0.93),
            span(5, "tool", 4, 1, status="denied", summary="rejected by a person (Dana Okafor)."),
            span(6, "tool", 5, 1, status="denied", summary="Not done: forbidden"),
            span(7, "guardrail", 6, 0),
            span(8, "tool", 7, 1, status="simulated"),
        ],
    )
    assert [(problem.seq, problem.reason) for problem in found.problems] == [
        (1, "Timed out"),
        (2, "Failed"),
        (3, "Low score"),
        (5, "Rejected"),
        (6, "Not done"),
        (7, "Guardrail"),
    ]
    assert found.timeouts == 1


def test_an_unknown_price_is_not_a_zero_in_the_groups() -> None:
    found = timeline(facts(60), [span(1, "model", 0, 1, cost=None, costs=True)])
    assert [row.cost for row in found.rows] == [None, None]


def test_a_run_without_steps_is_one_row() -> None:
    assert outline(timeline(facts(None, status="queued", now=at(3)), [])) == [(0, "run", "Refund desk")]


def test_a_step_that_began_before_the_runs_clock_is_still_on_the_axis() -> None:
    found = timeline(facts(10), [span(1, "message", -5, 0), span(2, "model", 0, 10)])
    assert float(found.rows[1].x) == 0
    assert float(found.rows[2].x) > 0


intervals = st.tuples(
    st.floats(0, 100_000, allow_nan=False),
    st.floats(0, 5_000, allow_nan=False),
    st.sampled_from(["model", "tool", "wait"]),
)


@given(st.lists(intervals, max_size=25), st.booleans())
def test_every_bar_lies_on_the_axis_in_the_order_of_time(steps: list[tuple[float, float, str]], fold: bool) -> None:
    spans = [
        span(
            n,
            "approval" if kind == "wait" else kind,
            start,
            seconds,
            title="Wait for a person" if kind == "wait" else kind,
        )
        for n, (start, seconds, kind) in enumerate(steps, start=1)
    ]
    found = timeline(facts(110_000, now=at(110_000)), spans, fold=fold)
    for row in found.rows:
        assert 0 <= float(row.x) <= 100
        assert float(row.width) > 0
        assert float(row.x) + float(row.width) <= 100.01
    placed = [(row.start, found.axis.at(row.start)) for row in found.rows]
    for (first, x), (second, y) in zip(sorted(placed), sorted(placed)[1:], strict=False):
        assert first <= second
        assert x <= y + 1e-6
    assert sum(piece.width for piece in found.axis.pieces) == pytest.approx(100)


@given(st.floats(0.001, 10_000_000, allow_nan=False))
def test_ticks_are_few_and_stand_apart(seconds: float) -> None:
    axis = make_axis(start=T0, end=at(seconds), busy=[(T0, at(seconds))], fold=True)
    xs = [float(tick.x) for tick in axis.ticks]
    assert 1 <= len(xs) <= 14
    assert all(b - a >= 5 for a, b in itertools.pairwise(xs))


@pytest.mark.parametrize(
    ("seconds", "label"), [(0.5, "0.5s"), (30, "30s"), (60, "1m"), (510, "8m 30s"), (7200, "2h"), (90_000, "1d 1h")]
)
def test_labels_of_the_axis(seconds: float, label: str) -> None:
    assert span_label(seconds) == label


def test_what_a_sub_agent_did_stands_under_the_step_that_called_it() -> None:
    child = Nested(
        run=facts(8, id="child_"),
        spans=[
            span(1, "model", 2, 2, cost=Decimal("0.04"), costs=True),
            span(2, "tool", 4, 3, tool="carrier.track", status="timeout"),
        ],
    )
    found = timeline(
        facts(12),
        [
            span(1, "model", 0, 2, cost=Decimal("0.05"), costs=True),
            span(2, "delegate", 2, 6, title="Carrier checker", below=child),
            span(3, "model", 8, 4, cost=Decimal("0.01"), costs=True),
        ],
    )
    assert outline(found) == [
        (0, "run", "Refund desk"),
        (1, "model", "model"),
        (2, "delegate", "Carrier checker"),
        (3, "model", "model"),
        (4, "tool", "carrier.track"),
        (1, "model", "model"),
    ]
    assert [row.id for row in found.rows] == ["run", "s1", "s2", "child_s1", "child_s2", "s3"]
    assert found.rows[0].cost == Decimal("0.10")
    assert found.rows[2].cost == Decimal("0.04")
    assert [(problem.row, problem.run, problem.index) for problem in found.problems] == [("child_s2", "child_", 4)]
    assert len({row.id for row in found.rows}) == len(found.rows)


def test_the_critical_path_is_what_the_end_waited_for() -> None:
    found = timeline(
        facts(400),
        [
            span(1, "model", 0, 10),
            span(2, "tool", 10, 5, tool="slow"),
            span(3, "tool", 10, 2, tool="quick"),
            span(4, "approval", 15, 372, title="Wait for a person"),
            span(5, "model", 387, 13),
        ],
    )
    assert {row.title for row in found.rows if row.critical} == {"model", "slow", "Wait for a person"}
    assert found.critical_ms == {"model": 23_000, "waiting": 372_000, "tool": 5_000}


def test_a_sub_agent_lasts_from_the_step_that_began_it_to_its_own_end() -> None:
    child = Nested(run=facts(8, id="child_"), spans=[span(1, "model", 2, 2)])
    found = timeline(
        facts(12),
        [
            span(1, "delegate", 2, 0, title="Delegate to Searcher", below=child),
            span(2, "tool", 8, 0, tool="delegate", title="Searcher answers"),
        ],
    )
    assert [(row.kind, row.title) for row in found.rows if row.depth == 1] == [
        ("delegate", "Delegate to Searcher"),
        ("delegate", "Searcher answers"),
    ]
    assert found.rows[1].end == at(8)
