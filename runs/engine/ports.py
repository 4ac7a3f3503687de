"""What the engine needs of the world. `runs/store.py` and `runs/llm.py` are the real ones, `fakes.py` the twins."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Protocol

from runs.engine.breakers import Unavailable
from runs.engine.types import (
    Action,
    Call,
    Evidence,
    Execution,
    JsonObject,
    ModelReply,
    ModelRequest,
    Price,
    Question,
    Route,
    Spent,
    Step,
    ToolGrant,
    ToolPlan,
    ToolResult,
    ToolSpec,
    Usage,
)


class EngineError(Exception):
    """The base of everything the ports raise on purpose."""


class LeaseLost(EngineError):
    """Another worker owns the run now; this one must stop without writing."""


class Interrupted(EngineError):
    """A person cancelled or paused the run, or its time ran out, while a call was in flight. `may_be_billed`,
    `usage`, `usage_is_final` and `streamed_bytes` as in `ModelError`."""

    def __init__(self, *said: str) -> None:
        super().__init__(*said)
        self.may_be_billed = False
        self.usage = Usage()
        self.usage_is_final = False
        self.streamed_bytes = 0


class JournalMismatch(EngineError):
    """A key was recorded as another kind of step: the code changed under a live run. Fail loudly, never guess."""


class BudgetExceeded(EngineError):
    """The worst case of the next call does not fit what is left. `limit` is a stop reason's name, `field` the name in
    `Limits` of the run's own limit; empty for a limit that is not the run's own (its parents', the team's month)."""

    def __init__(self, limit: str, detail: str, field: str = "") -> None:
        super().__init__(detail)
        self.limit = limit
        self.detail = detail
        self.field = field


class ModelError(EngineError):
    """The model gave no usable reply. `retry_after_s` is the provider's own word, if it gave one. `may_be_billed`: the
    request went out and what became of its reply is not known; `usage` is what had been said of it by then. It is that
    of the whole reply, which is billed, where `usage_is_final`. `streamed_bytes` had come of its text, calls and
    thoughts: as a token is no shorter than a byte, no fewer than its output tokens."""

    def __init__(self, code: str, detail: str, *, retryable: bool, retry_after_s: float | None = None) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail
        self.retryable = retryable
        self.retry_after_s = retry_after_s
        self.may_be_billed = False
        self.usage = Usage()
        self.usage_is_final = False
        self.streamed_bytes = 0


class ToolTimeout(EngineError):
    """The tool did not answer in its time. Whether it acted is not known."""


class ToolUnavailable(EngineError):
    """The call never reached the tool: nothing can have happened."""


class ToolConnectionLost(EngineError):
    """The connection broke during the call. Whether the tool acted is not known."""


class InvalidArguments(EngineError):
    """Arguments that the tool's schema refuses; `errors` name field and message."""

    def __init__(self, errors: Sequence[tuple[str, str]]) -> None:
        super().__init__("; ".join(f"{field}: {message}" if field else message for field, message in errors))
        self.errors = tuple(errors)


class PlanRefused(EngineError):
    """The tool says that the call cannot work, before anything happened: told to the model, asked of nobody."""


class NotReleased(EngineError):
    """The claim before an effect failed. `status` is what the action is now, `reason` says why, in words."""

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


class Clock(Protocol):
    def now(self) -> datetime: ...

    def monotonic(self) -> float: ...


class Llm(Protocol):
    def complete(
        self, request: ModelRequest, *, on_text: Callable[[str], None], interrupted: Callable[[], bool]
    ) -> ModelReply:
        """Streams one reply. Raises `ModelError`, or `Interrupted` soon after `interrupted()` turns true."""
        ...

    def count_tokens(self, request: ModelRequest) -> int | None:
        """The provider's own count of the request's prompt; None where it has none or does not say. Never raises."""
        ...


class Tool(Protocol):
    @property
    def spec(self) -> ToolSpec: ...

    def validate(self, args: JsonObject) -> None:
        """Raises `InvalidArguments`."""
        ...

    def plan(self, args: JsonObject) -> ToolPlan | None:
        """What the call would do, changing nothing; None when the tool cannot say. Raises `PlanRefused` and what
        `execute` raises."""
        ...

    def execute(self, args: JsonObject, *, idempotency_key: str, timeout_s: float) -> ToolResult:
        """Raises `ToolTimeout`, `ToolUnavailable` or `ToolConnectionLost`; a tool's own refusal is a result."""
        ...

    def reconcile(self, idempotency_key: str) -> str:
        """`happened`, `did_not_happen` or `unknown`."""
        ...

    def undo(self, idempotency_key: str) -> ToolResult:
        """Takes back the call of that key. Raises what `execute` raises, and `ToolUnavailable` where it can't."""
        ...


Tools = Mapping[str, Tool]


class Journal(Protocol):
    def once(self, key: str, kind: str, produce: Callable[[], Step]) -> Step:
        """The recorded step of `key`, or `produce()` run outside any transaction and then committed."""
        ...

    def recorded(self, key: str) -> Step | None: ...

    def spent(self) -> Spent: ...

    def in_flight(self, step: Step) -> None:
        """Shows a step that has begun; loses nothing when it is lost."""
        ...

    def text(self, fragment: str) -> None:
        """Shows text of the call in flight."""
        ...


class Budget(Protocol):
    def reserve(self, *, usd: Decimal, input_tokens: int, output_tokens: int) -> None:
        """Raises `BudgetExceeded`. Settled when the step of the call is recorded, whatever it says."""
        ...

    def price(self, model: str, usage: Usage) -> Price: ...

    def worst_price(self, model: str, input_tokens: int, output_tokens: int) -> Decimal | None:
        """None when the model's price is unknown: a dollar limit cannot be enforced on it then."""
        ...


class Verdicts(Protocol):
    """The actions of this run and what people said of them."""

    def find(self, intent: str) -> Action | None: ...

    def evidence(self, grant: ToolGrant) -> Evidence:
        """What people decided on calls of this agent that this grant would have let run alone."""
        ...

    def standing(self, call: Call, tool: ToolSpec, chosen: Route) -> Route:
        """`chosen`, or a release by what a person allowed in advance. Idempotent by `call.intent`."""
        ...

    def give_back(self, call: Call) -> None:
        """What `standing` took for a call that is not proposed after all."""
        ...

    def propose(
        self, call: Call, tool: ToolSpec, plan: ToolPlan | None, route: Route, *, position: int, held: bool
    ) -> Action:
        """Idempotent by `call.intent`: the first proposal stands."""
        ...

    def queued(self) -> Sequence[Action]:
        """Actions in the order they were proposed that still have to happen and were not asked about yet."""
        ...

    def asked(self, key: str) -> Sequence[Action] | None:
        """The actions of the batch that was asked under `key`, newest of each chain; None when there is none."""
        ...

    def ask(self, key: str, actions: Sequence[Action], why: str) -> None:
        """Puts the actions into one batch in the inbox. Idempotent by `key`."""
        ...

    def ask_question(self, question: Question) -> None:
        """Puts one question into the inbox, alone in a batch under its key: `asked` gives it back as an action of kind
        "question" (ANSWERED with the text in `note` and {"args": …} in `result`, REJECTED or EXPIRED). Idempotent."""
        ...

    def claim(self, action: Action, preconditions: JsonObject | None) -> Action:
        """approved -> executing, committed before the effect, or `NotReleased`. `preconditions` are today's, where the
        tool can tell them."""
        ...

    def execution(self, key: str) -> Execution:
        """What the approvers of the batch of `key` chose a failure to mean for the rest."""
        ...

    def chosen(self) -> Sequence[tuple[str, Sequence[Action]]]:
        """What people chose to carry out of a dry run, oldest first: a key each, and the actions as they are now."""
        ...

    def proposals_left(self) -> bool:
        """Whether a dry run has actions that nobody chose yet."""
        ...

    def withdraw(self, action: Action, reason: str) -> None:
        """pending or approved -> cancelled; whatever else it is stays as it is."""
        ...

    def take_back(self, action: Action, note: str, undone: bool) -> None:
        """succeeded -> cancelled once its effect was `undone`; else only the note of the failed attempt."""
        ...

    def ask_whether_it_happened(self, action: Action, why: str) -> None:
        """executing -> unknown: it may or may not have happened and the tool cannot tell. A person settles it."""
        ...


class Breakers(Protocol):
    """Circuit breakers by name (`tool:shop`, `model:claude-…`), shared by all workers. See `breakers.py`."""

    def peek(self, name: str) -> Unavailable | None:
        """Whether a call would be refused now. Cheap: may be a second old."""
        ...

    def enter(self, name: str) -> Unavailable | None:
        """Just before a call, which is to be made only when this is None. Of a half-open breaker one caller is let
        through. Afterwards `worked` or `failed` has to be said."""
        ...

    def worked(self, name: str) -> None: ...

    def failed(self, name: str, reason: str, retry_after_s: float | None = None) -> None:
        """`retry_after_s` is the other side's own word on when to call again."""
        ...


class Controls(Protocol):
    def interrupted(self) -> bool:
        """True once a person asked for cancel or pause, or the lease is gone. Cheap: asked between stream events."""
        ...

    def check(self) -> str | None:
        """`cancel`, `pause` or None, read afresh. Raises `LeaseLost`."""
        ...

    def messages(self) -> Sequence[tuple[str, str, str]]:
        """(id, who, text) of messages that people sent to the run, oldest first, delivered ones included."""
        ...
