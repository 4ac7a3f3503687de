"""The whole life of a run: plan, decide, validate, route, (ask a person?), execute, evaluate, wrap up.

Start, resume after an approval and resume after a crash are this same code: every step goes through the journal, and a
step that was recorded is returned instead of being done again.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import partial
from itertools import count

from runs.engine import planning
from runs.engine.acting import Hands
from runs.engine.context import WRAP_UP, Conversation, as_text, system_prompt, tool_definitions
from runs.engine.deciding import Caller, Park, Stop, reply_of
from runs.engine.evaluators import evaluation_request, read_evaluation
from runs.engine.explain import explain
from runs.engine.ports import Budget, Clock, Controls, Journal, Llm, Tools, Verdicts
from runs.engine.types import (
    Action,
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

REFUSED_TURNS = ("refusal", "model_context_window_exceeded")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    journal: Journal
    llm: Llm
    budget: Budget
    verdicts: Verdicts
    controls: Controls
    clock: Clock
    tools: Tools


def advance(run: RunSpec, ports: Ports) -> Outcome:
    """Brings the run as far as it can go now. Raises `LeaseLost` when another worker has taken it."""
    life = Life(run, ports)
    try:
        try:
            life.make_plan()
            answer = life.work()
            return life.finish(answer, StopReason.DONE, "")
        except Stop as stop:
            return life.stop(stop)
    except Park as park:
        return park.parked


class Life:
    def __init__(self, run: RunSpec, ports: Ports) -> None:
        self.run = run
        self.ports = ports
        self.journal = ports.journal
        self.caller = Caller(run, ports.journal, ports.llm, ports.budget, ports.controls, ports.clock)
        offered = {g.name for g in run.agent.tools if g.policy is not Policy.FORBIDDEN}
        self.tools = {name: tool for name, tool in ports.tools.items() if name in offered}
        self.hands = Hands(run, self.caller, ports.journal, ports.verdicts, self.tools, ports.clock)
        self.system = system_prompt(run.agent, run.mode)
        self.definitions = tool_definitions(self.tools.values())
        self.conversation = Conversation(run.task)
        self.plan: JsonObject | None = None
        self.settled = 0

    # --- plan --------------------------------------------------------------------------------------------------------

    def make_plan(self) -> None:
        if not self.run.agent.planning:
            return
        request = planning.plan_request(self.run.agent, self.run.task, self.tools, self.system)
        step = self.caller.call(
            "plan", StepKind.PLAN, "Plan", request, conversation=False, optional=True, refine=planning.refine
        )
        self.set_plan(planning.refine(step).plan)

    def set_plan(self, plan: JsonObject | None) -> None:
        self.plan = plan
        self.hands.plan_step = planning.current_step(plan)

    # --- decide, act, evaluate ---------------------------------------------------------------------------------------

    def work(self) -> str:
        """Turn after turn until the model ends one with nothing left to do. Returns its answer."""
        for turn in count(1):
            self.hear_people(turn)
            reply = self.decide(turn)
            if reply.stop_reason == "tool_use" and reply.tool_uses:
                steps = self.hands.act(turn, reply.tool_uses, reply.text)
                self.conversation.give_results([(s.tool_call_id, s.output, _is_error(s)) for s in steps])
                self.evaluate(turn, steps)
            elif reply.stop_reason in REFUSED_TURNS:
                raise Stop(StopReason.CONTENT_FILTER, f"the model ended its turn with {reply.stop_reason}")
            elif reply.stop_reason == "max_tokens" or reply.tool_uses:
                self.answer_broken_turn(reply)
            elif not self.settle_queue(turn, reply.text) and not self.was_told_more(turn):
                return reply.text
        raise AssertionError("unreachable")

    def decide(self, turn: int) -> ModelReply:
        step = self.caller.call(
            f"model:{turn}", StepKind.MODEL, "Decide", self.request(), plan_step=planning.current_step(self.plan)
        )
        reply = reply_of(step)
        self.conversation.reply(reply.content)
        return reply

    def request(self) -> ModelRequest:
        return ModelRequest(
            model=self.run.agent.model,
            system=self.system,
            messages=self.conversation.messages(),
            tools=self.definitions,
            effort=self.run.agent.effort,
        )

    def answer_broken_turn(self, reply: ModelReply) -> None:
        """A turn that did not end in order to use tools: its calls are answered, never made (invariant 11)."""
        why = "Not done: the turn did not end in order to use tools."
        self.conversation.give_results([(str(block.get("id")), why, True) for block in reply.tool_uses])
        cut = reply.stop_reason == "max_tokens"
        self.conversation.say(
            "Your last turn was cut off by its token limit. Go on, more briefly." if cut else "Go on."
        )

    def settle_queue(self, turn: int, why: str) -> bool:
        if self.run.mode is not Mode.BATCH:
            return False
        done = self.hands.settle_queue(self.settled + 1, why)
        if done is None:
            return False
        self.settled += 1
        lines = [json.dumps(_result_line(action, step), ensure_ascii=False) for action, step in done]
        self.conversation.say("Results of the queued actions\n" + "\n".join(lines))
        self.evaluate(turn, [step for _, step in done])
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

    def heard(self, sender: str, text: str, turn: int) -> Step:
        return Step(
            kind=StepKind.MESSAGE,
            title=f"Message from {sender}"[:200],
            summary=" ".join(text.split())[:300],
            input={"turn": turn, "text": text, "by": sender},
            started_at=self.ports.clock.now(),
        )

    def evaluate(self, turn: int, steps: list[Step]) -> None:
        if self.run.agent.evaluation != "every_step":
            return
        happened = [{"tool": s.tool, "status": s.status, "input": s.input, "output": s.output} for s in steps]
        self.judge(f"evaluate:{turn}", "Evaluate the step", happened)

    def judge(self, key: str, title: str, happened: object) -> None:
        """Scores what happened and marks the plan. Without room for a judge the work goes on without one."""
        if self.journal.recorded("result") is not None and self.journal.recorded(key) is None:
            return
        request = evaluation_request(self.run.agent, self.run.task, self.plan, happened)
        try:
            step = self.caller.call(
                key,
                StepKind.EVALUATE,
                title,
                request,
                plan_step=planning.current_step(self.plan),
                conversation=False,
                optional=True,
                refine=self.with_verdict,
            )
        except Stop as stop:
            if stop.reason is StopReason.CANCELLED:
                raise
            return
        self.set_plan(self.with_verdict(step).plan)

    def with_verdict(self, step: Step) -> Step:
        """The step with its score and the plan as it is marked now; an answer that is no verdict is an error."""
        try:
            verdict = read_evaluation(reply_of(step).text)
        except ValueError as error:
            return replace(
                step, status=StepStatus.ERROR, error=step.error or f"No usable verdict: {error}", plan=self.plan
            )
        marked = self.plan and planning.mark(self.plan, done=verdict.plan_steps_done, assumptions=verdict.assumptions)
        return replace(
            step, score=verdict.score, summary=verdict.sentence[:300], reasoning=verdict.sentence, plan=marked
        )

    # --- the end -----------------------------------------------------------------------------------------------------

    def stop(self, stop: Stop) -> Finished:
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
        request = replace(self.request(), max_tokens=1024, tool_choice={"type": "none"} if self.definitions else None)
        try:
            step = self.caller.call("wrap_up", StepKind.MODEL, "Wrap up", request, keep_wrap_up=False, optional=True)
        except Stop as second:
            if second.reason is StopReason.CANCELLED:
                raise
            return ""
        return reply_of(step).text if step.status is StepStatus.OK else ""

    def finish(self, answer: str, reason: StopReason, detail: str, status: RunStatus = RunStatus.COMPLETED) -> Finished:
        if reason is StopReason.DONE and self.run.agent.evaluation != "off":
            self.judge("evaluate:final", "Evaluate the answer", {"answer": answer})
        if reason is StopReason.DONE and self.run.mode is Mode.DRY_RUN:
            status = RunStatus.DRY_RUN_READY
        sentence = explain(reason, detail, self.plan, self.journal.spent())
        step = Step(
            kind=StepKind.RESULT,
            title="Answer" if answer else "End of the run",
            summary=sentence[:300],
            output=answer,
            status=StepStatus.OK if status in (RunStatus.COMPLETED, RunStatus.DRY_RUN_READY) else StepStatus.ERROR,
            started_at=self.ports.clock.now(),
            plan=planning.mark_ended(self.plan, finished=reason is StopReason.DONE),
        )
        recorded = self.journal.once("result", StepKind.RESULT, lambda: step)
        return Finished(status=status, stop_reason=reason, stop_detail=sentence, result=str(recorded.output or ""))


def _is_error(step: Step) -> bool:
    return step.status in (StepStatus.ERROR, StepStatus.TIMEOUT, StepStatus.DENIED)


def _result_line(action: Action, step: Step) -> JsonObject:
    outcome = action.status.value
    return {
        "tool_call_id": action.tool_call_id,
        "tool": action.tool.replace(".", "__"),
        "outcome": outcome,
        "note": action.note,
        "by": ", ".join(dict.fromkeys(decision.by for decision in action.decisions)),
        "edited_by_a_person": action.edited,
        "result": step.output if isinstance(step.output, dict | list) else as_text(step.output),
    }
