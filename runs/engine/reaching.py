"""Reaching a tool: through its server's breaker, and again with patience where a repeat does no harm.

A failed try is a step of its own; the run parks until the next one, so that its worker is free meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import count
from typing import TypeVar

from runs.engine.breakers import Unavailable
from runs.engine.halting import Park
from runs.engine.ports import Breakers, Clock, Journal, Tool, ToolConnectionLost, ToolTimeout, ToolUnavailable
from runs.engine.types import JsonObject, Parked, Step, StepKind, StepStatus, ToolPlan, ToolResult

T = TypeVar("T")
WAITS_S = (1.0, 4.0)  # before the second and the third try
NOT_CALLED = "Not called: {server} is {words}. Do not call it before; go on with what you can do without it."
ToolFailure = ToolTimeout | ToolUnavailable | ToolConnectionLost
NOTHING_HAPPENED = {"happened": "no"}
FAILURES = (ToolTimeout, ToolUnavailable, ToolConnectionLost)


class Again(Exception):
    """A try that failed, and is made again later. `certain`: nothing of the call had happened before it."""

    def __init__(self, failure: ToolFailure, certain: bool) -> None:
        super().__init__(str(failure))
        self.failure = failure
        self.certain = certain


class Reach:
    def __init__(self, journal: Journal, clock: Clock, breakers: Breakers) -> None:
        self.journal = journal
        self.clock = clock
        self.breakers = breakers

    def closed(self, tool: Tool) -> Unavailable | None:
        """Whether nothing of its server is called now. Tools without a server are always there."""
        return self.breakers.peek(_name(tool)) if tool.spec.server else None

    def plan(self, tool: Tool, args: JsonObject) -> ToolPlan | None:
        """Raises `PlanRefused` and the tool's failures. A plan that is refused has reached the tool."""
        return self._through(tool, lambda: tool.plan(args)) if tool.spec.can_plan else None

    def execute(
        self,
        key: str,
        tool: Tool,
        args: JsonObject,
        *,
        idempotency_key: str,
        timeout_s: float,
        may_repeat: bool,
        certain: bool = True,
    ) -> ToolResult:
        """Raises `Again` while a repeat is harmless and not the last one; then the tool's failure itself. `certain`:
        nothing of this call can have happened yet."""
        try:
            return self._through(tool, lambda: tool.execute(args, idempotency_key=idempotency_key, timeout_s=timeout_s))
        except FAILURES as failure:
            if may_repeat and self.failures(key) < len(WAITS_S):
                raise Again(failure, certain) from failure
            raise

    def once(self, begun: Step, produce: Callable[[], Step]) -> Step:
        """`journal.once` for a step that may be tried again. The step says which try it was."""
        key, failures = begun.key, self.failures(begun.key)
        try:
            return self.journal.once(key, StepKind.TOOL, lambda: replace(produce(), attempt=failures + 1))
        except Again as again:
            failed = self._failed(begun, again, failures + 1)
            self.journal.once(failed.key, StepKind.TOOL, lambda: failed)
            raise Park(Parked(why="retry", retry_in_s=WAITS_S[failures])) from None

    def failures(self, key: str) -> int:
        return next(number for number in count() if self.journal.recorded(_failed_key(key, number + 1)) is None)

    def begins_again(self, key: str) -> bool:
        """Whether a further try begins just now and every try before it never reached the tool: nothing can have
        happened yet. Recorded before the try, so that one in which the worker died is not taken for a beginning."""
        failures = self.failures(key)
        tries = [self.journal.recorded(_failed_key(key, number)) for number in range(1, failures + 1)]
        if not tries or any(step is None or step.input != NOTHING_HAPPENED for step in tries):
            return False
        marker = f"{key}:again:{failures}"
        if self.journal.recorded(marker) is not None:
            return False
        step = Step(
            kind=StepKind.GUARDRAIL,
            title="Tries again",
            summary=f"Try {failures + 1} of {len(WAITS_S) + 1}; nothing was reached before.",
            attempt=failures + 1,
            started_at=self.clock.now(),
        )
        self.journal.once(marker, StepKind.GUARDRAIL, lambda: step)
        return True

    def wait_for(self, key: str, tool: Tool) -> None:
        """`Park` while the server of something that was released is not there. Each opening is recorded once."""
        closed = self.closed(tool)
        if closed is None:
            return
        step = Step(
            kind=StepKind.GUARDRAIL,
            title=f"Waits for {tool.spec.server}",
            status=StepStatus.DENIED,
            summary=f"{tool.spec.server} is {closed.words}."[:300],
            started_at=self.clock.now(),
        )
        self.journal.once(f"{key}:waits:{closed.until.timestamp():.0f}"[:120], StepKind.GUARDRAIL, lambda: step)
        left = (closed.until - self.clock.now()).total_seconds()
        raise Park(Parked(why="retry", retry_in_s=max(1.0, left)))

    def _through(self, tool: Tool, call: Callable[[], T]) -> T:
        if not tool.spec.server:
            return call()
        if (closed := self.breakers.enter(_name(tool))) is not None:
            raise ToolUnavailable(f"{tool.spec.server} is {closed.words}")
        try:
            answer = call()
        except FAILURES as failure:
            self.breakers.failed(_name(tool), words_of(failure))
            raise
        except BaseException:
            self.breakers.worked(_name(tool))  # it answered, if only by refusing
            raise
        self.breakers.worked(_name(tool))
        return answer

    def _failed(self, begun: Step, again: Again, number: int) -> Step:
        failure, text = again.failure, words_of(again.failure)
        started = begun.started_at or self.clock.now()
        return replace(
            begun,
            key=_failed_key(begun.key, number),
            title=f"{begun.title}, try {number}"[:200],
            status=StepStatus.TIMEOUT if isinstance(failure, ToolTimeout) else StepStatus.ERROR,
            summary=f"{text}. It is tried again."[:300],
            error=text[:2000],
            input={"happened": "no" if again.certain and isinstance(failure, ToolUnavailable) else "not known"},
            attempt=number,
            duration_ms=max(0, round((self.clock.now() - started).total_seconds() * 1000)),
        )


def words_of(failure: ToolFailure, tries: int = 1) -> str:
    what = "did not answer in time" if isinstance(failure, ToolTimeout) else "is unavailable"
    said = f": {str(failure).rstrip('.')}" if str(failure) else ""
    return f"The tool {what}{said}" + (f" (tried {tries} times)" if tries > 1 else "")


def _name(tool: Tool) -> str:
    return f"tool:{tool.spec.server}"


def _failed_key(key: str, number: int) -> str:
    return f"{key}:failed:{number}"
