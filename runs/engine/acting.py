"""Carrying out a turn's tool calls: validate, route, ask, execute. Every call ends with exactly one result.

No effect happens without an action that was released and claimed (invariants 1 to 4), and none while an action of the
run waits for a person (invariant 5).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from runs.engine import delegating
from runs.engine.asking import Asking
from runs.engine.calls import Refusal
from runs.engine.context import HELD, QUEUED, SIMULATED, as_text
from runs.engine.deciding import Caller
from runs.engine.delegating import Delegating
from runs.engine.halting import Park, Stop
from runs.engine.mending import Mender
from runs.engine.outcomes import has_happened, retired, settled_by_a_person, why_not
from runs.engine.outputs import shown
from runs.engine.policy import needs_evidence, route
from runs.engine.ports import (
    Breakers,
    NotReleased,
    PlanRefused,
    Tool,
    ToolConnectionLost,
    Tools,
    ToolTimeout,
    ToolUnavailable,
)
from runs.engine.reaching import FAILURES, NOT_CALLED, Reach, words_of
from runs.engine.screening import Screen, one_level_up
from runs.engine.together import Together
from runs.engine.types import (
    Action,
    ActionOutcome,
    ActionStatus,
    Call,
    Effect,
    JsonObject,
    Mode,
    Parked,
    Route,
    RunSpec,
    Step,
    StepKind,
    StepStatus,
    StopReason,
    ToolGrant,
    ToolResult,
)
from runs.engine.words import plain_text


class _Uncertain(Exception):
    """Whether the effect happened is not known. The text is a sentence on why."""


class Hands:
    """Acts on behalf of one run."""

    def __init__(self, run: RunSpec, caller: Caller, asking: Asking, tools: Tools, breakers: Breakers) -> None:
        self.run = run
        self.caller = caller
        self.asking = asking
        self.journal = asking.journal
        self.verdicts = asking.verdicts
        self.tools = tools
        self.clock = asking.clock
        self.grants: dict[str, ToolGrant] = {grant.name: grant for grant in run.agent.tools}
        self.delegating: Delegating | None = None
        self.screen = Screen(run.agent.filters, asking.journal, asking.clock)
        self.mender = Mender(run, caller, asking, {tool.spec.model_name: tool for tool in tools.values()})
        self.reach = Reach(asking.journal, asking.clock, breakers)
        self.plan = asking.plan
        self.doubt: Callable[[int, Sequence[Step]], str] = lambda turn, steps: ""
        self.look_back: Callable[[Sequence[Step], Sequence[int | None], str], None] = lambda done, left, too_late: None
        self.places: dict[str, int | None] = {}  # by intent of what has yet to happen, the plan step it belongs to

    # --- a turn ------------------------------------------------------------------------------------------------------

    def act(self, turn: int, blocks: Sequence[JsonObject], why: str, broken: str = "") -> list[Step]:
        """One recorded step for each call, in the model's order. Raises `Park` while a person has to decide. `broken`
        says why none of the calls may be made as it is."""
        read = self.mender.read(turn, blocks, broken)
        steps: dict[str, Step] = {}
        effects: list[tuple[Call, Route]] = []
        delegated = [call for call in read if isinstance(call, Call) and call.tool == delegating.NAME]
        if self.delegating and not self._has_effects(read, delegated):
            self.delegating.start(delegated, self.plan.step, self._bounded)
        for call in read:
            if isinstance(call, Refusal):
                steps[call.intent] = self._refuse(call)
                continue
            if self.delegating and call in delegated:
                continue
            chosen = self._route(call)
            if self._is_free(call, chosen):
                steps[call.intent] = self._read(call)
            else:
                effects.append((call, chosen))
        if effects and (doubt := self.doubt(turn, list(steps.values()))):
            steps.update({call.intent: self._bounded(call) or self._deny(call, doubt) for call, _ in effects})
            effects = []
        if effects:
            steps.update(self._effects(turn, effects, why))
        if self.delegating and delegated:
            steps.update(self._delegate(self.delegating, delegated, effects))
        notes = self.asking.notes(f"turn:{turn}")
        return [_as_told(call, steps[call.intent], notes.get(call.intent, "")) for call in read]

    def _has_effects(self, read: Sequence[Call | Refusal], delegated: Sequence[Call]) -> bool:
        """Whether delegations have to wait for the turn's own effects: a child's effects are this run's too, and none
        may happen while a person has to decide (invariant 5)."""
        calls = [call for call in read if isinstance(call, Call) and call not in delegated]
        return any(not self._is_free(call, self._route(call)) for call in calls)

    def _delegate(
        self, delegating_: Delegating, delegated: Sequence[Call], effects: Sequence[tuple[Call, Route]]
    ) -> dict[str, Step]:
        """A person who says no to an effect says no to what the same turn wanted to hand on."""
        actions = [self.verdicts.find(call.intent) for call, _ in effects]
        if any(action is not None and action.status is ActionStatus.REJECTED for action in actions):
            why = "Not started: a person rejected an action of the same turn. Delegate again if it still makes sense."
            return {call.intent: self._deny(call, why) for call in delegated}
        delegating_.start(delegated, self.plan.step, self._bounded)
        return delegating_.results(delegated, self.plan.step)

    def _effects(self, turn: int, effects: list[tuple[Call, Route]], why: str) -> dict[str, Step]:
        effects = [(call, self._standing(call, chosen)) for call, chosen in effects]
        asks = any(chosen.outcome == "ask" for _, chosen in effects) and self.run.mode is not Mode.DRY_RUN
        held = asks or bool(self.verdicts.queued())
        recorded = {call.intent: self.journal.recorded(_key(call.intent)) for call, _ in effects}
        taken_up = None in recorded.values() or self.journal.recorded(f"ask:turn:{turn}") is not None
        place = self.plan.step
        steps: dict[str, Step] = {}
        actions: list[tuple[Call, Action]] = []
        for call, chosen in effects:
            if (step := recorded[call.intent]) is not None:
                steps[call.intent] = step
                if step.kind is StepKind.APPROVAL:
                    self.places[call.intent] = step.plan_step
                    self.caller.promised.add(call.intent)
                    if self.run.forked and self.verdicts.find(call.intent) is None:
                        self._propose(call, chosen, held=held)
                elif taken_up and (known := self.verdicts.find(call.intent)) is not None:
                    actions.append((call, known))  # what follows in the turn depends on how this one ended
            elif chosen.outcome == "forbid":
                steps[call.intent] = self._bounded(call) or self._deny(call, f"Not done: {chosen.reason}.")
            else:
                proposed = self._propose(call, chosen, held=held)
                if isinstance(proposed, Step):
                    steps[call.intent] = proposed
                    if chosen.standing:
                        self.verdicts.give_back(call)
                else:
                    self.caller.promised.add(call.intent)
                    self.places[call.intent] = place
                    actions.append((call, proposed))
        if self.run.mode is Mode.INTERACTIVE and actions:
            decided = self._ask_at_once(turn, [action for _, action in actions], why)
            actions = [(call, decided.get(action.intent, action)) for call, action in actions]
        at_once = [(call, action) for call, action in actions if not self._waits(action)]
        steps |= {call.intent: self._put_off(call, action) for call, action in actions if self._waits(action)}
        done = self._in_order(f"turn:{turn}", "tool", [action for _, action in at_once])
        return steps | {call.intent: step for (call, _), step in zip(at_once, done, strict=True)}

    def _waits(self, action: Action) -> bool:
        """Whether nothing becomes of it in this turn: it is simulated, or queued until people are asked."""
        if self.run.mode is Mode.BATCH:
            return (action.held or action.status is ActionStatus.PENDING) and not action.asked
        return self.run.mode is Mode.DRY_RUN

    def _put_off(self, call: Call, action: Action) -> Step:
        return self._simulate(call, action) if self.run.mode is Mode.DRY_RUN else self._queue(call, action)

    def _in_order(self, key: str, prefix: str, actions: Sequence[Action]) -> list[Step]:
        """Each action's one step, under `prefix:intent`. After each one it is looked whether the rest still stands."""
        plan = Together(key, actions, self.verdicts, self.tools, self.grants)
        steps: list[Step] = []
        for number, action in enumerate(actions, 1):
            steps.append(plan.next(action, lambda each: self.carry_out(f"{prefix}:{each.intent}", each)))
            if (left := actions[number:]) and has_happened(steps[-1]):
                happened = [step for step in steps if has_happened(step)]
                places = [self.places.get(each.intent) for each in left if each.status is ActionStatus.APPROVED]
                self.look_back(happened, places, f"{prefix}:{left[0].intent}")
        plan.finish(self.journal, self._action_step)
        return steps

    def _ask_at_once(self, turn: int, actions: list[Action], why: str) -> dict[str, Action]:
        """By intent, what was decided of those that need a person."""
        key = f"turn:{turn}"
        if self.verdicts.asked(key) is None:
            pending = [action for action in actions if action.status is ActionStatus.PENDING]
            if not pending:
                return {}
            self.verdicts.ask(key, pending, why)
        return {action.intent: action for action in self.asking.await_verdicts(key)}

    def carry_out_plan(self, key: str, actions: Sequence[Action]) -> list[tuple[Action, Step]]:
        """Decided actions in their order, as the batch of `key` is to be carried out."""
        steps = self._in_order(key, "effect", actions)
        return [(self.verdicts.find(each.intent) or each, step) for each, step in zip(actions, steps, strict=True)]

    def is_queued(self, action: Action) -> bool:
        """Whether its call was answered with the queue's word, and nobody has been asked yet."""
        return self.journal.recorded(_key(action.intent)) is not None and not action.asked

    # --- one call ----------------------------------------------------------------------------------------------------

    def _route(self, call: Call) -> Route:
        grant = self.grants.get(call.tool)
        evidence = self.verdicts.evidence(grant) if grant and needs_evidence(grant) else None
        tool = self.tools[call.tool].spec
        chosen = route(call, tool, grant, evidence)
        return one_level_up(chosen, tool.effect is Effect.READ, self.screen.suspicion)

    def _standing(self, call: Call, chosen: Route) -> Route:
        """Or released by what a person allowed in advance. Asked before there is an action, because the rest of the
        turn is held only while something of it waits."""
        if chosen.outcome != "ask" or not chosen.grantable or self.run.mode is Mode.DRY_RUN:
            return chosen
        if self.journal.recorded(_key(call.intent)) is not None or self.verdicts.find(call.intent) is not None:
            return chosen
        return self.verdicts.standing(call, self.tools[call.tool].spec, chosen)

    def _is_free(self, call: Call, chosen: Route) -> bool:
        return chosen.outcome == "release" and self.tools[call.tool].spec.effect is Effect.READ

    def _read(self, call: Call) -> Step:
        key = _key(call.intent)
        return self.journal.recorded(key) or self._bounded(call) or self._unavailable(call) or self._run_read(call)

    def _run_read(self, call: Call) -> Step:
        tool, begun = self.tools[call.tool], self._begun(_key(call.intent), call)
        timeout_s = self._timeout(tool)

        def produce() -> Step:
            self.journal.in_flight(begun)
            try:
                result = self.reach.execute(
                    begun.key, tool, call.args, idempotency_key="", timeout_s=timeout_s, may_repeat=True
                )
            except FAILURES as failure:
                status = StepStatus.TIMEOUT if isinstance(failure, ToolTimeout) else StepStatus.ERROR
                return self._ended(begun, status, words_of(failure, self.reach.failures(begun.key) + 1))
            return self._ended(begun, result.status, result.content)

        return self.reach.once(begun, produce)

    def _unavailable(self, call: Call) -> Step | None:
        """An open breaker is told to the model, never tried. The call still gets its one result."""
        tool = self.tools[call.tool]
        closed = self.reach.closed(tool)
        if closed is None:
            return None
        text = NOT_CALLED.format(server=tool.spec.server, words=closed.words)
        step = replace(
            self._ended(self._begun(_key(call.intent), call), StepStatus.DENIED, text), kind=StepKind.GUARDRAIL
        )
        return self.journal.once(step.key, StepKind.GUARDRAIL, lambda: step)

    def _propose(self, call: Call, chosen: Route, *, held: bool) -> Action | Step:
        known = self.verdicts.find(call.intent)
        if known is not None:
            return known
        refused = self._bounded(call) or self._unavailable(call)
        if refused is not None:
            return refused
        tool = self.tools[call.tool]
        try:
            plan = self.reach.plan(tool, call.args)
        except PlanRefused as error:
            return self._deny(call, f"Not done: the tool would refuse it: {error}")
        except FAILURES as error:
            return self._deny(call, f"Not done: the tool is unavailable: {error}")
        return self.verdicts.propose(call, tool.spec, plan, chosen, position=_position(call.intent), held=held)

    def carry_out(self, key: str, action: Action) -> Step:
        """The one step that says how this action ended; executes it when it is released."""
        step = self.journal.recorded(key) or self._carry_out(key, action)
        self.caller.promised.discard(action.intent)
        self.places.pop(action.intent, None)
        return step

    def _carry_out(self, key: str, action: Action) -> Step:
        begun = self._action_step(key, action)
        match action.status:
            case ActionStatus.APPROVED:
                self.caller.heed()
                self.asking.let_undo([action])
                if (tool := self.tools.get(action.tool)) is not None:
                    self.reach.wait_for(key, tool)
                try:
                    claimed = self.verdicts.claim(action, self._current_preconditions(action))
                except NotReleased as refused:
                    return self._not_done(begun, retired(refused.status, refused.reason))
                return self._finish(key, begun, claimed)
            case ActionStatus.EXECUTING:
                return self._finish(key, begun, action)
            case ActionStatus.UNKNOWN:
                return self._after_settlement(key, action)
            case ActionStatus.SUCCEEDED | ActionStatus.FAILED:
                return self.journal.once(key, StepKind.TOOL, lambda: settled_by_a_person(begun, action))
        return self._not_done(begun, why_not(action))

    def _finish(self, key: str, begun: Step, action: Action) -> Step:
        try:
            return self.reach.once(begun, lambda: self._execute(begun, action))
        except _Uncertain as uncertain:
            self.verdicts.ask_whether_it_happened(action, str(uncertain))
            return self._after_settlement(key, action)

    def _after_settlement(self, key: str, action: Action) -> Step:
        self.asking.await_verdicts(f"unknown:{action.intent}")
        return self.carry_out(key, self.verdicts.find(action.intent) or action)

    def _current_preconditions(self, action: Action) -> JsonObject | None:
        """Planned again where a person took time to decide; what runs at once was planned a moment ago. A tool that
        cannot say now differs from what was approved: the action becomes stale, with that reason."""
        tool = self.tools.get(action.tool)
        took_time = action.asked or action.held or self.run.mode is Mode.DRY_RUN
        if tool is None or not tool.spec.can_plan or not took_time:
            return None
        try:
            plan = self.reach.plan(tool, action.args)
        except (PlanRefused, *FAILURES) as refused:
            return {"the tool now says": str(refused) or "it did not answer"}
        return plan.preconditions if plan else None

    def _execute(self, begun: Step, action: Action) -> Step:
        """Runs the claimed effect. An action that was already executing was left by a crash: called again under its key
        only if the tool recognises a repeat (invariant 4)."""
        first_try = action.fresh or self.reach.begins_again(begun.key)
        tool = self.tools.get(action.tool)
        if tool is None and first_try:
            return self._acted(begun, action, ToolResult(content="The tool is not there any more.", is_error=True))
        if tool is None:
            raise _Uncertain("The worker died while this ran, and the tool is not there any more.")
        self.journal.in_flight(begun)
        if not first_try and not tool.spec.idempotent:
            return self._reconciled(begun, tool, action, "The worker died while this ran.")
        try:
            result = self.reach.execute(
                begun.key,
                tool,
                action.args,
                idempotency_key=action.id,
                timeout_s=self._timeout(tool),
                may_repeat=tool.spec.idempotent,
                certain=first_try,
            )
        except ToolUnavailable as error:
            if not first_try:
                raise Park(Parked(why="retry", retry_in_s=10)) from error
            return self._acted(begun, action, ToolResult(content=f"The tool is unavailable: {error}", is_error=True))
        except ToolTimeout:
            return self._reconciled(begun, tool, action, f"The tool did not answer in {self._timeout(tool):g} s.")
        except ToolConnectionLost as error:
            said = str(error).rstrip(".")
            return self._reconciled(begun, tool, action, f"The connection broke while this ran: {said}.")
        return self._acted(begun, action, result)

    def _reconciled(self, begun: Step, tool: Tool, action: Action, why: str) -> Step:
        match tool.reconcile(action.id):
            case "happened":
                return self._acted(begun, action, ToolResult(content="It happened; the tool's own answer was lost."))
            case "did_not_happen":
                return self._acted(begun, action, ToolResult(content="It did not happen.", is_error=True))
        raise _Uncertain(why)

    def _acted(self, begun: Step, action: Action, result: ToolResult) -> Step:
        status = ActionStatus.FAILED if result.is_error else ActionStatus.SUCCEEDED
        step = self._ended(begun, result.status, result.content)
        return replace(step, outcome=ActionOutcome(action_id=action.id, status=status, result=result.content))

    # --- steps -------------------------------------------------------------------------------------------------------

    def _refuse(self, refusal: Refusal) -> Step:
        # What a model calls a tool that is none is text like any other: it makes no title.
        title = refusal.tool if refusal.tool in self.grants or refusal.tool in self.tools else "unknown tool"
        status = StepStatus.DENIED if refusal.forbidden else StepStatus.ERROR
        begun = self._step(StepKind.TOOL, title, input=refusal.args, reasoning=refusal.reasoning)
        begun = replace(
            begun,
            tool=refusal.tool,
            tool_call_id=refusal.tool_call_id,
            confidence=refusal.confidence,
            key=_key(refusal.intent),
        )
        return (
            self.journal.recorded(begun.key)
            or self._bounded_step(begun)
            or self.journal.once(begun.key, StepKind.TOOL, lambda: self._ended(begun, status, refusal.reason))
        )

    def _deny(self, call: Call, reason: str) -> Step:
        begun = self._begun(_key(call.intent), call)
        return self._not_done(begun, reason)

    def _not_done(self, begun: Step, reason: str) -> Step:
        return self.journal.once(begun.key, StepKind.TOOL, lambda: self._ended(begun, StepStatus.DENIED, reason))

    def _simulate(self, call: Call, action: Action) -> Step:
        begun = self._begun(_key(call.intent), call)
        text = SIMULATED + (action.plan_summary or "this tool cannot say; its arguments are recorded.")
        step = self.journal.once(begun.key, StepKind.TOOL, lambda: self._ended(begun, StepStatus.SIMULATED, text))
        self.caller.promised.discard(call.intent)
        return step

    def _queue(self, call: Call, action: Action) -> Step:
        step = replace(
            self._begun(_key(call.intent), call),
            kind=StepKind.APPROVAL,
            title=f"Queued: {action.title}"[:200],
            output=HELD if action.status is ActionStatus.APPROVED else QUEUED,
        )
        self.places[call.intent] = step.plan_step
        return self.journal.once(step.key, StepKind.APPROVAL, lambda: step)

    def _bounded(self, call: Call) -> Step | None:
        return self._bounded_step(self._begun(_key(call.intent), call))

    def _bounded_step(self, begun: Step) -> Step | None:
        """Cancel, pause and limits, asked before each new step. Past a limit the call still gets its one result."""
        try:
            self.caller.check()
        except Stop as stop:
            if stop.reason is StopReason.CANCELLED:
                raise
            step = replace(
                begun,
                kind=StepKind.GUARDRAIL,
                status=StepStatus.DENIED,
                output=f"Not done: {stop.detail}.",
                summary=stop.detail,
            )
            return self.journal.once(step.key, StepKind.GUARDRAIL, lambda: step)
        return None

    def _begun(self, key: str, call: Call) -> Step:
        step = self._step(StepKind.TOOL, call.tool, input=call.args, reasoning=call.reasoning)
        return replace(step, key=key, tool=call.tool, tool_call_id=call.tool_call_id, confidence=call.confidence)

    def _action_step(self, key: str, action: Action) -> Step:
        step = self._step(StepKind.TOOL, action.tool, input=action.args, reasoning=action.reasoning)
        return replace(
            step,
            key=key,
            tool=action.tool,
            tool_call_id=action.tool_call_id,
            confidence=action.confidence,
            plan_step=self.places.get(action.intent, step.plan_step),
        )

    def _step(self, kind: StepKind, title: str, **also: Any) -> Step:
        return Step(kind=kind, title=title[:200], plan_step=self.plan.step, started_at=self.clock.now(), **also)

    def _ended(self, begun: Step, status: StepStatus, output: object) -> Step:
        started = begun.started_at or self.clock.now()
        text = " ".join(as_text(output).split())
        return replace(
            begun,
            status=status,
            output=output,
            summary=" ".join(plain_text(output).split())[:300],
            error=text[:2000] if status in (StepStatus.ERROR, StepStatus.TIMEOUT) else "",
            duration_ms=max(0, round((self.clock.now() - started).total_seconds() * 1000)),
        )

    def _timeout(self, tool: Tool) -> float:
        grant = self.grants.get(tool.spec.name)
        return grant.timeout_s if grant and grant.timeout_s else tool.spec.timeout_s


def _key(intent: str) -> str:
    return f"tool:{intent}"


def _as_told(call: Call | Refusal, step: Step, note: str) -> Step:
    """The step as the model hears of it: also what a person said to it, and that it ran with other arguments."""
    if isinstance(call, Refusal):
        return step
    changed = "" if step.input == call.args else f"A person changed the arguments to {as_text(step.input)}."
    said = " ".join(part for part in (call.note, note, changed) if part)
    return replace(step, output=f"{said} {as_text(shown(step))}") if said else step


def _position(intent: str) -> int:
    turn, index = intent.split(":")
    return int(turn) * 1000 + int(index)
