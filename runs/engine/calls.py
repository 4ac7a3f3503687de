"""Reading a model's tool calls: every call becomes either a valid `Call` or a `Refusal` that the model is told."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from runs.engine.ports import InvalidArguments, Tool
from runs.engine.types import Call, JsonObject

REASONING = "reasoning"
CONFIDENCE = "confidence"
FORBIDDEN = "Not done: this agent's policy forbids this tool. Every call of it is refused, so go on without it."
NO_OBJECT = "The input was not a JSON object."
SHOWN_CHARACTERS = 300  # of an input that can't be read, for whoever writes the call anew
NOTHING: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A call that will not be made. `tool` is the name as the model wrote it when no such tool exists. One that is
    `forbidden` is not malformed: writing it anew would not help."""

    intent: str
    tool_call_id: str
    tool: str
    reason: str
    args: JsonObject
    reasoning: str = ""
    confidence: float | None = None
    forbidden: bool = False


def schema_for_model(schema: JsonObject) -> JsonObject:
    """The tool's own schema with `reasoning` and `confidence` asked for beside its arguments. The system prompt says
    once what they mean: descriptions here would be sent for each tool.

    A tool that has an argument of that name keeps it: the value then serves both. What tells a model nothing is left
    out, for it is sent with every call.
    """
    known = _lean(schema)
    properties = dict(known.get("properties") or {})
    properties.setdefault(REASONING, {"type": "string"})
    properties.setdefault(CONFIDENCE, {"type": "number", "minimum": 0, "maximum": 1})
    required = list(dict.fromkeys([*(known.get("required") or []), REASONING, CONFIDENCE]))
    return {**known, "type": "object", "properties": properties, "required": required}


def _lean(schema: Any, name: str = "") -> Any:
    """Without the titles that generators make of names, and without the word that no other arguments are allowed: the
    call is held against the whole schema anyway."""
    if not isinstance(schema, dict):
        return schema
    kept: JsonObject = {}
    for key, value in schema.items():
        if key == "$schema" or (key == "title" and _says_nothing(value, name)):
            continue
        if key == "additionalProperties" and value is False:
            continue
        inner = value if key == "properties" and isinstance(value, dict) else None
        kept[key] = value if inner is None else {each: _lean(of, each) for each, of in inner.items()}
    return kept


def _says_nothing(title: object, name: str) -> bool:
    """Whether it is the title of the arguments as a whole, or a property's name once more."""
    return not name or (isinstance(title, str) and title.replace(" ", "_").lower() == name.lower())


def read_call(
    intent: str, block: JsonObject, tools: Mapping[str, Tool], forbidden: Mapping[str, str] = NOTHING
) -> Call | Refusal:
    """`tools` is keyed by the name the model sees. `forbidden` are the tools the agent's policy keeps from it: by that
    name, as people know them."""
    name = str(block.get("name") or "")
    call_id = str(block.get("id") or "")
    given = block.get("input")
    tool = tools.get(name)
    if name in forbidden:
        args, reasoning, confidence = take_off(given if isinstance(given, dict) else {}, {})
        return Refusal(
            intent=intent,
            tool_call_id=call_id,
            tool=forbidden[name],
            args=args,
            reasoning=reasoning,
            confidence=confidence,
            reason=FORBIDDEN,
            forbidden=True,
        )
    if not isinstance(given, dict):
        called = tool.spec.name if tool is not None else name
        began = f" It begins with: {given[:SHOWN_CHARACTERS]}" if isinstance(given, str) and given.strip() else ""
        return Refusal(intent=intent, tool_call_id=call_id, tool=called, args={}, reason=f"{NO_OBJECT}{began}")
    if tool is None:
        known = ", ".join(sorted(tools)) or "none"
        reason = f"There is no tool named {name!r}. Tools: {known}."
        return Refusal(intent=intent, tool_call_id=call_id, tool=name, args=given, reason=reason)
    args, reasoning, confidence = take_off(given, tool.spec.input_schema)
    try:
        tool.validate(args)
    except InvalidArguments as invalid:
        return Refusal(
            intent=intent,
            tool_call_id=call_id,
            tool=tool.spec.name,
            args=args,
            reasoning=reasoning,
            confidence=confidence,
            reason=f"The arguments do not fit: {invalid}.",
        )
    return Call(
        intent=intent,
        tool_call_id=call_id,
        tool=tool.spec.name,
        args=args,
        reasoning=reasoning,
        confidence=confidence,
    )


def take_off(given: JsonObject, schema: JsonObject) -> tuple[JsonObject, str, float | None]:
    """(the tool's own arguments, reasoning, confidence or None when it is no finite number)."""
    own = set(schema.get("properties") or {})
    args = {key: value for key, value in given.items() if key in own or key not in (REASONING, CONFIDENCE)}
    reasoning = given.get(REASONING)
    return args, reasoning if isinstance(reasoning, str) else "", usable_number(given.get(CONFIDENCE))


def usable_number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def read_json(text: str) -> Any:
    """A model's JSON. Raises ValueError for whatever can't be read, however deeply it is nested."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("the JSON is nested too deeply") from None
