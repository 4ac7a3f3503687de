"""In-memory twins of every port, so that the real loop runs in tests without a database, a broker or a network."""

from __future__ import annotations

import datetime as dt
import json
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from decimal import Decimal
from itertools import count
from typing import Any

from runs.engine import breakers
from runs.engine.breakers import Breaker, Unavailable
from runs.engine.calls import usable_number
from runs.engine.ports import (
    BudgetExceeded,
    Interrupted,
    InvalidArguments,
    JournalMismatch,
    LeaseLost,
    NotReleased,
    ToolUnavailable,
)
from runs.engine.types import (
    WORK_KINDS,
    Action,
    ActionStatus,
    Call,
    Child,
    DecisionNote,
    Effect,
    Evidence,
    Execution,
    JsonObject,
    ModelReply,
    ModelRequest,
    Price,
    Question,
    Risk,
    Room,
    Route,
    RunStatus,
    Spent,
    Step,
    ToolGrant,
    ToolPlan,
    ToolResult,
    ToolSpec,
    Usage,
)


class Crash(BaseException):
    """Stands for SIGKILL: nothing catches it."""


class FakeClock:
    def __init__(self) -> None:
        self.time = dt.datetime(2026, 3, 12, 14, 21, tzinfo=dt.UTC)

    def now(self) -> dt.datetime:
        self.time += dt.timedelta(milliseconds=1)
        return self.time

    def monotonic(self) -> float:
        return self.time.timestamp()

    def pass_seconds(self, seconds: float) -> None:
        self.time += dt.timedelta(seconds=seconds)


class FakeJournal:
    """`crash_before` names the nth recording before whose commit the process "dies"."""

    def __init__(self, verdicts: FakeVerdicts | None = None) -> None:
        self.steps: dict[str, Step] = {}
        self.verdicts = verdicts
        self.crash_before: int | None = None
        self.shown: list[str] = []
        self.plan: JsonObject | None = None
        self.raised: JsonObject = {}

    def once(self, key: str, kind: str, produce: Callable[[], Step]) -> Step:
        if (known := self.recorded(key)) is not None:
            if known.kind != kind:
                raise JournalMismatch(f"{key} was recorded as {known.kind}, not {kind}")
            return known
        step = produce()
        if self.crash_before is not None and len(self.steps) + 1 >= self.crash_before:
            raise Crash
        step = replace(step, key=key, seq=len(self.steps) + 1)
        self.steps[key] = step
        if step.plan is not None:
            self.plan = step.plan
        self.raised |= step.raised or {}
        if step.outcome and self.verdicts:
            self.verdicts.settle(step.outcome.action_id, step.outcome.status, step.outcome.result)
        return step

    def recorded(self, key: str) -> Step | None:
        return self.steps.get(key)

    def spent(self) -> Spent:
        steps = list(self.steps.values())
        return Spent(
            steps=sum(step.kind in WORK_KINDS for step in steps),
            input_tokens=sum(step.usage.prompt_tokens for step in steps),
            output_tokens=sum(step.usage.output_tokens for step in steps),
            cost_usd=sum((step.price.usd or Decimal(0) for step in steps), Decimal(0)),
            lost_usd=sum((step.price.lost_usd for step in steps), Decimal(0)),
        )

    def in_flight(self, step: Step) -> None:
        self.shown.append(step.key)

    def text(self, fragment: str) -> None:
        self.shown.append(fragment)


class FakeLlm:
    """Answers from a script: replies, exceptions to raise, or functions of the request."""

    def __init__(self, script: Iterable[ModelReply | Exception | Callable[[ModelRequest], ModelReply]] = ()) -> None:
        self.script = deque(script)
        self.requests: list[ModelRequest] = []

    def complete(
        self, request: ModelRequest, *, on_text: Callable[[str], None], interrupted: Callable[[], bool]
    ) -> ModelReply:
        self.requests.append(request)
        if not self.script:
            raise AssertionError("the script has no more replies")
        item = self.script.popleft()
        if isinstance(item, Exception):
            raise item
        reply = item if isinstance(item, ModelReply) else item(request)
        if interrupted():
            raise Interrupted("the model call was interrupted")
        on_text(reply.text)
        return reply

    def count_tokens(self, request: ModelRequest) -> int | None:
        return None


def says(text: str, *, stop_reason: str = "end_turn", usage: Usage | None = None) -> ModelReply:
    block = {"type": "text", "text": text}
    return ModelReply(
        content=(block,), stop_reason=stop_reason, usage=usage or Usage(input_tokens=10, output_tokens=5), model="fake"
    )


_ids = count(1)


def calls(*named: tuple[str, JsonObject], text: str = "", stop_reason: str = "tool_use") -> ModelReply:
    """A turn with tool calls; reasoning and confidence .95 are added where they are not given."""
    blocks: list[JsonObject] = [{"type": "text", "text": text}] if text else []
    for name, args in named:
        full = {"reasoning": "because", "confidence": 0.95, **args}
        blocks.append({"type": "tool_use", "id": f"toolu_{next(_ids)}", "name": name, "input": full})
    return ModelReply(
        content=tuple(blocks), stop_reason=stop_reason, usage=Usage(input_tokens=10, output_tokens=5), model="fake"
    )


class FakeTool:
    """A tool whose schema names its required arguments with their JSON type; `effects` lists what it really did."""

    def __init__(
        self, name: str, effect: Effect = Effect.READ, *, args: dict[str, str] | None = None, **spec: Any
    ) -> None:
        arguments = args if args is not None else {"id": "string"}
        schema = {
            "type": "object",
            "properties": {key: {"type": kind} for key, kind in arguments.items()},
            "required": list(arguments),
        }
        self._spec = ToolSpec(
            name=name,
            description=name,
            input_schema=schema,
            effect=effect,
            version="1",
            **{"risk": Risk.LOW if effect is Effect.READ else Risk.HIGH, **spec},
        )
        self.effects: list[tuple[str, JsonObject]] = []
        self.answers: deque[ToolResult | BaseException] = deque()
        self.preconditions: JsonObject = {"version": 1}
        self.outcome = "unknown"

    @property
    def spec(self) -> ToolSpec:
        return self._spec

    def validate(self, args: JsonObject) -> None:
        errors = [(key, "is required") for key in self.spec.input_schema["required"] if key not in args]
        errors += [(key, "is not known") for key in args if key not in self.spec.input_schema["properties"]]
        for key, kind in self.spec.input_schema["properties"].items():
            if key in args and kind["type"] == "number" and usable_number(args[key]) is None:
                errors.append((key, "is not a number"))
        if errors:
            raise InvalidArguments(errors)

    def plan(self, args: JsonObject) -> ToolPlan | None:
        return ToolPlan(summary=f"{self.spec.name} would act", preview={}, preconditions=dict(self.preconditions))

    def execute(self, args: JsonObject, *, idempotency_key: str, timeout_s: float) -> ToolResult:
        """Acts, then gives the next of `answers`. A tool that is unavailable never acts; one that recognises a repeat
        acts once for each key."""
        answer = self.answers.popleft() if self.answers else ToolResult(content={"ok": True})
        if not isinstance(answer, ToolUnavailable):
            self._act(idempotency_key, args)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def _act(self, key: str, args: JsonObject) -> None:
        repeated = self.spec.idempotent and any(key == known for known, _ in self.effects)
        if self.spec.effect is not Effect.READ and not repeated:
            self.effects.append((key, args))

    def reconcile(self, idempotency_key: str) -> str:
        return self.outcome

    def undo(self, idempotency_key: str) -> ToolResult:
        if not self.spec.can_undo:
            raise ToolUnavailable(f"{self.spec.name} cannot be undone")
        self.effects = [(key, args) for key, args in self.effects if key != idempotency_key]
        return ToolResult(content={"undone": idempotency_key})


class FakeBreakers:
    """Keeps the values of `breakers.py` in memory; `entered` lists the calls that were let through."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.known: dict[str, Breaker] = {}
        self.entered: list[str] = []

    def peek(self, name: str) -> Unavailable | None:
        return breakers.refusal(self.known.get(name, Breaker()), self.clock.time)

    def enter(self, name: str) -> Unavailable | None:
        if (refusal := self.peek(name)) is not None:
            return refusal
        self.entered.append(name)
        self.known[name] = breakers.entered(self.known.get(name, Breaker()), self.clock.time)
        return None

    def worked(self, name: str) -> None:
        self.known[name] = breakers.worked(self.known.get(name, Breaker()))

    def failed(self, name: str, reason: str, retry_after_s: float | None = None) -> None:
        known = self.known.get(name, Breaker())
        self.known[name] = breakers.failed(known, self.clock.time, reason, retry_after_s)


class FakeBudget:
    """Dollars per token: 0.001 in and out; `usd` bounds what may be reserved at once."""

    def __init__(self, usd: Decimal | None = None) -> None:
        self.usd = usd

    def reserve(self, *, usd: Decimal, input_tokens: int, output_tokens: int) -> None:
        if self.usd is not None and usd > self.usd:
            raise BudgetExceeded("max_cost", "the budget is used up")

    def price(self, model: str, usage: Usage) -> Price:
        return Price(usd=Decimal(usage.prompt_tokens + usage.output_tokens) / 1000, price_id="fake")

    def worst_price(self, model: str, input_tokens: int, output_tokens: int) -> Decimal | None:
        return Decimal(input_tokens + output_tokens) / 1000


class FakeVerdicts:
    """Holds the actions; `decide` is the person."""

    def __init__(self) -> None:
        self.actions: dict[str, Action] = {}
        self.preconditions: dict[str, JsonObject | None] = {}
        self.batches: dict[str, list[str]] = {}
        self.whys: dict[str, str] = {}
        self.claims: list[str] = []
        self.questions: dict[str, Question] = {}
        self.known = Evidence()
        self.allowed: dict[str, int] = {}
        self.used: set[str] = set()
        self.mode = Execution.INDEPENDENT
        self.picked: dict[str, list[str]] = {}

    def evidence(self, grant: ToolGrant) -> Evidence:
        return self.known

    def standing(self, call: Call, tool: ToolSpec, chosen: Route) -> Route:
        """`allowed` counts the uses left by tool; a call that has one keeps it."""
        if call.intent not in self.used:
            if not self.allowed.get(call.tool):
                return chosen
            self.allowed[call.tool] -= 1
            self.used.add(call.intent)
        return replace(chosen, outcome="release", standing="dana")

    def give_back(self, call: Call) -> None:
        if call.intent in self.used:
            self.used.discard(call.intent)
            self.allowed[call.tool] += 1

    def find(self, intent: str) -> Action | None:
        action = self.actions.get(intent)
        return replace(action, fresh=False) if action else None

    def propose(
        self, call: Call, tool: ToolSpec, plan: ToolPlan | None, route: Route, *, position: int, held: bool
    ) -> Action:
        if (known := self.find(call.intent)) is not None:
            return known
        action = Action(
            id=f"action-{call.intent}",
            intent=call.intent,
            tool_call_id=call.tool_call_id,
            tool=call.tool,
            args=call.args,
            digest=_digest(call.args),
            status=ActionStatus.PENDING if route.outcome == "ask" else ActionStatus.APPROVED,
            title=f"Run {call.tool}",
            reasoning=call.reasoning,
            confidence=call.confidence,
            plan_summary=plan.summary if plan else "",
            held=held and route.outcome == "release",
        )
        self.preconditions[call.intent] = plan.preconditions if plan else None
        self.actions[call.intent] = action
        return action

    def queued(self) -> Sequence[Action]:
        return [
            a
            for a in self.actions.values()
            if not a.asked and (a.status is ActionStatus.PENDING or (a.held and a.status is ActionStatus.APPROVED))
        ]

    def asked(self, key: str) -> Sequence[Action] | None:
        intents = self.batches.get(key)
        return None if intents is None else [self.actions[intent] for intent in intents]

    def ask(self, key: str, actions: Sequence[Action], why: str) -> None:
        self.batches.setdefault(key, [action.intent for action in actions])
        self.whys.setdefault(key, why)
        for action in actions:
            self._change(action.intent, asked=True)

    def ask_question(self, question: Question) -> None:
        if question.key in self.batches:
            return
        intent = f"question:{question.key}"
        self.questions[question.key] = question
        self.actions[intent] = Action(
            id=f"action-{intent}",
            intent=intent,
            tool_call_id="",
            tool=question.tool,
            args={"question": question.text},
            digest="",
            status=ActionStatus.PENDING,
            kind="question",
            title=question.title,
            asked=True,
        )
        self.batches[question.key] = [intent]

    def answer(self, key: str, text: str = "", args: JsonObject | None = None, *, by: str = "Dana Okafor") -> None:
        """The person answers the question of that key."""
        said = DecisionNote(by=by, verdict="answer", note=text)
        given = None if args is None else {"args": args}
        self._change(f"question:{key}", status=ActionStatus.ANSWERED, note=text, result=given, decisions=(said,))

    def claim(self, action: Action, preconditions: JsonObject | None) -> Action:
        current = self.actions[action.intent]
        if current.status is not ActionStatus.APPROVED:
            raise NotReleased(current.status, current.note or "it is no longer approved")
        if _digest(current.args) != current.digest:
            raise self._retire(action.intent, ActionStatus.REVOKED, "the action differs from what was approved")
        if preconditions is not None and preconditions != self.preconditions[action.intent]:
            raise self._retire(action.intent, ActionStatus.STALE, "what it was planned on has changed")
        self.claims.append(action.intent)
        return replace(self._change(action.intent, status=ActionStatus.EXECUTING), fresh=True)

    def execution(self, key: str) -> Execution:
        return self.mode

    def chosen(self) -> Sequence[tuple[str, Sequence[Action]]]:
        return [(key, [self.actions[intent] for intent in intents]) for key, intents in self.picked.items()]

    def proposals_left(self) -> bool:
        taken = {intent for intents in self.picked.values() for intent in intents}
        return any(
            action.status in (ActionStatus.PENDING, ActionStatus.APPROVED)
            for intent, action in self.actions.items()
            if intent not in taken
        )

    def withdraw(self, action: Action, reason: str) -> None:
        if self.actions[action.intent].status in (ActionStatus.PENDING, ActionStatus.APPROVED):
            self._change(action.intent, status=ActionStatus.CANCELLED, note=reason)

    def take_back(self, action: Action, note: str, undone: bool) -> None:
        if self.actions[action.intent].status is ActionStatus.SUCCEEDED:
            status = ActionStatus.CANCELLED if undone else ActionStatus.SUCCEEDED
            self._change(action.intent, status=status, note=note)

    def ask_whether_it_happened(self, action: Action, why: str) -> None:
        self._change(action.intent, status=ActionStatus.UNKNOWN, asked=True)
        self.batches.setdefault(f"unknown:{action.intent}", [action.intent])

    def decide(self, verdict: ActionStatus, *intents: str, note: str = "", by: str = "Dana Okafor") -> None:
        """Says `verdict` to the named actions, or to all that wait."""
        for intent, action in list(self.actions.items()):
            waits = action.status in (ActionStatus.PENDING, ActionStatus.UNKNOWN) and action.asked
            if waits and (not intents or intent in intents):
                said = DecisionNote(by=by, verdict=verdict.value, note=note)
                self._change(intent, status=verdict, note=note, decisions=(*action.decisions, said))

    def edit(self, intent: str, args: JsonObject, *, by: str = "Dana Okafor") -> None:
        """Approves other arguments: a new action that supersedes the old one."""
        old = self.actions[intent]
        said = DecisionNote(by=by, verdict=ActionStatus.APPROVED.value)
        self._change(intent, id=f"{old.id}-edited", args=args, digest=_digest(args), edited=True)
        self._change(intent, status=ActionStatus.APPROVED, decisions=(*old.decisions, said))

    def settle(self, action_id: str, status: ActionStatus, result: Any) -> None:
        for intent, action in self.actions.items():
            if action.id == action_id:
                if action.status is not ActionStatus.EXECUTING:
                    raise LeaseLost(f"{action_id} was not executing")
                self._change(intent, status=status, result=result)
                return

    def _retire(self, intent: str, status: ActionStatus, reason: str) -> NotReleased:
        self._change(intent, status=status, note=reason)
        return NotReleased(status, reason)

    def _change(self, intent: str, **changes: Any) -> Action:
        self.actions[intent] = replace(self.actions[intent], **changes)
        return self.actions[intent]


def _digest(args: JsonObject) -> str:
    return json.dumps(args, sort_keys=True)


class FakeChildren:
    """Children that end when told to: `end` gives an answer to one that was started."""

    def __init__(self) -> None:
        self.started: dict[str, Child] = {}
        self.asked: list[tuple[str, str, Decimal | None]] = []
        self.kept: list[Room] = []

    def start(self, intent: str, agent: str, task: str, budget_usd: Decimal | None, kept: Room) -> Child:
        self.kept.append(kept)
        if intent not in self.started:
            self.asked.append((agent, task, budget_usd))
            self.started[intent] = Child(id=f"child-{intent}", agent=agent.title(), status=RunStatus.QUEUED)
        return self.started[intent]

    def find(self, intent: str) -> Child | None:
        return self.started.get(intent)

    def end(self, intent: str, status: RunStatus = RunStatus.COMPLETED, result: str = "Done.", why: str = "") -> None:
        self.started[intent] = replace(self.started[intent], status=status, result=result, stop_detail=why)


class FakeControls:
    def __init__(self) -> None:
        self.wish: str | None = None
        self.said: list[tuple[str, str, str]] = []

    def interrupted(self) -> bool:
        return self.wish is not None

    def check(self) -> str | None:
        return self.wish

    def messages(self) -> Sequence[tuple[str, str, str]]:
        return list(self.said)
