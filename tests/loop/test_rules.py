"""Rules over arguments, claims of an approval, the floor of evidence: what takes a call to a person."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runs.engine.policy import route
from runs.engine.rules import Comparison, Rule
from runs.engine.types import Call, Effect, JsonObject, Policy, Risk, ToolGrant, ToolSpec

TOOL = ToolSpec(
    name="shop.refund", description="", input_schema={}, effect=Effect.IRREVERSIBLE, version="1", risk=Risk.MEDIUM
)
TWO_ABOVE_250 = Rule(argument="amount", test=Comparison.ABOVE, value=250, policy=Policy.TWO_PERSON)


def call(confidence: float | None = 0.97, reasoning: str = "The kettle is $84.", **args: Any) -> Call:
    return Call(
        intent="1:0", tool_call_id="c", tool="shop.refund", args=args, confidence=confidence, reasoning=reasoning
    )


def grant(policy: Policy, *given_rules: Rule, **fields: Any) -> ToolGrant:
    return ToolGrant(name="shop.refund", policy=policy, rules=given_rules, **fields)


@pytest.mark.parametrize("given", ["nothing", None, "lots", True, [300], math.nan, ""], ids=str)
def test_leaving_the_argument_out_does_not_get_past_a_rule(given: object) -> None:
    args: JsonObject = {} if given == "nothing" else {"amount": given}

    chosen = route(call(**args), TOOL, grant(Policy.AUTO, TWO_ABOVE_250))

    assert (chosen.outcome, chosen.needed) == ("ask", 2)
    assert "and above 250 two people decide" in chosen.reason


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
TESTS = [(Comparison.ABOVE, 250), (Comparison.EQUALS, "x"), (Comparison.ONE_OF, [1]), (Comparison.PREFIX, "/a")]


@settings(max_examples=60, deadline=None, database=None)
@given(st.sampled_from(TESTS), st.sampled_from(list(Policy)), ANYTHING, st.sampled_from(list(Risk)))
def test_a_rule_never_makes_anything_easier(
    test: tuple[Comparison, Any], policy: Policy, value: Any, risk: Risk
) -> None:
    rule = Rule(argument="amount", test=test[0], value=test[1], risk=risk, policy=Policy.REVIEW)
    without = route(call(amount=value), TOOL, grant(policy))
    withal = route(call(amount=value), TOOL, grant(policy, rule))

    order = ("release", "ask", "forbid")
    assert order.index(withal.outcome) >= order.index(without.outcome)
    assert withal.needed >= without.needed or withal.outcome == "forbid"
    assert withal.risk.level >= without.risk.level
