"""Where a proposed action goes: run, ask or forbid. Pure code over facts; nothing a model wrote decides.

The grant's rules over arguments only ever make the way stricter: they raise the risk, the policy, or both.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from decimal import ROUND_FLOOR, Decimal
from typing import Any

from runs.engine import rules
from runs.engine.calls import usable_number
from runs.engine.rules import Met
from runs.engine.types import Call, Effect, Evidence, Policy, Risk, Route, ToolGrant, ToolSpec

STRICTNESS = (Policy.AUTO, Policy.CONFIDENCE, Policy.REVIEW, Policy.TWO_PERSON, Policy.FORBIDDEN)
CLAIM = re.compile(
    r"\b(?:already|previously|pre-?|was|were|been|is)\s*(?:been\s+)?(?:approved|authori[sz]ed|signed[ -]off|greenlit)\b"
    r"|\b(?:approved|authori[sz]ed|signed[ -]off)\s+by\b"
    r"|\b(?:no|without|skip|bypass)\s+(?:further\s+|human\s+|any\s+)*approval\b",
    re.IGNORECASE,
)
CLAIM_NAMES = re.compile(r"^(?:pre_?|already_?|is_?)?(?:approved|authori[sz]ed)(?:_?by)?$", re.IGNORECASE)
SHORT = 300  # a longer text is written for somebody else, and may well speak of approvals


def route(call: Call, tool: ToolSpec, grant: ToolGrant | None, evidence: Evidence | None = None) -> Route:
    """Reads run alone unless the policy says otherwise. A missing, NaN or out-of-range confidence goes to a person.

    The reason is the policy line people read, without its "Here because". `evidence` is asked for where the grant has
    a floor of it; without any, nothing has been shown.
    """
    if grant is None:
        return Route(outcome="forbid", reason="this agent has no permission for the tool", risk=tool.risk)
    chosen = _by_policy(call, tool, grant, evidence or Evidence())
    # Nobody who granted calls like this had one in mind that came out of an error.
    return replace(chosen, grantable=False) if call.doubt else chosen


def _by_policy(call: Call, tool: ToolSpec, grant: ToolGrant, evidence: Evidence) -> Route:
    met = rules.met(grant.rules, call.args)
    risk = _highest(grant.risk or tool.risk, met)
    strictest = max(met, key=_strictness, default=None)
    if strictest is not None and _strictness(strictest) > STRICTNESS.index(grant.policy):
        return _asked_by(strictest.rule.demands or Policy.REVIEW, strictest.reason, risk)
    if grant.policy in (Policy.FORBIDDEN, Policy.TWO_PERSON, Policy.REVIEW):
        return _asked_by(grant.policy, _own_reason(grant), risk)
    if tool.effect is Effect.READ:
        return Route(outcome="release", reason="this tool only reads", risk=risk)
    return _by_confidence(call, grant, risk, evidence)


def needs_evidence(grant: ToolGrant | None) -> bool:
    return grant is not None and bool(grant.evidence) and grant.policy in (Policy.AUTO, Policy.CONFIDENCE)


def claims_approval(call: Call) -> bool:
    """Whether the model says that somebody approved this. Approvals are known here and nowhere else."""
    if CLAIM.search(call.reasoning):
        return True
    for name, value in call.args.items():
        if CLAIM_NAMES.match(name) and value not in (None, False, ""):
            return True
        if any(len(text) <= SHORT and CLAIM.search(text) for text in _texts(value)):
            return True
    return False


def _by_confidence(call: Call, grant: ToolGrant, risk: Risk, evidence: Evidence) -> Route:
    if call.doubt:
        return Route(outcome="ask", reason=call.doubt, risk=risk, needed=1)
    confidence, threshold = usable_number(call.confidence), grant.threshold
    if confidence is None or not 0 <= confidence <= 1:
        return Route(outcome="ask", reason="no usable confidence came with this call", risk=risk, needed=1)
    if claims_approval(call):
        reason = "the agent says this was approved already, which only a person here can do"
        return Route(outcome="ask", reason=reason, risk=risk, needed=1)
    if grant.policy is Policy.CONFIDENCE and confidence < threshold:
        reason = f"confidence is {percent(confidence)}, below the {percent(threshold)} this tool needs to run alone"
        return Route(outcome="ask", reason=reason, risk=risk, needed=1, grantable=True)
    if grant.evidence and (lacking := _lacking(evidence, grant.evidence, grant.agreement)):
        return Route(outcome="ask", reason=lacking, risk=risk, needed=1)
    if grant.policy is Policy.AUTO:
        return Route(outcome="release", reason="this tool may run alone", risk=risk)
    reason = f"confidence is {percent(confidence)}, at or above the {percent(threshold)} this tool needs to run alone"
    return Route(outcome="release", reason=reason, risk=risk)


def _lacking(evidence: Evidence, floor: int, agreement: float) -> str:
    """Why what people decided so far is not enough to let the tool run alone; empty when it is."""
    if evidence.decided < floor:
        return f"people decided {evidence.decided} calls like this, below the {floor} this tool needs to run alone"
    share = evidence.agreed / evidence.decided
    if share < agreement:
        return (
            f"people agreed with {percent(share)} of {evidence.decided} calls like this, "
            f"below the {percent(agreement)} this tool needs to run alone"
        )
    return ""


def _asked_by(policy: Policy, reason: str, risk: Risk) -> Route:
    if policy is Policy.FORBIDDEN:
        return Route(outcome="forbid", reason=reason, risk=risk)
    needed = 2 if policy is Policy.TWO_PERSON else 1
    return Route(outcome="ask", reason=reason, risk=risk, needed=needed, grantable=needed == 1)


def _own_reason(grant: ToolGrant) -> str:
    if grant.policy is Policy.FORBIDDEN:
        return "this tool is forbidden for this agent"
    if grant.policy is Policy.TWO_PERSON:
        return "this tool always needs two people"
    stricter = next((rule for rule in grant.rules if rule.demands is Policy.TWO_PERSON), None)
    if stricter is None:
        return "this tool always needs a person"
    limit = f"{stricter.argument} {rules.WORDS[stricter.test]} {rules.shown(stricter.value)}"
    return f"this tool always needs a person; with {limit} it needs two"


def _highest(own: Risk, met: list[Met]) -> Risk:
    return max([own, *(each.rule.risk for each in met if each.rule.risk)], key=lambda risk: risk.level)


def _strictness(met: Met) -> int:
    return STRICTNESS.index(met.rule.demands or Policy.AUTO)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _texts(each)


def percent(share: float) -> str:
    """Never rounds a value up to the threshold it failed: 89.96% is not shown as 90%."""
    text = str((Decimal(str(share)) * 100).quantize(Decimal("0.1"), ROUND_FLOOR))
    return f"{text.removesuffix('.0')}%"
