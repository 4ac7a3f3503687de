"""A turn that can't be carried out: what is wrong with it, and which layer answers it.

Each layer gives up capability for reliability: the error goes back to the model as the call's result, twice and at
lower effort; then the call alone is asked for, in a simplified request; then a person is asked. Pure code; `mending.py`
acts.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from runs.engine.types import JsonObject, ModelReply, ModelRequest, Question, StopReason, ToolSpec

TELLS = 2
EFFORTS = ("low", "medium", "high", "xhigh", "max")
SHOWN_CHARACTERS = 2000

CUT = "Not done: the turn was cut off by its token limit, so this call may be incomplete."
NOT_ENDED = "Not done: the turn did not end in order to use tools."
ENDED = "Not done: the run ends here."
EMPTY_TOLD = "Your last turn was empty. Go on with the task; if nothing is left to do, say what the result is."
EMPTY_ASKED = "Your turns were empty. Say now in words what the result is. No tools can be used in this turn."
MISFIT_TOLD = (
    "Your answer has not the form that is asked for: {why}. Give the whole answer anew, as JSON alone, by this schema: "
    "{schema}"
)
SYSTEM = "You correct one tool call. Answer with that call and nothing else."


class Trouble(StrEnum):
    """What keeps a turn from being carried out as it is."""

    REFUSED = "refused"
    OVERFLOW = "overflow"
    CUT = "cut"
    NOT_ENDED = "not_ended"
    LONG = "long"
    EMPTY = "empty"


class Layer(StrEnum):
    TELL = "tell"
    SIMPLIFY = "simplify"


def trouble_of(reply: ModelReply) -> Trouble | None:
    """None for a turn that is an answer, or that ended in order to use the tools it names (invariant 11)."""
    if reply.stop_reason == "refusal":
        return Trouble.REFUSED
    if reply.stop_reason == "model_context_window_exceeded":
        return Trouble.OVERFLOW
    if reply.stop_reason == "max_tokens":
        return Trouble.CUT if reply.tool_uses else Trouble.LONG
    if reply.tool_uses:
        return None if reply.stop_reason == "tool_use" else Trouble.NOT_ENDED
    return None if reply.text.strip() else Trouble.EMPTY


@dataclass(slots=True)
class Streak:
    """Malformed turns in a row. Rebuilt by replay, so the same turn is always answered by the same layer."""

    failures: int = 0
    tools: frozenset[str] = frozenset()  # that the malformed calls of the last turn named
    tried: list[str] = field(default_factory=list)

    def failed(self, tools: Collection[str]) -> Layer:
        self.failures += 1
        self.tools = frozenset(tools)
        return Layer.TELL if self.failures <= TELLS else Layer.SIMPLIFY

    def worked(self) -> None:
        self.failures, self.tools, self.tried = 0, frozenset(), []

    def doubt(self, tools: Collection[str]) -> str:
        """Why calls of these tools are not trusted after a malformed turn; empty when they are. Valid JSON that calls
        another tool than before is the dangerous way for a model to get out of an error."""
        if not self.tools or not self.tools.isdisjoint(tools):
            return ""
        return f"after a malformed call of {_listed(self.tools)} the model called another tool"


def gentler(request: ModelRequest, failures: int) -> ModelRequest:
    """The request after malformed turns: one effort lower, and temperature 0 for a provider that takes one."""
    if not failures:
        return request
    return replace(request, effort=lower(request.effort), temperature=0.0)


def lower(effort: str | None) -> str | None:
    """None stays: what a model does without a word on effort is its own, and not every model takes one."""
    return EFFORTS[max(0, EFFORTS.index(effort) - 1)] if effort in EFFORTS else effort


def simplified(
    request: ModelRequest, *, task: str, plan_step: str, tools: Sequence[tuple[ToolSpec, JsonObject]], written: str
) -> ModelRequest:
    """The task, the current plan step and only the tools in question (one, where the model named one that exists),
    with a strict schema and a forced choice. `tools` are specs with the schema for the model; `written` is what was
    wrong."""
    parts = [f"Task:\n{task}", f"Current step of the plan: {plan_step}" if plan_step else "", written]
    parts.append("Make this one call again, so that its arguments fit the tool's schema exactly.")
    choice: JsonObject = {"type": "tool", "name": tools[0][0].model_name} if len(tools) == 1 else {"type": "any"}
    definitions = tuple(
        {
            "name": spec.model_name,
            "description": spec.description or spec.name,
            "input_schema": schema,
            "strict": True,
        }
        for spec, schema in tools
    )
    text = "\n\n".join(part for part in parts if part)
    return ModelRequest(
        model=request.model,
        system=SYSTEM,
        messages=({"role": "user", "content": [{"type": "text", "text": text}]},),
        tools=definitions,
        effort=lower(request.effort),
        temperature=0.0,
        tool_choice={**choice, "disable_parallel_tool_use": True},
        goes_on=False,
    )


def what_was_written(tool: str, args: JsonObject, reason: str) -> str:
    shown = json.dumps(args, ensure_ascii=False)[:SHOWN_CHARACTERS]
    return f"A call of {tool or 'no named tool'} could not be used: {reason}\nIts arguments were: {shown}"


def malformed_question(place: str, tool: str, known: bool, args: JsonObject, reason: str, tried: list[str]) -> Question:
    """`place` is the turn, or for its second malformed call and those after it the call's own."""
    ways = "Correct the call, write a hint that the agent reads, or stop the run."
    return Question(
        key=f"malformed:{place}",
        title=f"A call of {tool if known else 'an unknown tool'} does not work",
        text=f"The agent tried to call {tool or 'a tool'} again and again, and its call cannot be used. {reason} "
        f"{ways if known else 'Write a hint that the agent reads, or stop the run.'}",
        tried=tuple(tried),
        tool=tool if known else "",
        args=args if known else None,
    )


def empty_question(turn: int, tried: list[str]) -> Question:
    return Question(
        key=f"malformed:{turn}",
        title="The agent says nothing",
        text="The model ended its turns without a word and without a call. Write a hint that the agent reads, or stop "
        "the run.",
        tried=tuple(tried),
    )


def misfit_question(turn: int, why: str, tried: list[str]) -> Question:
    return Question(
        key=f"malformed:{turn}",
        title="The answer has not the form that is asked for",
        text=f"The agent's answers do not fit its output schema. The last one: {why}. Write a hint that the agent "
        "reads, or stop the run.",
        tried=tuple(tried),
    )


def refusal_question(turn: int, said: str) -> Question:
    return Question(
        key=f"refused:{turn}",
        title="The model refused to go on",
        text="The model's own safety filter ended its turn. Its refused turn is left out. Write what the agent should "
        "know or do differently, or stop the run.",
        tried=(f"It said: {said[:SHOWN_CHARACTERS]}",) if said else (),
        unanswered=StopReason.CONTENT_FILTER,
    )


def _listed(names: Collection[str]) -> str:
    return ", ".join(sorted(name.replace("__", ".", 1) or "an unnamed tool" for name in names))
