"""Whatever the model, the tools, the people and the machine do, some things always hold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from hypothesis import given, settings
from hypothesis import strategies as st

from runs.engine.fakes import Crash, calls, says
from runs.engine.ports import ModelError, ToolConnectionLost, ToolTimeout, ToolUnavailable
from runs.engine.types import (
    ActionStatus,
    Effect,
    Finished,
    JsonObject,
    Mode,
    ModelReply,
    RunStatus,
    StepKind,
    ToolResult,
)
from tests.loop.helpers import (
    APPROVE,
    DID_NOT_HAPPEN,
    HAPPENED,
    REJECT,
    World,
    assert_each_call_has_one_result,
    assert_sound,
    limits,
    use,
    world,
)

NAMES = ("look", "note", "mail", "refund", "wipe", "ban", "fly")
EXAMPLES = 10  # for the speed of the folder; turn it up after a change of the engine
EFFECTS = ("note", "mail", "refund", "wipe")


@dataclass(frozen=True)
class Life:
    """One way things can go."""

    mode: Mode
    turns: list[ModelReply]
    answers: list[tuple[str, bool, str]]  # tool, whether it acted, what came back
    verdicts: list[ActionStatus]
    truths: list[ActionStatus]
    crashes: list[int]
    model_fails: int
    judged: bool
    max_steps: int | None
    stale: bool


@st.composite
def turns(draw: st.DrawFn) -> ModelReply:
    names = draw(st.lists(st.sampled_from(NAMES), max_size=4))
    confidence = draw(st.sampled_from([0.95, 0.2, None, float("nan")]))
    asked: list[tuple[str, JsonObject]] = [use(name, confidence=confidence) for name in names]
    if draw(st.booleans()) and names:
        asked[0] = (asked[0][0], {"wrong": 1})
    stop_reason = draw(st.sampled_from(["tool_use", "tool_use", "tool_use", "end_turn", "max_tokens"]))
    return replace(calls(*asked, text="Hm."), stop_reason=stop_reason)


LIVES = st.builds(
    Life,
    mode=st.sampled_from(list(Mode)),
    turns=st.lists(turns(), max_size=4),
    answers=st.lists(
        st.tuples(
            st.sampled_from(("look", *EFFECTS)),
            st.booleans(),
            st.sampled_from(["fine", "error", "timeout", "lost", "unavailable", "crash"]),
        ),
        max_size=6,
    ),
    verdicts=st.lists(st.sampled_from([APPROVE, APPROVE, REJECT, ActionStatus.EXPIRED]), max_size=6),
    truths=st.lists(st.sampled_from([HAPPENED, DID_NOT_HAPPEN]), max_size=3),
    crashes=st.lists(st.integers(1, 25), max_size=3),
    model_fails=st.integers(0, 2),
    judged=st.booleans(),
    max_steps=st.none() | st.integers(1, 12),
    stale=st.booleans(),
)

COMES_BACK: dict[str, ToolResult | BaseException] = {
    "fine": ToolResult(content="fine"),
    "error": ToolResult(content="no", is_error=True),
    "timeout": ToolTimeout("late"),
    "lost": ToolConnectionLost("cut"),
    "unavailable": ToolUnavailable("down"),
}


def born(life: Life) -> World:
    done = world(
        *life.turns,
        *[says("All.")] * 3,
        mode=life.mode,
        limits=limits(**({} if life.max_steps is None else {"max_steps": life.max_steps})),
        evaluation="every_step" if life.judged else "off",
    )
    for name, acted, back in life.answers:
        answer = Crash() if back == "crash" else COMES_BACK[back]
        if acted or isinstance(answer, ToolResult):
            done.tool(name).answers.append(answer)
        else:
            done.tool(name).lost.append(answer)
    done.llm.errors.extend([ModelError("overloaded", "busy", retryable=True)] * life.model_fails)
    for name in EFFECTS:
        done.tool(name).watch = lambda key: nothing_waits(done, key)
    return done


def nothing_waits(done: World, key: str) -> None:
    """Looked at just before every effect."""
    assert done.run.mode is not Mode.DRY_RUN
    assert done.verdicts.waiting() == []
    [action] = [action for action in done.verdicts.actions.values() if action.id == key]
    assert action.status is ActionStatus.EXECUTING
    assert done.verdicts.claimed.count(key) == 1


def decide(done: World, verdicts: list[ActionStatus], truths: list[ActionStatus]) -> None:
    """People answer one question at a time, in whatever order the lists say."""
    asked = [action for action in done.verdicts.waiting() if action.asked]
    assert asked, "a run must not wait for a question that nobody was asked"
    action = asked[0]
    if action.status is ActionStatus.UNKNOWN:
        done.verdicts.decide(truths.pop() if truths else HAPPENED, action.intent)
    else:
        done.verdicts.decide(verdicts.pop() if verdicts else APPROVE, action.intent)


def lived(life: Life, prepare: Callable[[World], object] = lambda done: None) -> tuple[World, Finished]:
    done, verdicts, truths, crashes = born(life), list(life.verdicts), list(life.truths), list(life.crashes)
    prepare(done)
    for _ in range(150):
        if done.fuse.left is None and crashes:
            done.fuse.left = crashes.pop()
        try:
            outcome = done.advance()
        except Crash:
            continue
        if isinstance(outcome, Finished):
            return done, outcome
        if outcome.why == "approval":
            decide(done, verdicts, truths)
            if life.stale:
                done.tool("refund").preconditions = {"version": 2}
    raise AssertionError("the run does not end")


@settings(max_examples=EXAMPLES, deadline=None, database=None)
@given(LIVES)
def test_what_always_holds(life: Life) -> None:
    done, end = lived(life)

    assert_sound(done)
    assert end.status in (RunStatus.COMPLETED, RunStatus.STOPPED, RunStatus.DRY_RUN_READY)
    assert [step.key for step in done.steps()].count("result") == 1
    assert done.steps()[-1].kind is StepKind.RESULT
    if life.max_steps is not None:
        assert done.journal.spent().steps <= life.max_steps
    effects_are_as_recorded(done)
    assert done.tool("ban").keys == []


def effects_are_as_recorded(done: World) -> None:
    recorded = {step.outcome.action_id: step.outcome.status for step in done.steps() if step.outcome}
    for action in done.verdicts.actions.values():
        if action.kind == "question":
            continue
        tool = done.tools[action.tool]
        happened = [key for key, _ in tool.effects if key == action.id]
        assert len(happened) <= 1
        assert action.status is not ActionStatus.EXECUTING
        if action.status is ActionStatus.SUCCEEDED and action.id in recorded and tool.spec.effect is not Effect.READ:
            assert len(happened) == 1
        if action.status in (ActionStatus.REJECTED, ActionStatus.EXPIRED, ActionStatus.STALE):
            assert happened == []


@settings(max_examples=EXAMPLES, deadline=None, database=None)
@given(LIVES)
def test_it_makes_no_difference_that_the_worker_died(life: Life) -> None:
    """With keyed tools and people who decide alike, a crash leaves no trace at all."""
    keyed = [keyed_only(turn) for turn in life.turns]
    calm = replace(life, turns=keyed, answers=[], verdicts=[], crashes=[], model_fails=0)
    whole, end = lived(calm)
    again, same = lived(replace(calm, crashes=life.crashes or [3]))

    assert same == end
    assert [(s.seq, s.key, s.status, s.output) for s in again.steps()] == [
        (s.seq, s.key, s.status, s.output) for s in whole.steps()
    ]
    assert again.effects() == whole.effects()
    for messages in again.llm.conversations():
        assert_each_call_has_one_result(messages)


def keyed_only(turn: ModelReply) -> ModelReply:
    content = [
        {**block, "name": block["name"].replace("mail", "note").replace("wipe", "refund")}
        if block["type"] == "tool_use"
        else block
        for block in turn.content
    ]
    return replace(turn, content=tuple(content))
