"""One model call through the journal: bounded before, recorded after, its failures recorded too."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from itertools import count
from typing import Any

from runs.engine.budget import PromptBound, fit, from_count
from runs.engine.ports import Budget, BudgetExceeded, Clock, Controls, Interrupted, Journal, Llm, ModelError
from runs.engine.types import (
    Limits,
    ModelReply,
    ModelRequest,
    Parked,
    RunSpec,
    RunStatus,
    Step,
    StepKind,
    StepStatus,
    StopReason,
    Usage,
)

MOST_TRIES = 5
OPTIONAL_TRIES = 3
LONGEST_RETRY_S = 60.0
STOPPED = "stopped"


class Stop(Exception):
    """The run ends here, for `reason`. `limit` names the run's own limit that was reached, if it was one."""

    def __init__(self, reason: StopReason, detail: str, limit: str = "") -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
        self.limit = limit

    @property
    def status(self) -> RunStatus:
        if self.reason is StopReason.CANCELLED:
            return RunStatus.CANCELLED
        failures = (StopReason.MODEL_ERROR, StopReason.TOOL_ERROR, StopReason.INTERNAL_ERROR)
        return RunStatus.FAILED if self.reason in failures else RunStatus.STOPPED


class Park(Exception):
    """Nothing more can be done now."""

    def __init__(self, parked: Parked) -> None:
        super().__init__(parked.why)
        self.parked = parked


class Caller:
    """Calls the model on behalf of one run."""

    def __init__(
        self, run: RunSpec, journal: Journal, llm: Llm, budget: Budget, controls: Controls, clock: Clock
    ) -> None:
        self.run = run
        self.journal = journal
        self.llm = llm
        self.budget = budget
        self.controls = controls
        self.clock = clock
        self.bound = PromptBound()
        self.promised: set[str] = set()  # intents of proposed actions, whose one work step is still to come

    def call(
        self,
        key: str,
        kind: StepKind,
        title: str,
        request: ModelRequest,
        *,
        plan_step: int | None = None,
        keep_wrap_up: bool = True,
        conversation: bool = True,
        optional: bool = False,
        refine: Callable[[Step], Step] = lambda step: step,
    ) -> Step:
        """The recorded step of `key`. A call that fails is tried again later (`Park`) or ends the run (`Stop`); an
        `optional` one is in the end recorded under `key` as failed. `refine` completes the step before it is recorded.
        Without `keep_wrap_up` this is the last call, for which budget and time were kept back."""
        recorded = self.journal.recorded(key)
        if recorded is not None:
            if conversation:
                self._learn(request, recorded.usage)
            return recorded
        self.check(last=not keep_wrap_up)
        bound = (self.bound if conversation else PromptBound()).of(request)
        fitted = self._fit(request, bound, keep_wrap_up)
        attempt = self._recorded_so_far(f"{key}:failed") + 1
        begun = Step(
            key=key,
            kind=kind,
            title=title,
            model=request.model,
            attempt=attempt,
            plan_step=plan_step,
            started_at=self.clock.now(),
        )
        try:
            step = self.journal.once(key, kind, lambda: refine(self._produce(begun, fitted, timed=keep_wrap_up)))
        except Interrupted:
            self._record_failure(begun, "interrupted", "Stopped while the model was answering.")
            self.check()
            raise Park(Parked(why="retry", retry_in_s=0)) from None
        except ModelError as error:
            if optional and (not error.retryable or attempt >= OPTIONAL_TRIES):
                return self._record(refine(replace(_failed(begun, error.detail, self._since(begun)), key=key)))
            self._record_failure(begun, "failed", f"{error.code}: {error.detail}")
            raise self._after(error, attempt) from None
        if conversation:
            self._learn(request, step.usage)
        return step

    def heed(self) -> None:
        """What people wish, before anything new is begun."""
        match self.controls.check():
            case "cancel":
                raise Stop(StopReason.CANCELLED, "A person cancelled this run.")
            case "pause":
                raise Park(Parked(why="paused"))

    def check(self, *, last: bool = False) -> None:
        """Before each new step: people's wishes, then the limits of steps and time. Who stopped stays stopped."""
        self.heed()
        if not last and (stopped := self.journal.recorded(STOPPED)) is not None:
            raise Stop(StopReason(stopped.input["reason"]), stopped.summary)
        limits = self.run.limits
        needed = 1 if last else 2 + len(self.promised)
        if limits.max_steps is not None and self.journal.spent().steps + needed > limits.max_steps:
            raise Stop(StopReason.MAX_STEPS, f"the limit of {limits.max_steps} steps is reached", "max_steps")
        if not last and limits.max_seconds is not None and self.elapsed_s() >= limits.max_seconds:
            raise Stop(StopReason.MAX_SECONDS, f"the limit of {limits.max_seconds} seconds is reached", "max_seconds")

    def record_stop(self, stop: Stop) -> None:
        """So that a crash while wrapping up changes neither the reason nor the fact."""
        step = Step(
            kind=StepKind.GUARDRAIL,
            title="Stopped",
            status=StepStatus.DENIED,
            summary=stop.detail,
            input={"reason": stop.reason.value},
            started_at=self.clock.now(),
        )
        self.journal.once(STOPPED, StepKind.GUARDRAIL, lambda: step)

    def elapsed_s(self) -> float:
        return (self.clock.now() - self.run.started_at).total_seconds() - self.run.waited_ms / 1000

    def _fit(self, request: ModelRequest, bound: int, keep_wrap_up: bool) -> ModelRequest:
        """Close to a limit the provider is asked for its own count: our bound takes each new byte for a token."""
        try:
            try:
                fitted = self._reserved(request, bound, keep_wrap_up)
                exact = bound if fitted.max_tokens == request.max_tokens else self._counted(request, bound)
            except BudgetExceeded:
                exact = self._counted(request, bound)
                if exact >= bound:
                    raise
            return fitted if exact >= bound else self._reserved(request, exact, keep_wrap_up)
        except BudgetExceeded as exceeded:
            raise Stop(StopReason(exceeded.limit), exceeded.detail, exceeded.field) from None

    def _reserved(self, request: ModelRequest, bound: int, keep_wrap_up: bool) -> ModelRequest:
        limits: Limits = self.run.limits
        spent = self.journal.spent()
        return fit(request, bound, limits=limits, spent=spent, budget=self.budget, keep_wrap_up=keep_wrap_up)

    def _counted(self, request: ModelRequest, bound: int) -> int:
        tokens = self.llm.count_tokens(request)
        return bound if tokens is None else min(bound, from_count(tokens))

    def _produce(self, begun: Step, request: ModelRequest, *, timed: bool) -> Step:
        self.journal.in_flight(begun)
        interrupted = self._interrupted if timed else self.controls.interrupted
        reply = self.llm.complete(request, on_text=self.journal.text, interrupted=interrupted)
        return replace(
            begun,
            summary=_summary(reply),
            input={"messages": len(request.messages), "max_tokens": request.max_tokens},
            output={"content": list(reply.content), "stop_reason": reply.stop_reason, "request_id": reply.request_id},
            reasoning=reply.text if reply.tool_uses else "",
            model=reply.model,
            usage=reply.usage,
            price=self.budget.price(reply.model, reply.usage),
            duration_ms=self._since(begun),
        )

    def _interrupted(self) -> bool:
        limit = self.run.limits.max_seconds
        return self.controls.interrupted() or (limit is not None and self.elapsed_s() >= limit)

    def _after(self, error: ModelError, attempt: int) -> Exception:
        if not error.retryable:
            return Stop(StopReason.MODEL_ERROR, f"the model provider refused: {error.detail}")
        if attempt >= MOST_TRIES:
            return Stop(StopReason.MODEL_ERROR, f"the model did not answer in {attempt} tries: {error.detail}")
        wait = error.retry_after_s if error.retry_after_s is not None else min(2.0 ** (attempt - 1), LONGEST_RETRY_S)
        return Park(Parked(why="retry", retry_in_s=wait))

    def _recorded_so_far(self, key: str) -> int:
        return next(number for number in count() if self.journal.recorded(f"{key}:{number + 1}") is None)

    def _record_failure(self, begun: Step, how: str, detail: str) -> Step:
        """Under a key of its own kind: being interrupted does not use up the tries of a failing model."""
        key = f"{begun.key}:{how}"
        failed = replace(_failed(begun, detail, self._since(begun)), key=f"{key}:{self._recorded_so_far(key) + 1}")
        return self._record(failed)

    def _record(self, step: Step) -> Step:
        return self.journal.once(step.key, step.kind, lambda: step)

    def _learn(self, request: ModelRequest, usage: Usage) -> None:
        self.bound.learn(request, usage.prompt_tokens)

    def _since(self, begun: Step) -> int:
        started: datetime = begun.started_at or self.clock.now()
        return max(0, round((self.clock.now() - started).total_seconds() * 1000))


def _failed(begun: Step, detail: str, duration_ms: int) -> Step:
    return replace(begun, status=StepStatus.ERROR, summary=detail[:300], error=detail, duration_ms=duration_ms)


def _summary(reply: ModelReply) -> str:
    if reply.text:
        return " ".join(reply.text.split())[:300]
    names = [str(block.get("name", "")).replace("__", ".", 1) for block in reply.tool_uses]
    return f"Calls {', '.join(names)}"[:300] if names else ""


def reply_of(step: Step) -> ModelReply:
    """The reply that a model step recorded."""
    output: dict[str, Any] = step.output if isinstance(step.output, dict) else json.loads(step.output or "{}")
    return ModelReply(
        content=tuple(output.get("content") or ()),
        stop_reason=output.get("stop_reason"),
        usage=step.usage,
        model=step.model,
        request_id=str(output.get("request_id") or ""),
    )
