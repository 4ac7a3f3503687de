"""The routing table, whole, and the line people read."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from runs.engine.policy import percent, route
from runs.engine.types import Call, Effect, Policy, Risk, ToolGrant, ToolSpec

READ, WRITE, LAST = Effect.READ, Effect.WRITE, Effect.IRREVERSIBLE
UNUSABLE = [None, math.nan, math.inf, -math.inf, -0.01, 1.01, True, False, "0.99", 10**400]


def tool(effect: Effect = WRITE, risk: Risk = Risk.HIGH) -> ToolSpec:
    return ToolSpec(name="t", description="t", input_schema={}, effect=effect, version="1", risk=risk)


def call(confidence: object = 0.95) -> Call:
    return Call(intent="1:0", tool_call_id="c", tool="t", args={}, confidence=confidence)  # type: ignore[arg-type]


def grant(policy: Policy, *, threshold: float = 0.9, risk: Risk | None = None) -> ToolGrant:
    return ToolGrant(name="t", policy=policy, threshold=threshold, risk=risk)


@pytest.mark.parametrize(
    ("policy", "effect", "outcome", "needed", "reason"),
    [
        (Policy.FORBIDDEN, READ, "forbid", 0, "this tool is forbidden for this agent"),
        (Policy.FORBIDDEN, WRITE, "forbid", 0, "this tool is forbidden for this agent"),
        (Policy.TWO_PERSON, READ, "ask", 2, "this tool always needs two people"),
        (Policy.TWO_PERSON, LAST, "ask", 2, "this tool always needs two people"),
        (Policy.REVIEW, READ, "ask", 1, "this tool always needs a person"),
        (Policy.REVIEW, WRITE, "ask", 1, "this tool always needs a person"),
        (Policy.AUTO, READ, "release", 0, "this tool only reads"),
        (Policy.CONFIDENCE, READ, "release", 0, "this tool only reads"),
        (Policy.AUTO, WRITE, "release", 0, "this tool may run alone"),
        (Policy.AUTO, LAST, "release", 0, "this tool may run alone"),
        (
            Policy.CONFIDENCE,
            WRITE,
            "release",
            0,
            "confidence is 95%, at or above the 90% this tool needs to run alone",
        ),
    ],
)
def test_the_table(policy: Policy, effect: Effect, outcome: str, needed: int, reason: str) -> None:
    chosen = route(call(), tool(effect), grant(policy))

    assert (chosen.outcome, chosen.needed, chosen.reason, chosen.risk) == (outcome, needed, reason, Risk.HIGH)


@pytest.mark.parametrize("policy", list(Policy))
@pytest.mark.parametrize("effect", list(Effect))
@pytest.mark.parametrize("confidence", [0.5, 0.95, None])
def test_a_policy_means_the_same_for_a_tool_that_cannot_be_tried(
    policy: Policy, effect: Effect, confidence: float | None
) -> None:
    """Policies are the team's own words: `auto` for an effect without a preview is said outright, or not at all."""
    tried = replace(tool(effect), can_plan=True)

    assert route(call(confidence), tool(effect), grant(policy)) == route(call(confidence), tried, grant(policy))


def test_what_was_never_granted_is_forbidden() -> None:
    chosen = route(call(), tool(READ), None)

    assert (chosen.outcome, chosen.reason) == ("forbid", "this agent has no permission for the tool")


def test_every_policy_is_in_the_table() -> None:
    for policy in Policy:
        for effect in Effect:
            assert route(call(), tool(effect), grant(policy)).outcome in ("release", "ask", "forbid")


@pytest.mark.parametrize("confidence", UNUSABLE, ids=lambda value: str(value)[:9])
@pytest.mark.parametrize("policy", [Policy.AUTO, Policy.CONFIDENCE])
def test_no_usable_confidence_goes_to_a_person(policy: Policy, confidence: object) -> None:
    chosen = route(call(confidence), tool(), grant(policy))

    assert (chosen.outcome, chosen.needed) == ("ask", 1)
    assert chosen.reason == "no usable confidence came with this call"


@pytest.mark.parametrize("confidence", UNUSABLE, ids=lambda value: str(value)[:9])
def test_a_read_needs_no_confidence(confidence: object) -> None:
    assert route(call(confidence), tool(READ), grant(Policy.CONFIDENCE)).outcome == "release"


@pytest.mark.parametrize(
    ("confidence", "threshold", "outcome", "reason"),
    [
        (0.9, 0.9, "release", "confidence is 90%, at or above the 90%"),
        (1, 0.9, "release", "confidence is 100%, at or above the 90%"),
        (1.0, 1.0, "release", "confidence is 100%, at or above the 100%"),
        (0.0, 0.0, "release", "confidence is 0%, at or above the 0%"),
        (0.8999999, 0.9, "ask", "confidence is 89.9%, below the 90%"),
        (0.89999999999, 0.9, "ask", "confidence is 89.9%, below the 90%"),
        (math.nextafter(0.9, 0), 0.9, "ask", "confidence is 89.9%, below the 90%"),
        (0.855, 0.86, "ask", "confidence is 85.5%, below the 86%"),
        (0.0, 0.9, "ask", "confidence is 0%, below the 90%"),
        (1.0, math.nextafter(1, 2), "ask", "confidence is 100%, below the 100%"),
    ],
)
def test_the_threshold(confidence: float, threshold: float, outcome: str, reason: str) -> None:
    chosen = route(call(confidence), tool(), grant(Policy.CONFIDENCE, threshold=threshold))

    assert chosen.outcome == outcome
    assert chosen.reason == f"{reason} this tool needs to run alone"
    assert chosen.needed == (0 if outcome == "release" else 1)


def test_a_grant_may_raise_or_lower_the_risk() -> None:
    assert route(call(), tool(), grant(Policy.REVIEW, risk=Risk.CRITICAL)).risk is Risk.CRITICAL
    assert route(call(), tool(risk=Risk.CRITICAL), grant(Policy.FORBIDDEN, risk=Risk.LOW)).risk is Risk.LOW


@pytest.mark.parametrize(
    ("share", "text"), [(0.0, "0%"), (1.0, "100%"), (0.29, "29%"), (0.57, "57%"), (0.8996, "89.9%"), (1e-9, "0%")]
)
def test_percent(share: float, text: str) -> None:
    assert percent(share) == text
