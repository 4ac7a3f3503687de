"""An agent's tools with risk and policy, riskiest first, and what of it will wait for a person."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from runs.catalog import CatalogEntry
from runs.engine.policy import percent
from runs.engine.types import Effect, Mode, Policy, Risk
from runs.schemas import AgentIn, ToolGrantIn

THRESHOLD = 0.9
WORDS = {
    Policy.AUTO: ("zap", "Auto", "may run alone"),
    Policy.CONFIDENCE: ("gauge", "Confidence", "asks below"),
    Policy.REVIEW: ("user-check", "Always review", "a person decides"),
    Policy.TWO_PERSON: ("users", "Two-person", "two people decide"),
    Policy.FORBIDDEN: ("ban", "Forbidden", "hidden from the model"),
}


NO_PREVIEW = "No preview: it cannot be tried dry."
UNSEEN = "No preview: it cannot be tried dry, and what runs alone nobody has seen."


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolLine:
    name: str
    description: str
    risk: str
    tool_risk: str  # what the tool itself says
    policy: Policy
    threshold: str  # "90%", only where the policy reads it
    reads: bool
    is_known: bool
    can_plan: bool
    timeout_s: float | None

    @property
    def words(self) -> tuple[str, str, str]:
        return WORDS[self.policy]

    @property
    def no_preview(self) -> str:
        """What people should know of an effect that can't be tried; empty for all others."""
        if self.reads or self.can_plan or not self.is_known or self.policy is Policy.FORBIDDEN:
            return ""
        return NO_PREVIEW if self.policy in {Policy.REVIEW, Policy.TWO_PERSON} else UNSEEN

    @property
    def asks(self) -> bool:
        if self.policy is Policy.CONFIDENCE:
            return not self.reads
        return self.policy in {Policy.REVIEW, Policy.TWO_PERSON}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    icon: str
    lead: str
    tool: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadOnly:
    count: int
    risk: str


def tool_lines(definition: AgentIn, known: Mapping[str, CatalogEntry]) -> list[ToolLine]:
    lines = [_line(grant, known.get(grant.name)) for grant in definition.tools]
    return sorted(lines, key=lambda line: (line.reads, -Risk(line.risk).level))


def read_only(lines: list[ToolLine]) -> ReadOnly | None:
    reads = [line for line in lines if line.reads and not line.asks]
    if not reads:
        return None
    return ReadOnly(count=len(reads), risk=max((line.risk for line in reads), key=lambda risk: Risk(risk).level))


def waits(lines: list[ToolLine], mode: str) -> list[Wait]:
    """What of these tools waits for whom. In a dry run nothing does, because nothing happens."""
    if mode == Mode.DRY_RUN:
        return [_nothing("eye", "A dry run plans its effects and carries out none.")]
    found = [wait for line in lines if (wait := _wait(line))]
    if not any(line.asks for line in lines):
        found.insert(0, _nothing("zap", "Every tool of this agent may run alone."))
    return found


def needs_two(lines: list[ToolLine]) -> bool:
    return any(line.policy is Policy.TWO_PERSON for line in lines)


def _line(grant: ToolGrantIn, entry: CatalogEntry | None) -> ToolLine:
    spec = entry.spec if entry else None
    threshold = THRESHOLD if grant.threshold is None else grant.threshold
    return ToolLine(
        name=grant.name,
        description=spec.description if spec else "",
        risk=(grant.risk or (spec.risk if spec else Risk.MEDIUM)).value,
        tool_risk=(spec.risk if spec else Risk.MEDIUM).value,
        policy=grant.policy,
        threshold=percent(threshold) if grant.policy is Policy.CONFIDENCE else "",
        reads=spec is not None and spec.effect is Effect.READ,
        is_known=spec is not None,
        can_plan=spec is not None and spec.can_plan,
        timeout_s=grant.timeout_s,
    )


def _nothing(icon: str, text: str) -> Wait:
    return Wait(icon=icon, lead="Nothing waits.", tool="", text=text)


def _wait(line: ToolLine) -> Wait | None:
    if line.policy is Policy.FORBIDDEN:
        return Wait(icon="ban", lead="Never:", tool=line.name, text="")
    if not line.asks:
        return None
    if line.policy is Policy.TWO_PERSON:
        return Wait(icon="users", lead="Every", tool=line.name, text="needs two people.")
    if line.policy is Policy.REVIEW:
        return Wait(icon="hand", lead="Every", tool=line.name, text="needs a person.")
    return Wait(icon="gauge", lead="", tool=line.name, text=f"below {line.threshold} confidence.")
