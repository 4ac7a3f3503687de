"""Carrying out a decided batch as the plan that was approved: its order, its dependencies, and what a failure means.

independent       each action for itself
stop_on_failure   after a failure nothing more of the batch begins
all_or_nothing    after a failure nothing more begins, and what was done is undone, last first
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Protocol

from runs.engine.ports import Journal, ToolConnectionLost, Tools, ToolTimeout, ToolUnavailable, Verdicts
from runs.engine.types import Action, ActionStatus, Execution, JsonObject, Step, StepKind, StepStatus, ToolGrant

SHORTEST_NAME = 4
FAILURES = frozenset({ActionStatus.FAILED, ActionStatus.STALE})


class Planned(Protocol):
    """What is read of an action, here and where it is shown to people."""

    @property
    def intent(self) -> str: ...
    @property
    def tool(self) -> str: ...
    @property
    def args(self) -> JsonObject: ...


def dependencies(actions: Sequence[Planned], grants: Mapping[str, ToolGrant]) -> dict[str, tuple[str, ...]]:
    """By intent, the intents that must have happened before it: earlier actions of the tools that its grant names under
    `after`. Of several, those that it speaks of (one of their texts stands in its own arguments), else all of them."""
    found: dict[str, tuple[str, ...]] = {}
    for place, action in enumerate(actions):
        grant = grants.get(action.tool)
        before = [each for each in actions[:place] if grant and each.tool in grant.after]
        if before:
            own = json.dumps(action.args, ensure_ascii=False)
            spoken_of = [each for each in before if any(name in own for name in _names(each.args))]
            found[action.intent] = tuple(each.intent for each in spoken_of or before)
    return found


def _names(value: object) -> Iterator[str]:
    """The texts and whole numbers in arguments that may identify what they are about."""
    if isinstance(value, dict):
        for each in value.values():
            yield from _names(each)
    elif isinstance(value, list):
        for each in value:
            yield from _names(each)
    elif isinstance(value, str | int) and not isinstance(value, bool) and len(str(value)) >= SHORTEST_NAME:
        yield str(value)


class Together:
    """One batch being carried out. What it decides is read from rows and recorded steps, so a repeat decides alike."""

    def __init__(
        self, key: str, actions: Sequence[Action], verdicts: Verdicts, tools: Tools, grants: Mapping[str, ToolGrant]
    ) -> None:
        self.verdicts = verdicts
        self.tools = tools
        self.actions = {action.intent: action for action in actions}
        self.mode = verdicts.execution(key) if len(actions) > 1 else Execution.INDEPENDENT
        self.needs = dependencies(actions, grants)
        self.failed: Action | None = None

    def next(self, action: Action, carry_out: Callable[[Action], Step]) -> Step:
        """Carries out one action, unless the plan says that it must not begin any more."""
        reason = self._obstacle(action)
        if reason:
            self.verdicts.withdraw(action, reason)
        step = carry_out(self.verdicts.find(action.intent) or action)
        if len(self.actions) > 1:
            ended = self.verdicts.find(action.intent) or action
            self.actions[action.intent] = ended
            if self.failed is None and (_has_failed(ended) or (not reason and _was_withdrawn(ended))):
                self.failed = ended
        return step

    def finish(self, journal: Journal, begun: Callable[[str, Action], Step]) -> None:
        """After the last action: undoes what was done where it was to be all or nothing."""
        if self.mode is not Execution.ALL_OR_NOTHING or self.failed is None:
            return
        why = f"undone because “{self.failed.title}” {_fate(self.failed)} and this batch was all or nothing"
        for action in reversed(self.actions.values()):
            if action.status is ActionStatus.SUCCEEDED:
                key = f"undo:{action.intent}"
                undoing = replace(begun(key, action), title=f"Undo: {action.title}"[:200])
                step = journal.once(key, StepKind.TOOL, partial(self._undone, action, undoing))
                happened = step.status is StepStatus.OK
                self.verdicts.take_back(action, why if happened else f"could not be undone: {step.summary}", happened)

    def _obstacle(self, action: Action) -> str:
        if self.failed is not None and self.mode is not Execution.INDEPENDENT:
            ends = "stops at the first failure" if self.mode is Execution.STOP_ON_FAILURE else "is all or nothing"
            return f"“{self.failed.title}” before it {_fate(self.failed)}, and this batch {ends}"
        missing = [
            self.actions[intent]
            for intent in self.needs.get(action.intent, ())
            if self.actions[intent].status is not ActionStatus.SUCCEEDED
        ]
        return f"it runs only after “{missing[0].title}”, which did not happen" if missing else ""

    def _undone(self, action: Action, begun: Step) -> Step:
        tool = self.tools.get(action.tool)
        if tool is None:
            return _with(begun, StepStatus.ERROR, "the tool is not there any more")
        try:
            result = tool.undo(action.id)
        except (ToolTimeout, ToolUnavailable, ToolConnectionLost) as error:
            return _with(begun, StepStatus.ERROR, str(error) or type(error).__name__)
        return _with(begun, result.status, result.content)


def _has_failed(action: Action) -> bool:
    """Approved, and yet it did not happen. What a person rejected or took back is a choice, not a failure."""
    expired = action.status is ActionStatus.EXPIRED and bool(action.decisions)
    return action.status in FAILURES or expired


def _was_withdrawn(action: Action) -> bool:
    """Approved, and then taken back because the plan it belongs to had turned out wrong."""
    return action.status is ActionStatus.CANCELLED


def _fate(failed: Action) -> str:
    return "was not executed" if _was_withdrawn(failed) else "failed"


def _with(begun: Step, status: StepStatus, output: JsonObject | str) -> Step:
    text = output if isinstance(output, str) else json.dumps(output, ensure_ascii=False)
    error = text[:2000] if status is not StepStatus.OK else ""
    return replace(begun, status=status, output=output, summary=text[:300], error=error)
