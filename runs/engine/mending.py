"""Carries out the layers of `recovery.py` for one run: tells, asks for the call alone, asks a person."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

from runs.engine.asking import Asking
from runs.engine.calls import Refusal, read_call, schema_for_model
from runs.engine.context import Conversation, as_text
from runs.engine.deciding import Caller, reply_of
from runs.engine.halting import Stop
from runs.engine.ports import Tool
from runs.engine.recovery import (
    EMPTY_ASKED,
    EMPTY_TOLD,
    ENDED,
    MISFIT_TOLD,
    SHOWN_CHARACTERS,
    TELLS,
    Layer,
    Streak,
    empty_question,
    gentler,
    malformed_question,
    misfit_question,
    refusal_question,
    simplified,
    what_was_written,
)
from runs.engine.types import (
    Call,
    JsonObject,
    ModelRequest,
    Policy,
    Question,
    RunSpec,
    Step,
    StepKind,
    StepStatus,
    StopReason,
)

BY_A_PERSON = "a person wrote this call and has not seen yet what it does"


class Mender:
    """`ended` is set when a person stopped the run in the middle of a turn: its calls still get their results first."""

    def __init__(self, run: RunSpec, caller: Caller, asking: Asking, tools: Mapping[str, Tool]) -> None:
        self.run = run
        self.caller = caller
        self.asking = asking
        self.tools = tools  # by the name the model sees
        never = [grant.name for grant in run.agent.tools if grant.policy is Policy.FORBIDDEN]
        self.forbidden = {name.replace(".", "__"): name for name in never}
        self.streak = Streak()
        self.ended: Stop | None = None

    def shape(self, request: ModelRequest) -> ModelRequest:
        return gentler(request, self.streak.failures)

    # --- turns with calls --------------------------------------------------------------------------------------------

    def read(self, turn: int, blocks: Sequence[JsonObject], broken: str = "") -> list[Call | Refusal]:
        """Every call of the turn, valid or refused. `broken` says why none of them may be made as it is."""
        read = [self._one(f"{turn}:{index}", block, broken) for index, block in enumerate(blocks)]
        refusals = [call for call in read if isinstance(call, Refusal) and not call.forbidden]
        if not refusals:
            calls = [call for call in read if isinstance(call, Call)]
            doubt = self.streak.doubt({call.tool.replace(".", "__") for call in calls})
            if calls:
                self.streak.worked()
            return [replace(call, doubt=doubt) if isinstance(call, Call) else call for call in read]
        names = {str(blocks[read.index(each)].get("name") or "") for each in refusals}
        said = [f"{each.tool or 'a call'}: {each.reason}" for each in refusals]
        if self._failed(turn, names, " ".join(dict.fromkeys(said))) is not Layer.SIMPLIFY:
            return read
        mended = self._mended(turn, refusals)
        return [mended.get(call.intent, call) for call in read]

    def check_ended(self) -> None:
        """Once the turn's calls have their results."""
        if self.ended is not None:
            raise self.ended

    def _one(self, intent: str, block: JsonObject, broken: str) -> Call | Refusal:
        call = read_call(intent, block, self.tools, self.forbidden)
        if isinstance(call, Refusal) or not broken:
            return call
        return Refusal(
            intent=intent,
            tool_call_id=call.tool_call_id,
            tool=call.tool,
            args=call.args,
            reasoning=call.reasoning,
            confidence=call.confidence,
            reason=broken,
        )

    def _mended(self, turn: int, refusals: Sequence[Refusal]) -> dict[str, Call | Refusal]:
        """By intent: every call of the turn that was written wrong. Each is asked for alone; what is still missing then
        is put to a person, all of it before any answer is waited for."""
        places = {each.intent: each.intent if number else str(turn) for number, each in enumerate(refusals)}
        tried = {each.intent: list(self.streak.tried) for each in refusals}
        mended: dict[str, Call | Refusal] = {}
        open_ones: list[Refusal] = []
        for each in refusals:
            try:
                found = self._simplified(places[each.intent], each, tried[each.intent])
            except Stop as stop:
                if stop.reason is StopReason.CANCELLED:
                    raise
                found = each  # the run is at a limit: the call is refused, and nobody need be asked
            if found is None:
                open_ones.append(each)
            else:
                mended[each.intent] = found
        questions = [self._question(places[each.intent], each, tried[each.intent]) for each in open_ones]
        self.asking.put(questions)
        for each, question in zip(open_ones, questions, strict=True):
            mended[each.intent] = self._by_a_person(each, question)
        if open_ones or any(isinstance(each, Call) for each in mended.values()):
            self.streak.worked()
        return mended

    def _simplified(self, place: str, refusal: Refusal, tried: list[str]) -> Call | Refusal | None:
        """The second layer; None when it gave nothing. Raises `Stop` where there is no room for it."""
        journal = self.asking.journal
        if journal.recorded(f"repair:{place}") is None and journal.recorded(f"tool:{refusal.intent}") is not None:
            return refusal  # answered before, at a limit that was raised since
        known = self._known(refusal)
        tools = [known] if known is not None else list(self.tools.values())
        if not tools:
            return None
        request = simplified(
            ModelRequest(model=self.run.agent.model, system="", messages=(), effort=self.run.agent.effort),
            task=self.run.task,
            plan_step=self.asking.plan.title,
            tools=[(tool.spec, schema_for_model(tool.spec.input_schema)) for tool in tools],
            written=what_was_written(refusal.tool, refusal.args, refusal.reason),
        )
        step = self.caller.call(
            f"repair:{place}",
            StepKind.MODEL,
            "Ask for this call alone",
            request,
            plan_step=self.asking.plan.step,
            conversation=False,
            optional=True,
        )
        reply = reply_of(step)
        if step.status is not StepStatus.OK or reply.stop_reason != "tool_use" or len(reply.tool_uses) != 1:
            tried.append("Asked for this call alone: no usable call came")
            return None
        call = read_call(refusal.intent, reply.tool_uses[0], {tool.spec.model_name: tool for tool in tools})
        if isinstance(call, Refusal):
            tried.append(f"Asked for this call alone: {call.reason}")
            return None
        return replace(
            call,
            tool_call_id=refusal.tool_call_id,
            doubt=self.streak.doubt({call.tool.replace(".", "__")}),
            note=f"Your call could not be used; {call.tool} was called with {as_text(call.args)} instead.",
        )

    def _question(self, place: str, refusal: Refusal, tried: list[str]) -> Question:
        known = self._known(refusal) is not None
        return malformed_question(place, refusal.tool, known, refusal.args, refusal.reason, tried)

    def _by_a_person(self, refusal: Refusal, question: Question) -> Call | Refusal:
        """The third layer. Who stops the run stops it for all calls of the turn."""
        if self.ended is not None:
            return replace(refusal, reason=ENDED)
        try:
            answer = self.asking.ask(question)
        except Stop as stop:
            self.ended = stop
            return replace(refusal, reason=ENDED)
        tool = self._known(refusal)
        if answer.args is None or tool is None:
            return replace(refusal, reason=f"{refusal.reason} {answer.by} says: {answer.text}")
        said = f" {answer.by} says: {answer.text}" if answer.text else ""
        written = {"name": tool.spec.model_name, "id": refusal.tool_call_id, "input": answer.args}
        call = read_call(refusal.intent, written, self.tools)
        if isinstance(call, Refusal):  # the tool has changed since the answer was checked
            return call
        note = f"{answer.by} corrected your call to {as_text(call.args)}.{said}"
        return replace(call, args=call.args, reasoning=refusal.reasoning, doubt=BY_A_PERSON, note=note)

    def _known(self, refusal: Refusal) -> Tool | None:
        return self.tools.get(refusal.tool.replace(".", "__"))

    # --- turns without calls -----------------------------------------------------------------------------------------

    def empty(self, turn: int, conversation: Conversation, request: Callable[[], ModelRequest]) -> str | None:
        """The answer, if one comes without tools (the second layer of a turn without a call); else the model is told
        something and has another turn."""
        if self._failed(turn, (), "the turn was empty") is Layer.TELL:
            conversation.say(EMPTY_TOLD)
            return None
        conversation.say(EMPTY_ASKED)
        asked = request()
        asked = replace(asked, tool_choice={"type": "none"} if asked.tools else None, goes_on=False)
        step = self.caller.call(f"repair:{turn}", StepKind.MODEL, "Ask for an answer in words", asked, optional=True)
        reply = reply_of(step)
        if step.status is StepStatus.OK and reply.text.strip():
            self.streak.worked()
            conversation.reply(reply.content)
            return reply.text
        self.streak.tried.append("Asked for an answer in words: nothing came")
        answer = self.asking.ask(empty_question(turn, self.streak.tried))
        self.streak.worked()
        conversation.say(f"{answer.by} says: {answer.text}")
        return None

    def misfit(self, turn: int, why: str, schema: JsonObject | None) -> str:
        """What the model is told of an answer that is not in the agent's form; in the end, by a person."""
        if self._failed(turn, (), f"the answer has not the form that is asked for: {why}") is Layer.TELL:
            return MISFIT_TOLD.format(why=why, schema=as_text(schema or {})[:SHOWN_CHARACTERS])
        answer = self.asking.ask(misfit_question(turn, why, self.streak.tried))
        self.streak.worked()
        return f"{answer.by} says: {answer.text}"

    def refused(self, turn: int, said: str) -> str:
        """What a person says after the model refused; `Stop` when nobody has an answer."""
        answer = self.asking.ask(refusal_question(turn, said))
        return f"{answer.by} says: {answer.text}"

    # --- the trace ---------------------------------------------------------------------------------------------------

    def _failed(self, turn: int, names: Collection[str], why: str) -> Layer:
        layer = self.streak.failed(names)
        tells = layer is Layer.TELL
        gentler = ", at lower effort" if self.run.agent.effort else ""
        told = f"Told the model, try {self.streak.failures} of {TELLS}{gentler}."
        what = told if tells else "Telling the model did not help."
        if tells:
            self.streak.tried.append(f"Told the model: {why}")
        step = Step(
            kind=StepKind.GUARDRAIL,
            title="Malformed turn",
            summary=f"{what} {why}"[:300],
            attempt=self.streak.failures,
            plan_step=self.asking.plan.step,
            started_at=self.asking.clock.now(),
        )
        self.asking.journal.once(f"malformed-turn:{turn}", StepKind.GUARDRAIL, lambda: step)
        return layer
