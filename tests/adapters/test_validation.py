from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from runs.digest import action_digest
from runs.engine.ports import InvalidArguments, Tool, ToolUnavailable
from runs.engine.types import Effect, Risk
from runs.schemas import FoundTool
from runs.tools import BUILTIN, RESERVED_SLUGS
from runs.tools.base import ArgumentSchema, risk_of, schema_fault, spec_of, tool_version
from runs.tools.clock import TimeNow

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "order": {"type": "string", "minLength": 1},
        "amount": {"type": "number", "exclusiveMinimum": 0},
        "count": {"type": "integer"},
        "urgent": {"type": "boolean", "default": False},
        "lines": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"sku": {"type": "string"}},
                "required": ["sku"],
                "additionalProperties": False,
            },
        },
    },
    "required": ["order", "amount"],
    "additionalProperties": False,
}


def faults(args: Any, schema: dict[str, Any] = SCHEMA) -> list[str]:
    """The fields that were refused."""
    try:
        ArgumentSchema(schema).check(args)
    except InvalidArguments as invalid:
        return [field for field, message in invalid.errors if message]
    return []


def test_good_arguments_pass_and_are_not_touched() -> None:
    args = {"order": "1", "amount": 1.0, "count": 2, "lines": [{"sku": "a"}]}
    before = repr(args)
    assert faults(args) == []
    assert repr(args) == before


@pytest.mark.parametrize(
    ("args", "fields"),
    [
        ({"amount": 1}, ["order"]),
        ({}, ["order", "amount"]),
        ({"order": "1", "amount": "1"}, ["amount"]),
        ({"order": 1, "amount": 1}, ["order"]),
        ({"order": "1", "amount": True}, ["amount"]),
        ({"order": "1", "amount": 1, "count": 1.5}, ["count"]),
        ({"order": "1", "amount": 1, "urgent": 1}, ["urgent"]),
        ({"order": "1", "amount": 0}, ["amount"]),
        ({"order": "1", "amount": None}, ["amount"]),
        ({"order": "1", "amount": 1, "approved": True}, ["approved"]),
        ({"order": "1", "amount": 1, "lines": [{"sku": "a"}, {"sku": "b", "free": 1}]}, ["lines[1].free"]),
        ({"order": "1", "amount": 1, "lines": [{}]}, ["lines[0].sku"]),
        ([], [""]),
    ],
)
def test_refused_without_coercion_naming_the_field(args: Any, fields: list[str]) -> None:
    assert faults(args) == fields


@pytest.mark.parametrize(
    ("value", "field"),
    [
        (float("nan"), "a"),
        (float("inf"), "a"),
        ([1, {"b": float("-inf")}], "a[1].b"),
        (2**53, "a"),
        (-(2**60), "a"),
        ("nul \x00", "a"),
        ("half \ud800", "a"),
        ({"bad\x00key": 1}, "a"),
        ({1: 1}, "a"),
        (datetime.now(UTC), "a"),
        ({1, 2}, "a"),
    ],
)
def test_what_json_cannot_carry_is_refused_whatever_the_schema_allows(value: Any, field: str) -> None:
    assert faults({"a": value}, {"type": "object"}) == [field]


def test_too_deep_is_refused() -> None:
    value: Any = 1
    for _ in range(5000):
        value = [value]
    with pytest.raises(InvalidArguments, match="nested deeper"):
        ArgumentSchema({"type": "object"}).check({"a": value})


def test_whatever_passes_can_be_bound_to_an_approval() -> None:
    for value in (2**53 - 1, 1e308, -0.0, "\U0001f600", "\u202e", {"": [None, True]}):
        args = {"a": value}
        ArgumentSchema({"type": "object"}).check(args)
        assert action_digest(tool="t", tool_version="1", args=args, run="r", policy_version="1")


def test_long_values_do_not_fill_the_message() -> None:
    with pytest.raises(InvalidArguments) as caught:
        ArgumentSchema(SCHEMA).check({"order": "1", "amount": "9" * 100_000})
    assert len(str(caught.value)) < 400


@pytest.fixture
def schema_host() -> Iterator[tuple[str, list[str]]]:
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}", asked
    server.shutdown()
    server.server_close()
    thread.join()


def test_references_are_never_fetched(schema_host: tuple[str, list[str]]) -> None:
    url, asked = schema_host
    schema = {"type": "object", "properties": {"a": {"$ref": f"{url}/schema.json"}}}
    assert faults({"a": 1}, schema) == [""]
    assert asked == []
    local = {"type": "object", "properties": {"a": {"$ref": "#/$defs/n"}}, "$defs": {"n": {"type": "integer"}}}
    assert faults({"a": "x"}, local) == ["a"]


def test_arguments_that_the_schema_does_not_name_are_refused() -> None:
    """Most servers drop them unread, so whoever approves would approve something else than what happens."""
    named: dict[str, Any] = {"type": "object", "properties": {"order": {"type": "string"}}}
    assert faults({"order": "1", "dry_run": True}, named) == ["dry_run"]
    assert faults({"dry_run": True}, {"type": "object", "properties": {}}) == ["dry_run"]
    for opener in (
        {"additionalProperties": True},
        {"patternProperties": {"^dry": {"type": "boolean"}}},
        {"allOf": [{"properties": {"dry_run": {"type": "boolean"}}}]},
    ):
        assert faults({"order": "1", "dry_run": True}, {**named, **opener}) == []
    assert faults({"dry_run": True}, {"type": "object"}) == []


def test_schemas_that_cannot_describe_arguments() -> None:
    assert schema_fault(SCHEMA) is None
    assert "object" in str(schema_fault({"type": "array"}))
    assert "object" in str(schema_fault({}))
    assert "not valid" in str(schema_fault({"type": "object", "properties": {"a": {"type": "no such"}}}))


def test_version_changes_with_what_people_are_told_and_only_with_that() -> None:
    first = tool_version("a", "does a", {"type": "object", "properties": {"x": {}, "y": {}}})
    assert first == tool_version("a", "does a", {"properties": {"y": {}, "x": {}}, "type": "object"})
    assert len(first) == 12
    others = {
        tool_version("b", "does a", {"type": "object", "properties": {"x": {}, "y": {}}}),
        tool_version("a", "does b", {"type": "object", "properties": {"x": {}, "y": {}}}),
        tool_version("a", "does a", {"type": "object", "properties": {"x": {}}}),
    }
    assert len(others | {first}) == 4


def test_risk_follows_the_effect_unless_a_known_one_is_named() -> None:
    assert [risk_of(effect) for effect in Effect] == [Risk.LOW, Risk.MEDIUM, Risk.HIGH]
    assert risk_of(Effect.READ, "critical") is Risk.CRITICAL
    assert risk_of(Effect.READ, "harmless") is Risk.LOW
    assert risk_of(Effect.WRITE, ["low"]) is Risk.MEDIUM


def test_spec_of_a_server_tool() -> None:
    found = FoundTool(name="refund", description="d", input_schema=SCHEMA, effect="irreversible", plan="p", version="v")
    spec = spec_of(found, "shop", 7)
    assert (spec.name, spec.model_name, spec.server) == ("shop.refund", "shop__refund", "shop")
    assert (spec.effect, spec.version, spec.can_plan, spec.can_undo) == (Effect.IRREVERSIBLE, "v", True, False)
    assert spec.timeout_s == 7
    unversioned = found.model_copy(update={"version": ""})
    assert spec_of(unversioned, "shop").version == tool_version("refund", "d", SCHEMA)


# Built-in tools


def run(tool: Tool, args: dict[str, Any]) -> Any:
    tool.validate(args)
    return tool.execute(args, idempotency_key="k", timeout_s=1)


def test_builtin_table() -> None:
    assert list(BUILTIN) == ["notes.write", "time.now"]
    assert sorted(RESERVED_SLUGS) == ["notes", "output", "time"]
    for name, tool in BUILTIN.items():
        assert tool.spec.name == name
        assert tool.spec.idempotent
        assert schema_fault(tool.spec.input_schema) is None
        assert tool.reconcile("k") == "did_not_happen"
        with pytest.raises(ToolUnavailable, match="cannot be undone"):
            tool.undo("k")


def test_note_is_a_low_risk_write_that_shows_what_it_will_say() -> None:
    tool = BUILTIN["notes.write"]
    assert (tool.spec.effect, tool.spec.risk) == (Effect.WRITE, Risk.LOW)
    text = "Checked the order. " * 20
    plan = tool.plan({"text": text})
    assert plan is not None
    assert len(plan.summary) < 120
    assert plan.preview["fields"] == [{"field": "note", "now": None, "after": text}]
    assert run(tool, {"text": text}).content == {"noted": text}
    with pytest.raises(InvalidArguments):
        tool.validate({"text": ""})
    with pytest.raises(InvalidArguments):
        tool.validate({"text": "a", "to": "b"})


def test_time_in_a_zone() -> None:
    tool = TimeNow(now=lambda: datetime(2026, 11, 22, 23, 30, tzinfo=UTC))
    assert run(tool, {}).content == {"now": "2026-11-22T23:30:00+00:00", "weekday": "Sunday"}
    assert run(tool, {"timezone": "Europe/Rome"}).content == {"now": "2026-11-23T00:30:00+01:00", "weekday": "Monday"}
    assert tool.plan({}) is None


@pytest.mark.parametrize("zone", ["Mars/Olympus", "../../etc/passwd", "", "Europe", "/etc/localtime"])
def test_unknown_zone_is_an_answer_not_a_crash(zone: str) -> None:
    assert run(BUILTIN["time.now"], {"timezone": zone}).is_error
