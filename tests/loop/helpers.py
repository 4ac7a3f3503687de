"""Set-up for the engine's tests: a world that outlives its workers, and a model that answers by the turn.

Everything a crash leaves behind (journal, actions, effects) is in `World`; `advance` is a fresh worker each time.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from itertools import pairwise
from typing import Any

from runs.engine import loop
from runs.engine.breakers import NeverOpen
from runs.engine.fakes import (
    Crash,
    FakeBudget,
    FakeChildren,
    FakeClock,
    FakeControls,
    FakeJournal,
    FakeTool,
    FakeVerdicts,
    says,
)
from runs.engine.ports import Breakers, Interrupted
from runs.engine.types import (
    Action,
    ActionStatus,
    AgentSpec,
    Call,
    Effect,
    Finished,
    JsonObject,
    Limits,
    Mode,
    ModelReply,
    ModelRequest,
    Outcome,
    Parked,
    Policy,
    Route,
    RunSpec,
    Step,
    StepKind,
    ToolGrant,
    ToolPlan,
    ToolResult,
    ToolSpec,
)

UNLIMITED = Limits(max_steps=None, max_input_tokens=None, max_output_tokens=None, max_cost_usd=None, max_seconds=None)
APPROVE, REJECT = ActionStatus.APPROVED, ActionStatus.REJECTED
HAPPENED, DID_NOT_HAPPEN = ActionStatus.SUCCEEDED, ActionStatus.FAILED
WAITS = Parked(why="approval")

Answer = ModelReply | Callable[[ModelRequest], ModelReply]


# --- tools -----------------------------------------------------------------------------------------------------------
# Every world has these six. Keyed tools recognise a repeat by its idempotency key, unkeyed ones do not.
POLICIES: dict[str, Policy] = {
    "shop.look": Policy.AUTO,
    "shop.note": Policy.AUTO,
    "shop.mail": Policy.AUTO,
    "shop.refund": Policy.REVIEW,
    "shop.wipe": Policy.REVIEW,
    "shop.ban": Policy.FORBIDDEN,
}


def shop() -> dict[str, Workshop]:
    tools = (
        Workshop("shop.look"),
        Workshop("shop.note", Effect.WRITE, idempotent=True),
        Workshop("shop.mail", Effect.WRITE),
        Workshop("shop.refund", Effect.WRITE, idempotent=True, can_plan=True),
        Workshop("shop.wipe", Effect.IRREVERSIBLE),
        Workshop("shop.ban", Effect.WRITE),
    )
    return {tool.spec.name: tool for tool in tools}


class Workshop(FakeTool):
    """A fake tool that also counts how often it was called, under which key, and that can refuse to plan.

    `lost` exceptions are raised instead of acting; `watch` is called with the key just before each execution.
    """

    def __init__(self, name: str, effect: Effect = Effect.READ, **spec: Any) -> None:
        super().__init__(name, effect, **spec)
        self.keys: list[str] = []
        self.planned = 0
        self.lost: deque[BaseException] = deque()
        self.refuses_to_plan: Exception | None = None
        self.timeouts: list[float] = []
        self.watch: Callable[[str], None] = lambda key: None

    def plan(self, args: JsonObject) -> ToolPlan | None:
        self.planned += 1
        if self.refuses_to_plan is not None:
            raise self.refuses_to_plan
        return super().plan(args)

    def execute(self, args: JsonObject, *, idempotency_key: str, timeout_s: float) -> ToolResult:
        self.keys.append(idempotency_key)
        self.timeouts.append(timeout_s)
        self.watch(idempotency_key)
        if self.lost:
            raise self.lost.popleft()
        return super().execute(args, idempotency_key=idempotency_key, timeout_s=timeout_s)


def use(name: str, **args: Any) -> tuple[str, JsonObject]:
    """A call of a shop tool as the model writes it."""
    return f"shop__{name}", {"id": "1", **args}


def then(act: Callable[[], object], reply: ModelReply) -> Answer:
    """A turn during which something happens."""

    def answer(request: ModelRequest) -> ModelReply:
        act()
        return reply

    return answer


# --- the model -------------------------------------------------------------------------------------------------------
class TurnLlm:
    """Answers by how many turns the model has had, so that a call repeated after a crash gets the same reply.

    `errors` are raised first, each once.
    """

    def __init__(self, turns: Sequence[Answer]) -> None:
        self.turns = turns
        self.plan: Answer = says("no plan")
        self.revision: Answer = says("no revision")
        self.judge: Answer = says("no verdict")
        self.wrap_up: Answer = says("wrapped up")
        self.repair: Answer = says("no repair")
        self.errors: deque[Exception] = deque()
        self.counts: Callable[[ModelRequest], int | None] = lambda request: None
        self.requests: list[ModelRequest] = []
        self.sent: list[list[JsonObject]] = []

    def complete(
        self, request: ModelRequest, *, on_text: Callable[[str], None], interrupted: Callable[[], bool]
    ) -> ModelReply:
        self.requests.append(request)
        self.sent.append(json.loads(json.dumps(request.messages)))
        if self.errors:
            raise self.errors.popleft()
        answer = self._answer(request)
        reply = answer if isinstance(answer, ModelReply) else answer(request)
        if interrupted():
            raise Interrupted("interrupted")
        on_text(reply.text)
        return reply

    def count_tokens(self, request: ModelRequest) -> int | None:
        return self.counts(request)

    def _answer(self, request: ModelRequest) -> Answer:
        asides = {"Plan": self.plan, "PlanRevision": self.revision, "Evaluation": self.judge}
        if _is_aside(request):
            return asides[_title(request)]
        if request.tool_choice and "disable_parallel_tool_use" in request.tool_choice:
            return self.repair
        if "Say now in words" in json.dumps(request.messages[-1]) and request.tool_choice:
            return self.repair
        if "Wrap up now" in json.dumps(request.messages[-1]):
            return self.wrap_up
        return self.turns[[message["role"] for message in request.messages].count("assistant")]

    def conversations(self) -> list[list[JsonObject]]:
        """The messages of each call that belongs to the run's own conversation."""
        return [
            sent
            for request, sent in zip(self.requests, self.sent, strict=True)
            if not _is_aside(request) and "disable_parallel_tool_use" not in (request.tool_choice or {})
        ]


def _is_aside(request: ModelRequest) -> bool:
    """Whether it is about the work, and not a part of it."""
    return _title(request) in ("Plan", "PlanRevision", "Evaluation")


def _title(request: ModelRequest) -> str:
    return str((request.output_schema or {}).get("title"))


# --- crashing --------------------------------------------------------------------------------------------------------
class Fuse:
    """Kills the worker when it has burnt down; after that it is spent until it is set again."""

    def __init__(self) -> None:
        self.left: int | None = None

    def burn(self) -> None:
        if self.left is None:
            return
        self.left -= 1
        if self.left <= 0:
            self.left = None
            raise Crash


class FusedJournal(FakeJournal):
    """May die between what a step did and its record, and right after the record."""

    def __init__(self, verdicts: FakeVerdicts, fuse: Fuse) -> None:
        super().__init__(verdicts)
        self.fuse = fuse

    def once(self, key: str, kind: str, produce: Callable[[], Step]) -> Step:
        if self.recorded(key) is not None:
            return super().once(key, kind, produce)
        step = super().once(key, kind, lambda: self._produced(produce))
        self.fuse.burn()
        return step

    def _produced(self, produce: Callable[[], Step]) -> Step:
        step = produce()
        self.fuse.burn()
        return step


class FusedVerdicts(FakeVerdicts):
    """May die right after each of its commits; `claimed` lists the ids of all actions ever claimed."""

    def __init__(self, fuse: Fuse) -> None:
        super().__init__()
        self.fuse = fuse
        self.claimed: list[str] = []
        self.refusals: dict[str, Exception] = {}

    def propose(
        self, call: Call, tool: ToolSpec, plan: ToolPlan | None, route: Route, *, position: int, held: bool
    ) -> Action:
        action = super().propose(call, tool, plan, route, position=position, held=held)
        self.fuse.burn()
        return action

    def ask(self, key: str, actions: Sequence[Action], why: str) -> None:
        super().ask(key, actions, why)
        self.fuse.burn()

    def claim(self, action: Action, preconditions: JsonObject | None) -> Action:
        if action.intent in self.refusals:
            raise self.refusals[action.intent]
        claimed = super().claim(action, preconditions)
        self.claimed.append(action.id)
        self.fuse.burn()
        return claimed

    def ask_whether_it_happened(self, action: Action, why: str) -> None:
        super().ask_whether_it_happened(action, why)
        self.fuse.burn()

    def tamper(self, intent: str, args: JsonObject) -> None:
        """Somebody changed the row behind everybody's back."""
        self._change(intent, args=args)

    def waiting(self) -> list[Action]:
        return [a for a in self.actions.values() if a.status in (ActionStatus.PENDING, ActionStatus.UNKNOWN)]


# --- the world -------------------------------------------------------------------------------------------------------
@dataclass
class World:
    run: RunSpec
    llm: TurnLlm
    fuse: Fuse
    verdicts: FusedVerdicts
    journal: FusedJournal
    clock: FakeClock
    tools: dict[str, Workshop] = field(default_factory=shop)
    budget: FakeBudget = field(default_factory=FakeBudget)
    controls: FakeControls = field(default_factory=FakeControls)
    children: FakeChildren = field(default_factory=FakeChildren)
    breakers: Breakers = field(default_factory=NeverOpen)
    misfit: Callable[[str], str] = lambda text: ""

    def advance(self) -> Outcome:
        ports = loop.Ports(
            journal=self.journal,
            llm=self.llm,
            budget=self.budget,
            verdicts=self.verdicts,
            controls=self.controls,
            clock=self.clock,
            tools=self.tools,
            children=self.children,
            breakers=self.breakers,
            misfit=self.misfit,
        )
        # As the store does it: a run that is taken up again has the limits it was given since.
        return loop.advance(replace(self.run, limits=replace(self.run.limits, **self.journal.raised)), ports)

    def ended(self) -> Finished:
        outcome = self.advance()
        assert isinstance(outcome, Finished), outcome
        return outcome

    def parked(self) -> Parked:
        outcome = self.advance()
        assert isinstance(outcome, Parked), outcome
        return outcome

    def to_the_end(self, verdict: ActionStatus = APPROVE, *, unknown: ActionStatus = HAPPENED) -> Finished:
        """Works through crashes, retries and waits; pending actions get `verdict`, unknown ones `unknown`."""
        for _ in range(200):
            try:
                outcome = self.advance()
            except Crash:
                continue
            if isinstance(outcome, Finished):
                return outcome
            assert outcome.why != "paused"
            self.settle_waiting(verdict, unknown)
        raise AssertionError("the run does not end")

    def settle_waiting(self, verdict: ActionStatus, unknown: ActionStatus) -> None:
        for action in self.verdicts.waiting():
            self.verdicts.decide(unknown if action.status is ActionStatus.UNKNOWN else verdict, action.intent)

    def tool(self, name: str) -> Workshop:
        return self.tools[f"shop.{name}"]

    def effects(self) -> list[str]:
        """`name(id)` of what really happened, by tool."""
        return [f"{name}({args['id']})" for name, tool in self.tools.items() for _, args in tool.effects]

    def steps(self) -> list[Step]:
        return list(self.journal.steps.values())

    def keys(self, prefix: str = "") -> list[str]:
        return [key for key in self.journal.steps if key.startswith(prefix)]

    def step(self, key: str) -> Step:
        return self.journal.steps[key]

    def status(self, intent: str) -> ActionStatus:
        return self.verdicts.actions[intent].status

    def results(self, turn: int = 1) -> list[JsonObject]:
        """The results of a turn's calls, as the model got them with its next call."""
        answers = [message for message in self.llm.conversations()[-1] if message["role"] == "user"][turn]
        return [{"is_error": False, **block} for block in answers["content"] if block["type"] == "tool_result"]

    def contents(self, turn: int = 1) -> list[str]:
        return [block["content"] for block in self.results(turn)]

    def told(self) -> str:
        """All text the model was sent last."""
        return json.dumps(self.llm.conversations()[-1], ensure_ascii=False)


def world(
    *turns: Answer,
    mode: Mode = Mode.INTERACTIVE,
    limits: Limits = UNLIMITED,
    policies: Mapping[str, Policy] = POLICIES,
    **agent: Any,
) -> World:
    """A run whose model gives `turns`, one after the other. `agent` are fields of `AgentSpec`."""
    grants = tuple(ToolGrant(name=name, policy=policy) for name, policy in policies.items())
    spec = AgentSpec(slug="desk", name="Desk", version=1, model="fake", tools=grants, **agent)
    clock, fuse = FakeClock(), Fuse()
    verdicts = FusedVerdicts(fuse)
    run = RunSpec(
        id="run", agent=spec, task="Help Ana", mode=mode, limits=limits, policy_version="desk@1", started_at=clock.time
    )
    return World(
        run=run, llm=TurnLlm(turns), fuse=fuse, verdicts=verdicts, journal=FusedJournal(verdicts, fuse), clock=clock
    )


def limits(**some: int | Decimal) -> Limits:
    """Only these limits."""
    return replace(UNLIMITED, **some)  # type: ignore[arg-type]


# --- what always holds -----------------------------------------------------------------------------------------------
def assert_sound(done: World) -> None:
    """What holds of every run, however it went."""
    assert [step.seq for step in done.steps()] == list(range(1, len(done.steps()) + 1))
    sent = done.llm.conversations()
    for messages in sent:
        assert_each_call_has_one_result(messages)
    for before, after in pairwise(sent):
        assert_grows(before, after)
    for tool in done.tools.values():
        if tool.spec.effect is not Effect.READ:
            assert {key for key, _ in tool.effects} <= set(done.verdicts.claimed)
            assert len(tool.effects) == len({key for key, _ in tool.effects})
            assert tool.spec.idempotent or len(tool.keys) == len(set(tool.keys))


def assert_each_call_has_one_result(messages: Sequence[JsonObject]) -> None:
    for number, message in enumerate(messages):
        asked = [b["id"] for b in message["content"] if b["type"] == "tool_use"] if message["role"] != "user" else []
        if asked:
            blocks = messages[number + 1]["content"]
            assert [b["tool_use_id"] for b in blocks[: len(asked)]] == asked
            assert all(b["type"] == "text" for b in blocks[len(asked) :])
    roles = [message["role"] for message in messages]
    assert roles == ["user", "assistant"] * (len(roles) // 2) + ["user"] * (len(roles) % 2)


def assert_grows(before: Sequence[JsonObject], after: Sequence[JsonObject]) -> None:
    """Append only. Until the model has answered it, the last message may still get more blocks at its end."""
    assert list(after[: len(before) - 1]) == list(before[:-1])
    assert len(after) >= len(before)
    blocks = after[len(before) - 1]["content"]
    assert blocks[: len(before[-1]["content"])] == before[-1]["content"]
    assert len(after) == len(before) or len(blocks) == len(before[-1]["content"])


def kinds(done: World) -> list[StepKind]:
    return [step.kind for step in done.steps()]
