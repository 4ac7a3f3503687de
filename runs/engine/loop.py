"""The whole life of a run: plan, decide, validate, route, (ask a person?), execute, evaluate, wrap up.

Start, resume after an approval and resume after a crash are this same code: every step goes through the journal, and a
step that was recorded is returned instead of being done again.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count

from runs.engine.acting import Hands
from runs.engine.asking import Asking
from runs.engine.breakers import NeverOpen
from runs.engine.budget import WRAP_UP_TOKENS
from runs.engine.compaction import Compactor
from runs.engine.context import WRAP_UP, Conversation, as_text, system_prompt, tool_definitions
from runs.engine.deciding import Caller, reply_of
from runs.engine.delegating import Children, Delegating, delegate_tool
from runs.engine.executing import carry_out_chosen
from runs.engine.explain import Signs, explain
from runs.engine.guardrails import TOLD, LoopGuard
from runs.engine.halting import Park, Stop
from runs.engine.outcomes import has_happened
from runs.engine.outputs import shown
from runs.engine.planning import PlanState, mark_ended
from runs.engine.ports import Breakers, Budget, Clock, Controls, Journal, Llm, Tools, Verdicts
from runs.engine.queueing import Queue
from runs.engine.raising import Raising, Used, nearly_used
from runs.engine.recovery import CUT, NOT_ENDED, Trouble, trouble_of
from runs.engine.reviewing import Reviewer
from runs.engine.types import (
    Action,
    ActionStatus,
    Effect,
    Finished,
    JsonObject,
    Mode,
    ModelReply,
    ModelRequest,
    Outcome,
    Policy,
    RunSpec,
    RunStatus,
    Step,
    StepKind,
    StepStatus,
    StopReason,
)

LOST_TURNS = (Trouble.REFUSED, Trouble.OVERFLOW)
WRAP_UP_RESULTS = (2_000, 200)  # characters of a result that a last call is given where more does not fit
GO_ON, GO_ON_BRIEFLY = "Go on.", "Your last turn was cut off by its token limit. Go on, more briefly."


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    journal: Journal
    llm: Llm
    budget: Budget
    verdicts: Verdicts
    controls: Controls
    clock: Clock
    tools: Tools
    children: Children
    breakers: Breakers = field(default_factory=NeverOpen)
    misfit: Callable[[str], str] = lambda text: ""  # why an answer is not in the form that the agent has to give


def advance(run: RunSpec, ports: Ports) -> Outcome:
    """Brings the run as far as it can go now. Raises `LeaseLost` when another worker has taken it."""
    try:
        while True:
            life = Life(run, ports)
            if run.mode is Mode.DRY_RUN and ports.journal.recorded("result") and ports.verdicts.chosen():
                return carry_out_chosen(life.hands, ports.journal, ports.verdicts)
            try:
                life.screen.task(run.task)
                life.reviewer.make_plan(tuple(life.tools))
                return life.finish(life.work(), StopReason.DONE, "")
            except Stop as stop:
                limits = Raising(run, life.hands).limits_after(stop)
                if limits is None:
                    return life.stop(stop)
                run = replace(run, limits=limits, call_cut_off=False)
    except Park as park:
        return park.parked


class Life:
    def __init__(self, run: RunSpec, ports: Ports) -> None:
        self.run = run
        self.ports = ports
        self.journal = ports.journal
        self.caller = Caller(run, ports.journal, ports.llm, ports.budget, ports.controls, ports.clock, ports.breakers)
        offered = {g.name for g in run.agent.tools if g.policy is not Policy.FORBIDDEN}
        self.tools = {name: tool for name, tool in ports.tools.items() if name in offered}
        if (delegate := delegate_tool(run)) is not None:
            self.tools[delegate.spec.name] = delegate
        self.asking = Asking(ports.journal, ports.verdicts, ports.clock, PlanState())
        self.caller.models.ask = self.asking.ask
        self.hands = Hands(run, self.caller, self.asking, self.tools, ports.breakers)
        if delegate is not None:
            self.hands.delegating = Delegating(run, self.caller, ports.journal, ports.children, ports.clock)
        self.system = system_prompt(run.agent, run.mode, may_ask=delegate is not None or self.may_ask())
        self.definitions = tool_definitions(self.tools.values())
        self.conversation = Conversation(run.task)
        self.reviewer = Reviewer(run, self.caller, ports.journal, self.conversation, self.hands.plan, self.system)
        self.hands.doubt = self.reviewer.doubt
        self.hands.look_back = self.reviewer.between
        self.queue = Queue(run, self.hands)
        self.reviewer.withdraw = self.queue.withdraw
        self.screen = self.hands.screen
        self.compactor = Compactor(run, self.caller, ports.journal, self.conversation, self.request)
        self.done: list[Step] = []
        self.warned: set[tuple[str, str]] = set()
        self.loops = LoopGuard()
        self.repeatable = frozenset(name for name, tool in self.tools.items() if tool.spec.repeatable)

    def may_ask(self) -> bool:
        """Whether a call may have to wait for a person: one that changes something, or under a policy."""
        grants = self.hands.grants
        return any(
            tool.spec.effect is not Effect.READ or grants[name].policy is not Policy.AUTO
            for name, tool in self.tools.items()
        )

    # --- decide, act, evaluate ---------------------------------------------------------------------------------------

    def work(self) -> str:
        """Turn after turn until the model ends one with nothing left to do. Returns its answer."""
        for turn in count(1):
            self.hear_people(turn)
            self.warn(turn)
            self.compactor.before(turn)
            reply = self.decide(turn)
            if reply.tool_uses and (trouble := trouble_of(reply)) not in LOST_TURNS:
                self.act(turn, reply, trouble)
                continue
            answer = self.answer(turn, reply)
            if answer is not None and self.is_over(turn, answer):
                return self.reviewer.better(answer)
        raise AssertionError("unreachable")

    def is_over(self, turn: int, text: str) -> bool:
        """The model has ended its turn: whether nothing is left to do, and its text is the run's answer."""
        self.screen.turn_ended()
        if self.settle_queue(turn, text) or self.was_told_more(turn):
            return False
        self.screen.answer(turn, text)
        return self.reviewer.accepts(text)

    def act(self, turn: int, reply: ModelReply, trouble: Trouble | None) -> None:
        """Every call of the turn gets its one result; those of a turn that did not end to use tools are not made."""
        broken = {Trouble.CUT: CUT, Trouble.NOT_ENDED: NOT_ENDED}.get(trouble, "") if trouble else ""
        steps = self.hands.act(turn, reply.tool_uses, reply.text, broken)
        self.conversation.give_results([(s.tool_call_id, shown(s), _is_error(s)) for s in steps])
        self.done += steps
        self.screen.outputs(steps)
        self.hands.mender.check_ended()
        if broken:
            self.conversation.say(GO_ON if trouble is Trouble.NOT_ENDED else GO_ON_BRIEFLY)
        else:
            self.guard_against_loops(turn, steps)
            self.reviewer.turn(turn, steps)

    def answer(self, turn: int, reply: ModelReply) -> str | None:
        """The answer that a turn without calls gives, or None when the model has to have another turn."""
        mender, answer = self.hands.mender, reply.text
        match trouble_of(reply):
            case Trouble.OVERFLOW:
                raise Stop(StopReason.CONTENT_FILTER, f"the model ended its turn with {reply.stop_reason}")
            case Trouble.REFUSED:
                self.conversation.say(mender.refused(turn, reply.text))
                return None
            case Trouble.LONG:
                self.conversation.say(GO_ON_BRIEFLY)
                return None
            case Trouble.EMPTY if not self.queue.waits:
                answer = mender.empty(turn, self.conversation, self.request) or ""
                if not answer:
                    return None
        if not self.queue.waits and (why := self.ports.misfit(answer)):
            self.conversation.say(mender.misfit(turn, why, self.run.agent.output_schema))
            return None
        mender.streak.worked()
        return answer

    def decide(self, turn: int) -> ModelReply:
        step = self.caller.call(
            f"model:{turn}",
            StepKind.MODEL,
            "Decide",
            self.hands.mender.shape(self.request()),
            plan_step=self.hands.plan.step,
        )
        reply = reply_of(step)
        if trouble_of(reply) is not Trouble.REFUSED:  # the API refuses to go on after a refused turn
            self.conversation.reply(reply.content)
        return reply

    def request(self) -> ModelRequest:
        return ModelRequest(
            model=self.run.agent.model,
            system=self.system,
            messages=self.conversation.messages(),
            tools=self.definitions,
            effort=self.run.agent.effort,
            output_schema=self.run.agent.output_schema,
        )

    def guard_against_loops(self, turn: int, steps: list[Step]) -> None:
        loop = self.loops.after(steps, self.repeatable)
        if loop is None:
            return
        if loop.stops:
            raise Stop(StopReason.LOOP, loop.pattern)
        note = self.note("Told the model that it repeats itself", loop.pattern)
        self.journal.once(f"loop:{turn}", StepKind.GUARDRAIL, lambda: note)
        self.conversation.say(TOLD.format(pattern=loop.pattern))

    def note(self, title: str, summary: str) -> Step:
        """A guardrail's word in the trace."""
        return Step(
            kind=StepKind.GUARDRAIL,
            title=title,
            summary=summary[:300],
            plan_step=self.hands.plan.step,
            started_at=self.ports.clock.now(),
        )

    def settle_queue(self, turn: int, why: str) -> bool:
        done = self.queue.settle(why)
        if done is None:
            return False
        lines = [json.dumps(_result_line(action, step), ensure_ascii=False, sort_keys=True) for action, step in done]
        self.conversation.say("Results of the queued actions\n" + "\n".join(lines))
        steps = [step for _, step in done]
        settled = {f"tool:{action.intent}" for action, _ in done}
        self.done = [step for step in self.done if step.key not in settled] + steps
        self.screen.outputs(steps)
        self.reviewer.turn(turn, steps)
        return True

    def hear_people(self, turn: int) -> None:
        """Messages are delivered before the next new model call, and stay at that place when the run is resumed."""
        reached = self.journal.recorded(f"model:{turn}") is not None
        for message_id, sender, text in self.ports.controls.messages():
            key = f"message:{message_id}"
            recorded = self.journal.recorded(key)
            if recorded is None and not reached:
                recorded = self.journal.once(key, StepKind.MESSAGE, partial(self.heard, sender, text, turn))
            if recorded is not None and isinstance(recorded.input, dict) and recorded.input.get("turn") == turn:
                self.conversation.say(f"Message from {sender}, who watches this run:\n{text}")

    def was_told_more(self, turn: int) -> bool:
        """Whether a message came while the model gave what it took for its last turn: that one is answered too."""
        ended = self.journal.recorded("result") is not None
        for message_id, _, _ in self.ports.controls.messages():
            recorded = self.journal.recorded(f"message:{message_id}")
            if (not ended) if recorded is None else recorded.input["turn"] > turn:
                return True
        return False

    def warn(self, turn: int) -> None:
        """Once for each limit of which 80% is used: recorded before the turn, and told to the model."""
        key = f"warned:{turn}"
        step = self.journal.recorded(key)
        if step is None and self.journal.recorded(f"model:{turn}") is None:
            self.caller.models.failures(f"model:{turn}")  # the waits between its tries are no working time
            used = nearly_used(self.run.limits, self.journal.spent(), self.caller.elapsed_s())
            if new := [each for each in used if (each.limit, str(each.of)) not in self.warned]:
                self.caller.check()  # who has to stop anyway is not warned
                step = self.journal.once(key, StepKind.GUARDRAIL, lambda: self.warning(new))
        if step is not None:
            self.warned.update((limit, of) for limit, of in step.input)
            self.conversation.notice(f"{step.summary} Do first what matters most, and be brief.")

    def warning(self, used: list[Used]) -> Step:
        return Step(
            kind=StepKind.GUARDRAIL,
            title="Close to a limit",
            summary=". ".join(each.words for each in used)[:299] + ".",
            input=[[each.limit, str(each.of)] for each in used],
            started_at=self.ports.clock.now(),
        )

    def heard(self, sender: str, text: str, turn: int) -> Step:
        return Step(
            kind=StepKind.MESSAGE,
            title=f"Message from {sender}"[:200],
            summary=" ".join(text.split())[:300],
            input={"turn": turn, "text": text, "by": sender},
            started_at=self.ports.clock.now(),
        )

    # --- the end -----------------------------------------------------------------------------------------------------

    def stop(self, stop: Stop) -> Finished:
        if (saved := self.reviewer.saved(stop)) is not None:
            return self.finish(saved, StopReason.DONE, "")
        try:
            answer = self.wrap_up(stop)
        except Stop as cancelled:
            answer, stop = "", cancelled
        return self.finish(answer, stop.reason, stop.detail, status=stop.status)

    def wrap_up(self, stop: Stop) -> str:
        """One last call without tools, for which budget was kept back, so that a stopped run still answers."""
        if stop.reason is not StopReason.CANCELLED:
            self.caller.record_stop(stop)
        if stop.status is not RunStatus.STOPPED or stop.reason is StopReason.CONTENT_FILTER:
            return ""
        self.conversation.say(WRAP_UP.format(why=stop.detail))
        step = self.last_call()
        answer = reply_of(step).text if step is not None and step.status is StepStatus.OK else ""
        return "" if self.screen.blocks(answer) else answer

    def last_call(self) -> Step | None:
        """With results cut where they would not fit whole; None when nothing fits."""
        choice = {"type": "none"} if self.definitions else None
        for most in (None, *WRAP_UP_RESULTS):
            if most is not None:
                self.conversation.cut_results(most)
            request = replace(self.request(), max_tokens=WRAP_UP_TOKENS, tool_choice=choice, goes_on=False)
            try:
                return self.caller.call(
                    "wrap_up", StepKind.MODEL, "Wrap up", request, keep_wrap_up=False, optional=True
                )
            except Stop as second:
                if second.reason is StopReason.CANCELLED:
                    raise
                if second.reason not in (StopReason.MAX_COST, StopReason.MAX_TOKENS):
                    return None
        return None

    def finish(self, answer: str, reason: StopReason, detail: str, status: RunStatus = RunStatus.COMPLETED) -> Finished:
        if reason is StopReason.DONE and self.run.mode is Mode.DRY_RUN:
            status = RunStatus.DRY_RUN_READY
        sentence = explain(reason, detail, self.hands.plan.now, self.signs())
        step = Step(
            kind=StepKind.RESULT,
            title="Answer" if answer else "End of the run",
            summary=sentence[:300],
            output=answer,
            status=StepStatus.OK if status in (RunStatus.COMPLETED, RunStatus.DRY_RUN_READY) else StepStatus.ERROR,
            started_at=self.ports.clock.now(),
            plan=mark_ended(self.hands.plan.now, finished=reason is StopReason.DONE),
        )
        recorded = self.journal.once("result", StepKind.RESULT, lambda: step)
        return Finished(status=status, stop_reason=reason, stop_detail=sentence, result=str(recorded.output or ""))

    def signs(self) -> Signs:
        return Signs(
            task=self.run.task,
            suspicious=self.screen.marked,
            prompt_tokens=self.caller.bound.counted_tokens,
            was_compacted=self.compactor.happened,
            without_progress=self.reviewer.progress.without,
            revisions=self.reviewer.revisions,
            calls_done=sum(has_happened(step) and not _is_error(step) for step in self.done),
            calls_not_done=sum(_is_error(step) for step in self.done),
            proposed=sum(step.kind is StepKind.APPROVAL or step.status is StepStatus.SIMULATED for step in self.done),
        )


def _is_error(step: Step) -> bool:
    return step.status in (StepStatus.ERROR, StepStatus.TIMEOUT, StepStatus.DENIED)


def _result_line(action: Action, step: Step) -> JsonObject:
    outcome, result = action.status.value, shown(step)
    by_itself = action.status in (ActionStatus.CANCELLED, ActionStatus.STALE, ActionStatus.EXPIRED)
    return {
        "tool_call_id": action.tool_call_id,
        "tool": action.tool.replace(".", "__"),
        "outcome": outcome,
        "note": action.note,
        "by": "" if by_itself else ", ".join(dict.fromkeys(decision.by for decision in action.decisions)),
        "edited_by_a_person": action.edited,
        "result": result if isinstance(result, dict | list) else as_text(result),
    }
