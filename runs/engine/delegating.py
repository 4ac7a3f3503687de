"""`delegate`: another agent works on a part of the task in a run of its own, while this one waits.

Starting one is no effect: whatever the child wants to do goes through its own policies. Several in one turn are all
started before any is waited for. The start is a step that names the child; its end is the call's one result.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from decimal import Decimal, InvalidOperation
from functools import partial
from typing import Protocol

from runs.engine.deciding import Caller
from runs.engine.halting import Park
from runs.engine.ports import Clock, InvalidArguments, Journal
from runs.engine.types import (
    Call,
    Child,
    Effect,
    JsonObject,
    Parked,
    Risk,
    Room,
    RunSpec,
    RunStatus,
    Step,
    StepKind,
    StepStatus,
    ToolPlan,
    ToolResult,
    ToolSpec,
)

NAME = "delegate"
DEEPEST = 3  # levels below the first run
MOST_AT_ONCE = 10
LONGEST_TASK = 100_000
LEAST_BUDGET, MOST_BUDGET = Decimal("0.000001"), Decimal(100_000)


class Children(Protocol):
    """The runs that this run has started."""

    def start(self, intent: str, agent: str, task: str, budget_usd: Decimal | None, kept: Room) -> Child:
        """Idempotent by `intent`. Its limits are its agent's, within `budget_usd` and what this run has left beyond
        `kept`, which no run below this one is given."""
        ...

    def find(self, intent: str) -> Child | None: ...


class Delegate:
    """The tool as the model sees it, and the check of what it wrote. It is carried out by `Delegating`."""

    def __init__(self, agents: Sequence[tuple[str, str]]) -> None:
        """`agents`: (slug, purpose) of those that may be chosen."""
        self._slugs = [slug for slug, _ in agents]
        listed = "\n".join(f"- {slug}: {purpose}" if purpose else f"- {slug}" for slug, purpose in agents)
        self.spec = ToolSpec(
            name=NAME,
            description="Gives a part of the task to another agent, which works on it alone and answers with its "
            "result. It sees nothing of this conversation: put all it needs into the task. Calls in one turn run side "
            f"by side. Agents:\n{listed}",
            input_schema={
                "type": "object",
                "properties": {
                    "agent": {"type": "string", "enum": self._slugs},
                    "task": {"type": "string", "description": "What it should do, complete in itself."},
                    "budget": {"type": "number", "description": "The most it may cost in US dollars."},
                },
                "required": ["agent", "task"],
                "additionalProperties": False,
            },
            effect=Effect.READ,
            version="1",
            risk=Risk.LOW,
        )

    def validate(self, args: JsonObject) -> None:
        errors = [(name, "is not known") for name in args if name not in ("agent", "task", "budget")]
        if args.get("agent") not in self._slugs:
            errors.append(("agent", f"is one of {', '.join(self._slugs)}"))
        task = args.get("task")
        if not isinstance(task, str) or not task.strip():
            errors.append(("task", "says what the other agent should do"))
        elif len(task) > LONGEST_TASK:
            errors.append(("task", f"has at most {LONGEST_TASK:,} characters"))
        if args.get("budget") is not None and budget_of(args) is None:
            errors.append(("budget", "is an amount of US dollars above zero"))
        if errors:
            raise InvalidArguments(errors)

    def plan(self, args: JsonObject) -> ToolPlan | None:
        return None

    def execute(self, args: JsonObject, *, idempotency_key: str, timeout_s: float) -> ToolResult:
        raise NotImplementedError("a delegation is carried out by the engine")

    def reconcile(self, idempotency_key: str) -> str:
        return "unknown"

    def undo(self, idempotency_key: str) -> ToolResult:
        raise NotImplementedError("a delegation can't be undone")


def budget_of(args: JsonObject) -> Decimal | None:
    """None where none was given, or none that can be kept."""
    given = args.get("budget")
    if isinstance(given, bool) or not isinstance(given, int | float):
        return None
    try:
        amount = Decimal(str(given))
    except InvalidOperation:
        return None
    return amount if amount.is_finite() and LEAST_BUDGET <= amount <= MOST_BUDGET else None


def delegate_tool(run: RunSpec) -> Delegate | None:
    """None for an agent without sub-agents, too deep down, or whose sub-agents are all at work above it: an agent that
    could start itself again, however indirectly, would never end."""
    above = {*run.ancestors, run.agent.slug}
    agents = [(slug, purpose) for slug, purpose in run.subagents if slug not in above]
    return Delegate(agents) if agents and len(run.ancestors) < DEEPEST else None


class Delegating:
    """Carries out a turn's delegations on behalf of one run."""

    def __init__(self, run: RunSpec, caller: Caller, journal: Journal, children: Children, clock: Clock) -> None:
        self.run = run
        self.caller = caller
        self.journal = journal
        self.children = children
        self.clock = clock

    def start(self, calls: Sequence[Call], plan_step: int | None, bounded: Callable[[Call], Step | None]) -> None:
        """Starts what was not started. Past a limit nothing more is: `bounded` gives such a call its one result."""
        kept = self.caller.room_to_answer(min(len(calls), MOST_AT_ONCE))
        for call in calls[:MOST_AT_ONCE]:
            if self.journal.recorded(f"tool:{call.intent}") is not None:
                continue
            if self.journal.recorded(_started(call)) is None:
                if bounded(call) is not None:
                    continue
                self.journal.once(_started(call), StepKind.DELEGATE, partial(self._start, call, plan_step, kept))
            self.caller.promised.add(call.intent)

    def results(self, calls: Sequence[Call], plan_step: int | None) -> dict[str, Step]:
        """One step for each call once all children have ended; raises `Park` before."""
        found = {call.intent: self.children.find(call.intent) for call in calls[:MOST_AT_ONCE]}
        waiting = [call for call in calls[:MOST_AT_ONCE] if self.journal.recorded(f"tool:{call.intent}") is None]
        if any((child := found[call.intent]) is not None and not child.ended for call in waiting):
            self.caller.heed()
            raise Park(Parked(why="children"))
        return {call.intent: self._result(call, found.get(call.intent), plan_step) for call in calls}

    def _start(self, call: Call, plan_step: int | None, kept: Room) -> Step:
        agent, task = str(call.args["agent"]), str(call.args["task"])
        child = self.children.start(call.intent, agent, task, budget_of(call.args), kept)
        return Step(
            kind=StepKind.DELEGATE,
            title=f"Delegate to {child.agent}"[:200],
            summary=" ".join(task.split())[:300],
            input=call.args,
            reasoning=call.reasoning,
            confidence=call.confidence,
            plan_step=plan_step,
            child_run=child.id,
            started_at=self.clock.now(),
        )

    def _result(self, call: Call, child: Child | None, plan_step: int | None) -> Step:
        key = f"tool:{call.intent}"
        step = Step(
            kind=StepKind.TOOL,
            title=NAME,
            tool=NAME,
            tool_call_id=call.tool_call_id,
            input=call.args,
            reasoning=call.reasoning,
            confidence=call.confidence,
            plan_step=plan_step,
            started_at=self.clock.now(),
        )
        recorded = self.journal.recorded(key) or self.journal.once(key, StepKind.TOOL, lambda: _ended(step, child))
        self.caller.promised.discard(call.intent)
        return recorded


def _ended(step: Step, child: Child | None) -> Step:
    if child is None:
        said = f"Not done: at most {MOST_AT_ONCE} delegations in one turn."
        return replace(step, status=StepStatus.DENIED, output=said, summary=said)
    good = child.status in (RunStatus.COMPLETED, RunStatus.DRY_RUN_READY)
    output: JsonObject = {"agent": child.agent, "status": child.status.value, "answer": child.result}
    if not good:
        output["why"] = child.stop_detail
    words = " ".join((child.result if good else child.stop_detail).split())
    return replace(
        step,
        title=f"{child.agent} {'answers' if good else 'gives up'}"[:200],
        status=StepStatus.OK if good else StepStatus.ERROR,
        output=output,
        summary=words[:300],
        error="" if good else words[:2000],
        child_run=child.id,
    )


def _started(call: Call) -> str:
    return f"delegate:{call.intent}"
