"""Where a proposed action goes: run, ask or forbid. Pure code over facts; nothing a model wrote decides."""

from __future__ import annotations

from decimal import ROUND_FLOOR, Decimal

from runs.engine.calls import usable_number
from runs.engine.types import Call, Effect, Policy, Risk, Route, ToolGrant, ToolSpec


def route(call: Call, tool: ToolSpec, grant: ToolGrant | None) -> Route:
    """Reads run alone unless the policy says otherwise. A missing, NaN or out-of-range confidence goes to a person.

    The reason is the policy line people read, without its "Here because".
    """
    if grant is None:
        return Route(outcome="forbid", reason="this agent has no permission for the tool", risk=tool.risk)
    risk = grant.risk or tool.risk
    if grant.policy is Policy.FORBIDDEN:
        return Route(outcome="forbid", reason="this tool is forbidden for this agent", risk=risk)
    if grant.policy is Policy.TWO_PERSON:
        return Route(outcome="ask", reason="this tool always needs two people", risk=risk, needed=2)
    if grant.policy is Policy.REVIEW:
        return Route(outcome="ask", reason="this tool always needs a person", risk=risk, needed=1)
    if tool.effect is Effect.READ:
        return Route(outcome="release", reason="this tool only reads", risk=risk)
    return _by_confidence(call, grant, risk)


def _by_confidence(call: Call, grant: ToolGrant, risk: Risk) -> Route:
    confidence, threshold = usable_number(call.confidence), grant.threshold
    if confidence is None or not 0 <= confidence <= 1:
        return Route(outcome="ask", reason="no usable confidence came with this call", risk=risk, needed=1)
    if grant.policy is Policy.AUTO:
        return Route(outcome="release", reason="this tool may run alone", risk=risk)
    if confidence >= threshold:
        reason = (
            f"confidence is {percent(confidence)}, at or above the {percent(threshold)} this tool needs to run alone"
        )
        return Route(outcome="release", reason=reason, risk=risk)
    reason = f"confidence is {percent(confidence)}, below the {percent(threshold)} this tool needs to run alone"
    return Route(outcome="ask", reason=reason, risk=risk, needed=1)


def percent(share: float) -> str:
    """Never rounds a value up to the threshold it failed: 89.96% is not shown as 90%."""
    text = str((Decimal(str(share)) * 100).quantize(Decimal("0.1"), ROUND_FLOOR))
    return f"{text.removesuffix('.0')}%"
