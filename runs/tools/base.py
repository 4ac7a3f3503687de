"""What every tool shares: arguments held against a JSON Schema, and the version that an approval is bound to."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from typing import Any, cast

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, ValidationError
from referencing.exceptions import Unresolvable
from referencing.jsonschema import EMPTY_REGISTRY

from runs.engine.ports import InvalidArguments, ToolUnavailable
from runs.engine.types import Effect, JsonObject, Risk, ToolPlan, ToolResult, ToolSpec
from runs.schemas import FoundTool

MAX_DEPTH = 60
MAX_ERRORS = 20
MESSAGE_CHARACTERS = 300
# With any of these a schema may allow, or name, more arguments than stand in its `properties`.
OPENERS = frozenset(
    {"additionalProperties", "unevaluatedProperties", "patternProperties", "propertyNames", "$ref", "$dynamicRef"}
    | {"allOf", "anyOf", "oneOf", "if", "dependentSchemas", "not"}
)
# Beyond this an integer is not the same number to every reader of JSON (RFC 8785, RFC 7493).
MAX_INTEGER = 2**53 - 1

_RISK_OF_EFFECT = {Effect.READ: Risk.LOW, Effect.WRITE: Risk.MEDIUM, Effect.IRREVERSIBLE: Risk.HIGH}


class ServerError(Exception):
    """A tool server that can't be used. The message is for the person who adds it."""


def tool_version(name: str, description: str, schema: JsonObject) -> str:
    """Twelve hex digits that change with anything the model or the approver is told of the tool."""
    canonical = json.dumps([name, description, schema], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]


def risk_of(effect: Effect, named: object = None) -> Risk:
    """The risk that the tool names for itself where it is one of ours, else that of its effect."""
    if isinstance(named, str) and named in list(Risk):
        return Risk(named)
    return _RISK_OF_EFFECT[effect]


def spec_of(found: FoundTool, server: str, timeout_s: float = 30.0) -> ToolSpec:
    """A server's tool as the engine, people and policies know it: `server.name`."""
    return ToolSpec(
        name=f"{server}.{found.name}",
        description=found.description,
        input_schema=found.input_schema,
        effect=Effect(found.effect),
        version=found.version or tool_version(found.name, found.description, found.input_schema),
        risk=found.risk,
        idempotent=found.idempotent,
        can_plan=found.plan is not None,
        can_undo=found.undo is not None,
        can_reconcile=found.reconcile is not None,
        repeatable=found.repeatable,
        timeout_s=timeout_s,
        server=server,
    )


def schema_fault(schema: JsonObject) -> str | None:
    """Why the schema can't describe a tool's arguments, or None."""
    if schema.get("type") != "object":
        return 'its input schema is not of type "object"'
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        return f"its input schema is not valid: {error.message[:MESSAGE_CHARACTERS]}"
    return None


class ArgumentSchema:
    """Holds arguments against one schema, changing nothing: no coercion, no defaults. Never fetches a reference.

    Arguments that the schema does not name are refused, unless it says what becomes of them. JSON Schema would let them
    pass, but most servers drop them unread: people would approve `dry_run: true`, and it would not be one.
    """

    def __init__(self, schema: JsonObject) -> None:
        closed = schema if OPENERS & schema.keys() else {"additionalProperties": False, **schema}
        self._validator = Draft202012Validator(closed if "properties" in schema else schema, registry=EMPTY_REGISTRY)

    def check(self, args: JsonObject) -> None:
        """Raises `InvalidArguments`."""
        check_json(args)
        try:
            errors = sorted(self._validator.iter_errors(args), key=lambda error: [str(part) for part in error.path])
        except Unresolvable as missing:
            raise InvalidArguments([("", f"the tool's schema refers to {missing.ref}, which is not there")]) from None
        if errors:
            raise InvalidArguments([fault for error in errors[:MAX_ERRORS] for fault in _faults_of(error)])


def check_json(args: JsonObject) -> None:
    """Raises `InvalidArguments` for what could not be stored, hashed or sent as it is."""
    if faults := list(_json_faults(args, (), 0)):
        raise InvalidArguments(faults[:MAX_ERRORS])


def _json_faults(value: object, path: tuple[str | int, ...], depth: int) -> Iterator[tuple[str, str]]:
    if not isinstance(value, dict | list):
        if fault := _scalar_fault(value):
            yield _field(path), fault
    elif depth >= MAX_DEPTH:
        yield _field(path), f"nested deeper than {MAX_DEPTH} levels"
    elif isinstance(value, dict):
        yield from _object_faults(value, path, depth)
    else:
        for index, item in enumerate(value):
            yield from _json_faults(item, (*path, index), depth + 1)


def _scalar_fault(value: object) -> str | None:
    match value:
        case None | bool():
            return None
        case str():
            return _text_fault(value)
        case int():
            return "the integer is too large for JSON; use a string" if abs(value) > MAX_INTEGER else None
        case float():
            return None if math.isfinite(value) else f"{value} is not a JSON number"
    return f"a {type(value).__name__} is not JSON"


def _object_faults(value: dict[Any, Any], path: tuple[str | int, ...], depth: int) -> Iterator[tuple[str, str]]:
    for key, item in value.items():
        if not isinstance(key, str) or _text_fault(key):
            yield _field(path), "a key is not usable text"
        else:
            yield from _json_faults(item, (*path, key), depth + 1)


def _text_fault(text: str) -> str | None:
    if "\x00" in text:
        return "the text holds a NUL character"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "the text holds half of a surrogate pair"
    return None


def _faults_of(error: ValidationError) -> Iterator[tuple[str, str]]:
    """A missing or unknown property is named itself, not the object around it."""
    path = tuple(error.absolute_path)
    schema = error.schema if isinstance(error.schema, dict) else {}
    given = error.instance if isinstance(error.instance, dict) else {}
    match error.validator:
        case "required":
            for name in cast("list[str]", error.validator_value):
                if name not in given and f"{name!r} is" in error.message:
                    yield _field((*path, name)), "is required"
        case "additionalProperties" if error.validator_value is False:
            for name in sorted(set(given) - set(schema.get("properties", ()))):
                yield _field((*path, name)), "is not an argument of this tool"
        case _:
            yield _field(path), error.message[:MESSAGE_CHARACTERS]


def _field(path: tuple[str | int, ...]) -> str:
    """`customer.tags[2]`; empty for the arguments as a whole."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")


class BuiltinTool:
    """The base of the tools that come with agentsite: nothing outside the run, so nothing to reconcile."""

    def __init__(self, spec: ToolSpec) -> None:
        self._spec = spec
        self._schema = ArgumentSchema(spec.input_schema)

    @property
    def spec(self) -> ToolSpec:
        return self._spec

    def validate(self, args: JsonObject) -> None:
        self._schema.check(args)

    def plan(self, args: JsonObject) -> ToolPlan | None:
        del args
        return None

    def execute(self, args: JsonObject, *, idempotency_key: str, timeout_s: float) -> ToolResult:
        raise NotImplementedError

    def reconcile(self, idempotency_key: str) -> str:
        """Without an effect outside the run, a call whose record is missing has changed nothing."""
        del idempotency_key
        return "did_not_happen"

    def undo(self, idempotency_key: str) -> ToolResult:
        del idempotency_key
        raise ToolUnavailable(f"{self.spec.name} cannot be undone")


def builtin_spec(
    name: str,
    description: str,
    schema: JsonObject,
    effect: Effect,
    *,
    risk: Risk,
    can_plan: bool = False,
    repeatable: bool = False,
) -> ToolSpec:
    return ToolSpec(
        name=name,
        description=description,
        input_schema=schema,
        effect=effect,
        version=tool_version(name, description, schema),
        risk=risk,
        idempotent=True,
        can_plan=can_plan,
        repeatable=repeatable,
    )
