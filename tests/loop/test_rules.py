"""Rules over arguments, claims of an approval, the floor of evidence: what takes a call to a person."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from runs.engine.policy import route
from runs.engine.rules import Comparison, Rule
from runs.engine.types import Policy, Risk
from tests.engine.test_rules import TOOL, call, grant

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
