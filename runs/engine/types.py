"""Frozen values the engine speaks in. They know nothing of rows: identity and storage are the journal's concern."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from runs.engine.filters import Filters

if TYPE_CHECKING:
    from runs.engine.rules import Rule

JsonObject = dict[str, Any]


class Mode(StrEnum):
    INTERACTIVE = "interactive"
    BATCH = "batch"
    DRY_RUN = "dry_run"


class RunStatus(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    WAITING = "waiting"
    PAUSED = "paused"
    COMPLETED = "completed"
    STOPPED = "stopped"
    FAILED = "failed"
    CANCELLED = "cancelled"
    DRY_RUN_READY = "dry_run_ready"


ENDED = frozenset(
    {RunStatus.COMPLETED, RunStatus.STOPPED, RunStatus.FAILED, RunStatus.CANCELLED, RunStatus.DRY_RUN_READY}
)


class StopReason(StrEnum):
    DONE = "done"
    MAX_STEPS = "max_steps"
    MAX_TOKENS = "max_tokens"
    MAX_COST = "max_cost"
    MAX_SECONDS = "max_seconds"
    LOOP = "loop"
    DIMINISHING_RETURNS = "diminishing_returns"
    CONTENT_FILTER = "content_filter"
    ESCALATION_DECLINED = "escalation_declined"
    REJECTED = "rejected"
    CANCELLED = "cancelled"
    MODEL_ERROR = "model_error"
    TOOL_ERROR = "tool_error"
    INTERNAL_ERROR = "internal_error"


class StepKind(StrEnum):
    PLAN = "plan"
    MODEL = "model"
    TOOL = "tool"
    EVALUATE = "evaluate"
    APPROVAL = "approval"
    GUARDRAIL = "guardrail"
    MESSAGE = "message"
    DELEGATE = "delegate"
    RESULT = "result"


# The kinds that are the agent's own work. Bookkeeping and people's messages do not eat a step budget.
WORK_KINDS = frozenset({StepKind.PLAN, StepKind.MODEL, StepKind.TOOL, StepKind.EVALUATE, StepKind.DELEGATE})


class StepStatus(StrEnum):
    OK = "ok"
    ERROR = "error"
    TIMEOUT = "timeout"
    DENIED = "denied"
    SIMULATED = "simulated"
    RUNNING = "running"


class Effect(StrEnum):
    READ = "read"
    WRITE = "write"
    IRREVERSIBLE = "irreversible"


class Risk(StrEnum):
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"

    @property
    def level(self) -> int:
        return list(Risk).index(self)


class Policy(StrEnum):
    AUTO = "auto"
    CONFIDENCE = "confidence"
    REVIEW = "review"
    TWO_PERSON = "two_person"
    FORBIDDEN = "forbidden"


class Execution(StrEnum):
    """What a failure means for the rest of a batch; the approver's choice."""

    INDEPENDENT = "independent"
    STOP_ON_FAILURE = "stop_on_failure"
    ALL_OR_NOTHING = "all_or_nothing"


class ActionStatus(StrEnum):
    PENDING = "pending"
    APPROVED = "approved"
    EXECUTING = "executing"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    UNKNOWN = "unknown"
    REJECTED = "rejected"
    ANSWERED = "answered"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    SUPERSEDED = "superseded"
    STALE = "stale"
    REVOKED = "revoked"


# Someone or something still has to happen to an action in one of these.
OPEN_ACTIONS = frozenset({ActionStatus.PENDING, ActionStatus.APPROVED, ActionStatus.EXECUTING, ActionStatus.UNKNOWN})
# A person is the next to move.
WAITING_ACTIONS = frozenset({ActionStatus.PENDING, ActionStatus.UNKNOWN})


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The most a run may use. `None` means no limit of that kind. Seconds exclude the time spent waiting for people."""

    max_steps: int | None = 60
    max_input_tokens: int | None = 600_000
    max_output_tokens: int | None = 60_000
    max_cost_usd: Decimal | None = Decimal("1.50")
    max_seconds: int | None = 900


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolGrant:
    """One line of an agent's tool list: which tool, under which policy. An action of it runs only once the earlier ones
    of the tools in `after` that it speaks of have happened."""

    name: str
    policy: Policy
    threshold: float = 0.9
    risk: Risk | None = None
    timeout_s: float | None = None
    rules: tuple[Rule, ...] = ()
    evidence: int | None = None  # decisions by people that must be there before anything of it runs alone
    agreement: float = 0.95  # the share of them that left the call as it was proposed
    sample: float = 0.0  # share of what ran alone that a person looks at later
    after: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What people decided on calls like this one: how many, and how many of those they left as proposed."""

    decided: int = 0
    agreed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSpec:
    slug: str
    name: str
    version: int
    purpose: str = ""
    instructions: str = ""
    model: str
    effort: str | None = None
    tools: tuple[ToolGrant, ...] = ()
    planning: bool = False
    evaluation: str = "off"
    context_tokens: int = 100_000  # a prompt beyond it has old results cleared, then the work so far summarised
    filters: Filters = field(default_factory=Filters)
    raise_limits: bool = False  # at a limit a person is asked whether to raise it
    judge_model: str | None = None  # a small one is enough; None: the agent's own
    answer_threshold: float = 0.5  # an answer that is judged below it is revised once
    output_schema: JsonObject | None = None
    subagents: tuple[str, ...] = ()
    fallback_models: tuple[str, ...] = ()  # asked in this order while `model` can't be used


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSpec:
    """What `advance` is asked to bring forward. `waited_ms` is the time already spent waiting for people."""

    id: str
    agent: AgentSpec
    task: str
    mode: Mode
    limits: Limits
    policy_version: str
    started_at: datetime
    waited_ms: int = 0
    subagents: tuple[tuple[str, str], ...] = ()  # (slug, purpose) of those that are there now
    forked: bool = False  # its first steps were replayed from another run
    ancestors: tuple[str, ...] = ()  # slugs of the agents of the runs above, the first run's first
    call_cut_off: bool = False  # an earlier worker ended while a model call of its was on its way


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolSpec:
    """What is known of a tool before it is called. `version` changes when its schema or description does."""

    name: str
    description: str
    input_schema: JsonObject
    effect: Effect
    version: str
    risk: Risk = Risk.MEDIUM
    idempotent: bool = False
    can_plan: bool = False
    can_undo: bool = False
    can_reconcile: bool = False
    repeatable: bool = False  # the same call may be made again and again: it waits for a change
    timeout_s: float = 30.0
    server: str = ""

    @property
    def model_name(self) -> str:
        """The name as the model sees it: its API allows no dot."""
        return self.name.replace(".", "__")


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolResult:
    content: Any
    is_error: bool = False

    @property
    def status(self) -> StepStatus:
        return StepStatus.ERROR if self.is_error else StepStatus.OK


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolPlan:
    """What a call would do. Equal `preconditions` later mean that the world it was planned on still stands."""

    summary: str = ""
    preview: JsonObject = field(default_factory=dict)
    preconditions: JsonObject = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens as the Messages API counts them: `input_tokens` excludes what was read from or written to the cache.

    `terms` is how the call was served where that changes its price: "batch", "fast", "geo=us", joined by ";".
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_5m_tokens: int = 0
    cache_write_1h_tokens: int = 0
    terms: str = ""

    @property
    def prompt_tokens(self) -> int:
        return self.input_tokens + self.cache_read_tokens + self.cache_write_5m_tokens + self.cache_write_1h_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """What is kept back of a run's limits. `usd` is zero where the price is not known."""

    usd: Decimal
    input_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRequest:
    model: str
    system: str
    messages: tuple[JsonObject, ...]
    tools: tuple[JsonObject, ...] = ()
    max_tokens: int = 8192
    effort: str | None = None
    tool_choice: JsonObject | None = None
    temperature: float | None = None  # sent only to a provider that takes one
    output_schema: JsonObject | None = None
    goes_on: bool = True  # a later prompt begins with this one, so it is worth writing to the provider's cache


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelReply:
    """`content` holds the blocks exactly as they came, so that they can be sent back unchanged."""

    content: tuple[JsonObject, ...]
    stop_reason: str | None
    usage: Usage
    model: str
    request_id: str = ""

    @property
    def text(self) -> str:
        return "\n\n".join(block["text"] for block in self.content if block.get("type") == "text" and block.get("text"))

    @property
    def tool_uses(self) -> tuple[JsonObject, ...]:
        return tuple(block for block in self.content if block.get("type") == "tool_use")


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """`usd` is None when the model's price is unknown: shown as "unpriced", never as zero. `lost_usd` is that of a
    reply which was lost, as far as it came: it counts against budgets and is no part of any sum."""

    usd: Decimal | None
    price_id: str = ""
    lost_usd: Decimal = Decimal(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """Where a proposed action goes. `release` runs alone, `ask` needs `needed` people, `forbid` never runs."""

    outcome: str  # "release" | "ask" | "forbid"
    reason: str
    risk: Risk
    needed: int = 0
    grantable: bool = False  # one person decides by a plain rule, so a standing grant may do so in advance
    standing: str = ""  # the id of the person whose standing grant released it


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A model's tool call after parsing and validation. `intent` names it within the run, whatever its arguments."""

    intent: str
    tool_call_id: str
    tool: str
    args: JsonObject
    reasoning: str = ""
    confidence: float | None = None
    doubt: str = ""  # why it must not run alone, whatever its confidence; a policy line
    note: str = ""  # said with its result


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionNote:
    by: str
    verdict: str
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """The engine's view of an Action row; the newest of its chain when a person edited it."""

    id: str
    intent: str
    tool_call_id: str
    tool: str
    args: JsonObject
    digest: str
    status: ActionStatus
    kind: str = "action"  # action | question | unknown
    title: str = ""
    reasoning: str = ""
    confidence: float | None = None
    plan_summary: str = ""
    held: bool = False  # may run alone, but behind actions that wait
    asked: bool = False  # belongs to a batch that people see
    edited: bool = False
    fresh: bool = False  # claimed just now: nothing can have happened yet
    result: Any = None
    note: str = ""
    decisions: tuple[DecisionNote, ...] = ()
    starts_at: datetime | None = None  # until then its approval can be taken back


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What a person is asked when it is no action that waits. `key` names it within the run.

    `options` are answers that can be chosen, the only ones where it is `closed`: the agent would read no other. `tried`
    says what was attempted before; `tool` and `args` are a call that the answer may correct. `unanswered` is why the
    run stops when nobody answers in time.
    """

    key: str
    title: str
    text: str
    options: tuple[str, ...] = ()
    closed: bool = False
    tried: tuple[str, ...] = ()
    tool: str = ""
    args: JsonObject | None = None
    unanswered: StopReason = StopReason.ESCALATION_DECLINED


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionOutcome:
    """How an executing action ended; committed together with the step that records it."""

    action_id: str
    status: ActionStatus
    result: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One journal entry. `seq` is 0 until the journal has recorded it."""

    kind: StepKind
    title: str
    key: str = ""
    seq: int = 0
    status: StepStatus = StepStatus.OK
    summary: str = ""
    tool: str = ""
    tool_call_id: str = ""
    input: Any = None
    output: Any = None
    reasoning: str = ""
    error: str = ""
    confidence: float | None = None
    score: float | None = None
    model: str = ""
    usage: Usage = Usage()
    price: Price = Price(usd=Decimal(0))
    started_at: datetime | None = None
    duration_ms: int = 0
    attempt: int = 1
    plan_step: int | None = None
    outcome: ActionOutcome | None = None
    plan: JsonObject | None = None
    child_run: str = ""  # the id of the run that this step started, or whose end it tells
    raised: dict[str, Any] | None = None  # limits of the run that are other ones from here on
    sealed: bytes | None = None  # the journal's own: what it keeps out of the texts it shows


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What the run has used so far, from its recorded steps."""

    steps: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: Decimal = Decimal(0)
    lost_usd: Decimal = Decimal(0)

    @property
    def bound_usd(self) -> Decimal:
        """What counts against a limit: lost replies may have been billed too."""
        return self.cost_usd + self.lost_usd


@dataclass(frozen=True, slots=True, kw_only=True)
class Child:
    """A run that another run has started. `agent` is its agent's name."""

    id: str
    agent: str
    status: RunStatus
    stop_detail: str = ""
    result: str = ""

    @property
    def ended(self) -> bool:
        return self.status in ENDED


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    status: RunStatus
    stop_reason: StopReason
    stop_detail: str
    result: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parked:
    """Nothing more can be done now. `why`: "approval", "paused" or "retry" (with the seconds until the next try)."""

    why: str
    retry_in_s: float | None = None


Outcome = Finished | Parked
