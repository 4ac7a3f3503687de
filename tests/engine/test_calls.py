"""Reading a model's tool calls."""

from __future__ import annotations

import math

import pytest

from runs.engine.calls import FORBIDDEN, Refusal, read_call, read_json, schema_for_model, take_off, usable_number
from runs.engine.fakes import FakeTool
from runs.engine.types import Call, JsonObject

TOOLS = {"shop__pay": FakeTool("shop.pay", args={"amount": "number"})}


def read(given: object, *, name: str = "shop__pay") -> Call | Refusal:
    return read_call("1:0", {"type": "tool_use", "id": "c1", "name": name, "input": given}, TOOLS)


def test_a_call_is_read_with_its_reasons_taken_off() -> None:
    call = read({"amount": 84.0, "reasoning": "A dent.", "confidence": 0.9})

    assert call == Call(
        intent="1:0", tool_call_id="c1", tool="shop.pay", args={"amount": 84.0}, reasoning="A dent.", confidence=0.9
    )


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ('{"amount": 84.', 'The input was not a JSON object. It begins with: {"amount": 84.'),
        ("", "The input was not a JSON object."),
        (None, "The input was not a JSON object."),
        ({}, "The arguments do not fit: amount: is required."),
        ({"amount": 1, "tip": 2}, "The arguments do not fit: tip: is not known."),
        ({"amount": math.nan}, "The arguments do not fit: amount: is not a number."),
        ({"amount": math.inf}, "The arguments do not fit: amount: is not a number."),
        ({"amount": "84"}, "The arguments do not fit: amount: is not a number."),
        ({"amount": True}, "The arguments do not fit: amount: is not a number."),
    ],
)
def test_a_call_that_does_not_fit_is_refused(given: object, why: str) -> None:
    refusal = read(given)

    assert isinstance(refusal, Refusal)
    assert (refusal.reason, refusal.intent, refusal.tool_call_id) == (why, "1:0", "c1")
    assert refusal.tool == "shop.pay"


def test_a_refusal_keeps_what_the_model_said_of_the_call() -> None:
    refusal = read({"reasoning": "A dent.", "confidence": 0.4, "tip": 1})

    assert isinstance(refusal, Refusal)
    assert (refusal.tool, refusal.args, refusal.reasoning, refusal.confidence) == (
        "shop.pay",
        {"tip": 1},
        "A dent.",
        0.4,
    )


@pytest.mark.parametrize("name", ["shop.pay", "pay", "", "SHOP__PAY"])
def test_only_the_offered_name_is_a_tool(name: str) -> None:
    refusal = read({"amount": 1}, name=name)

    assert isinstance(refusal, Refusal)
    assert refusal.tool == name
    assert refusal.reason == f"There is no tool named {name!r}. Tools: shop__pay."


def test_without_tools_there_are_none() -> None:
    refusal = read_call("1:0", {}, {})

    assert isinstance(refusal, Refusal)
    assert (refusal.reason, refusal.tool_call_id) == ("The input was not a JSON object.", "")
    assert "Tools: none." in str(read_call("1:0", {"name": "x", "input": {}}, {}))


# --- reasoning and confidence ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("reasoning", [None, 1, ["because"], {}])
def test_reasoning_that_is_no_text_is_none(reasoning: object) -> None:
    assert take_off({"reasoning": reasoning}, {})[1] == ""


def test_a_tool_keeps_an_argument_of_its_own_by_that_name() -> None:
    schema = {"properties": {"confidence": {"type": "number"}}}

    assert take_off({"confidence": 0.7, "reasoning": "r"}, schema) == ({"confidence": 0.7}, "r", 0.7)


@pytest.mark.parametrize(
    "value", [math.nan, math.inf, -math.inf, True, False, None, "1", [1], 10**400, -(10**400)], ids=str
)
def test_numbers_that_are_none(value: object) -> None:
    assert usable_number(value) is None


@pytest.mark.parametrize("value", [0, 1, -3, 0.5, 2**53])
def test_numbers(value: float) -> None:
    assert usable_number(value) == value


@pytest.mark.parametrize(
    ("schema", "required"),
    [
        ({}, ["reasoning", "confidence"]),
        ({"properties": None, "required": None}, ["reasoning", "confidence"]),
        ({"properties": {"a": {}}, "required": ["a"]}, ["a", "reasoning", "confidence"]),
        ({"properties": {"confidence": {}}, "required": ["confidence"]}, ["confidence", "reasoning"]),
    ],
)
def test_the_schema_for_the_model_asks_for_both(schema: JsonObject, required: list[str]) -> None:
    before = repr(schema)

    asked = schema_for_model(schema)

    assert asked["required"] == required
    assert set(required) <= set(asked["properties"])
    assert asked["type"] == "object"
    assert repr(schema) == before


def test_a_tools_own_property_is_not_overwritten() -> None:
    own = {"type": "integer", "description": "How sure the customer is."}

    assert schema_for_model({"properties": {"confidence": own}})["properties"]["confidence"] == own


@pytest.mark.parametrize("given", [{"amount": 84.0, "reasoning": "Spam.", "confidence": 0.9}, [], "cut {"])
def test_a_forbidden_tool_is_named_as_such_whatever_its_input(given: object) -> None:
    block = {"type": "tool_use", "id": "c1", "name": "shop__ban", "input": given}

    refused = read_call("1:0", block, TOOLS, {"shop__ban": "shop.ban"})

    assert isinstance(refused, Refusal)
    assert (refused.tool, refused.forbidden, refused.reason) == ("shop.ban", True, FORBIDDEN)
    assert (refused.args, refused.confidence) == (({"amount": 84.0}, 0.9) if isinstance(given, dict) else ({}, None))


def test_what_tells_a_model_nothing_is_not_sent_with_every_call() -> None:
    order = {"type": "string", "title": "Order Number", "description": "such as 48213", "maxLength": 9}
    customer = {"type": "object", "properties": {"title": {"type": "string"}}, "additionalProperties": False}
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "pay_arguments",
        "properties": {"order_number": order, "customer": customer, "vat": {"type": "string", "title": "VAT id"}},
        "additionalProperties": False,
    }

    sent = schema_for_model(schema)

    assert set(sent) == {"type", "properties", "required"}
    assert sent["properties"]["order_number"] == {name: value for name, value in order.items() if name != "title"}
    assert sent["properties"]["customer"] == {"type": "object", "properties": {"title": {"type": "string"}}}
    assert sent["properties"]["vat"]["title"] == "VAT id"
    assert schema_for_model({"additionalProperties": {"type": "string"}})["additionalProperties"] == {"type": "string"}
    assert schema_for_model({"properties": {"anything": True}})["properties"]["anything"] is True


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000], ids=["empty", "cut", "deep"])
def test_json_that_cannot_be_read_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError):
        read_json(text)
