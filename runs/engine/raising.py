"""At a limit: a warning before it, and where the agent allows it a question to people instead of the end.

"Raise by ..." is an action like any other: proposed, asked for, decided, claimed, recorded. What it changes is the
run's own limit, in the very transaction of the step that says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from decimal import ROUND_UP, Decimal, InvalidOperation
from typing import Any

from runs.engine.acting import Hands
from runs.engine.deciding import STOPPED
from runs.engine.halting import Stop
from runs.engine.ports import NotReleased
from runs.engine.types import (
    Action,
    ActionOutcome,
    ActionStatus,
    Call,
    Effect,
    Limits,
    Risk,
    Route,
    RunSpec,
    Spent,
    Step,
    StepKind,
    StepStatus,
    ToolPlan,
    ToolSpec,
)

WARN_FROM = Decimal("0.8")
LABELS = {
    "max_steps": "step limit",
    "max_input_tokens": "limit of input tokens",
    "max_output_tokens": "limit of output tokens",
    "max_cost_usd": "cost limit",
    "max_seconds": "time limit",
}
UNITS = {
    "max_steps": "{} steps",
    "max_input_tokens": "{} input tokens",
    "max_output_tokens": "{} output tokens",
    "max_cost_usd": "${}",
    "max_seconds": "{} seconds",
}
TOOL = ToolSpec(
    name="agentsite.raise_limit",
    description="Raises one limit of this run.",
    input_schema={
        "type": "object",
        "properties": {
            "limit": {"type": "string", "enum": list(LABELS)},
            "by": {"type": "string", "pattern": r"^(?=.*[1-9])[0-9]{1,9}(\.[0-9]{1,9})?$"},
        },
        "required": ["limit", "by"],
        "additionalProperties": False,
    },
    effect=Effect.WRITE,
    version="1",
    risk=Risk.MEDIUM,
    idempotent=True,
    can_plan=True,
)
ROUTE = Route(
    outcome="ask", reason="the run has reached a limit, and this agent may ask for more", risk=Risk.MEDIUM, needed=1
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Used:
    """How far a limit is used up."""

    limit: str
    share: Decimal
    of: Decimal

    @property
    def words(self) -> str:
        return f"{int(self.share * 100)}% of the {LABELS[self.limit]} ({amount(self.limit, self.of)}) is used"


def nearly_used(limits: Limits, spent: Spent, elapsed_s: float) -> Iterator[Used]:
    """Every limit of which at least 80% is used."""
    have = {
        "max_steps": spent.steps,
        "max_input_tokens": spent.input_tokens,
        "max_output_tokens": spent.output_tokens,
        "max_cost_usd": spent.bound_usd,
        "max_seconds": elapsed_s,
    }
    for name, used in have.items():
        limit = getattr(limits, name)
        if limit and (share := Decimal(str(used)) / Decimal(str(limit))) >= WARN_FROM:
            yield Used(limit=name, share=min(share, Decimal(1)), of=Decimal(str(limit)))


def amount(limit: str, value: Decimal) -> str:
    """A limit's value in words: $1.50, 600,000 input tokens."""
    text = f"{value:,.2f}" if limit == "max_cost_usd" and value == value.quantize(Decimal("0.01")) else f"{value:,f}"
    return UNITS[limit].format(text)


def step_up(limit: str, value: Decimal) -> Decimal:
    """What is offered: half as much again."""
    unit = Decimal("0.01") if limit == "max_cost_usd" and value >= Decimal("0.02") else Decimal("0.000000001")
    return (value / 2).quantize(unit if limit == "max_cost_usd" else Decimal(1), ROUND_UP)


def raised(limits: Limits, args: dict[str, Any]) -> dict[str, Any]:
    """The field of `Limits` with its new value. Raises ValueError for arguments that name none."""
    name = str(args.get("limit"))
    before = getattr(limits, name, None) if name in LABELS else None
    try:
        by = Decimal(str(args.get("by")))
    except InvalidOperation as error:
        raise ValueError("there is no amount to raise the limit by") from error
    if before is None or not by.is_finite() or by <= 0:
        raise ValueError("there is no such limit to raise")
    after = Decimal(str(before)) + by
    return {name: after if name == "max_cost_usd" else int(after)}


class Raising:
    """Asks people for more room, once for each time a limit is reached."""

    def __init__(self, run: RunSpec, hands: Hands) -> None:
        self.run = run
        self.hands = hands
        self.journal = hands.journal
        self.verdicts = hands.verdicts

    def limits_after(self, stop: Stop) -> Limits | None:
        """The limits to go on with; None when the run has to end. Raises `Park` while people have not decided."""
        value = getattr(self.run.limits, stop.limit) if stop.limit else None
        if not self.run.agent.raise_limits or not value or self.journal.recorded(STOPPED) is not None:
            return None
        number = 1
        while (earlier := self.journal.recorded(f"raise:{number}")) is not None:
            if earlier.status is not StepStatus.OK:
                return None
            number += 1
        key = f"raise:{number}"
        step = self._settle(key, self._ask(key, stop, Decimal(str(value))))
        return replace(self.run.limits, **step.raised) if step.raised else None

    def _ask(self, key: str, stop: Stop, value: Decimal) -> Action:
        by = step_up(stop.limit, value)
        call = Call(
            intent=key,
            tool_call_id=key,
            tool=TOOL.name,
            args={"limit": stop.limit, "by": f"{by:f}"},
            reasoning=f"{stop.detail[:1].upper()}{stop.detail[1:]}. Without more room the run sums up what it has.",
        )
        plan = ToolPlan(
            summary=f"raise the {LABELS[stop.limit]} by {amount(stop.limit, by)}",
            preview={"type": "limit", "now": f"{value:f}"},
        )
        action = self.verdicts.propose(call, TOOL, plan, ROUTE, position=0, held=False)
        if self.verdicts.asked(key) is None:
            self.verdicts.ask(key, [action], call.reasoning)
        self.hands.asking.await_verdicts(key)
        return self.verdicts.find(key) or action

    def _settle(self, key: str, action: Action) -> Step:
        if action.status is ActionStatus.APPROVED:
            self.hands.caller.heed()
            try:
                action = self.verdicts.claim(action, None)
            except NotReleased as refused:
                return self._record(key, StepStatus.DENIED, "The limit was not raised", refused.reason)
        if action.status is not ActionStatus.EXECUTING:
            note = f": {action.note}" if action.note else ""
            return self._record(key, StepStatus.DENIED, "The limit was not raised", f"{action.status.value}{note}")
        try:
            new = raised(self.run.limits, action.args)
        except ValueError as error:
            return self._record(key, StepStatus.ERROR, "The limit was not raised", str(error), action)
        ((name, value),) = new.items()
        who = ", ".join(dict.fromkeys(decision.by for decision in action.decisions))
        words = f"to {amount(name, Decimal(str(value)))}" + (f", by {who}" if who else "")
        return self._record(key, StepStatus.OK, f"Raised the {LABELS[name]}", words, action, new)

    def _record(
        self,
        key: str,
        status: StepStatus,
        title: str,
        words: str,
        action: Action | None = None,
        new: dict[str, Any] | None = None,
    ) -> Step:
        outcome = None
        if action is not None:
            ended = ActionStatus.SUCCEEDED if new else ActionStatus.FAILED
            outcome = ActionOutcome(action_id=action.id, status=ended, result=words)
        step = Step(
            kind=StepKind.GUARDRAIL,
            title=title,
            status=status,
            summary=words[:300],
            output=words,
            started_at=self.hands.clock.now(),
            outcome=outcome,
            raised=new,
        )
        return self.journal.once(key, StepKind.GUARDRAIL, lambda: step)
