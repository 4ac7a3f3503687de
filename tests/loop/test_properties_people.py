"""The same, with sub-agents at work and people who pause, steer and cancel whenever they like."""

from __future__ import annotations

from dataclasses import dataclass, replace

from hypothesis import given, settings
from hypothesis import strategies as st

from runs.engine.fakes import Crash, calls, says
from runs.engine.types import (
    ActionStatus,
    Effect,
    Finished,
    JsonObject,
    Mode,
    ModelReply,
    RunStatus,
    StepStatus,
    StopReason,
)
from tests.loop.helpers import APPROVE, HAPPENED, REJECT, World, assert_sound, limits, use, world

EXAMPLES = 10  # for the speed of the folder; turn it up after a change of the engine
AGENTS = (("searcher", ""), ("writer", ""))
CHILD_ENDS = (RunStatus.COMPLETED, RunStatus.STOPPED, RunStatus.FAILED, RunStatus.CANCELLED)


@dataclass(frozen=True)
class Story:
    mode: Mode
    turns: list[list[str]]
    moves: list[str]  # what people do between two advances
    ends: list[RunStatus]  # how children end
    crashes: list[int]
    max_steps: int | None


STORIES = st.builds(
    Story,
    mode=st.sampled_from([Mode.INTERACTIVE, Mode.BATCH]),
    turns=st.lists(
        st.lists(st.sampled_from(["look", "note", "refund", "wipe", "child"]), min_size=1, max_size=4), max_size=4
    ),
    moves=st.lists(st.sampled_from(["approve", "reject", "steer", "pause", "child", "child", "cancel"]), max_size=12),
    ends=st.lists(st.sampled_from(CHILD_ENDS), max_size=6),
    crashes=st.lists(st.integers(1, 25), max_size=3),
    max_steps=st.none() | st.integers(2, 14),
)


def turn(names: list[str]) -> ModelReply:
    asked: list[tuple[str, JsonObject]] = [
        ("delegate", {"agent": "searcher", "task": "Find it."}) if name == "child" else use(name) for name in names
    ]
    return calls(*asked, text="Hm.")


def born(story: Story) -> World:
    told = sum(move == "steer" for move in story.moves)
    made = world(
        *[turn(names) for names in story.turns],
        *[says("All.")] * (4 + told),
        mode=story.mode,
        limits=limits(**({} if story.max_steps is None else {"max_steps": story.max_steps})),
        subagents=tuple(slug for slug, _ in AGENTS),
    )
    made = replace(made, run=replace(made.run, subagents=AGENTS))
    for name in ("note", "refund", "wipe"):
        made.tool(name).watch = lambda key: nothing_waits(made, key)
    return made


def nothing_waits(made: World, key: str) -> None:
    """Looked at just before every effect: released, claimed once, and nobody is being asked (invariants 1, 2, 5)."""
    assert made.verdicts.waiting() == []
    assert made.controls.wish != "cancel", "a cancelled run has no more effects (invariant 3)"
    [action] = [action for action in made.verdicts.actions.values() if action.id == key]
    assert action.status is ActionStatus.EXECUTING
    assert made.verdicts.claimed.count(key) == 1


def working(made: World) -> list[str]:
    return [intent for intent, child in made.children.started.items() if not child.ended]


def lived(story: Story) -> tuple[World, Finished]:
    made, moves, ends, crashes = born(story), list(story.moves), list(story.ends), list(story.crashes)
    for count in range(200):
        if made.fuse.left is None and crashes:
            made.fuse.left = crashes.pop()
        try:
            outcome = made.advance()
        except Crash:
            continue
        if isinstance(outcome, Finished):
            return made, outcome
        made.controls.wish = None
        move = moves.pop() if moves else "go on"
        if move in ("pause", "cancel"):
            made.controls.wish = move
        elif move == "steer":
            made.controls.said.append((f"m{count}", "Dana Okafor", "Be brief."))
        elif move == "child" or not any(action.asked for action in made.verdicts.waiting()):
            for intent in working(made)[:1]:
                made.children.end(intent, ends.pop() if ends else RunStatus.COMPLETED)
        if move in ("approve", "reject", "go on"):
            made.settle_waiting(REJECT if move == "reject" else APPROVE, HAPPENED)
    raise AssertionError("the run does not end")


@settings(max_examples=EXAMPLES, deadline=None, database=None)
@given(STORIES)
def test_what_always_holds_with_people_and_sub_agents(story: Story) -> None:
    made, end = lived(story)

    assert_sound(made)
    assert end.status in (RunStatus.COMPLETED, RunStatus.STOPPED, RunStatus.CANCELLED)
    assert (end.status is RunStatus.CANCELLED) == (end.stop_reason is StopReason.CANCELLED)
    assert [step.key for step in made.steps()].count("result") == 1
    if story.max_steps is not None:
        assert made.journal.spent().steps <= story.max_steps
    # One child for each start that is recorded, one answer for each that was waited for (invariant 11).
    assert len(made.children.asked) == len(made.children.started)
    starts = {step.key.removeprefix("delegate:") for step in made.steps() if step.key.startswith("delegate:")}
    assert starts <= set(made.children.started)
    if end.status is RunStatus.COMPLETED:
        assert not working(made), "a run that has finished waits for nobody"
    for step in made.steps():
        if step.key.startswith("tool:") and step.child_run:
            child = made.children.started[step.key.removeprefix("tool:")]
            assert (step.status is StepStatus.OK) == (child.status is RunStatus.COMPLETED)
    for action in made.verdicts.actions.values():
        done = [key for key, _ in made.tools[action.tool].effects if key == action.id]
        assert len(done) <= 1
        if action.status is ActionStatus.REJECTED:
            assert done == []
        assert made.tools[action.tool].spec.effect is Effect.READ or action.status is not ActionStatus.EXECUTING
