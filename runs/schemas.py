"""Pydantic types: the outside shapes of CONTRACT and one type for every JSON column."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated, Any, Literal

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from runs.engine.filters import Filters
from runs.engine.rules import LISTS, NUMBERS, TEXTS, Comparison, Rule, number
from runs.engine.types import AgentSpec, Limits, Mode, Policy, Risk, ToolGrant

SLUG = re.compile(r"^[a-z0-9]+(?:-[a-z0-9]+)*$")
TOOL_NAME = re.compile(r"^[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)?$")
TASK_BYTES = 200_000


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class LimitsIn(Strict):
    """Every limit must be positive; an absent one takes the agent's, an explicit null means none of that kind."""

    max_steps: Annotated[int, Field(gt=0, le=100_000)] | None = 60
    max_input_tokens: Annotated[int, Field(gt=0, le=1_000_000_000)] | None = 600_000
    max_output_tokens: Annotated[int, Field(gt=0, le=1_000_000_000)] | None = 60_000
    max_cost_usd: Annotated[Decimal, Field(gt=0, le=100_000, max_digits=18, decimal_places=9)] | None = Decimal("1.50")
    max_seconds: Annotated[int, Field(gt=0, le=30 * 86_400)] | None = 900

    def to_engine(self) -> Limits:
        return Limits(**self.model_dump())


class RuleIn(Strict):
    """When one argument is like this, the call is riskier, or more people decide. Never the other way."""

    argument: Annotated[str, Field(min_length=1, max_length=120)]
    test: Literal["above", "equals", "one_of", "not_one_of", "prefix", "not_suffix"]
    value: Any
    risk: Risk | None = None
    policy: Literal["review", "two_person", "forbidden"] | None = None

    @model_validator(mode="after")
    def _complete(self) -> RuleIn:
        if self.risk is None and self.policy is None:
            raise ValueError("a rule names a risk, a policy, or both")
        problem = unfit(Comparison(self.test), self.value)
        if problem:
            raise ValueError(problem)
        return self

    def to_engine(self) -> Rule:
        return Rule(
            argument=self.argument,
            test=Comparison(self.test),
            value=self.value,
            risk=self.risk,
            policy=Policy(self.policy) if self.policy else None,
        )


def unfit(test: Comparison, value: Any) -> str:
    """Why no argument can be compared with this value; empty when one can."""
    if test in NUMBERS and number(value) is None:
        return f"“{test.replace('_', ' ')}” needs a number"
    if test in TEXTS and not (isinstance(value, str) and value):
        return f"“{test}” needs a text"
    if test in LISTS and not (isinstance(value, list) and 0 < len(value) <= 200):
        return f"“{test.replace('_', ' ')}” needs a list"
    return ""


class ToolGrantIn(Strict):
    """`evidence` locks auto-approval below that many decisions by people; `sample` is a share looked at later."""

    name: Annotated[str, Field(max_length=120)]
    policy: Policy
    threshold: Annotated[float, Field(ge=0, le=1)] | None = None
    risk: Risk | None = None
    timeout_s: Annotated[float, Field(gt=0, le=3600)] | None = None
    rules: Annotated[list[RuleIn], Field(max_length=20)] = []
    evidence: Annotated[int, Field(ge=1, le=10_000)] | None = None
    agreement: Annotated[float, Field(ge=0, le=1)] | None = None
    sample: Annotated[float, Field(ge=0, le=1)] | None = None
    own_approval: Literal["allowed", "refused"] | None = None
    # What happens around a decision on this tool's actions; absent ones take the defaults of `runs/timing.py`.
    undo_s: Annotated[int, Field(ge=0, le=3600)] | None = None
    expires_s: Annotated[int, Field(ge=60, le=30 * 86_400)] | None = None
    remind_s: Annotated[int, Field(ge=30, le=30 * 86_400)] | None = None
    widen_s: Annotated[int, Field(ge=30, le=30 * 86_400)] | None = None
    reviewers: list[Annotated[str, Field(min_length=1, max_length=150)]] = []
    backup: list[Annotated[str, Field(min_length=1, max_length=150)]] = []
    after: list[Annotated[str, Field(max_length=120)]] = []

    @field_validator("name")
    @classmethod
    def _name(cls, value: str) -> str:
        if not TOOL_NAME.match(value):
            raise ValueError("a tool is named like 'server.tool' or 'tool'")
        return value

    def to_engine(self) -> ToolGrant:
        return ToolGrant(
            name=self.name,
            policy=self.policy,
            threshold=0.9 if self.threshold is None else self.threshold,
            risk=self.risk,
            timeout_s=self.timeout_s,
            rules=tuple(rule.to_engine() for rule in self.rules),
            evidence=self.evidence,
            agreement=0.95 if self.agreement is None else self.agreement,
            sample=self.sample or 0.0,
            after=tuple(self.after),
        )

    @model_serializer(mode="wrap")
    def _only_what_is_said(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """So that an agent saved before these fields came is the same agent still."""
        always = {"name", "policy", "threshold", "risk", "timeout_s"}
        return {name: value for name, value in handler(self).items() if name in always or value not in (None, [])}

    @model_validator(mode="after")
    def _in_time(self) -> ToolGrantIn:
        if self.expires_s is not None and max(self.remind_s or 0, self.widen_s or 0) >= self.expires_s:
            raise ValueError("remind_s and widen_s must be earlier than expires_s")
        if self.widen_s is not None and not self.backup:
            raise ValueError("widen_s needs a backup group to widen to")
        return self


class FiltersIn(Strict):
    """What content filters do: `redact` keeps what was found out of what is stored and shown, `block` ends the run."""

    secrets: Literal["off", "redact", "block"] = "redact"
    personal: Literal["off", "redact", "block"] = "redact"
    contacts: Literal["off", "redact", "block"] = "off"
    instructions: Literal["off", "mark", "block"] = "mark"

    def to_engine(self) -> Filters:
        return Filters(**self.model_dump())


class AgentIn(Strict):
    """An agent as people write it. `model` null means the installation's default model."""

    name: Annotated[str, Field(min_length=1, max_length=80)]
    purpose: Annotated[str, Field(max_length=400)] = ""
    instructions: Annotated[str, Field(max_length=100_000)] = ""
    model: Annotated[str, Field(max_length=120)] | None = None
    fallback_models: Annotated[list[Annotated[str, Field(min_length=1, max_length=120)]], Field(max_length=5)] = []
    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    tools: list[ToolGrantIn] = []
    planning: bool = False
    evaluation: Literal["off", "final", "every_step"] = "off"
    filters: FiltersIn | None = None
    context_tokens: Annotated[int, Field(ge=4_000, le=10_000_000)] = 100_000
    raise_limits: bool = False
    judge_model: Annotated[str, Field(max_length=120)] | None = None
    answer_threshold: Annotated[float, Field(ge=0, le=1)] = 0.5
    limits: LimitsIn = LimitsIn()
    output_schema: dict[str, Any] | None = None
    subagents: list[str] = []
    default_mode: Mode = Mode.INTERACTIVE
    task_types: list[Annotated[str, Field(min_length=1, max_length=80)]] = []

    @field_validator("name")
    @classmethod
    def _not_blank(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("a name is needed")
        return value.strip()

    @field_validator("output_schema")
    @classmethod
    def _a_schema(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        if not value:
            return value
        try:
            Draft202012Validator.check_schema(value)
        except SchemaError as error:
            raise ValueError(f"this is not a JSON Schema: {error.message[:300]}") from error
        return value

    @model_validator(mode="after")
    def _tools_once(self) -> AgentIn:
        names = [tool.name for tool in self.tools]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"tools are listed twice: {', '.join(twice)}")
        return self

    def to_engine(self, *, slug: str, version: int, default_model: str) -> AgentSpec:
        return AgentSpec(
            slug=slug,
            name=self.name,
            version=version,
            purpose=self.purpose,
            instructions=self.instructions,
            model=self.model or default_model,
            effort=self.effort,
            tools=tuple(tool.to_engine() for tool in self.tools),
            planning=self.planning,
            evaluation=self.evaluation,
            raise_limits=self.raise_limits,
            context_tokens=self.context_tokens,
            judge_model=self.judge_model,
            answer_threshold=self.answer_threshold,
            output_schema=self.output_schema,
            subagents=tuple(self.subagents),
            fallback_models=tuple(self.fallback_models),
        )


class Assumption(Strict):
    text: str
    check: str = ""
    status: Literal["not_checked", "held", "did_not_hold"] = "not_checked"


class PlanStep(Strict):
    title: str
    status: Literal["not_started", "running", "waiting", "done", "changed"] = "not_started"
    needs_person: bool = False
    assumptions: list[Assumption] = []
    actual: str = ""


class Plan(Strict):
    """`Run.plan`."""

    steps: list[PlanStep] = []


class QuestionArgs(Strict):
    """`Action.args` of a question. `call` are arguments of the action's tool that the answer may correct."""

    title: str = ""
    question: str = ""
    options: list[str] = []
    closed: bool = False
    tried: list[str] = []
    call: dict[str, Any] | None = None


class FoundTool(Strict):
    """One tool of a server, as found when it was last asked. In `ToolServer.tools`."""

    name: str
    description: str = ""
    input_schema: dict[str, Any] = {}
    effect: Literal["read", "write", "irreversible"] = "write"
    idempotent: bool = False
    risk: Risk = Risk.MEDIUM
    version: str = ""
    plan: str | None = None
    reconcile: str | None = None
    undo: str | None = None
    repeatable: bool = False


class ServerConfig(Strict):
    """How to reach a tool server: stored encrypted, because `env` and `headers` carry secrets."""

    transport: Literal["stdio", "http"]
    command: list[str] = []
    env: dict[str, str] = {}
    url: str = ""
    headers: dict[str, str] = {}

    @model_validator(mode="after")
    def _complete(self) -> ServerConfig:
        if self.transport == "stdio" and not self.command:
            raise ValueError("a stdio server needs a command")
        if self.transport == "stdio" and (self.url or self.headers):
            raise ValueError("url and headers belong to http servers")
        if self.transport == "http" and not re.match(r"^https?://[^\s/]+", self.url):
            raise ValueError("an http server needs an http or https url")
        if self.transport == "http" and (self.command or self.env):
            raise ValueError("command and env belong to stdio servers")
        return self
